"""Advice from what was observed: in which order segments cost least, and what to do about pauses. It changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal, get_args

import msgspec

from .context import LEVELS, Segment, StableContext
from .errors import LedgerError
from .frozen import FrozenDict
from .prices import Price
from .rules import CacheRules

__all__ = ["Advice", "IdlePolicy", "OrderAdvice", "advise_idle", "advise_order"]

IdlePolicy = Literal["short", "long", "keep-alive", "let-expire"]
_MARGIN = 0.9  # of the lifetime: when a cache that is kept alive is read again
_CHARACTERS = 4  # taken for a token where nobody counts


# The order of segments


class OrderAdvice(msgspec.Struct, frozen=True):
    """``order`` names the stable segments as they cost least, ``current`` as they were sent last.

    ``rebilled`` and ``rebilled_now`` are the tokens expected to be billed again from one context to the next, in that order
    and in the current one; ``changes`` the part of the steps in which each segment changed.
    """

    order: tuple[str, ...]
    current: tuple[str, ...]
    rebilled: float
    rebilled_now: float
    changes: Mapping[str, float] = FrozenDict()

    @property
    def better(self) -> bool:
        """Whether the order is another one, and cheaper."""
        return self.order != self.current and self.rebilled < self.rebilled_now

    @property
    def sentence(self) -> str:
        """The same for people."""
        if not self.better:
            return "the order of the segments costs least as it is"
        figures = (
            f"{self.rebilled:,.0f} tokens billed again at a change of context, not {self.rebilled_now:,.0f}"
        )
        return f"put the segments in the order {', '.join(self.order)}: {figures}"


class _Kind(msgspec.Struct, frozen=True):
    """One segment over time: its level, tokens, and the part of the steps in which it changed."""

    name: str
    level: int
    tokens: float
    changed: float

    @property
    def rank(self) -> tuple[int, float]:
        odds = self.changed / (1 - self.changed) if self.changed < 1 else math.inf
        return self.level, odds / max(1.0, self.tokens)


def advise_order(
    history: Iterable[StableContext | Sequence[Segment]], *, count: Callable[[str], int] | None = None
) -> OrderAdvice:
    """The order of stable segments under which least is billed again, from contexts in the order in which they were sent.

    Levels come first. Within one, segments ascend by (p / (1 - p)) / L, with p the part of the steps in which the segment
    changed, came or went, and L its tokens, as ``count`` counts them (default: four characters each). What never changed keeps
    its order. Nothing is reordered: declare the segments so in the next session.

    Raises ``LedgerError`` without two contexts.

    >>> clock, policy = ["10:00", "10:01", "10:02"], "Be kind. " * 100
    >>> seen = [[Segment("clock", time), Segment("policy", policy)] for time in clock]
    >>> advise_order(seen).order
    ('policy', 'clock')
    """
    seen = [_stable(each) for each in history]
    if len(seen) < 2:
        raise LedgerError(
            f"{len(seen)} contexts show no change: give two at least, in the order they were sent"
        )
    kinds = _kinds(seen, count if count is not None else _estimate)
    order = sorted(kinds, key=lambda kind: kind.rank)
    return OrderAdvice(
        order=tuple(kind.name for kind in order),
        current=tuple(kind.name for kind in kinds),
        rebilled=_rebilled(order),
        rebilled_now=_rebilled(kinds),
        changes=FrozenDict({kind.name: kind.changed for kind in kinds}),
    )


def _stable(given: StableContext | Sequence[Segment]) -> dict[str, Segment]:
    segments = given.segments if isinstance(given, StableContext) else given
    stable = [each for each in segments if each.level != "turn"]
    return {each.name: each for each in sorted(stable, key=lambda each: LEVELS.index(each.level))}


def _kinds(seen: Sequence[Mapping[str, Segment]], count: Callable[[str], int]) -> list[_Kind]:
    """The segments as they were sent last; those that were gone by then stand at the end of their level."""
    latest: dict[str, Segment] = {**seen[-1]}
    for each in reversed(seen):
        latest = {**latest, **{name: segment for name, segment in each.items() if name not in latest}}
    steps = list(pairwise(seen))
    found = [
        _Kind(
            name,
            LEVELS.index(segment.level),
            count(segment.content),
            sum(_content(one, name) != _content(other, name) for one, other in steps) / len(steps),
        )
        for name, segment in latest.items()
    ]
    return sorted(found, key=lambda kind: kind.level)


def _content(segments: Mapping[str, Segment], name: str) -> str | None:
    found = segments.get(name)
    return None if found is None else found.content


def _rebilled(kinds: Iterable[_Kind]) -> float:
    """Expected tokens behind the first change, itself among them, if segments change each by itself."""
    same, tokens = 1.0, 0.0
    for kind in kinds:
        same *= 1 - kind.changed
        tokens += kind.tokens * (1 - same)
    return tokens


def _estimate(text: str) -> int:
    return -(-len(text) // _CHARACTERS)


# Pauses


class Advice(msgspec.Struct, frozen=True):
    """What to do about pauses between requests: ``policy`` costs least for those that were observed.

    ``costs`` are those of the prefix over all of them, by policy: in USD with a price, else in tokens at input price.
    ``break_even`` is the pause in seconds up to which reading a cache again and again, to keep it alive, is cheaper than
    writing it anew; ``pings`` how many such reads the observed pauses would have taken.

    * ``short``: breakpoints of the standard lifetime; a longer pause writes the prefix anew;
    * ``long``: ``ttl="long"`` on the stable segments, written at a higher price;
    * ``keep-alive``: the standard lifetime, and a request that only reads (``session.prewarm()``) before it is over, while
      the pause is not longer than ``break_even``;
    * ``let-expire``: no breakpoints, where they are billed; the prefix is billed as input at each request.
    """

    policy: IdlePolicy
    costs: Mapping[str, float]
    break_even: float
    pings: int = 0
    in_usd: bool = False

    @property
    def sentence(self) -> str:
        """The same for people."""
        unit, digits = ("USD", 4) if self.in_usd else ("input tokens", 0)
        listed = ", ".join(f"{name} {cost:,.{digits}f}" for name, cost in self.costs.items())
        return (
            f"{self.policy} costs least, in {unit}: {listed}; keep alive for up to {self.break_even:,.0f} s"
        )


def advise_idle(
    gaps: Iterable[float], rules: CacheRules, price: Price | None = None, prefix_tokens: int = 10_000
) -> Advice:
    """Which lifetime costs least for a prefix of ``prefix_tokens``, from the seconds between its requests.

    ``rules`` are those of the model (``session.dialect.rules``; ``session.family.lifetime(session.dialect)`` is the lifetime
    as learned), and without a ``price`` their multipliers count. The first request writes, each gap is followed by one that
    reads or writes. Policies that make no sense are left out: ``long`` without a long lifetime, ``let-expire`` where writing
    costs nothing and something is read. A prefix below the model's minimum is not cached at all: ``let-expire``.

    Raises ``LedgerError`` for gaps that are negative or no numbers, and for none.

    >>> from llmbuffer import get_dialect
    >>> rules = get_dialect("anthropic").bind("claude-opus-4.5").rules
    >>> [advise_idle([gap] * 20, rules).policy for gap in (60, 1200, 86400)]
    ['short', 'long', 'let-expire']
    """
    pauses = [float(gap) for gap in gaps]
    if not pauses or not all(0 <= gap < math.inf for gap in pauses):
        raise LedgerError("gaps are seconds between requests, 0 or more: give one at least")
    terms = _Terms.of(rules, price)
    most = terms.most_pings
    pings = sum(terms.pings(gap) for gap in pauses)
    costs = (
        dict(terms.costs(pauses)) if prefix_tokens >= rules.min_tokens else {"let-expire": 1.0 + len(pauses)}
    )
    unit = prefix_tokens if price is None else prefix_tokens * price.rates(prefix_tokens).input / 1e6
    best = min(costs, key=lambda name: costs[name])  # the simplest of equals comes first
    return Advice(
        policy=next(each for each in get_args(IdlePolicy) if each == best),
        costs=FrozenDict({name: cost * unit for name, cost in costs.items()}),
        break_even=terms.ttl * (1 + _MARGIN * most) if math.isfinite(terms.ttl) else math.inf,
        pings=pings,
        in_usd=price is not None,
    )


class _Terms(msgspec.Struct, frozen=True):
    """What a token of the prefix costs, in units of input price, and how long it is kept, in seconds."""

    read: float
    write: float
    write_long: float
    ttl: float
    ttl_long: float | None

    @classmethod
    def of(cls, rules: CacheRules, price: Price | None) -> _Terms:
        rates = rules if price is None else price
        long = rules.ttl_long if rules.has_marks else None
        return cls(
            rates.read_multiplier, rates.write_multiplier, rates.write_long_multiplier, rules.ttl, long
        )

    @property
    def most_pings(self) -> int:
        """Reads that together cost less than writing anew instead of reading once more."""
        spared = self.write - self.read
        return 0 if self.read <= 0 or spared <= 0 else math.ceil(spared / self.read) - 1

    def pings(self, gap: float) -> int:
        """Reads that keep the cache alive through a pause; 0 where it is short enough, or not worth it."""
        if gap <= self.ttl:
            return 0
        needed = math.ceil((gap - self.ttl) / (self.ttl * _MARGIN))
        return needed if needed <= self.most_pings else 0

    def costs(self, gaps: Sequence[float]) -> Iterator[tuple[str, float]]:
        if self.write <= 1 and min(gaps) > self.ttl:  # the provider caches by itself, and nothing comes of it
            yield "let-expire", self.write * (1 + len(gaps))
        yield "short", self.write + sum(self._after(gap, self.ttl, self.write) for gap in gaps)
        if self.ttl_long is not None:
            lived = (self._after(gap, self.ttl_long, self.write_long) for gap in gaps)
            yield "long", self.write_long + sum(lived)
        if math.isfinite(self.ttl):
            yield "keep-alive", self.write + sum(map(self._kept_alive, gaps))
        if self.write > 1:
            yield "let-expire", 1.0 + len(gaps)

    def _after(self, gap: float, ttl: float, write: float) -> float:
        return self.read if gap <= ttl else write

    def _kept_alive(self, gap: float) -> float:
        pings = self.pings(gap)
        return pings * self.read + self._after(0.0 if pings else gap, self.ttl, self.write)
