"""The session's own compaction of the history that it keeps beside a host's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..chain import walk
from ..compaction.running import needs_await
from ..messages import Message
from ..placing import Placed
from ..state import State, Turn, attach, link
from .history import Kept

if TYPE_CHECKING:
    from .given import Given
    from .hosts import Host
    from .reconciler import Reconciler

__all__ = ["compacted"]


def compacted(reconciler: Reconciler, given: Given, placed: Placed, host: Host) -> Placed:
    """The request on a smaller history, where the session's compaction says so; else as it is.

    Raises what a hook raises that is strict, and ``HookError`` for one that has to be awaited.
    """
    session, shows = reconciler.session, getattr(host, "from_message", None)
    compactor, entries = session._compaction, given.own
    if compactor is None or shows is None or not entries:
        return placed
    message = entries[-1].message
    begins = len(entries) > 1 and message.role == "user" and not message.tool_results
    base, asked = placed.state, message if begins else None
    if asked is not None:  # a turn begins: what is before it may be compacted, as a session does with its own
        before = given.state_before_last()
        base = placed.state if before is None else _counted(before, placed.state)
        asked = None if before is None else asked

    def again(state: State) -> Placed:
        bare = replace(state, turn=None if state.turn is None else Turn(state.turn.user))
        if asked is None:
            return _placed(placed, bare, bare)
        pending = link(bare, asked, session.dialect, session.counter, paired=False)
        after = attach(bare, pending, session.dialect, claim=False)
        return replace(_placed(placed, after, bare), pending=pending)

    found = compactor.placed(session, base, again(base), again, needs_await())
    made = found.compacted
    if made is None:
        return replace(placed, start=_told(placed, found), warnings=(*placed.warnings, *found.warnings))
    known = {id(entry.message): entry for entry in entries}
    messages = [node.message for node in walk(found.state.tip) if isinstance(node.message, Message)]
    messages.reverse()
    given.own = [
        known.get(id(each)) or Kept(reconciler.own.numbered(), shows(each), each) for each in messages
    ]
    given.state = found.state
    return found


def _counted(state: State, like: State) -> State:
    """A state with the counters of another one."""
    return replace(
        state,
        requests=like.requests,
        response_id=like.response_id,
        sent=like.sent,
        archive=like.archive,
        given_marks=like.given_marks,
    )


def _placed(like: Placed, state: State, start: State) -> Placed:
    turn = None if like.turn is None or state.turn is None else Turn(state.turn.user, like.segments)
    return Placed(state, None, like.segments, turn, like.notes, start=start)


def _told(placed: Placed, found: Placed) -> State:
    """The state to go on from, with what the compaction remembers of its answer."""
    start = found.start if found.start is not None else placed.state
    return replace(placed.state, archive=start.archive)
