"""The demo: that its arms say the same, that its figures add up, and that its command ends cleanly whatever happens."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.console import Console
from tests.loopback import Failure, loopback
from tests.short_script import CHANGING, short_script

from llmbuffer import LLMBufferError, cli, observing
from llmbuffer.cli import output
from llmbuffer.demo import Demo, engines, run_demo
from llmbuffer.demo.arms import ARMS, ArmName, Buffered
from llmbuffer.demo.arms import told as changing_texts
from llmbuffer.demo.broken import what_broke
from llmbuffer.demo.client import Engine, Exchange, HttpEngine, ScriptedClient, SilentEngine, SimulatedEngine
from llmbuffer.demo.clock import SECONDS_PER_CALL, DemoClock
from llmbuffer.demo.display import show
from llmbuffer.demo.figures import ArmFigures, WorkerFigures
from llmbuffer.demo.measured import Sent, Stretch, Sums, run_session, run_workers
from llmbuffer.demo.memory import session_memory
from llmbuffer.demo.page import check_target, page, picture, write_page
from llmbuffer.demo.script import Script, script
from llmbuffer.demo.vocabulary import BytePairs
from llmbuffer.messages import Message
from llmbuffer.parts import ToolResult

SCRIPT = short_script()


@contextmanager
def silent(_clock: DemoClock) -> Iterator[Engine]:
    yield SilentEngine()


def nobody(_name: ArmName) -> None:
    pass


def bodies(name: ArmName, *, workers: bool = False, of: Script = SCRIPT) -> list[dict[str, Any]]:
    run = run_workers if workers else run_session
    return [json.loads(call.body) for part in run(name, of, silent, nobody) for call in part.sent]


@pytest.fixture(scope="module")
def demo() -> Demo:
    return run_demo(SCRIPT, engine="simulate")


@pytest.fixture(scope="module")
def whole() -> Demo:
    return run_demo(script(), engine="simulate")


# What the arms say


def told(body: dict[str, Any]) -> set[str]:
    return set(CHANGING.findall(json.dumps(body)))


def clocks(seen: set[str]) -> set[str]:
    return {text for text in seen if text.startswith("2026")}


@pytest.mark.parametrize("workers", [False, True])
def test_every_arm_tells_the_model_the_same_at_every_call(workers: bool) -> None:
    default, per_turn, buffered = (
        [told(body) for body in bodies(name, workers=workers)] for name in ("default", "per-turn", "buffered")
    )
    assert per_turn == buffered
    assert len(default) == len(buffered) > 5
    clock = DemoClock()
    for ours, theirs in zip(buffered, default, strict=True):
        assert len(ours) == 3
        assert ours - clocks(ours) == theirs - clocks(theirs)
        assert clocks(theirs) == {clock.shown}
        assert clocks(ours) <= {shown for body in default for shown in clocks(body)}
        clock.tick()


def test_the_clock_of_the_turn_is_that_of_its_first_call() -> None:
    calls = [len(turn.steps) for turn in SCRIPT.turns]
    clock, expected = DemoClock(), []
    for count in calls:
        expected += [{clock.shown}] * count
        for _ in range(count):
            clock.tick()
    assert [clocks(told(body)) for body in bodies("buffered")] == expected
    assert clock() == SECONDS_PER_CALL * sum(calls)


def without_context(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages without dynamic parts; one text part that is left is a string again."""
    kept = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            parts = [part for part in content if not part["text"].startswith("<context name=")]
            content = parts[0]["text"] if len(parts) == 1 else parts
        kept.append({**message, "content": content})
    return kept


@pytest.mark.parametrize("workers", [False, True])
def test_apart_from_the_changing_texts_the_arms_send_the_same(workers: bool) -> None:
    oracle, buffered = bodies("oracle", workers=workers), bodies("buffered", workers=workers)
    default = bodies("default", workers=workers)
    assert not any(told(body) for body in oracle)
    for bare, ours, theirs in zip(oracle, buffered, default, strict=True):
        assert without_context(ours["messages"]) == without_context(bare["messages"])
        assert theirs["messages"][1:] == bare["messages"][1:]
        assert theirs["messages"][0]["content"].startswith(bare["messages"][0]["content"])
        assert ours["tools"] == bare["tools"] == theirs["tools"] == list(SCRIPT.tools)
        assert (ours["max_tokens"], theirs["max_tokens"], bare["max_tokens"]) == (1, 1, 1)


