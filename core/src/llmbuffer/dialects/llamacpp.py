"""llama.cpp's server, by its chat completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from ..errors import DialectError
from ..frozen import FrozenDict
from ..rules import CacheRules, Draft
from ..usage import Usage
from .base import as_dict, count_field, mapping_field
from .engine_rules import LLAMACPP
from .openai_chat import OpenAIChat

__all__ = ["LlamaCpp", "silent"]

# What asks for more than one answer, or for another form of it.
_ANSWER = frozenset({"max_completion_tokens", "max_tokens", "min_tokens", "n", "stream", "stream_options"})


class LlamaCpp(OpenAIChat):
    """The ``llamacpp`` dialect. ``lanes``: the server's slots (``--parallel``); ``capacity``: tokens of prompts that left their
    slot and are kept in memory (``--cache-ram``; default: no bound).

    Each slot has a cache of its own, so forks that run side by side compute a shared prefix once each, unless it is put
    into their slots (``llamacpp_slots.broadcast_slot``). ``id_slot`` sends every request to one slot; the parameter of that
    name does so for one session or request, and may change at any time.

    >>> LlamaCpp(lanes=4, id_slot=2).rules.lanes
    4
    >>> from llmbuffer import Session, StableContext
    >>> session = Session(StableContext("local"), "llamacpp")
    >>> session.request("Hello", params={"id_slot": 3}).kwargs["extra_body"]
    {'id_slot': 3, 'cache_prompt': True}

    Raises ``DialectError`` for a slot that there is not: the server would take its number modulo ``lanes``.
    """

    name = "llamacpp"
    default_model = "local"

    def __init__(
        self,
        rules: CacheRules | None = None,
        *,
        lanes: int = 1,
        id_slot: int | None = None,
        capacity: int | None = None,
    ) -> None:
        if lanes < 1:
            raise DialectError(f"lanes is {lanes!r}: give the number of the server's slots, 1 or more")
        if id_slot is not None and not 0 <= id_slot < lanes:
            raise DialectError(f"id_slot is {id_slot!r}: with lanes={lanes} it is one of 0 to {lanes - 1}")
        self._lanes, self._id_slot, self._capacity = lanes, id_slot, capacity
        super().__init__(rules)

    @staticmethod
    def rules_for(_model: str) -> CacheRules:
        """The rules of the engine, whatever the model."""
        return LLAMACPP

    def chosen(self, rules: CacheRules) -> CacheRules:
        """The rules for a server of this size."""
        return replace(rules, lanes=self._lanes, capacity=self._capacity)

    def assemble(self, draft: Draft) -> FrozenDict:
        """The body, with ``cache_prompt`` and the slot unless the params name them."""
        body = super().assemble(draft)
        slot = {} if self._id_slot is None else {"id_slot": self._id_slot}
        own = {"cache_prompt": True, **slot}
        return FrozenDict(body, **{key: value for key, value in own.items() if key not in body})

    def prewarm(self, body: Mapping[str, Any]) -> FrozenDict:
        """The body with ``max_tokens`` 0; the server may still answer with one token."""
        return silent(body, max_tokens=0)

    def read_usage(self, response: Any) -> Usage | None:
        """``usage`` where it tells the cached tokens, else the server's ``timings``."""
        usage, data = super().read_usage(response), as_dict(response)
        timings = mapping_field(data, "timings")
        if "cache_n" not in timings or _tells_cached(data):
            return usage
        read = count_field(timings, "cache_n")
        output = usage.output_tokens if usage is not None else count_field(timings, "predicted_n")
        return Usage(
            input_tokens=read + count_field(timings, "prompt_n"), output_tokens=output, cache_read_tokens=read
        )


def _tells_cached(data: Mapping[str, Any]) -> bool:
    details = mapping_field(mapping_field(data, "usage"), "prompt_tokens_details")
    return details.get("cached_tokens") is not None


def silent(body: Mapping[str, Any], *, max_tokens: int) -> FrozenDict:
    """A body that asks for the shortest answer: one choice of ``max_tokens``, not streamed.

    >>> silent({"model": "local", "messages": [], "stream": True, "n": 4}, max_tokens=1)
    {'model': 'local', 'messages': [], 'max_tokens': 1}
    """
    kept = {key: value for key, value in body.items() if key not in _ANSWER}
    return FrozenDict(kept, max_tokens=max_tokens)
