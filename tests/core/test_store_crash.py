"""What was acknowledged survives kill -9, many writers and damaged bytes; `benchmarks/store_crash.py` does more of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from tests.crash_rounds import Told, crash_round
from tests.nursery import Nursery, nursery
from tests.postgres_server import PostgresServer, need_postgres, postgres
from tests.redis_flips import flip_redis
from tests.servers import RedisServer, need_redis, redis_server
from tests.store_writers import filled, flip, race_round, session_in

from llmbuffer import Message
from llmbuffer.errors import ConflictError
from llmbuffer.store import open_store
from llmbuffer.testing import FakeClock


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    need_redis()
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    need_postgres()
    with postgres(settings="fsync = on") as server:
        yield server


@pytest.fixture
def nest() -> Iterator[Nursery]:
    with nursery() as nest:
        yield nest


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, nest: Nursery) -> None:
    random, url, told = Random(3), f"sqlite:///{tmp_path}/a.db", Told()
    assert sum(crash_round(nest, url, random, 2, told=told) for _ in range(6)) > 60
    assert told.compactions > 3
    assert len(told.acknowledged) > 60


def test_a_message_that_is_lost_is_seen(tmp_path: Path, nest: Nursery) -> None:
    url, told = f"sqlite:///{tmp_path}/a.db", Told()
    crash_round(nest, url, Random(4), 1, told=told)
    (name, save), *_ = told.last.items()
    told.last[name] = save._replace(tags=save.tags | {"never said"})
    with pytest.raises(AssertionError, match="lost 1 of"):
        told.check(url)
    told.last[name] = save._replace(digest="of another save")
    with pytest.raises(AssertionError, match="is not as it was saved"):
        told.check(url)


def test_no_turn_vanishes_when_eight_processes_append_to_one_session(tmp_path: Path) -> None:
    accepted, refused = race_round(f"sqlite:///{tmp_path}/a.db", 8, 5)
    assert accepted >= 5
    assert accepted + refused == 40


def test_every_changed_byte_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path, random = tmp_path / "a.db", Random(5)
    told = filled(f"sqlite:///{path}")
    whole = path.read_bytes()
    found = [flip(path, whole, random, told) for _ in range(50)]
    assert found.count("found") > 20


def test_redis_keeps_what_it_acknowledged_when_it_is_killed(server: RedisServer, nest: Nursery) -> None:
    def crash() -> None:
        server.kill()
        server.start()

    random, told = Random(3), Told()
    for _ in range(3):
        crash_round(nest, server.url, random, 2, told=told, server_crash=crash)
    assert crash_round(nest, server.url, random, 2, told=told) > 0
    assert told.saves > 30
    assert told.compactions > 0


def test_no_turn_vanishes_when_eight_processes_append_to_one_session_in_redis(server: RedisServer) -> None:
    accepted, refused = race_round(server.url, 8, 5)
    assert accepted >= 5
    assert accepted + refused == 40


def test_every_changed_byte_in_redis_is_found_or_changes_nothing(server: RedisServer) -> None:
    random, told = Random(5), filled(server.url)
    found = [flip_redis(server.url, random, told) for _ in range(30)]
    assert found.count("found") > 20


def test_postgres_keeps_what_it_acknowledged_when_it_is_killed(
    database: PostgresServer, nest: Nursery
) -> None:
    random, told, url = Random(3), Told(), database.url("crash")
    crash_round(nest, url, random, 2, told=told, server_crash=database.crash)
    assert crash_round(nest, url, random, 2, told=told) > 0
    assert told.saves > 15


def test_no_turn_vanishes_when_eight_processes_append_to_one_session_in_postgres(
    database: PostgresServer,
) -> None:
    accepted, refused = race_round(database.url("race"), 8, 5)
    assert accepted >= 5
    assert accepted + refused == 40


def assert_it_goes_on_when_the_clock_is_set_back(url: str) -> None:
    """By an hour: what was kept for a time stays, nobody takes what another one holds, and saves go on."""
    clock = FakeClock(10_000.0)
    with open_store(url, clock=clock) as store:
        session = session_in(store, "s1")
        session.append(Message("user", "before"))
        session.save()
        store.put("value", b"kept", ttl=60)
        assert store.take("lease", "ann", 60)
        clock.now -= 3_600
        session.append(Message("user", "after"))
        session.save()
        store.vacuum()
        assert not store.take("lease", "bob", 60)
        assert store.verify() == ()
    with open_store(url, clock=clock) as store:
        assert [message.text for message in store.messages("s1")] == ["before", "after"]
        assert store.get("value") == b"kept"
        clock.now += 3_661
        assert store.get("value") is None
        assert store.take("lease", "bob", 60)
        assert store.verify() == ()


def test_a_clock_that_is_set_back_loses_nothing(tmp_path: Path) -> None:
    assert_it_goes_on_when_the_clock_is_set_back(f"sqlite:///{tmp_path}/a.db")


def test_a_clock_that_is_set_back_loses_nothing_in_redis(server: RedisServer) -> None:
    assert_it_goes_on_when_the_clock_is_set_back(server.url)


def test_a_clock_that_is_set_back_loses_nothing_in_postgres(database: PostgresServer) -> None:
    assert_it_goes_on_when_the_clock_is_set_back(database.url("clock"))


def test_a_log_of_redis_that_was_cut_off_costs_its_last_save_alone(server: RedisServer) -> None:
    """The server leaves out what is half in its log; whoever saved it is told that others are not where he is."""
    with open_store(server.url) as store:
        session = session_in(store, "s1")
        for text in ("one", "two", "three"):
            session.append(Message("user", text))
            session.save()
        server.kill()
        [log] = server.folder.glob("appendonlydir/*.incr.aof")
        log.write_bytes(log.read_bytes()[:-10])
        server.start()
        assert [message.text for message in store.messages("s1")] == ["one", "two"]
        assert store.verify() == ()
        session.append(Message("user", "four"))
        with pytest.raises(ConflictError):
            session.save()
        assert [message.text for message in store.messages("s1")] == ["one", "two"]
