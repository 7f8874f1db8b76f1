"""Dropping whole turns, the oldest first."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import CompactionError
from ..messages import Message
from .base import Budget, Moment, Native
from .gap import Gap, gap_of

__all__ = ["Truncator"]


class Truncator(Native):
    """When the next request does not fit: drops the oldest turns, as many as it takes to reach the budget.

    The messages up to the first one of a user, pinned ones and the ``keep_last`` newest turns (at least one) stay. A line in
    place of what is gone says how many tokens it had, and its id. Raises ``CompactionError`` for a number below 1.

    >>> history = [Message(role, text * 200) for text in "abcd" for role in ("user", "assistant")]
    >>> [message.role for message in Truncator(keep_last=1)(history, Budget(150))]
    ['user', 'assistant', 'user', 'assistant']
    """

    __slots__ = ("keep_last",)
    moment: Moment = "overflow"

    def __init__(self, keep_last: int = 1) -> None:
        if keep_last < 1:
            raise CompactionError(f"keep_last is {keep_last!r}: the newest turn stays, so give 1 or more")
        self.keep_last = keep_last

    def __call__(self, messages: Sequence[Message], budget: Budget) -> Sequence[Message]:
        """The messages without the oldest turns."""
        gap = gap_of(messages, budget, keep_last=self.keep_last)
        if gap is None:
            return messages
        return gap.filled(messages, Message("assistant", self._line(gap, messages, budget)))

    @staticmethod
    def _line(gap: Gap, messages: Sequence[Message], budget: Budget) -> str:
        name = budget.keep([messages[index] for index in gap.dropped])
        return (
            f"[{len(gap.dropped)} messages with {gap.tokens:,} tokens were left out here. The id of the originals is "
            f'"{name}".]'
        )
