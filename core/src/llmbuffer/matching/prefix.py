"""Caches that match the longest common prefix with anything sent before."""

from __future__ import annotations

from bisect import insort

from ..snapshot import Snapshot, overlap
from .stored import Entry, Lookup, StoredPrompts, by_tokens, cold, obstacle

__all__ = ["PrefixCache"]


class PrefixCache(StoredPrompts):
    """Whole prompts, matched to the token in steps; an entry goes when a longer one covers it.

    With a ``capacity``, least recently used blocks of ``step`` tokens go first, and of one prompt the last blocks before
    those in front of them: how vLLM frees blocks.
    """

    def _look(self, snapshot: Snapshot, at: float) -> tuple[Lookup, Entry | None]:
        rules = self.rules
        best, warm, found = 0, 0, None
        outcome = cold(snapshot, rules)
        for entry in reversed(self._entries):
            if entry.tokens <= best:
                break
            shared = min(entry.tokens, overlap(entry.snapshot, snapshot, self._count))
            if shared <= best or shared < rules.min_tokens:
                continue
            if shared > warm:
                warm = shared
                outcome = obstacle(entry, at) or "hit"
            if obstacle(entry, at) is None:
                best, found = shared, entry
        read, warm = self._served(best, snapshot), self._served(warm, snapshot)
        return Lookup(read, 0, 0, snapshot.tokens - read, warm, outcome), found

    def _served(self, shared: int, snapshot: Snapshot) -> int:
        return (
            max(0, min(shared, snapshot.tokens - self.rules.recomputed)) // self.rules.step * self.rules.step
        )

    def _refresh(self, entry: Entry, snapshot: Snapshot, at: float) -> None:
        # Of an entry that was read in part, the new prompt holds that part.
        if entry.begins(snapshot):
            super()._refresh(entry, snapshot, at)

    def _store(self, snapshot: Snapshot, at: float, visible: float) -> None:
        new = Entry(snapshot, snapshot.end, expires=at + self.rules.ttl, visible=visible)
        here = (-1, -1 if snapshot.insert is None else snapshot.insert.after.depth)
        for entry in self._entries:
            if entry.inserted in here and entry.begins(
                snapshot
            ):  # the new prompt covers it, once it can be read
                entry.superseded = min(entry.superseded, visible)
                self._due = min(self._due, visible)
        if self._due <= at:
            self._entries = [entry for entry in self._entries if entry.superseded > at]
        insort(self._entries, new, key=by_tokens)
        if self.rules.capacity is not None:
            self._evict(new, self.rules.capacity)

    def reveal(self, snapshot: Snapshot, at: float) -> None:
        """See ``StoredPrompts``."""
        for entry in self._entries:
            if entry.snapshot is snapshot:
                entry.visible = min(entry.visible, at)
            elif entry.begins(snapshot):
                entry.superseded = min(entry.superseded, at)
                self._due = min(self._due, at)

    def _evict(self, new: Entry, capacity: int) -> None:
        """Cut the prompts that were used longest ago, from their ends, until what is left fits."""
        step = self.rules.step
        new.used = 1 + max(entry.used for entry in self._entries)
        for entry in self._entries:
            if entry is not new:
                entry.shared = max(entry.shared, overlap(entry.snapshot, new.snapshot, self._count))
        excess = sum(max(0, entry.tokens - entry.shared) for entry in self._entries) - capacity
        for entry in sorted(self._entries, key=lambda entry: entry.used):
            if excess <= 0:
                break
            own = max(0, entry.tokens - entry.shared)
            cut = min(own, -(-excess // step) * step)
            excess -= cut
            entry.tokens -= cut
        self._entries = sorted(
            (entry for entry in self._entries if entry.tokens > entry.shared), key=by_tokens
        )
