"""Calls that retell a conversation as text, to condense a question or to summarise, sent behind the conversation itself.

LlamaIndex asks such questions with a prompt of its own that holds a transcript, so nothing of what the provider has cached is
read. Where the transcript is found to be a conversation that went through this LLM, the same question is asked at the end of
that conversation: the transcript's place in the text is taken by a pointer to what stands above.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any, NamedTuple

from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.llms import ChatMessage

from .convert import role_of

__all__ = ["Conversations", "Retold", "Sent"]

_KNOWN = 64  # conversations that are looked through
_POINTER = "(the conversation above)"
_NO_TOOLS = "Call no tools."


class Sent(NamedTuple):
    """What went out last in a conversation: ``leading`` system messages as sent, the others as given, and the tools."""

    leading: tuple[Any, ...]
    history: tuple[Any, ...]
    tools: tuple[Any, ...]
    member: str | None


class Retold(NamedTuple):
    """The same question behind the conversation itself."""

    messages: list[Any]
    tools: list[Any]
    sent: Sent


class Conversations:
    """The conversations that went through one LLM, the one that was used last first."""

    def __init__(self) -> None:
        self._sent: OrderedDict[Any, Sent] = OrderedDict()
        self._lock = Lock()

    def keep(self, key: Any, sent: Sent) -> None:
        """Remember what went out and what was answered, in place of what was known of this conversation."""
        with self._lock:
            self._sent[key] = sent
            self._sent.move_to_end(key, last=False)
            while len(self._sent) > _KNOWN:
                self._sent.popitem()

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._sent.clear()

    def retold(self, messages: Sequence[Any]) -> Retold | None:
        """A call that retells a known conversation, as one behind it; ``None`` for any other call.

        At least one exchange has to be found, and half of the text has to be its transcript.
        """
        if not messages or role_of(messages[-1]) != "user" or len(messages) > 2:
            return None
        if len(messages) == 2 and role_of(messages[0]) != "system":
            return None
        text = messages[-1].content or ""
        with self._lock:
            known = list(self._sent.values())
        for sent in known:
            found = _transcript(text, sent)
            if found is not None:
                return _behind(sent, messages, text, *found)
        return None


def _transcript(text: str, sent: Sent) -> tuple[int, int, int] | None:
    """How many messages the text retells, and where the transcript begins and ends."""
    told = [*sent.leading, *sent.history]
    best: tuple[int, int, int] | None = None
    for first in range(len(sent.leading) + 2):
        for separator in ("\n", "\n\n"):
            count, start, end = _told(text, told[first:], separator)
            if best is None or end - start > best[2] - best[1]:
                best = first + count, start, end
    if best is None or best[0] < len(sent.leading) + 2 or 2 * (best[2] - best[1]) < len(text):
        return None
    return best


def _told(text: str, messages: Sequence[Any], separator: str) -> tuple[int, int, int]:
    """How many of the messages stand in the text one behind the other, as ``role: content``; from where to where.

    Calls of tools and their results may be missing in between.
    """
    count, start, end = 0, -1, 0
    for index, message in enumerate(messages):
        piece = f"{message.role.value}: {message.content or ''}"
        if start < 0:
            start = text.find(piece)
            if start < 0:
                break
            end = start + len(piece)
        elif text.startswith(separator + piece, end):
            end += len(separator) + len(piece)
        elif _silent(message):
            continue
        else:
            break
        count = index + 1
    while 0 < count < len(messages) and role_of(messages[count]) == "tool":
        count += 1  # results stay with their call
    return count, max(start, 0), end


def _silent(message: Any) -> bool:
    """Whether transcripts may leave a message out."""
    if role_of(message) == "tool" or not message.content:
        return True
    return any(isinstance(block, ToolCallBlock) for block in message.blocks)


def _behind(sent: Sent, messages: Sequence[Any], text: str, count: int, start: int, end: int) -> Retold:
    asked = f"{text[:start]}{_POINTER}{text[end:]}".strip()
    before = [each.content or "" for each in messages[:-1]]
    last = [_NO_TOOLS] if sent.tools else []
    question = ChatMessage("\n\n".join([*before, asked, *last]), role="user")
    told = [*sent.leading, *sent.history]
    return Retold([*told[:count], question], list(sent.tools), sent)
