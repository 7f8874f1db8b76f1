"""The command line: what it prints where, its exit codes, and that nothing ends in a traceback."""

from __future__ import annotations

import builtins
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.console import Console

from llmbuffer import cli
from llmbuffer.cli import replay as replay_command
from llmbuffer.cli import tables
from llmbuffer.replay import Agreement, Figures, ReplayResult

PROGRAM = [sys.executable, "-c", "from llmbuffer.cli import main; main()"]
SESSION = '{"id": "a-b-1", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hi!"}]}'


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["llmbuffer", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Ran(code if isinstance(code, int) else 0, out, err)

    return run


def test_version(run: Run) -> None:
    assert run("--version") == Ran(0, f"llmbuffer {metadata.version('llmbuffer')}\n", "")


def test_help_names_every_command_and_option(run: Run) -> None:
    for command in ("replay", "plugins"):
        assert command in run("--help").out
        bare = run()
        assert command in bare.out + bare.err
    shown = run("replay", "--help").out
    for option in (
        "--sample",
        "--dialect",
        "--model",
        "--layout",
        "--noise",
        "--seed",
        "--placement",
        "--json",
    ):
        assert option in shown
    assert "recorded|default|buffered" in shown
    assert "as of the turn's begin" in " ".join(shown.split())


def test_plugins_are_listed_with_their_distribution(run: Run) -> None:
    ran = run("plugins")
    assert (ran.code, ran.err) == (0, "")
    assert ["dialects", "anthropic", "llmbuffer"] in [line.split()[:3] for line in ran.out.splitlines()]
    document = json.loads(run("plugins", "--json").out)
    assert set(document) == {"dialects", "adapters", "stores", "errors"}
    version = metadata.version("llmbuffer")
    assert {"name": "openai", "distribution": "llmbuffer", "version": version} in document["dialects"]


def test_the_sample_is_replayed(run: Run) -> None:
    ran = run("replay", "--sample")
    assert ran.code == 0
    assert "openai gpt-5.6, layout buffered, simulated" in ran.out
    assert any(line.split()[:3] == ["sample-support", "1", "19"] for line in ran.out.splitlines())


def test_json_is_one_document_and_nothing_else(run: Run) -> None:
    options = ("--dialect", "anthropic", "--layout", "default", "--noise", "clock, retrieval", "--seed", "7")
    ran = run("replay", "--sample", *options, "--json")
    document = json.loads(ran.out)
    assert (ran.code, document["dialect"], document["model"]) == (0, "anthropic", "claude-sonnet-5.5")
    assert (document["layout"], document["noise"], document["seed"]) == ("default", ["clock", "retrieval"], 7)
    assert [row["source"] for row in document["rows"]] == ["sample-support"]
    assert document["total"]["measured"] is False


def test_files_are_replayed_together(run: Run, tmp_path: Path) -> None:
    for name in ("one.jsonl", "two.jsonl"):
        (tmp_path / name).write_text(SESSION + "\n", encoding="utf-8")
    ran = run("replay", tmp_path / "one.jsonl", tmp_path / "two.jsonl", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["total"]["sessions"] == 2


def test_a_skipped_line_is_a_finding(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text(f"{SESSION}\nno JSON\n", encoding="utf-8")
    ran = run("replay", path, "--json")
    assert ran.code == 1
    assert ran.err.startswith(f"llmbuffer: skipped {path}:2: not JSON: ")
    document = json.loads(ran.out)
    assert document["total"]["sessions"] == 1
    assert [(line["file"], line["line"]) for line in document["skipped"]] == [(str(path), 2)]


def test_many_skipped_lines_do_not_flood_the_terminal(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text("no JSON\n" * 500, encoding="utf-8")
    ran = run("replay", path)
    assert len(ran.err.splitlines()) == 12
    assert "llmbuffer: skipped 490 more; --json lists them all" in ran.err
    assert len(json.loads(run("replay", path, "--json").out)["skipped"]) == 500


def test_nothing_replayed_is_a_finding(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.touch()
    ran = run("replay", path)
    assert (ran.code, ran.err) == (1, "llmbuffer: nothing was replayed: no recording has a model call\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["replay"], "nothing to replay: give a FILE, or --sample"),
        (["replay", "--sample", "x.jsonl"], "--sample takes no FILE"),
        (["replay", "none.jsonl"], "none.jsonl: no such file"),
        (["replay", "."], ". is a directory: give .jsonl or .jsonl.gz files"),
        (
            ["replay", "--sample", "--dialect", "nope"],
            "unknown dialect 'nope': found ['anthropic', ",
        ),
        (["replay", "--sample", "--model", "nope"], "no cache rules for model 'nope' in dialect 'openai'"),
        (["replay", "--sample", "--layout", "nope"], "unknown layout 'nope': use one of recorded, default,"),
        (
            ["replay", "--sample", "--noise", "clock,nope"],
            "unknown noise 'nope': use one of clock, retrieval",
        ),
        (["replay", "--sample", "--placement", "nope"], "unknown placement 'nope'"),
        (["replay", "--sample", "--pace", "nope"], "unknown pace 'nope': use one of steady, recorded"),
    ],
)
def test_wrong_usage_is_one_clear_line(
    arguments: Sequence[str], message: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run(*arguments)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert ran.err.startswith(f"llmbuffer: error: {message}")


@pytest.mark.parametrize("arguments", [["nope"], ["replay", "--nope"], ["replay", "--seed", "x"]])
def test_what_is_no_command_or_option_ends_with_2(arguments: Sequence[str], run: Run) -> None:
    assert run(*arguments).code == 2


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nothing is unreadable for root")
def test_a_file_that_may_not_be_read_is_one_clear_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.touch(mode=0)
    assert run("replay", path) == Ran(2, "", f"llmbuffer: error: {path}: Permission denied\n")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "stopped"),
        (OSError(28, "No space left on device"), 2, "error: [Errno 28] No space left on device"),
    ],
)
def test_what_stops_a_run_is_no_traceback(
    error: BaseException, code: int, message: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(replay_command, "replayed", stop)
    assert run("replay", "--sample") == Ran(code, "", f"llmbuffer: {message}\n")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_one_line_says_what_to_install(
    missing: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments, **more)

    for name in [name for name in sys.modules if name.startswith("llmbuffer.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    message = f"llmbuffer: the command line needs {missing}: pip install 'llmbuffer[cli]>=1'\n"
    assert run("--version") == Ran(2, "", message)


def test_another_missing_module_is_not_hidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "llmbuffer.cli.app", raising=False)
    monkeypatch.setitem(sys.modules, "llmbuffer.cli.replay", None)
    monkeypatch.setattr(sys, "argv", ["llmbuffer", "--version"])
    with pytest.raises(ModuleNotFoundError):
        cli.main()


# In a process of its own


def environment() -> Mapping[str, str]:
    return {**os.environ, "PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": ""}


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end another way there")
@pytest.mark.parametrize("arguments", [["replay", "--sample", "--json"], ["replay", "--sample"], ["plugins"]])
def test_a_reader_that_goes_away_is_no_traceback(arguments: Sequence[str]) -> None:
    process = subprocess.Popen(
        [*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert (process.wait(60), error) == (141, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent another way there")
def test_ctrl_c_ends_the_program_at_once(tmp_path: Path) -> None:
    """The program reads from a named pipe that never ends, so the signal finds it at work."""
    pipe = tmp_path / "some.jsonl"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [*PROGRAM, "replay", str(pipe)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    with pipe.open("wb") as writer:
        writer.write(b"\n" * 1_000_000)  # more than a pipe holds: done when the program has read most of it
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out, error) == (130, b"", b"llmbuffer: stopped\n")


def test_tables_in_a_file_are_whole() -> None:
    ran = subprocess.run(
        [*PROGRAM, "replay", "--sample", "--noise", "clock,retrieval"],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    assert "of oracle" in ran.stdout
    assert "clock: as of the turn's begin" in ran.stdout
    assert not set("…\x1b") & set(ran.stdout)


# Tables


def result(**options: Any) -> ReplayResult:
    """Figures as large as those of 84 recorded sessions."""
    row = Figures(
        sessions=84,
        requests=3_101,
        input_tokens=105_652_800,
        cache_read_tokens=102_888_550,
        cache_write_tokens=2_728_509,
        ceiling=102_900_000,
        cost_usd=1_069.53,
        oracle_tokens=102_000_000,
        history_read_tokens=101_000_000,
        recorded=Agreement(((105_000_000, 102_000_000, 102_100_000),)),
    )
    named = dict.fromkeys(("miniswe-dschat", "whowhen-magentic"), row)
    fields: dict[str, Any] = {"dialect": "openai", "model": "gpt-5.6", "layout": "buffered", "rows": named}
    return ReplayResult(**{**fields, "total": row, "noise": ("clock", "retrieval"), **options})


def drawn(table: object, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 132, 160])
def test_tables_fit_the_terminal(width: int) -> None:
    whole = result()
    for table in (tables.figures_table(whole, width), tables.agreement_table(whole, width)):
        lines = drawn(table, width)
        assert len(lines) == 4
        assert max(map(len, lines)) <= width
        assert "…" not in "".join(lines)
        assert "whowhen-magentic" in lines[2]


def test_a_wide_table_has_all_figures() -> None:
    cells = drawn(tables.figures_table(result(), 160), 160)[1].split()
    assert cells == [
        *("miniswe-dschat", "84", "3,101", "105,652,800", "102,888,550", "2,728,509", "35,741"),
        *("0.9738", "0.9739", "0.9999", "0.9902", "1,069.53"),
    ]


def test_what_is_unknown_is_a_dash() -> None:
    bare = Figures(recorded=Agreement(((10, 0, 0),)), cost_usd=None)
    shown = result(rows={"a": bare}, total=bare, noise=())
    assert drawn(tables.figures_table(shown, 80), 80)[1].split() == ["a", "0", "0", "0.000", "-", "-"]
    assert drawn(tables.agreement_table(shown, 80), 80)[1].split() == ["a", "0", "-", "0", "100.0%"]


def test_notes_say_what_was_estimated() -> None:
    plain = Figures()
    assert list(tables.notes(result(noise=(), estimated=True, counter="o200k_base", total=plain))) == [
        "tokens: estimated with o200k_base"
    ]
    assert list(tables.notes(result(total=plain))) == ["clock: as of the turn's begin"]
    assert list(tables.notes(result(layout="default", total=plain))) == []


def test_a_note_says_which_way_predictions_and_reports_differ() -> None:
    compared = Agreement(((1_000, 0, 900), (1_000, 500, 100), (1_000, 0, 0)), expired=((1_000, 0, 0),))
    [note] = tables.notes(result(layout="default", total=Figures(recorded=compared)))
    assert "less than predicted in 1 calls, nothing at all in 1; more in 1" in note
    assert "1 of 1 predicted expiries were misses" in note


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_drawn_on_a_terminal_only(terminal: bool, tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text(SESSION + "\n", encoding="utf-8")
    err = io.StringIO()
    console = Console(file=err, force_terminal=terminal)
    assert len(list(replay_command._recordings([path], [], console))) == 1
    assert ("some.jsonl" in err.getvalue()) is terminal
    assert bool(err.getvalue()) is terminal
