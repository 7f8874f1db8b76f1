"""What really leaves the SDKs: the bytes of long sessions, read without any help of the core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.loopback import Said, loopback
from tests.scripted_session import (
    MODELS,
    TURNS,
    aconverse,
    client_of,
    converse,
    converse_streaming,
    session_of,
)

from llmbuffer import Session, StableContext

ROOT = Path(__file__).resolve().parents[2]
MARKS = ("cache_control", "prompt_cache_breakpoint")
Bodies = Sequence[bytes]


@cache
def sent(model: str) -> Bodies:
    return converse(model)


@pytest.fixture(params=MODELS)
def bodies(request: pytest.FixtureRequest) -> Bodies:
    return sent(request.param)


def blocks_of(raw: bytes) -> list[str]:
    """Tools, system and messages of a body as one list of blocks in prompt order, without breakpoints.

    A string counts as the text part that it is; a message contributes its role and other fields first.
    """
    body = json.loads(raw)
    blocks = [_written("tool", tool) for tool in body.get("tools", [])]
    blocks += [_written("system", block) for block in _parts(body.get("system"))]
    for message in body["messages"]:
        blocks.append(
            _written("message", {k: v for k, v in message.items() if k not in ("content", "tool_calls")})
        )
        blocks += [_written("part", part) for part in _parts(message.get("content"))]
        blocks += [_written("call", call) for call in message.get("tool_calls") or []]
    return blocks


def _parts(content: Any) -> list[Any]:
    if content is None:
        return []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _written(kind: str, value: dict[str, Any]) -> str:
    return f"{kind} {json.dumps({key: item for key, item in value.items() if key not in MARKS})}"


def is_dynamic(block: str) -> bool:
    return "\\u00abtick" in block or "\\u00abpassage" in block


def turn_of(blocks: Sequence[str]) -> int:
    return sum("Question" in block for block in blocks)


def marks_in(raw: bytes) -> int:
    return sum(raw.count(b'"%s"' % mark.encode()) for mark in MARKS)


def test_every_request_extends_the_one_before_it_up_to_the_dynamic_text(bodies: Bodies) -> None:
    requests = [blocks_of(raw) for raw in bodies]
    assert len(requests) == 39
    assert turn_of(requests[-1]) == TURNS
    for older, newer in pairwise(requests):
        announced = [index for index, block in enumerate(older) if is_dynamic(block)]
        assert len(announced) == 2
        same_turn = turn_of(older) == turn_of(newer)
        shared = len(older) if same_turn else announced[0]
        assert newer[:shared] == older[:shared]
        assert len(newer) > shared
        kept = [block for block in older if not is_dynamic(block)]
        assert [block for block in newer if not is_dynamic(block)][: len(kept)] == kept


def test_dynamic_text_is_that_of_the_turn_and_stands_once(bodies: Bodies) -> None:
    for raw in bodies:
        blocks = blocks_of(raw)
        texts = [block for block in blocks if is_dynamic(block)]
        turn = turn_of(blocks) - 1
        assert [f"tick {turn}\\u00bb" in texts[0], f"passage {turn}\\u00bb" in texts[1]] == [True, True]


def test_everything_but_the_messages_stays_byte_for_byte(bodies: Bodies) -> None:
    rest = {
        json.dumps({k: v for k, v in json.loads(raw).items() if k in ("model", "tools", "temperature")})
        for raw in bodies
    }
    keys = {json.loads(raw).get("prompt_cache_key") for raw in bodies}
    assert len(keys) == 1
    if b'"cache_control"' not in bodies[0]:
        assert len(rest) == 1
        assert keys == {"key"}


def test_marks_are_few_and_only_where_the_model_takes_them(bodies: Bodies) -> None:
    model = json.loads(bodies[0])["model"]
    counts = [marks_in(raw) for raw in bodies]
    if model == "gpt-5.5":
        assert max(counts) == 0
        assert not any(b"prompt_cache_options" in raw for raw in bodies)
    else:
        assert min(counts) >= 1
        assert max(counts) <= 4
    if model == "gpt-5.6":
        implicit = [b'"prompt_cache_options":{"mode":"explicit"}' not in raw for raw in bodies]
        assert all(count + own <= 4 for count, own in zip(counts, implicit, strict=True))


@pytest.mark.parametrize("model", MODELS)
def test_the_asynchronous_sdk_sends_the_same_bytes(model: str) -> None:
    assert anyio.run(aconverse, model) == sent(model)


@pytest.mark.parametrize("model", MODELS)
def test_a_streamed_session_sends_the_same_prompts(model: str) -> None:
    streamed, whole = converse_streaming(model), sent(model)
    assert [blocks_of(raw) for raw in streamed] == [blocks_of(raw) for raw in whole]
    assert all(json.loads(raw)["stream"] is True for raw in streamed)


def test_ten_hash_seeds_send_the_same_bytes() -> None:
    def start(seed: int) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "NO_PROXY": "127.0.0.1"}
        path = os.pathsep.join([str(ROOT), str(ROOT / "core/src"), *sys.path])
        return subprocess.Popen(
            [sys.executable, "-m", "tests.scripted_session"],
            cwd=ROOT,
            env={**environment, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    digests = []
    for first in range(1, 11, 2):  # two at a time
        for process in [start(first), start(first + 1)]:
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
            digests.append(out)
    assert len(digests) == 10
    assert len(set(digests)) == 1
    assert len(digests[0].split()) == len(MODELS)


def fields_of(raw: bytes | str) -> dict[str, str]:
    """The fields of a body (whose own order is the SDK's), each with its keys in the order sent."""
    return {key: json.dumps(value) for key, value in json.loads(raw).items()}


@pytest.mark.parametrize("model", MODELS)
def test_what_arrives_is_the_body(model: str) -> None:
    with loopback([Said("hi"), Said("ho")]) as server, client_of(model, server) as client:
        session = session_of(model, client)
        for text in ("Grüße 🫖 \u2028", '<|endoftext|> "quoted"\\ \x7f'):
            request = session.request(text, dynamic={"clock": "12:00"})
            session.respond(text, dynamic={"clock": "12:00"})
            assert fields_of(server.bodies[-1]) == fields_of(json.dumps(request.body))


@pytest.mark.parametrize("model", MODELS)
def test_fields_that_the_sdk_does_not_know_arrive(model: str) -> None:
    unknown = {"cache_prompt": True, "id_slot": 3, "timeout": 5, "extra_headers": {"a": "b"}}
    with loopback([Said("hi")]) as server, client_of(model, server) as client:
        session = Session(
            StableContext(model, "x", params={**unknown, "metadata": {"user_id": "7"}}), MODELS[model]
        )
        request = session.request("hello", params={"cache_salt": "s"})
        assert request.kwargs["extra_body"].keys() >= {*unknown, "cache_salt"}
        request.dialect.send(client, request.kwargs)
        assert json.loads(server.bodies[0]) == json.loads(json.dumps(request.body))
        assert {key: server.requests[0][key] for key in unknown} == unknown
