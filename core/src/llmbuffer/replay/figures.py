"""Sums over replayed calls, and the document they make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

import msgspec

from .recordings import Skipped
from .retention import Retention

__all__ = ["Agreement", "Figures", "ReplayResult", "sources"]


class Agreement(msgspec.Struct, frozen=True):
    """How far predicted cache reads are from what the provider reported.

    ``pairs`` holds (input, reported read, predicted read) in tokens for each call compared; ``expired`` those among them
    whose prefix had outlived its time by the rules. What is left over is told apart by its direction: the provider
    ``read_less`` than predicted (``read_nothing`` among it: evicted, or sent to another machine), or ``read_more`` (a cache
    that other sessions had filled).

    >>> Agreement(((1000, 900, 890), (1000, 0, 950))).within_2_percent
    0.5
    """

    pairs: tuple[tuple[int, int, int], ...] = ()
    expired: tuple[tuple[int, int, int], ...] = ()

    @property
    def reported_tokens(self) -> int:
        """All reads as reported."""
        return sum(reported for _, reported, _ in self.pairs)

    @property
    def predicted_tokens(self) -> int:
        """All reads as predicted."""
        return sum(predicted for _, _, predicted in self.pairs)

    @property
    def relative_error(self) -> float | None:
        """(predicted - reported) / reported over all calls; ``None`` where nothing was read."""
        return _ratio(self.predicted_tokens - self.reported_tokens, self.reported_tokens)

    @property
    def median_error_tokens(self) -> float:
        """Median of the absolute errors of single calls, in tokens."""
        return median(abs(predicted - reported) for _, reported, predicted in self.pairs)

    @property
    def median_error_share(self) -> float:
        """The same as a share of each call's input."""
        return median(abs(predicted - reported) / max(1, whole) for whole, reported, predicted in self.pairs)

    @property
    def within_2_percent(self) -> float:
        """The share of calls whose error is at most 2 % of their input."""
        return sum(map(_near, self.pairs)) / len(self.pairs)

    @property
    def left_over(self) -> dict[str, int]:
        """How many calls are off by more than 2 % of their input, and which way; and the expired ones, with the agreed."""
        far = [pair for pair in self.pairs if not _near(pair)]
        return {
            "read_less": sum(predicted > reported for _, reported, predicted in far),
            "read_nothing": sum(reported == 0 for _, reported, _ in far),
            "read_more": sum(predicted < reported for _, reported, predicted in far),
            "expired": len(self.expired),
            "expired_agreed": sum(map(_near, self.expired)),
        }

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(self.pairs + other.pairs, self.expired + other.expired)

    def to_json(self) -> dict[str, Any]:
        """The figures by name; without calls, ``requests`` alone."""
        if not self.pairs:
            return {"requests": 0}
        return {
            "requests": len(self.pairs),
            "recorded_read_tokens": self.reported_tokens,
            "predicted_read_tokens": self.predicted_tokens,
            "relative_error": self.relative_error,
            "median_error_tokens": self.median_error_tokens,
            "median_error_share": self.median_error_share,
            "within_2_percent": self.within_2_percent,
            "left_over": self.left_over,
        }


