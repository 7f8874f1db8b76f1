"""A memory that grows at its end only, until a compaction pays for many turns."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Sequence
from functools import partial
from threading import RLock
from typing import Any

from llama_index.core.async_utils import asyncio_run
from llama_index.core.bridge.pydantic import Field, PrivateAttr, SerializeAsAny, model_validator
from llama_index.core.llms import LLM, ChatMessage, MessageRole, TextBlock
from llama_index.core.memory import BaseMemoryBlock
from llama_index.core.memory.types import DEFAULT_CHAT_STORE_KEY, BaseChatStoreMemory
from llama_index.core.storage.chat_store import BaseChatStore, SimpleChatStore
from llama_index.core.storage.chat_store.loading import load_chat_store
from llama_index.core.utils import get_tokenizer

from llmbuffer.compaction import Budget, Summarizer, Truncator
from llmbuffer.messages import Message

from .compacted import Compacted, digest_of, drop, keep, kept
from .convert import LlamaHost, role_of
from .retelling import standing

__all__ = ["BufferedMemory"]

_SHARE = 0.75  # of an LLM's context window, as in ChatMemoryBuffer
_LIMIT = 3000  # tokens, as in ChatMemoryBuffer
_SUMMARIZE = "The following is a conversation between the user and assistant. Write a concise summary about the contents of this conversation."


class BufferedMemory(BaseChatStoreMemory):
    """A chat memory whose messages stay what and where they were, so that a provider can read them from its cache.

    Takes the place of ``ChatMemoryBuffer``, ``ChatSummaryMemoryBuffer`` and ``Memory``. Nothing is cut off turn by turn: when the messages have
    more than ``token_limit`` tokens after a reply was put, they are compacted once, down to ``target`` of the limit. With an
    ``llm`` a summary stands in place of the oldest turns, else a line that says how much was left out; the messages up to the first
    one of the user, and the newest turn, stay. ``get_all`` gives everything that was ever put, ``get`` what is sent.

    ``get`` changes nothing and asks no model; asked again, it gives equal messages. ``memory_blocks`` are asked once a turn; what
    they say stands behind the newest message of the user's, as ``Memory`` writes it, and stays there for the turn. They are put
    what a compaction leaves out.

    ``chat_store`` may be any chat store. If somebody edits messages that were compacted, that one no longer counts. In a
    ``BufferedChatStore`` it is gone with them at once; in any other it lies under ``chat_store_key`` and ``#compacted`` until the next
    reply is put. A deep copy shares the LLM, and a ``BufferedChatStore``.

    Raises ``ValueError`` for a limit below 1, a target that is no share, and an ``initial_token_count`` above the limit.

    >>> memory = BufferedMemory.from_defaults(token_limit=1000)
    >>> memory.put(ChatMessage("Hello", role="user"))
    >>> [message.content for message in memory.get()]
    ['Hello']
    """

    token_limit: int = Field(
        default=_LIMIT, description="Tokens that messages may have before they are compacted."
    )
    target: float = Field(default=0.5, description="Share of the limit that a compaction goes down to.")
    llm: SerializeAsAny[LLM] | None = Field(default=None, exclude=True, description="Makes summaries.")
    summarize_prompt: str = Field(default=_SUMMARIZE, description="What the LLM is asked for.")
    memory_blocks: list[Any] = Field(default_factory=list, exclude=True, description="Asked once a turn.")
    tokenizer_fn: Callable[[str], list[Any]] = Field(default_factory=get_tokenizer, exclude=True)
    _blocks: tuple[str, str] | None = PrivateAttr(default=None)
    _lock: Any = PrivateAttr(default_factory=RLock)

    @model_validator(mode="before")
    @classmethod
    def _checked(cls, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("token_limit", _LIMIT) < 1:
            raise ValueError("Token limit must be set and greater than 0.")
        if not 0 < values.get("target", 0.5) < 1:
            raise ValueError(f"target is {values['target']!r}: give a share of the limit, between 0 and 1")
        names = [block.name for block in values.get("memory_blocks") or ()]
        if len(names) != len(set(names)):
            raise ValueError("All memory blocks must have unique names.")
        if values.get("tokenizer_fn") is None:
            values["tokenizer_fn"] = get_tokenizer()
        return values

    @classmethod
    def from_defaults(
        cls,
        chat_history: Sequence[ChatMessage] | None = None,
        llm: LLM | None = None,
        chat_store: BaseChatStore | None = None,
        chat_store_key: str = DEFAULT_CHAT_STORE_KEY,
        token_limit: int | None = None,
        tokenizer_fn: Callable[[str], list[Any]] | None = None,
        memory_blocks: Sequence[BaseMemoryBlock[Any]] | None = None,
        **fields: Any,
    ) -> BufferedMemory:
        """A memory as ``ChatMemoryBuffer.from_defaults`` makes one; the limit is three quarters of the LLM's window by default."""
        limit = token_limit or (int(llm.metadata.context_window * _SHARE) if llm is not None else _LIMIT)
        store = chat_store if chat_store is not None else SimpleChatStore()
        if chat_history is not None:
            store.set_messages(chat_store_key, list(chat_history))
        return cls(
            token_limit=limit,
            llm=llm,
            chat_store=store,
            chat_store_key=chat_store_key,
            tokenizer_fn=tokenizer_fn or get_tokenizer(),
            memory_blocks=list(memory_blocks or ()),
            **fields,
        )

    @classmethod
    def class_name(cls) -> str:
        """See ``BaseComponent``."""
        return "BufferedMemory"

    # What is sent

    def get(
        self,
        input: str | None = None,  # noqa: A002 - the framework names it so
        initial_token_count: int = 0,
        **kwargs: Any,
    ) -> list[ChatMessage]:
        """The messages that are sent, oldest first; ``initial_token_count`` tokens stand in front of them."""
        return self._with_blocks(self._sent(initial_token_count), self._told(input, kwargs))

    async def aget(
        self,
        input: str | None = None,  # noqa: A002 - as above
        initial_token_count: int = 0,
        **kwargs: Any,
    ) -> list[ChatMessage]:
        """See ``get``."""
        sent = await asyncio.to_thread(self._sent, initial_token_count)
        return self._with_blocks(sent, await self._atold(sent, input, kwargs))

    def _sent(self, initial: int = 0) -> list[ChatMessage]:
        if initial > self.token_limit:
            raise ValueError("Initial token count exceeds token limit")
        messages = self._view(self.get_all())
        if initial + self._tokens(messages) > self.token_limit:
            messages = self._smaller(messages, self.token_limit - initial, Truncator())
        return messages

    def _view(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        """All messages, what was compacted in place of the first ones."""
        made = kept(self.chat_store, self.chat_store_key)
        if made is None or not made.stands_for(messages):
            return list(messages)
        return [*made.messages, *messages[made.covers :]]

    # What is put

    def put(self, message: ChatMessage) -> None:
        """Add a message; behind a reply, compact if there are too many tokens."""
        self.put_messages([message])

    async def aput(self, message: ChatMessage) -> None:
        """See ``put``."""
        await self.aput_messages([message])

    def put_messages(self, messages: list[ChatMessage]) -> None:
        """Add messages, and compact behind the last one."""
        gone = self._added(messages)
        if gone and self.memory_blocks:
            asyncio_run(self._evict(gone))

    async def aput_messages(self, messages: list[ChatMessage]) -> None:
        """See ``put_messages``."""
        gone = await asyncio.to_thread(self._added, messages)
        if gone:
            await self._evict(gone)

    def _added(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        with self._lock:
            for message in messages:
                self.chat_store.add_message(self.chat_store_key, message)
            return self._compact()

    def set(self, messages: list[ChatMessage]) -> None:
        """Put these in place of all."""
        drop(self.chat_store, self.chat_store_key)
        super().set(messages)

    async def aset(self, messages: list[ChatMessage]) -> None:
        """See ``set``."""
        await asyncio.to_thread(self.set, messages)

    def reset(self) -> None:
        """Forget all messages."""
        drop(self.chat_store, self.chat_store_key)
        self._blocks = None
        super().reset()

    async def areset(self) -> None:
        """See ``reset``."""
        await asyncio.to_thread(self.reset)

    def fork(self, chat_store_key: str) -> BufferedMemory:
        """A memory with the same settings and messages under a key of its own, in the same chat store."""
        messages = self.get_all()
        if messages:
            copies = [message.model_copy(deep=True) for message in messages]
            self.chat_store.set_messages(chat_store_key, copies)
        made = kept(self.chat_store, self.chat_store_key)
        if made is not None:
            copies = [message.model_copy(deep=True) for message in made.messages]
            keep(self.chat_store, chat_store_key, made._replace(messages=copies))
        return self.model_copy(update={"chat_store_key": chat_store_key})

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> BufferedMemory:
        """A memory with the same settings and messages of its own."""
        made = self.model_copy()
        for name in ("chat_store", "memory_blocks"):
            setattr(made, name, copy.deepcopy(getattr(self, name), memo))
        made._lock = RLock()
        return made

    # Compaction

    def _compact(self) -> list[ChatMessage]:
        """Make the history smaller if it is too long and a turn has ended; what is no longer sent."""
        messages = self.get_all()
        if not messages or role_of(messages[-1]) != "assistant" or _calls(messages[-1]):
            return []
        self._drop_stale(messages)
        view = self._view(messages)
        if self._tokens(view) <= self.token_limit:
            return []
        smaller = self._compacted(view)
        stays = {id(each) for each in smaller}
        gone = [each for each in view if id(each) not in stays]
        if gone:
            made = Compacted(len(messages), digest_of(messages), smaller)
            keep(self.chat_store, self.chat_store_key, made)
            self._drop_stale(self.get_all())  # somebody may have deleted messages while a summary was made
        return gone

    def _drop_stale(self, messages: Sequence[ChatMessage]) -> None:
        made = kept(self.chat_store, self.chat_store_key)
        if made is not None and not made.stands_for(messages):
            drop(self.chat_store, self.chat_store_key)

    def _compacted(self, view: Sequence[ChatMessage]) -> list[ChatMessage]:
        tokens = max(int(self.token_limit * self.target), 1)
        if self.llm is not None:
            hook = Summarizer(partial(self._summary, view), over=0, length=max(tokens // 4, 1))
            smaller = self._smaller(view, tokens, hook)
            if self._tokens(smaller) <= self.token_limit:
                return smaller
        return self._smaller(view, tokens, Truncator())

    def _smaller(self, messages: Sequence[ChatMessage], tokens: int, hook: Any) -> list[ChatMessage]:
        """The messages as a hook of the core leaves them; those that stay are the very objects."""
        host = LlamaHost()
        read = [host.to_message(each) for each in messages]
        objects = {id(one): other for one, other in zip(read, messages, strict=True)}
        counts = {id(one): self._tokens([other]) for one, other in zip(read, messages, strict=True)}

        def count(message: Message) -> int:
            known = counts.get(id(message))
            return len(self.tokenizer_fn(message.text)) if known is None else known

        found = hook(read, Budget(max(tokens, 1), count=count))
        return [objects.get(id(each)) or host.from_message(each) for each in found]

    def _summary(self, view: Sequence[ChatMessage], messages: Sequence[Message]) -> str:
        """A summary of messages, asked for as ``ChatSummaryMemoryBuffer`` does: a buffered LLM sends it behind what it has cached."""
        assert self.llm is not None, "_compact asks only with one"
        told = "".join(f"{message.role}: {_told_by(message)}\n\n" for message in messages)
        asked = [
            ChatMessage(self.summarize_prompt, role=MessageRole.SYSTEM),
            ChatMessage(f'"Transcript so far: {told}"\n\n', role=MessageRole.USER),
        ]
        host = LlamaHost()
        first = next((i for i, each in enumerate(view) if host.to_message(each) == messages[0]), 0)
        with standing(view[:first]):
            return self.llm.chat(asked).message.content or ""

    async def _evict(self, gone: list[ChatMessage]) -> None:
        for block in self.memory_blocks:
            await block.aput(gone, from_short_term_memory=True, session_id=self.chat_store_key)

    def _tokens(self, messages: Sequence[ChatMessage]) -> int:
        return sum(len(self.tokenizer_fn(_text(message))) for message in messages)

    # Memory blocks

    def _told(self, asked: str | None, kwargs: dict[str, Any]) -> str:
        if not self.memory_blocks:
            return ""
        return str(asyncio_run(self._atold(self._view(self.get_all()), asked, kwargs)))

    async def _atold(self, messages: Sequence[ChatMessage], asked: str | None, kwargs: dict[str, Any]) -> str:
        """What the blocks say in this turn; asked when it begins."""
        if not self.memory_blocks:
            return ""
        last = max((i for i, each in enumerate(messages) if role_of(each) == "user"), default=-1)
        turn = digest_of(messages[: last + 1])
        if self._blocks is None or self._blocks[0] != turn:
            given = [*messages, *([ChatMessage(asked, role="user")] if isinstance(asked, str) else [])]
            texts = []
            for block in sorted(self.memory_blocks, key=lambda each: -each.priority):
                said = _said(await block.aget(given, session_id=self.chat_store_key, **kwargs))
                texts += [f"<{block.name}>\n{said}\n</{block.name}>"] if said else []
            self._blocks = turn, "\n".join(texts)
        return self._blocks[1]

    @staticmethod
    def _with_blocks(messages: list[ChatMessage], told: str) -> list[ChatMessage]:
        """The messages with what the blocks say behind the newest one of the user's."""
        last = max((i for i, each in enumerate(messages) if role_of(each) == "user"), default=-1)
        if not told or last < 0:
            return messages
        block = TextBlock(text=f"\n\n<memory>\n{told}\n</memory>")
        user = messages[last].model_copy(update={"blocks": [*messages[last].blocks, block]})
        return [*messages[:last], user, *messages[last + 1 :]]

    # As the framework's own memories are kept

    def to_string(self) -> str:
        """The memory as JSON, its messages included; see ``from_string``."""
        return self.to_json()

    @classmethod
    def from_string(cls, json_str: str, **kwargs: Any) -> BufferedMemory:
        """A memory from ``to_string``; LLM, tokenizer and memory blocks are given again."""
        return cls.from_dict(json.loads(json_str), **kwargs)

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> BufferedMemory:
        """A memory from ``to_dict``."""
        fields = {name: value for name, value in data.items() if name not in ("class_name", "llm")}
        if isinstance(fields.get("chat_store"), dict):
            fields["chat_store"] = load_chat_store(fields["chat_store"])
        return cls(**{**fields, **kwargs})


def _calls(message: ChatMessage) -> bool:
    """Whether a message calls tools, so that results follow."""
    return bool(LlamaHost().to_message(message).tool_calls)


def _told_by(message: Message) -> str:
    """What a message says, results of tools included."""
    results = [each.content for each in message.tool_results if isinstance(each.content, str)]
    return "\n".join(results) or message.text


def _text(message: ChatMessage) -> str:
    return " ".join(str(each) for each in _strings(LlamaHost().leaves(message)[1:]))


def _strings(leaves: Sequence[Any]) -> list[str]:
    out: list[str] = []
    for each in leaves:
        out += [each] if isinstance(each, str) else _strings(each) if isinstance(each, tuple) else []
    return out


def _said(content: Any) -> str:
    """What a memory block says, as text: a text, content blocks, or messages."""
    if not content or isinstance(content, str):
        return content or ""
    return "\n".join(
        f"{role_of(each)}: {each.content}" if isinstance(each, ChatMessage) else getattr(each, "text", "")
        for each in content
    )
