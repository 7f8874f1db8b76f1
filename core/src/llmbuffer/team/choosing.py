"""Which layout is cheaper: both are rehearsed, request by request, under the dialect's rules before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import count

import msgspec

from ..family import Family
from ..messages import Message
from ..observing import Answer, next_state
from ..prices import Price, cost
from ..session import Session
from ..tokens import TokenCounter
from ..usage import Usage
from .layouts import Layout, LayoutName, Roles, layout_of
from .members import Cast
from .telling import Said, cue

__all__ = ["EXPECTED_TURNS", "TURN_TOKENS", "Choice", "choose", "turn_tokens"]

EXPECTED_TURNS = 20
TURN_TOKENS = (
    500  # said at a turn, while nobody has said anything: recorded group chats come to 540 on average
)
_NEAR = 1.02  # costs that count as equal: then more of the prompt from the cache, which is also served sooner
_REHEARSED = 64  # turns at most: by then the cheaper layout has shown
_BLANK = re.compile("\x00([0-9]+)\x00")


class Choice(msgspec.Struct, frozen=True):
    """A layout, why it was taken, and what each would cost.

    ``roles`` says, of a shared layout, whether roles end the prompt for a ``turn`` or are told once and stay (``sticky``).
    ``costs`` are in US dollars for the input of all turns rehearsed, or in input tokens where no price is known, by ``separate``,
    ``shared, roles turn`` and ``shared, roles sticky``; empty where nothing was to be weighed.

    >>> Choice("separate", "as declared").costs
    {}
    """

    layout: LayoutName
    reason: str
    roles: Roles = "turn"
    costs: Mapping[str, float] = {}


def choose(
    base: Session,
    cast: Cast,
    *,
    layout: str = "auto",
    roles: str = "auto",
    history: Sequence[Said] = (),
    turns: int = EXPECTED_TURNS,
    tokens: int = TURN_TOKENS,
) -> Choice:
    """The cheapest of what ``layout`` and ``roles`` leave open (``auto``: everything), for ``turns`` turns after ``history``.

    They are rehearsed with the prompts as they would be sent, ``tokens`` tokens said at each turn and members in rotation,
    from a cold cache, one second between the requests; output costs the same in all and is left out. Nothing is sent, and no
    session is changed. ``separate`` it is where all cost the same, where tools cannot be merged, and where the session
    compacts its history, which each fork of a transcript would do for itself. Within 2 % of the least cost, the one that reads
    most of its input from the cache is taken, since that is served sooner.

    >>> from llmbuffer import Session, StableContext
    >>> from llmbuffer.team import Member, cast_of
    >>> context = StableContext("gpt-5.5", "Work together. " * 500)
    >>> cast = cast_of(context, [Member("ann", "Sing."), Member("bob", "Dance.")])
    >>> choose(Session(context), cast).layout
    'shared'
    """
    options = _options(layout, roles)
    if layout == "auto" and cast.shared is None:
        return Choice("separate", f"separate: {cast.conflict}")
    if layout == "auto" and base._compaction is not None:
        return Choice("separate", "separate: the session compacts its history, and a transcript cannot")
    if len(options) == 1:
        [(name, placed)] = options.values()
        return Choice(name, f"{name}: as declared", placed)
    length = max(1, min(turns, _REHEARSED))
    rehearsed = {
        shown: _rehearsed(layout_of(name, _unlike(base), cast, placed), history, length, tokens)
        for shown, (name, placed) in options.items()
    }
    costs = {shown: outcome.cost for shown, outcome in rehearsed.items()}
    near = [shown for shown in costs if costs[shown] <= min(costs.values()) * _NEAR]
    best = max(near, key=lambda shown: rehearsed[shown].usage.hit_ratio)
    name, placed = options[best]
    return Choice(name, _reason(best, costs, base, cast, f"{length} turns of {tokens} tokens"), placed, costs)


def _options(layout: str, roles: str) -> dict[str, tuple[LayoutName, Roles]]:
    placements: list[Roles] = [each for each in _ROLES if roles in ("auto", each)]
    options: dict[str, tuple[LayoutName, Roles]] = {}
    if layout in ("auto", "separate"):
        options["separate"] = ("separate", "turn")
    if layout in ("auto", "shared"):
        options |= {f"shared, roles {placed}": ("shared", placed) for placed in placements}
    return options


_ROLES: tuple[Roles, ...] = ("turn", "sticky")


def _reason(best: str, costs: Mapping[str, float], base: Session, cast: Cast, over: str) -> str:
    priced = base.family.price(base.context.model) is not None
    unit = "{:.4f} USD" if priced else "{:,.0f} input tokens"
    listed = "; ".join(
        f"{shown} {unit.format(costs[shown])}" for shown in sorted(costs, key=lambda name: costs[name])
    )
    common = cast.common_characters
    note = f", {common:,} characters common to all prompts" if common else ""
    return f"{best}: {over}, {len(cast.members)} members{note}, cost of the input: {listed}"


def turn_tokens(history: Sequence[Said], counter: TokenCounter) -> int:
    """The mean tokens of a member's turn so far; ``TURN_TOKENS`` where there was none."""
    found = [
        sum(counter.count(message.text) for message in said.messages) for said in history if said.speaker
    ]
    return max(1, round(sum(found) / len(found))) if found else TURN_TOKENS


