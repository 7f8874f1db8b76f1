"""Hooks while they are at work: summaries that are awaited, sessions that hooks use themselves, interrupts, and copies."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from llmbuffer import Message, Session, StableContext, ToolCall, ToolResult, Usage
from llmbuffer.compaction import (
    Budget,
    ClipToolOutput,
    Compaction,
    CompactionWarning,
    ElideToolResults,
    Horizon,
    Summarizer,
    Truncator,
)
from llmbuffer.errors import HookError
from llmbuffer.testing import FakeClock
from llmbuffer.tokens import EstimateCounter

TOOLS = [{"name": "look", "parameters": {"type": "object"}}]
LONG = "Found it. " + "so. " * 400
CALL = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
LONE = "a\ud800"


def session_of(*hooks: Any, max_tokens: int = 1_000_000, client: Any = None, **options: Any) -> Session:
    return Session(
        StableContext("gpt-5.5", "You are kind.", TOOLS),
        tokens=EstimateCounter(),
        clock=FakeClock(),
        client=client,
        compaction=Compaction(max_tokens, hooks=hooks, **{"time_limit": 20.0, **options}),
    )


def asked(session: Session) -> Session:
    """A session whose one call awaits its result."""
    session.append([Message("user", "Look."), Message("assistant", [ToolCall("c", "look", "{}")])])
    return session


def found(name: str = "c") -> Message:
    return Message("tool", [ToolResult(name, LONG)])


def results(session: Session) -> list[str]:
    return [str(part.content) for message in session.messages for part in message.tool_results]


def response(body: Any) -> dict[str, Any]:
    """Calls the tool when a user has spoken, and answers behind its result."""
    calls = body["messages"][-1]["role"] == "user" and "Look" in str(body["messages"][-1])
    said = {"content": None, "tool_calls": [CALL]} if calls else {"content": "Here."}
    return {"choices": [{"message": {"role": "assistant", **said}}]}


def client_of(create: Callable[..., Any]) -> Any:
    return SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))


def client() -> Any:
    return client_of(lambda **body: response(body))


def async_client() -> Any:
    async def create(**body: Any) -> Any:
        return response(body)

    return client_of(create)


def talked(session: Session, turns: int = 30) -> Session:
    for number in range(turns):
        session.append(
            [
                Message("user", f"Question {number}"),
                Message("assistant", f"Answer {number} " + "thus " * 100),
            ]
        )
    return session


# Summaries that have to be awaited


async def short(messages: Sequence[Message]) -> str:
    await anyio.lowlevel.checkpoint()
    return "It says so."


def test_append_keeps_what_only_a_task_could_shorten() -> None:
    session = asked(session_of(Summarizer(short, 100, moment="commit")))
    with pytest.warns(CompactionWarning, match="has to be awaited"):
        session.append(found())
    assert results(session) == [LONG]
    assert [entry.kind for entry in session.ledger] == ["hook-refused"]


def test_append_raises_an_error_of_ours_where_hooks_are_strict() -> None:
    session = asked(session_of(Summarizer(short, 100, moment="commit"), strict=True))
    with pytest.raises(HookError, match="has to be awaited"):
        session.append(found())
    assert len(session.messages) == 2


def test_a_task_awaits_the_summary_of_a_result() -> None:
    ran: list[int] = []
    session = session_of(Summarizer(short, 100, moment="commit"), strict=True, client=async_client())

    def look() -> str:
        ran.append(1)
        return LONG

    async def converse() -> Message:
        return await session.arespond("Look.", tools={"look": look})

    assert anyio.run(converse).text == "Here."
    assert ran == [1]
    (content,) = results(session)
    assert content.endswith("It says so.")
    original = session.original(content.split('"')[1])
    assert isinstance(original, Message)
    assert original.tool_results[0].content == LONG


def test_a_result_whose_summary_fails_enters_as_it_is() -> None:
    async def fails(messages: Sequence[Message]) -> str:
        raise ValueError("a secret")

    session = session_of(Summarizer(fails, 100, moment="commit"), client=async_client())
    with pytest.warns(CompactionWarning, match="it raised ValueError"):
        asyncio.run(session.arespond("Look.", tools={"look": lambda: LONG}))
    assert results(session) == [LONG]
    assert "secret" not in str([entry.reason for entry in session.ledger])


def test_a_users_message_with_results_is_shortened_by_a_request_that_awaits() -> None:
    session = asked(session_of(Summarizer(short, 100, moment="commit"), strict=True))
    request = asyncio.run(session.arequest(found()))
    assert "It says so." in str(request.body["messages"][-1]["content"])


def test_cancelled_while_a_summary_is_awaited_the_results_are_kept() -> None:
    async def main() -> Session:
        begun = asyncio.Event()

        async def never(messages: Sequence[Message]) -> str:
            begun.set()
            await asyncio.Event().wait()
            return ""

        hooks = (ClipToolOutput(200), Summarizer(never, 100, moment="commit"))
        session = session_of(*hooks, client=async_client(), strict=True)
        task = asyncio.create_task(session.arespond("Look.", tools={"look": lambda: LONG}))
        with anyio.fail_after(20):
            await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return session

    session = asyncio.run(main())
    (content,) = results(session)
    assert content.startswith("Found it.")
    assert "were cut here" in content, "what does not take long is done all the same"
    assert session.request().body["messages"][-1]["role"] == "tool"


# What cannot be encoded


def lone_text(messages: Sequence[Message], budget: Budget) -> Sequence[Message]:
    return [messages[0], Message("assistant", LONE), *messages[-2:]]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("hook", [Summarizer(lambda _: LONE, 100), lone_text], ids=["summary", "own"])
def test_a_history_with_a_lone_surrogate_is_refused(hook: Any, strict: bool) -> None:
    session = talked(session_of(hook, max_tokens=3_000, strict=strict))
    before = session.messages
    with pytest.raises(HookError) if strict else pytest.warns(CompactionWarning, match="lone surrogate"):
        session.request("And now?")
    assert session.messages == before
    assert {entry.kind for entry in session.ledger} == {"hook-refused"}


class LoneResult:
    moment = "commit"

    def __call__(self, messages: list[Message], budget: Budget) -> list[Message]:
        return [Message("tool", [ToolResult("c", LONE)])]


@pytest.mark.parametrize(
    "hook", [Summarizer(lambda _: LONE, 100, moment="commit"), LoneResult()], ids=["summary", "own"]
)
def test_a_result_with_a_lone_surrogate_is_refused(hook: Any) -> None:
    session = asked(session_of(hook))
    with pytest.warns(CompactionWarning, match="lone surrogate"):
        session.append(found())
    assert results(session) == [LONG]


# Interrupts


class Interrupted(ElideToolResults):
    """A hook of this package during which Ctrl-C is pressed once."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        super().__init__(keep_last=1)
        self.left = 1

    def __call__(self, messages: Sequence[Message], budget: Budget) -> Sequence[Message]:
        if self.left:
            self.left = 0
            raise KeyboardInterrupt
        return super().__call__(messages, budget)


