"""Fan-out over real SDKs and a simulated provider: one goes first, nobody waits for ever, nothing is left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fanning import MODELS, RULES, client_of, cold, fanned, meeting, run, session_of, tasks

from llmbuffer import Message, MessageError, Session, StableContext, ToolResult, Usage
from llmbuffer.errors import BudgetError, LimitError, LoopError
from llmbuffer.fanout import Budget, FanOutEvent, Results, Retry, Task, afan_out, fan_out, fan_out_events
from llmbuffer.simulate import Asked, Call, ProviderServer, Reply, SimulatedRequest
from llmbuffer.testing import FakeClock
from llmbuffer.tokens import EstimateCounter

COLD = {"deepseek": 2, "vllm": 1, "llamacpp": 1}  # requests that cannot read the prefix; 1 elsewhere


def fake_client(answer: Callable[..., Any]) -> Any:
    """A client in OpenAI's shape that streams nothing."""
    return SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=answer)))


def said(text: str, usage: int = 10) -> dict[str, Any]:
    return {
        "choices": [{"message": {"content": text}}],
        "usage": {"prompt_tokens": usage, "completion_tokens": 1},
    }


def last_text(body: Any) -> str:
    """The last text of the last message, whatever the format."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else str(content[-1]["text"])


# One goes first


@pytest.mark.parametrize("dialect", MODELS)
def test_of_a_cold_fan_out_one_request_writes_the_prefix(dialect: str) -> None:
    with ProviderServer(rules=RULES, latency=(0.02, 0.0)) as server:
        results = fanned(dialect, server, session_of(dialect), tasks(12), key_policy="shared")
        assert results.ok, results.errors
        assert cold(server) == COLD.get(dialect, 1)
    waited = sum(each.led for each in results)
    assert waited == {"vllm": 0, "llamacpp": 0, "deepseek": 2}.get(dialect, 1)


@pytest.mark.parametrize("dialect", ["anthropic", "openai", "gemini"])
def test_a_synchronous_client_is_sent_with_in_threads(dialect: str) -> None:
    with ProviderServer(latency=(0.02, 0.0)) as server, client_of(dialect, server) as client:
        session = session_of(dialect, client=client)
        results = fan_out(session, tasks(6), key_policy="shared")
        assert results.ok, results.errors
        assert cold(server) == 1
    assert [each.name for each in results] == [f"worker-{number}" for number in range(1, 7)]
    assert len(session.messages) == 2


def test_naive_parallel_forks_all_write_the_prefix() -> None:
    with ProviderServer(replies=meeting(6)) as server:
        results = fanned("anthropic", server, session_of(), tasks(6), warm="never")
        assert results.ok
        assert cold(server) == 6


def test_siblings_are_held_until_the_first_token_and_no_longer() -> None:
    """The reply of the first one stops after its first piece until all others have been answered."""
    answered = asyncio.Event()
    ended = []

    def reply(asked: Asked) -> Reply:
        return Reply("A long reply of several pieces.", pause=answered.wait if asked.number == 0 else None)

    def on_request(request: SimulatedRequest) -> None:
        ended.append(request.number)
        if len(ended) == 4:
            answered.set()

    with ProviderServer(replies=reply, on_request=on_request) as server:
        results = fanned("anthropic", server, session_of(), tasks(5))
        assert results.ok, results.errors
        assert cold(server) == 1
    assert ended[-1] == 0


@pytest.mark.parametrize("policy", ["x", "Be kind. " * 900])
def test_nobody_waits_below_the_minimum_or_when_it_is_warm(policy: str) -> None:
    with ProviderServer() as server:
        session = session_of(policy=policy)
        kinds: list[str] = []

        async def work(client: Any) -> Results:
            await session.arespond("Go on.", client=client)
            return await afan_out(
                session, tasks(4), client=client, on_event=lambda event: kinds.append(event.kind)
            )

        assert run("anthropic", server, work).ok
    assert "waiting" not in kinds
    assert "leading" not in kinds


def test_a_client_that_cannot_stream_is_prewarmed_where_the_api_can() -> None:
    class Plain:
        """A proxy that no one takes for an SDK's client."""

        def __init__(self, client: Any) -> None:
            self.messages = client.messages

    with ProviderServer() as server, client_of("anthropic", server) as client:
        results = fan_out(session_of(client=Plain(client)), tasks(4))
        assert results.ok, results.errors
        assert len(server.requests) == 5
        assert cold(server) == 1
    leader = next(each for each in results if each.led)
    assert [seen.message is None for seen in leader.observations] == [True, False]


