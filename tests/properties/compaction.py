"""The planner of compactions against the cheapest schedule: `python -m tests.properties.compaction [--json]`.

Small random sessions whose number of remaining requests is known and whose contents are not. Before each request the
planner is asked anew (``decide``), and what it chose is priced. Two references, by exhaustive dynamic programming: `known`
knows the growth of every request beforehand; `expected` knows what the planner knows, and searches all schedules anew at
each request with the mean in place of what is to come. In `steady` sessions every request adds the mean, so both are
the same. Beside the planner, above `known`: `half` and `twice` are the planner with a horizon that is wrong by that factor, `never`
makes no cut (sessions whose window it fits), `rarely` asks the planner again only when `Decision.again` says so. All
costs are simulated. Exits with 1 if a row's mean is more than 2 % above `known` in steady sessions or above `expected` in random ones.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from tests.properties.cutting import (
    RULES,
    Option,
    Rule,
    Session,
    State,
    beginning,
    best,
    fits,
    generated,
    mean_share,
    options,
    price,
    steadied,
)

from llmbuffer.compaction.economics import Cut, Decision, Outlook, Terms, decide

BOUND = 0.02
FIGURES = ("known", "expected", "half", "twice", "never", "rarely")
Kind = Literal["elide", "summary"]
WAYS: dict[str, tuple[Kind, bool]] = {
    "elide": ("elide", False),
    "summary, free": ("summary", False),
    "summary, paid": ("summary", True),
}
Choose = Callable[[Session, int, State, list[Option]], Option]


class Outcome(NamedTuple):
    """What a session cost above a reference, as a fraction of it, by who decided."""

    seed: int
    warm: bool
    window: bool
    cuts: int
    known: float
    expected: float
    half: float
    twice: float
    never: float | None
    rarely: float


def outlook(session: Session, request: int, found: Sequence[Option], factor: float = 1.0) -> Outlook:
    """What the planner is told: the cuts there are, the mean growth, the requests after this one."""
    rule, kind = session.rule, session.kind
    newest = session.blocks[session.start + request].tokens
    return Outlook(
        prompt=found[0].kept + found[0].left,
        new=newest,
        protected=newest,
        cuts=tuple(
            Cut(action=kind, kept=o.kept, left=o.left, making=o.output, folds=kind == "summary")
            for o in found[1:]
        ),
        terms=Terms(
            read=rule.read, write=rule.write, output=rule.output, minimum=rule.minimum, step=rule.step
        ),
        growth=session.growth,
        tail=session.growth,
        remaining=round((session.requests - request - 1) * factor),
        idle=0.0 if session.warm or request else None,
        max_tokens=session.limit,
    )


def run(session: Session, choose: Choose) -> tuple[float, int]:
    """The price of a session whose cuts ``choose`` makes, and how many it made; infinite if the window is left."""
    total, cuts, state = 0.0, 0, beginning(session)
    for request in range(session.requests):
        found = list(options(session, request, state))
        taken = choose(session, request, state, found)
        if not fits(session, taken):
            return float("inf"), cuts
        total += price(session, taken, found[0].kept + found[0].left, warm=session.warm or request > 0)
        cuts += taken.cut is not None
        state = taken.state
    return total, cuts


def planner(factor: float = 1.0) -> Choose:
    """``decide``, asked before every request, with a horizon that is wrong by ``factor``."""

    def choose(session: Session, request: int, _state: State, found: list[Option]) -> Option:
        return taken(decide(outlook(session, request, found, factor)), found)

    return choose


def patient() -> Choose:
    """``decide``, asked again only after the growth that its last answer names, or when the window is reached."""
    until = 0

    def choose(session: Session, request: int, _state: State, found: list[Option]) -> Option:
        nonlocal until
        prompt = found[0].kept + found[0].left
        if prompt < until and fits(session, found[0]):
            return found[0]
        decision = decide(outlook(session, request, found))
        until = 0 if decision.compact else prompt + decision.again
        return taken(decision, found)

    return choose


def taken(decision: Decision, found: Sequence[Option]) -> Option:
    """The option that a decision stands for."""
    if not decision.compact or decision.cut is None:
        return found[0]
    wanted = (decision.cut.kept, decision.cut.left)
    return next(option for option in found[1:] if (option.kept, option.left) == wanted)


def expected(session: Session, request: int, state: State, found: list[Option]) -> Option:
    """The first step of the best schedule, with the mean for everything that is still to come."""
    share = mean_share(session.blocks[: session.start + request + 1])
    _, cuts = best(steadied(session, request, share), request, state)
    if not cuts:  # nothing fits the mean to its end: as the planner does, look no further than this request
        return min(
            (option for option in found if fits(session, option)),
            key=lambda o: o.kept + o.left,
            default=found[0],
        )
    return next(option for option in found if option.cut == cuts[0])


def never(_session: Session, _request: int, _state: State, found: list[Option]) -> Option:
    """No cut at all."""
    return found[0]


def compare(seed: int, rule: Rule, way: str, *, steady: bool) -> Outcome | None:
    """One session, or None if its window is too small for any schedule."""
    kind, making = WAYS[way]
    session = generated(random.Random(seed), rule, kind, making=making, steady=steady)
    lowest, _ = best(session)
    if lowest == float("inf"):
        return None
    paid, cuts = run(session, planner())
    informed = lowest if steady else run(session, expected)[0]
    without = run(session, never)[0]
    return Outcome(
        seed=seed,
        warm=session.warm,
        window=session.limit is not None,
        cuts=cuts,
        known=paid / lowest - 1,
        expected=paid / informed - 1,
        half=run(session, planner(0.5))[0] / lowest - 1,
        twice=run(session, planner(2.0))[0] / lowest - 1,
        never=None if without == float("inf") else without / lowest - 1,
        rarely=run(session, patient())[0] / lowest - 1,
    )


def mean(found: Sequence[Outcome], name: str) -> float:
    """The mean of one figure, over the sessions that have it."""
    values: list[float] = [value for value in (getattr(one, name) for one in found) if value is not None]
    return sum(values) / max(1, len(values))


def summary(found: Sequence[Outcome]) -> dict[str, Any]:
    """Means and worsts over several sessions; fractions above the reference."""
    row: dict[str, Any] = {"sessions": len(found), "cuts": sum(one.cuts for one in found)}
    row |= {name: mean(found, name) for name in FIGURES}
    for name in ("known", "expected"):
        row[f"worst_{name}"] = max(getattr(one, name) for one in found)
        row[f"above_{name}"] = sum(getattr(one, name) > BOUND for one in found)
    return row


def table(count: int, show: Callable[[str], None]) -> tuple[dict[str, Any], bool]:
    """All rows, told to ``show`` as they are found, and whether all bounds hold."""
    document: dict[str, Any] = {}
    everything: list[Outcome] = []
    holds = True
    for way in WAYS:
        for rule in RULES:
            for growth in ("steady", "random"):
                runs = (compare(seed, rule, way, steady=growth == "steady") for seed in range(count))
                found = [one for one in runs if one is not None]
                everything += found
                row = document[f"{way}, {rule.name}, {growth}"] = summary(found)
                holds &= row["known" if growth == "steady" else "expected"] <= BOUND
                show(line(f"{way:13} {rule.name:19} {growth}", row))
    for name, part in {
        "warm": [one for one in everything if one.warm],
        "cold": [one for one in everything if not one.warm],
        "window": [one for one in everything if one.window],
        "no window": [one for one in everything if not one.window],
    }.items():
        document[name] = summary(part)
        show(line(f"all, {name}", document[name]))
    return document, holds


def line(name: str, row: dict[str, Any]) -> str:
    """A row for people: percentages above the reference."""
    told = [
        f"{row[key] * 100:6.2f} {row['worst_' + key] * 100:6.1f} {row['above_' + key]:4}"
        for key in FIGURES[:2]
    ]
    rest = " ".join(f"{row[key] * 100:6.2f}" for key in FIGURES[2:])
    return f"{name:40} {row['sessions']:6} {row['cuts']:6} | {told[0]} | {told[1]} | {rest}"


def main() -> int:
    """Compare, print, and say whether the bounds hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=100, help="of each row; 16 a second on one core")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    show: Callable[[str], None] = (lambda _: None) if options.json else (lambda text: print(text, flush=True))
    show(
        "% above the cheapest schedule that knows the growth | that expects the mean | wrong horizons, no cuts, asking rarely"
    )
    show(
        f"{'':40} {'number':>6} {'cuts':>6} | {'mean':>6} {'worst':>6} {'>2%':>4} | {'mean':>6} {'worst':>6} {'>2%':>4} | "
        f"{'half':>6} {'twice':>6} {'never':>6} {'rarely':>6}"
    )
    document, holds = table(options.sessions, show)
    if options.json:
        print(json.dumps(document, indent=2))
    return int(not holds)


if __name__ == "__main__":
    sys.exit(main())
