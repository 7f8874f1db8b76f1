"""What broke a cache: one neutral record, whoever reports it.

The session keeps its own prefix from moving, so what can still break it are time, reach and the provider.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .cache import Lookup
from .prices import Price
from .rules import CacheRules, Diagnosis, Section
from .usage import Usage

__all__ = ["CacheBreak", "Cause", "diagnose"]

Cause = Literal[
    "expired",
    "not-yet-visible",
    "lookback-exceeded",
    "below-minimum",
    "evicted-or-routed",
    "unreported",
    "thawed",
]
_FIX: dict[str, str] = {
    "expired": "send the next request within the time to live, or mark the stable segments with ttl='long'",
    "not-yet-visible": "wait for the first token of the request that writes the prefix before its siblings start",
    "lookback-exceeded": "keep a breakpoint on the previous tail",
    "below-minimum": "the prefix is shorter than the model caches; nothing to do",
    "evicted-or-routed": "nothing local explains it: send a routing key, or fewer requests a minute with one key",
    "unreported": "ask for usage; when streaming OpenAI-compatible endpoints, stream_options.include_usage",
}
# Counted tokens differ from reported ones by the framing of messages and by the estimate where there is one.
_TOLERANCE = 0.05


class CacheBreak(msgspec.Struct, frozen=True):
    """A part of the prefix that a warm cache would have served and that was billed again.

    ``tokens_lost`` in tokens, ``cost`` in USD above a hit (``None`` without a price), ``confidence`` a fraction of 1;
    ``section`` and ``path`` say where, ``offset`` how many characters into the value; ``before`` and ``after`` are excerpts
    where a value changed; ``fix`` is what to do.

    >>> CacheBreak(cause="expired", section="messages", tokens_lost=5000, confidence=1.0).cause
    'expired'
    """

    cause: Cause
    section: Section
    tokens_lost: int
    confidence: float
    cost: float | None = None
    path: str = ""
    offset: int = 0
    before: str = ""
    after: str = ""
    fix: str = ""


def diagnose(
    lookup: Lookup,
    usage: Usage | None,
    rules: CacheRules,
    price: Price | None,
    diagnosis: Diagnosis | None = None,
) -> CacheBreak | None:
    """Compare what a warm cache would have read with what the provider reported.

    A ``diagnosis`` of the provider's that agrees makes the cause certain.

    Less than 5 % of the prefix, or one step of the cache, is no break: counts of tokens differ by that much.
    """
    if usage is None:
        return _record("unreported", 0, 0.0, price) if lookup.warm_tokens else None
    counted = lookup.read_tokens + lookup.write_tokens + lookup.fresh_tokens
    scale = usage.input_tokens / counted if counted else 1.0
    warm = round(lookup.warm_tokens * scale)
    lost = warm - usage.cache_read_tokens
    if lost <= max(rules.step, rules.min_tokens // 8, warm * _TOLERANCE):
        return None
    if lookup.outcome == "hit":
        return _record("evicted-or-routed", lost, _confidence("evicted-or-routed", 0.5, diagnosis), price)
    causes: dict[str, Cause] = {
        "expired": "expired",
        "not-yet-visible": "not-yet-visible",
        "lookback-exceeded": "lookback-exceeded",
    }
    cause = causes.get(lookup.outcome, "evicted-or-routed")
    return _record(cause, lost, _confidence(cause, 0.9, diagnosis), price)


def _confidence(cause: Cause, alone: float, diagnosis: Diagnosis | None) -> float:
    return 1.0 if diagnosis is not None and diagnosis.cause == cause else alone


def _record(cause: Cause, lost: int, confidence: float, price: Price | None) -> CacheBreak:
    paid = None if price is None else lost * price.input * max(0.0, 1 - price.read_multiplier) / 1e6
    return CacheBreak(
        cause=cause,
        section="messages",
        tokens_lost=lost,
        confidence=confidence,
        cost=paid,
        fix=_FIX.get(cause, ""),
    )
