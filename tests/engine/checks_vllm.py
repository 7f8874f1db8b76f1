"""The vllm dialect on a real vLLM server that runs already: `nox -s engine-vllm` starts one.

LLMBUFFER_VLLM_URL is the server's root, LLMBUFFER_VLLM_BLOCK the tokens of its blocks (default 128, as on a CPU). The server
runs with --enable-prompt-tokens-details.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from tests.benchmarks.engine import PARAMS, client_of, computed, prewarmed, side_by_side, text_of, usages_of

from llmbuffer import Session, StableContext
from llmbuffer.dialects.server_counter import ServerCounter
from llmbuffer.dialects.vllm import Vllm

URL = os.environ.get("LLMBUFFER_VLLM_URL", "")
BLOCK = int(os.environ.get("LLMBUFFER_VLLM_BLOCK", "128"))
MODEL = os.environ.get("LLMBUFFER_VLLM_MODEL", "m")

pytestmark = pytest.mark.skipif(not URL, reason="no vLLM server: LLMBUFFER_VLLM_URL is not set")


@pytest.fixture
def client() -> Iterator[Any]:
    with client_of(URL) as client:
        yield client


def session_of(client: Any, seed: int, **options: Any) -> Session:
    context = StableContext(MODEL, text_of(4_000, seed), params=PARAMS)
    return Session(context, Vllm(block_size=BLOCK, **options), client=client, tokens=ServerCounter(client))


def test_a_conversation_reads_whole_blocks(client: Any) -> None:
    session = session_of(client, 1)
    session.respond("One?")
    session.respond("Two?")
    first, second = usages_of(session)
    assert second.cache_read_tokens % BLOCK == 0
    assert second.cache_read_tokens >= first.input_tokens - BLOCK


def test_forks_side_by_side_share_a_cold_prefix(client: Any) -> None:
    session = session_of(client, 2)
    forks = [session.fork(task=f"You are worker {index}.") for index in range(4)]
    side_by_side([partial(fork.respond) for fork in forks])
    usages = usages_of(*forks)
    assert computed(usages) <= 1.5 * max(usage.input_tokens for usage in usages)


def test_another_salt_shares_nothing(client: Any) -> None:
    plain, salted = session_of(client, 3), session_of(client, 3, cache_salt="tenant-1")
    plain.respond("One?")
    salted.respond("One?")
    assert usages_of(salted)[0].cache_read_tokens == 0


def test_what_prewarm_computed_the_request_reads(client: Any) -> None:
    session = session_of(client, 4)
    prewarmed(session)
    session.respond("Begin.")
    _, usage = usages_of(session)
    assert usage.cache_read_tokens >= usage.input_tokens - 2 * BLOCK
