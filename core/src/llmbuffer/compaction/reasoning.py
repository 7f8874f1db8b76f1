"""Dropping what models thought long ago."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import CompactionError
from ..messages import Message
from .base import Budget, Moment, Native
from .pairs import turns, without_reasoning

__all__ = ["DropReasoning"]


class DropReasoning(Native):
    """Between turns: replies lose their reasoning, but for those of the ``keep_last`` newest turns (at least one).

    A reply loses all of it or none: providers refuse half of it. What is kept of signatures on calls stays. Where a
    provider binds reasoning to the prompt before it, every compaction drops what comes behind the first change, with or
    without this hook. Raises ``CompactionError`` for a number below 1.

    >>> from llmbuffer import Reasoning, Text
    >>> reply = Message("assistant", [Reasoning("first, …"), Text("b")])
    >>> DropReasoning(keep_last=1)([Message("user", "a"), reply, Message("user", "c"), reply], Budget(9))[1].text
    'b'
    """

    __slots__ = ("keep_last",)
    moment: Moment = "between"

    def __init__(self, keep_last: int = 1) -> None:
        if keep_last < 1:
            raise CompactionError(f"keep_last is {keep_last!r}: the newest turn stays, so give 1 or more")
        self.keep_last = keep_last

    def __call__(self, messages: Sequence[Message], budget: Budget) -> Sequence[Message]:
        """The messages with less reasoning."""
        starts = turns(messages)
        kept = starts[-self.keep_last] if len(starts) >= self.keep_last else 0
        return [
            message if index >= kept or budget.pinned(message) else without_reasoning(message)
            for index, message in enumerate(messages)
        ]
