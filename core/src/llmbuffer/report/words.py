"""How a report spells things: numbers, money, times, and what a request did in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from ..breaks import CacheBreak
from .model import Bar, Sums

__all__ = ["anchor", "cause_and_price", "clock", "day", "dollars", "heading_of", "plural", "said"]


def dollars(value: float | None) -> str:
    """Money with four significant decimals; a dash where nobody knows.

    >>> dollars(1.5), dollars(0.00012), dollars(None)
    ('$1.50', '$0.00012', '-')
    """
    if value is None:
        return "-"
    if value >= 1 or value == 0:
        return f"${value:,.2f}"
    return f"${value:.4f}" if value >= 0.01 else f"${value:.2g}" if value >= 0.0001 else f"${value:.7f}"


def clock(seconds: float) -> str:
    """A stretch of time.

    >>> clock(7.5), clock(75), clock(7200), clock(200_000)
    ('7.5 s', '1 min 15 s', '2 h', '2 d 7 h')
    """
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for unit, size, next_unit, part in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {next_unit}" if rest else "")
    return f"{whole} s"


def day(at: float | None) -> str:
    """When a request was sent, in UTC; empty where it is not known or no date.

    >>> day(0.0), day(None)
    ('1970-01-01 00:00:00', '')
    """
    if at is None:
        return ""
    try:
        return datetime.fromtimestamp(at, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{at:.0f} s"


def cause_and_price(found: CacheBreak) -> str:
    """What broke, for a label.

    >>> cause_and_price(CacheBreak("expired", "messages", 5000, 0.9))
    'expired, 5,000 tokens'
    """
    paid = "" if found.cost is None else f", {dollars(found.cost)}"
    return f"{found.cause}, {found.tokens_lost:,} tokens{paid}"


def heading_of(bar: Bar) -> str:
    """What a bar stands for.

    >>> heading_of(Bar(number=3, name="writer"))
    'Request 3 (writer)'
    """
    name = f" ({bar.name})" if bar.name else ""
    kind = {"task": "Task", "worker": "Worker", "source": "Source"}.get(bar.kind, "Request")
    return f"{kind} {bar.number}{name}"


def plural(count: int, noun: str) -> str:
    """A count and what is counted.

    >>> plural(1, "break"), plural(1200, "break")
    ('1 break', '1,200 breaks')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def anchor(bar: Bar) -> str:
    """Where a click on a break goes."""
    return f"#b{bar.number}"


def said(bars: Sequence[Bar]) -> str:
    """What these requests did, in a sentence.

    >>> said([Bar(number=1)])
    'no usage reported'
    """
    sums = Sums.of(bars)
    usage = sums.usage
    if not usage.input_tokens:
        notes = ", ".join(dict.fromkeys(bar.note for bar in bars if bar.note))
        return notes or "no usage reported"
    paid = "" if sums.cost is None else f", {dollars(sums.cost)}"
    broken = f", {plural(sums.breaks, 'break')}" if len(bars) > 1 and sums.breaks else ""
    return (
        f"{usage.input_tokens:,} tokens in, {usage.cache_read_tokens:,} read, {usage.cache_write_tokens:,} written, "
        f"{usage.fresh_tokens:,} fresh{paid}{broken}"
    )
