"""The tasks that are free to run, in the order that the provider's cache asks for.

Prompt tasks that extend one conversation are siblings: they share a prefix. While it is warm they go first, those whose
warmth ends soonest before the others. While it is cold one of them leads and the others are parked, so that the prefix is
written once; parked tasks hold no place that another task could use. Everything else goes by the longest way that is
still before it, then by the order of definition. Every step takes O(log n).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["ANYHOW", "COLD", "ReadyTasks", "Warmth"]

Warmth = float  # until when a prefix is warm, in seconds of the clock
COLD: Warmth = -math.inf  # nothing is cached: one goes first
ANYHOW: Warmth = math.inf  # the cache asks for no order: nothing can be cached, or nobody has to wait


class _Ranked(NamedTuple):
    """A task in a heap: tasks with more behind them first."""

    height: int  # negated
    place: int
    key: str


class _Siblings:
    """The free tasks of one prefix."""

    __slots__ = ("leading", "number", "ranked", "until")

    def __init__(self, number: int, until: Warmth) -> None:
        self.number, self.until = number, until
        self.ranked: list[_Ranked] = []
        self.leading = False


class _Turn(NamedTuple):
    """A place in the queue for the best task of some siblings; ``until`` tells whether it is still meant."""

    rank: tuple[int, float, int, int]
    until: Warmth
    group: str


class ReadyTasks:
    """A queue of free tasks, each of a ``group`` of siblings (``""``: those of the run's own session). ``warmth`` says, when siblings are to go, until when their prefix is warm.

    >>> free = ReadyTasks(clock=lambda: 0.0, warmth=lambda group: COLD)
    >>> for index, key in enumerate("abc"):
    ...     free.push(key, index, height=0, group="base")
    >>> free.pop(), free.pop()
    ('a', None)
    >>> free.warmed("base", until=300.0)
    >>> free.pop(), free.pop(), free.pop()
    ('b', 'c', None)
    """

    def __init__(self, *, clock: Callable[[], float], warmth: Callable[[str], Warmth]) -> None:
        self._clock, self._warmth = clock, warmth
        self._groups: dict[str, _Siblings] = {}
        self._turns: list[_Turn] = []

    def push(self, key: str, index: int, *, height: int, group: str) -> None:
        """A task became free."""
        siblings = self._siblings(group)
        ranked = _Ranked(-height, index, key)
        heapq.heappush(siblings.ranked, ranked)
        if not siblings.leading and (siblings.ranked[0] is ranked or siblings.until == ANYHOW):
            self._offer(group, siblings)

    def _siblings(self, group: str) -> _Siblings:
        siblings = self._groups.get(group)
        if siblings is None:
            siblings = self._groups[group] = _Siblings(len(self._groups), self._warmth(group))
        return siblings

    def _offer(self, group: str, siblings: _Siblings) -> None:
        best = siblings.ranked[0]
        warm = COLD < siblings.until < ANYHOW
        rank = (0, siblings.until, 0, siblings.number) if warm else (1, 0.0, best.height, best.place)
        heapq.heappush(self._turns, _Turn(rank, siblings.until, group))

    def pop(self) -> str | None:
        """The task that is to run next; ``None`` if none is free, or those that are wait for one that leads."""
        while self._turns:
            turn = heapq.heappop(self._turns)
            siblings = self._groups.get(turn.group)
            if siblings is None or siblings.leading or not siblings.ranked or siblings.until != turn.until:
                continue
            if COLD < siblings.until < ANYHOW and siblings.until <= self._clock():
                siblings.until = self._warmth(turn.group)
                self._offer(turn.group, siblings)
                continue
            return self._take(turn.group, siblings)
        return None

    def _take(self, group: str, siblings: _Siblings) -> str:
        key = heapq.heappop(siblings.ranked).key
        if siblings.until == COLD:
            siblings.leading = True
        elif siblings.ranked:
            self._offer(group, siblings)
        elif group and siblings.until != ANYHOW:
            del self._groups[group]  # a long chain has as many prefixes as links
        return key

    def leads(self, group: str) -> bool:
        """Whether somebody goes first for this prefix, and others wait for it."""
        siblings = self._groups.get(group)
        return siblings is not None and siblings.leading and bool(siblings.ranked)

    def warmed(self, group: str, until: Warmth, *, awaited: bool = True) -> None:
        """The prefix can be read until then: whoever was parked is free. If nobody is awaited, it is not remembered."""
        siblings = self._groups.get(group)
        if siblings is None:
            if not awaited:
                return
            siblings = self._groups[group] = _Siblings(len(self._groups), until)
        if siblings.until == ANYHOW:
            return
        siblings.until, siblings.leading = max(siblings.until, until), False
        if siblings.ranked:
            self._offer(group, siblings)

    def failed(self, group: str) -> None:
        """Who led did not warm the prefix: the next one leads."""
        siblings = self._groups.get(group)
        if siblings is not None and siblings.leading:
            siblings.leading = False
            if siblings.ranked:
                self._offer(group, siblings)
