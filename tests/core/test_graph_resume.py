"""Resuming: what finished is kept and not paid for again, what was under way is done again, and one process runs a run."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import openai
import pytest
from tests.graph_runs import TASKS, graph_of, session, started

from llmbuffer.errors import BudgetError, GraphError, RunHeldError, TaskError
from llmbuffer.graph import GraphEvent, GraphRun, TaskGraph, forget_run
from llmbuffer.graph.journal import Tenure
from llmbuffer.limits import Budget
from llmbuffer.session import Session
from llmbuffer.simulate import Asked, ProviderServer
from llmbuffer.store import Store, open_store


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    """Says something else each time, so that a result can be told from one that was made again."""
    numbers = count()

    def answer(asked: Asked) -> str:
        return f"reply {next(numbers)}"

    with ProviderServer(replies=answer, keep_bodies=True) as running:
        yield running


@pytest.fixture(params=["memory:", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = request.param if request.param == "memory:" else f"sqlite:///{tmp_path}/runs.db"
    with open_store(url) as opened:
        yield opened


def asked(server: ProviderServer) -> Counter[str]:
    """How often each task was sent, by its last words."""
    return Counter(_last_words(request.body) for request in server.requests if request.status == 200)


def _last_words(body: Any) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else str(content[-1]["text"])


def run(graph: TaskGraph, server: ProviderServer, base: Session | None = None, **options: Any) -> GraphRun:
    async def main() -> GraphRun:
        async with openai.AsyncOpenAI(base_url=server.openai_url, api_key="any", max_retries=0) as client:
            return await graph.run(base or session(), client=client, **options)

    return anyio.run(main)


# kill -9


def told(process: subprocess.Popen[str], enough: Callable[[list[Any]], bool]) -> list[Any]:
    assert process.stdout is not None
    lines: list[Any] = []
    while not enough(lines) and (line := process.stdout.readline()):
        lines.append(json.loads(line))
    return lines


def finished(lines: list[Any]) -> set[str]:
    return {key for kind, key in lines if kind == "finished"}


@pytest.mark.parametrize("after", [1, 90])
def test_a_run_that_was_killed_is_resumed_without_paying_twice(
    server: ProviderServer, tmp_path: Path, after: int
) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    with started(server.openai_url, url, "r1") as process:
        try:
            lines = told(process, lambda lines: len(finished(lines)) >= after)
        finally:
            process.kill()
        lines += [json.loads(line) for line in process.stdout or () if line.endswith("\n")]
    done = finished(lines)
    assert after <= len(done) < TASKS
    paid = asked(server)

    with started(server.openai_url, url, "r1") as process:
        again = told(process, lambda lines: lines[-1:] != [] and lines[-1][0] == "values")
    assert process.returncode == 0
    values = again[-1][1]
    kept = {key for kind, key in again if kind == "kept"}
    assert done <= kept
    total = asked(server)
    assert set(values) == {f"t{number}" for number in range(TASKS)}
    for key in kept:
        assert total[f"Task {key[1:]}."] == 1, f"{key} was paid for twice"
    assert sum(total.values()) <= TASKS + 8  # those that were under way when it was killed
    assert sum(paid.values()) < TASKS
    with open_store(url) as opened:
        assert opened.verify() == ()
        for record in opened.sessions():
            if record.name is not None:
                assert opened.messages(record.id)[-1].text == values[record.name]


# Resuming in one process


def test_a_finished_run_is_read_and_not_run_again(server: ProviderServer, store: Store) -> None:
    graph = graph_of(20)
    first = run(graph, server, store=store, run_id="r")
    events: list[GraphEvent] = []
    second = run(graph, server, store=store, run_id="r", on_event=events.append)
    assert {key: second[key] for key in second} == {key: first[key] for key in first}
    assert second.usage == first.usage
    assert {event.kind for event in events} == {"kept"}
    assert len(second.of("kept")) == 20
    assert sum(asked(server).values()) == 20
    assert run(graph, server, store=store, run_id="other").of("kept") == ()


def test_a_conversation_from_the_store_goes_on_with_the_same_prefix(
    server: ProviderServer, store: Store
) -> None:
    graph = TaskGraph()
    graph.task("a", "One.")
    graph.task("b", "Two.", continues="a")
    graph.task("bad", lambda: 1 / 0, after=["b"])
    graph.task("c", "Three.", continues="b", after=["bad"])
    with pytest.raises(TaskError):
        run(graph, server, store=store, run_id="r", limit=1)
    fixed = TaskGraph()
    fixed.task("a", "One.")
    fixed.task("b", "Two.", continues="a")
    fixed.task("bad", lambda: 1, after=["b"])
    fixed.task("c", "Three.", continues="b", after=["bad"])
    done = run(fixed, server, store=store, run_id="r", limit=1)
    assert done.of("kept") == ("a", "b")
    bodies = [request.body for request in server.requests]
    assert bodies[2] is not None
    assert bodies[1] is not None
    two, three = bodies[1]["messages"], bodies[2]["messages"]
    assert json.dumps(three[: len(two)]) == json.dumps(two)
    assert len(asked(server)) == 3
    assert done.tasks["c"].session is not None
    assert done.tasks["c"].session.messages[1].text == done["a"]


def test_what_was_edited_and_what_depends_on_it_runs_anew(server: ProviderServer, store: Store) -> None:
    first = run(graph_of(24), server, store=store, run_id="r")
    second = run(graph_of(24, edited=9), server, store=store, run_id="r")
    below = descendants(graph_of(24), "t9")
    assert set(second.of("finished")) == below
    assert set(second.changed) == below
    assert all(second[key] == first[key] for key in second.of("kept"))
    third = run(graph_of(24), server, store=store, run_id="r")
    assert set(third.of("kept")) == set(first), "results of the definition before are still there"


def descendants(graph: TaskGraph, key: str) -> set[str]:
    found = {key}
    for each in graph.order():
        if found & set(graph[each].upstream):
            found.add(each)
    return found


def test_another_session_or_version_is_another_definition(server: ProviderServer, store: Store) -> None:
    def graph(version: str, factor: int) -> TaskGraph:
        made = TaskGraph()
        made.task("n", partial(_times, factor), version=version)
        made.task("ask", "How many?", after=["n"])
        return made

    run(graph("1", 2), server, store=store, run_id="r")
    assert run(graph("1", 2), server, store=store, run_id="r").of("kept") == ("n", "ask")
    assert run(graph("2", 2), server, store=store, run_id="r").of("kept") == ()
    assert run(graph("1", 3), server, store=store, run_id="r").of("kept") == ()
    other = session()
    other.append({"role": "user", "content": "Hello"})
    other.append({"role": "assistant", "content": "Hi!"})
    assert run(graph("1", 2), server, other, store=store, run_id="r").of("kept") == ()


def _times(factor: int) -> int:
    return 21 * factor


def test_edited_code_is_another_definition(server: ProviderServer, store: Store) -> None:
    def kept(work: Callable[[], object]) -> tuple[str, ...]:
        graph = TaskGraph()
        graph.task("n", work)
        return run(graph, server, store=store, run_id="r").of("kept")

    assert kept(lambda: [x + 1 for x in (1, 2)]) == ()
    assert kept(lambda: [x + 1 for x in (1, 2)]) == ("n",)
    assert kept(lambda: [x + 2 for x in (1, 2)]) == ()
    assert kept(lambda: [x + 1 for x in (1, 3)]) == ()


def test_a_failed_task_is_tried_again_by_the_next_run(server: ProviderServer, store: Store) -> None:
    broken = [True]

    def job() -> str:
        if broken[0]:
            raise ValueError("not yet")
        return "now"

    graph = TaskGraph()
    graph.task("a", "One.")
    graph.task("job", job, after=["a"])
    graph.task("b", "Two.", after=["job"])
    first = run(graph, server, store=store, run_id="r", on_failure="skip-dependents")
    assert [found.status for found in first.tasks.values()] == ["finished", "failed", "skipped"]
    broken[0] = False
    second = run(graph, server, store=store, run_id="r")
    assert [found.status for found in second.tasks.values()] == ["kept", "finished", "finished"]
    assert sum(asked(server).values()) == 2


def test_a_spent_budget_is_gone_on_from_with_another(server: ProviderServer, store: Store) -> None:
    graph = TaskGraph()
    for number in range(6):
        graph.task(f"t{number}", f"Task {number}.", after=[f"t{number - 1}"] if number else [])
    with pytest.raises(BudgetError) as raised:
        run(graph, server, store=store, run_id="r", budget=Budget(tokens=1_000))
    there = raised.value.run.of("finished")
    assert 0 < len(there) < 6
    assert run(graph, server, store=store, run_id="r").of("kept") == there
    assert set(asked(server).values()) == {1}


def test_what_a_store_cannot_hold_is_refused(server: ProviderServer, store: Store) -> None:
    graph = TaskGraph()
    graph.task("odd", object)
    with pytest.raises(TaskError) as raised:
        run(graph, server, store=store)
    assert isinstance(raised.value.__cause__, GraphError)
    assert "that a store cannot hold" in str(raised.value.__cause__)
    graph = TaskGraph()
    graph.task("pair", lambda: (1, {"a": None}))
    assert run(graph, server, store=store)["pair"] == [1, {"a": None}]


def test_a_worker_may_open_the_session_by_its_id(server: ProviderServer, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    graph = TaskGraph()
    graph.task("talk", partial(talk, url, server.openai_url))
    graph.task("more", "And then?", continues="talk")
    with open_store(url) as store:
        done = run(graph, server, store=store, run_id="r")
        talked = done.tasks["talk"].session_id
        assert talked is not None
        assert [message.text for message in store.messages(talked)] == ["What is it?", done["talk"]]
    last = done.tasks["more"].session
    assert last is not None
    assert [message.text for message in last.messages] == [
        "What is it?",
        done["talk"],
        "And then?",
        done["more"],
    ]


def talk(url: str, base_url: str, session_id: str) -> str:
    """What a worker does: it opens the store itself."""
    with (
        open_store(url) as store,
        openai.OpenAI(base_url=base_url, api_key="any", max_retries=0) as client,
    ):
        mine = Session.load(store, session_id, client=client)
        said = mine.respond("What is it?").text
        mine.save()
        return said


# One process at a time


def test_a_run_that_another_process_holds_is_refused(server: ProviderServer, store: Store) -> None:
    held = store.take("graph/r", owner="elsewhere/7/x", seconds=60)
    assert held
    with pytest.raises(RunHeldError, match="'elsewhere/7'"):
        run(graph_of(3), server, store=store, run_id="r")
    store.release("graph/r", owner="elsewhere/7/x")
    assert run(graph_of(3), server, store=store, run_id="r").ok
    assert store.holder("graph/r") is None


def test_the_lease_of_a_process_that_is_no_more_is_taken_over(store: Store) -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    mine = Tenure(store, "r")
    machine = mine.owner.rsplit("/", 2)[0]
    assert store.take("graph/r", f"{machine}/{process.pid}/x", 3600)
    mine.take()
    holder = store.holder("graph/r")
    assert holder is not None
    assert holder.owner == mine.owner
    with pytest.raises(RunHeldError):
        Tenure(store, "r").take()
    mine.end()
    Tenure(store, "r").take()


def test_a_lease_that_was_lost_stops_the_run(
    server: ProviderServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmbuffer.graph.journal.LEASE_SECONDS", 0.03)
    graph = TaskGraph()

    async def rob() -> None:
        # On a busy machine the lease may have lapsed by itself, or be renewed in between.
        while not store.take("graph/r", "thief/1/x", 60):
            holder = store.holder("graph/r")
            if holder is not None:
                store.release("graph/r", holder.owner)
        await anyio.sleep_forever()

    graph.task("rob", rob)
    with pytest.raises(RunHeldError, match="taken over"):
        run(graph, server, store=store, run_id="r")
    holder = store.holder("graph/r")
    assert holder is not None
    assert holder.owner == "thief/1/x"


@pytest.mark.parametrize("run_id", ["", "a/b", 7])
def test_a_run_id_is_a_plain_text(server: ProviderServer, store: Store, run_id: Any) -> None:
    with pytest.raises(GraphError, match=re.escape(repr(run_id))):
        run(graph_of(1), server, store=store, run_id=run_id)


# Looking after it


def test_a_run_can_be_forgotten_and_moved(server: ProviderServer, store: Store) -> None:
    run(graph_of(9), server, store=store, run_id="r")
    run(graph_of(2), server, store=store, run_id="s")
    with open_store("memory:") as copy:
        copy.import_(store.export())
        assert len(run(graph_of(9), server, store=copy, run_id="r").of("kept")) == 9
    assert forget_run(store, "r") == 9
    left = {record.name for record in store.sessions()}
    assert left == {None, "t0", "t1"}
    assert run(graph_of(9), server, store=store, run_id="r").of("kept") == ()
    assert forget_run(store, "nobody") == 0
