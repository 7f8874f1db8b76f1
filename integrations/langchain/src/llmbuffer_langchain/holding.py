"""Forks of a cold prefix: one goes first, the others are held until it begins to be answered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from llmbuffer.coalescing import Flights, Waiter
from llmbuffer.reconcile import Plan

__all__ = ["Gates", "Held"]

_KEPT = 256  # groups of forks that are known to be warm


class Held:
    """The leave to call the model; one that leads says by ``begun`` that its answer has begun."""

    def __init__(self, gates: Gates, key: Any) -> None:
        self._gates, self._key = gates, key

    def begun(self) -> None:
        """The provider has begun to answer, so that the others can read; again, it changes nothing."""
        key, self._key = self._key, None
        if key is not None:
            self._gates.warmed(key)

    def ended(self) -> None:
        """The call is over; if it was not answered, the next one leads."""
        key, self._key = self._key, None
        if key is not None:
            self._gates.failed(key)


class Gates:
    """A gate for each group of forks. Threads and event loops may wait for each other.

    >>> with Gates().held(None) as held:
    ...     held.begun()
    """

    def __init__(self) -> None:
        self._warm: OrderedDict[Any, bool] = OrderedDict()
        self._flights: Flights[Any, bool] = Flights(
            lambda key: (True,) if key in self._warm else (), wanted=1
        )

    @contextmanager
    def held(self, key: Any) -> Iterator[Held]:
        """Wait in a thread; without a ``key`` nobody waits."""
        verdict = None if key is None else self._flights.enter(key)
        if isinstance(verdict, Waiter):
            verdict = verdict.wait()
        held = Held(self, key if verdict is not None and verdict.kind == "lead" else None)
        try:
            yield held
        finally:
            held.ended()

    @asynccontextmanager
    async def aheld(self, key: Any) -> AsyncIterator[Held]:
        """Wait in a task."""
        verdict = None if key is None else self._flights.enter(key, asynchronous=True)
        if isinstance(verdict, Waiter):
            waiter = verdict
            try:
                verdict = await waiter.await_()
            except BaseException:  # cancelled while it waited: the next one is told
                self._flights.leave(key, waiter)
                raise
        held = Held(self, key if verdict is not None and verdict.kind == "lead" else None)
        try:
            yield held
        finally:
            held.ended()

    def warmed(self, key: Any) -> None:
        """What ``Held.begun`` calls."""
        self._warm[key] = True
        while len(self._warm) > _KEPT:
            self._warm.popitem(last=False)
        self._flights.settle(key, (True,))

    def failed(self, key: Any) -> None:
        """What a leader calls that was not answered."""
        self._flights.settle(key)


def waits_for(plan: Plan, key: Any) -> Any:
    """The ``key`` to wait by, where the plan's prefix is cold and an entry of it could be read; else ``None``."""
    if key is None:
        return None
    rules, forecast = plan.session.dialect.rules, plan.forecast
    long_enough = forecast.write_tokens + forecast.fresh_tokens >= rules.min_tokens
    return key if rules.visible_after != "request" and not forecast.read_tokens and long_enough else None