def test_the_default_arm_changes_its_system_prompt_as_late_as_it_can() -> None:
    first, second = (body["messages"][0]["content"] for body in bodies("default")[:2])
    same = first[: next(at for at, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1])]
    assert len(first) == len(second)
    assert first.removeprefix(same) == first[-len(first.removeprefix(same)) :]
    assert len(first) - len(same) <= 2  # the last digits of the clock


def test_workers_start_from_what_the_coordinator_said() -> None:
    lead = len(SCRIPT.coordinator[0].steps)
    for name in ("default", "buffered"):
        sent = bodies(name, workers=True)
        before = without_context(sent[lead - 1]["messages"])[1:]
        starts = [sent[lead], sent[lead + len(SCRIPT.workers[0].steps)]]
        for start, worker in zip(starts, SCRIPT.workers, strict=True):
            said = without_context(start["messages"])[1:]
            assert said[: len(before)] == before
            assert said[-1] == {"role": "user", "content": worker.task}
            assert len(said) == len(before) + 2


# What it comes to


def test_the_arms_are_as_far_apart_as_they_must_be(demo: Demo) -> None:
    ratios = [demo.arms[name].sums.hit_ratio for name in ("default", "per-turn", "buffered", "oracle")]
    assert ratios == sorted(ratios)
    assert len(set(ratios)) == 4
    assert demo.workers["buffered"].sums.hit_ratio > demo.workers["default"].sums.hit_ratio
    assert demo.arms["buffered"].cost_usd["anthropic"] < demo.arms["default"].cost_usd["anthropic"]


def test_the_whole_script_reaches_what_it_must_show(whole: Demo) -> None:
    """Simulated with the engine's rules and the demo's own vocabulary; on the engine, `llmbuffer demo` measures it."""
    found = whole.improvement()
    assert whole.arms["buffered"].sums.hit_ratio >= 0.92
    assert whole.share_of_oracle is not None
    assert whole.share_of_oracle >= 0.96
    assert found["computed_tokens"] >= 0.83
    assert all(worker.sums.hit_ratio >= 0.90 for worker in whole.workers["buffered"].workers)
    assert whole.workers["buffered"].sums.hit_ratio >= 0.76


def test_a_clock_at_every_call_costs_no_more_at_the_tail(whole: Demo) -> None:
    """What the turn's clock leaves out, the engine's own placement can say: the default arm gains nothing by it."""
    tale = script()
    clock, seen = DemoClock(), list[Exchange]()
    engine = SimulatedEngine(clock, BytePairs.trained(engines.script_texts(tale)).count)
    client = ScriptedClient(engine, lambda _body, exchange: seen.append(exchange))
    session = Buffered(tale, client, clock, placement="tail").session
    for turn in tale.turns:
        client.expect(step.reply for step in turn.steps)
        user: str | None = turn.user
        for step in turn.steps:
            request = session.request(user, dynamic=changing_texts(turn, clock))
            request.observe(client.chat.completions.create(**request.kwargs))
            results = zip(step.reply.call_ids, step.results, strict=True)
            session.append([Message("tool", [ToolResult(*result)]) for result in results])
            clock.tick()
            user = None
    assert Sums.of(seen).computed_tokens < 1.1 * whole.arms["buffered"].sums.computed_tokens


def test_the_prompts_fit_the_engine(whole: Demo) -> None:
    longest = max(call.exchange.input_tokens for turn in whole.arms["default"].turns for call in turn.sent)
    assert longest <= 25_000 < engines.CONTEXT


KEYS = {"engine", "measured", "default", "per_turn", "buffered", "oracle", "improvement", "turns", "workers"}
ARM_KEYS = {
    *("requests", "input_tokens", "cache_read_tokens", "cache_write_tokens", "fresh_tokens", "output_tokens"),
    *("hit_ratio", "computed_tokens", "prompt_seconds", "prompt_seconds_per_turn", "measured", "broken"),
    *("cost_usd_per_100_sessions", "memory_bytes_per_session"),
}


