"""What OpenAI's APIs share for caching: breakpoints on content parts, and the key that requests are routed by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..frozen import FrozenDict
from ..messages import content_hash
from ..rules import CacheRules

__all__ = ["MAX_ROUTING_KEY", "routed", "with_breakpoint"]

MAX_ROUTING_KEY = 64  # characters of a prompt_cache_key: OpenAI's API reference


def with_breakpoint(part: Mapping[str, Any], *, long: bool) -> FrozenDict:
    """The part with ``prompt_cache_breakpoint``; one that the user put there stays.

    >>> with_breakpoint({"type": "text", "text": "hi"}, long=True)["prompt_cache_breakpoint"]
    {'mode': 'explicit', 'ttl': '12h'}
    """
    if part.get("prompt_cache_breakpoint") is not None:
        return FrozenDict(part)
    breakpoint_ = FrozenDict(mode="explicit", ttl="12h") if long else FrozenDict(mode="explicit")
    return FrozenDict(part, prompt_cache_breakpoint=breakpoint_)


def routed(rules: CacheRules, key: str | None) -> dict[str, str]:
    """The field with the routing key, where the rules have one; a key that is too long is hashed."""
    if rules.routing_field is None or key is None:
        return {}
    return {rules.routing_field: key if len(key) <= MAX_ROUTING_KEY else content_hash(key.encode())}
