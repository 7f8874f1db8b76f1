"""Calling the functions of a graph: as coroutines, in threads, or on an executor of the user's own."""

from __future__ import annotations

import contextvars
import inspect
import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import anyio
import anyio.to_thread
from anyio.from_thread import BlockingPortal

__all__ = ["Caller", "SubmitsCalls", "is_coroutine_function"]


class SubmitsCalls(Protocol):
    """What ``executor=`` takes: anything with the ``submit`` of ``concurrent.futures.Executor``.

    It is called without arguments for the function, which carries its own; the future needs ``result``, ``cancel`` and
    ``add_done_callback``.
    """

    def submit(self, fn: Callable[[], Any], /) -> Any:
        """Run the function somewhere, and give a future of what it returns."""
        ...


def is_coroutine_function(function: Any) -> bool:
    """Whether calling it gives a coroutine, also through partials and callable objects."""
    while isinstance(function, partial):
        function = function.func
    call = getattr(type(function), "__call__", None)  # noqa: B004 - its kind is asked for, not whether there is one
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


class Caller:
    """Calls functions and waits for them; nothing of it runs on when it is cancelled.

    A function in a thread cannot be stopped. If it is too late it is left behind, and what it returns is dropped; if the
    run is cancelled its end is waited for.
    """

    def __init__(self, executor: SubmitsCalls | None, portal: BlockingPortal) -> None:
        self._executor, self._portal = executor, portal
        self._home = threading.get_ident()
        self._threads = anyio.CapacityLimiter(math.inf)  # the run itself bounds how many are under way

    async def call(self, function: Any, *, deadline: float = math.inf) -> Any:
        """What ``function()`` returns; ``deadline`` (by the event loop's clock) is when the caller's patience ends."""
        if is_coroutine_function(function):
            return await function()
        if self._executor is not None:
            value = await self._outcome(self._executor.submit(function), deadline)
        else:
            value = await self.in_thread(function, deadline=deadline)
        return await value if inspect.isawaitable(value) else value

    def soon(self, function: Callable[[], object]) -> None:
        """Have the event loop call it, from whatever thread."""
        if threading.get_ident() == self._home:
            function()
            return
        with suppress(RuntimeError):  # the run ended before what it had left behind
            self._portal.start_task_soon(function)

    async def in_thread(self, function: Callable[[], Any], *, deadline: float = math.inf) -> Any:
        """The same in a thread, for whatever blocks."""
        if deadline == math.inf:
            return await anyio.to_thread.run_sync(function, limiter=self._threads)
        return await self._outcome(_thread(function), deadline)

    async def _outcome(self, future: Any, deadline: float) -> Any:
        ended = anyio.Event()
        future.add_done_callback(lambda _: self.soon(ended.set))
        try:
            await ended.wait()
        except anyio.get_cancelled_exc_class():
            if not future.cancel() and anyio.current_time() < deadline:
                with anyio.CancelScope(shield=True):
                    await ended.wait()
            raise
        return future.result()


def _thread(function: Callable[[], Any]) -> Future[Any]:
    """Run in a thread that does not keep the process from ending."""
    future: Future[Any] = Future()
    context = contextvars.copy_context()

    def body() -> None:
        try:
            future.set_result(context.run(function))
        except BaseException as error:  # noqa: BLE001 - whoever waits for the future gets it
            future.set_exception(error)

    future.set_running_or_notify_cancel()
    threading.Thread(target=body, name="llmbuffer-graph", daemon=True).start()
    return future