class _Blanks:
    """A counter that takes blanks for as many tokens as they say."""

    def __init__(self, counter: TokenCounter) -> None:
        self._counter = counter
        self.name, self.estimated = counter.name, counter.estimated

    def count(self, text: str) -> int:
        blank = _BLANK.search(text)
        if blank is None:
            return self._counter.count(text)
        return int(blank[1]) + self._counter.count(text[: blank.start()])


class _Outcome(msgspec.Struct, frozen=True):
    """What turns came to in a rehearsal."""

    cost: float = 0.0
    usage: Usage = Usage()

    def __add__(self, other: _Outcome) -> _Outcome:
        return _Outcome(self.cost + other.cost, self.usage + other.usage)


def _rehearsed(stage: Layout, history: Sequence[Said], turns: int, tokens: int) -> _Outcome:
    stage.take(history)
    names = list(stage.cast.alone)
    played = (_turn(stage, names[index % len(names)], tokens, index) for index in range(turns))
    return sum(played, _Outcome())


def _unlike(base: Session) -> Session:
    """A fork that nobody hears of: a family, and so a cache and a clock, of its own, and no store."""
    family, ticks = base.family, count(int(base.clock()))
    fork = base.fork()
    fork._family = Family(
        _Blanks(family.counter),
        lambda: float(next(ticks)),
        prices=family.overrides,
        sharing=family.sharing,
        routing_key=family.routing_key,
    )
    fork._store = fork._saved = None
    return fork


def _turn(stage: Layout, name: str, tokens: int, index: int) -> _Outcome:
    """What the input of one turn comes to; it goes into the rehearsal's history only."""
    turn = stage.enter(name)
    session = turn.session
    opening = None if _may_answer(session) else cue(name)
    request = session.request(opening, stage.role(name) or None)
    usage = session.family.commit(session.dialect, request.snapshot, request.at, request.at).usage()
    reply = Message("assistant", f"\x00{tokens}\x00 {index}")
    turn.opening = opening
    session._state = next_state(request, Answer(usage, reply))
    spoken = msgspec.structs.replace(request.snapshot, tip=session.tip, marks=())
    session.family.commit_output(session.dialect, spoken, request.at)
    stage.take([Said(name, (reply,))], turn)
    return _Outcome(_cost(usage, session), usage)


def _may_answer(session: Session) -> bool:
    last = session.tip.message
    return isinstance(last, Message) and last.role != "assistant"


def _cost(usage: Usage, session: Session) -> float:
    price, rules = session.family.price(session.context.model), session.dialect.rules
    if price is not None:
        return cost(usage, price)
    relative = Price(
        input=1e6,
        output=0,
        cache_read=rules.read_multiplier * 1e6,
        cache_write=rules.write_multiplier * 1e6,
        cache_write_long=rules.write_long_multiplier * 1e6,
    )
    return cost(usage, relative)
