"""Explicit caches of Gemini, one by one: what a request would put into one, one that lives, and the calls about it.

The calls are context managers around the SDK's: ``CachedContents`` makes them, with a synchronous client or another.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from ..prices import Price

if TYPE_CHECKING:
    from .gemini_contents import CachedContents

__all__ = ["GONE", "Deleting", "Entry", "Making", "Refreshing", "Wanted", "seconds"]

_log = logging.getLogger("llmbuffer.gemini")

# Google answers 403 for caches that expired or were deleted, so as to tell nothing about those of others.
GONE = frozenset({403, 404})
_HOUR = 3600.0


def seconds(ttl: float) -> str:
    """A lifetime as Google writes it: no exponent, at most nine digits after the point."""
    return f"{ttl:.3f}".rstrip("0").rstrip(".") + "s"


class Entry:
    """A cache that lives at the provider."""

    def __init__(self, key: str, name: str, tokens: int, price: Price, at: float, ttl: float) -> None:
        self.key, self.name, self.tokens, self.price = key, name, tokens, price
        self.made_at, self.since, self.expires_at = at, at, at + ttl
        self.uses = 1  # since it was made or refreshed; the request that made it is the first
        self.proven = False  # has served a request
        self.refreshing = False

    def storage(self, until: float) -> float:
        """US dollars for keeping it from its making until then, or until it expired."""
        hours = max(0.0, min(until, self.expires_at) - self.made_at) / _HOUR
        return (self.price.cache_storage_hour or 0.0) * self.tokens / 1e6 * hours


class Wanted(msgspec.Struct, frozen=True):
    """What a request would have in a cache."""

    key: str
    model: str
    head: dict[str, Any]
    tokens: int
    price: Price

    def creation(self, ttl: float) -> dict[str, Any]:
        """Arguments for ``caches.create``; the head goes past the SDK's own types, byte for byte."""
        options = {"extra_body": self.head}
        config = {
            "ttl": seconds(ttl),
            "display_name": f"llmbuffer {self.key[-12:]}",
            "http_options": options,
        }
        return {"model": self.model, "config": config}


class _Step:
    """Around one call to the provider: what it raises is told by the log, without its text, and goes no further."""

    doing = ""

    def __init__(self, contents: CachedContents) -> None:
        self.contents = contents

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self.after(error)
        if not isinstance(error, Exception):
            return False
        code, status = getattr(error, "code", None), getattr(error, "status", None)
        _log.warning("%s failed: %s %s %s", self.doing, type(error).__name__, code, status)
        return True

    def after(self, error: BaseException | None) -> None:
        """What the outcome changes."""
        raise NotImplementedError


class Making(_Step):
    """Making a cache: whoever waits for it goes on afterwards, whatever came of it."""

    def __init__(self, contents: CachedContents, wanted: Wanted) -> None:
        super().__init__(contents)
        self.wanted, self.made_at = wanted, contents.clock()
        self.entry: Entry | None = None
        self.doing = f"making a cache for {wanted.model}"

    def done(self, made: Any) -> None:
        """Take in the cache that the provider made."""
        wanted, contents = self.wanted, self.contents
        reported = getattr(getattr(made, "usage_metadata", None), "total_token_count", None)
        tokens = reported if isinstance(reported, int) else wanted.tokens
        self.entry = Entry(wanted.key, made.name, tokens, wanted.price, self.made_at, contents.ttl)
        with contents._lock:
            contents._live[wanted.key] = self.entry
            contents._written += wanted.price.rates(tokens).input * tokens / 1e6

    def after(self, error: BaseException | None) -> None:
        """Keep the cache, or make none for a while."""
        contents, key = self.contents, self.wanted.key
        with contents._lock:
            if isinstance(error, Exception):  # not for one that was cancelled
                contents._rests[key] = contents.clock() + contents.retry_after
            contents._under_way.pop(key).set()


class Refreshing(_Step):
    """Giving a cache its whole lifetime again."""

    def __init__(self, contents: CachedContents, entry: Entry) -> None:
        super().__init__(contents)
        self.entry, self.doing = entry, f"refreshing {entry.name}"
        self.asked_at = contents.clock()

    def after(self, error: BaseException | None) -> None:
        """Count its lifetime anew."""
        entry, contents = self.entry, self.contents
        with contents._lock:
            entry.refreshing = False
            if error is None:
                entry.since, entry.expires_at, entry.uses = self.asked_at, self.asked_at + contents.ttl, 1


class Deleting(_Step):
    """Deleting a cache; one that is not there any more counts as deleted."""

    def __init__(self, contents: CachedContents, name: str) -> None:
        super().__init__(contents)
        self.name, self.doing = name, f"deleting {name}"

    def after(self, error: BaseException | None) -> None:
        """Its storage ends."""
        contents = self.contents
        if error is not None and getattr(error, "code", None) not in GONE:
            return
        with contents._lock:
            for entry in [entry for entry in contents._live.values() if entry.name == self.name]:
                contents._end(entry, contents.clock())