def test_the_document_has_its_keys_and_adds_up(demo: Demo) -> None:
    document = json.loads(json.dumps(demo.to_json(), allow_nan=False))
    assert set(document) == KEYS
    assert (document["engine"], document["measured"]) == ("simulate", False)
    for name in ("default", "per_turn", "buffered", "oracle"):
        arm = document[name]
        assert set(arm) == ARM_KEYS
        assert set(arm["cost_usd_per_100_sessions"]) == {"anthropic", "openai"}
        assert arm["input_tokens"] == arm["cache_read_tokens"] + arm["computed_tokens"]
        assert arm["computed_tokens"] == sum(turn[name]["computed_tokens"] for turn in document["turns"])
        assert arm["requests"] == 10
        assert arm["prompt_seconds_per_turn"] is None
        assert arm["memory_bytes_per_session"] > 5_000
    assert [turn["turn"] for turn in document["turns"]] == [1, 2, 3]
    saved = document["improvement"]
    assert saved["computed_tokens"] == pytest.approx(
        1 - document["buffered"]["computed_tokens"] / document["default"]["computed_tokens"]
    )
    assert saved["prompt_seconds"] is None
    assert document["workers"]["times_faster"] is None
    for name in ("default", "buffered"):
        team = document["workers"][name]
        parts = [team["coordinator"], *team["workers"]]
        assert [part["name"] for part in parts] == ["coordinator", "ann", "bob"]
        assert team["computed_tokens"] == sum(part["computed_tokens"] for part in parts)


def test_simulated_figures_repeat(demo: Demo) -> None:
    def stable(found: Demo) -> Any:
        document = found.to_json()
        for name in ("default", "per_turn", "buffered", "oracle"):
            del document[name]["memory_bytes_per_session"]
        return document

    assert stable(run_demo(SCRIPT, engine="simulate")) == stable(demo)


def test_a_session_holds_more_than_a_list_but_not_twice_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "WATCHERS", [])  # the guard of this test suite remembers every request
    memory = {name: session_memory(name, script()) for name in ("default", "buffered")}
    assert memory["default"] < memory["buffered"] < 2 * memory["default"]


def test_what_broke_is_named_with_its_place(demo: Demo) -> None:
    worst, *others = demo.arms["default"].broken
    assert (worst.path, worst.heading) == ("messages[0].content", "Current time")
    assert {broken.heading for broken in others} == {"Retrieved documents", "Customer preferences"}
    calls = sum(len(turn.steps) for turn in SCRIPT.turns)
    assert sum(broken.requests for broken in demo.arms["default"].broken) == calls - 1
    assert worst.before.endswith("2026-05-14 11:00:00")
    assert worst.after.endswith("2026-05-14 11:00:07")
    assert demo.arms["oracle"].broken == ()
    assert not any(broken.path.startswith("messages[0]") for broken in demo.arms["buffered"].broken)


def test_a_prompt_that_only_shrank_broke_too() -> None:
    def sent(*texts: str) -> Sent:
        messages = [{"role": "user", "content": text} for text in texts]
        return Sent(json.dumps({"messages": messages}).encode(), Exchange(0, 1))

    assert what_broke([sent("a", "b"), sent("a", "b", "c")]) == []
    (broken,) = what_broke([sent("a", "b"), sent("a")])
    assert (broken.path, broken.before, broken.after) == ("messages[1].content", "b", "")


