"""Clipping what tools return before it is sent for the first time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from ..errors import CompactionError
from ..messages import Message, Text, ToolResult
from ..parts import File, Image, Opaque
from .base import Budget, Moment, Native

__all__ = ["ClipToolOutput", "clipped"]

Keep = Literal["head+tail", "head", "tail"]
_KEEPS = ("head+tail", "head", "tail")
_TRIES = 12  # each at least an eighth shorter: more than enough for any tokenizer


class ClipToolOutput(Native):
    """At commit time: results of tools are cut to ``max_tokens``, with a marker that says how much is gone and the id.

    ``keep`` is what stays: ``head+tail``, ``head`` or ``tail``. Pictures and files stay, and a result that its marker would
    make no smaller. The same result is always cut in the same way. Raises ``CompactionError`` for arguments that make no sense.

    >>> from llmbuffer import ToolResult
    >>> long = Message("tool", [ToolResult("1", "word " * 500)])
    >>> (short,) = ClipToolOutput(50)([long], Budget(0, moment="commit"))
    >>> short.tool_results[0].content.count("word") > 30
    True
    """

    __slots__ = ("keep", "max_tokens")
    moment: Moment = "commit"

    def __init__(self, max_tokens: int, keep: Keep = "head+tail") -> None:
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
            raise CompactionError(f"max_tokens is {max_tokens!r}: give the tokens that a result may have")
        if keep not in _KEEPS:
            raise CompactionError(f"keep is {keep!r}: use one of {', '.join(_KEEPS)}")
        self.max_tokens, self.keep = max_tokens, keep

    def __call__(self, messages: Sequence[Message], budget: Budget) -> Sequence[Message]:
        """The messages with shorter results."""
        return [self._message(message, budget) for message in messages]

    def _message(self, message: Message, budget: Budget) -> Message:
        if not message.tool_results or budget.count(message) <= self.max_tokens:
            return message
        parts = [
            self._result(part, message, budget) if isinstance(part, ToolResult) else part
            for part in message.parts
        ]
        if parts == list(message.parts):
            return message
        cut = Message(message.role, parts, message.name)
        return cut if budget.count(cut) < budget.count(message) else message  # the marker has tokens, too

    def _result(self, part: ToolResult, message: Message, budget: Budget) -> ToolResult:
        if isinstance(part.content, str):
            return ToolResult(
                part.call_id, self._text(part.content, self.max_tokens, message, budget), part.is_error
            )
        texts = [item.text for item in part.content if isinstance(item, Text)]
        total = sum(map(len, texts)) or 1
        content: list[Text | Image | File | Opaque] = [
            Text(self._text(item.text, self.max_tokens * len(item.text) // total, message, budget))
            if isinstance(item, Text)
            else item
            for item in part.content
        ]
        return ToolResult(part.call_id, tuple(content), part.is_error)

    def _text(self, text: str, limit: int, message: Message, budget: Budget) -> str:
        def count(piece: str) -> int:
            return budget.count(Message("user", piece))

        if count(text) <= limit:
            return text
        return clipped(text, limit, count, keep=self.keep, name=budget.keep([message]))


def clipped(
    text: str, limit: int, count: Callable[[str], int], *, keep: str = "head+tail", name: str = ""
) -> str:
    r"""A text cut to about ``limit`` tokens, its marker besides; at the end of a line where one is near.

    >>> clipped("one two three four", 8, len, keep="head", name="ab12")
    'one two \n[… 10 of 18 tokens were cut here. The original has the id "ab12".]\n'
    """
    total = count(text)
    length = max(1, len(text) * limit // max(1, total))
    for _ in range(_TRIES):
        head, tail = _ends(text, length, keep)
        left = count(head + tail) if head or tail else 0
        if left <= limit or length <= 1:
            break
        length = max(1, min(length * limit // left, length * 7 // 8))
    marker = f'[… {total - left:,} of {total:,} tokens were cut here. The original has the id "{name}".]'
    return f"{head}\n{marker}\n{tail}"


def _ends(text: str, length: int, keep: str) -> tuple[str, str]:
    first = length if keep == "head" else 0 if keep == "tail" else length - length // 2
    last = length - first
    head, tail = text[:first], text[len(text) - last :] if last else ""
    at = head.rfind("\n", first * 3 // 4)
    if at > 0:
        head = head[:at]
    at = tail.find("\n", 0, last // 4)
    return head, tail[at + 1 :]
