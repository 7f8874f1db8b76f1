"""Holding side-by-side requests back until one of them has warmed what they share."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from llmbuffer.fanout import Gate, Lead
from llmbuffer.reconcile import Plan

__all__ = ["Warming"]


class Warming:
    """A gate for teams that run side by side: the first request of all leads, the others wait until it is answered.

    Nobody waits for a prompt that is too short to be cached. For one event loop.

    >>> import asyncio
    >>> warming = Warming()
    >>> asyncio.run(warming.enter(None)) is None  # no plan, no wait
    True
    """

    def __init__(self) -> None:
        self._gate = Gate()

    async def enter(self, plan: Plan | None) -> Lead | None:
        """Wait if there is something to wait for; the lead, if this request goes first."""
        if plan is None or self._gate.is_open:
            return None
        forecast = plan.forecast
        tokens = forecast.read_tokens + forecast.write_tokens + forecast.fresh_tokens
        if tokens < plan.session.dialect.rules.min_tokens:
            return None
        return await self._gate.enter()


def held(lead: Lead | None) -> AbstractContextManager[object]:
    """The lead for the time of its request; whoever waits goes on if it fails."""
    return nullcontext() if lead is None else lead
