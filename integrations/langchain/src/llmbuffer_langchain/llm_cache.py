"""LangChain's cache of whole replies, in a store of llmbuffer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.caches import BaseCache
from langchain_core.messages import message_to_dict, messages_from_dict
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk
from pydantic import BaseModel

from llmbuffer.messages import content_hash
from llmbuffer.store import open_store

if TYPE_CHECKING:
    from llmbuffer.store import Store

__all__ = ["BufferedCache"]

_KINDS: dict[str, Any] = {
    each.__name__: each for each in (Generation, GenerationChunk, ChatGeneration, ChatGenerationChunk)
}
_SHELF = "langchain/replies/"


class BufferedCache(BaseCache):
    """Whole replies, by the exact prompt and settings: ``set_llm_cache(BufferedCache("sqlite:///cache.db"))``.

    ``store`` is a ``Store`` or the URL of one (default: in memory). It bounds, seals and shares what is kept; entries live
    for ``ttl`` seconds (default: until the store evicts them). Replies are kept as JSON and read back as LangChain's own
    generations, nothing else; what cannot be read counts as not there. A reply that holds an object of a class of yours
    (``with_structured_output`` parses into one) is not kept, since JSON cannot say what it is.

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
            return [_read(each) for each in json.loads(body)]
        except (ValueError, TypeError, LookupError):
            return None  # of another version

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Keep a reply."""
        try:
            body = json.dumps([_written(each) for each in return_val]).encode()
        except TypeError:
            return
        self.store.put(_key(prompt, llm_string), body, ttl=self._ttl)

    def clear(self, **kwargs: Any) -> None:
        """Drop all replies of LangChain's, and nothing else of the store."""
        kept = self.store.keys()
        for key in kept:
            if key.startswith(_SHELF):
                self.store.drop(key)


def _written(generation: Generation) -> dict[str, Any]:
    out = {"kind": type(generation).__name__, "text": generation.text, "info": generation.generation_info}
    message = getattr(generation, "message", None)
    if message is not None:
        objects = [each for each in message.additional_kwargs.values() if isinstance(each, BaseModel)]
        out |= {"message": message_to_dict(message), "objects": objects}  # an object is no JSON
    return out


def _read(told: dict[str, Any]) -> Generation:
    kind = _KINDS[told["kind"]]
    if "message" not in told:
        found: Generation = kind(text=told["text"], generation_info=told["info"])
        return found
    (message,) = messages_from_dict([told["message"]])
    chat: Generation = kind(message=message, generation_info=told["info"])
    return chat


def _key(prompt: str, llm_string: str) -> str:
    return _SHELF + content_hash(json.dumps([prompt, llm_string]).encode())
