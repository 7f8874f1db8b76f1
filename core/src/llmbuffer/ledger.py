"""Every request of a session: forecast, usage, break, cost. No bodies, no prompt text."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

import msgspec

from .breaks import CacheBreak
from .forecast import Forecast
from .prices import CostParts
from .usage import Usage

__all__ = ["Ledger", "LedgerEntry"]


class LedgerEntry(msgspec.Struct, frozen=True):
    """One request, or one planned break (``kind`` is ``thawed`` and ``reason`` says why).

    Of kind ``compacted`` is a compaction: ``before_tokens`` and ``after_tokens`` are those of the prompt without and with
    it. ``summary`` is a request that made one, and ``hook-refused`` a hook that broke the rule in ``reason``.
    Of kind ``reused`` is a request that was not sent, because a reply was there: zero usage, zero cost.

    ``at`` is the session's clock when the request was made, in seconds; token fields start with ``forecast_``; ``usage`` is
    what the provider reported (``None`` if it did not); ``cost`` in USD (``None`` without a price), and ``cost_parts`` the
    same by what was paid for.
    """

    at: float
    epoch: int
    kind: str = "request"
    reason: str = ""
    forecast_read_tokens: int = 0
    forecast_write_tokens: int = 0
    forecast_fresh_tokens: int = 0
    usage: Usage | None = None
    cost: float | None = None
    cache_break: CacheBreak | None = None
    cost_parts: CostParts | None = None
    before_tokens: int = 0
    after_tokens: int = 0

    @property
    def forecast(self) -> Forecast:
        """The forecast of tokens, as it stood when the response came in."""
        return Forecast(
            self.forecast_read_tokens, self.forecast_write_tokens, self.forecast_fresh_tokens, cost=None
        )


class Ledger:
    """The entries of one session, oldest first; forks have ledgers of their own.

    >>> ledger = Ledger()
    >>> ledger.add(LedgerEntry(at=0.0, epoch=0, usage=Usage(input_tokens=100, cache_read_tokens=80)))
    >>> ledger.requests, ledger.hit_ratio
    (1, 0.8)
    """

    def __init__(self) -> None:
        self._entries: list[LedgerEntry] = []

    def add(self, entry: LedgerEntry) -> None:
        """Append one entry."""
        self._entries.append(entry)

    def clear(self) -> None:
        """Forget all entries."""
        self._entries.clear()

    def __iter__(self) -> Iterator[LedgerEntry]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> LedgerEntry:
        return self._entries[index]

    @property
    def requests(self) -> int:
        """Requests that were observed."""
        return sum(entry.kind == "request" for entry in self)

    @property
    def usage(self) -> Usage:
        """Sum of all reported usage."""
        return sum((entry.usage for entry in self if entry.usage is not None), Usage())

    @property
    def cost(self) -> float | None:
        """Sum of all costs in USD; ``None`` where no price is known."""
        costs = [entry.cost for entry in self if entry.cost is not None]
        return sum(costs) if costs else None

    @property
    def cost_parts(self) -> CostParts | None:
        """Sum of all costs, split into read, written, fresh and output; ``None`` where no price is known."""
        parts = [entry.cost_parts for entry in self if entry.cost_parts is not None]
        return sum(parts, CostParts()) if parts else None

    @property
    def hit_ratio(self) -> float:
        """``cache_read_tokens / input_tokens`` over all requests, a fraction of 1."""
        return self.usage.hit_ratio

    @property
    def breaks(self) -> tuple[CacheBreak, ...]:
        """The alarms, in order; planned breaks are not among them."""
        return tuple(entry.cache_break for entry in self if entry.cache_break is not None)

    def report(self) -> str:
        """A table for people, one line a request."""
        lines = [" | ".join(f"{title:>8}" for title in _TITLES)]
        lines += [" | ".join(f"{cell:>8}" for cell in row) for row in self._rows()]
        total = self.usage
        lines.append(
            f"{self.requests} requests, {total.input_tokens:,} tokens in, hit ratio {total.hit_ratio:.3f}{self._money()}"
        )
        return "\n".join(lines)

    def _money(self) -> str:
        """What was paid, and for what, as far as prices are known."""
        if self.cost is None:
            return ""
        parts = self.cost_parts
        split = "" if parts is None else f" ({_listed(parts)})"
        return f", {self.cost:.4f} USD{split}"

    def _rows(self) -> Iterator[list[str]]:
        for index, entry in enumerate(self):
            usage = entry.usage or Usage()
            numbers = (
                usage.input_tokens,
                usage.cache_read_tokens,
                usage.cache_write_tokens,
                usage.fresh_tokens,
            )
            broken = entry.cache_break.cause if entry.cache_break is not None else entry.reason
            money = "" if entry.cost is None else f"{entry.cost:.4f}"
            yield [str(index), *map(str, numbers), f"{usage.hit_ratio:.3f}", money, broken or entry.kind]

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(title)}</th>" for title in _TITLES)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in self._rows()
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def __repr__(self) -> str:
        return f"Ledger(requests={self.requests}, hit_ratio={self.hit_ratio:.3f})"


def _listed(parts: CostParts) -> str:
    return ", ".join(f"{name} {getattr(parts, name):.4f}" for name in CostParts.__struct_fields__)


_TITLES = ("request", "input", "read", "write", "fresh", "hit", "USD", "note")
