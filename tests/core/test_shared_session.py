"""Turns that meet on one session: whose calls are whose, and what is left when a turn dies."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from llmbuffer import Message, Observation, PairingError, Session, StableContext, ToolCall, ToolResult
from llmbuffer.errors import LoopError

WAYS = ["respond", "arespond", "stream", "astream"]
PAY = {"name": "pay", "parameters": {"type": "object"}}
RUNNING = r"another turn on this session is running the calls \['call_1'\]"
LIMIT = 20  # seconds after which a test that hangs fails


def said(*calls: str, text: str | None = None) -> dict[str, Any]:
    """A response that calls ``pay`` under the ids, or says a text."""
    made = [
        {"id": each, "type": "function", "function": {"name": "pay", "arguments": "{}"}} for each in calls
    ]
    message = {"role": "assistant", "content": text, **({"tool_calls": made} if made else {})}
    return {"choices": [{"message": message, "index": 0, "finish_reason": "stop"}]}


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """Two calls for a user who says "pay", "done" for results, "hello" for anything else."""
    last = body["messages"][-1]
    if last["role"] == "user" and last["content"] == "pay":
        return said("call_1", "call_2")
    return said(text="done" if last["role"] == "tool" else "hello")


def chunk(response: dict[str, Any]) -> dict[str, Any]:
    message = dict(response["choices"][0]["message"])
    calls = [{"index": at, **call} for at, call in enumerate(message.pop("tool_calls", ()))]
    delta = {**message, **({"tool_calls": calls} if calls else {})}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": "stop"}]}


class Chunks:
    """The stream of an answer, for either kind of client."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._chunk = chunk(answer(body))

    def __enter__(self) -> Iterator[dict[str, Any]]:
        return iter([self._chunk])

    def __exit__(self, *_: object) -> None:
        """Close nothing."""

    async def __aenter__(self) -> AsyncIterator[dict[str, Any]]:
        return self._all()

    async def __aexit__(self, *_: object) -> None:
        """Close nothing."""

    async def _all(self) -> AsyncIterator[dict[str, Any]]:
        yield self._chunk


class Client:
    """A client of the openai dialect; ``bodies`` are those of the requests that were sent."""

    def __init__(self, way: str) -> None:
        self.bodies: list[dict[str, Any]] = []
        create = self._acreate if way.startswith("a") else self._create
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=create))

    def _create(self, **body: Any) -> Any:
        self.bodies.append(body)
        return Chunks(body) if body.get("stream") else answer(body)

    async def _acreate(self, **body: Any) -> Any:
        self.bodies.append(body)
        return Chunks(body) if body.get("stream") else answer(body)


def session_of(**options: Any) -> Session:
    return Session(StableContext("gpt-5.5", "You are kind.", tools=[PAY]), **options)


def converse(way: str, session: Session, user: Any, tools: Any, client: Any = None, **options: Any) -> str:
    """The text that one turn ends with."""
    options = {"client": Client(way) if client is None else client, "tools": tools, **options}
    if way == "respond":
        return str(session.respond(user, **options).text)
    if way == "stream":
        return str(list(session.stream(user, **options))[-1].value.text)

    async def turn() -> str:
        if way == "arespond":
            return str((await session.arespond(user, **options)).text)
        events = [event async for event in session.astream(user, **options)]
        return str(events[-1].value.text)

    return anyio.run(turn)


def counting(ran: list[str]) -> dict[str, Callable[..., Any]]:
    """Tools that tell when they run."""

    def pay() -> str:
        ran.append("pay")
        return "paid"

    return {"pay": pay}


class Till:
    """The tool ``pay``: how often it ran; the first time it waits until ``open`` is set."""

    def __init__(self) -> None:
        self.ran = 0
        self.entered, self.open = threading.Event(), threading.Event()
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            self.ran += 1
        self.entered.set()
        assert self.open.wait(LIMIT)
        return "paid"


