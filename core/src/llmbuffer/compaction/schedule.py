"""The best schedule of compactions over the requests still expected, if each of them adds the mean number of tokens.

What is asked is only whether that schedule begins *now*; at the next request everything is planned anew with what is
then known. Three parts: what waiting costs (``_Waiting``), what a cut costs when it is made (``_Course.made``), and what the
requests after it cost, later cuts of the same kind included (``_Course.after``). The moments are thinned (each of the next
few requests, then ever larger steps), so that the work of one decision has a bound that depends neither on the length
of the history nor on the horizon.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from .outlook import Cut, Outlook

__all__ = ["Plan", "moments", "plan"]

_NEAR = 8  # requests of which each is a moment of its own
_MOMENTS = 20


class Plan(msgspec.Struct, frozen=True):
    """What the planner found; prices in input tokens, over the next request and the ``remaining`` ones.

    ``now`` is the price of the best schedule that begins with cut number ``index``, ``wait`` that of the best one that does not begin
    now, whose first cut is made in ``after`` requests (None: never). Infinite where no such schedule fits the window.
    """

    index: int
    now: float
    wait: float
    after: int | None


def moments(remaining: int) -> tuple[int, ...]:
    """The requests before which a cut is considered: 0 is the next one, ``remaining`` the last.

    >>> moments(4), moments(100)[:12]
    ((0, 1, 2, 3, 4), (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15))
    """
    if remaining <= _NEAR:
        return tuple(range(remaining + 1))
    steps = _MOMENTS - _NEAR
    ratio = max(1.0, remaining / _NEAR) ** (1 / steps)
    far = {round(_NEAR * ratio**step) for step in range(1, steps)}
    return (*range(_NEAR + 1), *sorted(step for step in far if _NEAR < step <= remaining))


def plan(outlook: Outlook, cuts: Sequence[Cut], later: Sequence[Cut] = ()) -> Plan:
    """The best schedule that begins with one of ``cuts``, and the best that does not; ``cuts`` must not be empty.

    ``later`` are cuts that cannot be made now, but at the requests that follow. Where no schedule fits the window to its end, the limit is left out of account beyond the next request.

    >>> cut = Cut(action="elide", kept=3000, left=1000)
    >>> found = plan(Outlook(prompt=20_000, growth=100, remaining=10), [cut])
    >>> found.now < found.wait
    True
    """
    found = _planned(outlook, cuts, later, outlook.limit)
    fits = math.isfinite(min(found.now, found.wait))
    return found if fits else _planned(outlook, cuts, later, math.inf)


def _planned(outlook: Outlook, cuts: Sequence[Cut], later: Sequence[Cut], limit: float) -> Plan:
    times = moments(outlook.remaining)
    waiting = _Waiting(outlook, times, limit)
    now, wait, after, best = math.inf, waiting.for_ever, None, 0
    for number, cut in enumerate((*cuts, *later)):
        course = _Course(outlook, cut, times, limit)
        costs = [waiting.until[i] + course.made(i) + course.after[i] for i in range(len(times))]
        if costs[0] < now and number < len(cuts):
            now, best = costs[0], number
        for at, cost in zip(times[1:], costs[1:], strict=True):
            if cost < wait:
                wait, after = cost, at
    return Plan(best, now, wait, after)


class _Waiting:
    """The price of the requests before each moment, if nothing is done until then."""

    def __init__(self, outlook: Outlook, times: Sequence[int], limit: float) -> None:
        self._outlook, self._limit = outlook, limit
        self.until = [self._price(at) for at in times]
        self.for_ever = self._price(outlook.remaining + 1)

    def _price(self, count: int) -> float:
        if not count:
            return 0.0
        outlook, terms = self._outlook, self._outlook.terms
        if outlook.prompt + (count - 1) * outlook.growth > self._limit:
            return math.inf
        first = terms.prompt(outlook.held, outlook.prompt)
        return first + terms.requests(outlook.prompt, outlook.growth, count - 1)


class _Course:
    """What follows from a cut that is made at one of the moments."""

    def __init__(self, outlook: Outlook, cut: Cut, times: Sequence[int], limit: float) -> None:
        self._outlook, self._cut, self._limit = outlook, cut, limit
        self._times = times
        self._residue = cut.residue or 0.0
        self._protected = min(outlook.protected, cut.left)
        self._tail = self._protected if outlook.tail is None else outlook.tail
        self._left = [self._left_at(at) for at in times]
        self.after = self._prices()

    def made(self, index: int) -> float:
        """The price of the request before which the cut is made, the making of it included."""
        at = self._times[index]
        outlook, terms = self._outlook, self._outlook.terms
        prompt, left = outlook.prompt + at * outlook.growth, self._left[index]
        if left > self._limit or (at and prompt <= outlook.target):
            return math.inf
        kept = self._cut.kept if at else min(self._cut.kept, outlook.held)
        return self._making(prompt, outlook.warm or at > 0) + terms.prompt(kept, left)

    def _left_at(self, at: int) -> float:
        """The prompt right after a cut: of what came since today, all but the newest goes as well, down to its residue."""
        if not at:
            return self._cut.tokens
        released = max(0.0, self._protected + at * self._outlook.growth - self._tail)
        return self._cut.tokens - self._protected + self._residue * released + self._tail

    def _making(self, prompt: float, warm: bool) -> float:
        """A summary is written, and the whole prompt read for it."""
        if not self._cut.making:
            return 0.0
        terms = self._outlook.terms
        return terms.output * self._cut.making + prompt * (terms.read if warm else 1.0)

    def _prices(self) -> list[float]:
        """Of the requests after a cut at each moment, with the best later cuts; from the last moment to the first."""
        prices = [math.inf] * len(self._times)
        for index in reversed(range(len(self._times))):
            prices[index] = self._best_from(index, prices)
        return prices

    def _best_from(self, index: int, prices: Sequence[float]) -> float:
        outlook, terms, start = self._outlook, self._outlook.terms, self._times[index]
        held, growth = self._left[index], outlook.growth
        fits = outlook.remaining - start if growth <= 0 else (self._limit - held) / growth
        best = math.inf
        if outlook.remaining - start <= fits:
            best = terms.requests(held, growth, outlook.remaining - start)
        for later in range(index + 1, len(self._times)):
            quiet = self._times[later] - start - 1
            if quiet > fits:
                break
            again = self._again(index, later)
            best = min(best, terms.requests(held, growth, quiet) + again + prices[later])
        return best

    def _again(self, index: int, later: int) -> float:
        """The price of the request before which the same kind of cut is made once more."""
        outlook, start, at = self._outlook, self._times[index], self._times[later]
        held, left = self._left[index], self._left[later]
        prompt = held + (at - start) * outlook.growth
        if left > self._limit or prompt <= outlook.target:
            return math.inf
        if self._cut.folds or self._cut.making:
            kept = float(self._cut.kept)
        else:
            kept = held - (self._tail if start else self._protected)
        return self._making(prompt, warm=True) + outlook.terms.prompt(kept, left)
