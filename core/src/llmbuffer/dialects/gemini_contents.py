"""Explicit caches of Gemini: made when they pay, kept alive while they do, and deleted.

What a cache of T tokens costs and saves, with P the input price, r the read multiplier, S the storage price a token and
hour, H its lifetime in hours and n the requests expected within it:

    made      P·T + S·H·T        Google bills the tokens that go in at the input price, and storage by the hour
    saved     n·(1 - r)·P·T

T cancels, so it pays from n = (1 + S·H / P) / (1 - r) requests on. What the implicit cache would have served anyway is not
taken off: nothing promises it.

Sources: Google, Gemini API, context caching guide (lifetime one hour unless said otherwise, only the lifetime can be
changed, tokens billed when written, stored and read); Vertex AI, context cache overview (writing at the input price).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from threading import Event, Lock
from typing import Any

import anyio.to_thread

from ..errors import PriceError
from ..frozen import wire_json
from ..messages import content_hash
from ..prices import Price, price_for
from ..rules import CacheRules
from ..tokens import EstimateCounter
from .gemini_leases import GONE, Deleting, Entry, Making, Refreshing, Wanted, seconds

__all__ = ["CachedContents", "Lease"]

_log = logging.getLogger("llmbuffer.gemini")

_HEAD = ("systemInstruction", "tools", "toolConfig")  # what may not be sent again beside a cache
_HOUR = 3600.0
_PATIENCE = 30.0  # seconds that a request waits for a cache that another one makes
_COUNT = EstimateCounter().count


class Lease:
    """The use of a cache by one request: ``kwargs`` for the SDK, with the cache's name in place of the head."""

    def __init__(self, contents: CachedContents, entry: Entry, kwargs: Mapping[str, Any]) -> None:
        self._contents, self._entry = contents, entry
        options = kwargs["config"]["http_options"]
        body = {key: value for key, value in options["extra_body"].items() if key not in _HEAD}
        options = {**options, "extra_body": {**body, "cachedContent": entry.name}}
        self.kwargs = {**kwargs, "config": {**kwargs["config"], "http_options": options}}

    def served(self) -> None:
        """The provider took the cache."""
        self._entry.proven = True

    def refused(self, error: BaseException) -> bool:
        """Whether the provider did not know the cache (any more), so that the request is to be sent whole."""
        if getattr(error, "code", None) not in GONE:
            return False
        self._contents._lost(self._entry)
        return True


