"""The three ways to fan out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.from_thread

from ..loop import Executor
from .events import FanOutEvent
from .keys import KeyPolicy
from .options import Further, OnError, Options, Warm
from .result import Results
from .run import Run
from .sender import Sender, TaskSender, ThreadSender
from .tasks import tasks_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..session import Session

__all__ = ["afan_out", "fan_out", "fan_out_events"]

T = TypeVar("T")


def fan_out(
    session: Session,
    tasks: Iterable[Any],
    *,
    client: Any = None,
    limit: int = 8,
    warm: Warm = "auto",
    key_policy: KeyPolicy = "auto",
    tools: Executor | None = None,
    on_error: OnError = "collect",
    **further: Unpack[Further],
) -> Results:
    """Fork the session for each task, and converse with all forks in threads; returns the results in task order.

    ``tasks`` are texts, ``Task`` values, or mappings with ``task`` and perhaps ``name``, ``dynamic``, ``tools``, ``params``
    and ``neutral``. ``client`` (default: the session's) is a synchronous SDK client that threads may share; the other
    arguments, and further ones, are those of ``Options``. The session itself stays as it was; each result holds its fork.

    An error in one worker loses nobody else's result: it is the ``error`` of its result, or, with ``on_error="raise"``,
    raised when everything has stopped. Raises ``LoopError``, ``LimitError`` and ``MessageError`` for what cannot work before
    anything is sent. Interrupted, nothing more is sent; requests under way in threads are waited for.

    >>> from types import SimpleNamespace as Fake
    >>> from llmbuffer import Session, StableContext
    >>> answer = lambda **body: {"choices": [{"message": {"content": f"{len(body['messages'])} messages"}}]}
    >>> client = Fake(chat=Fake(completions=Fake(create=answer)))
    >>> session = Session(StableContext("gpt-5.5", "You are kind."), client=client)
    >>> [result.text for result in fan_out(session, ["Count the parcels.", "Sum up."])]
    ['2 messages', '2 messages']
    """
    options = Options(
        limit=limit, warm=warm, key_policy=key_policy, tools=tools, on_error=on_error, **further
    )
    found = client if client is not None else session.client
    return _blocking(partial(_run, session, tasks, ThreadSender(found, limit), options))


async def afan_out(
    session: Session,
    tasks: Iterable[Any],
    *,
    client: Any = None,
    limit: int = 8,
    warm: Warm = "auto",
    key_policy: KeyPolicy = "auto",
    tools: Executor | None = None,
    on_error: OnError = "collect",
    **further: Unpack[Further],
) -> Results:
    """``fan_out`` with an asynchronous client, on asyncio and trio; tools may be asynchronous as well.

    Cancelled, it stops everything at once: no task runs on, no connection stays open, and nothing more is sent.
    """
    options = Options(
        limit=limit, warm=warm, key_policy=key_policy, tools=tools, on_error=on_error, **further
    )
    return await _run(session, tasks, TaskSender(client if client is not None else session.client), options)


async def fan_out_events(
    session: Session, tasks: Iterable[Any], *, client: Any = None, **options: Any
) -> AsyncIterator[FanOutEvent]:
    """``afan_out`` that yields what happens; the last event is ``done``, and its ``value`` are the ``Results``.

    Takes the arguments of ``afan_out``. Whoever stops reading early closes it, as with ``contextlib.aclosing``: that
    cancels what still runs.
    """
    into, events = anyio.create_memory_object_stream[FanOutEvent](math.inf)
    failed: list[Exception] = []
    told = options.pop("on_event", None)

    def tell(event: FanOutEvent) -> None:
        if told is not None:
            told(event)
        into.send_nowait(event)

    async def run() -> None:
        with into:
            try:
                results = await afan_out(session, tasks, client=client, on_event=tell, **options)
                into.send_nowait(FanOutEvent("done", "", -1, value=results))
            except Exception as error:  # noqa: BLE001 - raised to the reader: a task group would wrap it up in a group
                failed.append(error)

    with events:
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            try:
                async for event in events:
                    yield event
            except GeneratorExit:
                group.cancel_scope.cancel()
    if failed:
        raise failed[0]


async def _run(session: Session, tasks: Iterable[Any], sender: Sender, options: Options) -> Results:
    given = tasks_of(tasks)
    options.check(session, given, sender.client, asynchronous=sender.asynchronous)
    return await Run(session, given, sender, options).run()


def _blocking(work: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine function to its end, also where an event loop runs in this thread already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return anyio.run(work)
    with anyio.from_thread.start_blocking_portal() as portal:
        future = portal.start_task_soon(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise
