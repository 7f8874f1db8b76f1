"""Caches that store one entry for each breakpoint."""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import islice

import msgspec

from ..snapshot import MarkAt, Snapshot
from .stored import Entry, Lookup, Outcome, StoredPrompts, by_tokens, cold, obstacle

__all__ = ["MarkedCache"]


class MarkedCache(StoredPrompts):
    """The longest stored entry that begins the request is read, within the look-back where the rules have one."""

    def _look(self, snapshot: Snapshot, at: float) -> tuple[Lookup, Entry | None]:
        marks = self._worthy(snapshot)
        found, warm, outcome = None, 0, cold(snapshot, self.rules)
        for entry in reversed(self._entries):
            if not entry.begins(snapshot):
                continue
            hindered = obstacle(entry, at) or self._out_of_reach(entry, snapshot)
            if not warm:
                warm, outcome = entry.tokens, hindered or "hit"
            if hindered is None:
                found = entry
                break
        read = found.tokens if found is not None else 0
        top = max((snapshot.tokens_at(mark) for mark in marks), default=0)
        top_long = max((snapshot.tokens_at(mark) for mark in marks if mark.long), default=0)
        write = max(0, top - read)
        lookup = Lookup(read, write, max(0, top_long - read), snapshot.tokens - read - write, warm, outcome)
        return lookup, found

    def _out_of_reach(self, entry: Entry, snapshot: Snapshot) -> Outcome | None:
        if self.rules.match == "lookback" and not any(
            0 <= snapshot.position_at(mark) - entry.position < self.rules.lookback for mark in snapshot.marks
        ):
            return "lookback-exceeded"
        return None

    def _worthy(self, snapshot: Snapshot) -> list[MarkAt]:
        return [mark for mark in snapshot.marks if snapshot.tokens_at(mark) >= self.rules.min_tokens]

    def _store(self, snapshot: Snapshot, at: float, visible: float) -> None:
        for mark in self._worthy(snapshot):
            self._store_mark(snapshot, mark, at, visible)

    def _store_mark(self, snapshot: Snapshot, mark: MarkAt, at: float, visible: float) -> None:
        expires = at + self._ttl(mark.long)
        entry = self._stored(snapshot, mark)
        if entry is None:
            insort(self._entries, Entry(snapshot, mark, expires=expires, visible=visible), key=by_tokens)
            return
        entry.expires = max(entry.expires, expires)
        entry.visible = min(entry.visible, visible)
        if mark.long:  # kept long from now on, also when it is read
            entry.mark = msgspec.structs.replace(entry.mark, long=True)

    def _stored(self, snapshot: Snapshot, mark: MarkAt) -> Entry | None:
        tokens = snapshot.tokens_at(mark)
        for entry in islice(self._entries, bisect_left(self._entries, tokens, key=by_tokens), None):
            if entry.tokens > tokens:
                break
            if _same_place(entry.mark, mark) and entry.begins(snapshot):
                return entry
        return None

    def reveal(self, snapshot: Snapshot, at: float) -> None:
        """See ``StoredPrompts``."""
        for mark in self._worthy(snapshot):
            entry = self._stored(snapshot, mark)
            if entry is not None:
                entry.visible = min(entry.visible, at)


def _same_place(a: MarkAt, b: MarkAt) -> bool:
    return (a.node.wire, a.in_head, a.dynamic) == (b.node.wire, b.in_head, b.dynamic)
