"""An engine with slots, each of which holds one sequence: llama.cpp's server.

The constants are those of its source (``server-context.cpp``, ``get_available_slot``, and ``server-task.cpp``, the prompt
cache), release b11434.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from ..rules import CacheRules
from ..snapshot import Snapshot, overlap
from .stored import Lookup, Outcome

__all__ = ["LaneCache"]

SIMILARITY = 0.10  # an idle slot is taken for what it holds if it shares more than this part of the prompt
KEPT = 0.50  # less than this part of a slot's sequence stays: it is spilled to memory first
LOADED = 0.25  # a spilled sequence is taken back if at least this part of it is of use


class _Lane:
    """A slot: what it holds, when it was last used, and until when it is busy."""

    __slots__ = ("busy", "sequence", "used")

    def __init__(self) -> None:
        self.sequence: Snapshot | None = None
        self.used = -math.inf
        self.busy = -math.inf


class _Choice(msgspec.Struct, frozen=True):
    """The slot that serves a request, from when, what it shares, and the spilled sequence that it takes instead."""

    lane: int
    start: float
    shared: int
    spills: bool
    loaded: Snapshot | None


class LaneCache:
    """``rules.lanes`` slots and the sequences that they spilled, at most ``rules.capacity`` tokens of them.

    A request takes the idle slot that shares most of its prompt, if that is more than a tenth, else the one that was used
    longest ago. Where less than half of the slot's sequence would stay, it is spilled first, and a spilled one that fits
    better on both measures is taken back. What parts late is overwritten without being spilled. Whenever a request
    starts, what the other idle slots hold is copied to memory as well. While no slot is idle, requests wait for the one
    that is free first.
    """

    def __init__(
        self, rules: CacheRules, limit: int | None = None, count: Callable[[str], int] | None = None
    ) -> None:
        self.rules = rules
        self._limit, self._count = limit, count
        self._lanes = [_Lane() for _ in range(rules.lanes)]
        self._spilled: list[Snapshot] = []  # the oldest first

    def __len__(self) -> int:
        return len(self._spilled) + sum(lane.sequence is not None for lane in self._lanes)

    def look(self, snapshot: Snapshot, at: float) -> Lookup:
        """What a request that starts at time ``at`` reads and computes."""
        return self._lookup(snapshot, self._choose(snapshot, at), at)

    def commit(self, snapshot: Snapshot, at: float, visible: float) -> Lookup:
        """Send the request; its slot is busy until ``visible``."""
        choice = self._choose(snapshot, at)
        lookup = self._lookup(snapshot, choice, at)
        lane = self._lanes[choice.lane]
        if choice.spills and lane.sequence is not None:
            self._spill(lane.sequence)
        if choice.loaded is not None:
            self._spilled.remove(choice.loaded)
        for other in self._lanes:
            if other is not lane and other.sequence is not None and other.busy <= choice.start:
                self._spill(other.sequence)
        lane.sequence, lane.used = snapshot, choice.start
        lane.busy = max(choice.start, visible)
        return lookup

    def commit_output(self, snapshot: Snapshot, at: float) -> None:
        """The slot that holds the prompt holds the reply as well."""
        for lane in self._lanes:
            if lane.sequence is not None and self._shared(lane.sequence, snapshot) >= lane.sequence.tokens:
                lane.sequence = snapshot
                return

    def live_for(self, ttl: float) -> None:
        """Nothing: a slot is kept until another prompt needs it."""

    def reveal(self, snapshot: Snapshot, at: float) -> None:
        """The request has ended: its slot is idle."""
        for lane in self._lanes:
            if lane.sequence is snapshot:
                lane.busy = min(lane.busy, at)

    def _choose(self, snapshot: Snapshot, at: float) -> _Choice:
        start = max(at, min(lane.busy for lane in self._lanes))
        idle = [index for index, lane in enumerate(self._lanes) if lane.busy <= start]
        shared = {index: self._shared(self._lanes[index].sequence, snapshot) for index in idle}
        alike = [index for index in idle if shared[index] > SIMILARITY * snapshot.tokens]
        if alike:
            lane = max(alike, key=lambda index: shared[index])  # the first of equals
        else:
            lane = min(idle, key=lambda index: (self._lanes[index].used, -index))  # the last of equals
        held = self._lanes[lane].sequence
        spills = not alike or (held is not None and shared[lane] < KEPT * held.tokens)
        loaded = self._worth_loading(snapshot, held, shared[lane]) if spills else None
        best = shared[lane] if loaded is None else self._shared(loaded, snapshot)
        return _Choice(lane, start, best, spills, loaded)

    def _worth_loading(self, snapshot: Snapshot, held: Snapshot | None, shared: int) -> Snapshot | None:
        best, kept = shared, 0.0 if held is None else shared / max(1, held.tokens)
        found = None
        for sequence in self._spilled:
            common = self._shared(sequence, snapshot)
            part = common / max(1, sequence.tokens)
            if part >= LOADED and part > kept and common > best:
                best, kept, found = common, part, sequence
        return found

    def _spill(self, sequence: Snapshot) -> None:
        if any(self._shared(other, sequence) >= sequence.tokens for other in self._spilled):
            return
        self._spilled = [
            other for other in self._spilled if self._shared(other, sequence) < other.tokens
        ]  # what the new one begins with is of no more use
        self._spilled.append(sequence)
        while self._over():
            del self._spilled[0]

    def _over(self) -> bool:
        if self._limit is not None and len(self._spilled) > self._limit:
            return True
        capacity = self.rules.capacity
        return capacity is not None and sum(sequence.tokens for sequence in self._spilled) > capacity

    def _shared(self, sequence: Snapshot | None, snapshot: Snapshot) -> int:
        return 0 if sequence is None else overlap(sequence, snapshot, self._count)

    def _lookup(self, snapshot: Snapshot, choice: _Choice, at: float) -> Lookup:
        held = [*(lane.sequence for lane in self._lanes), *self._spilled]
        warm = max((self._shared(sequence, snapshot) for sequence in held), default=0)
        read, warm = self._served(choice.shared, snapshot), self._served(warm, snapshot)
        return Lookup(read, 0, 0, snapshot.tokens - read, warm, self._outcome(read, warm))

    def _served(self, shared: int, snapshot: Snapshot) -> int:
        return max(0, min(shared, snapshot.tokens - self.rules.recomputed))

    @staticmethod
    def _outcome(read: int, warm: int) -> Outcome:
        if read >= warm:
            return "hit" if read else "cold"
        return (
            "not-yet-visible"  # it is in a slot that is at work, or out of reach of the one that was chosen
        )
