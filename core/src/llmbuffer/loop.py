"""Conversing: request, send with the user's client, observe, run tools, and again, until the turn ends.

What holds when something fails, in all four functions:

* The SDK's own errors pass through as they are; the session is as it was before that request.
* What a tool raises becomes an error result that the model reads. So do calls of unknown tools, calls whose arguments
  are no JSON object, and what a tool returned but no message can hold; the first two are never executed.
* Cancelled or interrupted (``KeyboardInterrupt``) before a reply was observed, the session is as it was. Interrupted
  while tools run, it holds the reply and the results of the calls that were finished; the others stay open. Answer those
  with ``session.append``, or converse again: open calls are run first, and none is run twice.
* One turn at a time runs the calls of a session. Another one that comes meanwhile raises ``PairingError`` before it runs
  or sends anything, and may be said again; a fork has calls of its own. A turn that fails leaves its calls to the next
  one, and so does a stream while its reader reads.
* A turn that does not end within ``max_rounds`` requests raises ``LoopError`` and leaves the last calls open in that way.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import anyio

from .calls import Executor, refuse_awaitable
from .conversation import Conversation
from .errors import DialectError
from .messages import Message
from .observing import Observation
from .placing import Dynamic
from .replies import Reuse
from .request import Request
from .rules import Event

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Executor", "arespond", "astream", "respond", "stream"]

MAX_ROUNDS = 32


def respond(
    session: Session,
    user: Any = None,
    *,
    dynamic: Dynamic | None = None,
    tools: Executor | None = None,
    client: Any = None,
    params: Mapping[str, Any] | None = None,
    max_rounds: int = MAX_ROUNDS,
    on_observe: Callable[[Observation], object] | None = None,
    reuse: Reuse = None,
) -> Message:
    """Converse until the model has answered; returns its last message.

    ``user`` and ``dynamic`` as for ``Session.request``; ``params`` are added to every request of the turn. ``tools`` is a
    mapping from name to callable, called with the arguments by name, or one ``callable(name, arguments)``; without it, a
    reply with calls is returned as it is. A tool returns a string, parts, a ``ToolResult``, or anything that has a JSON
    form. ``client`` (default: the session's) is a synchronous SDK client; ``max_rounds`` is the most requests that one
    turn may take; ``on_observe`` gets the ``Observation`` of each (usage, break, cost). ``reuse`` (``never`` unless given,
    ``deterministic``, ``samples``, or ``Replies``) says whether replies to equal requests are re-used: see ``replies``.

    If the session moves on while a request is under way, the turn goes on in a fork of it, which ``on_observe`` is
    shown and the log tells. Raises ``LoopError`` without a usable client and after ``max_rounds``; see the module for
    what holds then.

    >>> from types import SimpleNamespace as Fake
    >>> from llmbuffer import Session, StableContext
    >>> call = {"id": "1", "type": "function", "function": {"name": "search", "arguments": '{"query": "caches"}'}}
    >>> script = iter([{"content": None, "tool_calls": [call]}, {"content": "Found it."}])
    >>> answer = lambda **body: {"choices": [{"message": next(script)}]}
    >>> client = Fake(chat=Fake(completions=Fake(create=answer)))
    >>> session = Session(StableContext("gpt-5.5", tools=[{"name": "search"}]), client=client)
    >>> respond(session, "Look it up.", tools={"search": lambda query: f"all about {query}"}).text
    'Found it.'
    >>> [message.text or message.role for message in session.messages]
    ['Look it up.', 'assistant', 'tool', 'Found it.']
    """
    turn = Conversation(session, user, dynamic, tools, params, max_rounds, on_observe, reuse=reuse)
    turn.prepare(client, asynchronous=False, streaming=False)

    def send(request: Request) -> Any:
        response = request.dialect.send(turn.client, request.kwargs)
        if inspect.isawaitable(response):
            refuse_awaitable(response, f"a {_kind(turn.client)} is asynchronous: use arespond")
        return response

    with turn.holding():
        while True:
            for _ in turn.settle():
                pass
            request = turn.request()
            if turn.observe(request, turn.answer(request, send)):
                return turn.reply


async def arespond(
    session: Session,
    user: Any = None,
    *,
    dynamic: Dynamic | None = None,
    tools: Executor | None = None,
    client: Any = None,
    params: Mapping[str, Any] | None = None,
    max_rounds: int = MAX_ROUNDS,
    on_observe: Callable[[Observation], object] | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - of each tool, not of this call
    reuse: Reuse = None,
) -> Message:
    """``respond`` with an asynchronous client, for asyncio and trio.

    The calls of one reply run at the same time: asynchronous tools as tasks, others in worker threads; their results are
    appended in the order of the calls. ``timeout`` is how many seconds each tool may take (default: any number); then the
    model reads that it took too long. A tool in a thread cannot be stopped: it runs on, and its result is dropped.
    """
    turn = Conversation(session, user, dynamic, tools, params, max_rounds, on_observe, timeout, reuse=reuse)
    turn.prepare(client, asynchronous=True, streaming=False)

    async def send(request: Request) -> Any:
        return await request.dialect.asend(turn.client, request.kwargs)

    with turn.holding():
        while True:
            await turn.asettle()
            request = await turn.arequest()
            if turn.observe(request, await turn.aanswer(request, send)):
                return turn.reply


def stream(
    session: Session,
    user: Any = None,
    *,
    dynamic: Dynamic | None = None,
    tools: Executor | None = None,
    client: Any = None,
    params: Mapping[str, Any] | None = None,
    max_rounds: int = MAX_ROUNDS,
    on_observe: Callable[[Observation], object] | None = None,
) -> Iterator[Event]:
    """``respond`` that yields what comes: ``text`` pieces, each ``tool_call``, each ``tool_result``, and last ``done``.

    The ``value`` of an event is the ``ToolCall``, the ``ToolResult``, or with ``done`` the model's last message. A reply
    is observed when its stream has ended: whoever stops reading before leaves the session as it was.
    """
    turn = Conversation(session, user, dynamic, tools, params, max_rounds, on_observe)
    turn.prepare(client, asynchronous=False, streaming=True)
    return _stream(turn)


def _stream(turn: Conversation) -> Iterator[Event]:
    finished = False
    while not finished:
        for result in turn.settle():
            yield Event("tool_result", value=result)
        request = turn.request()
        events = request.dialect.stream(turn.client, request.kwargs)
        response = None
        try:
            for event in events:
                if event.kind == "done":
                    response = event.value
                else:
                    yield event
        finally:
            getattr(events, "close", _nothing)()
        finished = turn.observe(request, _complete(response))
        yield from turn.told()
    yield Event("done", value=turn.reply)


def astream(
    session: Session,
    user: Any = None,
    *,
    dynamic: Dynamic | None = None,
    tools: Executor | None = None,
    client: Any = None,
    params: Mapping[str, Any] | None = None,
    max_rounds: int = MAX_ROUNDS,
    on_observe: Callable[[Observation], object] | None = None,
    timeout: float | None = None,
) -> AsyncIterator[Event]:
    """``stream`` with an asynchronous client; tools as in ``arespond``."""
    turn = Conversation(session, user, dynamic, tools, params, max_rounds, on_observe, timeout)
    turn.prepare(client, asynchronous=True, streaming=True)
    return _astream(turn)


async def _astream(turn: Conversation) -> AsyncIterator[Event]:
    finished = False
    while not finished:
        for result in await turn.asettle():
            yield Event("tool_result", value=result)
        request = await turn.arequest()
        events = request.dialect.astream(turn.client, request.kwargs)
        response = None
        try:
            async for event in events:
                if event.kind == "done":
                    response = event.value
                else:
                    yield event
        finally:
            if hasattr(events, "aclose"):
                # Unshielded, a cancelled reader would leave the connection open.
                with anyio.CancelScope(shield=True):
                    await events.aclose()
        finished = turn.observe(request, _complete(response))
        for event in turn.told():
            yield event
    yield Event("done", value=turn.reply)


def _complete(response: Any) -> Any:
    if response is None:
        raise DialectError("the dialect's stream ended without a 'done' event that holds the response")
    return response


def _kind(client: object) -> str:
    return type(client).__name__


def _nothing() -> None:
    """Close nothing."""
