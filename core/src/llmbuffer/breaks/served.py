"""What a provider served, against what a warm cache would have: the breaks that no text explains.

The session keeps its own prefix from moving, so what can still break it are time, reach and the provider.
"""

from __future__ import annotations

from typing import cast

from ..cache import Lookup
from ..prices import Price
from ..rules import CacheRules, Diagnosis, Section
from ..usage import Usage
from .record import FIXES, CacheBreak, Cause

__all__ = ["diagnose", "extra_cost", "tolerance"]

# Counted tokens differ from reported ones by the framing of messages and by the estimate where there is one.
_TOLERANCE = 0.05
_SECTIONS: dict[str, Section] = {
    "model-changed": "tools",
    "tools-added": "tools",
    "tools-removed": "tools",
    "tools-reordered": "tools",
    "tool-schema-changed": "tools",
    "system-changed": "system",
}


def diagnose(
    lookup: Lookup,
    usage: Usage | None,
    rules: CacheRules,
    price: Price | None,
    diagnosis: Diagnosis | None = None,
) -> CacheBreak | None:
    """Compare what a warm cache would have read with what the provider reported.

    A ``diagnosis`` of the provider's own that names a cause makes it certain, where the usage shows that there was a loss.

    Less than 5 % of the prefix, or one step of the cache, is no break: counts of tokens differ by that much.
    """
    if usage is None:
        return _record("unreported", 0, 0.0, price) if lookup.warm_tokens else None
    counted = lookup.read_tokens + lookup.write_tokens + lookup.fresh_tokens
    scale = usage.input_tokens / counted if counted else 1.0
    warm = round(lookup.warm_tokens * scale)
    lost = warm - usage.cache_read_tokens
    if lost <= tolerance(rules, warm):
        return None
    if diagnosis is not None and diagnosis.cause in FIXES:
        return _record(cast(Cause, diagnosis.cause), lost, 1.0, price)
    if lookup.outcome == "hit":
        return _record("evicted-or-routed", lost, 0.5, price)
    causes: dict[str, Cause] = {
        "expired": "expired",
        "not-yet-visible": "not-yet-visible",
        "lookback-exceeded": "lookback-exceeded",
    }
    return _record(causes.get(lookup.outcome, "evicted-or-routed"), lost, 0.9, price)


def _record(cause: Cause, lost: int, confidence: float, price: Price | None) -> CacheBreak:
    return CacheBreak(
        cause=cause,
        section=_SECTIONS.get(cause, "messages"),
        tokens_lost=lost,
        confidence=confidence,
        cost=extra_cost(lost, price),
        fix=FIXES[cause],
    )


def tolerance(rules: CacheRules, warm_tokens: int) -> float:
    """Tokens that may be missing before it is a break: a step of the cache, or 5 % of what it would have read."""
    return max(rules.step, rules.min_tokens // 8, warm_tokens * _TOLERANCE)


def extra_cost(lost_tokens: int, price: Price | None) -> float | None:
    """What tokens cost in USD above a hit, if a price is known.

    >>> extra_cost(1_000_000, Price(input=2, output=12, cache_read=0.2))
    1.8
    """
    if price is None:
        return None
    return lost_tokens * price.input * max(0.0, 1 - price.read_multiplier) / 1e6
