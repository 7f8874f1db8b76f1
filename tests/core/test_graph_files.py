"""Graph files and the command that runs them: what is refused and why, what is printed, and how a run is gone on with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuffer import cli
from llmbuffer.errors import CycleError, GraphError, GraphFileError, LLMBufferError, UnknownTaskError
from llmbuffer.graph import read_graph
from llmbuffer.graph.files import _File
from llmbuffer.simulate import ProviderServer

YAML = """
name: tea
model: gpt-5.5
system: You are kind.
params: {temperature: 0}
limits: {requests: 3, usd: 2, retries: 1, timeout: 30}
on_failure: skip-dependents
tasks:
  facts: List facts on tea.
  draft:
    prompt: Write {a} draft.
    after: [facts]
    retries: 2
  short: {prompt: Shorter., continues: draft, timeout: 5, params: {seed: 7}}
"""
TOML = """
name = "tea"
model = "gpt-5.5"
system = "You are kind."
on_failure = "skip-dependents"
[params]
temperature = 0
[limits]
requests = 3
usd = 2
retries = 1
timeout = 30
[tasks]
facts = "List facts on tea."
draft = {prompt = "Write {a} draft.", after = ["facts"], retries = 2}
[tasks.short]
prompt = "Shorter."
continues = "draft"
timeout = 5
params = {seed = 7}
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str, name: str = "tea.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(("text", "name"), [(YAML, "tea.yaml"), (YAML, "tea.yml"), (TOML, "tea.toml")])
def test_both_formats_say_the_same(written: Callable[..., Path], text: str, name: str) -> None:
    found = read_graph(written(text, name))
    assert found.graph.order() == ("facts", "draft", "short")
    facts, draft, short = found.graph.tasks
    assert (facts.work, facts.retry.times, facts.timeout) == ("List facts on tea.", 1, 30)
    assert (draft.work, draft.upstream, draft.retry.times) == ("Write {a} draft.", ("facts",), 2)
    assert (short.continues, short.timeout, short.params) == ("draft", 5, {"seed": 7})
    assert (found.limit, found.usd, found.tokens, found.on_failure) == (3, 2, None, "skip-dependents")
    session = found.session()
    assert (session.context.model, session.dialect.name) == ("gpt-5.5", "openai")
    assert session.context.params == {"temperature": 0}
    assert found.session("claude-sonnet-5.5", "anthropic").dialect.name == "anthropic"
    budget = found.budget()
    assert budget is not None
    assert budget.usd == 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("tasks: {a: {promt: x}}", r"tasks\.a: found the unknown key 'promt': did you mean 'prompt'"),
        ("taks: {a: x}", r"the file: found the unknown key 'taks': did you mean 'tasks'"),
        ("tasks: {a: {prompt: 7}}", r"tasks\.a\.prompt: found a number: write a text"),
        ("tasks: {a: {after: []}}", r"tasks\.a: it has no prompt"),
        ("tasks: {a: {prompt: x, after: [1]}}", r"tasks\.a\.after: found a number in it"),
        ("tasks: {a: {prompt: x, retries: -1}}", r"tasks\.a\.retries: found -1"),
        ("tasks: {a: {prompt: x, timeout: true}}", r"tasks\.a\.timeout: found a true or false"),
        ("tasks: {a: {prompt: x, timeout: 0}}", r"tasks\.a: the timeout of task 'a' is 0"),
        ("tasks: {a: {prompt: ' '}}", r"tasks\.a: the prompt of task 'a' is empty"),
        ("tasks: {yes: x}", r"tasks\.True: the key is a true or false: put it into quotes"),
        ("tasks: {a: x, b: y, a: z}", r"the key 'a' comes twice in the mapping of line 1"),
        ("tasks: [a, b]", r"tasks: found a list: write a mapping"),
        ("tasks: {}", r"tasks: found none"),
        ("7", r"the file: found a number"),
        ("", r"the file: found a nothing"),
        ("limits: {requests: 0}\ntasks: {a: x}", r"limits\.requests: found 0"),
        (
            "limits: {usd: lots}\ntasks: {a: x}",
            r"limits\.usd: found a text: write a whole number or a number",
        ),
        ("on_failure: ignore\ntasks: {a: x}", r"on_failure: found 'ignore'"),
        ("tasks: {a: {prompt: x, tools: [rm]}}", r"tasks\.a\.tools: found 'rm', and .* are \[\]"),
        ("tasks: {a: !!python/object/apply:os.getcwd []}", r"it is no plain YAML in line 1"),
        ("tasks: {a: [", r"it is no plain YAML"),
        (
            "tasks: {a: secret: prompt}",
            r"it is no plain YAML in line 1, column 18: (?!.*secret)",
        ),
        ("[" * 5000, r"it is (nested too deeply|no plain YAML)"),
    ],
)
def test_what_cannot_be_read_is_told_with_file_and_key(
    written: Callable[..., Path], text: str, found: str
) -> None:
    with pytest.raises(GraphFileError, match=f"^tea.yaml: {found}"):
        read_graph(written(text))