def interrupted_in_a_thread() -> Any:
    times = iter([1])

    def hook(messages: list[Message], budget: Budget) -> list[Message]:
        if next(times, 0):
            raise KeyboardInterrupt
        return [messages[0], *messages[-4:]]

    return hook


@pytest.mark.parametrize("make", [Interrupted, interrupted_in_a_thread])
def test_an_interrupt_goes_through_and_the_session_goes_on(make: Callable[[], Any]) -> None:
    session = session_of(make(), max_tokens=3_000)
    for number in range(10):
        call = Message("assistant", [ToolCall(f"c{number}", "look", "{}")])
        session.append([Message("user", "Look."), call, found(f"c{number}"), Message("assistant", "Here.")])
    before = session.messages
    with pytest.raises(KeyboardInterrupt):
        session.request("And now?")
    assert (session.messages, list(session.ledger)) == (before, [])
    request = session.request("And now?")
    assert request.placed.compacted is not None
    assert not request.observe(Usage(100, 1), Message("assistant", "So.")).forked


# Hooks that use the session


def test_a_hook_at_commit_time_may_fork_the_session() -> None:
    forks: list[Session] = []

    def summarize(messages: Sequence[Message]) -> str:
        forks.append(session.fork())
        return "Short."

    session = asked(session_of(Summarizer(summarize, 100, moment="commit"), strict=True))
    session.append(found())
    assert results(session)[0].endswith("Short.")
    assert [len(fork.messages) for fork in forks] == [2]


