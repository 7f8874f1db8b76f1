"""A provider's cache the slow way: a list of stored prompts, each compared unit by unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.properties.naive import Sent, Unit, shared

from llmbuffer import CacheRules


@dataclass
class Entry:
    units: tuple[Unit, ...]
    expires: float
    visible: float
    long: bool = False

    @property
    def tokens(self) -> int:
        return sum(unit.tokens for unit in self.units)

    @property
    def position(self) -> int:
        return sum(unit.positions for unit in self.units)


@dataclass
class NaiveCache:
    """A provider's cache as a list of stored prompts, each compared unit by unit."""

    rules: CacheRules
    count: Callable[[str], int]
    entries: list[Entry] = field(default_factory=list)

    def look(self, request: Sent, at: float) -> tuple[int, int, int]:
        """Tokens read, written and fresh."""
        read, _ = self._best(request, at)
        marked = [sum(unit.tokens for unit in request.units[:end]) for end, _ in request.marks]
        top = max((tokens for tokens in marked if tokens >= self.rules.min_tokens), default=0)
        written = 0 if self.rules.match == "prefix" else max(0, top - read)
        return read, written, request.tokens - read - written

    def commit(self, request: Sent, at: float, visible: float) -> tuple[int, int, int]:
        found = self.look(request, at)
        _, entry = self._best(request, at)
        if entry is not None and self._digests(request.units[: len(entry.units)]) == self._digests(
            entry.units
        ):
            entry.expires = max(entry.expires, at + self._ttl(entry.long))
        ends = [(len(request.units), False)] if self.rules.match == "prefix" else request.marks
        for end, long in ends:
            self._store(request.units[:end], at, visible, long)
        return found

    def _ttl(self, long: bool) -> float:
        return (self.rules.ttl_long or self.rules.ttl) if long else self.rules.ttl

    def _store(self, units: tuple[Unit, ...], at: float, visible: float, long: bool) -> None:
        new = Entry(units, at + self._ttl(long), visible, long)
        if new.tokens < self.rules.min_tokens and self.rules.match != "prefix":
            return
        for entry in self.entries:
            if self._digests(entry.units) == self._digests(units) and entry.expires > at:
                entry.expires, entry.visible = max(entry.expires, new.expires), min(entry.visible, visible)
                entry.long |= long
                return
        self.entries.append(new)

    @staticmethod
    def _digests(units: tuple[Unit, ...]) -> list[str]:
        return [unit.digest for unit in units]

    def _best(self, request: Sent, at: float) -> tuple[int, Entry | None]:
        alive = [entry for entry in self.entries if entry.visible <= at < entry.expires]
        found = [(self._shared(entry, request), entry) for entry in alive]
        best = max(found, key=lambda each: each[0], default=(0, None))
        if best[0] < max(1, self.rules.min_tokens):
            return 0, None
        return best[0] // self.rules.step * self.rules.step, best[1]

    def _shared(self, entry: Entry, request: Sent) -> int:
        if self.rules.match == "prefix":
            return self._overlap(entry.units, request.units)
        if self._digests(request.units[: len(entry.units)]) != self._digests(entry.units):
            return 0
        if self.rules.match == "lookback":
            positions = [sum(unit.positions for unit in request.units[:end]) for end, _ in request.marks]
            if not any(0 <= position - entry.position < self.rules.lookback for position in positions):
                return 0
        return entry.tokens

    def _overlap(self, a: tuple[Unit, ...], b: tuple[Unit, ...]) -> int:
        total = 0
        for one, two in zip(a, b, strict=False):
            if one.digest != two.digest:
                same = one.text[: shared(one.text, two.text)] if one.alike == two.alike else ""
                return total + (min(self.count(same), one.tokens, two.tokens) if same else 0)
            total += one.tokens
        return total
