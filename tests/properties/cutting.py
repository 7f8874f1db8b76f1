"""Small sessions that can be cut, and the cheapest schedule of cuts by exhaustive dynamic programming.

Shares no code with ``llmbuffer.compaction``: prices, cuts and the search are written again, from the rules themselves. A session
is a head that never changes, blocks that stand in the history at the start, and one new block for each request. A
cut either replaces every block from one on by what is left of it ("elide"), or everything up to a block by one text
of fixed size ("summary"). The newest block is never touched.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

State = tuple[
    int, ...
]  # elide: 1 for each block that was gone over; summary: (blocks that the summary stands for,)
Cut = int  # elide: the first block that changes; summary: the first block that is kept


class Rule(NamedTuple):
    """What a model's tokens cost in input tokens, and from how many on a prompt is cached."""

    name: str
    read: float
    write: float
    output: float
    minimum: int = 1024
    step: int = 1


RULES = (
    Rule("anthropic 5 min", 0.1, 1.25, 5),
    Rule("anthropic 1 h", 0.1, 2.0, 5),
    Rule("anthropic read 0.05", 0.05, 1.25, 5, minimum=512),
    Rule("openai to gpt-5.5", 0.1, 1.0, 6, step=128),
    Rule("openai gpt-4o", 0.5, 1.0, 4, step=128),
    Rule("openai gpt-5.6", 0.1, 1.25, 5),
    Rule("openai gpt-5.6 12 h", 0.1, 2.5, 5),
    Rule("deepseek-v4-pro", 1 / 30, 1.0, 3, minimum=0, step=64),
    Rule("gemini-3.1-pro", 0.1, 1.0, 6, minimum=4096),
)


class Block(NamedTuple):
    """Tokens that a request adds, and how many of them eliding leaves."""

    tokens: int
    residue: int


class Session(NamedTuple):
    """``blocks[:start]`` are in the history at first; request ``i`` adds ``blocks[start + i]``."""

    rule: Rule
    kind: Literal["elide", "summary"]
    head: int
    blocks: tuple[Block, ...]
    start: int
    growth: float  # what a request adds in the mean
    summary: int = 0
    making: bool = False  # whether the summary has to be paid for
    warm: bool = True
    limit: int | None = None

    @property
    def requests(self) -> int:
        return len(self.blocks) - self.start


class Option(NamedTuple):
    """What a request may do: ``cut`` (None: nothing), the tokens before and behind it, the tokens of a summary."""

    cut: Cut | None
    kept: int
    left: int
    output: int
    state: State


def generated(
    rng: random.Random,
    rule: Rule,
    kind: Literal["elide", "summary"],
    *,
    making: bool = False,
    steady: bool = False,
) -> Session:
    """A random session of 6 to 14 requests; ``steady``: each adds exactly the mean, and leaves the mean share."""
    growth = rng.choice((150, 400, 900, 2000))
    share = rng.uniform(0.05, 0.8)
    start, requests = rng.randint(1, 5), rng.randint(6, 14)

    def block(size: float) -> Block:
        if steady:
            return Block(round(size), round(size * share))
        tokens = max(1, round(size * rng.lognormvariate(-0.18, 0.6)))  # of mean 1
        return Block(tokens, round(tokens * min(1.0, share * rng.uniform(0.3, 1.7))))

    history = [block(growth * rng.choice((1, 3, 8))) for _ in range(start)]
    blocks = (*history, *(block(growth) for _ in range(requests)))
    head = rng.choice((800, 3000, 8000))
    limit = None
    if rng.random() < 0.5:
        # Room for the largest prompt that cannot be made smaller, and for some of the rest.
        least = (
            head
            + max(sum(b.residue if kind == "elide" else 0 for b in blocks) + max(blocks).tokens, 2000)
            + 2 * 1200
        )
        limit = round(least + rng.uniform(0.1, 0.9) * max(0, head + sum(b.tokens for b in blocks) - least))
    return Session(
        *(rule, kind, head, blocks, start, growth),
        summary=rng.choice((150, 500, 1200)),
        making=making,
        warm=rng.random() < 0.6,
        limit=limit,
    )


def beginning(session: Session) -> State:
    """Nothing was cut yet."""
    return (0,) * session.start if session.kind == "elide" else (0,)


def options(session: Session, request: int, state: State) -> Iterator[Option]:
    """Everything that request ``request`` may do in ``state``."""
    newest = session.start + request
    if session.kind == "elide":
        yield from _elided(session, newest, state)
    else:
        yield from _summarised(session, newest, state)