def test_what_the_first_one_writes_is_forecast_as_read_as_soon_as_it_begins() -> None:
    session = session_of()
    request = session.fork().request("a")
    assert session.fork().request("b").forecast.read_tokens == 0
    request.begun()
    told = session.fork().request("b").forecast
    assert told.read_tokens > 7_000
    seen = request.observe(Usage(input_tokens=8_000, cache_write_tokens=7_900), Message("assistant", "ok"))
    assert seen.cache_break is None, "the one that wrote was not expected to read"


@pytest.mark.parametrize("dialect", ["anthropic", "openai"])
def test_no_worker_takes_its_siblings_for_a_break(dialect: str) -> None:
    with ProviderServer(latency=(0.02, 0.0)) as server:
        results = fanned(dialect, server, session_of(dialect), tasks(8))
    entries = [entry for each in results for entry in each.session.ledger]
    assert [entry.cache_break for entry in entries] == [None] * 8
    assert sum(entry.forecast_read_tokens > 1_000 for entry in entries) == 7


def test_on_whole_units_the_second_one_to_go_first_shares_least_with_the_first() -> None:
    """What two prompts have in common becomes a unit, and those that part from it earlier could not read it."""
    given = ["Check the depot in Lyon.", "Check the depot in Bonn.", "Sum up.", "Check the parcels."]
    with ProviderServer(latency=(0.02, 0.0)) as server:
        results = fanned("deepseek", server, session_of("deepseek"), given)
        assert cold(server) == 2
    assert [each.led for each in results] == [True, False, True, False]
    assert [each.name for each in results] == [f"worker-{number}" for number in range(1, 5)]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_runs_on_both_event_loops(backend: str) -> None:
    async def answer(**body: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        return said(last_text(body))

    async def work() -> Results:
        session = Session(StableContext("m"), client=fake_client(answer))
        return await afan_out(session, tasks(5), limit=2)

    pytest.importorskip(backend)
    assert [each.text for each in anyio.run(work, backend=backend)] == tasks(5)


# Who leads may fail


def test_if_the_leader_fails_before_its_first_token_the_next_one_leads() -> None:
    def reply(asked: Asked) -> Reply:
        return Reply("Fine.", delay=0.02)

    with ProviderServer(replies=[Reply(status=500), Reply(status=529)]) as server:
        results = fanned("anthropic", server, session_of(), tasks(6))
        assert [each.ok for each in results].count(False) == 2
        assert cold(server) == 1
    assert sum(each.led for each in results) == 3


def test_a_leader_that_is_cut_off_by_its_timeout_lets_the_next_one_lead() -> None:
    with ProviderServer(replies=[Reply("late", delay=30.0)]) as server:
        results = fanned("anthropic", server, session_of(), tasks(4), timeout=3.0)
        assert cold(server) == 1
    assert isinstance(results[0].error, TimeoutError)
    assert [each.ok for each in results[1:]] == [True] * 3
    assert [each.led for each in results].count(True) == 2


def test_nobody_waits_longer_than_the_patience() -> None:
    """The first one is answered only when the others have been."""
    ended: list[int] = []
    others = asyncio.Event()

    async def reply(asked: Asked) -> Reply:
        if asked.number == 0:
            await others.wait()
        return Reply("Fine.")

    def on_request(request: SimulatedRequest) -> None:
        ended.append(request.number)
        if len(ended) == 3:
            others.set()

    with ProviderServer(replies=reply, on_request=on_request) as server:
        results = fanned("anthropic", server, session_of(), tasks(4), patience=0.05)
    assert results.ok, results.errors
    assert [each.led for each in results] == [True, False, False, False]
    assert ended[-1] == 0


def test_a_leader_that_tries_again_waits_like_the_others() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    with ProviderServer(replies=[Reply(status=429, retry_after=7)]) as server:
        results = fanned("anthropic", server, session_of(), tasks(3), retry=Retry(2), sleep=sleep)
        assert results.ok
        assert len(server.requests) == 4
        assert cold(server) == 1
    assert slept == [7.0]
    assert [each.attempts for each in results] == [2, 1, 1]


# Errors, limits, cancellation


def test_an_error_in_one_worker_loses_nobody_elses_result() -> None:
    def answer(**body: Any) -> Any:
        if last_text(body) == "b":
            raise RuntimeError("boom")
        return said(last_text(body))

    session = Session(StableContext("m", "Be kind."), client=fake_client(answer))
    results = fan_out(session, ["a", "b", "c"])
    assert [each.text for each in results] == ["a", "", "c"]
    assert [type(each.error) for each in results] == [type(None), RuntimeError, type(None)]
    assert results.errors == (results[1],)
    assert results[1].session.messages == ()


def test_raise_stops_everything_before_it_raises() -> None:
    def reply(asked: Asked) -> Reply:
        return (
            Reply(status=500, message="no")
            if "0" in str(asked.body["messages"][-1])
            else Reply("x", delay=30)
        )

    with ProviderServer(replies=reply) as server:
        with pytest.raises(Exception, match="no"):
            fanned("anthropic", server, session_of(policy="short"), tasks(4), limit=2, on_error="raise")
        assert {each.status for each in server.requests} == {500}


def test_cancelled_in_the_middle_it_leaves_nothing_running() -> None:
    with ProviderServer(latency=(0.0, 0.05)) as server:
        begun = 0

        async def work(client: Any) -> int:
            async with anyio.create_task_group() as group:

                def watch(event: FanOutEvent) -> None:
                    nonlocal begun
                    begun += event.kind == "text"
                    if begun == 3:
                        group.cancel_scope.cancel()

                await afan_out(session_of(), tasks(20), client=client, limit=4, on_event=watch, stream=True)
            return len(server.requests)

        threads = set(threading.enumerate())
        seen = run("anthropic", server, work)
        with client_of("anthropic", server) as client:  # what was under way has reached the server by now
            session_of(client=client).respond("Is anybody there?")
        assert len(server.requests) - seen <= 1 + 4
        assert len(server.requests) < 20
        assert {each.completed for each in server.requests if each.number < 4} == {False}
    assert begun >= 3
    left = set(threading.enumerate()) - threads
    for thread in left:
        thread.join(5)
    assert not [thread for thread in left if thread.is_alive()]


def test_events_that_nobody_reads_on_cancel_the_rest() -> None:
    with ProviderServer() as server:

        async def work(client: Any) -> list[str]:
            events = fan_out_events(session_of(), tasks(50), client=client, limit=2)
            kinds: list[str] = []
            async for event in events:
                kinds.append(event.kind)
                if event.kind == "finished":
                    break
            await events.aclose()  # type: ignore[attr-defined]  # it is a generator
            return kinds

        kinds = run("anthropic", server, work)
        assert kinds.count("finished") == 1
        assert len(server.requests) < 10


def test_events_tell_the_story_in_order_and_end_with_the_results() -> None:
    with ProviderServer() as server:

        async def work(client: Any) -> list[FanOutEvent]:
            found = fan_out_events(session_of(), tasks(3), client=client, stream=True)
            return [event async for event in found]

        events = run("anthropic", server, work)
    assert events[-1].kind == "done"
    assert isinstance(events[-1].value, Results)
    for index, result in enumerate(events[-1].value):
        own = [event for event in events if event.index == index]
        assert own[0].kind == "started"
        assert own[-1].kind == "finished"
        assert own[-1].value == result
        assert "".join(event.text for event in own) == result.text
    assert [event.kind for event in events].count("leading") == 1
    assert [event.kind for event in events].count("waiting") == 2


def test_an_error_of_the_callback_stops_the_run_and_is_raised() -> None:
    def fail(event: FanOutEvent) -> None:
        raise KeyError(event.kind)

    client = fake_client(lambda **body: said("x"))
    with pytest.raises(KeyError, match="started"):
        fan_out(Session(StableContext("m"), client=client), ["a"], on_event=fail)


def test_interrupted_it_sends_nothing_more_and_raises_the_interrupt() -> None:
    sent: list[Any] = []

    def answer(**body: Any) -> Any:
        sent.append(body)
        return said("x")

    def interrupt(event: FanOutEvent) -> None:
        if event.kind == "observed":
            raise KeyboardInterrupt

    session = Session(StableContext("m"), client=fake_client(answer))
    with pytest.raises(KeyboardInterrupt):
        fan_out(session, tasks(20), limit=2, on_event=interrupt)
    assert len(sent) <= 3
    assert session.messages == ()


def test_the_routing_key_goes_into_a_header_where_a_router_wants_it() -> None:
    sent: list[Any] = []

    def answer(**body: Any) -> Any:
        sent.append(body)
        return said("x")

    session = Session(StableContext("local"), "vllm", client=fake_client(answer), routing_key="ours")
    assert fan_out(session, tasks(3), affinity="x-session-id").ok
    assert [body["extra_headers"] for body in sent] == [{"x-session-id": "ours"}] * 3


def test_it_runs_where_an_event_loop_runs_already() -> None:
    session = Session(StableContext("m"), client=fake_client(lambda **body: said(last_text(body))))

    async def cell() -> list[str]:
        return [each.text for each in fan_out(session, ["a", "b"])]

    assert anyio.run(cell) == ["a", "b"]


def test_no_more_than_the_limit_run_at_a_time() -> None:
    running, most, lock = 0, 0, threading.Lock()
    gate = threading.Barrier(3, timeout=10)

    def answer(**body: Any) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait()  # passes only if three are in it at once
        with lock:
            running -= 1
        return said("x")

    session = Session(StableContext("m"), client=fake_client(answer))
    assert fan_out(session, tasks(9), limit=3).ok
    assert most == 3


# Budgets


def test_what_the_budget_refuses_is_a_result_and_is_not_sent() -> None:
    sent: list[Any] = []

    def answer(**body: Any) -> Any:
        sent.append(body)
        return said("x", usage=100)

    session = Session(StableContext("m"), tokens=EstimateCounter(), client=fake_client(answer))
    budget = Budget(tokens=250)
    results = fan_out(session, tasks(8), limit=1, budget=budget)
    assert len(sent) == 3  # the third one fits by its forecast and comes to more
    assert [each.ok for each in results] == [True] * 3 + [False] * 5
    assert {type(each.error) for each in results if not each.ok} == {BudgetError}
    assert budget.spent_tokens == 303


def test_workers_on_a_warm_prefix_are_forecast_as_readers() -> None:
    """By the price of a cold prompt the second one would not fit."""
    with ProviderServer() as server:
        session = session_of()
        cold_cost = session.request("x").forecast.cost
        assert cold_cost is not None
        results = fanned("anthropic", server, session, tasks(8), budget=Budget(usd=cold_cost * 1.9))
    assert results.ok, results.errors
    assert results.cost is not None
    assert results.cost < cold_cost * 1.9


# Tools


def test_workers_run_their_tools_and_the_model_reads_what_failed() -> None:
    def reply(asked: Asked) -> Reply:
        if "tool_result" in str(asked.body["messages"][-1]):
            return Reply("Done.")
        calls = (Call("look_up", '{"depot": 1}'), Call("look_up", '{"depot": 2}'))
        return Reply(calls=calls)

    async def look_up(depot: int) -> str:
        if depot == 2:
            await anyio.sleep_forever()
        return f"depot {depot} is in Lyon"

    with ProviderServer(replies=reply) as server:
        results = fanned(
            "anthropic", server, session_of(), tasks(3), tools={"look_up": look_up}, tool_timeout=0.05
        )
    assert [each.text for each in results] == ["Done."] * 3
    for each in results:
        found = [part for message in each.session.messages for part in message.tool_results]
        assert [(part.content, part.is_error) for part in found[:1]] == [("depot 1 is in Lyon", False)]
        assert isinstance(found[1], ToolResult)
        assert found[1].is_error
        assert len(each.observations) == 2


def test_a_task_has_tools_params_and_dynamic_text_of_its_own() -> None:
    bodies: list[Any] = []

    def answer(**body: Any) -> Any:
        bodies.append(body)
        return said("x")

    session = Session(StableContext("gpt-5.5"), client=fake_client(answer))
    results = fan_out(
        session,
        [
            {"name": "a", "task": "Count.", "params": {"max_tokens": 5}, "dynamic": {"clock": "12:00"}},
            Task("Sum up.", name="b", neutral="You are the auditor."),
            Message("user", "Third."),
        ],
        limit=1,
        params={"max_tokens": 9},
    )
    assert [each.name for each in results] == ["a", "b", "worker-3"]
    assert [body["max_tokens"] for body in bodies] == [5, 9, 9]
    assert "12:00" in str(bodies[0])
    assert bodies[1]["messages"][0]["content"] == "You are the auditor.\n\nSum up."
    assert results[1].session.name == "b"


def test_a_fork_inherits_the_cache_and_not_the_role() -> None:
    session = session_of()
    fork = session.fork(task="Count.", neutral=True)
    text = fork.messages[-1].text
    assert text.endswith("\n\nCount.")
    assert "somebody else" in text
    assert fork.request().body["system"] == session.request("x").body["system"]
    with pytest.raises(MessageError, match="without a task"):
        session.fork(neutral=True)


# What is refused


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ("one task", MessageError, "give a list"),
        ([3], MessageError, "task 1 is a int"),
        (["a", " "], MessageError, "'worker-2' is empty"),
        ([{"task": "a", "colour": 1}], MessageError, "unknown fields \\['colour'\\]"),
        ([{"task": "a", "user": "b"}], MessageError, "both"),
    ],
)
def test_tasks_that_are_none_are_refused(given: Any, error: type[Exception], says: str) -> None:
    session = Session(StableContext("m"), client=fake_client(lambda **body: said("x")))
    with pytest.raises(error, match=says):
        fan_out(session, given)


