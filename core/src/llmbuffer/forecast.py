"""What a provider will serve from its cache, and what that costs, before the request is paid for."""

from __future__ import annotations

import msgspec

from .cache import Lookup
from .prices import Price, cost
from .rules import CacheRules

__all__ = ["Forecast", "forecast"]


class Forecast(msgspec.Struct, frozen=True, gc=False):
    """Tokens that will be read, written and computed afresh, and their price in USD (``None`` without a price).

    Output is not part of it. ``warnings`` are names: ``cold``, ``expired``, ``below-minimum``, ``siblings-cold`` (a request
    that writes the prefix has not begun to answer), ``lookback-exceeded``, ``unsupported-model`` (no rules are known),
    ``dynamic-in-prefix`` (dynamic text changed within a turn and is replaced where it stands). ``notes`` say why a choice
    was made. ``estimated`` tells that the tokens were estimated, not counted.

    >>> Forecast(900, 50, 50, None).input_tokens
    1000
    """

    read_tokens: int
    write_tokens: int
    fresh_tokens: int
    cost: float | None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    estimated: bool = False

    @property
    def input_tokens(self) -> int:
        """All prompt tokens."""
        return self.read_tokens + self.write_tokens + self.fresh_tokens

    @property
    def hit_ratio(self) -> float:
        """``read_tokens / input_tokens``, a fraction of 1."""
        return self.read_tokens / self.input_tokens if self.input_tokens else 0.0


_WARNING = {
    "cold": "cold",
    "expired": "expired",
    "below-minimum": "below-minimum",
    "not-yet-visible": "siblings-cold",
    "lookback-exceeded": "lookback-exceeded",
}


def forecast(
    lookup: Lookup,
    rules: CacheRules,
    price: Price | None,
    *,
    factor: float = 1.0,
    estimated: bool = False,
    warnings: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> Forecast:
    """Turn a cache lookup into a forecast; ``factor`` corrects counted tokens by what the provider reported before."""
    usage = lookup.usage()
    found = [_WARNING[lookup.outcome]] if lookup.outcome in _WARNING else []
    if rules.name.endswith(("-compatible", "-unknown")):
        found.append("unsupported-model")
    paid = None if price is None else cost(usage, price) * factor
    return Forecast(
        read_tokens=round(lookup.read_tokens * factor),
        write_tokens=round(lookup.write_tokens * factor),
        fresh_tokens=round(lookup.fresh_tokens * factor),
        cost=paid,
        warnings=(*found, *warnings),
        notes=notes,
        estimated=estimated,
    )