def test_while_a_hook_at_commit_time_waits_others_use_the_session() -> None:
    begun, forked = threading.Event(), threading.Event()

    def summarize(messages: Sequence[Message]) -> str:
        begun.set()
        assert forked.wait(20)
        return "Short."

    session = asked(session_of(Summarizer(summarize, 100, moment="commit"), strict=True))
    appending = threading.Thread(target=session.append, args=(found(),))
    appending.start()
    assert begun.wait(20)
    fork = session.fork()
    forked.set()
    appending.join(20)
    assert results(session)[0].endswith("Short.")
    assert len(fork.messages) == 2


def test_while_a_hook_at_commit_time_waits_the_event_loop_goes_on() -> None:
    told: list[Callable[[], object]] = []
    released = threading.Event()

    def summarize(messages: Sequence[Message]) -> str:
        told[0]()
        assert released.wait(5), "the loop stood still"
        return "Short."

    session = session_of(
        Summarizer(summarize, 100, moment="commit"), strict=True, client=async_client(), time_limit=10.0
    )

    async def main() -> None:
        begun, loop = asyncio.Event(), asyncio.get_running_loop()
        told.append(lambda: loop.call_soon_threadsafe(begun.set))

        async def release() -> None:
            await begun.wait()
            released.set()

        async with anyio.create_task_group() as group:
            group.start_soon(release)
            await session.arespond("Look.", tools={"look": lambda: LONG})

    asyncio.run(main())
    assert results(session)[0].endswith("Short.")


def test_a_summary_by_a_fork_of_the_session_does_not_compact_the_fork() -> None:
    asks: list[int] = []

    def summarize(messages: Sequence[Message]) -> str:
        asks.append(len(messages))
        assert len(asks) == 1, "it called itself"
        fork = session.fork("summary")
        preview = fork.compaction_preview()
        assert (preview.compact, preview.why) == (False, "one of the hooks is at work")
        assert fork.compact().compact is False
        return fork.respond("Sum up.").text

    session = talked(session_of(Summarizer(summarize, 100), max_tokens=3_000, strict=True, client=client()))
    request = session.request("And now?")
    assert request.placed.compacted is not None
    assert len(asks) == 1


def test_an_awaited_summary_by_a_fork_does_not_compact_the_fork() -> None:
    asks: list[int] = []

    async def summarize(messages: Sequence[Message]) -> str:
        asks.append(len(messages))
        assert len(asks) == 1, "it called itself"
        return (await session.fork("summary").arespond("Sum up.")).text

    session = talked(
        session_of(Summarizer(summarize, 100), max_tokens=3_000, strict=True, client=async_client())
    )
    request = asyncio.run(session.arequest("And now?"))
    assert request.placed.compacted is not None
    assert len(asks) == 1


def test_another_session_that_a_hook_uses_is_compacted_as_ever() -> None:
    made: list[bool] = []
    helper = talked(session_of(Truncator(), max_tokens=3_000))

    def summarize(messages: Sequence[Message]) -> str:
        made.append(helper.request("Sum up.").placed.compacted is not None)
        return "Short."

    session = talked(session_of(Summarizer(summarize, 100), max_tokens=3_000, strict=True))
    assert session.request("And now?").placed.compacted is not None
    assert made == [True]


# Copies


def own_hook(messages: list[Message], budget: Budget) -> list[Message]:
    return messages


def told(messages: Sequence[Message]) -> str:
    return "Short."


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_a_compaction_can_be_copied(copied: Callable[[Compaction], Compaction]) -> None:
    hooks: list[Any] = [ClipToolOutput(60), ElideToolResults(2), Summarizer(told, 100), Truncator(), own_hook]
    compaction = Compaction(
        3_000, 0.4, hooks, Horizon(hint=7), reserve=9, max_loss=0.95, time_limit=5, strict=True
    )
    other = copied(compaction)
    assert repr(other) == repr(compaction)
    for name in ("target", "reserve", "max_loss", "time_limit", "strict", "debug", "horizon"):
        assert getattr(other, name) == getattr(compaction, name)
    assert other.hooks[0] is not compaction.hooks[0]
    session = Session(StableContext("gpt-5.5"), tokens=EstimateCounter(), compaction=other)
    assert "Short." in talked(session).fork().request("And now?").body["messages"][1]["content"]
