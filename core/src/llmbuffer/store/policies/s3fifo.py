"""S3-FIFO: three queues, so that what is used once leaves early (Yang et al., SOSP 2023)."""

from __future__ import annotations

import math
from typing import Any

from .base import Policy
from .entry import Entry, K
from .order import Queue

__all__ = ["S3FIFO"]

SMALL = 10  # the small queue has one tenth of the capacity
MOST = 3  # uses are counted in two bits


class S3FIFO(Policy[K]):
    """New entries pass a small queue, a tenth of the capacity; those used twice there, or missed soon after, are kept.

    Shares and counters are those of the paper. A use costs O(1), an eviction O(1), amortised.

    >>> policy = S3FIFO(entries=10)
    >>> [policy.add("kept", 1), policy.touch("kept"), policy.touch("kept")]
    [[], True, True]
    >>> scanned = [victim.key for number in range(20) for victim in policy.add(number, 1)]
    >>> "kept" in policy, scanned[:3]
    (True, [0, 1, 2])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._small_bytes, self._small_entries = self._most_bytes / SMALL, self._most_entries / SMALL
        self._ghost_bytes, self._ghost_entries = (
            most * (SMALL - 1) // SMALL if most < math.inf else most
            for most in (self._most_bytes, self._most_entries)
        )
        self._small: Queue[K] = Queue()
        self._main: Queue[K] = Queue()
        self._ghosts: Queue[K] = Queue()  # evicted from the small queue

    def _admit(self, entry: Entry[K]) -> None:
        entry.main = self._ghosts.take(entry.key)

    def _enter(self, entry: Entry[K]) -> None:
        (self._main if entry.main else self._small).push(entry.key, entry.weight)

    def _leave(self, entry: Entry[K]) -> None:
        (self._main if entry.main else self._small).take(entry.key)

    def _used(self, entry: Entry[K]) -> None:
        if entry.count < MOST:
            entry.count += 1

    def _choose(self) -> Entry[K]:
        while True:
            small = self._small
            full = small.size >= self._small_bytes or len(small) >= self._small_entries
            victim = self._from_small() if small and (full or not self._main) else self._from_main()
            if victim is not None:
                return victim

    def _from_small(self) -> Entry[K] | None:
        """Evict the oldest of the small queue, or move it to the main one and return None."""
        key, weight = self._small.take_first()
        entry = self._held[key]
        if entry.count > 1:
            entry.main, entry.count = True, 0
            self._main.push(key, weight)
            return None
        self._ghosts.push(key, weight)
        self._ghosts.trim(self._ghost_bytes, self._ghost_entries)
        return entry

    def _from_main(self) -> Entry[K] | None:
        """Evict the oldest of the main queue, or give it another round for each use and return None."""
        key, weight = self._main.take_first()
        entry = self._held[key]
        if entry.count:
            entry.count -= 1
            self._main.push(key, weight)
            return None
        return entry
