"""What was acknowledged survives kill -9, many writers and damaged bytes; `benchmarks/store_crash.py` does more of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from tests.redis_flips import flip_redis
from tests.servers import RedisServer, need_redis, redis_server
from tests.store_writers import crash_round, filled, flip, race_round


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    need_redis()
    with redis_server(tmp_path) as server:
        yield server


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    random, url = Random(3), f"sqlite:///{tmp_path}/a.db"
    assert sum(crash_round(url, random, count=2) for _ in range(6)) > 60


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


def test_redis_keeps_what_it_acknowledged_when_it_is_killed(server: RedisServer) -> None:
    def crash() -> None:
        server.kill()
        server.start()

    random = Random(3)
    assert sum(crash_round(server.url, random, 2, server_crash=crash) for _ in range(3)) > 30
    assert crash_round(server.url, random, 2) > 0


def test_no_turn_vanishes_when_eight_processes_append_to_one_session_in_redis(server: RedisServer) -> None:
    accepted, refused = race_round(server.url, 8, 5)
    assert accepted >= 5
    assert accepted + refused == 40


def test_every_changed_byte_in_redis_is_found_or_changes_nothing(server: RedisServer) -> None:
    random, told = Random(5), filled(server.url)
    found = [flip_redis(server.url, random, told) for _ in range(30)]
    assert found.count("found") > 20
