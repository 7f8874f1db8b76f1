"""What was acknowledged survives kill -9, many writers and damaged bytes; `benchmarks/store_crash.py` does more of it."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.store_writers import crash_round, filled, flip, race_round


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    random = Random(3)
    assert sum(crash_round(tmp_path / "a.db", random, count=2) for _ in range(10)) > 100


def test_no_turn_vanishes_when_eight_processes_append_to_one_session(tmp_path: Path) -> None:
    accepted, refused = race_round(tmp_path / "a.db", 8, 5)
    assert accepted >= 5
    assert accepted + refused == 40


def test_every_changed_byte_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path, random = tmp_path / "a.db", Random(5)
    told = filled(path)
    whole = path.read_bytes()
    found = [flip(path, whole, random, told) for _ in range(50)]
    assert found.count("found") > 20