class CachedContents:
    """Keeps explicit caches for a ``Gemini`` dialect: system text, tools and tool config go into them, messages do not.

    Arguments: ``expected_requests`` with the same head within one lifetime; ``ttl``, the lifetime in seconds; ``clock``,
    seconds; ``prices`` by model, in place of the built-in table, which knows few storage prices (``cache_storage_hour``):
    without one, no cache is made. A cache is refreshed when less than ``refresh_below`` of its lifetime is left and the
    requests that it served lately pay for the extension. After a failure, nothing is made for this head for ``retry_after``
    seconds.

    No request fails because of a cache. Where the provider does not know one any more (404, 403), the request is sent
    whole; where making one fails, too, and the log warns. Several requests at once make one cache; the others wait for it.
    Threads and tasks may share an object, synchronous and asynchronous clients as well, but only clients of one project.

    >>> from llmbuffer import Price
    >>> prices = {"gemini-x": Price(input=2, output=12, cache_read=0.2, cache_storage_hour=4.5)}
    >>> contents = CachedContents(expected_requests=10, prices=prices)
    >>> round(contents.break_even("gemini-x"), 2), contents.pays("gemini-x")
    (3.61, True)
    """

    def __init__(
        self,
        *,
        expected_requests: float,
        ttl: float = _HOUR,
        clock: Callable[[], float] = time.time,
        prices: Mapping[str, Price] | None = None,
        refresh_below: float = 0.25,
        retry_after: float = 300.0,
    ) -> None:
        if not 0 < ttl < math.inf or not 0 <= refresh_below < 1:
            raise PriceError(
                f"ttl is {ttl!r} and refresh_below {refresh_below!r}: give seconds, and a share of them below 1"
            )
        self.ttl, self.expected_requests, self.clock = ttl, expected_requests, clock
        self.refresh_below, self.retry_after = refresh_below, retry_after
        self._prices = prices
        self._lock = Lock()
        self._live: dict[str, Entry] = {}
        self._under_way: dict[str, Event] = {}
        self._rests: dict[str, float] = {}  # until when nothing is made for a key
        self._stored = self._written = 0.0  # US dollars: storage of caches that ended, and the making of all
        self._closed = False

    # What it costs

    def break_even(self, model: str, *, tokens: int = 0) -> float | None:
        """From how many requests within one lifetime a cache of ``tokens`` pays; ``None`` if no price says so."""
        price = price_for(model, overrides=self._prices)
        if price is None or price.cache_storage_hour is None:
            return None
        rates = price.rates(tokens)
        saved = rates.input * (1 - rates.read_multiplier)
        made = rates.input + price.cache_storage_hour * self.ttl / _HOUR
        return made / saved if saved > 0 else math.inf

    def pays(self, model: str, *, tokens: int = 0) -> bool:
        """Whether the expected requests pay for a cache."""
        needed = self.break_even(model, tokens=tokens)
        return needed is not None and self.expected_requests > needed

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the caches that live, as the provider knows them."""
        with self._lock:
            self._sweep()
            return tuple(entry.name for entry in self._live.values())

    def storage_cost(self, at: float | None = None) -> float:
        """US dollars for storage from the making of each cache to its end, or to ``at`` (default now, by the clock)."""
        until = self.clock() if at is None else at
        with self._lock:
            return self._stored + sum(entry.storage(until) for entry in self._live.values())

    @property
    def creation_cost(self) -> float:
        """US dollars for the tokens that went into caches, at the input price."""
        return self._written

    @property
    def cost(self) -> float:
        """US dollars until now: making and storage. What was read is in the usage of the requests."""
        return self.creation_cost + self.storage_cost()

    # Use

    def lease(self, client: Any, kwargs: Mapping[str, Any], rules: CacheRules) -> Lease | None:
        """The cache for a request, made or refreshed if need be; ``None`` if the request is to be sent whole."""
        wanted = self._wanted(kwargs, rules)
        if wanted is None:
            return None
        while True:
            step, entry, waiting = self._next(wanted)
            if waiting is not None and waiting.wait(_PATIENCE):
                continue
            if step == "create":
                making = Making(self, wanted)
                with making:
                    making.done(client.caches.create(**wanted.creation(self.ttl)))
                entry = making.entry
            if step == "refresh" and entry is not None:
                with Refreshing(self, entry):
                    client.caches.update(name=entry.name, config={"ttl": seconds(self.ttl)})
            return None if entry is None else Lease(self, entry, kwargs)

    async def alease(self, client: Any, kwargs: Mapping[str, Any], rules: CacheRules) -> Lease | None:
        """The same with ``client.aio``."""
        wanted = self._wanted(kwargs, rules)
        if wanted is None:
            return None
        while True:
            step, entry, waiting = self._next(wanted)
            if waiting is not None and await anyio.to_thread.run_sync(
                waiting.wait, _PATIENCE, abandon_on_cancel=True
            ):
                continue
            if step == "create":
                making = Making(self, wanted)
                with making:
                    making.done(await client.caches.create(**wanted.creation(self.ttl)))
                entry = making.entry
            if step == "refresh" and entry is not None:
                with Refreshing(self, entry):
                    await client.caches.update(name=entry.name, config={"ttl": seconds(self.ttl)})
            return None if entry is None else Lease(self, entry, kwargs)

    def _wanted(self, kwargs: Mapping[str, Any], rules: CacheRules) -> Wanted | None:
        config: Any = kwargs.get("config")
        # As the dialect's own kwargs have it; what others make is left alone.
        for field in ("http_options", "extra_body"):
            config = config.get(field) if isinstance(config, Mapping) else None
        body: Mapping[str, Any] = config or {}
        head = {key: body[key] for key in _HEAD if body.get(key)}
        model = str(kwargs.get("model"))
        if self._closed or "cachedContent" in body or not head.keys() & {"systemInstruction", "tools"}:
            return None
        wire = wire_json(head)
        key = content_hash([model.encode(), wire])
        tokens = _COUNT(wire.decode())
        price = price_for(model, overrides=self._prices)
        if price is None or tokens < rules.min_tokens:
            return None
        # One that lives is used up, whether or not a new one would pay.
        return (
            Wanted(key, model, head, tokens, price)
            if key in self._live or self.pays(model, tokens=tokens)
            else None
        )

    def _next(self, wanted: Wanted) -> tuple[str, Entry | None, Event | None]:
        """What a request does now: use, refresh, create, wait for another's, or go plain."""
        now = self.clock()
        with self._lock:
            self._sweep()
            entry = self._live.get(wanted.key)
            if entry is not None:
                entry.uses += 1
                due = not entry.refreshing and self._refresh_pays(entry, now)
                entry.refreshing = entry.refreshing or due
                return ("refresh" if due else "use"), entry, None
            if wanted.key in self._under_way:
                return "wait", None, self._under_way[wanted.key]
            if self._rests.get(wanted.key, now) > now or self._closed:
                return "plain", None, None
            self._rests.pop(wanted.key, None)
            self._under_way[wanted.key] = Event()
            return "create", None, None

    def _refresh_pays(self, entry: Entry, now: float) -> bool:
        """Whether the requests that came since it was made or refreshed, going on so, save more than storage costs."""
        if entry.expires_at - now >= self.refresh_below * self.ttl or now <= entry.since:
            return False
        rates = entry.price.rates(entry.tokens)
        hourly = entry.uses / (now - entry.since) * _HOUR
        saved = hourly * rates.input * (1 - rates.read_multiplier)
        return saved > (entry.price.cache_storage_hour or 0.0)

    def _sweep(self) -> None:
        now = self.clock()
        for entry in [entry for entry in self._live.values() if entry.expires_at <= now]:
            self._end(entry, now)

    def _end(self, entry: Entry, now: float) -> None:
        if self._live.get(entry.key) is entry:
            del self._live[entry.key]
            self._stored += entry.storage(now)

    def _lost(self, entry: Entry) -> None:
        """A cache that the provider does not know; if it never did, none is made for a while."""
        now = self.clock()
        with self._lock:
            self._end(entry, now)
            if not entry.proven:
                self._rests[entry.key] = now + self.retry_after
        _log.warning("Gemini does not know %s any more: the request is sent whole", entry.name)

    # The end

    def close(self, client: Any) -> None:
        """Delete all caches; from then on requests are sent whole. What cannot be deleted expires by itself."""
        for name in self._closing():
            self.forget(client, name)

    async def aclose(self, client: Any) -> None:
        """The same with an asynchronous client."""
        for name in self._closing():
            await self.aforget(client, name)

    def _closing(self) -> tuple[str, ...]:
        self._closed = True
        return self.names

    def forget(self, client: Any, name: str) -> None:
        """Delete one cache. The next request with its head makes a new one if it pays."""
        with Deleting(self, name):
            client.caches.delete(name=name)

    async def aforget(self, client: Any, name: str) -> None:
        """The same with an asynchronous client."""
        with Deleting(self, name):
            await getattr(client, "aio", client).caches.delete(name=name)
