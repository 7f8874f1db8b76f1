"""Where a memory keeps what it compacted: beside its conversation, and gone with it."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from llama_index.core.llms import ChatMessage
from llama_index.core.storage.chat_store import BaseChatStore

from .chat_store import BufferedChatStore
from .convert import LlamaHost

__all__ = ["Compacted", "digest_of", "drop", "keep", "kept"]

_END = "#compacted"


class Compacted(NamedTuple):
    """What stands in place of the first ``covers`` messages of a conversation, whose ``digest`` it is made for."""

    covers: int
    digest: str
    messages: list[ChatMessage]

    def stands_for(self, messages: Sequence[ChatMessage]) -> bool:
        """Whether the messages it was made for are there still, as they were."""
        return self.covers <= len(messages) and self.digest == digest_of(messages[: self.covers])


def digest_of(messages: Sequence[ChatMessage]) -> str:
    """A digest of what of the messages is sent."""
    digest, host = blake2b(digest_size=16), LlamaHost()
    for message in messages:
        digest.update(repr(host.leaves(message)).encode(errors="replace"))
    return digest.hexdigest()


def kept(store: BaseChatStore, key: str) -> Compacted | None:
    """What was kept for a conversation."""
    ours = isinstance(store, BufferedChatStore)
    found = store.get_compacted(key) if ours else store.get_messages(key + _END)
    if not found:
        return None
    return Compacted(found[0].additional_kwargs.get("covers", 0), found[0].content or "", found[1:])


def keep(store: BaseChatStore, key: str, made: Compacted) -> None:
    """Keep it in place of what was kept before. A chat store of another make has it under a key of its own."""
    head = ChatMessage(made.digest, role="system", additional_kwargs={"covers": made.covers})
    if isinstance(store, BufferedChatStore):
        store.set_compacted(key, [head, *made.messages], covers=made.covers)
    else:
        store.set_messages(key + _END, [head, *made.messages])


def drop(store: BaseChatStore, key: str) -> None:
    """Delete what was kept."""
    if isinstance(store, BufferedChatStore):
        store.drop_compacted(key)
    else:
        store.delete_messages(key + _END)
