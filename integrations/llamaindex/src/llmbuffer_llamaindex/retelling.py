"""Calls that retell a conversation as text, to condense a question or to summarise, sent behind the conversation itself.

LlamaIndex asks such questions with a prompt of its own that holds a transcript, so nothing of what the provider has cached is
read. Where the transcript is found to be a conversation that went through this LLM, the same question is asked at the end of
that conversation: the transcript's place in the text is taken by a pointer to what stands above.

Only a conversation that is certain to be the caller's is told so, and of its messages none that the transcript lacks.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any, NamedTuple

from llama_index.core.base.llms.types import CachePoint, TextBlock, ThinkingBlock, ToolCallBlock
from llama_index.core.llms import ChatMessage

from .convert import LlamaHost, role_of

__all__ = ["Conversations", "Retold", "Sent", "standing"]

_KNOWN = 64  # conversations that are looked through
_GONE = 16_384  # conversations that are known to have been there
_POINTER = "(the conversation above)"
_NO_TOOLS = "Call no tools."
_TOLD = (TextBlock, ThinkingBlock, CachePoint)  # of which a transcript leaves out nothing that somebody said
_SEPARATORS = ("\n", "\n\n")
_GOES_ON = re.compile(r"\n\n?(?:user: (?s:.*\n))?(?:assistant|chatbot|model|tool|function): \S")
_HOST = LlamaHost()

_before: ContextVar[tuple[Any, ...]] = ContextVar("llmbuffer_llamaindex_before", default=())


class Sent(NamedTuple):
    """What went out last in a conversation: ``leading`` system messages as sent, the others as given, and the tools.

    ``conversation`` is its name, where the caller gave one; ``session`` the id of the session that holds it.
    """

    leading: tuple[Any, ...]
    history: tuple[Any, ...]
    tools: tuple[Any, ...]
    member: str | None
    conversation: str | None
    session: str


class Retold(NamedTuple):
    """The same question behind the conversation itself."""

    messages: list[Any]
    tools: list[Any]
    sent: Sent


class _Found(NamedTuple):
    """How many messages a text retells, and where the transcript begins and ends."""

    messages: int
    start: int
    end: int


@contextmanager
def standing(messages: Sequence[Any]) -> Iterator[None]:
    """A block whose calls retell what comes behind these messages of their conversation, which stay as they are."""
    token = _before.set(tuple(messages))
    try:
        yield
    finally:
        _before.reset(token)


class Conversations:
    """The conversations that went through one LLM, the one that was used last first.

    ``live`` tells the ids of the sessions that are kept: a conversation that was forgotten with its session is never told.
    """

    def __init__(self, live: Callable[[], Collection[str]]) -> None:
        self._live = live
        self._sent: OrderedDict[Any, Sent] = OrderedDict()
        self._gone: set[int] = set()  # how those began that are no longer looked through
        self._lock = Lock()

    def keep(self, sent: Sent) -> None:
        """Remember what went out and what was answered, in place of what was known of this conversation."""
        key: tuple[Any, ...] = (sent.conversation, sent.member, sent.session)
        if sent.conversation is None:  # two that only differ in their system text may share a session
            key = (*key, *map(_HOST.leaves, sent.leading))
        with self._lock:
            if key not in self._sent:
                self._drop_dead()
            self._sent[key] = sent
            self._sent.move_to_end(key, last=False)
            while len(self._sent) > _KNOWN:
                self._drop(next(reversed(self._sent)))

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._sent.clear()
            self._gone.clear()

    def retold(
        self, messages: Sequence[Any], conversation: str | None = None, member: str | None = None
    ) -> Retold | None:
        """A call that retells the caller's conversation, as one behind it; ``None`` for any other call.

        At least one exchange has to be found, and half of the text has to be its transcript. Of a caller with a name it is the
        conversation of that name (and member). Without one it has to be the only one, with or without a name, that can be meant.
        """
        if not messages or role_of(messages[-1]) != "user" or len(messages) > 2:
            return None
        if len(messages) == 2 and role_of(messages[0]) != "system":
            return None
        text = messages[-1].content or ""
        with self._lock:
            known = [each for each in self._sent.values() if conversation in (None, each.conversation)]
        found = [(sent, place) for sent in known if (place := _transcript(text, sent)) is not None]
        if conversation is None and not self._certain(found, text):
            return None
        for sent, place in found:
            if member in (None, sent.member) and self._lives(sent):
                return _behind(sent, messages, text, place)
        return None

    def _certain(self, found: Sequence[tuple[Sent, _Found]], text: str) -> bool:
        """Whether the one conversation that was found is the caller's, though nobody says so."""
        if len(found) != 1:
            return False
        sent, place = found[0]
        with self._lock:
            alone = len(self._gone) < _GONE and _beginning(sent) not in self._gone
        return alone and sent.conversation is None and not _GOES_ON.match(text, place.end)

    def _lives(self, sent: Sent) -> bool:
        with self._lock:
            self._drop_dead()
            return any(each is sent for each in self._sent.values())

    def _drop_dead(self) -> None:
        live = self._live()
        for key in [key for key, sent in self._sent.items() if sent.session not in live]:
            self._drop(key)

    def _drop(self, key: Any) -> None:
        sent = self._sent.pop(key)
        if len(sent.history) > 1 and len(self._gone) < _GONE:
            self._gone.add(_beginning(sent))


