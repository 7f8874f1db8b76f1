"""One worker: a fork that converses until its turn has ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio

from ..conversation import Conversation
from ..limits import Budget, Hold
from ..observing import Observation
from ..request import Request
from ..rules import Event
from .events import FanOutEvent
from .gate import Gate, Lead
from .result import Result, summed
from .sender import can_stream

if TYPE_CHECKING:
    from .run import Run

__all__ = ["Worker"]

_UNBOUND = Budget()


class Worker:
    """The worker of the task at ``index``, in the engine's ``slot`` if it has slots."""

    def __init__(self, run: Run, index: int, slot: int | None) -> None:
        self._run, self._index, self._options = run, index, run.options
        self.task = run.tasks[index]
        self.key = run.ring.assign(index)
        self.session = run.fork(self.task.name, self.key)
        self.observed: list[Observation] = []
        self._own = {**(self._options.params or {}), **(self.task.params or {}), **run.lanes.params(slot)}
        self._attempts, self._led = 0, False
        self._turn: Conversation | None = None
        self._scope = anyio.CancelScope()

    async def work(self) -> Result:
        """The result; only being cancelled, and what is no ``Exception``, comes through."""
        clock, limit = self._run.session.clock, self._options.timeout
        start, error = clock(), None
        self.tell("started")
        with anyio.move_on_after(limit) as self._scope:
            try:
                await self._converse()
            except Exception as failure:  # noqa: BLE001 - an error in one worker loses nobody else's result
                error = failure
        if self._scope.cancelled_caught:
            error = TimeoutError(f"worker {self.task.name!r} took longer than {limit:g} seconds")
        self._run.ring.ended(len(self.observed))
        return self._result(error, clock() - start)

    def _result(self, error: Exception | None, seconds: float) -> Result:
        usage, cost = summed(self.observed)
        turn = self._turn
        return Result(
            name=str(self.task.name),
            session=self.session if turn is None else turn.session,
            message=turn.reply if error is None and turn is not None else None,
            error=error,
            usage=usage,
            cost=cost,
            observations=tuple(self.observed),
            seconds=seconds,
            key=self.session.family.routing_key if self._run.routed else None,
            led=self._led,
            attempts=self._attempts,
        )

    def tell(self, kind: Any, *, text: str = "", value: Any = None) -> None:
        """Tell whoever wants to know."""
        self._run.tell(FanOutEvent(kind, str(self.task.name), self._index, text, value))

    async def _converse(self) -> None:
        options, sender = self._options, self._run.sender
        tools = self.task.tools if self.task.tools is not None else options.tools
        self._turn = turn = Conversation(
            self.session,
            self.task.said(options.neutral),
            self.task.dynamic,
            tools,
            self._own or None,
            options.max_rounds,
            self._observed,
            options.tool_timeout,
        )
        turn.prepare(sender.client, asynchronous=sender.asynchronous, streaming=False)
        while True:
            for result in await turn.asettle():
                self.tell("tool_result", value=result)
            request, response, hold = await options.retry.acall(
                self._attempt, sleep=options.sleep, on_retry=lambda wait: self.tell("retrying", value=wait)
            )
            with hold:
                finished = turn.observe(request, response)
                seen = self.observed[-1]
                hold.pay(seen.usage, seen.cost)
            if finished:
                return

    def _observed(self, seen: Observation) -> None:
        self.observed.append(seen)
        self.tell("observed", value=seen)

    # One request

    async def _attempt(self) -> tuple[Request, Any, Hold]:
        """Pass the gate and send; a worker that led and failed comes back here as one of those that wait."""
        assert self._turn is not None, "it is made before anything is sent"
        request = self._turn.request()
        gate = self._run.gate(self.key, request)
        lead = None if gate is None else await self._held(gate)
        if lead is None:
            # Made anew: while it waited, the cache was filled.
            return await self._paid(request if gate is None else self._turn.request(), None)
        self.tell("leading")
        with lead:
            return await self._paid(request, lead)

    async def _held(self, gate: Gate) -> Lead | None:
        """Wait at the gate; the time does not count, or one that hangs would take all others with it."""
        begun, deadline = anyio.current_time(), self._scope.deadline
        self._scope.deadline = math.inf
        try:
            return await gate.enter(lambda: self.tell("waiting"))
        finally:
            self._scope.deadline = deadline + anyio.current_time() - begun

    async def _paid(self, request: Request, lead: Lead | None) -> tuple[Request, Any, Hold]:
        """Send what the budget allows, and give back what was held for it if it fails."""
        told = request.forecast
        budget = self._options.budget or _UNBOUND
        hold = budget.take(told.input_tokens, told.cost)
        try:
            if lead is not None and await self._prewarmed(request, lead):
                lead = None
            return request, await self._sent(request, lead), hold
        except BaseException:
            hold.release()
            raise

    async def _prewarmed(self, request: Request, lead: Lead) -> bool:
        """Fill the cache without an answer, where otherwise a whole answer would have to be waited for."""
        if self._streams(leads=True) or request.dialect.rules.visible_after == "end":
            return False
        seen = await self._run.sender.prewarm(self._run.fork(self.task.name, self.key))
        if seen is None:
            return False
        self._count(lead)
        self._observed(seen)
        if self._options.budget is not None:
            self._options.budget.charge(seen.usage, seen.cost)
        lead.begun()
        return True

    async def _sent(self, request: Request, lead: Lead | None) -> Any:
        sender, dialect, kwargs = self._run.sender, request.dialect, self._kwargs(request)
        self._count(lead)
        at_end = dialect.rules.visible_after == "end"

        def watch(event: Event) -> None:
            if not at_end:
                _begun(request, lead)
            if event.kind == "text" and event.text:
                self.tell("text", text=event.text)

        if self._streams(leads=lead is not None):
            response = await sender.stream(dialect, kwargs, watch)
        else:
            response = await sender.send(dialect, kwargs)
        _begun(request, lead)
        return response

    def _count(self, lead: Lead | None) -> None:
        """One more request is sent."""
        self._attempts += 1
        self._led = self._led or lead is not None
        self._run.ring.sent(self.key)

    def _streams(self, *, leads: bool) -> bool:
        asked = self._options.stream
        return leads and can_stream(self._run.sender.client) if asked is None else asked

    def _kwargs(self, request: Request) -> Mapping[str, Any]:
        header = self._options.affinity
        if header is None:
            return request.kwargs
        key = request.session.family.routing_key or request.session.id
        return {**request.kwargs, "extra_headers": {header: key}}


def _begun(request: Request, lead: Lead | None) -> None:
    if lead is not None:
        request.begun()
        lead.begun()
