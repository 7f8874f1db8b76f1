"""The planner of breakpoints against the best static choice: `python -m tests.properties.breakpoints [--json]`.

Random workloads of sessions that share levels of their system text, fork, and append up to 60 positions between two
requests. Every request's marks, as ``Session`` plans them, are priced by the exact cache model, and so is every static
choice: any at most four kinds of place, marked in every request.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import combinations, count
from typing import Any, NamedTuple

import msgspec

from llmbuffer import CacheModel, CacheRules, Message, Request, Segment, Session, StableContext, Usage
from llmbuffer.context import Level
from llmbuffer.snapshot import MarkAt, Snapshot
from llmbuffer.testing import FakeClock

LEVELS: tuple[Level, ...] = ("global", "tenant", "user", "session")
FOREVER = 1e12  # seconds: what expires is another question


class Counter:
    """A text says how many tokens it has."""

    name = "declared"
    estimated = False

    def count(self, text: str) -> int:
        declared = re.search(r"#(\d+)", text)
        return int(declared[1]) if declared is not None else 0


class Sent(NamedTuple):
    """One request: as planned, and every place that could be marked, by kind."""

    planned: Snapshot
    places: dict[str, MarkAt]


class Workload:
    """Sessions in a tree of tenants and users, and what each of them sends."""

    def __init__(self, seed: int, model: str) -> None:
        self.random = random.Random(seed)
        self.model = model
        self.clock = FakeClock()
        self.numbers = count()
        self.sent: list[Sent] = []
        self._rules: CacheRules | None = None
        self._run()

    def _run(self) -> None:
        draw = self.random
        sizes = {level: draw.choice([0, 300, 800, 2_000, 5_000]) for level in LEVELS}
        tools = draw.choice([0, 400, 1_500, 4_000])
        tenants, users, sessions = draw.randint(1, 3), draw.randint(1, 2), draw.randint(1, 2)
        shared = {
            "session": 1,
            "user": sessions,
            "tenant": users * sessions,
            "global": tenants * users * sessions,
        }
        sharing = {**shared, "tools": shared["global"]}
        for tenant in range(tenants):
            for user in range(users):
                for number in range(sessions):
                    names = {
                        "global": "",
                        "tenant": f"{tenant}",
                        "user": f"{tenant}.{user}",
                        "session": f"{tenant}.{user}.{number}",
                    }
                    system = [
                        Segment(level, f"{names[level]}#{sizes[level]}", level)
                        for level in LEVELS
                        if sizes[level]
                    ]
                    self._session(StableContext(self.model, system, self._tools(tools)), sharing)

    def _tools(self, tokens: int) -> list[dict[str, Any]]:
        return [{"name": "tool", "description": f"#{tokens}"}] if tokens else []

    def _session(self, context: StableContext, sharing: dict[str, int]) -> None:
        draw = self.random
        dialect = "anthropic" if self.model.startswith("claude") else "openai"
        session = Session(context, dialect, tokens=Counter(), clock=self.clock, sharing=sharing)
        self._rules = session.dialect.rules
        positions, turns = draw.choice([1, 5, 18, 25, 60]), draw.randint(2, 4)
        self._turns(session, turns, positions)
        for _ in range(draw.choice([0, 0, 2, 4])):
            self._turns(session.fork(), draw.randint(1, 3), positions)

    def _turns(self, session: Session, turns: int, positions: int) -> None:
        for _ in range(turns):
            most = self.random.randint(1, positions)
            session.append([self._message(index) for index in range(most - most % 2)])
            request = session.request(f"{next(self.numbers)}#{self.random.randint(50, 600)}")
            self.sent.append(Sent(request.snapshot, places(request)))
            self.clock.advance(1)
            request.observe(
                Usage(1), Message("assistant", f"{next(self.numbers)}#{self.random.randint(50, 300)}")
            )

    def _message(self, index: int) -> Message:
        return Message(
            "user" if index % 2 == 0 else "assistant", f"{next(self.numbers)}#{self.random.randint(20, 200)}"
        )

    @property
    def rules(self) -> CacheRules:
        assert self._rules is not None
        return msgspec.structs.replace(self._rules, ttl=FOREVER)

    def cost(self, choice: Sequence[str] | None) -> float:
        """Price of all input in tokens at input price; ``None`` is the planner's own choice."""
        rules = self.rules
        model, total = CacheModel(rules), 0.0
        for at, sent in enumerate(self.sent):
            snapshot = sent.planned
            if choice is not None:
                marks = tuple(sent.places[kind] for kind in choice if kind in sent.places)
                snapshot = msgspec.structs.replace(snapshot, marks=marks)
            look = model.commit(snapshot, float(at))
            total += look.read_tokens * rules.read_multiplier + look.write_tokens * rules.write_multiplier
            total += look.fresh_tokens
        return total

    def choices(self) -> Iterator[tuple[str, ...]]:
        """Every static choice of at most as many kinds as there are slots."""
        kinds = sorted({kind for sent in self.sent for kind in sent.places})
        slots = self.rules.slots + self.rules.implicit  # without the implicit one, its slot is free
        for size in range(slots + 1):
            yield from combinations(kinds, size)


def places(request: Request) -> dict[str, MarkAt]:
    """Every place of a request that may carry a mark, by kind."""
    prompt = request._prompt
    state = prompt.placed.state
    anchors = {"tail": state.anchor, "previous": state.previous_tail, "fork": prompt._fork_anchor}
    found = {kind: MarkAt(anchor.node) for kind, anchor in anchors.items() if anchor is not None}
    markable = {level.name: level for level in prompt.head.levels if level.place.part >= 0}
    return found | {name: MarkAt(level.node, in_head=True) for name, level in markable.items()}


class Outcome(NamedTuple):
    """What the planner pays above the best static choice, as a fraction of it, and which that was."""

    seed: int
    excess: float
    best: tuple[str, ...]


def compare(seed: int, model: str) -> Outcome:
    """One workload."""
    workload = Workload(seed, model)
    priced = ((workload.cost(choice), choice) for choice in workload.choices())
    best, choice = min(priced)
    return Outcome(seed, workload.cost(None) / best - 1, choice)


def main() -> int:
    """Compare, print, and say whether the planner was within 2 % everywhere."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", type=int, default=300)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    document: dict[str, Any] = {}
    for model in ("claude-sonnet-4.5", "gpt-5.6"):
        found = [compare(seed, model) for seed in range(options.workloads)]
        worst = max(found, key=lambda outcome: outcome.excess)
        mean = sum(outcome.excess for outcome in found) / len(found)
        document[model] = {
            "workloads": len(found),
            "mean_excess": mean,
            "worst_excess": worst.excess,
            "worst": worst,
        }
        if not options.json:
            print(
                f"{model}: {len(found)} workloads, planner above the best static choice: mean {mean:+.4f}, worst {worst}"
            )
            for outcome in sorted(found, key=lambda outcome: -outcome.excess)[:5]:
                print("   ", outcome)
    if options.json:
        print(json.dumps(document, indent=2))
    return int(any(row["worst_excess"] > 0.02 for row in document.values()))


if __name__ == "__main__":
    sys.exit(main())
