"""What an adapter's plugin says that it can do, against what its contract tries."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["agree"]

# The words of `llmbuffer plugins`, and the capabilities of `AdapterContract` that stand behind them.
_TRIED = {"team": "team", "fork": "fan-out", "async": "async", "stream": "stream", "structured": "structured"}


def agree(said: Iterable[str], *tried: Iterable[str]) -> None:
    """Raise ``AssertionError`` unless a plugin says all that each of its contracts tries, and no more.

    >>> agree(("observe", "fork"), {"tools", "fan-out"})
    """
    told = {word for word in said if word in _TRIED}
    for each in tried:
        assert told == {word for word, capability in _TRIED.items() if capability in set(each)}
