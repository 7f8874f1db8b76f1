"""What a cache with given rules reads and writes for a snapshot at a time.

One implementation for forecast, breaks, replay and the simulator. It knows no clock and no network: time, in seconds, is
an argument, and ``look`` changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .matching.lanes import LaneCache
from .matching.marked import MarkedCache
from .matching.prefix import PrefixCache
from .matching.stored import Lookup
from .matching.units import UnitCache
from .rules import CacheRules
from .snapshot import Snapshot

__all__ = ["CacheModel", "Lookup"]


class _Cache(Protocol):
    def __len__(self) -> int: ...
    def look(self, snapshot: Snapshot, at: float) -> Lookup: ...
    def commit(self, snapshot: Snapshot, at: float, visible: float) -> Lookup: ...
    def commit_output(self, snapshot: Snapshot, at: float) -> None: ...
    def reveal(self, snapshot: Snapshot, at: float) -> None: ...
    def live_for(self, ttl: float) -> None: ...


_KINDS: dict[str, Callable[[CacheRules, int | None, Callable[[str], int] | None], _Cache]] = {
    "prefix": PrefixCache,
    "entries": MarkedCache,
    "lookback": MarkedCache,
    "units": UnitCache,
    "lanes": LaneCache,
}


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
        self._cache = _KINDS[rules.match](rules, limit, count)

    def __len__(self) -> int:
        return len(self._cache)

    def look(self, snapshot: Snapshot, at: float) -> Lookup:
        """What a request that starts at time ``at`` reads and writes."""
        return self._cache.look(snapshot, at)

    def commit(self, snapshot: Snapshot, at: float, visible_at: float | None = None) -> Lookup:
        """Send the request: what it reads lives on, what it writes can be read from ``visible_at`` (default ``at``).

        With ``math.inf`` the request is under way until ``reveal``; where the rules share at once, it makes no difference.
        """
        if visible_at is None or self.rules.visible_after == "request":
            visible_at = at
        return self._cache.commit(snapshot, at, visible_at)

    def live_for(self, ttl: float) -> None:
        """From now on, entries of the short lifetime live ``ttl`` seconds, whatever the rules say: it was observed so."""
        self._cache.live_for(ttl)

    def reveal(self, snapshot: Snapshot, at: float) -> None:
        """What the request wrote can be read from ``at`` on; ``snapshot`` is the object that was committed."""
        self._cache.reveal(snapshot, at)

    def commit_output(self, snapshot: Snapshot, at: float) -> None:
        """The reply has come: ``snapshot`` is the prompt with it. Nothing happens unless the rules store replies."""
        if self.rules.stores_output:
            self._cache.commit_output(snapshot, at)
