"""A session as what is stored of it, and back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, cast

from msgspec.structs import replace

from ..chain import Node, ancestor, is_ancestor
from ..compaction.base import Compaction
from ..context import StableContext
from ..errors import CorruptStoreError, TokenizerError
from ..layout import Placement
from ..messages import Message
from ..prices import Price
from ..rebuilding import loaded
from ..rules import Dialect, Place
from ..session import Session
from ..snapshot import MarkAt, Snapshot, message_tokens
from ..state import Anchor, Sent, State, Turn
from ..tokens import EstimateCounter, TiktokenCounter, TokenCounter, counter_for
from .originals import archive_of, archived
from .records import SentRecord, SessionRecord, TurnRecord

__all__ = ["Given", "record_of", "restored"]

_Anchor = tuple[int, str, int, int, int]


class Given(NamedTuple):
    """What no store can hold, and the user gives again."""

    client: Any = None
    dialect: str | Dialect | None = None
    tokens: TokenCounter | None = None
    clock: Callable[[], float] = time.time
    prices: Mapping[str, Price] | None = None
    compaction: Compaction | None = None


def record_of(session: Session, owner: str | None = None) -> SessionRecord:
    """The session beside its messages and its context; ``owner`` is the principal that made it."""
    state = session._state
    turn = state.turn
    return SessionRecord(
        id=session.id,
        parent_id=session.parent_id,
        name=session.name,
        dialect=session.dialect.name,
        model=session.context.model,
        fingerprint=session.context.fingerprint,
        placement=session.placement,
        epoch=session.epoch,
        frozen=session._frozen,
        expected_requests=session.expected_requests,
        diagnostics=session.diagnostics,
        routing_key=session.family.routing_key or session.id,
        sharing=dict(session.family.sharing),
        counter=session.counter.name,
        depth=state.tip.depth,
        requests=state.requests,
        response_id=state.response_id,
        turn=None if turn is None else TurnRecord(turn.user.node.depth, turn.segments, turn.inserted),
        previous_tail=_placed(state.previous_tail),
        fork_anchor=_placed(session._fork_anchor),
        owner=owner,
        sent=_sent(session),
        archive=archive_of(state),
    )


def _sent(session: Session) -> SentRecord | None:
    """The last request, as far as the history keeps it: up to dynamic text that goes when its turn ends."""
    state, head = session._state, session._head.node
    sent = state.sent
    if sent is None or sent.snapshot.head.wire != head.wire:
        return None
    snapshot = sent.snapshot
    node = snapshot.tip if snapshot.insert is None else snapshot.insert.after
    if not is_ancestor(node, state.tip):
        return None
    marks = [mark for mark in snapshot.marks if not mark.in_head and not snapshot.covers_insert(mark)]
    return SentRecord(sent.at, node.depth, tuple((mark.node.depth, mark.long) for mark in marks))


def _placed(anchor: Anchor | None) -> _Anchor | None:
    if anchor is None:
        return None
    place = anchor.place
    return (anchor.node.depth, place.section, place.item, place.part, place.end)


def restored(
    record: SessionRecord,
    context: StableContext,
    said: Iterable[tuple[Message, int | None]],
    given: Given,
    *,
    kind: type[Session] = Session,
    store: Any = None,
) -> Session:
    """The session, from its messages and what was counted of each."""
    session = kind(
        context,
        given.dialect if given.dialect is not None else record.dialect,
        client=given.client,
        tokens=given.tokens if given.tokens is not None else _counter(record),
        clock=given.clock,
        placement=cast(Placement, record.placement),
        prices=given.prices,
        sharing=record.sharing,
        expected_requests=record.expected_requests,
        routing_key=record.routing_key,
        session_id=record.id,
        diagnostics=record.diagnostics,
        store=store,
        compaction=given.compaction,
    )
    session.name, session.parent_id = record.name, record.parent_id
    session._frozen, session._epoch = record.frozen, record.epoch
    count = session.counter.count
    state = loaded(said, session.dialect, lambda message: message_tokens(message, count))
    session._fork_anchor = _anchor(state, record.fork_anchor)
    session._state = replace(
        state,
        turn=_turn(state, record.turn),
        previous_tail=_anchor(state, record.previous_tail),
        requests=record.requests,
        response_id=record.response_id,
    )
    session._state = archived(session._state, record.archive)
    _warm(session, record.sent)
    return session


def _warm(session: Session, sent: SentRecord | None) -> None:
    """Let the forecast know what the provider was sent last, and when."""
    if sent is None:
        return
    state, head = session._state, session._head
    marks = tuple(MarkAt(_node(state, depth), long=long) for depth, long in sent.marks)
    snapshot = Snapshot(head.node, _node(state, sent.depth), head.message_seed, marks)
    session.family.commit(session.dialect, snapshot, sent.at, sent.at)
    session._state = replace(state, sent=Sent(sent.at, snapshot))


def _counter(record: SessionRecord) -> TokenCounter:
    """The counter by the name that was saved: a fork under another model goes on with its parent's."""
    counter = counter_for(record.model)
    kind, _, figure = record.counter.partition("/")
    if counter.name == record.counter:
        return counter
    try:
        if kind == "characters":
            return EstimateCounter(float(figure))
        return TiktokenCounter(record.counter, estimated=True)
    except (TokenizerError, ValueError):  # one of the user's own, or without a file here: counted anew
        return counter


def _node(state: State, depth: int) -> Node:
    if not 0 <= depth <= state.tip.depth:
        raise CorruptStoreError(
            f"the session points at message {depth} of {state.tip.depth}: it was half written; run verify()"
        )
    return ancestor(state.tip, depth)


def _anchor(state: State, saved: _Anchor | None) -> Anchor | None:
    if saved is None:
        return None
    depth, section, item, part, end = saved
    return Anchor(_node(state, depth), Place(cast(Any, section), item, part, end))


def _turn(state: State, saved: TurnRecord | None) -> Turn | None:
    """The open turn with its dynamic text. Which message began it, the replay knows."""
    if saved is None or state.turn is None:
        return None
    if saved.depth != state.turn.user.node.depth:
        raise CorruptStoreError(
            f"the open turn began at message {state.turn.user.node.depth}, not {saved.depth}; run verify()"
        )
    return Turn(state.turn.user, saved.segments, inserted=saved.inserted)
