"""Sessions against the simulated provider: prewarming, forks, diagnostics, explicit caches, over the real SDKs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from llmbuffer import Price, Session, StableContext
from llmbuffer.simulate import ProviderServer
from llmbuffer.testing import FakeClock, assert_hit_ratio
from llmbuffer.tokens import EstimateCounter

genai = pytest.importorskip("google.genai")

RULES = "You track parcels, and you are brief and kind. " * 700


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def server(clock: FakeClock) -> Iterator[ProviderServer]:
    with ProviderServer(counter=EstimateCounter(), clock=clock) as running:
        yield running


def session_of(dialect: Any, model: str, clock: FakeClock, **options: Any) -> Session:
    return Session(
        StableContext(model, RULES), dialect=dialect, clock=clock, tokens=EstimateCounter(), **options
    )


def test_a_prewarmed_session_reads_what_it_wrote(server: ProviderServer, clock: FakeClock) -> None:
    with anthropic.Anthropic(base_url=server.anthropic_url, api_key="k") as client:
        session = session_of("anthropic", "claude-sonnet-5.5", clock, client=client)
        warmed = session.prewarm()
        assert warmed is not None
        assert warmed.usage == server.requests[0].usage
        assert warmed.usage.cache_write_tokens > 5000
        session.respond("Where is it?")
        assert server.requests[1].usage.hit_ratio > 0.99


def test_forks_of_a_warm_session_read_and_cold_ones_write(server: ProviderServer, clock: FakeClock) -> None:
    async def fan_out(session: Session, number: int) -> list[int]:
        workers = [session.fork(f"worker-{index}") for index in range(number)]
        await asyncio.gather(*(worker.arespond(f"Task of {worker.id}") for worker in workers))
        return [
            entry.usage.cache_write_tokens for worker in workers for entry in worker.ledger if entry.usage
        ]

    async def both() -> tuple[list[int], list[int]]:
        async with anthropic.AsyncAnthropic(base_url=server.anthropic_url, api_key="k") as client:
            session = session_of("anthropic", "claude-sonnet-5.5", clock, client=client)
            await session.arespond("Read the rules.")
            warm = await fan_out(session, 4)
            clock.advance(3600)
            return warm, await fan_out(session, 1)

    warm, expired = asyncio.run(both())
    assert len(warm) == 4
    assert max(warm) < 100
    assert [request.usage.hit_ratio > 0.9 for request in server.requests] == [
        False,
        True,
        True,
        True,
        True,
        False,
    ]
    assert min(expired) > 5000
    assert server.requests[-1].outcome == "expired"


@pytest.mark.moves_prefix(reason="the provider's diagnosis of an edited history is what is tested")
@pytest.mark.parametrize(
    ("dialect", "model", "reason"),
    [
        ("anthropic", "claude-sonnet-5.5", "system_changed"),
        ("openai-responses", "gpt-5.6", "input_changed"),
    ],
)
def test_the_providers_own_diagnosis_reaches_the_session(
    dialect: str, model: str, reason: str, server: ProviderServer, clock: FakeClock
) -> None:
    client: Any
    if dialect == "anthropic":
        client = anthropic.Anthropic(base_url=server.anthropic_url, api_key="k")
    else:
        client = openai.OpenAI(base_url=server.openai_url, api_key="k")
    with client:
        session = session_of(dialect, model, clock, client=client, diagnostics=True)
        for text in ("Where is it?", "And now?"):
            request = session.request(text)
            seen = request.observe(session.dialect.send(client, request.kwargs))
            assert seen.diagnosis is None
        session.thaw("a new policy")
        session.update(system=RULES + "Be formal.")
        request = session.request("And then?")
        seen = request.observe(session.dialect.send(client, request.kwargs))
        assert seen.diagnosis is not None
        assert seen.diagnosis.reason == reason


def test_geminis_dialect_keeps_an_explicit_cache(server: ProviderServer, clock: FakeClock) -> None:
    from llmbuffer.dialects.gemini import Gemini
    from llmbuffer.dialects.gemini_contents import CachedContents

    prices = {"gemini-2.5-pro": Price(input=2, output=12, cache_read=0.2, cache_storage_hour=4.5)}
    contents = CachedContents(expected_requests=100, ttl=600, clock=clock, prices=prices)
    with genai.Client(api_key="k", http_options={"base_url": server.gemini_url}) as client:
        session = session_of(Gemini(contents=contents), "gemini-2.5-pro", clock, client=client)
        for turn in range(3):
            session.respond(f"Question {turn}?")
            clock.advance(400)  # the implicit cache is gone by then, and the explicit one was kept alive
        (made,) = client.caches.list()
        assert made.usage_metadata.total_token_count > 5000
        usages = [request.usage for request in server.requests]
        assert len(usages) == 3
        assert_hit_ratio(usages, at_least=0.98)
        server.provider.contents.clear()  # lost at the provider: the request goes whole
        session.respond("And now?")
        assert [request.status for request in server.requests[3:]] == [403, 200]
