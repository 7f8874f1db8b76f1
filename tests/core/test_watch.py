"""Watching a log that grows, is rotated, is cut off, and ends in half a line."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report_runs import SECRET, served_log
from typer.testing import CliRunner

from llmbuffer.cli.app import app
from llmbuffer.report.following import Follower

PROGRAM = [sys.executable, "-c", "from llmbuffer.cli import main; main()", "watch"]
LINE = '{"at": %d, "model": "gpt-5.5", "status": 200, "usage": {"input_tokens": 2000, "cache_read_tokens": 1000}}\n'


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


@pytest.fixture
def follower(log: Path) -> Iterator[Follower]:
    with Follower(log) as opened:
        yield opened


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as opened:
        opened.write(content)


def test_half_a_line_waits_for_its_rest(log: Path, follower: Follower) -> None:
    assert list(follower.lines()) == []
    append(log, b"one\ntw")
    assert list(follower.lines()) == [b"one"]
    assert list(follower.lines()) == []
    append(log, b"o\nthree\n")
    assert list(follower.lines()) == [b"two", b"three"]


def test_a_rotated_log_is_read_to_its_end_first(log: Path, follower: Follower) -> None:
    append(log, b"one\n")
    assert list(follower.lines()) == [b"one"]
    append(log, b"two\nhalf")
    log.rename(log.with_suffix(".1"))
    append(log.with_suffix(".1"), b" done\n")
    assert list(follower.lines()) == [b"two", b"half done"]  # nothing has taken its place yet
    append(log, b"three\n")
    assert list(follower.lines()) == [b"three"]
    append(log, b"left")
    assert list(follower.lines()) == []
    log.unlink()
    append(log, b"four\n")
    assert list(follower.lines()) == [b"left", b"four"]


def test_a_log_that_was_cut_off_is_read_from_its_beginning(log: Path, follower: Follower) -> None:
    append(log, b"one\ntwo\nthr")
    assert list(follower.lines()) == [b"one", b"two"]
    log.write_bytes(b"")
    append(log, b"a\n")
    assert list(follower.lines()) == [b"a"]


def test_a_line_beyond_measure_is_left_out(
    log: Path, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmbuffer.report.following._LONGEST", 100)
    append(log, b"one\n" + b"x" * 500)
    assert list(follower.lines()) == [b"one"]
    append(log, b"x" * 500)
    assert list(follower.lines()) == []
    append(log, b"x\ntwo\n")
    assert list(follower.lines()) == [b"two"]
    assert follower.dropped == 1


@given(st.lists(st.binary(max_size=8).filter(lambda line: b"\n" not in line)), st.data())
def test_every_line_comes_once_however_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], data: st.DataObject
) -> None:
    log = tmp_path_factory.mktemp("follow") / "log"
    content = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=5)))
    found: list[bytes] = []
    with Follower(log) as follower:
        for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
            append(log, content[start:end])
            found += follower.lines()
    assert found == lines


# The command


def test_once_shows_what_is_there(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    served_log(log)
    append(log, b'no json\n{"at": 1')
    done = CliRunner().invoke(app, ["watch", str(log), "--once", "-n", "3"])
    assert done.exit_code == 0, done.output
    assert "tools-reordered at tools[0]" in done.stdout
    assert "4 breaks" in done.stdout
    assert SECRET not in done.stdout
    assert "1 lines are no requests" in done.stderr
    told = CliRunner().invoke(app, ["watch", str(log), "--once", "--json"])
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    assert [row["number"] for row in rows] == list(range(1, 25))
    assert {row["number"]: row["break"]["cause"] for row in rows if row["break"]} == {
        9: "system-changed",
        13: "tools-reordered",
        17: "expired",
        21: "history-truncated",
    }
    assert SECRET not in told.stdout


def test_once_without_a_log_says_so(log: Path) -> None:
    done = CliRunner().invoke(app, ["watch", str(log), "--once"])
    assert done.exit_code == 2
    assert "there is no log" in done.stderr


def started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.parametrize("rotate", [False, True])
def test_it_follows_a_log_until_ctrl_c(log: Path, rotate: bool) -> None:
    process = started(str(log), "--json")
    try:
        assert process.stdout is not None
        append(log, (LINE % 1).encode())
        first = json.loads(process.stdout.readline())
        if rotate:
            log.rename(log.with_suffix(".1"))
        append(log, (LINE % 2)[:30].encode())
        append(log, (LINE % 2)[30:].encode())
        second: dict[str, Any] = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert [first["at"], second["at"]] == [1, 2]
    assert second["hit_ratio"] == 0.5
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err


def test_a_terminal_shows_a_live_table_and_gets_its_cursor_back(log: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, str(log)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": "120", "LINES": "30", "TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    try:
        append(log, (LINE % 7).encode())
        while b"2,000" not in shown:
            ready, _, _ = select.select([ours], [], [], 60)
            assert ready, "nothing was shown for a minute"
            shown += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        with suppress(OSError):  # a terminal whose last program has ended cannot be read
            while piece := os.read(ours, 65536):
                shown += piece
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"0.500" in shown
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")
    assert b"Traceback" not in shown


def test_a_reader_that_goes_away_ends_it(log: Path) -> None:
    append(log, b"".join((LINE % number).encode() for number in range(3000)))
    process = started(str(log), "--json")
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["number"] == 1
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
        process.stderr.close()
    finally:
        process.kill()
        process.wait()