def measured() -> Demo:
    """A demo with times, whatever they are."""

    def stretch(name: str, read: int, computed: int, seconds: float) -> Stretch:
        body = b'{"messages": [{"role": "user", "content": "hi"}]}'
        return Stretch(name, (Sent(body, Exchange(read, computed, 1000 * seconds)),), seconds)

    def arm(computed: int, seconds: float) -> ArmFigures:
        turns = tuple(stretch(f"turn {number}", 900_000, computed, seconds) for number in range(10))
        return ArmFigures(turns, {"anthropic": 12.5, "openai": 31.25}, 1_234_567)

    slow = WorkerFigures(stretch("coordinator", 0, 10_000, 3.0), (stretch("refunds", 100, 900, 6.0),))
    fast = WorkerFigures(stretch("coordinator", 0, 10_000, 3.0), (stretch("refunds", 900, 100, 2.0),))
    arms: dict[ArmName, ArmFigures] = {
        name: arm(computed, computed / 40_000)
        for name, computed in zip(ARMS, (400_000, 100_000, 40_000, 20_000), strict=True)
    }
    counted = {"anthropic": "estimated with cl100k_base", "openai": "counted with o200k_base"}
    return Demo("llamacpp", arms, {"default": slow, "buffered": fast}, counted, threads=2, seconds=42.0)


def test_measured_figures_have_times() -> None:
    document = measured().to_json()
    assert document["measured"] is True
    assert document["default"]["prompt_seconds_per_turn"] == 10.0
    assert document["improvement"]["prompt_seconds"] == pytest.approx(0.9)
    assert document["improvement"]["against_per_turn"]["computed_tokens"] == pytest.approx(0.6)
    assert document["workers"]["times_faster"] == pytest.approx(3.0)
    assert document["workers"]["buffered"]["workers"][0]["seconds"] == 2.0


def test_one_call_without_a_time_leaves_the_sum_without() -> None:
    assert Sums.of([Exchange(1, 1, 5.0), Exchange(1, 1)]).prompt_ms is None
    assert Sums.of([]).hit_ratio == 0.0


# How it is shown


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("of", ["simulated", "measured"])
def test_the_tables_fit_the_terminal(width: int, of: str, demo: Demo) -> None:
    found = demo if of == "simulated" else measured()
    out = io.StringIO()
    show(found, Console(file=out, width=width, highlight=False))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(line for line in lines if "│" in line or re.match(r"[a-z$]+ .*\d$", line))
    text = " ".join(" ".join(lines).split())
    for name in ARMS:
        assert f"{found.arms[name].sums.computed_tokens:,}" in text
    assert ("simulated" in text) if of == "simulated" else ("measured" in text)
    assert "██" in text


def test_a_terminal_without_utf8_gets_bars_of_ascii(demo: Demo) -> None:
    raw = io.BytesIO()
    ascii_only = io.TextIOWrapper(raw, encoding="ascii", errors="replace")
    show(demo, Console(file=ascii_only, width=80, highlight=False))
    ascii_only.flush()
    assert b"####" in raw.getvalue()


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone() -> None:
    tags = _Tags()
    text = page(measured())
    tags.feed(text)
    assert tags.open == []
    assert tags.addresses == []
    assert "http" not in text
    assert "script" not in tags.seen
    assert tags.seen.count("rect") == 20
    assert tags.seen.count("table") == 2
    assert "prefers-color-scheme: dark" in text
    assert "400,000" in text


def test_the_picture_is_a_file_of_its_own() -> None:
    tags = _Tags()
    text = picture(measured())
    tags.feed(text)
    assert tags.open == []
    assert text.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert tags.seen.count("rect") == 20
    assert "prefers-color-scheme: dark" in text


# The report file


def test_a_report_is_written_whole(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    write_page(target, "one")
    target.chmod(0o640)
    write_page(target, "two")
    assert target.read_text() == "two"
    assert target.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.html").symlink_to("real.html")
    write_page(tmp_path / "link.html", "one")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "real.html").read_text() == "one"


def test_a_report_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.html"
    target.write_text("before")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LLMBufferError, match=r"'.*report.html' was not written: the disk is full"):
        write_page(target, "after")
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_device_is_named() -> None:
    check_target(Path("/dev/full"))
    with pytest.raises(LLMBufferError, match="'/dev/full' was not written: the disk is full"):
        write_page(Path("/dev/full"), "x" * 100_000)
    assert Path("/dev/full").is_char_device()


