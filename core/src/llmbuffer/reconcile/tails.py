"""Where the dynamic text of a host's requests goes: into the message that began the turn, or to the end of the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..context import Segment
from ..messages import Message
from ..state import State, Turn
from .plan import takes_instructions

if TYPE_CHECKING:
    from ..session import Session

__all__ = ["Tails"]


class Tails:
    """Remembers what the last turn was told, and whether that was seen to change within a turn."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._told: tuple[bytes, tuple[Segment, ...]] | None = None  # the turn, and its dynamic text
        self._per_call = False

    def turn(
        self, state: State, segments: tuple[Segment, ...], *, learned: bool, per_call: bool
    ) -> tuple[Turn | None, bool]:
        """The turn whose user message takes the text, ``None`` for the end of the prompt; and whether it is told otherwise.

        In the turn's user message it is read again with every call of the turn. Where it may change within a turn
        (``per_call``, or it was seen to, or ``learned`` from that), all that follows would be billed again, so it goes to the
        end where the provider takes it there.
        """
        turn, last, told = state.turn, state.tip.message, self._told
        mark = b"" if turn is None else turn.user.node.digest
        again = told is not None and turn is not None and told[0] == mark
        otherwise = again and told is not None and told[1] != segments
        seen = again and (learned or otherwise)
        self._per_call = self._per_call or per_call or seen
        self._told = (mark, segments)
        if turn is None or turn.user.node is state.tip:
            return turn, otherwise
        after_tool = isinstance(last, Message) and bool(last.tool_results)
        dialect = self._session.dialect
        allowed = not after_tool or dialect.rules.tail_after_tool or takes_instructions(dialect)
        at_end = allowed and (self._per_call or self._session.placement == "tail")
        return (None if at_end else turn), otherwise
