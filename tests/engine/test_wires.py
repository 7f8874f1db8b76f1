"""The three wire formats of the llama.cpp server, through the real SDKs: sync, async and streaming; cached tokens in each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import anthropic
import anyio
import openai
import pytest
from tests.benchmarks.engine import PARAMS, usages_of
from tests.engine.conftest import PREFIX

from llmbuffer import Dialect, Session, StableContext, get_dialect
from llmbuffer.dialects.anthropic import Anthropic
from llmbuffer.dialects.llamacpp import LlamaCpp
from llmbuffer.engine import EngineServer
from llmbuffer.plugins import plugins
from llmbuffer.tokens import EstimateCounter

TURNS = ("Where is it?", "When will it come?", "Who signs for it?")


def responses() -> Dialect:
    if "openai-responses" not in plugins.offers("dialects"):
        pytest.skip("no dialect 'openai-responses' is installed")
    return get_dialect("openai-responses")


class Wire(NamedTuple):
    """One format: its dialect, the SDK's two clients, what follows the server's address, params."""

    dialect: Callable[[], Dialect]
    client: Callable[..., Any]
    asynchronous: Callable[..., Any]
    path: str
    params: dict[str, Any]


WIRES = {
    "chat": Wire(LlamaCpp, openai.OpenAI, openai.AsyncOpenAI, "/v1", PARAMS),
    "responses": Wire(
        responses, openai.OpenAI, openai.AsyncOpenAI, "/v1", {"max_output_tokens": 1, "temperature": 0}
    ),
    "messages": Wire(
        lambda: Anthropic(LlamaCpp().rules), anthropic.Anthropic, anthropic.AsyncAnthropic, "", PARAMS
    ),
}


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> Wire:
    return WIRES[request.param]


def session_of(wire: Wire, system: str) -> Session:
    return Session(
        StableContext("local", system, params=wire.params), wire.dialect(), tokens=EstimateCounter()
    )


def check(session: Session) -> None:
    """The prefix was computed once; later requests read it, and said so in the format's own usage fields."""
    first, *later = usages_of(session)
    assert len(later) == len(TURNS) - 1
    assert first.input_tokens > PREFIX > 16 > first.cache_read_tokens
    assert all(usage.cache_read_tokens >= PREFIX for usage in later)
    assert all(0 < usage.input_tokens - usage.cache_read_tokens < 100 for usage in later)
    assert all(usage.output_tokens == 1 for usage in (first, *later))


def test_sync(wire: Wire, one: EngineServer, system: str) -> None:
    session = session_of(wire, system)
    with wire.client(base_url=one.url + wire.path, api_key="none", max_retries=0) as client:
        for user in TURNS:
            assert len(session.respond(user, client=client).text) == 1
    check(session)


def test_streaming(wire: Wire, one: EngineServer, system: str) -> None:
    session = session_of(wire, system)
    with wire.client(base_url=one.url + wire.path, api_key="none", max_retries=0) as client:
        for user in TURNS:
            *texts, done = session.stream(user, client=client)
            assert (len("".join(event.text for event in texts)), done.kind) == (1, "done")
    check(session)


def test_async(wire: Wire, one: EngineServer, system: str) -> None:
    session = session_of(wire, system)

    async def main() -> None:
        async with wire.asynchronous(base_url=one.url + wire.path, api_key="none", max_retries=0) as client:
            await session.arespond(TURNS[0], client=client)
            for user in TURNS[1:]:
                kinds = [event.kind async for event in session.astream(user, client=client)]
                assert kinds == ["text", "done"]

    anyio.run(main)
    check(session)
