"""What a session and its forks share: the counter, what the provider's cache holds, prices, the routing key."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import ref

from .attribution import Span
from .cache import CacheModel, Lookup
from .context import StableContext
from .layout import DEFAULT_SHARING, Head, Sharing, head_spans, render_head
from .lifetime import SHORTEST, Lifetime
from .prices import Price, price_for
from .rules import Dialect
from .snapshot import Snapshot
from .tokens import Calibration, TokenCounter
from .turns import DynamicCounter, TurnTier

if TYPE_CHECKING:
    from .request import Request

__all__ = ["Family"]

_REMEMBERED = 128  # cache entries: the tips of recent requests and the marks that they share
_RECENT = 64  # requests whose times are known; rates count them by the minute
_OPEN = 64  # requests that may be under way, the newest
_HEADS = 16  # whose spans are known
_KEYS = 256  # routing keys beside one's own; what was used longest ago goes first


class Family:
    """Shared by a session and all its forks; thread-safe."""

    __slots__ = (
        "_caches",
        "_calibrations",
        "_lifetimes",
        "_lock",
        "_open",
        "_prices",
        "_routed",
        "_spans",
        "clock",
        "counter",
        "overrides",
        "recent",
        "replies",
        "routing_key",
        "sharing",
        "turns",
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
        self._lifetimes: list[Lifetime] = []  # one for each cache
        self._open: deque[ref[Request]] = deque(maxlen=_OPEN)
        self._calibrations: dict[str, Calibration] = {}
        self._spans: dict[int, tuple[Head, tuple[Span, ...]]] = {}  # by the head's id
        self._prices: dict[str, Price | None] = {}
        self.turns = TurnTier()
        self.replies: dict[str, Any] = {}  # by mode of re-use
        self._routed: OrderedDict[str, Family] = OrderedDict()
        self.recent: deque[float] = deque(maxlen=_RECENT)  # when requests were sent with this key, in seconds

    def routed(self, key: str) -> Family:
        """The part of the family that sends ``key``: what the provider's cache holds is known for each key apart."""
        if key == self.routing_key:
            return self
        with self._lock:
            self._routed.setdefault(self.routing_key or "", self)
            found = self._routed.get(key)
            if found is None:
                found = Family(
                    self.counter, self.clock, prices=self.overrides, sharing=self.sharing, routing_key=key
                )
                found._calibrations, found._prices, found._lock = self._calibrations, self._prices, self._lock
                found._routed, found.turns, found.replies = self._routed, self.turns, self.replies
                self._routed[key] = found
            self._routed.move_to_end(key)
            while len(self._routed) > _KEYS:
                self._routed.popitem(last=False)
            return found

    def look(self, dialect: Dialect, snapshot: Snapshot, at: float) -> Lookup:
        """What the provider's cache would serve."""
        with self._lock:
            return self._cache(dialect).look(snapshot, at)

    def commit(self, dialect: Dialect, snapshot: Snapshot, at: float, visible_at: float) -> Lookup:
        """Remember a request that was sent."""
        with self._lock:
            self.recent.append(at)
            return self._cache(dialect).commit(snapshot, at, visible_at)

    def commit_output(self, dialect: Dialect, snapshot: Snapshot, at: float) -> None:
        """Remember a reply, where the provider's cache does: ``snapshot`` is the prompt with it."""
        with self._lock:
            self._cache(dialect).commit_output(snapshot, at)

    def opened(self, request: Request) -> None:
        """Somebody is about to send the request."""
        with self._lock:
            self._open.append(ref(request))

    def under_way(self) -> list[Request]:
        """The requests that were opened last and have not begun to be answered, the newest first."""
        with self._lock:
            alive = [request for each in reversed(self._open) if (request := each()) is not None]
        return [request for request in alive if not request.observed and request.sent is None]

    def learn(self, dialect: Dialect, lookup: Lookup, read_tokens: int, at: float) -> None:
        """Learn how long this cache keeps entries, from the tokens read by a request that was just entered.

        The pause is the time since any request of the family: another one may have refreshed what this one read.
        """
        idle = at - self.recent[-2] if len(self.recent) > 1 else 0.0
        if idle < dialect.rules.ttl * SHORTEST or lookup.outcome not in ("hit", "expired"):
            return
        with self._lock:
            cache = self._cache(dialect)
            lifetime = self._lifetimes[self._caches.index(cache)]
            if lifetime.observe(idle, read_tokens=read_tokens, warm_tokens=lookup.warm_tokens):
                cache.live_for(lifetime.ttl)

    def lifetime(self, dialect: Dialect) -> float:
        """Seconds that an entry of the short lifetime is kept, as learned; the rules' own before anything was."""
        with self._lock:
            return self._lifetimes[self._caches.index(self._cache(dialect))].ttl

    def _cache(self, dialect: Dialect) -> CacheModel:
        """The cache under these rules; models that share a name of rules may differ in their figures."""
        rules = dialect.rules
        for cache in self._caches:
            if cache.rules is rules or cache.rules == rules:
                return cache
        self._caches.append(CacheModel(rules, limit=_REMEMBERED, count=self.counter.count))
        self._lifetimes.append(Lifetime(rules.ttl))
        return self._caches[-1]

    def knows(self, dialect: Dialect) -> bool:
        """Whether anything was sent under these rules, as far as this family knows."""
        with self._lock:
            return len(self._cache(dialect)) > 0

    def head(self, context: StableContext, dialect: Dialect, store: Any = None) -> Head:
        """Tools and system text, rendered; counted by a store that has counted them before."""
        if store is None or not hasattr(store, "head"):
            return render_head(context, dialect, self.counter.count)
        return store.head(context, dialect, self)  # type: ignore[no-any-return]  # a store is any object

    def spans(self, head: Head) -> tuple[Span, ...]:
        """Where tools and each stable segment end, in tokens from the start; worked out once a head."""
        known = self._spans.get(id(head))
        if known is not None and known[0] is head:
            return known[1]
        if len(self._spans) >= _HEADS:
            self._spans.clear()
        found = head_spans(head)
        self._spans[id(head)] = (head, found)
        return found

    def dynamic_counter(self, context: StableContext, owner: str) -> DynamicCounter:
        """A counter of dynamic text behind ``context`` that counts a text once for some turns of ``owner``."""
        return DynamicCounter(self.counter, self.turns, context.fingerprint, owner)

    def calibration(self, model: str) -> Calibration:
        """The correction of counted tokens by reported ones."""
        with self._lock:
            return self._calibrations.setdefault(model, Calibration())

    def price(self, model: str) -> Price | None:
        """The price of a model, looked up once."""
        if model not in self._prices:
            self._prices[model] = price_for(model, overrides=self.overrides)
        return self._prices[model]