def test_files_of_other_kinds_are_refused(written: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(GraphFileError, match=r"found the ending '\.json'"):
        read_graph(written("{}", "tea.json"))
    with pytest.raises(GraphFileError, match="it is no TOML"):
        read_graph(written("tasks = ", "tea.toml"))
    with pytest.raises(GraphFileError, match="No such file"):
        read_graph(tmp_path / "nothing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"tasks: {a: caf\xe9}")
    with pytest.raises(GraphFileError, match="byte 14 is no UTF-8"):
        read_graph(tmp_path / "latin.yaml")


def test_what_is_wrong_with_the_graph_names_the_file(written: Callable[..., Path]) -> None:
    with pytest.raises(CycleError, match=r"^tea\.yaml: .*'a' → 'b' → 'a'"):
        read_graph(written("tasks: {a: {prompt: x, after: b}, b: {prompt: x, after: a}}"))
    with pytest.raises(UnknownTaskError, match=r"^tea\.yaml: .*'c' → 'a'"):
        read_graph(written("tasks: {a: {prompt: x, after: c}}"))


def test_a_program_may_lend_functions_by_name(written: Callable[..., Path]) -> None:
    path = written("tools: [{name: track}]\ntasks: {a: {prompt: Where, tools: [track]}}")
    found = read_graph(path, tools={"track": str.upper, "other": print})
    assert found.graph["a"].tools == {"track": str.upper}
    assert [tool.name for tool in found.session().context.tools] == ["track"]
    with pytest.raises(GraphFileError, match=r"are \['other'\]"):
        read_graph(path, tools={"other": print})


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
KEYS = st.sampled_from(["tasks", "prompt", "after", "limits", "tools", "params", "a", "b", "model"]) | SCALARS
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(ANYTHING, st.dictionaries(KEYS, ANYTHING, max_size=3))
def test_whatever_a_file_holds_the_error_is_one_of_ours(whole: Any, tasks: Any) -> None:
    assert all(map(is_read_or_refused, (whole, {"tasks": tasks})))


def is_read_or_refused(value: Any) -> bool:
    try:
        return bool(_File(Path("any.yaml"), {}).read(value).graph.order())
    except LLMBufferError as error:
        return isinstance(error, GraphError) or "tool" in str(error)


# The command

PROGRAM = [sys.executable, "-c", "from llmbuffer.cli import main; main()", "graph"]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llmbuffer", "graph", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(ended.value.code or 0), out, err

    return run


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as running:
        yield running


def test_check_and_show(command: Command, written: Callable[..., Path]) -> None:
    path = written(YAML)
    assert command("check", path)[:2] == (
        0,
        f"{path}: 3 tasks, 3 on the longest way from a first to a last one\n",
    )
    assert json.loads(command("check", path, "--json")[1]) == {
        "ok": True,
        "name": "tea",
        "tasks": 3,
        "depth": 3,
    }
    code, out, _ = command("show", path)
    assert code == 0
    assert "└── short  continues draft" in out
    told = json.loads(command("show", path, "--json")[1])
    assert told["order"] == ["facts", "draft", "short"]
    assert told["tasks"][2] == {"key": "short", "after": [], "continues": "draft"}
    code, out, err = command("check", written("tasks: {a: {promt: x}}", "bad.yaml"))
    assert (code, out) == (2, "")
    assert (
        err == "llmbuffer: error: bad.yaml: tasks.a: found the unknown key 'promt': did you mean 'prompt'?\n"
    )


def test_run_prints_results_and_figures(
    command: Command, written: Callable[..., Path], server: ProviderServer
) -> None:
    path = written(YAML)
    code, out, err = command("run", path, "--base-url", server.openai_url)
    assert (code, err) == (0, "")
    assert "This is a simulated reply" in out
    assert re.search(r"^draft +finished", out, re.MULTILINE)
    code, out, err = command("run", path, "--base-url", server.openai_url, "--json")
    told = json.loads(out)
    assert (code, told["ok"], told["finished"]) == (0, True, 3)
    assert [task["key"] for task in told["tasks"]] == ["facts", "draft", "short"]
    assert told["input_tokens"] * 2 == server.usage().input_tokens
    assert len(server.requests) == 6


def test_run_through_another_dialect(
    command: Command, written: Callable[..., Path], server: ProviderServer
) -> None:
    arguments = ("--dialect", "anthropic", "--model", "claude-sonnet-5.5", "--base-url", server.anthropic_url)
    path = written(YAML.replace("temperature: 0", "max_tokens: 100").replace(", params: {seed: 7}", ""))
    code, out, err = command("run", path, *arguments, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["finished"] == 3
    assert {request.wire for request in server.requests} == {"anthropic"}


def test_run_is_resumed_by_its_name(
    command: Command, written: Callable[..., Path], server: ProviderServer, tmp_path: Path
) -> None:
    path, store = written(YAML), f"sqlite:///{tmp_path}/runs.db"
    run = ("run", path, "--base-url", server.openai_url, "--store", store)
    code, out, err = command(*run, "--budget-tokens", "30", "--json")
    told = json.loads(out)
    assert (code, told["ok"], told["finished"]) == (1, False, 1)
    assert "give a larger Budget" in err
    assert f"--store {store} --resume {told['run_id']}" in err
    code, out, _ = command(*run, "--resume", told["run_id"], "--json")
    again = json.loads(out)
    assert (code, again["kept"], again["finished"]) == (0, 1, 2)
    assert len(server.requests) == 3
    code, out, err = command(*run, "--resume", "nobody")
    assert (code, out) == (2, "")
    assert "the store holds no run 'nobody'" in err
    code, _, err = command("run", path, "--resume", "x")
    assert (code, "give --store" in err) == (2, True)


@pytest.mark.parametrize(("policy", "kept"), [("fail-fast", 0), ("skip-dependents", 1)])
def test_a_failed_task_is_told_on_standard_error(
    command: Command, written: Callable[..., Path], policy: str, kept: int
) -> None:
    path = written("tasks:\n  bad: x\n  good: {prompt: y}\n  child: {prompt: z, after: bad}")
    replies: list[Any] = [{"status": 400, "message": "too bad"}, "fine"]
    with ProviderServer(replies=replies) as server:
        arguments = ("--base-url", server.openai_url, "--limit", "1", "--on-failure", policy, "--json")
        code, out, err = command("run", path, *arguments)
    told = json.loads(out)
    assert (code, told["failed"], told["finished"], told["skipped"]) == (1, 1, kept, kept)
    assert "bad" in err
    assert "too bad" in err


def test_an_address_where_nobody_listens_is_told_in_a_line(
    command: Command, written: Callable[..., Path]
) -> None:
    code, _, err = command("run", written("tasks: {a: x}"), "--base-url", "http://127.0.0.1:9/v1")
    assert code == 1
    assert "task 'a' failed: cannot reach http://127.0.0.1:9/v1" in err


def test_ctrl_c_says_how_to_go_on(written: Callable[..., Path], tmp_path: Path) -> None:
    path, store = written(YAML), f"sqlite:///{tmp_path}/runs.db"
    with ProviderServer(replies=["fine", {"text": "late", "delay": 60}]) as server:
        command = [*PROGRAM, "run", str(path), "--base-url", server.openai_url, "--store", store]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            while server.usage().input_tokens == 0 and process.poll() is None:
                os.sched_yield()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert re.fullmatch(rf"llmbuffer: stopped; go on with: .* --store {store} --resume [0-9a-f]+\n", err)
