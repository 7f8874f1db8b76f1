"""Where dynamic text goes in one request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from .compacted import Compacted
from .context import Segment, dynamic_segments
from .errors import MessageError, PlacementError
from .layout import Placement, cheapest_placement, render_dynamic
from .messages import Message
from .parts import Text
from .state import Link, State, Turn, attach, link

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Dynamic", "Placed", "place"]

Dynamic: TypeAlias = Mapping[str, str] | Iterable[Segment]


class Placed(msgspec.Struct, frozen=True):
    """A request's history with its dynamic text placed.

    ``state`` is the session's state with the ``pending`` user message; ``segments`` stand behind the user message of
    ``turn``, or, without one, at the end of the prompt. ``start`` is the session's state before it, ``compacted`` what was
    done to make it small enough.
    """

    state: State
    pending: Link | None
    segments: tuple[Segment, ...]
    turn: Turn | None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    start: State | None = None
    compacted: Compacted | None = None


def place(session: Session, base: State, user: Message | None, dynamic: Dynamic | None) -> Placed:
    """Resolve what dynamic text the request has and where it stands.

    Raises ``PlacementError`` where it may stand nowhere, and ``MessageError`` for words of the user's that say nothing to a
    provider that refuses empty messages.
    """
    segments = _segments(session, base, user, dynamic)
    wanted, notes = _choose(session, base, segments)
    if segments and user is None and _says(base.tip.message) == "user" and _thinks_of_all_before(session):
        # The text becomes a message of its own, behind the one that began the turn.
        user = Message("user", ())
    if wanted == "sticky" and segments and user is not None:
        pinned = any(segment.pinned for segment in segments)
        user, segments = _with_sticky(user, segments, base.turns), ()
        if pinned:
            base = msgspec.structs.replace(base, archive=base.archive.pinning(user))
    pending = None if user is None else link(base, user, session.dialect, session.counter)
    if pending is not None and not pending.rendered.blocks:
        raise MessageError(
            "the user's message is empty, which the provider refuses: say something, or request without it"
        )
    state = base if pending is None else attach(base, pending, session.dialect, claim=False)
    if not segments:
        return Placed(state, pending, (), None, notes, start=base)
    turn = _turn(session, state, wanted)
    warnings: tuple[str, ...] = ()
    if turn is not None and turn.segments != segments:
        if turn.segments and turn.user.node is not state.tip:
            warnings = ("dynamic-in-prefix",)
        turn = Turn(turn.user, segments)
    return Placed(state, pending, segments, turn, notes, warnings, start=base)


def _segments(
    session: Session, base: State, user: Message | None, dynamic: Dynamic | None
) -> tuple[Segment, ...]:
    if dynamic is not None:
        return dynamic_segments(dynamic)
    turn = base.turn
    if user is None and turn is not None and (turn.segments or turn.user.node is not base.tip):
        return turn.segments  # in the middle of a turn, or asked once more: what it began with, if anything
    return session.context.dynamic


def _choose(
    session: Session, base: State, segments: tuple[Segment, ...]
) -> tuple[Placement, tuple[str, ...]]:
    if segments and _thinks_of_all_before(session):
        return "sticky", ("sticky: the model refuses its own thinking once the text before it has changed",)
    if session.placement != "auto" or not segments:
        return session.placement, ()
    turns = max(1, base.turns)
    calls = max(1.0, base.requests / turns)
    choice, note = cheapest_placement(
        session.dialect.rules,
        dynamic=sum(map(session.counter.count, render_dynamic(segments))),
        calls=calls,
        after=base.tip.end / turns * (calls - 1) / calls,
        expected=session.expected_requests,
        tail_allowed=session.dialect.rules.tail_after_tool or calls == 1.0,
    )
    return choice, (note,)


def _thinks_of_all_before(session: Session) -> bool:
    """Whether replies hold thinking that is bound to every word before it."""
    thinking = session.context.params.get("thinking")
    asked = isinstance(thinking, Mapping) and thinking.get("type") not in (None, "disabled")
    return asked and session.dialect.rules.reasoning_bound


def _says(message: object) -> str | None:
    """Who says a message, tool results aside."""
    return message.role if isinstance(message, Message) and not message.tool_results else None


def _turn(session: Session, state: State, wanted: Placement) -> Turn | None:
    """The turn whose user message takes the text; ``None`` if the text ends the prompt."""
    message = state.tip.message
    after_tool = isinstance(message, Message) and message.role == "tool"
    tail_allowed = session.dialect.rules.tail_after_tool or not after_tool
    turn = state.turn
    if turn is None and not tail_allowed:
        raise PlacementError(
            "dynamic text has no place: the history ends in a tool result and its turn has no user message"
        )
    if turn is not None and turn.user.node is not state.tip and wanted == "tail" and tail_allowed:
        return None
    return turn


def _with_sticky(message: Message, segments: tuple[Segment, ...], turn: int) -> Message:
    labelled = [
        msgspec.structs.replace(segment, name=f"{segment.name}, turn {turn + 1}") for segment in segments
    ]
    return Message(message.role, [*message.parts, *map(Text, render_dynamic(labelled))], message.name)
