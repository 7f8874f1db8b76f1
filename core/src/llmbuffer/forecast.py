"""What a provider will serve from its cache, and what that costs, before the request is paid for."""

from __future__ import annotations

import msgspec

from .cache import Lookup
from .prices import Price, cost
from .rules import CacheRules, Section

__all__ = ["Detail", "Forecast", "forecast"]


class Detail(msgspec.Struct, frozen=True):
    """What a warning is about: the ``section`` and ``name`` of a tool, segment or param, the ``kind`` of what was found there.

    ``offset`` and ``length`` are characters of the segment's content, or of the tool's description or schema, as ``path``
    says; 0 where the whole is meant. No text of the prompt.

    >>> Detail("volatile-in-prefix", "system", "policy", "timestamp", "content", 6, 19).sentence
    "volatile-in-prefix: timestamp in 'policy' (system, content), character 6"
    """

    warning: str
    section: Section
    name: str
    kind: str = ""
    path: str = ""
    offset: int = 0
    length: int = 0

    @property
    def sentence(self) -> str:
        """The same for people."""
        what = f"{self.kind} in " if self.kind else ""
        where = f", character {self.offset:,}" if self.length else ""
        path = f", {self.path}" if self.path else ""
        return f"{self.warning}: {what}{self.name!r} ({self.section}{path}){where}"


class Forecast(msgspec.Struct, frozen=True, gc=False):
    """Tokens that will be read, written and computed afresh, and their price in USD (``None`` without a price).

    Output is not part of it. ``warnings`` are names:

    * ``cold``: nothing of the prompt was sent before; ``expired``: it was, and its time is over;
    * ``below-minimum``: shorter than the model caches;
    * ``siblings-cold``: a request that writes the same prefix has not begun to answer;
    * ``lookback-exceeded``: too far behind the last breakpoint; ``breakpoint-missing``: none can be placed;
    * ``too-many-breakpoints``: yours are more than the provider takes, or leave none for a segment with ``ttl="long"``;
    * ``ttl-order``: one of yours with a long lifetime stands behind one with a short lifetime;
    * ``volatile-in-prefix``: a clock, a random id or a set without an order in a stable segment or a tool;
    * ``dynamic-in-prefix``: dynamic text changed within a turn and is replaced where it stands;
    * ``params-changed``: params of this request alone, or of the last one, on which the cache depends;
    * ``unsupported-model``: no rules are known for it; ``over-max-tokens``: longer than compaction could make it;
    * the cause of a ``CacheBreak`` that a host which owns the history has made.

    ``details`` say where, ``notes`` why a choice was made; ``estimated`` tells that the tokens were estimated, not counted.

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
    details: tuple[Detail, ...] = ()

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
    details: tuple[Detail, ...] = (),
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
        warnings=tuple(dict.fromkeys((*found, *warnings, *(each.warning for each in details)))),
        notes=notes,
        estimated=estimated,
        details=details,
    )
