"""The demo on the real engine: tokens are asserted, never times; and no process is left, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import need
from tests.short_script import short_script

from llmbuffer import LLMBufferError
from llmbuffer.demo import Demo, engines, run_demo
from llmbuffer.demo.clock import DemoClock

PROGRAM = [sys.executable, "-c", "from llmbuffer.cli import main; main()", "demo", "--engine", "llamacpp"]
SCRIPT = short_script()


@pytest.fixture(scope="module")
def demo() -> Demo:
    need("xllamacpp", "gguf")
    return run_demo(SCRIPT)


def test_the_engine_reads_what_the_arms_share(demo: Demo) -> None:
    assert (demo.engine, demo.measured) == ("llamacpp", True)
    sums = {name: arm.sums for name, arm in demo.arms.items()}
    assert {each.requests for each in sums.values()} == {10}
    assert sums["default"].hit_ratio < sums["per-turn"].hit_ratio < sums["buffered"].hit_ratio
    assert sums["buffered"].hit_ratio < sums["oracle"].hit_ratio
    assert sums["buffered"].computed_tokens < sums["default"].computed_tokens / 2
    # What one arm has sent is in no other's cache: each computes its first prompt from the start.
    firsts = [arm.turns[0].sent[0].exchange for arm in demo.arms.values()]
    assert [first.read_tokens for first in firsts] == [0, 0, 0, 0]


def test_forks_read_what_the_coordinator_has_sent(demo: Demo) -> None:
    default, buffered = demo.workers["default"], demo.workers["buffered"]
    for fork, fresh in zip(buffered.workers, default.workers, strict=True):
        assert fork.sums.hit_ratio > fresh.sums.hit_ratio
    # The first fork computes again what followed the changing text of the last turn, which is gone; the second reads it.
    first, second = (worker.sent[0].exchange for worker in buffered.workers)
    assert second.computed_tokens < first.computed_tokens / 2
    assert second.hit_ratio > 0.85


def test_every_call_was_timed(demo: Demo) -> None:
    document = demo.to_json()
    assert document["measured"] is True
    assert document["default"]["prompt_seconds_per_turn"] > 0
    assert document["workers"]["times_faster"] > 0


def test_the_simulated_run_is_near_the_real_one(demo: Demo) -> None:
    simulated = run_demo(SCRIPT, engine="simulate")
    for name, arm in demo.arms.items():
        assert simulated.arms[name].sums.hit_ratio == pytest.approx(arm.sums.hit_ratio, abs=0.03), name


def test_a_server_that_does_not_start_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    need("xllamacpp", "gguf")

    def broken(path: Path, _texts: list[str]) -> Path:
        path.write_bytes(b"no model")
        return path

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("llmbuffer.demo.model.write_demo_model", broken)
    with pytest.raises(LLMBufferError, match=r"no llama.cpp server for .*demo.gguf"):
        run_demo(SCRIPT, engine="llamacpp")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("handing_over", [False, True])
def test_an_interrupt_while_the_server_starts_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch, handing_over: bool
) -> None:
    """Also where the main thread has not come back from the call that gave the start to another."""
    need("xllamacpp", "gguf")
    kills: list[Any] = []
    raised = threading.Event()

    class Interrupted(threading.Timer):
        """Started when the process runs and its address is waited for."""

        def start(self) -> None:
            kills.append(self.function)
            signal.raise_signal(signal.SIGINT)
            raised.set()

    class Starter(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            future = super().submit(*args, **kwargs)
            if handing_over:
                raised.wait()
            return future

    monkeypatch.setattr("llmbuffer.demo.engines.ThreadPoolExecutor", Starter)
    monkeypatch.setattr("llmbuffer.engine.server.Timer", Interrupted)
    with (
        engines.fresh_engines(SCRIPT, measured=True, threads=1) as fresh,
        pytest.raises(KeyboardInterrupt),
        fresh(DemoClock()),
    ):
        pytest.fail("it started")
    (kill,) = kills
    assert not _alive(kill.__self__.pid)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopping_it_leaves_nothing_behind(stop: signal.Signals, tmp_path: Path) -> None:
    """As Ctrl-C in a terminal does, SIGINT goes to the whole group; SIGTERM to the command alone."""
    need("xllamacpp", "gguf")
    process = subprocess.Popen(
        PROGRAM,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    server = _child_of(process)
    if stop is signal.SIGINT:
        os.killpg(process.pid, stop)
    else:
        process.send_signal(stop)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (128 + stop, "")
    assert err == ("llmbuffer: stopped\n" if stop is signal.SIGINT else "")
    assert not _alive(server)
    assert list(tmp_path.iterdir()) == []


def _child_of(process: subprocess.Popen[str]) -> int:
    """The process id of the engine's server, once it runs."""
    tasks = Path(f"/proc/{process.pid}/task")
    if not tasks.exists():
        process.kill()
        pytest.skip("no list of child processes here")
    limit = time.monotonic() + 60
    while time.monotonic() < limit and process.poll() is None:
        with suppress(OSError):  # a thread that has just ended
            found = [pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()]
            if found:
                return int(found[0])
    process.kill()
    pytest.fail(f"no server within a minute: {process.communicate()}")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False
