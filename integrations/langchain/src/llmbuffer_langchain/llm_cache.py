"""LangChain's cache of whole replies, in a store of llmbuffer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.caches import BaseCache
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk

from llmbuffer.messages import content_hash
from llmbuffer.store import open_store

if TYPE_CHECKING:
    from llmbuffer.store import Store

__all__ = ["BufferedCache"]

_ALLOWED = [Generation, GenerationChunk, ChatGeneration, ChatGenerationChunk, AIMessage, AIMessageChunk]
_SHELF = "langchain/replies/"


class BufferedCache(BaseCache):  # type: ignore[misc]  # the framework's base class
    """Whole replies, by the exact prompt and settings: ``set_llm_cache(BufferedCache("sqlite:///cache.db"))``.

    ``store`` is a ``Store`` or the URL of one (default: in memory). It bounds, seals and shares what is kept; entries live
    for ``ttl`` seconds (default: until the store evicts them). Replies are kept as JSON and read back as LangChain's own
    generations, nothing else; what cannot be read counts as not there.

    Raises ``StoreError`` as the store does.

    >>> cache = BufferedCache()
    >>> cache.update("prompt", "settings", [Generation(text="Hi")])
    >>> cache.lookup("prompt", "settings")[0].text, cache.lookup("prompt", "others") is None
    ('Hi', True)
    """

    def __init__(self, store: Store | str = "memory:", *, ttl: float | None = None) -> None:
        self.store = open_store(store) if isinstance(store, str) else store
        self._ttl = ttl

    def lookup(self, prompt: str, llm_string: str) -> Sequence[Generation] | None:
        """The reply that was kept, or ``None``."""
        body = self.store.get(_key(prompt, llm_string))
        if body is None:
            return None
        try:
            return [loads(each, allowed_objects=_ALLOWED) for each in json.loads(body)]
        except (ValueError, TypeError, NotImplementedError):
            return None  # of another version, or with fields of a class that is not allowed

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Keep a reply."""
        body = json.dumps([dumps(each) for each in return_val]).encode()
        self.store.put(_key(prompt, llm_string), body, ttl=self._ttl)

    def clear(self, **kwargs: Any) -> None:
        """Drop all replies of LangChain's, and nothing else of the store."""
        for key in self.store.keys():
            if key.startswith(_SHELF):
                self.store.drop(key)


def _key(prompt: str, llm_string: str) -> str:
    return _SHELF + content_hash(json.dumps([prompt, llm_string]).encode())
