"""What a report shows: bars, the branches that they belong to, and sums. Numbers and names, no prompt text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from ..breaks import CacheBreak
from ..prices import Price, cost
from ..rules import Section
from ..usage import Usage

__all__ = ["Bar", "Branch", "Report", "Stretch", "Sums", "priced"]


class Stretch(msgspec.Struct, frozen=True, gc=False):
    """A stretch of a prompt: its section, its name (a segment, ``history``, ``new``) and its tokens.

    >>> Stretch("system", "policy", 1200).tokens
    1200
    """

    section: Section
    name: str
    tokens: int


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One request, or one row of a run that tells no single requests (``requests`` says how many it stands for).

    ``at`` in seconds; ``branch`` is the ``id`` of a ``Branch``. ``kind`` is that of a ledger's entry (``request``,
    ``compacted``, ``thawed``, …), or ``task``, ``worker``, ``source``. ``usage`` is ``None`` if none was reported.
    ``stretches`` are in prompt order and sum to the input tokens where a prompt is known. ``cost`` is what was paid in
    USD, ``fresh_cost`` what the same would have cost without any cache, ``ceiling_cost`` without any break; each ``None``
    without a price. ``ceiling_tokens`` is what could have been read.

    >>> bar = Bar(number=1, usage=Usage(input_tokens=100, cache_read_tokens=80))
    >>> bar.tokens, bar.ceiling
    (100, 80)
    """

    number: int
    at: float | None = None
    branch: str = ""
    kind: str = "request"
    name: str = ""
    model: str = ""
    requests: int = 1
    usage: Usage | None = None
    stretches: tuple[Stretch, ...] = ()
    cache_break: CacheBreak | None = None
    note: str = ""
    cost: float | None = None
    fresh_cost: float | None = None
    ceiling_cost: float | None = None
    ceiling_tokens: int | None = None

    @property
    def tokens(self) -> int:
        """Prompt tokens; 0 where none were reported."""
        return 0 if self.usage is None else self.usage.input_tokens

    @property
    def lost(self) -> int:
        """Tokens that a break billed again; planned breaks lose none."""
        found = self.cache_break
        return 0 if found is None or found.planned else found.tokens_lost

    @property
    def ceiling(self) -> int:
        """Tokens that a cache without breaks would have served: as told, or what was read and what was lost."""
        if self.usage is None:
            return 0
        if self.ceiling_tokens is not None:
            return self.ceiling_tokens
        return min(self.usage.input_tokens, self.usage.cache_read_tokens + self.lost)

    @property
    def alarm(self) -> CacheBreak | None:
        """The break, unless it was planned."""
        return self.cache_break if self.cache_break is not None and not self.cache_break.planned else None


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """A session, a fork, an agent or a worker: ``id``, the ``name`` that people see, and the ``parent`` it was forked from.

    >>> Branch(id="a", name="worker-1", parent="root").parent
    'root'
    """

    id: str
    name: str = ""
    parent: str | None = None
    note: str = ""


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over bars; a cost is ``None`` where the price of any request is unknown.

    >>> Sums.of([Bar(number=1, usage=Usage(input_tokens=10, cache_read_tokens=5), cost=0.5)]).hit_ratio
    0.5
    """

    requests: int = 0
    usage: Usage = Usage()
    ceiling: int = 0
    breaks: int = 0
    lost: int = 0
    cost: float | None = None
    fresh_cost: float | None = None
    ceiling_cost: float | None = None

    @classmethod
    def of(cls, bars: Iterable[Bar]) -> Sums:
        """The sums over these bars."""
        counted = [bar for bar in bars if bar.usage is not None or bar.cache_break is not None]
        used = [bar for bar in counted if bar.usage is not None]
        return cls(
            requests=sum(bar.requests for bar in used),
            usage=sum((bar.usage for bar in used if bar.usage is not None), Usage()),
            ceiling=sum(bar.ceiling for bar in used),
            breaks=sum(bar.alarm is not None for bar in counted),
            lost=sum(bar.lost for bar in counted),
            cost=_all(bar.cost for bar in used),
            fresh_cost=_all(bar.fresh_cost for bar in used),
            ceiling_cost=_all(bar.ceiling_cost for bar in used),
        )

    @property
    def hit_ratio(self) -> float:
        """Tokens read over input tokens."""
        return self.usage.hit_ratio

    @property
    def share_of_ceiling(self) -> float | None:
        """Tokens read over those that could have been; ``None`` where none could."""
        return self.usage.cache_read_tokens / self.ceiling if self.ceiling else None

    def to_json(self) -> dict[str, Any]:
        """The figures under the names that every command uses."""
        return {
            "requests": self.requests,
            **self.usage.figures(),
            "ceiling": self.ceiling,
            "share_of_ceiling": self.share_of_ceiling,
            "breaks": self.breaks,
            "tokens_lost": self.lost,
            "cost_usd": _rounded(self.cost),
            "all_fresh_cost_usd": _rounded(self.fresh_cost),
            "ceiling_cost_usd": _rounded(self.ceiling_cost),
        }


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A run to look at: ``bars`` in the order of its requests, and the ``branches`` that they belong to.

    ``source`` says what it was read from, ``measured`` whether a provider or an engine reported the figures (``None``
    where nobody can tell), ``skipped`` counts lines that could not be read, ``notes`` are for the reader.

    >>> Report(title="none").sums.requests
    0
    """

    title: str
    source: str = ""
    measured: bool | None = None
    bars: tuple[Bar, ...] = ()
    branches: tuple[Branch, ...] = ()
    skipped: int = 0
    notes: tuple[str, ...] = ()

    @property
    def sums(self) -> Sums:
        """The sums over all bars."""
        return Sums.of(self.bars)

    @property
    def breaks(self) -> tuple[Bar, ...]:
        """The bars with an alarm, in order."""
        return tuple(bar for bar in self.bars if bar.alarm is not None)

    @property
    def worst(self) -> tuple[Bar, ...]:
        """The same, the one that lost most first."""
        return tuple(sorted(self.breaks, key=lambda bar: (-bar.lost, bar.number)))

    def by_branch(self) -> Iterator[tuple[Branch, Sums]]:
        """Each branch with its sums, in the order of ``branches``."""
        found: dict[str, list[Bar]] = {branch.id: [] for branch in self.branches}
        for bar in self.bars:
            found.setdefault(bar.branch, []).append(bar)
        for branch in self.branches:
            yield branch, Sums.of(found[branch.id])

    def html(self, *, show_text: bool = False) -> str:
        """The report as one HTML page that needs nothing else; ``show_text`` adds the excerpts around each break."""
        from .html import page

        return page(self, show_text=show_text)

    def to_json(self, *, show_text: bool = False) -> dict[str, Any]:
        """The report as a JSON document; ``measured`` is ``None`` where nobody can tell."""
        return {
            "title": self.title,
            "source": self.source,
            "measured": self.measured,
            **self.sums.to_json(),
            "skipped": self.skipped,
            "rows": [_row(bar, show_text) for bar in self.bars],
            "branches": [
                {"id": branch.id, "name": branch.name, "parent": branch.parent, **sums.to_json()}
                for branch, sums in self.by_branch()
            ],
            "notes": list(self.notes),
        }

    def _repr_html_(self) -> str:
        from .notebook import fragment

        return fragment(self)

    def __repr__(self) -> str:
        sums = self.sums
        return f"Report({self.title!r}, requests={sums.requests}, hit_ratio={sums.hit_ratio:.3f}, breaks={sums.breaks})"


