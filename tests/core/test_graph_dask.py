"""Functions of a graph on a real Dask cluster of processes: results, errors, retries, cancelling, sessions by their ids."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import openai
import pytest
from tests.graph_runs import session

from llmbuffer.errors import TaskError
from llmbuffer.graph import GraphRun, TaskGraph
from llmbuffer.limits import Retry
from llmbuffer.session import Session
from llmbuffer.simulate import ProviderServer
from llmbuffer.store import open_store

# Dask and what it brings warn about their own use of what is old; ours would still be errors.
pytestmark = pytest.mark.filterwarnings("default:::(distributed|dask|tornado|zmq).*")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes on the loopback interface."""
    try:
        distributed: Any = importlib.import_module("distributed")  # it has no types
    except ModuleNotFoundError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{error.name} is not installed: the extra 'dask' brings it")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            host="127.0.0.1",
            silence_logs=50,
        ) as local,
        distributed.Client(local) as client,
    ):
        yield client


def run(graph: TaskGraph, cluster: Any, **options: Any) -> GraphRun:
    return anyio.run(partial(graph.run, session(), executor=cluster.get_executor(pure=False), **options))


def whose() -> int:
    return os.getpid()


def double(n: int) -> int:
    return 2 * n


def add(key: int, workers: int) -> int:
    """Names that Dask's own ``submit`` takes, too."""
    return key + workers


def broken() -> None:
    raise ValueError("on the worker")


def flaky(marks: str) -> str:
    """Fails in the first attempt, wherever it runs."""
    mark = Path(marks, "tried")
    if mark.exists():
        return "at last"
    mark.touch()
    raise OSError("first")


def wait_for(path: str) -> str:
    while not Path(path).exists():
        time.sleep(0.01)
    return "released"


def talk(url: str, base_url: str, session_id: str) -> str:
    """A conversation on a worker: the session comes from the store, by its id."""
    with (
        open_store(url) as store,
        openai.OpenAI(base_url=base_url, api_key="any", max_retries=0) as client,
    ):
        mine = Session.load(store, session_id, client=client)
        said = mine.respond("What is it?").text
        mine.save()
        return f"{os.getpid()} {said}"


def test_functions_run_on_the_workers(cluster: Any) -> None:
    graph = TaskGraph()
    for number in range(8):
        graph.task(f"n{number}", partial(double, number))
    graph.task("pid", whose)
    graph.task("sum", add, after={"key": "n3", "workers": "n7"})

    @graph.task(after=["sum"])
    async def here(sum: int) -> tuple[int, int]:  # noqa: A002 - the name of the task
        return os.getpid(), sum

    done = run(graph, cluster)
    assert [done[f"n{number}"] for number in range(8)] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert done["pid"] != os.getpid()
    assert done["here"] == (os.getpid(), 20)


def test_what_a_worker_raises_comes_back(cluster: Any, tmp_path: Path) -> None:
    graph = TaskGraph()
    graph.task("broken", broken)
    with pytest.raises(TaskError) as raised:
        run(graph, cluster)
    assert isinstance(raised.value.__cause__, ValueError)
    assert str(raised.value.__cause__) == "on the worker"
    graph = TaskGraph()
    graph.task("flaky", partial(flaky, str(tmp_path)), retries=Retry(1, wait=0.0, when=lambda error: True))
    done = run(graph, cluster)
    assert (done["flaky"], done.tasks["flaky"].attempts) == ("at last", 2)


def test_a_cancelled_run_waits_for_no_worker(cluster: Any, tmp_path: Path) -> None:
    graph = TaskGraph()
    gate = tmp_path / "gate"
    for number in range(6):
        graph.task(f"t{number}", partial(wait_for, str(gate)))
    graph.task("late", partial(wait_for, str(gate)), timeout=0.2)
    with pytest.raises(TaskError, match="'late' failed with TimeoutError"):
        run(graph, cluster)
    gate.touch()
    graph = TaskGraph()
    graph.task("next", partial(double, 4))
    assert run(graph, cluster)["next"] == 8


def test_sessions_meet_in_a_store(cluster: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    with ProviderServer() as server:
        graph = TaskGraph()
        for number in range(4):
            graph.task(f"talk{number}", partial(talk, url, server.openai_url))
            graph.task(f"more{number}", "And then?", continues=f"talk{number}")

        async def main() -> GraphRun:
            async with openai.AsyncOpenAI(base_url=server.openai_url, api_key="any") as client:
                with open_store(url) as store:
                    executor = cluster.get_executor(pure=False)
                    return await graph.run(
                        session(), client=client, executor=executor, store=store, run_id="r"
                    )

        done = anyio.run(main)
        again = anyio.run(main)
        assert len(server.requests) == 8
    assert set(again.of("kept")) == set(graph.order())
    for number in range(4):
        pid, _, said = done[f"talk{number}"].partition(" ")
        assert int(pid) != os.getpid()
        last = done.tasks[f"more{number}"].session
        assert last is not None
        assert [message.text for message in last.messages][:3] == ["What is it?", said, "And then?"]
