"""ARC: what was used once and what was used again, in a proportion that follows the misses (Megiddo and Modha, FAST 2003).

The cache remembers what it evicted from either part. A miss that it remembers says which part was too small. There is
nothing to tune. Where a capacity in bytes is given, sizes are bytes; with equal weights this is the algorithm of the paper.
"""

from __future__ import annotations

from typing import Any

from .base import Policy
from .entry import Entry, K
from .order import Queue

__all__ = ["ARC"]


class ARC(Policy[K]):
    """Balances recency against frequency by itself. Every operation is O(1), amortised.

    >>> arc = ARC(entries=4)
    >>> [arc.add("kept", 1), arc.touch("kept")]
    [[], True]
    >>> scanned = [victim.key for number in range(20) for victim in arc.add(number, 1)]
    >>> "kept" in arc, scanned[:3]
    (True, [0, 1, 2])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._by_bytes = self.capacity is not None
        self._most = self._most_bytes if self._by_bytes else self._most_entries
        self._once: Queue[K] = Queue()
        self._often: Queue[K] = Queue()
        self._once_ghosts: Queue[K] = Queue()
        self._often_ghosts: Queue[K] = Queue()
        self._target: float = 0  # how much of the cache is for what was used once
        self._missed_often = False  # the key that room is made for was evicted from `_often`

    def _size(self, entry: Entry[K]) -> int:
        return entry.weight if self._by_bytes else 1

    def _admit(self, entry: Entry[K]) -> None:
        once, often, size = self._once_ghosts, self._often_ghosts, self._size(entry)
        self._missed_often = entry.key in often
        if entry.key in once:
            held = self._once.size + self._often.size
            self._target = min(held, self._target + size * max(1.0, often.size / once.size))
            once.take(entry.key)
            entry.main = True
        elif self._missed_often:
            self._target = max(0, self._target - size * max(1.0, once.size / often.size))
            often.take(entry.key)
            entry.main = True

    def _enter(self, entry: Entry[K]) -> None:
        (self._often if entry.main else self._once).push(entry.key, self._size(entry))
        self._missed_often = False  # room was made
        self._trim()

    def _leave(self, entry: Entry[K]) -> None:
        (self._often if entry.main else self._once).take(entry.key)

    def _used(self, entry: Entry[K]) -> None:
        if entry.main:
            self._often.renew(entry.key)
            return
        self._once.take(entry.key)
        entry.main = True
        self._often.push(entry.key, self._size(entry))

    def _choose(self) -> Entry[K]:
        once = self._once.size
        too_much = once > self._target or (self._missed_often and once == self._target)
        if self._once and (too_much or not self._often):
            key, size = self._once.take_first()
            self._once_ghosts.push(key, size)
        else:
            key, size = self._often.take_first()
            self._often_ghosts.push(key, size)
        return self._held[key]

    def _trim(self) -> None:
        """Remember at most one more cache full of keys, and of those used once only what fits into one with them."""
        once, often = self._once, self._often
        once_ghosts, often_ghosts = self._once_ghosts, self._often_ghosts
        if once_ghosts:
            once_ghosts.trim(self._most - once.size, self._most_entries - len(once))
        if often_ghosts:
            size = once.size + often.size + once_ghosts.size
            number = len(once) + len(often) + len(once_ghosts)
            often_ghosts.trim(2 * self._most - size, 2 * self._most_entries - number)
