"""Caches that store whole units and match nothing in between."""

from __future__ import annotations

from bisect import insort

from ..snapshot import Snapshot, overlap
from .stored import Entry, Lookup, StoredPrompts, by_tokens, cold, obstacle

__all__ = ["UnitCache"]


class UnitCache(StoredPrompts):
    """DeepSeek's newer cache: a request reads the longest unit that it begins with, and nothing of a longer one.

    A unit ends where a user's input ended, where a reply ended, and where a prompt parted from an earlier one: a common
    prefix becomes a unit when it is seen for the second time, so the third request reads it. Units at fixed intervals in
    long texts, whose length is not documented, are left out.
    """

    def _look(self, snapshot: Snapshot, at: float) -> tuple[Lookup, Entry | None]:
        warm, outcome, found = 0, cold(snapshot, self.rules), None
        for entry in reversed(self._entries):
            if not self._begins(entry, snapshot):
                continue
            hindered = obstacle(entry, at)
            if not warm:
                warm, outcome = entry.tokens, hindered or "hit"
            if hindered is None:
                found = entry
                break
        read = self._served(0 if found is None else found.tokens, snapshot)
        warm = self._served(warm, snapshot)
        return Lookup(read, 0, 0, snapshot.tokens - read, warm, outcome), found

    def _begins(self, entry: Entry, snapshot: Snapshot) -> bool:
        if entry.tokens > snapshot.tokens:
            return False
        return overlap(entry.snapshot, snapshot, self._count) >= entry.tokens

    def _served(self, shared: int, snapshot: Snapshot) -> int:
        return max(0, min(shared, snapshot.tokens - self.rules.recomputed))

    def _store(self, snapshot: Snapshot, at: float, visible: float) -> None:
        shared = [overlap(entry.snapshot, snapshot, self._count) for entry in self._entries]
        for tokens in sorted({snapshot.tokens, max(shared, default=0)}):
            if tokens >= max(1, self.rules.min_tokens):
                self._store_unit(snapshot, tokens, at, visible)

    def _store_unit(self, snapshot: Snapshot, tokens: int, at: float, visible: float) -> None:
        expires = at + self.rules.ttl
        for entry in self._entries:
            if entry.tokens == tokens and self._begins(entry, snapshot):
                entry.expires = max(entry.expires, expires)
                entry.visible = min(entry.visible, visible)
                return
        new = Entry(snapshot, snapshot.end, expires=expires, visible=visible, tokens=tokens)
        insort(self._entries, new, key=by_tokens)

    def reveal(self, snapshot: Snapshot, at: float) -> None:
        """See ``StoredPrompts``."""
        for entry in self._entries:
            if entry.visible > at and self._begins(entry, snapshot):
                entry.visible = at
