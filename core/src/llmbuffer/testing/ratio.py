"""How much of the input a provider served from its cache."""

from __future__ import annotations

from collections.abc import Iterable

from ..ledger import Ledger
from ..session import Session
from ..usage import Usage

__all__ = ["assert_hit_ratio"]

_SHOWN = 5  # requests that an error lists


def assert_hit_ratio(
    session_or_usages: Session | Ledger | Usage | Iterable[Usage], at_least: float = 0.9
) -> None:
    """Assert that at least this fraction of all input tokens was read from a cache.

    Takes a session (its own ledger, without its forks), a ledger, one usage, or usages in the order of the requests.
    Raises ``AssertionError`` that tells the ratio, the tokens and the requests that missed most, and ``ValueError`` for
    an ``at_least`` that is no fraction of 1.

    >>> warm = Usage(input_tokens=1000, cache_read_tokens=950)
    >>> assert_hit_ratio([warm, warm])
    >>> assert_hit_ratio([Usage(input_tokens=1000), warm])
    Traceback (most recent call last):
    AssertionError: the hit ratio is 0.475, not at least 0.9: 950 of 2,000 input tokens were read from a cache.
    Most was missed in
      request 0: 1,000 of 1,000 tokens
      request 1: 50 of 1,000 tokens
    """
    __tracebackhide__ = True
    if not 0 <= at_least <= 1:
        raise ValueError(f"at_least is {at_least!r}: give a fraction of 1, such as 0.9")
    rows = _rows(session_or_usages)
    total = sum((usage for usage, _ in rows), Usage())
    if not total.input_tokens:
        raise AssertionError(
            "no usage was reported, so there is no hit ratio: was any request observed with its usage?"
        )
    if total.hit_ratio < at_least:
        raise AssertionError(
            f"the hit ratio is {total.hit_ratio:.3f}, not at least {at_least:g}: {total.cache_read_tokens:,} of "
            f"{total.input_tokens:,} input tokens were read from a cache.\nMost was missed in\n{_misses(rows)}"
        )


def _rows(source: Session | Ledger | Usage | Iterable[Usage]) -> list[tuple[Usage, str]]:
    """Usage of each request, and why it missed where that is known."""
    if isinstance(source, Usage):
        return [(source, "")]
    if isinstance(source, Session | Ledger):
        entries = source.ledger if isinstance(source, Session) else source
        requests = (entry for entry in entries if entry.kind == "request")
        return [
            (entry.usage or Usage(), "" if entry.cache_break is None else entry.cache_break.cause)
            for entry in requests
        ]
    rows = [(usage, "") for usage in source]
    strange = next((usage for usage, _ in rows if not isinstance(usage, Usage)), None)
    if strange is not None or any(usage is None for usage, _ in rows):
        raise TypeError(
            f"found a {type(strange).__name__} among the usages: give Usage objects, a Session or a Ledger"
        )
    return rows


def _misses(rows: list[tuple[Usage, str]]) -> str:
    missed = [(usage.input_tokens - usage.cache_read_tokens, index) for index, (usage, _) in enumerate(rows)]
    worst = sorted(missed, key=lambda each: (-each[0], each[1]))[:_SHOWN]
    return "\n".join(
        f"  request {index}: {tokens:,} of {rows[index][0].input_tokens:,} tokens"
        + (f" ({rows[index][1]})" if rows[index][1] else "")
        for tokens, index in worst
        if tokens
    )
