"""The model of the demo on the real engine: it counts as its vocabulary does, and what is sent counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.benchmarks.engine import client_of
from tests.engine.conftest import need

from llmbuffer.demo.engines import script_texts
from llmbuffer.demo.model import write_demo_model
from llmbuffer.demo.script import script
from llmbuffer.demo.vocabulary import BytePairs
from llmbuffer.dialects.llamacpp import LlamaCpp
from llmbuffer.engine import EngineServer

CONTEXT = 32_768


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    need("openai", "xllamacpp", "gguf")
    path = write_demo_model(tmp_path_factory.mktemp("demo") / "demo.gguf", script_texts(script()))
    with EngineServer(path, context=CONTEXT) as server:
        yield server


@pytest.fixture
def demo_client(server: EngineServer) -> Iterator[Any]:
    with client_of(server.url) as client:
        yield client


def tokens_of(client: Any, server: EngineServer, text: str) -> list[int]:
    answer = client.post(
        f"{server.url}/tokenize", cast_to=object, body={"content": text, "add_special": False}
    )
    return list(answer["tokens"])


def prompt_tokens(client: Any, messages: list[Any], **options: Any) -> int:
    body = {"model": "local", "messages": messages, "max_tokens": 1, "temperature": 0, **options}
    usage = LlamaCpp().read_usage(client.chat.completions.create(**body))
    assert usage is not None
    return usage.input_tokens


def test_the_engine_counts_what_the_vocabulary_counts(demo_client: Any, server: EngineServer) -> None:
    texts = [*script_texts(script()), "Grüße, 12 €!", "they've  two\n\n blanks", "日本 🙂"]
    pairs = BytePairs.trained(script_texts(script()))
    assert [pairs.count(text) for text in texts] == [
        len(tokens_of(demo_client, server, text)) for text in texts
    ]


def test_tokens_are_text_again(demo_client: Any, server: EngineServer) -> None:
    text = script().policy
    tokens = tokens_of(demo_client, server, text)
    answer = demo_client.post(f"{server.url}/detokenize", cast_to=object, body={"tokens": tokens})
    assert answer["content"] == text


def test_tools_calls_and_results_count(demo_client: Any) -> None:
    told = script()
    first = told.turns[0]
    user: list[Any] = [{"role": "user", "content": first.user}]
    call = first.steps[1].reply
    answered = [*user, call.to_openai()]
    result = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": first.steps[1].results[0]}
    plain = prompt_tokens(demo_client, user)
    tools = prompt_tokens(demo_client, user, tools=list(told.tools))
    called = prompt_tokens(demo_client, [*answered, {**result, "content": "-"}])
    whole = prompt_tokens(demo_client, [*answered, result])
    assert tools - plain > 900
    assert called - plain > 20
    assert whole - called > 400


def test_the_last_prompt_is_at_most_25_000_tokens(demo_client: Any) -> None:
    told = script()
    messages: list[Any] = [{"role": "system", "content": f"{told.persona}\n\n{told.policy}"}]
    for turn in told.turns:
        messages.append({"role": "user", "content": f"{turn.user}\n{turn.preferences}\n{turn.retrieved}"})
        for step in turn.steps:
            messages.append(step.reply.to_openai())
            ids = (call.id for call in step.reply.tool_calls)
            messages += (
                {"role": "tool", "tool_call_id": name, "content": result}
                for name, result in zip(ids, step.results, strict=True)
            )
    assert 15_000 <= prompt_tokens(demo_client, messages[:-1], tools=list(told.tools)) <= 25_000


def test_the_same_texts_give_the_same_bytes(tmp_path: Path) -> None:
    need("gguf")
    texts = [script().policy]
    one, two = (write_demo_model(tmp_path / name, texts) for name in ("one.gguf", "two.gguf"))
    assert one.read_bytes() == two.read_bytes()
    assert one.stat().st_size < 2_000_000
