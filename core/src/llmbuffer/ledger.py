"""Every request of a session: forecast, usage, break, cost. No bodies, no prompt text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import Protocol

import msgspec

from .attribution import By, Labels, Share, Span, shares
from .breaks import CacheBreak
from .errors import LedgerError
from .forecast import Forecast
from .prices import CostParts
from .usage import Usage

__all__ = ["Ledger", "LedgerEntry"]


class LedgerEntry(msgspec.Struct, frozen=True):
    """One request, or one planned break (``kind`` is ``thawed`` and ``reason`` says why).

    Of kind ``compacted`` is a compaction: ``before_tokens`` and ``after_tokens`` are those of the prompt without and with
    it. ``summary`` is a request that made one, and ``hook-refused`` a hook that broke the rule in ``reason``.
    Of kind ``reused`` is a request that was not sent, because a reply was there: zero usage, zero cost.
    Of kind ``moved`` is a slot of a host's system prompt that moved to the tail: a planned break, with its place and length.

    ``at`` is the session's clock when the request was made, in seconds; token fields start with ``forecast_``; ``usage`` is
    what the provider reported (``None`` if it did not); ``cost`` in USD (``None`` without a price), and ``cost_parts`` the
    same by what was paid for.

    ``cache_break`` is an alarm; ``planned`` is what a planned break before this request billed again; ``lasting`` names a
    fault that goes on, alarmed or not. ``labels`` say whose request it was. Of its ``prompt_tokens``, as counted, ``spans``
    are the stable ones in front, and ``dynamic_tokens`` from ``dynamic_at`` on the dynamic ones.
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
    planned: CacheBreak | None = None
    lasting: str = ""
    labels: Labels = Labels()
    spans: tuple[Span, ...] = ()
    prompt_tokens: int = 0
    dynamic_at: int = 0
    dynamic_tokens: int = 0

    @property
    def forecast(self) -> Forecast:
        """The forecast of tokens, as it stood when the response came in."""
        return Forecast(
            self.forecast_read_tokens, self.forecast_write_tokens, self.forecast_fresh_tokens, cost=None
        )


class Accounted(Protocol):
    """What keeps a ledger: a session."""

    @property
    def ledger(self) -> Ledger:
        """Its requests."""


class Ledger:
    """The entries of one session, oldest first; forks have ledgers of their own, and ``Ledger.of`` or ``+`` sums them.

    >>> ledger = Ledger()
    >>> ledger.add(LedgerEntry(at=0.0, epoch=0, usage=Usage(input_tokens=100, cache_read_tokens=80)))
    >>> ledger.requests, ledger.hit_ratio
    (1, 0.8)
    """

    def __init__(self) -> None:
        self._entries: list[LedgerEntry] = []

    @classmethod
    def of(cls, sources: Iterable[Ledger | Accounted]) -> Ledger:
        """A ledger with the entries of all these sessions or ledgers, by time; later entries of theirs are not in it.

        >>> one, other = Ledger(), Ledger()
        >>> one.add(LedgerEntry(at=2.0, epoch=0))
        >>> other.add(LedgerEntry(at=1.0, epoch=0))
        >>> [entry.at for entry in Ledger.of([one, other])], len(one + other)
        ([1.0, 2.0], 2)
        """
        ledgers = [each if isinstance(each, Ledger) else each.ledger for each in sources]
        merged = cls()
        merged._entries = sorted(
            (entry for ledger in ledgers for entry in ledger), key=lambda entry: entry.at
        )
        return merged

    def __add__(self, other: Ledger) -> Ledger:
        return Ledger.of([self, other]) if isinstance(other, Ledger) else NotImplemented

    def by(self, label: By) -> dict[str, Share]:
        """Requests, tokens, USD and breaks by ``agent``, ``task``, ``fork`` or ``segment``; work as for all entries.

        Segments go by their names, with ``tools``, ``history``, ``dynamic`` and ``output`` beside them: what was read is the
        front of each prompt, what was written stands behind that. Raises ``LedgerError`` for another label.

        >>> from llmbuffer import Message, Segment, Session, StableContext
        >>> session = Session(StableContext("gpt-5.5", [Segment("policy", "Be kind. " * 20)]))
        >>> seen = session.request("Hello").observe(Usage(input_tokens=50), Message("assistant", "Hi!"))
        >>> {name: share.input_tokens for name, share in session.ledger.by("segment").items()}
        {'policy': 46, 'history': 4}
        """
        if label not in _LABELS:
            raise LedgerError(f"unknown label {label!r}: use one of {', '.join(_LABELS)}")
        return shares(iter(self), label)

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

    @property
    def planned(self) -> tuple[CacheBreak, ...]:
        """The planned breaks, in order, with the tokens that they billed again; those that billed none are left out."""
        return tuple(
            entry.planned for entry in self if entry.planned is not None and entry.planned.tokens_lost
        )

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
            known = entry.cache_break or entry.planned
            broken = known.cause if known is not None else entry.reason
            money = "" if entry.cost is None else f"{entry.cost:.4f}"
            yield [str(index), *map(str, numbers), f"{usage.hit_ratio:.3f}", money, broken or entry.kind]

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(title)}</th>" for title in _TITLES)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in self._rows()
        )
        return f"{self._picture()}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _picture(self) -> str:
        """The latest requests as columns: read, written and fresh from the bottom up."""
        from .pictures import Column, columns

        drawn = []
        for number, entry in list(enumerate(self))[-_DRAWN:]:
            usage = entry.usage
            if usage is None:
                continue
            states = (
                ("read", usage.cache_read_tokens),
                ("written", usage.cache_write_tokens),
                ("fresh", usage.fresh_tokens),
            )
            title = f"request {number}: {usage.input_tokens:,} tokens, {usage.hit_ratio:.1%} read"
            drawn.append(Column(title, states, label=str(number)))
        if not drawn:
            return ""
        about = f"{len(drawn)} requests: tokens read, written and fresh"
        return f'<div style="overflow-x:auto">{columns(drawn, about)}</div>'

    def __repr__(self) -> str:
        return f"Ledger(requests={self.requests}, hit_ratio={self.hit_ratio:.3f})"


def _listed(parts: CostParts) -> str:
    return ", ".join(f"{name} {getattr(parts, name):.4f}" for name in CostParts.__struct_fields__)


_DRAWN = 200  # requests in the picture of a notebook
_LABELS = ("agent", "task", "fork", "segment")
_TITLES = ("request", "input", "read", "write", "fresh", "hit", "USD", "note")
