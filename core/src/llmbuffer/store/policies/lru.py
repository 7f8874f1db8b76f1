"""Least recently used."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from .base import Policy
from .entry import Entry, K

__all__ = ["LRU"]


class LRU(Policy[K]):
    """Evicts what was used longest ago. Every operation is O(1).

    >>> lru = LRU(entries=2)
    >>> lru.add("a", 1), lru.add("b", 1), lru.touch("a")
    ([], [], True)
    >>> lru.add("c", 1)
    [Victim(key='b', weight=1, expired=False)]
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._order: OrderedDict[K, Entry[K]] = OrderedDict()

    def _enter(self, entry: Entry[K]) -> None:
        self._order[entry.key] = entry

    def _leave(self, entry: Entry[K]) -> None:
        del self._order[entry.key]

    def _used(self, entry: Entry[K]) -> None:
        self._order.move_to_end(entry.key)

    def _choose(self) -> Entry[K]:
        return self._order.popitem(last=False)[1]
