"""The gate across processes: a lease in the store, and a note that the prefix is warm."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.fanning import cold, fan_out_over, fanned, session_of, tasks
from tests.servers import need_redis, redis_server

from llmbuffer.fanout.gate import Gate
from llmbuffer.fanout.post import LEASE, Post
from llmbuffer.simulate import ProviderServer, Reply
from llmbuffer.store import Compiled, Store, open_store
from llmbuffer.testing import FakeClock

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000.0)


@pytest.fixture
def store(clock: FakeClock) -> Store:
    return open_store("memory:", clock=clock)


def post_of(store: Store, owner: str, spawned: list[Any], **options: Any) -> Post:
    return Post(store, "prefix", owner, ttl=300.0, spawn=spawned.append, **options)


def processes(store_url: str, server_url: str, count: int, number: int) -> list[int]:
    """So many processes fan out at the same time; how many workers led in each."""
    command = [sys.executable, "-m", "tests.fanning", store_url, server_url, str(number)]
    running = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    led = []
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        led.append(int(out))
    return led


@pytest.fixture(params=["sqlite", "redis"])
def store_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store that several processes may open."""
    folder = tmp_path_factory.mktemp("fan")
    if request.param == "sqlite":
        yield f"sqlite:///{folder / 'store.db'}"
        return
    pytest.importorskip("redis")
    need_redis()
    with redis_server(folder) as server:
        yield server.url


def test_of_two_processes_over_one_store_one_writes(store_url: str) -> None:
    with ProviderServer(latency=(0.3, 0.0)) as server:
        led = processes(store_url, server.url, 2, 8)
        assert len(server.requests) == 16
        assert cold(server) == 1
    assert sorted(led) == [0, 1]


def test_a_later_process_finds_the_note_and_holds_nobody(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with ProviderServer(latency=(0.02, 0.0)) as server:
        for led in (1, 0):
            assert sum(each.led for each in fan_out_over(url, server.url, 4)) == led
        assert cold(server) == 1


def test_a_run_leaves_no_lease_behind(store: Store) -> None:
    with ProviderServer(replies=[Reply(status=500)] * 3) as server:
        results = fanned("anthropic", server, session_of(store=store), tasks(3))
    assert not any(each.ok for each in results)
    assert [name for name in sorted(store.keys()) if name.startswith("fanout/")] == []
    other: list[Any] = []
    with ProviderServer() as server:
        assert fanned("anthropic", server, session_of(store=store), tasks(3)).ok
    [note] = [name for name in sorted(store.keys()) if name.startswith("fanout/")]
    assert store.holder(note) is None
    assert other == []


def test_the_lease_of_a_leader_that_died_ends_and_another_one_leads(store: Store, clock: FakeClock) -> None:
    store.take("fanout/prefix", "the dead one", LEASE)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    async def enter() -> bool:
        gate = Gate(post=post_of(store, "we", [], sleep=sleep), sleep=sleep)
        return await gate.enter() is not None

    assert anyio.run(enter)
    assert LEASE <= sum(slept) < LEASE + 1.5
    assert slept[:4] == [0.05, 0.1, 0.2, 0.4]


def test_whoever_waits_for_another_process_goes_on_when_that_one_is_warm(
    store: Store, clock: FakeClock
) -> None:
    theirs: list[Callable[[], Coroutine[Any, Any, None]]] = []
    other = post_of(store, "they", theirs)
    waits: list[str] = []

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)
        other.warmed()
        await theirs[-1]()

    async def enter() -> object:
        assert await other.take()
        gate = Gate(post=post_of(store, "we", [], sleep=sleep), sleep=sleep)
        return await gate.enter(lambda: waits.append("once")), gate.is_open

    assert anyio.run(enter) == (None, True)
    assert waits == ["once"]


def test_the_lease_is_renewed_while_its_holder_leads(store: Store, clock: FakeClock) -> None:
    spawned: list[Callable[[], Coroutine[Any, Any, None]]] = []
    post: Post

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)
        if clock.now > 1_000 + 3 * LEASE:
            await post.settle()

    post = post_of(store, "we", spawned, sleep=sleep)

    async def lead() -> list[bool]:
        taken = [await post.take()]
        [renewed] = spawned
        held: list[bool] = []

        async def watched(seconds: float) -> None:
            held.append(store.holder("fanout/prefix") is not None)
            await sleep(seconds)

        post._sleep = watched
        await renewed()
        return taken + held

    assert all(anyio.run(lead))
    assert clock.now > 1_000 + 3 * LEASE
    assert store.holder("fanout/prefix") is None


def test_the_note_lives_as_long_as_the_provider_keeps_the_prefix(store: Store, clock: FakeClock) -> None:
    async def told() -> list[bool]:
        spawned: list[Any] = []
        post = post_of(store, "we", spawned)
        found = [await post.is_warm()]
        post.warmed()
        await spawned[-1]()
        for _ in range(2):
            found.append(await post.is_warm())
            clock.advance(280)
        return [*found, await post.is_warm()]

    assert anyio.run(told) == [False, True, False, False]


def test_the_compiled_context_is_noted_as_warm_and_read(store: Store) -> None:
    store.put_compiled(Compiled("print", "anthropic", ttl=300.0))

    async def told() -> list[bool]:
        spawned: list[Any] = []
        post = post_of(store, "we", spawned, compiled=("print", "anthropic"))
        cold_at_first = await post.is_warm()
        post.warmed()
        await spawned[-1]()
        store.drop("fanout/prefix")
        return [cold_at_first, await post.is_warm()]

    assert anyio.run(told) == [False, True]


def test_a_lease_that_was_taken_while_the_task_was_cancelled_is_given_back(store: Store) -> None:
    async def cancelled() -> None:
        spawned: list[Any] = []
        gate = Gate(post=post_of(store, "we", spawned))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await gate.enter()
        for each in spawned:
            await each()

    anyio.run(cancelled)
    assert store.holder("fanout/prefix") is None


def test_a_gate_that_failed_lets_those_who_wait_lead_with_the_same_lease(store: Store) -> None:
    async def story() -> list[bool]:
        spawned: list[Any] = []
        gate = Gate(post=post_of(store, "we", spawned))
        found: list[bool] = []
        first = await gate.enter()
        assert first is not None

        async def second() -> None:
            found.append(await gate.enter() is not None)

        async with anyio.create_task_group() as group:
            group.start_soon(second)
            await anyio.wait_all_tasks_blocked()
            with first:
                pass
        found.append(store.holder("fanout/prefix") is not None)
        return found

    assert anyio.run(story) == [True, True]
