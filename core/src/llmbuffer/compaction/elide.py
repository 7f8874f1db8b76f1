"""Leaving out what tools returned long ago."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import CompactionError
from ..messages import Message, ToolResult
from .base import Budget, Moment, Native
from .pairs import answers, turns

__all__ = ["ElideToolResults"]


class ElideToolResults(Native):
    """Between turns: a line stands in place of all results of tools but the ``keep_last`` newest ones.

    The line says how many tokens are gone and the id of the original, for ``session.original`` and ``recall_original``. The
    newest turn, pinned messages and messages of at most ``over`` tokens stay. Raises ``CompactionError`` for a negative
    number.

    >>> from llmbuffer import ToolCall
    >>> call, found = Message("assistant", [ToolCall("1", "read", "")]), Message("tool", [ToolResult("1", "text " * 300)])
    >>> history = [Message("user", "a"), call, found, Message("assistant", "b"), Message("user", "c")]
    >>> ElideToolResults(keep_last=0)(history, Budget(100))[2].tool_results[0].content
    '[A result of 395 tokens was left out here. Its id is "4019d9d7dae9b3c5".]'
    """

    __slots__ = ("keep_last", "over")
    moment: Moment = "between"

    def __init__(self, keep_last: int = 3, *, over: int = 64) -> None:
        if keep_last < 0 or over < 0:
            raise CompactionError(f"keep_last={keep_last!r}, over={over!r}: give numbers, 0 or more")
        self.keep_last, self.over = keep_last, over

    def __call__(self, messages: Sequence[Message], budget: Budget) -> Sequence[Message]:
        """The messages with placeholders."""
        out, seen = list(messages), 0
        starts = turns(messages)
        newest = starts[-1] if starts else 0
        for index in range(len(out) - 1, -1, -1):
            message = out[index]
            if message.role == "assistant" or not answers(message):
                continue
            seen += 1
            if seen > self.keep_last and index < newest and not budget.pinned(message):
                out[index] = self._elided(message, budget)
        return out

    def _elided(self, message: Message, budget: Budget) -> Message:
        tokens = budget.count(message)
        if tokens <= self.over:
            return message
        line = f'[A result of {tokens:,} tokens was left out here. Its id is "{budget.keep([message])}".]'
        parts = [
            ToolResult(part.call_id, line, part.is_error) if isinstance(part, ToolResult) else part
            for part in message.parts
        ]
        return Message(message.role, parts, message.name)