@contextmanager
def turn_that_pays(way: str, session: Session, till: Till) -> Iterator[Future[str]]:
    """A turn in another thread; its tool runs within the ``with`` block."""
    with ThreadPoolExecutor(1) as pool:
        try:
            turn = pool.submit(converse, way, session, "pay", {"pay": till})
            assert till.entered.wait(LIMIT)
            yield turn
        finally:
            till.open.set()


@pytest.mark.parametrize("tools", [True, False], ids=["with tools", "without"])
@pytest.mark.parametrize("second", WAYS)
@pytest.mark.parametrize("first", WAYS)
def test_calls_that_another_turn_runs_are_left_to_it(first: str, second: str, tools: bool) -> None:
    session, till, client = session_of(), Till(), Client(second)
    given = {"pay": till} if tools else None
    with turn_that_pays(first, session, till) as turn:
        before = session.messages
        with pytest.raises(PairingError, match="another turn on this session is running"):
            converse(second, session, "hi", given, client)
        assert session.messages == before
        assert client.bodies == []
        till.open.set()
        assert turn.result(LIMIT) == "done"
    assert till.ran == 2  # of the two calls, each once
    assert converse(second, session, "hi", given) == "hello"
    assert [message.role for message in session.messages] == [
        *("user", "assistant", "tool", "tool", "assistant"),
        *("user", "assistant"),
    ]


def test_tasks_of_one_loop_keep_to_their_own_calls() -> None:
    session, ran = session_of(client=Client("arespond")), list[str]()

    async def main() -> None:
        entered, go_on = anyio.Event(), anyio.Event()

        async def pay() -> str:
            ran.append("pay")
            entered.set()
            await go_on.wait()
            return "paid"

        async with anyio.create_task_group() as group:
            group.start_soon(lambda: session.arespond("pay", tools={"pay": pay}))
            await entered.wait()
            with pytest.raises(PairingError, match="is running the calls"):
                await session.arespond("hi", tools={"pay": pay})
            with pytest.raises(PairingError, match="is running the calls"):
                await session.arequest("hi")
            go_on.set()

    anyio.run(main)
    assert ran == ["pay", "pay"]
    assert session.messages[-1].text == "done"


def test_no_other_turn_comes_between_a_reply_and_its_tools() -> None:
    session, ran = session_of(client=Client("respond")), list[str]()
    tools = counting(ran)
    refused: list[str] = []

    def watch(seen: Observation) -> None:
        if seen.message is not None and seen.message.call_ids:
            with pytest.raises(PairingError, match=RUNNING[:-2]) as caught:
                session.respond("hi", tools=tools)
            refused.append(str(caught.value))

    assert session.respond("pay", tools=tools, on_observe=watch).text == "done"
    assert len(refused) == 1
    assert ran == ["pay", "pay"]


def test_a_tool_that_converses_on_its_own_session_is_refused_and_the_turn_goes_on() -> None:
    session = session_of(client=Client("respond"))
    tools: dict[str, Callable[..., Any]] = {}
    tools["pay"] = lambda: session.respond("hi", tools=tools).text
    assert session.respond("pay", tools=tools).text == "done"
    results = [result for message in session.messages for result in message.tool_results]
    assert [result.is_error for result in results] == [True, True]
    assert "fork" in str(results[0].content)


def test_a_fork_has_calls_of_its_own() -> None:
    session, till, forked = session_of(), Till(), list[str]()
    with turn_that_pays("respond", session, till) as turn:
        fork = session.fork()
        assert converse("respond", fork, None, counting(forked)) == "done"
        till.open.set()
        turn.result(LIMIT)
    assert (till.ran, forked) == (2, ["pay", "pay"])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_turn_that_died_in_a_tool_leaves_its_calls_to_the_next(
    way: str, error: type[BaseException]
) -> None:
    session = session_of()
    lock, ran = threading.Lock(), [0]

    def pay() -> str:
        with lock:
            ran[0] += 1
            first = ran[0] == 1
        if first:
            raise error
        return "paid"

    with pytest.raises(error):
        converse(way, session, "pay", {"pay": pay})
    with pytest.raises(PairingError, match="await results"):
        session.request()
    assert converse(way, session, None, {"pay": pay}) == "done"


