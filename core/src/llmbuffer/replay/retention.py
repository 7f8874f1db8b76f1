"""What compaction came to over a recording: how often, what it cost, and how much of what was said stayed."""

from __future__ import annotations

from typing import Any

import msgspec

from ..cache import Lookup
from .layouts import History

__all__ = ["Retention"]


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the calls of one recording, one source, or all; they can be added.

    ``calls`` were recorded; before ``compactions`` of them something was left out, and ``over_window`` did not fit. Of
    ``whole`` tokens that were said, ``kept`` were still sent word for word with the last call (messages alone: no system
    text, no tools, no summary); ``shares`` sums that share over the calls. ``summary_requests`` were made for summaries,
    and read ``summary_read_tokens`` of their ``summary_input_tokens`` from the cache.

    >>> one = Retention().called(History(kept=80, whole=100)).called(History(kept=60, whole=200, compacted=True))
    >>> one.retained_end, round(one.retained_mean, 2), one.compactions
    (0.3, 0.55, 1)
    """

    calls: int = 0
    compactions: int = 0
    over_window: int = 0
    kept: int = 0
    whole: int = 0
    shares: float = 0.0
    summary_requests: int = 0
    summary_input_tokens: int = 0
    summary_read_tokens: int = 0

    def called(self, history: History) -> Retention:
        """With one more call of the same recording."""
        return msgspec.structs.replace(
            self,
            calls=self.calls + 1,
            compactions=self.compactions + history.compacted,
            over_window=self.over_window + history.over,
            kept=history.kept,
            whole=history.whole,
            shares=self.shares + (history.kept / history.whole if history.whole else 1.0),
        )

    def summarised(self, lookup: Lookup) -> Retention:
        """With one more call that made a summary."""
        return msgspec.structs.replace(
            self,
            summary_requests=self.summary_requests + 1,
            summary_input_tokens=self.summary_input_tokens + lookup.usage(0).input_tokens,
            summary_read_tokens=self.summary_read_tokens + lookup.read_tokens,
        )

    @property
    def retained_end(self) -> float:
        """The share of what was said that the last call sent; over several recordings, of all that was said in them."""
        return self.kept / self.whole if self.whole else 1.0

    @property
    def retained_mean(self) -> float:
        """The mean of that share over the calls."""
        return self.shares / self.calls if self.calls else 1.0

    @property
    def summary_read_share(self) -> float | None:
        """The share of the input of summary calls that was read from the cache; ``None`` without any."""
        return self.summary_read_tokens / self.summary_input_tokens if self.summary_input_tokens else None

    def __add__(self, other: Retention) -> Retention:
        fields = self.__struct_fields__
        return Retention(**{name: getattr(self, name) + getattr(other, name) for name in fields})

    def to_json(self) -> dict[str, Any]:
        """The figures by name, ratios as fractions of 1."""
        names = ("compactions", "over_window", "retained_end", "retained_mean", "summary_requests")
        rest = ("summary_input_tokens", "summary_read_tokens", "summary_read_share")
        return {name: getattr(self, name) for name in (*names, *rest)}
