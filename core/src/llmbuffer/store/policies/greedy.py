"""Policies that rank entries by what they are worth, and let old worth fade: aged LFU and GreedyDual-Size-Frequency.

An entry's rank is ``L + uses * worth``, and ``L`` is the rank of the last victim (Arlitt et al., "Evaluating Content
Management Techniques for Web Proxy Caches", 2000; GreedyDual-Size is Cao and Irani, 1997). New uses are added to a rising
``L``, so counts of long ago lose against a few of now; without it agents' old sessions would never leave.
There is nothing to tune. A use costs O(1), an eviction O(log n), amortised.
"""

from __future__ import annotations

from typing import Any

from .base import Policy
from .entry import Entry, K
from .order import Ranking

__all__ = ["AgedLFU", "Cost"]


class AgedLFU(Policy[K]):
    """Evicts what was used least often, where uses of long ago count less (LFU with dynamic aging).

    >>> lfu = AgedLFU(entries=2)
    >>> lfu.add("a", 1), lfu.add("b", 1), lfu.touch("a")
    ([], [], True)
    >>> [victim.key for key in "cde" for victim in lfu.add(key, 1)]
    ['b', 'a', 'c']
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ranking: Ranking[K] = Ranking()
        self._age: float = 0

    def _worth(self, entry: Entry[K]) -> float:
        """What one use of the entry counts."""
        return 1

    def _enter(self, entry: Entry[K]) -> None:
        self._ranking.put(entry.key, self._age + (entry.count + 1) * self._worth(entry))

    def _leave(self, entry: Entry[K]) -> None:
        self._ranking.drop(entry.key)

    def _used(self, entry: Entry[K]) -> None:
        entry.count += 1
        self._ranking.rise(entry.key, self._age + (entry.count + 1) * self._worth(entry))

    def _choose(self) -> Entry[K]:
        self._age, key = self._ranking.pop()
        return self._held[key]


class Cost(AgedLFU[K]):
    """Evicts what saves least for each byte it takes: uses times price of making it anew over weight, aged.

    >>> cost = Cost(capacity=100)
    >>> cost.add("cheap", 50, price=10), cost.add("dear", 50, price=5000), cost.touch("cheap")
    ([], [], True)
    >>> cost.add("new", 50, price=100)
    [Victim(key='cheap', weight=50, expired=False)]
    """

    def _worth(self, entry: Entry[K]) -> float:
        return entry.price / entry.weight
