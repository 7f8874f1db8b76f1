"""The log of a simulated provider: what came in, and what its cache did; bounded, without prompt text."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

import msgspec

from ..prices import Price, cost, price_for
from ..usage import Usage

__all__ = ["RequestLog", "SimulatedRequest"]

_ROWS = 256  # pairs of format and model that sums are kept for; the oldest are summed as "(other)"


class SimulatedRequest(msgspec.Struct, frozen=True):
    """One request: when it came (``at``, seconds of the server's clock), what it was, and its usage.

    ``outcome`` says why nothing more was read (``hit``, ``cold``, ``expired``, ``below-minimum``, ``not-yet-visible``,
    ``lookback-exceeded``; ``refused`` for an error), ``key`` is the routing key, ``scope`` a digest of the API key.
    ``completed`` is false for a stream that broke off. ``body`` is kept on request only.
    """

    number: int
    at: float
    wire: str
    path: str
    model: str
    status: int
    usage: Usage
    outcome: str
    key: str | None = None
    scope: str = ""
    stream: bool = False
    completed: bool = True
    error: str | None = None
    body: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        shown = f"status={self.status}, outcome={self.outcome!r}, usage={self.usage}"
        return f"SimulatedRequest(number={self.number}, wire={self.wire!r}, model={self.model!r}, {shown})"


class _Row:
    """Sums; ``cost`` in US dollars, ``None`` as soon as the price of anything in it is unknown."""

    def __init__(self) -> None:
        self.requests = self.errors = 0
        self.usage = Usage()
        self.cost: float | None = 0.0

    def add(self, requests: int, errors: int, usage: Usage, paid: float | None) -> None:
        self.requests += requests
        self.errors += errors
        self.usage += usage
        self.cost = None if self.cost is None or paid is None else self.cost + paid

    def take(self, other: _Row) -> None:
        self.add(other.requests, other.errors, other.usage, other.cost)

    def figures(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "errors": self.errors,
            **self.usage.figures(),
            "cost_usd": None if self.cost is None else round(self.cost, 6),
        }


class RequestLog:
    """The latest ``limit`` requests in the order in which they ended, and the sums over all. Threads may share it.

    ``sink`` gets each of them.
    """

    def __init__(self, limit: int, sink: Callable[[SimulatedRequest], None] | None = None) -> None:
        self._sink = sink
        self._latest: deque[SimulatedRequest] = deque(maxlen=limit)
        self._rows: OrderedDict[tuple[str, str], _Row] = OrderedDict()
        self._prices: dict[str, Price | None] = {}
        self._lock = Lock()

    def add(self, request: SimulatedRequest) -> None:
        """Take in a request that has ended."""
        with self._lock:
            self._latest.append(request)
            key = (request.wire, request.model)
            row = self._rows.pop(key, None) or _Row()
            self._rows[key] = row
            row.add(1, int(request.status != 200), request.usage, self._paid(request))
            if len(self._rows) > _ROWS:
                self._fold()
            if self._sink is not None:
                self._sink(request)

    def _fold(self) -> None:
        other = ("(other)", "(other)")
        oldest = next(key for key in self._rows if key != other)
        row = self._rows.pop(oldest)
        self._rows.setdefault(other, _Row()).take(row)

    def _paid(self, request: SimulatedRequest) -> float | None:
        """US dollars for a request; ``None`` where nobody knows the price."""
        if not request.usage.input_tokens:
            return 0.0
        if request.model not in self._prices:
            if len(self._prices) >= _ROWS:
                self._prices.clear()
            self._prices[request.model] = price_for(request.model)
        price = self._prices[request.model]
        return None if price is None else cost(request.usage, price)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._latest.clear()
            self._rows.clear()

    @property
    def requests(self) -> tuple[SimulatedRequest, ...]:
        """The latest requests, the oldest first."""
        with self._lock:
            return tuple(self._latest)

    def usage(self) -> Usage:
        """The sum over all requests."""
        with self._lock:
            return sum((row.usage for row in self._rows.values()), Usage())

    def summary(self) -> dict[str, Any]:
        """The sums as JSON: over all, and by format and model. Simulated, so ``measured`` is false."""
        with self._lock:
            total = _Row()
            for row in self._rows.values():
                total.take(row)
            rows = [
                {"wire": wire, "model": model, **row.figures()}
                for (wire, model), row in sorted(self._rows.items())
            ]
        return {**total.figures(), "measured": False, "rows": rows}

    def metrics(self) -> str:
        """The sums in Prometheus' text format."""
        rows = self.summary()["rows"]
        lines = [
            "# HELP llmbuffer_requests_total Requests that have ended, errors included.",
            "# TYPE llmbuffer_requests_total counter",
            *(f"llmbuffer_requests_total{{{_labels(row)}}} {row['requests']}" for row in rows),
            "# HELP llmbuffer_errors_total Requests that were answered with an error.",
            "# TYPE llmbuffer_errors_total counter",
            *(f"llmbuffer_errors_total{{{_labels(row)}}} {row['errors']}" for row in rows),
            "# HELP llmbuffer_tokens_total Simulated tokens; input is the sum of read, write and fresh.",
            "# TYPE llmbuffer_tokens_total counter",
        ]
        for row in rows:
            for kind, field in _KINDS.items():
                lines.append(f'llmbuffer_tokens_total{{{_labels(row)},kind="{kind}"}} {row[field]}')
        lines += [
            "# HELP llmbuffer_hit_ratio Tokens read over input tokens.",
            "# TYPE llmbuffer_hit_ratio gauge",
        ]
        lines += [f"llmbuffer_hit_ratio{{{_labels(row)}}} {row['hit_ratio']}" for row in rows]
        return "\n".join([*lines, ""])


_KINDS = {
    "input": "input_tokens",
    "read": "cache_read_tokens",
    "write": "cache_write_tokens",
    "fresh": "fresh_tokens",
    "output": "output_tokens",
}


def _labels(row: Mapping[str, Any]) -> str:
    return f'wire="{_escaped(row["wire"])}",model="{_escaped(row["model"])}"'


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
