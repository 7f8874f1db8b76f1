"""Task graphs: order and checks, what a task is told, how a run is scheduled, and what holds when something fails."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.virtual_clock import run_virtually

from llmbuffer import Message, Session, StableContext
from llmbuffer.errors import (
    BudgetError,
    CycleError,
    GraphError,
    LimitError,
    TaskError,
    UnknownTaskError,
)
from llmbuffer.graph import GraphEvent, GraphRun, TaskGraph, TaskResult
from llmbuffer.graph.asking import told
from llmbuffer.graph.ready import ANYHOW, COLD, ReadyTasks
from llmbuffer.limits import Budget, Retry
from llmbuffer.simulate import Asked, ProviderServer, Reply
from llmbuffer.tokens import EstimateCounter

CLAUDE = "claude-sonnet-5.5"
LONG = "You help people who wait for parcels. Be brief and cite the rule. " * 150


def session_of(
    system: str = "You are kind.", model: str = "gpt-5.5", dialect: str = "openai", **options: Any
) -> Session:
    return Session(StableContext(model, system), dialect, tokens=EstimateCounter(), **options)


class FakeClient:
    """An asynchronous client of the openai dialect: says what ``answer`` makes of a body, after ``seconds``."""

    def __init__(
        self, answer: Callable[[dict[str, Any]], str] = lambda body: "done", seconds: float = 0.0
    ) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.under_way = self.most = 0
        self._answer, self._seconds = answer, seconds
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._create))

    async def _create(self, **body: Any) -> dict[str, Any]:
        self.bodies.append(json.loads(json.dumps(body)))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await anyio.sleep(self._seconds)
        finally:
            self.under_way -= 1
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        return {"choices": [{"message": {"content": self._answer(body)}}], "usage": usage}

    @property
    def texts(self) -> list[str]:
        """The last user text of each request."""
        return [_text(body["messages"][-1]) for body in self.bodies]


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def run(graph: TaskGraph, session: Session | None = None, **options: Any) -> GraphRun:
    return anyio.run(partial(graph.run, session or session_of(), **options))


async def nothing(**_: object) -> None:
    """A task that does nothing."""


# Order and checks


def test_the_order_is_that_of_definition_as_far_as_dependencies_allow() -> None:
    graph = TaskGraph()
    graph.task("report", "Report.", after=["draft", "facts"])
    graph.task("facts", "List facts.")
    graph.task("other", "Something else.")
    graph.task("draft", "Draft.", after=["facts"])
    assert graph.order() == ("facts", "other", "draft", "report")
    assert [task.key for task in graph.tasks] == ["report", "facts", "other", "draft"]
    assert "facts" in graph
    assert graph["draft"].upstream == ("facts",)


def test_a_cycle_is_shown_as_the_path_that_it_is() -> None:
    graph = TaskGraph()
    graph.task("start", "Begin.")
    graph.task("a", "A", after=["start", "c"])
    graph.task("b", "B", after=["a"])
    graph.task("c", "C", after=["b"])
    with pytest.raises(CycleError, match="'a' → 'b' → 'c' → 'a'") as raised:
        graph.validate()
    assert raised.value.path == ("a", "b", "c", "a")
    graph = TaskGraph()
    graph.task("a", "A", after=["a"])
    with pytest.raises(CycleError, match="comes after itself"):
        graph.order()


def test_a_cycle_of_ten_thousand_tasks_is_found_and_shown_by_its_ends() -> None:
    graph = TaskGraph()
    for number in range(10_000):
        graph.task(f"t{number}", nothing, after=[f"t{(number - 1) % 10_000}"])
    with pytest.raises(
        CycleError, match=r"10000 tasks wait .*'t0' → 't1' → .* more .* → 't9999' → 't0'"
    ) as raised:
        graph.validate()
    assert len(raised.value.path) == 10_001


def test_an_unknown_task_is_shown_with_the_path_that_leads_on_from_it() -> None:
    graph = TaskGraph()
    graph.task("facts", "List facts.")
    graph.task("draft", "Draft.", after=["fact"])
    graph.task("report", "Report.", after=["draft"])
    with pytest.raises(
        UnknownTaskError, match=r"'fact' → 'draft' → 'report'.*did you mean 'facts'"
    ) as raised:
        graph.validate()
    assert raised.value.path == ("fact", "draft", "report")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"work": "  "}, "is empty"),
        ({"work": 7}, "is a int"),
        ({"work": "Do.", "timeout": 0}, "timeout"),
        ({"work": nothing, "params": {"seed": 1}}, "is a function"),
        ({"work": "Do.", "after": [len]}, "'len' is no task"),
    ],
)
def test_what_makes_no_task_is_refused(options: dict[str, Any], found: str) -> None:
    graph = TaskGraph()
    with pytest.raises(GraphError, match=found):
        graph.task("x", **options)
    assert len(graph) == 0


@pytest.mark.parametrize(
    "add", [lambda graph: graph.task("x", prompt="Do."), lambda graph: graph.task("x", afer=())]
)
def test_an_option_that_does_not_exist_is_refused_at_once(add: Callable[[TaskGraph], object]) -> None:
    graph = TaskGraph()
    with pytest.raises(GraphError, match=r"no option '(prompt|afer)'.* after, continues, .*version$"):
        add(graph)


def test_a_key_is_taken_once() -> None:
    graph = TaskGraph()
    graph.task("x", "Do.")
    with pytest.raises(GraphError, match="already"):
        graph.task("x", "Do something else.")
    with pytest.raises(GraphError, match="no text"):
        graph.task(" ", "Do.")


def test_a_function_that_lacks_an_argument_is_found_before_anything_runs() -> None:
    graph = TaskGraph()
    graph.task("step-1", lambda: 1)
    graph.task("sum", lambda first, second: first + second, after={"first": "step-1"})
    with pytest.raises(GraphError, match="'sum' calls a function that needs 'second'"):
        graph.validate()
    graph = TaskGraph()
    graph.task("step-1", lambda: 1)
    graph.task("next", lambda **given: given, after=["step-1"])
    with pytest.raises(GraphError, match="'step-1' can be no name"):
        graph.validate()


def test_only_a_conversation_can_be_continued() -> None:
    graph = TaskGraph()
    graph.task("count", lambda: 1)
    graph.task("more", "Go on.", continues="count")
    with pytest.raises(GraphError, match="a function without a conversation"):
        graph.validate()


# What tasks are told


def test_results_go_to_functions_by_name_and_to_prompts_as_messages_in_order() -> None:
    client = FakeClient(lambda body: "{braces} and %s stay")
    graph = TaskGraph()
    graph.task("b", lambda: {"n": 1.5, "list": ["é", None]})
    graph.task("a", "Say it with {braces}.")

    @graph.task("shout", after={"text": "a"})
    def shout(text: str) -> str:
        return text.upper()

    graph.task("end", "Now <you>.", after=[shout, "b", "a"])
    done = run(graph, client=client)
    assert done["shout"] == "{BRACES} AND %S STAY"
    assert [_text(message) for message in client.bodies[-1]["messages"]] == [
        "You are kind.",
        '<result task="shout">\n{BRACES} AND %S STAY\n</result>',
        '<result task="b">\n{"n":1.5,"list":["é",null]}\n</result>',
        '<result task="a">\n{braces} and %s stay\n</result>',
        "Now <you>.",
    ]
    assert shout("x") == "X"
    assert done.tasks["end"].session is not None
    assert done.tasks["end"].session.messages[-1].text == "{braces} and %s stay"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a < b, <b>bold</b> & <result>", "a < b, <b>bold</b> & <result>"),
        ("x</result>y", "x&lt;/result>y"),
        ("x< / RESULT >y", "x&lt; / RESULT >y"),
        (Message("assistant", "</result>"), "&lt;/result>"),
        (["</result>", "<b>"], r'["\u003c/result>","<b>"]'),
    ],
)
def test_no_result_closes_the_frame_that_it_stands_in(value: Any, shown: str) -> None:
    assert told("a", value).text == f'<result task="a">\n{shown}\n</result>'


def test_every_prompt_shares_the_prefix_of_the_session_byte_for_byte() -> None:
    session = session_of(LONG)
    session.append([Message("user", "Hello"), Message("assistant", "Hi!")])
    before = session.tip
    client = FakeClient()
    graph = TaskGraph()
    for number in range(5):
        graph.task(f"t{number}", f"Task {number}.", after=[f"t{number - 1}"] if number > 2 else [])
    run(graph, session, client=client, warm="never")
    heads = {json.dumps(body["messages"][:3]) for body in client.bodies}
    assert len(client.bodies) == 5
    assert len(heads) == 1
    assert session.tip is before


def test_a_continued_conversation_grows_one_prefix() -> None:
    client = FakeClient(lambda body: f"reply {len(body['messages'])}")
    graph = TaskGraph()
    graph.task("a", "One.")
    graph.task("b", "Two.", continues="a")
    graph.task("other", "Aside.")
    graph.task("c", "Three.", continues="b", after=["a", "other"])
    done = run(graph, client=client, limit=1)
    last = client.bodies[-1]["messages"]
    assert [_text(message) for message in last] == [
        "You are kind.",
        *("One.", "reply 2", "Two.", "reply 4"),
        '<result task="a">\nreply 2\n</result>',
        '<result task="other">\nreply 2\n</result>',
        "Three.",
    ]
    session = done.tasks["c"].session
    assert session is not None
    assert session.messages[-1].text == "reply 8"


def test_tools_run_inside_a_task() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "track", "arguments": '{"number": 7}'}}

    class Calling(FakeClient):
        async def _create(self, **body: Any) -> dict[str, Any]:
            answer = await super()._create(**body)
            if len(self.bodies) == 1:
                answer["choices"][0]["message"] = {"content": None, "tool_calls": [call]}
            return answer

    session = Session(StableContext("gpt-5.5", tools=[{"name": "track"}]), tokens=EstimateCounter())
    graph = TaskGraph()
    graph.task("where", "Where is it?", tools={"track": lambda number: f"{number} is in Lyon"})
    client = Calling(lambda body: _text(body["messages"][-1]))
    done = run(graph, session, client=client)
    assert done["where"] == "7 is in Lyon"
    assert done.usage.input_tokens == 200
    graph.task("lost", "Where?", tools={"find": print})
    with pytest.raises(GraphError, match="'lost' brings the tool 'find'"):
        run(graph, session, client=client)
    assert len(client.bodies) == 2


def test_a_function_may_converse_in_a_fork_of_its_own() -> None:
    client = FakeClient(lambda body: str(len(body["messages"])))
    graph = TaskGraph()

    @graph.task
    async def two_turns(session: Session) -> list[str]:
        return [(await session.arespond(text, client=client)).text for text in ("One.", "Two.")]

    graph.task("more", "Three.", continues="two_turns")
    done = run(graph, client=client)
    assert done["two_turns"] == ["2", "4"]
    assert done["more"] == "6"
    assert done.tasks["two_turns"].usage.input_tokens == 200


# Scheduling


def critical(ends: dict[str, float], after: list[str], seconds: float) -> float:
    return seconds + max((ends[key] for key in after), default=0.0)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.1, 1.0, 10.0]), st.lists(st.integers(0, 30), max_size=3)), max_size=20
    )
)
def test_a_run_takes_as_long_as_its_critical_path(tasks: list[tuple[float, list[int]]]) -> None:
    graph = TaskGraph()
    ends: dict[str, float] = {}
    for number, (seconds, places) in enumerate(tasks):
        after = sorted({f"t{place % number}" for place in places} if number else set())
        graph.task(f"t{number}", partial(take, seconds), after=after)
        ends[f"t{number}"] = critical(ends, after, seconds)
    done = run_virtually(partial(graph.run, session_of(), jobs=math.inf))
    assert done.ok
    assert done.seconds == pytest.approx(max(ends.values(), default=0.0), rel=0.05, abs=1e-6)


async def take(seconds: float, **_: object) -> float:
    await anyio.sleep(seconds)
    return seconds


def test_prompts_do_not_wait_for_waves() -> None:
    """A long task beside a chain of short ones: in waves, every link would wait for it."""
    client = FakeClient(seconds=1.0)
    graph = TaskGraph()
    graph.task("long", partial(take, 10.0))
    for number in range(10):
        graph.task(f"t{number}", "Go on.", after=[f"t{number - 1}"] if number else [])
    done = run_virtually(partial(graph.run, session_of(), client=client, warm="never"))
    assert done.seconds == pytest.approx(10.0, rel=0.05)
    assert len(client.bodies) == 10


@pytest.mark.parametrize("link", ["after", "continues"])
def test_a_long_chain_of_prompts(link: str) -> None:
    client = FakeClient()
    graph = TaskGraph()
    for number in range(200):
        graph.task(f"t{number}", "Go on.", **({link: f"t{number - 1}"} if number else {}))
    done = run_virtually(partial(graph.run, session_of(), client=client))
    assert done.ok
    assert len(client.bodies) == 200


def test_ten_thousand_tasks_in_a_chain_and_in_a_fan() -> None:
    chain, fan = TaskGraph(), TaskGraph()
    for number in range(10_000):
        chain.task(f"t{number}", _next, after={"before": f"t{number - 1}"} if number else {})
        fan.task(f"t{number}", _next)
    fan.task("sum", lambda **given: sum(given.values()), after=[f"t{number}" for number in range(10_000)])
    assert run(chain)["t9999"] == 10_000
    assert run(fan)["sum"] == 10_000


async def _next(before: int = 0) -> int:
    return before + 1


def test_no_more_run_at_a_time_than_the_limits_allow() -> None:
    client, counted = FakeClient(seconds=1.0), Counter[str]()

    async def job() -> None:
        counted["now"] += 1
        counted["most"] = max(counted["most"], counted["now"])
        await anyio.sleep(1.0)
        counted["now"] -= 1

    graph = TaskGraph()
    for number in range(20):
        graph.task(f"p{number}", "Do.")
        graph.task(f"j{number}", job)
    done = run_virtually(partial(graph.run, session_of(), client=client, limit=3, jobs=5, warm="never"))
    assert (client.most, counted["most"]) == (3, 5)
    assert done.seconds == pytest.approx(7.0)
    with pytest.raises(LimitError, match="limit is 0"):
        run(graph, client=client, limit=0)


def test_a_cold_prefix_is_led_by_one_and_read_by_all_others() -> None:
    graph = TaskGraph()
    for number in range(12):
        graph.task(f"t{number}", f"Task {number}.")
    with ProviderServer(latency=(0.2, 0.0)) as server:
        assert _through_sdk(server, graph, session_of(LONG, CLAUDE, "anthropic")).ok
        assert Counter(request.outcome for request in server.requests) == {"cold": 1, "hit": 11}
        server.reset()
        _through_sdk(server, graph, session_of(LONG, CLAUDE, "anthropic"), warm="never", limit=12)
        assert Counter(request.outcome for request in server.requests)["hit"] < 11


def _through_sdk(server: ProviderServer, graph: TaskGraph, session: Session, **options: Any) -> GraphRun:
    import anthropic

    async def main() -> GraphRun:
        async with anthropic.AsyncAnthropic(
            base_url=server.anthropic_url, api_key="any", max_retries=0
        ) as client:
            return await graph.run(session, client=client, **options)

    return anyio.run(main)


def test_a_short_prefix_makes_nobody_wait() -> None:
    client = FakeClient(seconds=1.0)
    graph = TaskGraph()
    for number in range(8):
        graph.task(f"t{number}", "Do.")
    done = run_virtually(partial(graph.run, session_of("Short."), client=client))
    assert done.seconds == pytest.approx(1.0)


def test_if_the_leader_fails_the_next_one_leads() -> None:
    def answer(asked: Asked) -> Reply:
        return Reply(status=400, message="no") if asked.number == 0 else Reply("fine")

    with ProviderServer(replies=answer) as server:
        graph = TaskGraph()
        for number in range(6):
            graph.task(f"t{number}", f"Task {number}.")
        done = _through_sdk(
            server,
            graph,
            session_of(LONG, CLAUDE, "anthropic"),
            on_failure="skip-dependents",
        )
        assert len(done.of("failed")) == 1
        outcomes = [request.outcome for request in sorted(server.requests, key=lambda each: each.number)]
        assert outcomes[0] == "refused"
        assert outcomes[1] != "hit"  # the second leads
        assert outcomes[2:] == ["hit"] * 4


def test_siblings_of_a_warm_prefix_go_first() -> None:
    """Two conversations with children: the one whose warmth ends soonest is gone on with, before anything cold."""
    order: list[str] = []

    def answer(body: dict[str, Any]) -> str:
        order.append(_text(body["messages"][-1]))
        return "done"

    client = FakeClient(answer)
    graph = TaskGraph()
    graph.task("a", "a")
    graph.task("b", "b", after=["a"])
    for number in range(3):
        graph.task(f"cold{number}", f"cold {number}", after=["b"])
        graph.task(f"a{number}", f"a {number}", continues="a", after=["b"])
    run(graph, session_of(), client=client, limit=1)
    assert order[2:5] == ["a 0", "a 1", "a 2"]


def test_the_prefix_whose_time_ends_soonest_goes_first_and_a_cold_one_last() -> None:
    now = [0.0]
    free = ReadyTasks(clock=lambda: now[0], warmth=lambda group: COLD)
    for index, (key, group) in enumerate(
        [("c1", "c"), ("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b"), ("c2", "c")]
    ):
        free.push(key, index, height=index, group=group)
    free.warmed("a", until=300.0)
    free.warmed("b", until=200.0)
    assert [free.pop(), free.pop()] == ["b2", "b1"]
    assert free.pop() == "a2"
    free.push("b3", 9, height=0, group="b")
    now[0] = 250.0  # b is cold by now, a is still warm
    assert free.pop() == "a1"
    assert free.pop() == "c2", "more is behind it than behind b3"
    assert free.leads("c")
    assert free.pop() == "b3"
    assert free.pop() is None
    free.failed("c")
    assert free.pop() == "c1"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=30), st.randoms())
def test_every_free_task_is_given_once_whatever_is_warm(tasks: list[tuple[str, int]], random: Any) -> None:
    now = [0.0]
    free = ReadyTasks(clock=lambda: now[0], warmth=lambda group: random.choice([COLD, ANYHOW, now[0] + 5]))
    given_out: list[str] = []
    left = list(enumerate(tasks))
    for _ in range(1_000):
        if left and random.random() < 0.5:
            index, (group, height) = left.pop(0)
            free.push(str(index), index, height=height, group=group)
        key = free.pop()
        if key is not None:
            given_out.append(key)
        now[0] += random.choice([0.0, 1.0, 10.0])
        if random.random() < 0.5:
            random.choice([free.failed, lambda group: free.warmed(group, now[0] + 5)])(random.choice("abc"))
        if not left and len(given_out) == len(tasks):
            break
    assert sorted(given_out, key=int) == [str(index) for index in range(len(tasks))]
    assert free.pop() is None


# Failures, retries, limits


def failing(policy: str, **options: Any) -> tuple[TaskGraph, FakeClient]:
    graph = TaskGraph()
    graph.task("a", "A")
    graph.task("bad", fail, after=["a"])
    graph.task("child", "Child.", after=["bad"])
    graph.task("grandchild", "Grandchild.", after=["child", "a"])
    graph.task("free", "Free.", after=["a"])
    return graph, FakeClient(seconds=1.0)


async def fail() -> None:
    await anyio.sleep(0.5)
    raise ValueError("broken")


def test_fail_fast_stops_everything_and_keeps_what_was_finished() -> None:
    graph, client = failing("fail-fast")
    with pytest.raises(TaskError, match="'bad' failed with ValueError") as raised:
        run_virtually(partial(graph.run, session_of(), client=client, on_failure="fail-fast"))
    error = raised.value
    assert error.key == "bad"
    assert isinstance(error.__cause__, ValueError)
    statuses = {key: found.status for key, found in error.run.tasks.items()}
    assert statuses == {
        "a": "finished",
        "bad": "failed",
        "child": "waiting",
        "grandchild": "waiting",
        "free": "cancelled",
    }
    assert client.under_way == 0
    assert error.run["a"] == "done"


def test_skip_dependents_runs_all_that_can_run() -> None:
    graph, client = failing("skip-dependents")
    done = run_virtually(partial(graph.run, session_of(), client=client, on_failure="skip-dependents"))
    statuses = {key: found.status for key, found in done.tasks.items()}
    assert statuses == {
        "a": "finished",
        "bad": "failed",
        "child": "skipped",
        "grandchild": "skipped",
        "free": "finished",
    }
    assert done.tasks["grandchild"].because == "bad"
    assert not done.ok
    with pytest.raises(TaskError, match="skipped, because 'bad' before it failed"):
        done["child"]
    with pytest.raises(TaskError, match="'bad' has no result") as raised:
        done.raise_for_failures()
    assert isinstance(raised.value.__cause__, ValueError)
    with pytest.raises(UnknownTaskError):
        done["nobody"]


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(GraphError, match="on_failure is 'ignore'"):
        run(TaskGraph(), on_failure="ignore")
    with pytest.raises(GraphError, match="warm is 'hot'"):
        run(TaskGraph(), warm="hot")


def test_an_empty_graph_is_done_at_once() -> None:
    done = run(TaskGraph())
    assert done.ok
    assert len(done) == 0


def test_a_prompt_without_a_client_is_found_before_anything_runs() -> None:
    ran: list[int] = []
    graph = TaskGraph()
    graph.task("job", lambda: ran.append(1))
    graph.task("ask", "Ask.")
    with pytest.raises(GraphError, match="'ask' asks the model, and there is no client"):
        run(graph)
    assert ran == []


def test_a_task_is_tried_again_in_a_fresh_fork() -> None:
    attempts: list[int] = []

    def answer(body: dict[str, Any]) -> str:
        attempts.append(len(body["messages"]))
        if len(attempts) < 3:
            raise ConnectionResetError("lost")
        return "at last"

    events: list[GraphEvent] = []
    graph = TaskGraph()
    graph.task("a", "A", retries=2)
    done = run_virtually(partial(graph.run, session_of(), client=FakeClient(answer), on_event=events.append))
    assert done["a"] == "at last"
    assert attempts == [2, 2, 2]
    assert done.tasks["a"].attempts == 3
    assert [event.kind for event in events] == ["started", "retrying", "retrying", "finished"]
    assert isinstance(events[1].error, ConnectionResetError)
    assert (events[-1].done, events[-1].total) == (1, 1)


def test_an_error_that_does_not_pass_is_not_tried_again() -> None:
    client = FakeClient(lambda body: str(1 / 0))
    graph = TaskGraph()
    graph.task("a", "A", retries=5)
    with pytest.raises(TaskError, match="ZeroDivisionError after 1 attempts"):
        run(graph, client=client)
    graph = TaskGraph()
    calls: list[int] = []

    def job() -> float:
        calls.append(1)
        return 1 / 0

    graph.task("job", job, retries=Retry(3, wait=0.0, when=lambda error: True))
    with pytest.raises(TaskError, match="after 4 attempts"):
        run(graph)
    assert len(calls) == 4


@pytest.mark.parametrize("kind", ["coroutine", "prompt"])
def test_a_task_that_takes_too_long_is_stopped(kind: str) -> None:
    client = FakeClient(seconds=100.0)
    graph = TaskGraph()
    graph.task("slow", "Slow." if kind == "prompt" else partial(take, 100.0), timeout=2.0)
    graph.task("next", nothing, after=["slow"])
    done = run_virtually(partial(graph.run, session_of(), client=client, on_failure="skip-dependents"))
    assert isinstance(done.tasks["slow"].error, TimeoutError)
    assert done.tasks["next"].status == "skipped"
    assert done.seconds == pytest.approx(2.0)
    assert client.under_way == 0


def test_a_function_in_a_thread_that_takes_too_long_is_left_behind() -> None:
    released = threading.Event()
    graph = TaskGraph()
    graph.task("stuck", released.wait, timeout=0.05)
    graph.task("fine", threading.get_ident, timeout=60.0)
    done = run(graph, on_failure="skip-dependents")
    released.set()
    assert isinstance(done.tasks["stuck"].error, TimeoutError)
    assert done["fine"] != threading.get_ident()


def test_cancelled_nothing_runs_on() -> None:
    client = FakeClient(seconds=100.0)
    ended = threading.Event()
    began = threading.Event()

    def job() -> None:
        began.set()
        ended.wait(0.2)
        ended.set()

    graph = TaskGraph()
    graph.task("ask", "Ask.")
    graph.task("job", job)
    graph.task("timed", job, timeout=60.0)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(graph.run, session_of(), client=client))
            await anyio.to_thread.run_sync(began.wait)
            group.cancel_scope.cancel()
        assert ended.is_set(), "threads were waited for"
        assert client.under_way == 0
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    anyio.run(main)


def test_a_budget_stops_what_has_not_begun() -> None:
    client = FakeClient()
    graph = TaskGraph()
    for number in range(10):
        graph.task(f"t{number}", "Do.", after=[f"t{number - 1}"] if number else [])
    with pytest.raises(BudgetError, match="does not fit") as raised:
        run(graph, client=client, budget=Budget(tokens=350))
    done = raised.value.run
    assert done.of("finished") == ("t0", "t1", "t2")
    assert done.usage.input_tokens == 300
    assert len(client.bodies) == 3


def test_a_budget_in_money_needs_a_price() -> None:
    session = session_of(model="nobody-knows")
    graph = TaskGraph()
    graph.task("a", "A")
    client = FakeClient()
    with pytest.raises(BudgetError, match="no known price"):
        run(graph, session, client=client, budget=Budget(usd=1.0))
    assert client.bodies == []


def test_what_on_event_raises_ends_the_run_as_it_is() -> None:
    def refuse(event: GraphEvent) -> None:
        raise KeyError(event.key)

    graph = TaskGraph()
    graph.task("a", nothing)
    with pytest.raises(KeyError, match="a"):
        run(graph, on_event=refuse)


# Where functions run


def test_functions_go_to_the_executor_and_coroutines_stay() -> None:
    graph = TaskGraph()
    graph.task("there", threading.get_ident)

    @graph.task
    async def here() -> int:
        return threading.get_ident()

    graph.task("key", lambda key, there: (key, there), after={"key": "there", "there": "here"})
    with ThreadPoolExecutor(1) as pool:
        [expected] = pool.map(lambda _: threading.get_ident(), [0])
        done = run(graph, executor=pool)
    assert done["there"] == expected
    assert done["here"] == threading.get_ident()
    assert done["key"] == (expected, threading.get_ident())


def test_a_session_does_not_travel_to_an_executor() -> None:
    graph = TaskGraph()
    graph.task("talk", lambda session: session.id)
    with ThreadPoolExecutor(1) as pool, pytest.raises(GraphError, match="do not travel"):
        run(graph, executor=pool)
    graph = TaskGraph()
    graph.task("talk", lambda session_id: session_id)
    with pytest.raises(GraphError, match="there is no store"):
        run(graph)


@pytest.mark.parametrize("way", ["run", "run_sync"])
def test_a_synchronous_client_works_both_ways(way: str) -> None:
    graph = TaskGraph()
    for number in range(4):
        graph.task(f"t{number}", f"Task {number}.")
    graph.task("end", "Sum up.", after=[f"t{number}" for number in range(4)])
    with (
        ProviderServer() as server,
        openai.OpenAI(base_url=server.openai_url, api_key="any", max_retries=0) as client,
    ):
        session = session_of(LONG, client=client)
        done = graph.run_sync(session) if way == "run_sync" else run(graph, session)
        assert done.ok
        assert Counter(request.outcome for request in server.requests) == {"cold": 1, "hit": 4}
        assert done.usage == server.usage()


class PlainClient:
    """A client that does not tell what it is: its call may be a coroutine function, or return whatever ``create`` does."""

    def __init__(self, create: Callable[..., Any]) -> None:
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=create))


def _replied(**body: Any) -> dict[str, Any]:
    assert "stream" not in body, "only clients of the SDKs stream for certain"
    usage = {"prompt_tokens": 2_000, "completion_tokens": 3}
    return {"choices": [{"message": {"content": "done"}}], "usage": usage}


async def _awaited_reply(**body: Any) -> dict[str, Any]:
    return _replied(**body)


@pytest.mark.parametrize("warm", ["first-token", "response", "never"])
@pytest.mark.parametrize("system", ["You are kind.", LONG])
@pytest.mark.parametrize("way", ["run", "run_sync"])
@pytest.mark.parametrize("create", [_replied, _awaited_reply])
def test_a_client_that_does_not_tell_works_both_ways(
    create: Callable[..., Any], way: str, system: str, warm: str
) -> None:
    graph = TaskGraph()
    graph.task("a", "One.")
    graph.task("b", "Two.")
    session = session_of(system, client=PlainClient(create))
    done = graph.run_sync(session, warm=warm) if way == "run_sync" else run(graph, session, warm=warm)
    assert (done["a"], done["b"], done.ok) == ("done", "done", True)


def test_what_a_plain_call_returns_is_awaited() -> None:
    graph = TaskGraph()
    graph.task("a", "One.")

    def create(**body: Any) -> Any:
        return _awaited_reply(**body)

    assert run(graph, client=PlainClient(create))["a"] == "done"


def test_a_plain_call_that_blocks_does_not_hold_up_the_others() -> None:
    both = threading.Barrier(2, timeout=30)

    def create(**body: Any) -> dict[str, Any]:
        both.wait()
        return _replied(**body)

    graph = TaskGraph()
    graph.task("a", "One.")
    graph.task("b", "Two.")
    assert run(graph, client=PlainClient(create)).ok


def test_a_client_of_another_dialect_is_named_by_its_own_kind() -> None:
    graph = TaskGraph()
    graph.task("a", "One.")
    with pytest.raises(TaskError) as raised:
        run(graph, session_of(model=CLAUDE, dialect="anthropic"), client=PlainClient(_replied))
    assert "a PlainClient has no 'messages'" in str(raised.value.__cause__)


def test_run_sync_says_what_to_do_inside_an_event_loop() -> None:
    async def main() -> None:
        with pytest.raises(GraphError, match=r"await graph\.run"):
            TaskGraph().run_sync(session_of())

    anyio.run(main)


# What a run tells


def test_results_tell_figures_and_no_text() -> None:
    graph = TaskGraph("report")
    graph.task("a", "A secret prompt.")
    done = run(graph, client=FakeClient(lambda body: "a secret reply"))
    shown = (
        repr(done)
        + repr(done.tasks["a"])
        + repr(graph)
        + repr(graph["a"])
        + json.dumps(done.to_json(values=False))
    )
    assert "secret" not in shown
    assert done.to_json()["tasks"][0]["value"] == "a secret reply"
    assert done.to_json()["input_tokens"] == 100
    assert list(done) == ["a"]
    assert done.results == {"a": "a secret reply"}
    assert isinstance(done.tasks["a"], TaskResult)
    assert done.tasks["a"].cost == done.cost
