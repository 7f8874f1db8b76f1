"""The best static choice of breakpoints, by exhaustive search: kinds of places, marked in every request.

Places are numbered by their length in tokens, and sets of places are integers, so that a workload is priced in
microseconds a request. ``exact`` prices the same with the cache model itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from msgspec.structs import replace
from tests.properties.workloads import Sent, Workload

from llmbuffer.cache import CacheModel
from llmbuffer.snapshot import MarkAt, Snapshot

Choice = tuple[str, ...]


class _Asked(NamedTuple):
    """One request: its tokens, all places that it begins with, and where a mark of each kind lies."""

    tokens: int
    at: float
    begins: int
    planned: list[int]
    kinds: dict[str, int]
    reach: dict[int, int]  # by place of a mark: the places that its look-back finds


class StaticSearch:
    """Prices one workload. ``None`` as a choice is what the planner chose. Nothing is kept long here."""

    def __init__(self, workload: Workload) -> None:
        self.rules, self.sent = workload.rules, workload.sent
        found: dict[tuple[object, ...], tuple[Snapshot, MarkAt]] = {}
        for sent in self.sent:
            for mark in (*sent.places.values(), *sent.planned.marks):
                found.setdefault(_key(sent.planned, mark), (sent.planned, mark))
        ordered = sorted(found, key=lambda key: found[key][0].tokens_at(found[key][1]))
        self._number = {key: number for number, key in enumerate(ordered)}
        self._places = [found[key] for key in ordered]
        self._tokens = [snapshot.tokens_at(mark) for snapshot, mark in self._places]
        self._positions = [snapshot.position_at(mark) for snapshot, mark in self._places]
        self._asked = [self._prepared(sent) for sent in self.sent]

    def _prepared(self, sent: Sent) -> _Asked:
        begins = [
            number
            for number, (snapshot, mark) in enumerate(self._places)
            if self._tokens[number] <= sent.planned.tokens and snapshot.begins(mark, sent.planned)
        ]
        planned = [self._number[_key(sent.planned, mark)] for mark in sent.planned.marks]
        kinds = {kind: self._number[_key(sent.planned, mark)] for kind, mark in sent.places.items()}
        reach = {number: self._reach(number, begins) for number in {*planned, *kinds.values()}}
        return _Asked(sent.planned.tokens, sent.at, _bits(begins), planned, kinds, reach)

    def _reach(self, mark: int, begins: list[int]) -> int:
        if self.rules.match != "lookback":
            return _bits(begins)
        back = self._positions[mark]
        return _bits([place for place in begins if 0 <= back - self._positions[place] < self.rules.lookback])

    def choices(self) -> Iterator[Choice]:
        """Every static choice of at most as many kinds as there are slots."""
        kinds = sorted({kind for sent in self.sent for kind in sent.places})
        slots = self.rules.slots + self.rules.implicit  # without the implicit one, its slot is free
        for size in range(slots + 1):
            yield from combinations(kinds, size)

    def best(self) -> tuple[float, Choice]:
        """The cheapest static choice and its cost."""
        return min((self.cost(choice), choice) for choice in self.choices())

    def cost(self, choice: Choice | None) -> float:
        """Price of all input in tokens at input price."""
        rules, tokens, alive, total = self.rules, self._tokens, 0, 0.0
        expires = [0.0] * len(tokens)
        for asked in self._asked:
            marks = (
                asked.planned
                if choice is None
                else [asked.kinds[kind] for kind in choice if kind in asked.kinds]
            )
            reach = asked.begins if rules.match == "entries" else _union(asked.reach[mark] for mark in marks)
            read = 0
            while found := alive & reach:
                longest = found.bit_length() - 1
                if expires[longest] > asked.at:
                    read = tokens[longest]
                    expires[longest] = asked.at + rules.ttl
                    break
                alive ^= 1 << longest
            top = 0
            for mark in marks:
                if tokens[mark] >= rules.min_tokens:
                    top = max(top, tokens[mark])
                    alive |= 1 << mark
                    expires[mark] = asked.at + rules.ttl
            written = max(0, top - read)
            total += read * rules.read_multiplier + written * rules.write_multiplier
            total += asked.tokens - read - written
        return total

    def exact(self, choice: Choice | None) -> float:
        """The same by the cache model."""
        rules, total = self.rules, 0.0
        model = CacheModel(rules)
        for sent in self.sent:
            snapshot = sent.planned
            if choice is not None:
                marks = tuple(sent.places[kind] for kind in choice if kind in sent.places)
                snapshot = replace(snapshot, marks=marks)
            look = model.commit(snapshot, sent.at)
            total += look.read_tokens * rules.read_multiplier + look.write_tokens * rules.write_multiplier
            total += look.fresh_tokens
        return total


def _key(snapshot: Snapshot, mark: MarkAt) -> tuple[object, ...]:
    """Equal for marks behind equal prompts."""
    if mark.in_head:
        return (mark.node.wire,)
    inserted = (
        snapshot.insert.tip.wire if snapshot.insert is not None and snapshot.covers_insert(mark) else b""
    )
    return (snapshot.head.wire, mark.node.wire, inserted, mark.dynamic)


def _bits(numbers: Sequence[int]) -> int:
    return _union(1 << number for number in numbers)


def _union(sets: Iterator[int]) -> int:
    union = 0
    for each in sets:
        union |= each
    return union
