"""What becomes of a session when a response comes in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from .breaks import CacheBreak
from .cache import Lookup
from .judging import judge
from .labelling import labels_of
from .ledger import LedgerEntry
from .messages import Message
from .prices import CostParts, cost_parts
from .rules import Diagnosis
from .state import Anchor, Sent, State, Turn, attach, link
from .usage import Usage

if TYPE_CHECKING:
    from .placing import Placed
    from .request import Request
    from .session import Session

__all__ = ["WATCHERS", "Answer", "Observation", "Reused", "next_state", "record", "record_prewarm"]


class Reused(msgspec.Struct, frozen=True):
    """A reply that was there already, in place of a response: ``request.observe`` takes it as one that cost nothing.

    >>> Reused(Message("assistant", "Hi!")).message.text
    'Hi!'
    """

    message: Message


class Answer(msgspec.Struct, frozen=True):
    """What was read off a response: usage, the reply, its id, and what the provider says about its cache.

    With ``reused`` nothing was sent: the provider's cache, and what was learned of it, stay as they are.

    >>> Answer(Usage(input_tokens=20)).reply is None
    True
    """

    usage: Usage | None = None
    reply: Message | None = None
    response_id: str | None = None
    diagnosis: Diagnosis | None = None
    reused: bool = False


class Observation(msgspec.Struct, frozen=True):
    """What a response told: ``usage`` (``None`` if unreported), ``cache_break`` or ``None``, ``cost`` in USD or ``None``.

    ``session`` is the one that went on with the reply: the request's own, or a new fork (``forked``) where the session
    had moved on since the request was made. ``diagnosis`` is what the provider's own cache diagnostics said, if anything.
    ``cost_parts`` splits the cost into read, written, fresh and output; ``reused`` tells of a reply that was there already.

    >>> from llmbuffer import Message, Session, StableContext, Usage
    >>> request = Session(StableContext("gpt-5.5", "You are kind.")).request("Hello")
    >>> request.observe(Usage(input_tokens=20), Message("assistant", "Hi!")).forked
    False
    """

    usage: Usage | None
    cache_break: CacheBreak | None
    cost: float | None
    message: Message | None
    session: Session
    forked: bool = False
    diagnosis: Diagnosis | None = None
    cost_parts: CostParts | None = None
    reused: bool = False


# Called with every request that was observed: how `llmbuffer.testing` guards the prefix of every conversation.
WATCHERS: list[Callable[[Request, Observation], None]] = []


def next_state(request: Request, answer: Answer) -> State:
    """The state after the request: with its user message, its dynamic text while the turn lasts, and the reply."""
    placed, reply = request.placed, answer.reply
    state = request.base if placed.start is None else placed.start
    if placed.pending is not None:
        state = attach(state, placed.pending, request.dialect)
    state = msgspec.structs.replace(
        state,
        turn=_turn_after(state.turn, placed),
        requests=state.requests + 1,
        previous_tail=state.previous_tail if answer.reused else _next_anchor(placed, reply),
        response_id=answer.response_id,
        sent=state.sent if answer.reused else _sent_now(request),
    )
    if reply is None:
        return state
    return attach(state, link(state, reply, request.dialect, request.session.counter), request.dialect)


def _sent_now(request: Request) -> Sent:
    # A compaction that comes with the request begins an epoch when it is entered.
    epoch = request.session.epoch + (request.placed.compacted is not None)
    return Sent(request.at, request.snapshot, request.context, request.params, epoch)


def _turn_after(turn: Turn | None, placed: Placed) -> Turn | None:
    """The open turn, with the dynamic text that it was given last."""
    if turn is None or turn.segments == placed.segments:
        return turn
    return placed.turn if placed.turn is not None else Turn(turn.user, placed.segments, inserted=False)


def _next_anchor(placed: Placed, reply: Message | None) -> Anchor | None:
    """The place whose entry the next request can read: behind dynamic text that goes, there is none."""
    turn_ends = reply is None or not reply.call_ids
    if placed.turn is not None and turn_ends:
        return placed.turn.user if placed.turn.user.place.part >= 0 else None
    return placed.state.anchor


def record(request: Request, target: Session, answer: Answer) -> Observation:
    """Enter the request into the ledger of the session that goes on, and compare it with what was forecast."""
    if answer.reused:
        return _record_reused(request, target, answer)
    session, family = request.session, request.session.family
    calibration = family.calibration(request.context.model)
    factor = calibration.factor
    kept, lookup = request.kept, _sent(request)
    if answer.reply is not None and request.dialect.rules.stores_output:
        with_reply = msgspec.structs.replace(request.snapshot, tip=target.tip, marks=())
        family.commit_output(request.dialect, with_reply, session.clock())
    verdict = judge(request, target, lookup, answer, kept)
    cache_break = verdict.alarm
    if answer.usage is not None:
        calibration.observe(request.snapshot.tokens, answer.usage.input_tokens)
        _learn(request, lookup, answer.usage)
    entry = msgspec.structs.replace(
        _entry(request, lookup, answer.usage, factor),
        epoch=target.epoch,
        cache_break=cache_break,
        planned=verdict.planned,
        lasting=verdict.lasting,
        reason=_reason(request, target),
        **labels_of(request, target),
    )
    target.ledger.add(entry)
    family.turns.end_turn(target.id, target._state.turns - request.base.turns)
    observation = Observation(
        answer.usage,
        cache_break,
        entry.cost,
        answer.reply,
        target,
        target is not session,
        answer.diagnosis,
        entry.cost_parts,
    )
    for watch in WATCHERS:
        watch(request, observation)
    return observation


def _learn(request: Request, lookup: Lookup, usage: Usage) -> None:
    """Learn how long the provider keeps entries; those that were asked to live long say nothing of the short lifetime."""
    if not any(mark.long for mark in request.snapshot.marks):
        scale = request.snapshot.tokens / max(1, usage.input_tokens)
        read = round(usage.cache_read_tokens * scale)
        request.session.family.learn(request.dialect, lookup, read, request.at)


def _record_reused(request: Request, target: Session, answer: Answer) -> Observation:
    """Enter a request that was not sent."""
    entry = LedgerEntry(
        at=request.at,
        epoch=target.epoch,
        kind="reused",
        reason=_reason(request, target),
        usage=answer.usage,
        cost=0.0,
        cost_parts=CostParts(),
        **labels_of(request, target),
    )
    target.ledger.add(entry)
    target.family.turns.end_turn(target.id, target._state.turns - request.base.turns)
    forked = target is not request.session
    seen = Observation(answer.usage, None, 0.0, answer.reply, target, forked, None, CostParts(), reused=True)
    for watch in WATCHERS:
        watch(request, seen)
    return seen


def _reason(request: Request, target: Session) -> str:
    session = request.session
    return "" if target is session else f"forked from {session.id}, which had moved on"


def record_prewarm(request: Request, usage: Usage | None) -> Observation:
    """Enter a request that only filled the cache; the session stays where it is."""
    session = request.session
    factor = session.family.calibration(request.context.model).factor
    labels = labels_of(request, session)
    entry = msgspec.structs.replace(_entry(request, _sent(request), usage, factor), kind="prewarm", **labels)
    session.ledger.add(entry)
    return Observation(usage, None, entry.cost, None, session, cost_parts=entry.cost_parts)


def _sent(request: Request) -> Lookup:
    if request.sent is not None:
        return request.sent
    session = request.session
    return session.family.commit(request.dialect, request.snapshot, request.at, session.clock())


def _entry(request: Request, lookup: Lookup, usage: Usage | None, factor: float) -> LedgerEntry:
    price = request.session.family.price(request.context.model)
    parts = None if usage is None or price is None else cost_parts(usage, price)
    return LedgerEntry(
        at=request.at,
        epoch=request.session.epoch,
        forecast_read_tokens=round(lookup.read_tokens * factor),
        forecast_write_tokens=round(lookup.write_tokens * factor),
        forecast_fresh_tokens=round(lookup.fresh_tokens * factor),
        usage=usage,
        cost=None if parts is None else parts.total,
        cost_parts=parts,
    )