def test_a_cancelled_turn_leaves_its_calls_to_the_next() -> None:
    session = session_of(client=Client("arespond"))

    async def main() -> str:
        entered = anyio.Event()

        async def hang() -> None:
            entered.set()
            await anyio.Event().wait()

        async with anyio.create_task_group() as group:
            group.start_soon(lambda: session.arespond("pay", tools={"pay": hang}))
            await entered.wait()
            group.cancel_scope.cancel()
        return str((await session.arespond(tools={"pay": lambda: "paid"})).text)

    assert anyio.run(main) == "done"


@pytest.mark.parametrize("way", WAYS)
def test_a_turn_that_may_take_no_further_request_leaves_its_calls(way: str) -> None:
    session = session_of()
    with pytest.raises(LoopError, match="still calls tools"):
        converse(way, session, "pay", {"pay": lambda: "paid"}, max_rounds=1)
    assert converse(way, session, None, {"pay": lambda: "paid"}) == "done"


def test_whoever_watches_and_raises_leaves_the_calls_open() -> None:
    session = session_of(client=Client("respond"))

    def watch(_: Observation) -> None:
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        session.respond("pay", tools={"pay": lambda: "paid"}, on_observe=watch)
    assert session.respond(tools={"pay": lambda: "paid"}).text == "done"


# Streams: nothing is held while the reader reads


@pytest.mark.parametrize("stop", ["tool_call", "tool_result"])
def test_a_stream_that_is_read_no_further_holds_nothing(stop: str) -> None:
    session, ran = session_of(), list[str]()
    tools = counting(ran)
    events = session.stream("pay", client=Client("stream"), tools=tools)
    assert next(event.kind for event in events if event.kind == stop) == stop
    assert converse("respond", session, None, tools) == "done"
    assert ran == ["pay", "pay"]


@pytest.mark.parametrize("stop", ["tool_call", "tool_result"])
def test_an_asynchronous_stream_that_is_read_no_further_holds_nothing(stop: str) -> None:
    session, ran = session_of(), list[str]()
    tools = counting(ran)

    async def main() -> str:
        events = session.astream("pay", client=Client("astream"), tools=tools)
        async for event in events:
            if event.kind == stop:
                break
        reply = await session.arespond(client=Client("arespond"), tools=tools)
        await events.aclose()  # type: ignore[attr-defined]  # an iterator that is a generator
        return str(reply.text)

    assert anyio.run(main) == "done"
    assert ran == ["pay", "pay"]


def test_a_stream_that_is_read_on_never_runs_what_another_turn_has_run() -> None:
    session, ran = session_of(), list[str]()
    tools = counting(ran)
    events = session.stream("pay", client=Client("stream"), tools=tools)
    assert next(event.kind for event in events if event.kind == "tool_result") == "tool_result"
    assert converse("respond", session, None, tools) == "done"
    list(events)
    assert ran == ["pay", "pay"]


def test_a_stream_that_is_read_on_while_another_turn_runs_its_calls_is_refused() -> None:
    session, till = session_of(), Till()
    events = session.stream("pay", client=Client("stream"), tools={"pay": till})
    assert next(event.kind for event in events if event.kind == "tool_call") == "tool_call"
    with ThreadPoolExecutor(1) as pool:
        try:
            turn = pool.submit(converse, "respond", session, None, {"pay": till})
            assert till.entered.wait(LIMIT)
            with pytest.raises(PairingError, match="is running the calls"):
                list(events)
        finally:
            till.open.set()
        assert turn.result(LIMIT) == "done"
    assert till.ran == 2


# A task for a fork


def test_a_task_cannot_come_while_calls_await_results() -> None:
    session = session_of()
    session.append([Message("user", "pay"), Message("assistant", [ToolCall("call_1", "pay", "{}")])])
    with pytest.raises(PairingError, match=r"this session awaits results of the calls \['call_1'\].*fork"):
        session.fork("worker", task="Count the parcels.")
    worker = session.fork("worker")
    worker.append([Message("tool", [ToolResult("call_1", "later")]), Message("user", "Count the parcels.")])
    assert converse("respond", worker, None, None) == "hello"
    assert len(session.messages) == 2