@pytest.mark.parametrize(
    "options",
    [
        {"limit": 0},
        {"warm": "maybe"},
        {"key_policy": "x"},
        {"on_error": "x"},
        {"timeout": 0},
        {"patience": -1},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    session = Session(StableContext("m"), client=fake_client(lambda **body: said("x")))
    with pytest.raises(LimitError, match=next(iter(options))):
        fan_out(session, ["a"], **options)


def test_the_wrong_client_or_none_is_told_at_once() -> None:
    session = Session(StableContext("m"))
    with pytest.raises(LoopError, match="no client"):
        fan_out(session, ["a"])
    client = openai.AsyncOpenAI(api_key="k", base_url="http://127.0.0.1:1")
    with pytest.raises(LoopError, match="afan_out"):
        fan_out(session, ["a"], client=client)


def test_no_tasks_give_no_results() -> None:
    assert fan_out(Session(StableContext("m"), client=object()), []) == ()


def test_reprs_show_no_text() -> None:
    session = Session(StableContext("m"), client=fake_client(lambda **body: said("SECRET answer")))
    [result] = fan_out(session, ["SECRET task"])
    shown = f"{result!r} {Task('SECRET')!r} {FanOutEvent('text', 'a', 0, text='SECRET')!r}"
    assert "SECRET" not in shown


# Nothing leaks


@settings(max_examples=25)
@given(
    texts=st.lists(
        st.text("abc ", min_size=1, max_size=6).map(lambda text: f"<{text}>"), min_size=1, max_size=6
    ),
    rounds=st.integers(1, 3),
    limit=st.integers(1, 6),
    threads=st.booleans(),
)
def test_no_tail_leaks_into_another_fork(texts: list[str], rounds: int, limit: int, threads: bool) -> None:
    """Each worker sees the parent's history, its own task and its own results, and nothing else."""
    parent = Session(StableContext("m", "Be kind.", tools=[{"name": "echo"}]), clock=FakeClock())
    parent.append([{"role": "user", "content": "shared"}, {"role": "assistant", "content": "history"}])
    before = parent.messages

    def answer(**body: Any) -> Any:
        messages = body["messages"]
        own = messages[3:]
        marks = {str(message.get("content")) for message in own if message["role"] != "assistant"}
        assert len(marks) == 1, "another fork's words"
        mark = marks.pop()
        if len(own) < 2 * rounds:
            call = {"id": f"c{len(own)}", "type": "function", "function": {"name": "echo", "arguments": "{}"}}
            return {"choices": [{"message": {"content": mark, "tool_calls": [call]}}]}
        return said(mark)

    async def aanswer(**body: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        return answer(**body)

    given_tasks = [
        Task(text, tools={"echo": lambda text=text: text}, name=f"{index}")
        for index, text in enumerate(texts)
    ]
    if threads:
        results = fan_out(parent, given_tasks, client=fake_client(answer), limit=limit)
    else:

        async def work() -> Results:
            return await afan_out(parent, given_tasks, client=fake_client(aanswer), limit=limit)

        results = anyio.run(work)
    assert [each.text for each in results] == texts
    assert parent.messages == before
    for text, result in zip(texts, results, strict=True):
        own = result.session.messages[2:]
        said_by = {message.text or message.tool_results[0].content for message in own}
        assert said_by == {text}
