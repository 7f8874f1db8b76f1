"""What all caches have in common: look-ups, stored prompts, and the template of look and commit."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from heapq import nsmallest
from typing import Literal

import msgspec

from ..rules import CacheRules
from ..snapshot import MarkAt, Snapshot
from ..usage import Usage

__all__ = ["Entry", "Lookup", "Outcome", "StoredPrompts", "by_tokens", "cold", "obstacle"]

# A part of the limit by which it may be exceeded, so that the oldest are not looked for at every request.
_SLACK = 8

Outcome = Literal["hit", "cold", "expired", "below-minimum", "not-yet-visible", "lookback-exceeded"]


class Lookup(msgspec.Struct, frozen=True, gc=False):
    """What one request would read, write and compute afresh, in tokens; ``outcome`` says why nothing more was read.

    ``write_tokens`` includes ``write_long_tokens`` (entries kept for 1 h or 12 h). ``warm_tokens`` is what would have been
    read if nothing had expired, were still being written or lay out of reach.

    >>> Lookup(800, 150, 0, 50, 800, "hit").usage().hit_ratio
    0.8
    """

    read_tokens: int
    write_tokens: int
    write_long_tokens: int
    fresh_tokens: int
    warm_tokens: int
    outcome: Outcome

    def usage(self, output_tokens: int = 0) -> Usage:
        """The same as ``Usage``, as a provider would report it."""
        return Usage(
            input_tokens=self.read_tokens + self.write_tokens + self.fresh_tokens,
            output_tokens=output_tokens,
            cache_read_tokens=self.read_tokens,
            cache_write_tokens=self.write_tokens,
            cache_write_long_tokens=self.write_long_tokens,
        )


class Entry:
    """A stored prefix: ``snapshot`` up to ``mark``, or its first ``tokens`` where no mark bounds it.

    ``superseded`` is when a longer one that covers it became visible; ``shared`` of its tokens are held by younger ones;
    ``used`` counts the prompts stored before; ``inserted`` is the depth at which dynamic text stands in it, or -1.
    """

    __slots__ = (
        "expires",
        "inserted",
        "mark",
        "position",
        "shared",
        "snapshot",
        "superseded",
        "tokens",
        "used",
        "visible",
    )

    def __init__(
        self,
        snapshot: Snapshot,
        mark: MarkAt,
        *,
        expires: float,
        visible: float,
        tokens: int | None = None,
    ) -> None:
        self.snapshot, self.mark = snapshot, mark
        self.tokens = snapshot.tokens_at(mark) if tokens is None else tokens
        self.position = snapshot.position_at(mark)
        self.expires, self.visible = expires, visible
        covered = snapshot.insert is not None and not mark.in_head and snapshot.covers_insert(mark)
        self.inserted = snapshot.insert.after.depth if covered and snapshot.insert is not None else -1
        self.superseded = math.inf
        self.shared = self.used = 0

    def begins(self, other: Snapshot) -> bool:
        """Whether this prefix, as far as its mark, is one of the request ``other``."""
        return self.snapshot.begins(self.mark, other)


class StoredPrompts(ABC):
    """A cache that stores entries. Not thread-safe: the caller holds its lock."""

    def __init__(
        self, rules: CacheRules, limit: int | None = None, count: Callable[[str], int] | None = None
    ) -> None:
        self.rules = rules
        self._limit = limit
        self._count = count
        self._entries: list[Entry] = []
        self._due = -math.inf  # nothing has to go before

    def __len__(self) -> int:
        return len(self._entries)

    def live_for(self, ttl: float) -> None:
        """Keep entries of the short lifetime for ``ttl`` seconds after they are used; those that are there as well."""
        more, self.rules = ttl - self.rules.ttl, msgspec.structs.replace(self.rules, ttl=ttl)
        for entry in self._entries:
            if not (entry.mark.long and self.rules.ttl_long is not None):
                entry.expires += more
        self._due = -math.inf

    def look(self, snapshot: Snapshot, at: float) -> Lookup:
        """What a request that starts at time ``at`` reads and writes."""
        return self._look(snapshot, at)[0]

    def commit(self, snapshot: Snapshot, at: float, visible: float) -> Lookup:
        """Send the request: what it reads lives on, what it writes can be read from ``visible`` on."""
        lookup, read = self._look(snapshot, at)
        if at >= self._due:
            self._entries = [entry for entry in self._entries if entry.expires > at and entry.superseded > at]
            self._due = min(
                (min(entry.expires, entry.superseded) for entry in self._entries), default=math.inf
            )
        if read is not None:
            self._refresh(read, snapshot, at)
        self._store(snapshot, at, visible)
        self._due = min(self._due, at + self.rules.ttl)
        self._forget_oldest()
        return lookup

    def commit_output(self, snapshot: Snapshot, at: float) -> None:
        """Store prompt and reply."""
        self._store(snapshot, at, at)
        self._due = min(self._due, at + self.rules.ttl)
        self._forget_oldest()

    @abstractmethod
    def reveal(self, snapshot: Snapshot, at: float) -> None:
        """From ``at`` on, what the request wrote can be read."""

    @abstractmethod
    def _look(self, snapshot: Snapshot, at: float) -> tuple[Lookup, Entry | None]:
        """The look-up, and the entry that it reads."""

    @abstractmethod
    def _store(self, snapshot: Snapshot, at: float, visible: float) -> None:
        """Store what the request writes."""

    def _refresh(self, entry: Entry, snapshot: Snapshot, at: float) -> None:
        entry.expires = max(entry.expires, at + self._ttl(entry.mark.long))

    def _ttl(self, long: bool) -> float:
        return self.rules.ttl_long if long and self.rules.ttl_long is not None else self.rules.ttl

    def _forget_oldest(self) -> None:
        if self._limit is None or len(self._entries) <= self._limit + self._limit // _SLACK:
            return
        excess = len(self._entries) - self._limit
        oldest = nsmallest(excess, self._entries, key=lambda entry: (entry.expires, entry.tokens))
        gone = set(map(id, oldest))
        self._entries = [entry for entry in self._entries if id(entry) not in gone]


def by_tokens(entry: Entry) -> int:
    """The key by which entries are sorted."""
    return entry.tokens


def obstacle(entry: Entry, at: float) -> Outcome | None:
    """What keeps an entry from being read at ``at``."""
    if entry.expires <= at:
        return "expired"
    return "not-yet-visible" if entry.visible > at else None


def cold(snapshot: Snapshot, rules: CacheRules) -> Outcome:
    """Why nothing is read where nothing is stored."""
    return "below-minimum" if snapshot.tokens < rules.min_tokens else "cold"
