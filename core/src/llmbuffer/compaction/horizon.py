"""How many requests a session still has before it, by how long others like it were.

In recorded agent sessions the requests so far say next to nothing about those to come: the 25 % quantile of what
remained was 14 at the start, 9 after 10 requests, 19 after 40 and 20 after 80. So what remains is read off the sessions
that got at least as far; where those are too few, sessions are taken to end at the rate at which the longest ones do.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from ..errors import CompactionError

__all__ = ["Horizon"]

# Requests of a session: 24 evenly spaced quantiles of 293 recorded ones, 86 of tau-bench, tau2-bench, mini-swe-agent,
# deer-flow, SWE-agent and pi, 207 of Claude Code (kv-cache-tester). `python -m tests.properties.horizon` prints them.
_RECORDED = (
    *(5, 7, 8, 11, 12, 14, 16, 17, 20, 23, 26, 33),
    *(40, 47, 54, 61, 67, 74, 83, 100, 116, 133, 157, 226),
)
_PRIOR = 8  # sessions that the recorded ones count for together
_ENOUGH = 4.0  # sessions that a quantile is read off
_KEPT = 256  # sessions remembered


class Horizon(msgspec.Struct, frozen=True):
    """The lengths of finished sessions, and the quantile of what remained that is expected of the next one.

    Keep one for each kind of session (one agent, one task). ``finished`` holds the requests of each, the newest last; the
    latest 256 count, beside recorded sessions that count for 8. ``quantile`` is a low one: with 0.35, recorded sessions cost
    1.2 to 1.8 % more than with the true number of requests, with 0.1 7 to 13 % (simulated). ``hint`` is a user's own number of
    requests still to come, and is taken as it is.

    >>> Horizon().remaining(), Horizon(hint=5).remaining(100)
    (19, 5)
    """

    finished: tuple[int, ...] = ()
    quantile: float = 0.35
    hint: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise CompactionError(f"'quantile' is {self.quantile!r}: give a fraction between 0 and 1")
        if self.hint is not None and self.hint < 0:
            raise CompactionError(f"the horizon is {self.hint!r}: give 0 or more requests, or 'auto'")
        if any(total < 1 for total in self.finished):
            raise CompactionError(f"a session of {min(self.finished)!r} requests: give 1 or more")

    @classmethod
    def of(cls, given: Literal["auto"] | int | Horizon) -> Horizon:
        """What ``Compaction(horizon=…)`` takes: ``"auto"``, a number of requests still to come, or a horizon.

        >>> Horizon.of("auto") == Horizon(), Horizon.of(12).remaining()
        (True, 12)
        """
        if isinstance(given, Horizon):
            return given
        if isinstance(given, int) and not isinstance(given, bool):
            return cls(hint=given)
        if given == "auto":
            return cls()
        raise CompactionError(f"the horizon is {given!r}: give 'auto', a number of requests, or a Horizon")

    def observe(self, total_requests: int) -> Horizon:
        """A horizon that knows one more finished session, of ``total_requests`` requests.

        >>> learnt = Horizon()
        >>> for total in (90, 100, 110, 95, 105) * 6:
        ...     learnt = learnt.observe(total)
        >>> learnt.remaining(), learnt.remaining(80), learnt.remaining(500)
        (94, 14, 6)
        """
        kept = (*self.finished, total_requests)[-_KEPT:]
        return Horizon(kept, self.quantile, self.hint)

    def remaining(self, seen: int = 0) -> int:
        """The requests expected after the next one, in a session that has made ``seen`` of them."""
        if self.hint is not None:
            return self.hint
        weighted = [(total, _PRIOR / len(_RECORDED)) for total in _RECORDED]
        weighted += [(total, 1.0) for total in self.finished]
        weighted.sort(reverse=True)
        return self._rest(weighted, seen) if _weight(weighted, seen) >= _ENOUGH else self._tail(weighted)

    def _rest(self, weighted: list[tuple[int, float]], seen: int) -> int:
        """The quantile of what remained in the sessions that went beyond ``seen`` requests."""
        above = (1 - self.quantile) * _weight(weighted, seen)
        passed = 0.0
        for total, each in weighted:
            passed += each
            if passed >= above:
                return max(0, total - seen - 1)
        return 0

    def _tail(self, weighted: list[tuple[int, float]]) -> int:
        """The same for longer ones: from where just enough sessions are left, as if they ended at a constant rate."""
        passed, longest = 0.0, []
        for total, each in weighted:
            if passed >= _ENOUGH:
                break
            passed += each
            longest.append((total, each))
        start = longest[-1][0]
        mean = sum((total - start) * each for total, each in longest) / passed
        return int(-math.log(1 - self.quantile) * mean)


def _weight(weighted: list[tuple[int, float]], seen: int) -> float:
    return sum(each for total, each in weighted if total > seen)