def _near(pair: tuple[int, int, int]) -> bool:
    whole, reported, predicted = pair
    return abs(predicted - reported) <= 0.02 * whole


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the calls of one recording, one source, or all.

    Token counts; ``cost_usd`` in US dollars, output included (``None`` without a price). ``ceiling`` is the longest common
    prefix of each prompt with any sent earlier in its session, replies included where the cache stores them. With noise only: ``oracle_tokens`` are those of each
    noise-free prompt that were sent before, ``history_read_tokens`` the reads without the changing text (text that
    ``placement="sticky"`` keeps is history). ``shared_sessions``: those whose agents continue one transcript (``None`` where that
    was no question). ``retention`` tells of compaction, where that is replayed: calls that make summaries count in all sums.

    >>> one = Figures(sessions=1, requests=2, input_tokens=2000, cache_read_tokens=900, ceiling=1000)
    >>> (one + one).share_of_ceiling
    0.9
    """

    sessions: int = 0
    requests: int = 0
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    ceiling: int = 0
    cost_usd: float | None = 0.0
    oracle_tokens: int | None = None
    history_read_tokens: int | None = None
    shared_sessions: int | None = None
    recorded: Agreement = Agreement()
    retention: Retention | None = None

    @property
    def fresh_tokens(self) -> int:
        """Input that was neither read nor written."""
        return self.input_tokens - self.cache_read_tokens - self.cache_write_tokens

    @property
    def hit_ratio(self) -> float:
        """``cache_read_tokens / input_tokens``; 0.0 where nothing was sent."""
        return _ratio(self.cache_read_tokens, self.input_tokens) or 0.0

    @property
    def ceiling_ratio(self) -> float:
        """``ceiling / input_tokens``; 0.0 where nothing was sent."""
        return _ratio(self.ceiling, self.input_tokens) or 0.0

    @property
    def share_of_ceiling(self) -> float | None:
        """``cache_read_tokens / ceiling``; ``None`` where nothing could be read."""
        return _ratio(self.cache_read_tokens, self.ceiling)

    @property
    def share_of_oracle(self) -> float | None:
        """``history_read_tokens / oracle_tokens``; ``None`` without noise."""
        if self.history_read_tokens is None or self.oracle_tokens is None:
            return None
        return _ratio(self.history_read_tokens, self.oracle_tokens)

    def __add__(self, other: Figures) -> Figures:
        sums: dict[str, Any] = {name: _sum(getattr(self, name), getattr(other, name)) for name in _COUNTS}
        unpriced = self.cost_usd is None or other.cost_usd is None
        sums["cost_usd"] = None if unpriced else _sum(self.cost_usd, other.cost_usd)
        told = [each.retention for each in (self, other) if each.retention is not None]
        retention = sum(told, Retention()) if told else None
        return Figures(**sums, recorded=self.recorded + other.recorded, retention=retention)

    def to_json(self) -> dict[str, Any]:
        """The figures by name, ratios as fractions of 1."""
        document = {name: getattr(self, name) for name in _SHOWN}
        if self.oracle_tokens is not None:
            document |= {name: getattr(self, name) for name in _WITH_NOISE}
        if self.shared_sessions is not None:
            document["shared_sessions"] = self.shared_sessions
        if self.retention is not None:
            document |= self.retention.to_json()
        if self.recorded.pairs:
            document["recorded"] = self.recorded.to_json()
        return document


_COUNTS = (
    *("sessions", "requests", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens"),
    *("ceiling", "oracle_tokens", "history_read_tokens", "shared_sessions"),
)
_SHOWN = (
    *("sessions", "requests", "input_tokens", "cache_read_tokens", "cache_write_tokens", "fresh_tokens"),
    *("output_tokens", "hit_ratio", "ceiling", "ceiling_ratio", "share_of_ceiling", "cost_usd"),
)
_WITH_NOISE = ("oracle_tokens", "history_read_tokens", "share_of_oracle")


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None and b is None else (a or 0) + (b or 0)


class ReplayResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay came to: a row for each source, and the sum.

    ``counter`` names what counted the tokens; ``estimated`` says that it is not the model's own.

    >>> result = ReplayResult(dialect="openai", model="gpt-5.6", layout="buffered", rows={}, total=Figures())
    >>> result.to_json()["total"]["requests"]
    0
    """

    dialect: str
    model: str
    layout: str
    rows: Mapping[str, Figures]
    total: Figures
    noise: tuple[str, ...] = ()
    seed: int = 0
    placement: str = "turn"
    pace: str = "steady"
    counter: str = ""
    estimated: bool = False
    skipped: tuple[Skipped, ...] = ()
    compaction: str | None = None
    window: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The result as a JSON document; simulated, so ``measured`` is false throughout."""
        return {
            "rows": [{"source": source, **_simulated(row)} for source, row in self.rows.items()],
            "total": _simulated(self.total),
            "dialect": self.dialect,
            "model": self.model,
            "layout": self.layout,
            "noise": list(self.noise),
            "seed": self.seed,
            "placement": self.placement,
            "pace": self.pace,
            "counter": self.counter,
            "estimated": self.estimated,
            "compaction": self.compaction,
            "window": self.window,
            "skipped": [msgspec.structs.asdict(line) for line in self.skipped],
        }


def _simulated(figures: Figures) -> dict[str, Any]:
    return {**figures.to_json(), "measured": False}


def sources(ids: Iterable[str]) -> dict[str, str]:
    """The source of each recording by its id: the id's first two pieces, between dashes.

    The first piece alone where the second tells recordings apart, not sources: at least three recordings begin with it,
    each with another second piece.

    >>> sources(["tau2-retail-1", "tau2-retail-2", "deer-a1", "deer-b7", "deer-c3"])["deer-a1"]
    'deer'
    """
    seconds: defaultdict[str, list[str]] = defaultdict(list)
    pieces = {name: [*name.split("-"), ""][:2] for name in ids}
    for first, second in pieces.values():
        seconds[first].append(second)
    single = {first for first, found in seconds.items() if len(found) > 2 and len(set(found)) == len(found)}
    return {
        name: first if first in single or not second else f"{first}-{second}"
        for name, (first, second) in pieces.items()
    }
