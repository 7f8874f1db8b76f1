"""``llmbuffer serve`` as a process, and the fixture ``provider_server``."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from llmbuffer.simulate import ProviderServer, Reply
from llmbuffer.testing import assert_hit_ratio

pytest_plugins = ["pytester"]

PROGRAM = [sys.executable, "-c", "from llmbuffer.cli import main; main()", "serve"]
RULES = "You track parcels, and you are brief and kind. " * 400


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The process, ready, and the addresses that it tells."""
    process = subprocess.Popen(
        [*PROGRAM, "--port", "0", "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def ask(addresses: dict[str, str], **changes: Any) -> Any:
    with openai.OpenAI(base_url=addresses["openai_base_url"], api_key="k", max_retries=0) as client:
        body: Any = {"model": "gpt-5.5", "messages": [{"role": "system", "content": RULES}], **changes}
        return client.chat.completions.create(**body)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_serves_until_it_is_stopped_and_tells_the_sums(number: int, code: int, tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    with serving("--log", str(log)) as (process, addresses):
        assert addresses["url"].startswith("http://127.0.0.1:")
        assert addresses["anthropic_base_url"] == addresses["gemini_base_url"] == addresses["url"]
        ask(addresses)
        usage = ask(addresses).usage
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == ""
    summary = json.loads(err)
    assert (summary["requests"], summary["cache_read_tokens"]) == (
        2,
        usage.prompt_tokens_details.cached_tokens,
    )
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert [line["outcome"] for line in lines] == ["cold", "hit"]
    assert "parcels" not in log.read_text("utf-8")


def test_a_stream_under_way_is_cut_off_and_logged(tmp_path: Path) -> None:
    script = tmp_path / "replies.jsonl"
    script.write_text('{"text": "one two three", "token_delay": 600}', "utf-8")
    with serving("--replies", str(script)) as (process, addresses):
        client = openai.OpenAI(base_url=addresses["openai_base_url"], api_key="k", max_retries=0)
        with (
            client,
            client.chat.completions.create(
                model="gpt-5.5", messages=[{"role": "user", "content": "Hi"}], stream=True
            ) as stream,
        ):
            for chunk in stream:
                if chunk.choices[0].delta.content == "one ":
                    break
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(err)["requests"] == 1


def test_without_json_it_says_how_to_use_it() -> None:
    process = subprocess.Popen(
        [*PROGRAM, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(7)]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert told[0].startswith("A simulated provider listens on http://127.0.0.1:")
    assert [line.partition("(")[0] for line in told[2:5]] == ["OpenAI", "Anthropic", "genai.Client"]
    assert "stopped after 0 requests" in err


def test_replies_rules_and_latency_come_from_the_command_line(tmp_path: Path) -> None:
    script = tmp_path / "replies.jsonl"
    script.write_text('{"text": "Hello"}\n\n{"status": 400, "message": "enough"}\n', "utf-8")
    rules = ("--rules", "gpt-*:min_tokens=100000", "--rules", "*:vllm")
    with serving("--replies", str(script), *rules, "--latency", "0.001,0.001") as (_, addresses):
        assert ask(addresses).choices[0].message.content == "Hello"
        with pytest.raises(openai.BadRequestError, match="enough"):
            ask(addresses)
        assert ask(addresses).usage.prompt_tokens_details.cached_tokens == 0
        ask(addresses, model="mine")
        assert ask(addresses, model="mine").usage.prompt_tokens_details.cached_tokens > 1000


def test_a_port_in_use_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = run("--port", str(port))
    assert found.returncode == 2
    assert (
        f"port {port} on 127.0.0.1 is in use: stop what listens there, or give another --port" in found.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "give --allow-remote"),
        (["--host", "example.invalid"], "give --allow-remote"),
        (["--rules", "claude-*"], "give MODEL:DIALECT or MODEL:FIELD=VALUE"),
        (["--rules", "claude-*:min_tokens=1,x"], "'x' is no FIELD=VALUE"),
        (["--rules", "claude-*:min_token=1"], "rules have no fields ['min_token']"),
        (["--rules", "claude-*:min_tokens=few"], "cannot be changed so"),
        (["--rules", "my-model:vlm"], "unknown dialect 'vlm'"),
        (["--latency", "soon"], "give seconds"),
        (["--latency", "-1"], "give seconds"),
        (["--replies", "no-such-file.jsonl"], "No such file"),
        (["--log", "no/such/directory/log"], "No such file"),
    ],
)
def test_wrong_usage_is_told_in_a_line(arguments: list[str], said: str) -> None:
    found = run(*arguments, "--port", "0")
    assert found.returncode == 2
    assert found.stdout == ""
    assert said in found.stderr
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "replies.jsonl:2: "),
        ("3", "a reply is a int"),
        ('{"txt": "x"}', "unknown fields ['txt']"),
        ('{"status": 99}', "a reply has status 99"),
        ('{"delay": "soon"}', "a reply cannot be read"),
        ('{"tool_calls": [1]}', "a tool call is a int"),
    ],
)
def test_a_bad_reply_is_named_by_its_line(line: str, said: str, tmp_path: Path) -> None:
    script = tmp_path / "replies.jsonl"
    script.write_text(f'"fine"\n{line}\n', "utf-8")
    found = run("--replies", str(script), "--port", "0")
    assert found.returncode == 2
    assert "replies.jsonl:2: " in found.stderr
    assert said in found.stderr


def test_help_teaches() -> None:
    shown = run("--help").stdout
    for option in ("--replies", "--rules", "--latency", "--log", "--overflow", "--allow-remote", "--json"):
        assert option in shown
    assert "simulated" in shown


def test_the_fixture_serves_a_test(provider_server: ProviderServer) -> None:
    for _ in range(10):
        ask({"openai_base_url": provider_server.openai_url})
    assert_hit_ratio([request.usage for request in provider_server.requests], at_least=0.88)


@pytest.mark.provider_server(replies=[Reply("Marked.")], rules={"*": {"min_tokens": 10**6}})
def test_a_mark_gives_the_fixture_arguments(provider_server: ProviderServer) -> None:
    said = ask({"openai_base_url": provider_server.openai_url})
    assert said.choices[0].message.content == "Marked."
    assert provider_server.requests[-1].outcome == "below-minimum"


def test_the_fixture_says_what_is_missing(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
        import sys
        import pytest

        def test_without_the_extra(monkeypatch, request):
            monkeypatch.setitem(sys.modules, "uvicorn", None)
            request.getfixturevalue("provider_server")

        @pytest.mark.provider_server(["not", "named"])
        def test_with_a_bad_mark(provider_server):
            pass
        """
    )
    outcome = pytester.runpytest("-p", "llmbuffer.testing.pytest_plugin")
    outcome.assert_outcomes(failed=1, errors=1)
    told = outcome.stdout.str()
    assert "needs uvicorn: pip install 'llmbuffer[simulate]>=1'" in told
    assert "takes named arguments: found" in told


def test_a_server_that_does_not_run_has_no_address() -> None:
    server = ProviderServer()
    with pytest.raises(Exception, match="the server does not run"):
        _ = server.url
    with server:
        first = server.url
    with server:
        assert server.url != ""
    assert first.startswith("http://")
