"""The orders that policies are made of: a heap whose ranks may rise unseen, and a queue that knows its size."""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Queue", "Ranking"]

K = TypeVar("K", bound=Hashable)


class Ranking(Generic[K]):
    """Keys by rank, the lowest first, and of equal ranks the one that was ranked first.

    `rise` costs O(1): the heap keeps the old rank until it comes to the top, which is safe because ranks never fall.
    `put` and `pop` cost O(log n), amortised; what was dropped stays in the heap until it is met or outnumbers the rest.

    >>> ranking = Ranking()
    >>> ranking.put("a", 1), ranking.put("b", 2), ranking.rise("a", 3)
    (None, None, None)
    >>> ranking.pop(), ranking.pop(), len(ranking)
    ((2, 'b'), (3, 'a'), 0)
    """

    __slots__ = ("_heap", "_slots", "_stamp")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, K]] = []
        self._slots: dict[
            K, tuple[float, int, int]
        ] = {}  # rank, its stamp, the stamp that stands in the heap
        self._stamp = 0

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, key: K) -> bool:
        return key in self._slots

    def put(self, key: K, rank: float) -> None:
        """Take in a key that is not in the ranking."""
        self._stamp += 1
        self._slots[key] = (rank, self._stamp, self._stamp)
        heapq.heappush(self._heap, (rank, self._stamp, key))
        if len(self._heap) > 2 * len(self._slots) + 64:
            self._sweep()

    def rise(self, key: K, rank: float) -> None:
        """Give a key of the ranking a rank that is at least the one it has; it counts as ranked now."""
        self._stamp += 1
        self._slots[key] = (rank, self._stamp, self._slots[key][2])

    def drop(self, key: K) -> None:
        """Take a key out, if it is in."""
        self._slots.pop(key, None)

    def lowest(self) -> tuple[float, K]:
        """The lowest rank and its key; the ranking must not be empty."""
        while True:
            rank, stamp, key = self._heap[0]
            slot = self._slots.get(key)
            if slot is None or slot[2] != stamp:
                heapq.heappop(self._heap)
            elif slot[1] == stamp:
                return rank, key
            else:
                heapq.heapreplace(self._heap, (slot[0], slot[1], key))
                self._slots[key] = (slot[0], slot[1], slot[1])

    def pop(self) -> tuple[float, K]:
        """Take out the lowest rank and its key."""
        lowest = self.lowest()
        heapq.heappop(self._heap)
        del self._slots[lowest[1]]
        return lowest

    def _sweep(self) -> None:
        self._heap = [(rank, stamp, key) for key, (rank, stamp, _) in self._slots.items()]
        self._slots = {key: (rank, stamp, stamp) for rank, stamp, key in self._heap}
        heapq.heapify(self._heap)


class Queue(Generic[K]):
    """Keys in the order in which they came, and the sum of their sizes.

    >>> queue = Queue()
    >>> queue.push("a", 10), queue.push("b", 5), queue.renew("a")
    (None, None, None)
    >>> queue.first(), queue.size, "a" in queue
    ('b', 15, True)
    """

    __slots__ = ("_sizes", "size")

    def __init__(self) -> None:
        self._sizes: OrderedDict[K, int] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def __contains__(self, key: K) -> bool:
        return key in self._sizes

    def push(self, key: K, size: int) -> None:
        """Put a key that is not in the queue at its end."""
        self._sizes[key] = size
        self.size += size

    def renew(self, key: K) -> None:
        """Move a key of the queue to its end."""
        self._sizes.move_to_end(key)

    def first(self) -> K:
        """The key that has been in the queue longest; it must not be empty."""
        return next(iter(self._sizes))

    def take(self, key: K) -> bool:
        """Take a key out; False if it is not in."""
        size = self._sizes.pop(key, None)
        if size is None:
            return False
        self.size -= size
        return True

    def take_first(self) -> tuple[K, int]:
        """Take out the key that has been in the queue longest, and return it with its size."""
        key, size = self._sizes.popitem(last=False)
        self.size -= size
        return key, size

    def trim(self, size: float = math.inf, entries: float = math.inf) -> None:
        """Drop the oldest until at most ``entries`` of ``size`` in all are left."""
        while self._sizes and (self.size > size or len(self._sizes) > entries):
            self.take_first()
