"""Conversing: the tool loop, through real SDKs and through fakes, and what holds when something goes wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import anthropic
import anyio
import openai
import pytest
from tests.loopback import Failure, Said, loopback
from tests.scripted_session import MODELS, client_of

from llmbuffer import (
    FrozenError,
    Image,
    LLMBufferError,
    Message,
    Observation,
    Opaque,
    PairingError,
    Session,
    StableContext,
    Text,
    ToolCall,
    ToolResult,
)
from llmbuffer.errors import DialectError, LoopError
from llmbuffer.rules import Event

TOOLS = [{"name": name, "parameters": {"type": "object"}} for name in ("add", "look_up", "fail")]
WAYS = ["respond", "arespond", "stream", "astream"]
ADD = ("call_1", "add", '{"a": 1, "b": 2}')
LOOK = ("call_2", "look_up", '{"word": "tea"}')


def session_of(model: str = "gpt-5.5", **options: Any) -> Session:
    return Session(StableContext(model, "You are kind.", tools=TOOLS), MODELS.get(model, "openai"), **options)


@pytest.fixture(params=MODELS)
def session(request: pytest.FixtureRequest) -> Session:
    return session_of(request.param)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def executor() -> dict[str, Callable[..., Any]]:
    def fail(**arguments: Any) -> str:
        raise ValueError("no such thing")

    return {"add": lambda a, b: a + b, "look_up": lambda word: f"{word} is a drink", "fail": fail}


class Turn:
    """What a turn came to: the reply, and the events of a stream."""

    def __init__(self) -> None:
        self.reply: Message | None = None
        self.events: list[Event] = []

    def take(self, event: Event) -> None:
        self.events.append(event)
        if event.kind == "done":
            self.reply = event.value

    @property
    def kinds(self) -> list[str]:
        """The kinds of the events, runs of text as one."""
        kinds = [event.kind for event in self.events]
        return [
            kind
            for kind, before in zip(kinds, ["", *kinds], strict=False)
            if (kind, before) != ("text", "text")
        ]


def converse(
    way: str, session: Session, script: Iterable[Said | Failure], user: Any = "hi", **options: Any
) -> Turn:
    """One turn through the real SDK."""
    model = session.context.model
    with loopback(script) as server, client_of(model, server, asynchronous=way.startswith("a")) as client:
        if not way.startswith("a"):
            return take_turn(way, session, client, user, **options)

        async def turn() -> Turn:
            async with client:
                return await atake_turn(way, session, client, user, **options)

        return anyio.run(turn)


def arespond(session: Session, client: Any, tools: Any, user: Any = "go", **options: Any) -> Message:
    return anyio.run(partial(session.arespond, user, client=client, tools=tools, **options))


def any_turn(way: str, session: Session, client: Any) -> Turn:
    """One turn with a client of whatever kind."""
    if way.startswith("a"):
        return anyio.run(lambda: atake_turn(way, session, client, "hi"))
    return take_turn(way, session, client, "hi")


def take_turn(way: str, session: Session, client: Any, user: Any, **options: Any) -> Turn:
    turn = Turn()
    if way == "respond":
        turn.reply = session.respond(user, client=client, **options)
    else:
        for event in session.stream(user, client=client, **options):
            turn.take(event)
    return turn


async def atake_turn(way: str, session: Session, client: Any, user: Any, **options: Any) -> Turn:
    turn = Turn()
    if way == "arespond":
        turn.reply = await session.arespond(user, client=client, **options)
    else:
        async for event in session.astream(user, client=client, **options):
            turn.take(event)
    return turn


def fake(*replies: Any) -> Any:
    """A synchronous client of the openai dialect: replies are texts, lists of calls, exceptions or callables."""
    script = iter(replies)

    def create(**kwargs: Any) -> dict[str, Any]:
        return answer(next(script), kwargs)

    return SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))


def afake(*replies: Any) -> Any:
    script = iter(replies)

    async def create(**kwargs: Any) -> dict[str, Any]:
        reply = next(script)
        if callable(reply):
            reply = await reply()
        return answer(reply, kwargs)

    return SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))


def answer(reply: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    if callable(reply):
        reply = reply(kwargs)
    if isinstance(reply, Exception):
        raise reply
    if isinstance(reply, str):
        return {"choices": [{"message": {"role": "assistant", "content": reply}}]}
    calls = [
        each
        if isinstance(each, dict)
        else {"id": each[0], "type": "function", "function": {"name": each[1], "arguments": each[2]}}
        for each in reply
    ]
    return {"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": calls}}]}


def results_of(session: Session) -> list[ToolResult]:
    return [result for message in session.messages for result in message.tool_results]


def state_of(session: Session) -> tuple[Any, ...]:
    return session.tip, session.messages, len(session.ledger)


# The loop


def test_a_turn_runs_its_tools_and_ends_with_the_answer(way: str, session: Session) -> None:
    script = [
        Said("Let me see.", calls=(ADD, LOOK)),
        Said(calls=(("call_3", "add", '{"a": 3, "b": 3}'),)),
        Said("Done."),
    ]
    turn = converse(way, session, script, tools=executor())
    assert turn.reply == Message("assistant", "Done.")
    assert [message.role for message in session.messages] == [
        *("user", "assistant", "tool", "tool", "assistant", "tool", "assistant")
    ]
    assert [(result.call_id, result.content, result.is_error) for result in results_of(session)] == [
        ("call_1", "3", False),
        ("call_2", "tea is a drink", False),
        ("call_3", "6", False),
    ]
    assert session.ledger.requests == 3
    assert session.ledger.usage.input_tokens == 3 * 2400
    assert session.ledger.usage.cache_read_tokens == 3 * 2000
    assert session.ledger.usage.cache_write_tokens == 3 * 300
    assert session.ledger.usage.output_tokens == 3 * 7


def test_streams_tell_text_calls_results_and_last_the_reply(session: Session) -> None:
    for way in ("stream", "astream"):
        twin = session.fork()
        turn = converse(
            way, twin, [Said("Let me see.", calls=(ADD, LOOK)), Said("Done, thanks.")], tools=executor()
        )
        assert turn.kinds == ["text", "tool_call", "tool_call", "tool_result", "tool_result", "text", "done"]
        assert "".join(event.text for event in turn.events) == "Let me see.Done, thanks."
        calls = [event.value for event in turn.events if event.kind == "tool_call"]
        assert [(call.name, json.loads(call.arguments)) for call in calls] == [
            ("add", {"a": 1, "b": 2}),
            ("look_up", {"word": "tea"}),
        ]
        assert [event.value for event in turn.events if event.kind == "tool_result"] == results_of(twin)


def test_streamed_and_whole_replies_are_the_same_messages(session: Session) -> None:
    script = [
        Said(
            "Ünï→", calls=(("c", "look_up", '{"word": "é", "n": 1e2, "deep": {"z": [1, null], "a": "\\n"}}'),)
        ),
        Said("Aha."),
    ]
    twins = [session.fork() for _ in WAYS]
    for way, twin in zip(WAYS, twins, strict=True):
        converse(way, twin, script, tools=lambda name, arguments: arguments)
    assert all(twin.messages == twins[0].messages for twin in twins)
    assert all(twin.ledger.usage == twins[0].ledger.usage for twin in twins)


def test_without_tools_a_reply_with_calls_comes_back_as_it_is(way: str, session: Session) -> None:
    turn = converse(way, session, [Said(calls=(ADD,))])
    assert turn.reply is not None
    assert [call.name for call in turn.reply.tool_calls] == ["add"]
    session.append(Message("tool", [ToolResult("call_1", "3")]))
    assert converse(way, session, [Said("Three.")], None).reply == Message("assistant", "Three.")


def test_dynamic_text_stays_while_the_turn_lasts_and_goes_with_it(session: Session) -> None:
    seen: list[bytes] = []
    with (
        loopback([Said(calls=(ADD,)), Said("3"), Said("bye")]) as server,
        client_of(session.context.model, server) as client,
    ):
        session.respond("sum?", dynamic={"clock": "12:34"}, tools=executor(), client=client)
        session.respond("thanks", client=client)
        seen = server.bodies
    assert [b"12:34" in body for body in seen] == [True, True, False]


def test_one_callable_may_run_all_tools() -> None:
    asked: list[tuple[str, Any]] = []

    def run(name: str, arguments: dict[str, Any]) -> str:
        asked.append((name, arguments))
        return "done"

    session = session_of(client=fake([ADD, ("call_2", "look_up", "")], "ok"))
    session.respond("go", tools=run)
    assert asked == [("add", {"a": 1, "b": 2}), ("look_up", {})]


def test_params_go_with_every_request_of_the_turn() -> None:
    seen: list[Any] = []

    def note(reply: Any) -> Callable[[Any], Any]:
        def noted(kwargs: Any) -> Any:
            seen.append(kwargs["temperature"])
            return reply

        return noted

    session = session_of(client=fake(note([ADD]), note("ok")))
    session.respond("go", tools=executor(), params={"temperature": 0.5})
    assert seen == [0.5, 0.5]


def test_each_request_is_shown_to_on_observe() -> None:
    seen: list[Observation] = []
    session = session_of(client=fake([ADD], "ok"))
    session.respond("go", tools=executor(), on_observe=seen.append)
    assert [observation.forked for observation in seen] == [False, False]
    assert seen[-1].message == Message("assistant", "ok")


# What tools return


@dataclasses.dataclass
class Point:
    x: int
    at: dt.date


CONTENTS: list[tuple[Any, Any]] = [
    ("text", "text"),
    ("", ""),
    (None, "null"),
    (True, "true"),
    (1.5, "1.5"),
    ({"b": 1, "a": "é"}, '{"b":1,"a":"é"}'),
    ([1, [2]], "[1,[2]]"),
    (b"bytes \xff", "bytes \ufffd"),
    (Point(1, dt.date(2026, 11, 21)), '{"x":1,"at":"2026-11-21"}'),
    ({"b", "a", "c"}, '["a","b","c"]'),
    (float("inf"), "inf"),
    (Text("part"), (Text("part"),)),
    ([Text("a"), Text("b")], (Text("a"), Text("b"))),
    ([Text("a"), "b"], "["),
    (SimpleNamespace(a=1), "namespace(a=1)"),
]


@pytest.mark.parametrize(("returned", "content"), CONTENTS, ids=[repr(value)[:24] for value, _ in CONTENTS])
def test_whatever_a_tool_returns_becomes_a_result(returned: Any, content: Any) -> None:
    session = session_of(client=fake([ADD], "ok"))
    session.respond("go", tools={"add": lambda a, b: returned})
    (result,) = results_of(session)
    assert not result.is_error
    if content == "[":
        assert str(result.content).startswith("[")
    else:
        assert result.content == content


def test_a_tool_may_say_itself_that_it_failed() -> None:
    session = session_of(client=fake([ADD], "ok"))
    session.respond("go", tools={"add": lambda a, b: ToolResult("whatever", "out of ink", is_error=True)})
    assert results_of(session) == [ToolResult("call_1", "out of ink", is_error=True)]


UNSENDABLE = {
    "a lone surrogate": "\ud800",
    "too much": "x" * (33 * 2**20),
    "an opaque part of another provider": Opaque.of("gemini", {"a": 1}),
}


@pytest.mark.parametrize("what", UNSENDABLE)
def test_what_no_message_can_hold_becomes_an_error_result(way: str, what: str) -> None:
    session = session_of()
    converse(
        way,
        session,
        [Said(calls=(ADD, LOOK)), Said("ok")],
        tools={**executor(), "add": lambda a, b: UNSENDABLE[what]},
    )
    first, second = results_of(session)
    assert first.is_error
    assert "cannot be sent" in str(first.content)
    assert second.content == "tea is a drink"


def test_images_come_back_from_tools_where_the_wire_takes_them() -> None:
    session = session_of("claude-sonnet-5.5")
    converse(
        "respond",
        session,
        [Said(calls=(ADD,)), Said("ok")],
        tools={"add": lambda a, b: Image("https://x.y/z.png")},
    )
    assert results_of(session)[0].content == (Image("https://x.y/z.png"),)


# What goes wrong in a call, and is told to the model


def test_a_tool_that_raises_gives_the_model_an_error_result(way: str, session: Session) -> None:
    script = [Said(calls=(("call_1", "fail", "{}"), LOOK)), Said("Sorry.")]
    turn = converse(way, session, script, tools=executor())
    assert turn.reply == Message("assistant", "Sorry.")
    assert results_of(session) == [
        ToolResult("call_1", "ValueError: no such thing", is_error=True),
        ToolResult("call_2", "tea is a drink"),
    ]


def test_text_of_an_error_that_utf8_cannot_carry_is_replaced(way: str) -> None:
    def fail(a: int, b: int) -> str:
        raise OSError("caf\udce9")

    session = session_of()
    converse(way, session, [Said(calls=(ADD,)), Said("ok")], tools={"add": fail})
    assert results_of(session)[0].content == "OSError: caf?"


REFUSED = {
    "unknown tool": ("rm", '{"path": "/"}', "unknown tool 'rm'"),
    "not in the context, though it could run": ("hidden", "{}", "unknown tool 'hidden'"),
    "in the context, though nothing can run it": ("look_up", "{}", "cannot be used"),
    "broken": ("add", '{"a": 1', "not JSON"),
    "a list": ("add", "[1, 2]", "JSON list"),
    "a string": ("add", '"1, 2"', "JSON str"),
    "null": ("add", "null", "JSON NoneType"),
    "not a number": ("add", '{"a": NaN, "b": 1}', "NaN"),
    "deep": ("add", "[" * 100_000, "not JSON"),
    "two objects": ("add", "{}{}", "not JSON"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_calls_that_make_no_sense_are_answered_and_never_run(what: str) -> None:
    name, arguments, expected = REFUSED[what]
    ran: list[Any] = []

    def note(*args: Any, **kwargs: Any) -> str:
        ran.append((args, kwargs))
        return "ran"

    tools = {"add": note, "hidden": note}
    for asynchronous in (False, True):
        session = session_of()
        if asynchronous:
            arespond(session, afake([("c", name, arguments)], "ok"), tools)
        else:
            session.respond("go", client=fake([("c", name, arguments)], "ok"), tools=tools)
        (result,) = results_of(session)
        assert result.is_error
        assert expected in str(result.content)
        assert "nothing was run" in str(result.content)
    assert ran == []


def test_a_call_with_other_arguments_than_the_tool_takes_is_an_error_result() -> None:
    session = session_of(client=fake([("c", "add", '{"x": 1}')], "ok"))
    session.respond("go", tools=executor())
    assert str(results_of(session)[0].content).startswith("TypeError: ")


@pytest.mark.parametrize("way", ["stream", "astream"])
@pytest.mark.parametrize("arguments", ['{"a": 1, "b"', "[1]", '{"a": "\\ud800"}'])
def test_input_that_anthropic_streams_broken_is_told_and_never_run(way: str, arguments: str) -> None:
    session = session_of("claude-sonnet-5.5")
    ran: list[Any] = []
    script = [Said(calls=(("c", "add", arguments),)), Said("Again.")]
    converse(way, session, script, tools=lambda name, arguments: ran.append(name))
    assert ran == []
    assert session.messages[1].tool_calls[0].arguments == json.dumps({"INVALID_JSON": arguments})
    assert results_of(session)[0].is_error


def test_two_calls_of_one_id_get_an_answer_each(way: str) -> None:
    session = session_of()
    twice = (("", "add", '{"a": 1, "b": 1}'), ("", "add", '{"a": 2, "b": 2}'))
    converse(way, session, [Said(calls=twice), Said("ok")], tools=executor())
    assert [result.content for result in results_of(session)] == ["2", "4"]


def test_a_providers_own_kinds_of_call_run_too() -> None:
    custom = {"type": "custom", "custom": {"name": "shell"}}
    session = Session(StableContext("gpt-5.5", tools=[custom, *TOOLS]))
    own = {"id": "c1", "type": "custom", "custom": {"name": "shell", "input": 'echo "hi"'}}
    signed = {
        "id": "c2",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a": 1, "b": 1}', "signature": "s"},
    }
    strange = {"id": "c3", "type": "lottery"}
    tools = {**executor(), "shell": lambda input: f"ran {input}"}  # noqa: A006 - the argument's name is the provider's
    session.respond("go", client=fake([own, signed, strange], "ok"), tools=tools)
    assert [result.content for result in results_of(session)[:2]] == ['ran echo "hi"', "2"]
    assert "unknown tool 'lottery'" in str(results_of(session)[2].content)
    assert session.messages[1].to_openai()["tool_calls"] == [own, signed, strange]


# At the same time


def test_asynchronous_tools_of_one_reply_run_at_the_same_time_and_answer_in_order() -> None:
    async def main() -> Session:
        session, met = session_of(), anyio.Event()

        async def add(a: int, b: int) -> str:
            await met.wait()  # for ever, if the other tool had to wait for this one
            return "first call, last to end"

        async def look_up(word: str) -> str:
            met.set()
            return "second call, first to end"

        tools: dict[str, Callable[..., Any]] = {"add": add, "look_up": look_up}
        await session.arespond("go", client=afake([ADD, LOOK], "ok"), tools=tools)
        return session

    assert [result.call_id for result in results_of(anyio.run(main))] == ["call_1", "call_2"]


def test_synchronous_tools_run_in_threads_at_the_same_time() -> None:
    barrier, here = threading.Barrier(2, timeout=20), threading.get_ident()

    def meet(**arguments: Any) -> bool:
        barrier.wait()
        return threading.get_ident() != here

    session = session_of()
    arespond(session, afake([ADD, LOOK], "ok"), {"add": meet, "look_up": meet})
    assert [result.content for result in results_of(session)] == ["true", "true"]


def test_an_object_that_is_called_and_awaited_is_a_tool_too() -> None:
    class Adder:
        async def __call__(self, a: int, b: int) -> int:
            return a + b

    session = session_of()
    arespond(session, afake([ADD], "ok"), {"add": Adder()})
    assert results_of(session)[0].content == "3"


def test_a_tool_that_takes_too_long_is_an_error_result() -> None:
    released = threading.Event()

    async def wait_for_ever(word: str) -> None:
        await anyio.Event().wait()

    def wait_in_a_thread(a: int, b: int) -> None:
        released.wait(20)

    session = session_of()
    tools = {"look_up": wait_for_ever, "add": wait_in_a_thread}
    arespond(session, afake([ADD, LOOK], "ok"), tools, timeout=0.01)
    released.set()
    assert [result.is_error for result in results_of(session)] == [True, True]
    assert "took longer than 0.01 seconds" in str(results_of(session)[0].content)
    assert session.messages[-1].text == "ok"


def test_a_tool_that_cancels_itself_is_an_error_result() -> None:
    async def give_up(a: int, b: int) -> None:
        raise asyncio.CancelledError

    session = session_of()
    arespond(session, afake([ADD, LOOK], "ok"), {**executor(), "add": give_up})
    assert [result.is_error for result in results_of(session)] == [True, False]
    assert session.messages[-1].text == "ok"


# Interrupted


def test_interrupted_between_two_tools_nothing_is_lost_and_nothing_runs_twice() -> None:
    ran: list[str] = []

    def add(a: int, b: int) -> int:
        ran.append("add")
        return a + b

    def look_up(word: str) -> str:
        ran.append("look_up")
        if ran.count("look_up") == 1:
            raise KeyboardInterrupt
        return word

    session = session_of()
    tools: dict[str, Callable[..., Any]] = {"add": add, "look_up": look_up}
    with pytest.raises(KeyboardInterrupt):
        session.respond("go", client=fake([ADD, LOOK]), tools=tools)
    assert [result.call_id for result in results_of(session)] == ["call_1"]
    with pytest.raises(PairingError, match="call_2"):
        session.request()
    assert session.respond(client=fake("ok"), tools=tools).text == "ok"
    assert ran == ["add", "look_up", "look_up"]
    assert [message.role for message in session.messages] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]


def test_open_calls_may_be_answered_by_hand_instead() -> None:
    def interrupt(a: int, b: int) -> None:
        raise KeyboardInterrupt

    session = session_of()
    with pytest.raises(KeyboardInterrupt):
        session.respond("go", client=fake([ADD, LOOK]), tools={"add": interrupt})
    session.append(
        [Message("tool", [ToolResult(call, "stopped by the user")]) for call in ("call_1", "call_2")]
    )
    assert session.respond("what now?", client=fake("ok"), tools={}).text == "ok"


def test_new_words_come_behind_the_results_of_open_calls() -> None:
    session = session_of(client=fake([ADD], "ok"))
    session.respond("go")
    assert take_turn("stream", session, StreamingFake("ok"), "and now?", tools=executor()).kinds == [
        *("tool_result", "text", "done")
    ]
    assert [message.role for message in session.messages] == [
        "user",
        "assistant",
        "tool",
        "user",
        "assistant",
    ]


class StreamingFake:
    """A synchronous client of the openai dialect whose stream is a generator."""

    def __init__(self, text: str, *, finish: str | None = "stop") -> None:
        self.closed = False
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self.create))
        self._text, self._finish = text, finish

    def create(self, **kwargs: Any) -> StreamingFake:
        assert kwargs["stream"] is True
        return self

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for piece in self._text:
            yield {"choices": [{"index": 0, "delta": {"content": piece}}]}
        yield {"choices": [{"index": 0, "delta": {}, "finish_reason": self._finish}]}

    def __enter__(self) -> Iterator[dict[str, Any]]:
        return iter(self)

    def __exit__(self, *_: object) -> None:
        self.closed = True


def test_an_asynchronous_tool_that_interrupts_comes_out_as_it_is() -> None:
    async def main() -> Session:
        session, done = session_of(), anyio.Event()

        async def add(a: int, b: int) -> int:
            done.set()
            return a + b

        async def look_up(word: str) -> None:
            await done.wait()
            raise KeyboardInterrupt("enough")

        with pytest.raises(KeyboardInterrupt, match="enough"):
            await session.arespond("go", client=afake([ADD, LOOK]), tools={"add": add, "look_up": look_up})
        return session

    session = anyio.run(main)
    assert results_of(session) == [ToolResult("call_1", "3")]
    assert session.respond(client=fake("ok"), tools=executor()).text == "ok"


@pytest.mark.parametrize("way", ["arespond", "astream"])
def test_cancelled_while_tools_run_the_session_holds_what_was_done(way: str) -> None:
    session = session_of()

    async def main() -> None:
        finished, waiting = anyio.Event(), anyio.Event()

        async def add(a: int, b: int) -> int:
            finished.set()
            return a + b

        async def look_up(word: str) -> None:
            waiting.set()
            await anyio.Event().wait()

        with (
            loopback([Said(calls=(ADD, LOOK))]) as server,
            client_of("gpt-5.5", server, asynchronous=True) as client,
        ):
            async with client, anyio.create_task_group() as group:
                group.start_soon(
                    lambda: atake_turn(way, session, client, "go", tools={"add": add, "look_up": look_up})
                )
                await finished.wait()
                await waiting.wait()
                group.cancel_scope.cancel()

    anyio.run(main)
    assert [message.role for message in session.messages] == ["user", "assistant", "tool"]
    assert converse(way, session, [Said("ok")], None, tools=executor()).reply == Message("assistant", "ok")
    assert [result.call_id for result in results_of(session)] == ["call_1", "call_2"]


def test_cancelled_while_a_request_is_under_way_the_session_is_as_it_was() -> None:
    async def main() -> Session:
        session, sent = session_of(), anyio.Event()
        before = state_of(session)

        async def hang() -> str:
            sent.set()
            await anyio.Event().wait()
            return "never"

        async with anyio.create_task_group() as group:
            group.start_soon(lambda: session.arespond("go", client=afake(hang)))
            await sent.wait()
            group.cancel_scope.cancel()
        assert state_of(session) == before
        return session

    session = anyio.run(main)
    assert session.respond("go", client=fake("ok")).text == "ok"


def test_asyncio_s_own_cancellation_does_the_same() -> None:
    async def main() -> Session:
        session, started = session_of(), asyncio.Event()

        async def add(a: int, b: int) -> None:
            started.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(
            session.arespond("go", client=afake([ADD, LOOK]), tools={**executor(), "add": add})
        )
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return session

    session = asyncio.run(main())
    assert session.respond(client=fake("ok"), tools=executor()).text == "ok"
    assert sorted(result.call_id for result in results_of(session)) == ["call_1", "call_2"]


# Streams


def test_text_comes_while_the_model_still_writes(session: Session) -> None:
    with (
        loopback([Said("Hello there.", held=True)]) as server,
        client_of(session.context.model, server) as client,
    ):
        events = session.stream("hi", client=client)
        assert next(events).text == "Hel"
        assert not server.released.is_set()
        server.released.set()
        assert [event.kind for event in events][-1] == "done"


def test_whoever_stops_reading_leaves_the_session_as_it_was(session: Session) -> None:
    before = state_of(session)
    with loopback([Said("Hello there.", held=True)] * 2) as server:
        with client_of(session.context.model, server) as client:
            events = session.stream("hi", client=client)
            next(events)
            events.close()  # type: ignore[attr-defined]  # an iterator that is a generator
        assert state_of(session) == before

        async def main() -> None:
            with client_of(session.context.model, server, asynchronous=True) as client:
                async with client:
                    events = session.astream("hi", client=client)
                    async for _ in events:
                        break
                    await events.aclose()  # type: ignore[attr-defined]  # an iterator that is a generator

        anyio.run(main)
    assert state_of(session) == before


def test_stopping_after_a_call_was_told_leaves_it_open(session: Session) -> None:
    with (
        loopback([Said(calls=(ADD,)), Said("ok")]) as server,
        client_of(session.context.model, server) as client,
    ):
        for event in session.stream("hi", client=client, tools=executor()):
            if event.kind == "tool_call":
                break
        assert results_of(session) == []
        assert session.respond(client=client, tools=executor()).text == "ok"


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_half_a_stream_is_no_reply(way: str, session: Session) -> None:
    before = state_of(session)
    with pytest.raises(DialectError, match="ended before the reply did"):
        converse(way, session, [Said("Half a", truncated=True)])
    assert state_of(session) == before
    assert converse(way, session, [Said("whole")]).reply == Message("assistant", "whole")


def test_the_connection_of_a_stream_is_closed() -> None:
    client = StreamingFake("ok")
    list(session_of().stream("hi", client=client))
    assert client.closed
    client = StreamingFake("ok")
    events = session_of().stream("hi", client=client)
    next(events)
    events.close()  # type: ignore[attr-defined]  # an iterator that is a generator
    assert client.closed


def test_a_dialect_whose_stream_has_no_end_is_an_error() -> None:
    session = session_of()
    silent = SimpleNamespace(
        **{name: getattr(session.dialect, name) for name in dir(session.dialect) if name[:2] != "__"}
    )
    silent.bind = lambda model: silent
    silent.stream = lambda client, kwargs: iter([Event("text", text="hi")])
    silent.astream = lambda client, kwargs: forth(Event("text", text="hi"))
    for way in ("stream", "astream"):
        odd = Session(StableContext("gpt-5.5"), silent, client=object())
        with pytest.raises(DialectError, match="without a 'done' event"):
            any_turn(way, odd, object())
        assert odd.messages == ()


async def forth(*events: Event) -> Any:
    for event in events:
        yield event


# What ends a turn


def test_errors_of_the_sdk_pass_through_and_the_session_stays(way: str, session: Session) -> None:
    module = openai if session.dialect.name == "openai" else anthropic
    before = state_of(session)
    with pytest.raises(module.RateLimitError, match="slow down"):
        converse(way, session, [Failure(429, "slow down")], tools=executor())
    assert state_of(session) == before
    with pytest.raises(module.InternalServerError):
        converse(way, session, [Said(calls=(ADD,)), Failure(500)], tools=executor())
    assert [message.role for message in session.messages] == ["user", "assistant", "tool"]
    assert converse(way, session, [Said("ok")], None, tools=executor()).reply == Message("assistant", "ok")


def test_a_model_that_never_stops_calling_is_stopped(way: str, session: Session) -> None:
    script = [Said(calls=((f"call_{number}", "add", '{"a": 1, "b": 2}'),)) for number in range(3)]
    with pytest.raises(LoopError, match="after 3 requests"):
        converse(way, session, script, tools=executor(), max_rounds=3)
    assert session.ledger.requests == 3
    assert len(results_of(session)) == 2
    assert converse(way, session, [Said("At last.")], None, tools=executor()).reply == Message(
        "assistant", "At last."
    )
    assert len(results_of(session)) == 3


def test_a_response_that_cannot_be_read_changes_nothing() -> None:
    session = session_of(client=fake(lambda kwargs: RuntimeError("down"), "ok"))
    before = state_of(session)
    with pytest.raises(RuntimeError, match="down"):
        session.respond("hi")
    odd = SimpleNamespace(
        chat=SimpleNamespace(completions=SimpleNamespace(create=lambda **kwargs: {"error": "?"}))
    )
    with pytest.raises(DialectError, match="no choices"):
        session.respond("hi", client=odd)
    assert state_of(session) == before


def test_a_turn_whose_session_moved_on_goes_on_in_a_fork(caplog: pytest.LogCaptureFixture) -> None:
    session = session_of()
    seen: list[Observation] = []

    def meanwhile(kwargs: Any) -> Any:
        session.append([Message("user", "me first"), Message("assistant", "yes?")])
        return [ADD]

    with caplog.at_level(logging.WARNING, logger="llmbuffer.loop"):
        reply = session.respond("go", client=fake(meanwhile, "ok"), tools=executor(), on_observe=seen.append)
    assert reply.text == "ok"
    assert [message.text for message in session.messages] == ["me first", "yes?"]
    fork = seen[-1].session
    assert [message.role for message in fork.messages] == ["user", "assistant", "tool", "assistant"]
    assert [observation.forked for observation in seen] == [True, False]
    assert "had moved on" in caplog.text
    assert fork.id in caplog.text


def test_a_call_that_somebody_else_answered_meanwhile_is_an_error() -> None:
    session = session_of()

    def add(a: int, b: int) -> int:
        session.append(Message("tool", [ToolResult("call_1", "from elsewhere")]))
        return a + b

    with pytest.raises(PairingError, match="nobody awaits"):
        session.respond("go", client=fake([ADD]), tools={"add": add})
    assert results_of(session) == [ToolResult("call_1", "from elsewhere")]


# What cannot begin


def test_a_client_is_needed(way: str) -> None:
    session = session_of()
    with pytest.raises(LoopError, match="no client"):
        any_turn(way, session, None)


def test_streams_refuse_at_once_not_when_they_are_read() -> None:
    with pytest.raises(LoopError):
        session_of().stream("hi")
    with pytest.raises(LoopError):
        session_of().astream("hi")


def test_the_wrong_kind_of_client_is_refused_before_anything_is_sent(way: str, session: Session) -> None:
    with (
        loopback() as server,
        client_of(session.context.model, server, asynchronous=not way.startswith("a")) as client,
    ):
        with pytest.raises(LoopError, match="only"):
            any_turn(way, session, client)
        assert server.bodies == []
        if not way.startswith("a"):
            anyio.run(client.close)
    assert session.messages == ()


def test_a_coroutine_where_a_response_was_expected_is_refused() -> None:
    session = session_of(client=afake("never read"))
    with pytest.raises(LoopError, match="asynchronous"):
        session.respond("hi")
    assert session.messages == ()


def test_another_sdks_client_is_refused(way: str) -> None:
    session = session_of("gpt-5.5")
    with (
        loopback() as server,
        client_of("claude-sonnet-5.5", server, asynchronous=way.startswith("a")) as client,
    ):
        with pytest.raises(DialectError, match=r"no 'chat\.completions'"):
            any_turn(way, session, client)
        if way.startswith("a"):
            anyio.run(client.close)
    assert session.messages == ()


async def acall(**arguments: Any) -> str:
    return "awaited"


def test_asynchronous_tools_need_an_asynchronous_turn() -> None:
    session = session_of()
    with pytest.raises(LoopError, match="'add' is asynchronous"):
        session.respond("go", client=fake(), tools={"add": acall})
    assert not session.messages
    with pytest.raises(LoopError, match="'add' is asynchronous"):
        session.respond("go", client=fake([ADD]), tools={"add": lambda a, b: acall()})
    assert [message.role for message in session.messages] == ["user", "assistant"]
    assert arespond(session, afake("ok"), {"add": acall}, None).text == "ok"


NONSENSE: dict[str, dict[str, Any]] = {
    "tools that cannot be called": {"tools": {"add": "a + b"}},
    "tools that are none": {"tools": 3},
    "no rounds": {"max_rounds": 0},
    "a stream in the params": {"params": {"stream": True}},
    "params of the session's own": {"params": {"messages": []}},
    "params that are none": {"params": [1]},
    "dynamic text that is none": {"dynamic": "12:00"},
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_refused_before_anything_is_sent(what: str) -> None:
    session = session_of(client=fake(AssertionError("sent")))
    with pytest.raises(LLMBufferError):
        session.respond("hi", **NONSENSE[what])
    assert session.messages == ()


def test_options_that_do_not_exist_are_an_error() -> None:
    with pytest.raises(TypeError, match="max_turns"):
        session_of(client=fake()).respond("hi", max_turns=3)


def test_params_that_are_frozen_are_refused_before_anything_is_sent() -> None:
    session = session_of(client=fake("ok", AssertionError("sent")))
    session.respond("hi")
    before = state_of(session)
    with pytest.raises(FrozenError):
        session.respond("again", params={"reasoning_effort": "high"})
    assert state_of(session) == before


def test_calls_are_found_again_after_a_fork() -> None:
    session = session_of(client=fake([ADD]))
    session.respond("go")
    worker = session.fork("worker")
    worker.client = fake("ok")
    assert worker.respond(tools=executor()).text == "ok"
    assert session.messages[-1].tool_calls == (ToolCall(*ADD),)