def _beginning(sent: Sent) -> int:
    return hash(tuple(each.content for each in sent.history[:2]))


def _transcript(text: str, sent: Sent) -> _Found | None:
    """The longest stretch of the text that retells the conversation from its beginning."""
    told, before = [*sent.leading, *sent.history], _before.get()
    best = _Found(0, 0, 0)
    for first in _firsts(told, len(sent.leading), before):
        start = text.find(_piece(told[first])) if told[first].content else -1
        for separator in _SEPARATORS if start >= 0 else ():
            found = _told(text, told, first, start, separator)
            if found.end - found.start > best.end - best.start:
                best = found
    if best.messages < len(sent.leading) + 2 or 2 * (best.end - best.start) < len(text):
        return None
    return best


def _firsts(told: Sequence[Any], leading: int, before: Sequence[Any]) -> Iterator[int]:
    """Where a transcript may begin: behind the system prompt, and behind what is said to stand in front of it."""
    prompt = 1 if leading else 0
    stands = [_HOST.leaves(each) for each in before]
    for start in range(prompt + 1):
        if start < len(told):
            yield start
        end = start + len(stands)
        if stands and end < len(told) and [_HOST.leaves(each) for each in told[start:end]] == stands:
            yield end


def _told(text: str, told: Sequence[Any], first: int, start: int, separator: str) -> _Found:
    """How many of the messages stand in the text one behind the other, as ``role: content``; from where to where.

    Nothing may be missing in between but messages without a word; a call of tools counts with the last one of its results.
    """
    at, best = start, _Found(0, 0, 0)
    for index in range(first, len(told)):
        message = told[index]
        if _unsaid(message) and not _calls(message):
            break
        end = _behind_piece(text, message, separator if index > first else "", at)
        if end is None:
            break
        at = end
        results = index + 1 < len(told) and role_of(told[index + 1]) == "tool"
        if not results and not _calls(message):
            best = _Found(index + 1, start, at)
    return best


def _piece(message: Any) -> str:
    return f"{message.role.value}: {message.content or ''}"


def _behind_piece(text: str, message: Any, separator: str, at: int) -> int | None:
    """Where the text goes on behind a message; ``None`` where it does not stand there, though it says something."""
    piece = f"{separator}{_piece(message)}"
    for each in (piece, piece.rstrip()) if message.content else (piece,):  # memories strip what was streamed
        end = at + len(each)
        if text.startswith(each, at) and (message.content or text[end : end + 1] in ("", "\n")):
            return end
    return None if message.content or role_of(message) == "tool" else at


def _calls(message: Any) -> bool:
    fields = message.additional_kwargs
    return any(isinstance(block, ToolCallBlock) for block in message.blocks) or bool(
        fields.get("tool_calls") or fields.get("function_call")
    )


def _unsaid(message: Any) -> bool:
    """Whether more of a message is sent than its text, so that a transcript does not tell whether it is there still."""
    return _calls(message) or any(not isinstance(block, _TOLD) for block in message.blocks)


def _behind(sent: Sent, messages: Sequence[Any], text: str, found: _Found) -> Retold:
    asked = f"{text[: found.start]}{_POINTER}{text[found.end :]}".strip()
    before = [each.content or "" for each in messages[:-1]]
    last = [_NO_TOOLS] if sent.tools else []
    question = ChatMessage("\n\n".join([*before, asked, *last]), role="user")
    told = [*sent.leading, *sent.history]
    return Retold([*told[: found.messages], question], list(sent.tools), sent)
