"""How long a cache really keeps an entry, learned from what was read after how long a pause."""

from __future__ import annotations

import math
from collections import deque

__all__ = ["LONGEST", "SHORTEST", "Lifetime"]

LONGEST, SHORTEST = 12.0, 0.2  # times the lifetime that the rules say: from a minute to an hour for 5 minutes
_SEEN = 32  # observations that count
_HIT, _MISS = 0.9, 0.1  # of what a warm cache would have read


class Lifetime:
    """The lifetime of one provider's entries: ``ttl``, in seconds, starts as the rules say.

    A prefix that was read after a longer pause lengthens it, to twelve times at most; one that was missed altogether after
    a shorter pause shortens it, to a fifth at least, unless one of the last 32 observations was a hit after a pause as
    long. A miss after less than that fifth is an eviction, and teaches nothing.

    >>> lifetime = Lifetime(300.0)
    >>> lifetime.observe(420.0, read_tokens=9_000, warm_tokens=9_100), lifetime.ttl
    (True, 420.0)
    >>> lifetime.observe(200.0, read_tokens=0, warm_tokens=9_100), lifetime.ttl
    (False, 420.0)
    """

    __slots__ = ("_hits", "_least", "_most", "ttl")

    def __init__(self, ttl: float) -> None:
        self.ttl = ttl
        self._least, self._most = ttl * SHORTEST, ttl * LONGEST
        self._hits: deque[float] = deque(maxlen=_SEEN)  # pauses after which all was read; 0 for a miss

    def observe(self, idle: float, *, read_tokens: int, warm_tokens: int) -> bool:
        """Learn from one request after ``idle`` seconds without any that used the prefix; whether the lifetime changed."""
        if not 0 < idle < math.inf or warm_tokens <= 0 or not math.isfinite(self.ttl):
            return False
        before = self.ttl
        if read_tokens >= _HIT * warm_tokens:
            self._hits.append(idle)
            self.ttl = max(self.ttl, min(idle, self._most))
        elif read_tokens <= _MISS * warm_tokens and self._least <= idle < self.ttl:
            refuted = any(hit >= idle for hit in self._hits)
            self._hits.append(0.0)
            self.ttl = self.ttl if refuted else idle
        return self.ttl != before

    def __repr__(self) -> str:
        return f"Lifetime(ttl={self.ttl:g})"