def _row(bar: Bar, show_text: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "number": bar.number,
        "at": bar.at,
        "branch": bar.branch,
        "kind": bar.kind,
        "name": bar.name,
        "model": bar.model,
        "note": bar.note,
        **Sums.of([bar]).to_json(),
        "stretches": [msgspec.to_builtins(stretch) for stretch in bar.stretches],
        "break": None,
    }
    if bar.cache_break is not None:
        document["break"] = bar.cache_break.to_json(show_text=show_text)
    return document


def _all(costs: Iterable[float | None]) -> float | None:
    """The sum; ``None`` as soon as one is unknown, or without any."""
    found = list(costs)
    return None if not found or None in found else sum(cost for cost in found if cost is not None)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 8)


def priced(bar: Bar, price: Price | None) -> Bar:
    """The bar with its costs. One that has a cost keeps it; the others follow from ``price``.

    >>> bar = priced(Bar(number=1, usage=Usage(input_tokens=1_000_000)), Price(input=2, output=10, cache_read=0.2))
    >>> bar.cost, bar.fresh_cost, bar.ceiling_cost
    (2.0, 2.0, 2.0)
    """
    usage = bar.usage
    if usage is None or price is None:
        return bar
    count = max(1, bar.requests)
    paid = _cost(usage, count, price) if bar.cost is None else bar.cost
    bare = Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
    if bar.ceiling_tokens is not None:
        read = min(usage.input_tokens, bar.ceiling_tokens)
        write = min(usage.cache_write_tokens, usage.input_tokens - read)
        best = Usage(usage.input_tokens, usage.output_tokens, read, write)
        ceiling = _cost(best, count, price)
    else:
        again = bar.alarm.cost if bar.alarm is not None else None
        ceiling = max(0.0, paid - (again or 0.0))
    return msgspec.structs.replace(bar, cost=paid, fresh_cost=_cost(bare, count, price), ceiling_cost=ceiling)


def _cost(usage: Usage, count: int, price: Price) -> float:
    """What ``count`` requests cost that used this together, as if they were alike: a tier holds for one request."""
    if count == 1:
        return cost(usage, price)
    shares = {name: getattr(usage, name) for name in Usage.__struct_fields__}
    one = {name: value // count for name, value in shares.items()}
    whole = sum(one.values())
    return cost(Usage(**one), price) * (sum(shares.values()) / whole) if whole else 0.0