def _elided(session: Session, newest: int, state: State) -> Iterator[Option]:
    blocks = session.blocks
    sizes = [blocks[i].residue if state[i] else blocks[i].tokens for i in range(newest)]
    whole = session.head + sum(sizes)
    yield Option(None, whole, blocks[newest].tokens, 0, (*state, 0))
    left, kept = blocks[newest].tokens, whole
    for first in reversed(range(newest)):
        left, kept = left + blocks[first].residue, kept - sizes[first]
        if not state[first] and blocks[first].residue < blocks[first].tokens:
            yield Option(first, kept, left, 0, (*state[:first], *(1,) * (newest - first), 0))


def _summarised(session: Session, newest: int, state: State) -> Iterator[Option]:
    (folded,) = state
    behind = sum(block.tokens for block in session.blocks[folded:newest])
    held = session.head + (session.summary if folded else 0) + behind
    fresh = session.blocks[newest].tokens
    yield Option(None, held, fresh, 0, state)
    output = session.summary if session.making else 0
    for first in range(folded + 1, newest + 1):
        behind -= session.blocks[first - 1].tokens
        if session.head + session.summary + behind < held:  # else it makes nothing smaller
            yield Option(first, session.head, session.summary + behind + fresh, output, (first,))


def price(session: Session, option: Option, before: int, *, warm: bool) -> float:
    """A request that takes ``option`` with a prompt that had ``before`` tokens, in input tokens."""
    rule, prompt = session.rule, option.kept + option.left
    found = option.kept // rule.step * rule.step if warm and option.kept >= rule.minimum else 0
    paid = float(prompt) if prompt < rule.minimum else rule.read * found + rule.write * (prompt - found)
    if option.output:
        paid += rule.output * option.output + before * (rule.read if warm else 1.0)
    return paid


def fits(session: Session, option: Option) -> bool:
    return session.limit is None or option.kept + option.left <= session.limit


def best(session: Session, request: int = 0, state: State | None = None) -> tuple[float, list[Cut | None]]:
    """The price of the cheapest schedule from ``request`` on, and its cuts; infinite where none fits the window."""
    reached: dict[State, tuple[float, list[Cut | None]]] = {state or beginning(session): (0.0, [])}
    bound = min(
        _naive(session, request, state or beginning(session), at) for at in range(-1, session.requests)
    )
    for step in range(request, session.requests):
        following: dict[State, tuple[float, list[Cut | None]]] = {}
        rest = _floor(session, step + 1)
        for found, (spent, cuts) in reached.items():
            before = 0
            for option in options(session, step, found):
                before = before or option.kept + option.left  # the first option changes nothing
                if not fits(session, option):
                    continue
                cost = spent + price(session, option, before, warm=session.warm or step > 0)
                known = following.get(option.state)
                if cost + rest <= bound + 1e-6 and (known is None or cost < known[0]):
                    following[option.state] = (cost, [*cuts, option.cut])
        reached = following
    return min(reached.values(), key=lambda pair: pair[0], default=(float("inf"), []))


def _floor(session: Session, request: int) -> float:
    """Less than requests from ``request`` on can cost: everything is cut, and nothing was paid for it."""
    total, rule = 0.0, session.rule
    for step in range(request, session.requests):
        old = session.blocks[: session.start + step]
        least = session.head + (sum(min(block) for block in old) if session.kind == "elide" else 0)
        fresh = session.blocks[session.start + step].tokens
        total += min(rule.read * least + min(rule.write, 1) * fresh, least + fresh)
    return total


def _naive(session: Session, request: int, state: State, at: int) -> float:
    """The price of the one largest cut before request ``at``, if that fits: a bound for the search."""
    total = 0.0
    for step in range(request, session.requests):
        found = list(options(session, step, state))
        wanted = (
            [min(found[1:], key=lambda option: option.kept + option.left)] if found[1:] and step == at else []
        )
        option = next(iter(wanted), found[0])
        if not fits(session, option):
            return float("inf")
        total += price(session, option, sum(found[0][1:3]), warm=session.warm or step > 0)
        state = option.state
    return total


def steadied(session: Session, request: int, share: float) -> Session:
    """The same, with every block after that of ``request`` replaced by the mean: what can be known at ``request``."""
    known = session.blocks[: session.start + request + 1]
    size = round(session.growth)
    ahead = (Block(size, round(size * share)),) * (len(session.blocks) - len(known))
    return session._replace(blocks=(*known, *ahead))


def mean_share(blocks: Sequence[Block]) -> float:
    """What eliding leaves of the blocks known so far."""
    return sum(block.residue for block in blocks) / max(1, sum(block.tokens for block in blocks))
