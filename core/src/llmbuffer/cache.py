"""What a cache with given rules reads and writes for a snapshot at a time.

One implementation for forecast, breaks, replay and the simulator. It knows no clock and no network: time, in seconds, is
an argument, and ``look`` changes nothing.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from typing import Literal

import msgspec

from .rules import CacheRules
from .snapshot import MarkAt, Snapshot, overlap
from .usage import Usage

__all__ = ["CacheModel", "Lookup"]

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


class _Entry:
    """A stored prefix: ``snapshot`` up to ``mark``. ``superseded`` is when a longer one that covers it became visible."""

    __slots__ = ("expires", "mark", "position", "snapshot", "superseded", "tokens", "visible")

    def __init__(self, snapshot: Snapshot, mark: MarkAt, *, expires: float, visible: float) -> None:
        self.snapshot, self.mark = snapshot, mark
        self.tokens = snapshot.tokens_at(mark)
        self.position = snapshot.position_at(mark)
        self.expires, self.visible = expires, visible
        self.superseded = float("inf")

    def begins(self, other: Snapshot) -> bool:
        """Whether this prefix is one of the request ``other``."""
        return self.snapshot.begins(self.mark, other)


class CacheModel:
    """The cache of one provider for one scope (workspace, routing key), as ``rules`` describe it.

    ``limit`` bounds the entries that are remembered (the oldest go first); ``count`` counts tokens of half-equal blocks
    (see ``snapshot.overlap``). Not thread-safe: the caller holds its lock.

    >>> from llmbuffer.chain import root
    >>> from llmbuffer.messages import Message
    >>> model = CacheModel(CacheRules(name="engine", match="prefix"))
    >>> tip = root().child(Message("user", "hi"), content=b"1", wire=b"1", tokens=50)
    >>> snapshot = Snapshot(root(), tip)
    >>> model.commit(snapshot, at=0.0).read_tokens, model.look(snapshot, at=1.0).read_tokens
    (0, 50)
    """

    def __init__(
        self, rules: CacheRules, *, limit: int | None = None, count: Callable[[str], int] | None = None
    ) -> None:
        self.rules = rules
        self._limit = limit
        self._count = count
        self._entries: list[_Entry] = []  # ascending by tokens

    def __len__(self) -> int:
        return len(self._entries)

    def look(self, snapshot: Snapshot, at: float) -> Lookup:
        """What a request that starts at time ``at`` reads and writes."""
        return self._look(snapshot, at)[0]

    def commit(self, snapshot: Snapshot, at: float, visible_at: float | None = None) -> Lookup:
        """Send the request: what it reads lives on, what it writes can be read from ``visible_at`` (default ``at``)."""
        lookup, read = self._look(snapshot, at)
        self._entries = [entry for entry in self._entries if entry.expires > at and entry.superseded > at]
        # Of an entry that was read in part, the new prompt holds that part.
        if read is not None and read.begins(snapshot):
            read.expires = max(read.expires, at + self._ttl(read.mark.long))
        visible = at if visible_at is None else visible_at
        if self.rules.match == "prefix":
            self._store_prefix(snapshot, at, visible)
        else:
            for mark in self._worthy(snapshot):
                self._store_mark(snapshot, mark, at, visible)
        self._forget_oldest()
        return lookup

    def _forget_oldest(self) -> None:
        while self._limit is not None and len(self._entries) > self._limit:
            self._entries.remove(min(self._entries, key=lambda entry: (entry.expires, entry.tokens)))

    def _look(self, snapshot: Snapshot, at: float) -> tuple[Lookup, _Entry | None]:
        if self.rules.match == "prefix":
            return self._look_prefix(snapshot, at)
        return self._look_marks(snapshot, at)

    def _ttl(self, long: bool) -> float:
        return self.rules.ttl_long if long and self.rules.ttl_long is not None else self.rules.ttl

    def _look_prefix(self, snapshot: Snapshot, at: float) -> tuple[Lookup, _Entry | None]:
        best, warm, found = 0, 0, None
        outcome = _cold(snapshot, self.rules)
        for entry in reversed(self._entries):
            if entry.tokens <= best:
                break
            shared = overlap(entry.snapshot, snapshot, self._count)
            if shared <= best or shared < self.rules.min_tokens:
                continue
            if shared > warm:
                warm = shared
                outcome = _obstacle(entry, at) or "hit"
            if _obstacle(entry, at) is None:
                best, found = shared, entry
        step = self.rules.step
        read, warm = best // step * step, warm // step * step
        return Lookup(read, 0, 0, snapshot.tokens - read, warm, outcome), found

    def _look_marks(self, snapshot: Snapshot, at: float) -> tuple[Lookup, _Entry | None]:
        marks = self._worthy(snapshot)
        found, warm, outcome = None, 0, _cold(snapshot, self.rules)
        for entry in reversed(self._entries):
            if not entry.begins(snapshot):
                continue
            obstacle = _obstacle(entry, at) or self._out_of_reach(entry, snapshot)
            if not warm:
                warm, outcome = entry.tokens, obstacle or "hit"
            if obstacle is None:
                found = entry
                break
        read = found.tokens if found is not None else 0
        top = max((snapshot.tokens_at(mark) for mark in marks), default=0)
        top_long = max((snapshot.tokens_at(mark) for mark in marks if mark.long), default=0)
        write = max(0, top - read)
        lookup = Lookup(read, write, max(0, top_long - read), snapshot.tokens - read - write, warm, outcome)
        return lookup, found

    def _out_of_reach(self, entry: _Entry, snapshot: Snapshot) -> Outcome | None:
        if self.rules.match == "lookback" and not any(
            0 <= snapshot.position_at(mark) - entry.position < self.rules.lookback for mark in snapshot.marks
        ):
            return "lookback-exceeded"
        return None

    def _worthy(self, snapshot: Snapshot) -> list[MarkAt]:
        return [mark for mark in snapshot.marks if snapshot.tokens_at(mark) >= self.rules.min_tokens]

    def _store_prefix(self, snapshot: Snapshot, at: float, visible: float) -> None:
        new = _Entry(snapshot, snapshot.end, expires=at + self.rules.ttl, visible=visible)
        for entry in self._entries:
            if entry.begins(snapshot):  # the new prompt covers it, once it can be read
                entry.superseded = min(entry.superseded, visible)
        self._entries = [entry for entry in self._entries if entry.superseded > at]
        insort(self._entries, new, key=_tokens)

    def _store_mark(self, snapshot: Snapshot, mark: MarkAt, at: float, visible: float) -> None:
        tokens = snapshot.tokens_at(mark)
        expires = at + self._ttl(mark.long)
        for entry in self._entries:
            if entry.tokens == tokens and _same_place(entry.mark, mark) and entry.begins(snapshot):
                entry.expires = max(entry.expires, expires)
                entry.visible = min(entry.visible, visible)
                if mark.long:  # kept long from now on, also when it is read
                    entry.mark = msgspec.structs.replace(entry.mark, long=True)
                return
        insort(self._entries, _Entry(snapshot, mark, expires=expires, visible=visible), key=_tokens)


def _same_place(a: MarkAt, b: MarkAt) -> bool:
    return (a.node.wire, a.in_head, a.dynamic) == (b.node.wire, b.in_head, b.dynamic)


def _tokens(entry: _Entry) -> int:
    return entry.tokens


def _obstacle(entry: _Entry, at: float) -> Outcome | None:
    if entry.expires <= at:
        return "expired"
    return "not-yet-visible" if entry.visible > at else None


def _cold(snapshot: Snapshot, rules: CacheRules) -> Outcome:
    return "below-minimum" if snapshot.tokens < rules.min_tokens else "cold"
