"""Calls that a turn is running just now: another turn on the same session leaves them alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .errors import PairingError

if TYPE_CHECKING:
    from .session import Session
    from .state import State

__all__ = ["Claim", "refuse_running"]

_NONE: frozenset[str] = frozenset()


def refuse_running(session: Session, calls: Sequence[str]) -> None:
    """Raise ``PairingError`` if a turn that is under way runs one of the calls: nobody else is to answer it."""
    with session._lock:  # a turn commits a reply and claims its calls in one go
        running = [call for call in calls if call in session._running]
    if running:
        raise PairingError(
            f"another turn on this session is running the calls {running}: nothing was run or sent; say it again when that "
            "turn has ended, or give each turn a fork of its own before it begins"
        )


class Claim:
    """The calls of a session that one turn runs, from ``take`` to ``release``.

    >>> from llmbuffer import Message, Session, StableContext, ToolCall
    >>> session = Session(StableContext("gpt-5.5"))
    >>> session.append(Message("assistant", [ToolCall("call_1", "search", "{}")]))
    >>> claim = Claim()
    >>> claim.take(session).open_calls
    ('call_1',)
    >>> Claim().take(session)
    Traceback (most recent call last):
        ...
    llmbuffer.errors.PairingError: another turn on this session is running the calls ['call_1']: nothing was run or sent; \
say it again when that turn has ended, or give each turn a fork of its own before it begins
    >>> claim.release()
    >>> Claim().take(session).open_calls
    ('call_1',)
    """

    __slots__ = ("_calls", "_session")

    def __init__(self) -> None:
        self._session: Session | None = None
        self._calls = _NONE

    def take(self, session: Session) -> State:
        """Claim the open calls of the session; the state that they are open in. Raises what ``refuse_running`` raises."""
        with session._lock:
            state = session._state
            calls = [call for call in state.open_calls if call not in self._calls]
            if calls:
                refuse_running(session, calls)
                self._session, self._calls = session, self._calls.union(calls)
                session._running = session._running.union(calls)
            return state

    def release(self) -> None:
        """Leave what was claimed to whoever comes; without a claim, nothing happens."""
        session = self._session
        if session is not None:
            with session._lock:
                session._running -= self._calls
            self._session, self._calls = None, _NONE
