"""What requests cost by agent, task, fork or segment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import msgspec

from .usage import Usage

if TYPE_CHECKING:
    from .ledger import LedgerEntry

__all__ = ["Labels", "Share", "Span", "shares"]

By = Literal["agent", "task", "fork", "segment"]


class Labels(msgspec.Struct, frozen=True):
    """Whose request it was: ``agent`` is the name of the session or of the nearest fork above it that has one, else its id.

    ``task`` is the name of the nearest fork that was given a task, empty where none was; ``fork`` the session's id.
    """

    agent: str = ""
    task: str = ""
    fork: str = ""


class Span(msgspec.Struct, frozen=True):
    """A stretch of the prompt that is stable: it ends ``end`` tokens from the start, and begins where the one before it ends."""

    name: str
    end: int


class Share(msgspec.Struct, frozen=True):
    """Tokens, USD (``None`` where no price is known) and breaks that fall to one label.

    ``requests`` counts those that had any tokens of it; ``breaks`` are alarms, ``tokens_lost`` what those billed again.

    >>> Share(requests=1, input_tokens=1000, cache_read_tokens=900).hit_ratio
    0.9
    """

    requests: int = 0
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    breaks: int = 0
    tokens_lost: int = 0

    @property
    def fresh_tokens(self) -> int:
        """Input that was neither read nor written."""
        return self.input_tokens - self.cache_read_tokens - self.cache_write_tokens

    @property
    def hit_ratio(self) -> float:
        """``cache_read_tokens / input_tokens``, a fraction of 1."""
        return self.cache_read_tokens / self.input_tokens if self.input_tokens else 0.0

    def __add__(self, other: Share) -> Share:
        known = [each for each in (self.cost, other.cost) if each is not None]
        numbers = (name for name in Share.__struct_fields__ if name != "cost")
        sums = {name: getattr(self, name) + getattr(other, name) for name in numbers}
        return Share(**sums, cost=sum(known) if known else None)


def shares(entries: Iterator[LedgerEntry], by: By) -> dict[str, Share]:
    """The sums by label, in the order in which labels first occur."""
    found: dict[str, Share] = {}
    for entry in entries:
        if entry.kind not in ("request", "prewarm"):
            continue
        for label, share in _by_segment(entry) if by == "segment" else _whole(entry, by):
            found[label] = found.get(label, Share()) + share
    return found


def _whole(entry: LedgerEntry, by: str) -> Iterator[tuple[str, Share]]:
    usage, broken = entry.usage or Usage(), entry.cache_break
    yield (
        getattr(entry.labels, by),
        Share(
            1,
            usage.input_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
            usage.output_tokens,
            entry.cost,
            int(broken is not None),
            0 if broken is None else broken.tokens_lost,
        ),
    )


def _by_segment(entry: LedgerEntry) -> Iterator[tuple[str, Share]]:
    """Each stretch of the prompt with its part of what was read, written and paid; replies are ``output``.

    A provider reports three sums. What it read is the front of the prompt, what it wrote stands behind that.
    """
    usage = entry.usage
    if usage is None or not entry.prompt_tokens:
        return
    scale = usage.input_tokens / entry.prompt_tokens
    read = usage.cache_read_tokens
    written = read + usage.cache_write_tokens
    fault = read if entry.cache_break is not None else None
    for label, low, high in _stretches(entry, usage.input_tokens, scale):
        parts = _within(low, high, 0, read), _within(low, high, read, written)
        broken = fault is not None and low <= fault < high
        yield (
            label,
            Share(
                requests=1,
                input_tokens=high - low,
                cache_read_tokens=parts[0],
                cache_write_tokens=parts[1],
                cost=_cost(entry, usage, *parts, high - low - sum(parts)),
                breaks=int(broken),
                tokens_lost=entry.cache_break.tokens_lost if broken and entry.cache_break else 0,
            ),
        )
    if usage.output_tokens:
        paid = None if entry.cost_parts is None else entry.cost_parts.output
        yield "output", Share(1, output_tokens=usage.output_tokens, cost=paid)


def _stretches(entry: LedgerEntry, whole: int, scale: float) -> Iterator[tuple[str, int, int]]:
    """Label, start and end in the provider's tokens; together they are the whole prompt."""
    ends = [(span.name, span.end) for span in entry.spans]
    if entry.dynamic_tokens:
        ends += [("history", entry.dynamic_at), ("dynamic", entry.dynamic_at + entry.dynamic_tokens)]
    ends.append(("history", entry.prompt_tokens))
    low = 0
    for index, (label, end) in enumerate(ends):
        high = whole if index == len(ends) - 1 else min(whole, round(end * scale))
        if high > low:
            yield label, low, high
            low = high


def _within(low: int, high: int, start: int, end: int) -> int:
    return max(0, min(high, end) - max(low, start))


def _cost(entry: LedgerEntry, usage: Usage, read: int, written: int, fresh: int) -> float | None:
    paid = entry.cost_parts
    if paid is None:
        return None
    sums = (
        (paid.read, read, usage.cache_read_tokens),
        (paid.written, written, usage.cache_write_tokens),
        (paid.fresh, fresh, usage.fresh_tokens),
    )
    return sum(usd * part / whole for usd, part, whole in sums if whole)
