"""What a session and its forks share: the counter, what the provider's cache holds, prices, the routing key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock

from .cache import CacheModel, Lookup
from .layout import DEFAULT_SHARING, Sharing
from .prices import Price, price_for
from .rules import Dialect
from .snapshot import Snapshot
from .tokens import Calibration, TokenCounter

__all__ = ["Family"]

_REMEMBERED = 128  # cache entries: the tips of recent requests and the marks that they share


class Family:
    """Shared by a session and all its forks; thread-safe."""

    __slots__ = (
        "_caches",
        "_calibrations",
        "_lock",
        "_prices",
        "clock",
        "counter",
        "overrides",
        "routing_key",
        "sharing",
    )

    def __init__(
        self,
        counter: TokenCounter,
        clock: Callable[[], float],
        *,
        prices: Mapping[str, Price] | None,
        sharing: Sharing | None,
        routing_key: str | None,
    ) -> None:
        self.counter, self.clock = counter, clock
        self.overrides = prices
        self.sharing: Sharing = {**DEFAULT_SHARING, **(sharing or {})}
        self.routing_key = routing_key
        self._lock = Lock()
        self._caches: list[CacheModel] = []
        self._calibrations: dict[str, Calibration] = {}
        self._prices: dict[str, Price | None] = {}

    def look(self, dialect: Dialect, snapshot: Snapshot, at: float) -> Lookup:
        """What the provider's cache would serve."""
        with self._lock:
            return self._cache(dialect).look(snapshot, at)

    def commit(self, dialect: Dialect, snapshot: Snapshot, at: float, visible_at: float) -> Lookup:
        """Remember a request that was sent."""
        with self._lock:
            return self._cache(dialect).commit(snapshot, at, visible_at)

    def commit_output(self, dialect: Dialect, snapshot: Snapshot, at: float) -> None:
        """Remember a reply, where the provider's cache does: ``snapshot`` is the prompt with it."""
        with self._lock:
            self._cache(dialect).commit_output(snapshot, at)

    def _cache(self, dialect: Dialect) -> CacheModel:
        """The cache under these rules; models that share a name of rules may differ in their figures."""
        rules = dialect.rules
        for cache in self._caches:
            if cache.rules is rules or cache.rules == rules:
                return cache
        self._caches.append(CacheModel(rules, limit=_REMEMBERED, count=self.counter.count))
        return self._caches[-1]

    def calibration(self, model: str) -> Calibration:
        """The correction of counted tokens by reported ones."""
        with self._lock:
            return self._calibrations.setdefault(model, Calibration())

    def price(self, model: str) -> Price | None:
        """The price of a model, looked up once."""
        if model not in self._prices:
            self._prices[model] = price_for(model, overrides=self.overrides)
        return self._prices[model]
