"""``llmbuffer fanout``, and tasks in files."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.fanning import POLICY, cold

from llmbuffer import MessageError, cli
from llmbuffer.errors import LimitError
from llmbuffer.fanout import read_tasks
from llmbuffer.simulate import ProviderServer, Reply

KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "DEEPSEEK_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY")
URLS = ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "DEEPSEEK_BASE_URL", "GOOGLE_GEMINI_BASE_URL")


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    for name in (*KEYS, *URLS):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["llmbuffer", "fanout", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Ran(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.txt"
    path.write_text("".join(f"Check depot {number}.\n\n" for number in range(6)), "utf-8")
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.md"
    path.write_text(POLICY, "utf-8")
    return path


@pytest.mark.parametrize(
    ("dialect", "model"),
    [
        ("anthropic", "claude-sonnet-5.5"),
        ("openai", "gpt-5.6"),
        ("openai-responses", "gpt-5.6"),
        ("gemini", "gemini-2.5-pro"),
    ],
)
def test_it_answers_every_task_over_one_write(
    run: Run, tasks: Path, base: Path, dialect: str, model: str
) -> None:
    with ProviderServer(latency=(0.02, 0.0)) as server:
        url = server.openai_url if dialect.startswith("openai") else server.url
        ran = run(tasks, "--base", base, "--dialect", dialect, "--model", model, "--base-url", url, "--json")
        assert cold(server) == 1
    assert (ran.code, ran.err) == (0, "")
    told = json.loads(ran.out)
    assert told["ok"]
    assert told["total"]["requests"] == 6
    assert told["total"]["hit_ratio"] > 0.8
    assert [each["led"] for each in told["workers"]].count(True) == 1
    assert all(each["text"].startswith("This is a simulated reply") for each in told["workers"])


def test_without_json_it_prints_the_answers_and_a_table(run: Run, tasks: Path, base: Path) -> None:
    with ProviderServer(replies=lambda asked: "[bold]not markup[/bold]") as server:
        ran = run(tasks, "--base", base, "--dialect", "anthropic", "--base-url", server.url, "--neutral")
    assert ran.code == 0
    assert ran.out.count("[bold]not markup[/bold]") == 6
    assert "worker-6" in ran.out
    assert ran.out.splitlines()[-1].startswith("all ")


def test_tasks_without_an_answer_are_named_and_make_it_exit_with_1(run: Run, tasks: Path) -> None:
    with ProviderServer(replies=["Fine."] + [Reply(status=400, message="too tired")] * 5) as server:
        ran = run(tasks, "--base-url", server.openai_url, "--limit", "1")
    assert ran.code == 1
    assert ran.err.count("too tired") == 5
    assert "worker-2: BadRequestError" in ran.err


def test_the_budget_holds(run: Run, tasks: Path) -> None:
    with ProviderServer() as server:
        ran = run(tasks, "--base-url", server.openai_url, "--budget-tokens", "40", "--limit", "1", "--json")
        assert len(server.requests) < 6
    assert ran.code == 1
    assert "does not fit" in ran.err


def one_line(ran: Ran) -> str:
    assert ran.code == 2
    assert ran.out == ""
    [line] = ran.err.splitlines()
    return line


def test_what_is_wrong_is_told_in_a_line(run: Run, tasks: Path, tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: whoever calls is turned away
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        for dialect in ("openai", "anthropic", "gemini"):
            line = one_line(run(tasks, "--dialect", dialect, "--base-url", url, "--retries", "0"))
            assert f"cannot reach {url}" in line
    assert "set OPENAI_API_KEY" in one_line(run(tasks))
    assert "set GEMINI_API_KEY or GOOGLE_API_KEY" in one_line(run(tasks, "--dialect", "gemini"))
    assert "--base-url" in one_line(run(tasks, "--dialect", "vllm"))
    assert "is no address" in one_line(run(tasks, "--base-url", "nowhere"))
    assert "no such file" in one_line(run(tmp_path / "none.txt")).lower()
    assert "warm is 'x'" in one_line(run(tasks, "--warm", "x", "--base-url", "http://127.0.0.1:1"))


def test_a_wrong_path_and_a_refused_key_end_it_at_once(run: Run, tasks: Path) -> None:
    with ProviderServer() as server:
        assert "an OpenAI address ends in /v1" in one_line(run(tasks, "--base-url", server.url))
    with ProviderServer(replies=[Reply(status=401)] * 6) as server:
        line = one_line(run(tasks, "--dialect", "anthropic", "--base-url", server.url, "--limit", "1"))
        assert len(server.requests) == 1
    assert "refuses the key" in line


# Files


FILES = {
    "a.txt": "one\n\n  two  \n",
    "a.json": '["one", {"task": "two", "name": "b", "params": {"max_tokens": 3}}]',
    "b.json": '{"tasks": ["one", "two"]}',
    "a.jsonl": '"one"\n\n{"user": "two"}\n',
    "a.yaml": "tasks:\n- one\n- task: two\n  neutral: true\n",
    "a.toml": '[[tasks]]\ntask = "one"\n[[tasks]]\ntask = "two"\n',
}


@pytest.mark.parametrize("name", FILES)
def test_tasks_are_read_from_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(FILES[name], "utf-8")
    assert [task.task for task in read_tasks(path)] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", " \n", "no tasks"),
        ("a.json", "{", "cannot be read"),
        ("a.json", "3", "holds a int"),
        ("a.jsonl", '"one"\n{', "line 2"),
        ("a.yaml", "a: [", "no YAML"),
        ("a.toml", "a = ", "cannot be read"),
        ("a.json", '[{"task": "x", "tools": {}}]', "task 1: a file cannot hold tools"),
        ("a.json", '["x", {"task": "y", "colour": 1}]', "task 2 has the unknown fields"),
        ("a.txt", b"\xff\xfe", "cannot be read"),
    ],
)
def test_files_that_hold_no_tasks_are_refused(tmp_path: Path, name: str, content: Any, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(MessageError, match=says):
        read_tasks(path)


def test_yaml_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    path = tmp_path / "a.yaml"
    path.write_text("- one", "utf-8")
    with pytest.raises(LimitError, match="llmbuffer\\[graph\\]"):
        read_tasks(path)