def test_targets_that_cannot_be_are_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(LLMBufferError, match="is a directory: give the name of a file"):
        check_target(tmp_path)
    with pytest.raises(LLMBufferError, match="is no directory: make it"):
        check_target(tmp_path / "none" / "report.html")
    check_target(tmp_path / "report.html")


# The command


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setattr("llmbuffer.demo.script.script", lambda: SCRIPT)

    def run(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["llmbuffer", "demo", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Ran(code if isinstance(code, int) else 0, out, err)

    return run


def test_the_command_prints_tables(run: Run) -> None:
    ran = run("--engine", "simulate")
    assert (ran.code, ran.err) == (0, "")
    for part in ("One session of 3 turns", "What broke in default", "hit ratio", "ann", "the run took"):
        assert part in ran.out
    assert "\x1b" not in ran.out


def test_json_is_one_document_and_nothing_else(run: Run) -> None:
    ran = run("--engine", "simulate", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert set(json.loads(ran.out)) == KEYS


def test_the_report_is_written_beside(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    ran = run("--engine", "simulate", "--json", "-o", target)
    assert ran.code == 0
    assert ran.err == f"llmbuffer: the report is in {target}\n"
    assert target.read_text("utf-8").startswith("<!doctype html>")
    assert set(json.loads(ran.out)) == KEYS


def test_without_the_engine_one_line_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_NEEDED", ("no_such_engine",))
    ran = run("--json")
    assert ran.code == 0
    assert len(ran.err.splitlines()) == 1
    assert "the engine is not installed (no_such_engine missing: install the extra 'demo')" in ran.err
    assert json.loads(ran.out)["measured"] is False
    asked = run("--engine", "llamacpp")
    assert asked.code == 2
    assert asked.err.startswith("llmbuffer: error: the engine is not installed: no_such_engine missing")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "vllm"], "unknown engine 'vllm': use one of auto, llamacpp, simulate"),
        (["--engine", "simulate", "-o", "."], "'.' is a directory: give the name of a file"),
        (["--threads", "0"], "Invalid value for '--threads'"),
    ],
)
def test_wrong_usage_is_explained(run: Run, arguments: list[str], message: str) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in " ".join(ran.err.split())


@pytest.mark.parametrize("given", [(errno.ENOSPC, "No space left on device"), ("9 requested and 3 written",)])
def test_no_room_for_the_model_is_explained(
    given: tuple[Any, ...], run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(*given)

    monkeypatch.setattr(engines, "missing", list)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("llmbuffer.demo.model.write_demo_model", full)
    ran = run("--engine", "llamacpp")
    assert ran.code == 2
    assert "there is no space left on the device; set TMPDIR to a folder with 50 MB of room" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_no_temporary_folder_is_explained(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "missing", list)
    monkeypatch.setattr(tempfile, "tempdir", os.devnull)
    ran = run("--engine", "llamacpp")
    assert ran.code == 2
    assert "cannot write a temporary folder" in ran.err


def test_ctrl_c_ends_with_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("llmbuffer.demo.run.run_session", interrupted)
    assert run("--engine", "simulate") == Ran(130, "", "llmbuffer: stopped\n")


def test_progress_is_shown_on_a_terminal_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("--engine", "simulate", "--json").err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    ran = run("--engine", "simulate", "--json")
    assert "buffered" in ran.err
    assert set(json.loads(ran.out)) == KEYS


def test_tables_are_as_wide_as_a_file_may_be() -> None:
    assert output.FILE_WIDTH >= 120


# The client


def test_an_error_of_the_engine_is_passed_on() -> None:
    with loopback([Failure(500, "context is full")]) as server:
        engine = HttpEngine(server.url)
        with pytest.raises(LLMBufferError, match=r"answered with status 500: .*context is full"):
            engine.complete(b"{}")
        engine.close()


def test_an_engine_that_went_away_is_named() -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        engine = HttpEngine(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(LLMBufferError, match=r"went away \(ConnectionRefusedError"):
            engine.complete(b"{}")
        engine.close()


def test_a_script_that_ends_too_early_is_named() -> None:
    with pytest.raises(LLMBufferError, match="no reply left"):
        ScriptedClient(SilentEngine()).chat.completions.create(model="local", messages=[])
