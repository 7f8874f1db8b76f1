"""Sending from a task: with an asynchronous client, or with a synchronous one in worker threads."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

import anyio
import anyio.from_thread
import anyio.to_thread

from ..calls import refuse_awaitable
from ..dialects import llamacpp_slots as slots
from ..errors import DialectError
from ..observing import Observation
from ..prewarm import aprewarm, prewarm
from ..rules import Dialect, Event
from ..session import Session

__all__ = ["Sender", "TaskSender", "ThreadSender", "can_stream"]

_SDKS = ("anthropic", "google", "openai")

Watch = Callable[[Event], object]


def can_stream(client: object) -> bool:
    """Whether a client streams for certain: those of the SDKs, and what is derived from them, do.

    >>> can_stream(object())
    False
    """
    return any(kind.__module__.partition(".")[0] in _SDKS for kind in type(client).__mro__)


class Sender(Protocol):
    """What a worker sends with."""

    asynchronous: bool
    client: Any

    async def send(self, dialect: Dialect, kwargs: Mapping[str, Any]) -> Any:
        """The response."""

    async def stream(self, dialect: Dialect, kwargs: Mapping[str, Any], watch: Watch) -> Any:
        """The same by a stream: ``watch`` gets each piece, in this event loop."""

    async def prewarm(self, session: Session) -> Observation | None:
        """Fill the cache and get no answer; ``None`` where the API has no way to do so."""

    async def broadcast(self, source: int, targets: Iterable[int], filename: str) -> None:
        """llama.cpp: put what one slot holds into others. Raises ``DialectError`` where the server saves no slots."""


class TaskSender:
    """With an asynchronous client.

    >>> TaskSender(client=None).asynchronous
    True
    """

    asynchronous = True

    def __init__(self, client: Any) -> None:
        self.client = client

    async def send(self, dialect: Dialect, kwargs: Mapping[str, Any]) -> Any:
        """See ``Sender``."""
        return await dialect.asend(self.client, kwargs)

    async def stream(self, dialect: Dialect, kwargs: Mapping[str, Any], watch: Watch) -> Any:
        """See ``Sender``."""
        events, response = dialect.astream(self.client, kwargs), None
        try:
            async for event in events:
                if event.kind == "done":
                    response = event.value
                else:
                    watch(event)
        finally:
            if hasattr(events, "aclose"):
                with anyio.CancelScope(
                    shield=True
                ):  # else a cancelled reader would leave the connection open
                    await events.aclose()
        return _complete(response)

    async def prewarm(self, session: Session) -> Observation | None:
        """See ``Sender``."""
        return await aprewarm(session, client=self.client)

    async def broadcast(self, source: int, targets: Iterable[int], filename: str) -> None:
        """See ``Sender``."""
        await slots.abroadcast_slot(self.client, source, targets, filename)


class ThreadSender:
    """With a synchronous client, ``limit`` requests at a time.

    A request that is under way in a thread cannot be stopped: a cancelled task waits for its end; a stream is closed at its
    next piece.

    >>> ThreadSender(client=None, limit=8).asynchronous
    False
    """

    asynchronous = False

    def __init__(self, client: Any, limit: int) -> None:
        self.client, self._limit = client, limit
        self._limiter: anyio.CapacityLimiter | None = None

    async def _run(self, call: Callable[[], Any]) -> Any:
        if self._limiter is None:  # it belongs to the event loop that it is first used in
            self._limiter = anyio.CapacityLimiter(self._limit)
        return await anyio.to_thread.run_sync(call, limiter=self._limiter)

    async def send(self, dialect: Dialect, kwargs: Mapping[str, Any]) -> Any:
        """See ``Sender``."""
        response = await self._run(partial(dialect.send, self.client, kwargs))
        if inspect.isawaitable(response):
            refuse_awaitable(response, f"a {type(self.client).__name__} is asynchronous: use afan_out")
        return response

    async def stream(self, dialect: Dialect, kwargs: Mapping[str, Any], watch: Watch) -> Any:
        """See ``Sender``."""
        return await self._run(partial(self._drain, dialect, kwargs, watch))

    def _drain(self, dialect: Dialect, kwargs: Mapping[str, Any], watch: Watch) -> Any:
        events, response = dialect.stream(self.client, kwargs), None
        try:
            for event in events:
                anyio.from_thread.check_cancelled()
                if event.kind == "done":
                    response = event.value
                else:
                    anyio.from_thread.run_sync(watch, event)
        finally:
            getattr(events, "close", _nothing)()
        return _complete(response)

    async def prewarm(self, session: Session) -> Observation | None:
        """See ``Sender``."""
        found: Observation | None = await self._run(partial(prewarm, session, client=self.client))
        return found

    async def broadcast(self, source: int, targets: Iterable[int], filename: str) -> None:
        """See ``Sender``."""
        await self._run(partial(slots.broadcast_slot, self.client, source, targets, filename))


def _complete(response: Any) -> Any:
    if response is None:
        raise DialectError("the dialect's stream ended without a 'done' event that holds the response")
    return response


def _nothing() -> Awaitable[None] | None:
    """Close nothing."""
    return None
