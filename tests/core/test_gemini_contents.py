"""Explicit caches of Gemini, over the real SDK: made when they pay, refreshed, lost, deleted, and paid for."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from threading import Thread
from typing import Any

import anyio
import pytest
from google import genai
from tests.gemini_wire import GeminiServer, gemini_server
from tests.loopback import Failure, Said

from llmbuffer import Price, Session, StableContext, Usage
from llmbuffer.dialects.gemini import Gemini
from llmbuffer.dialects.gemini_contents import CachedContents
from llmbuffer.dialects.gemini_rules import rules_for
from llmbuffer.errors import PriceError
from llmbuffer.prices import known_models, price_for
from llmbuffer.testing import FakeClock

MODEL = "gemini-3.8-flash"
PRICE = Price(input=2, output=12, cache_read=0.2, cache_storage_hour=4.5)
RULE = "Answer kindly, briefly and with a source. " * 600  # some 6,000 tokens
SAID = Said("Hi!")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the SDK's own


@pytest.fixture
def server() -> Iterator[GeminiServer]:
    with gemini_server([SAID] * 40) as running:
        yield running


@pytest.fixture
def client(server: GeminiServer) -> Iterator[Any]:
    os.environ.setdefault("NO_PROXY", "127.0.0.1")
    with genai.Client(api_key="none", http_options={"base_url": server.url}) as made:
        yield made


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def contents_of(clock: Any, **options: Any) -> CachedContents:
    return CachedContents(**{"expected_requests": 10, "clock": clock, "prices": {MODEL: PRICE}, **options})


def session_of(contents: CachedContents, client: Any, system: str = RULE) -> Session:
    tools = [{"name": "search", "parameters": {"type": "object", "properties": {}}}]
    params = {"temperature": 0, "tool_config": {"functionCallingConfig": {"mode": "AUTO"}}}
    return Session(
        StableContext(MODEL, system, tools=tools, params=params), Gemini(contents=contents), client=client
    )


HEAD = {"systemInstruction", "tools", "toolConfig"}


def names(server: GeminiServer) -> list[str | None]:
    """The cache that each request named; one that names none holds the whole head."""
    for body in server.generated:
        assert (body.keys() & HEAD) == (set() if "cachedContent" in body else HEAD)
    return [body.get("cachedContent") for body in server.generated]


# Whether it pays


def test_break_even_is_computed_from_the_prices() -> None:
    contents = contents_of(lambda: 0.0)
    assert contents.break_even(MODEL) == pytest.approx((1 + 4.5 / 2) / 0.9)
    assert contents_of(lambda: 0.0, ttl=7200.0).break_even(MODEL) == pytest.approx((1 + 2 * 4.5 / 2) / 0.9)
    for expected, pays in ((3.6, False), (3.7, True)):
        assert contents_of(lambda: 0.0, expected_requests=expected).pays(MODEL) is pays
        # The formula against the two bills, for 10,000 tokens.
        plain = expected * 10_000 * 2
        cached = 10_000 * 2 + expected * 10_000 * 0.2 + 10_000 * 4.5
        assert (cached < plain) is pays


def test_without_a_storage_price_nothing_pays() -> None:
    contents = contents_of(lambda: 0.0, expected_requests=1e9, prices={})
    assert contents.break_even("gemini-4-argon") is None
    assert contents.break_even("no-such-model") is None
    assert not contents.pays("gemini-4-argon")
    assert contents.pays(MODEL), "the table knows its storage price"
    known = {model: price_for(model) for model in known_models() if model.startswith("gemini-")}
    stored = {model: price.cache_storage_hour for model, price in known.items() if price is not None}
    assert {model for model, rate in stored.items() if rate is None} == {
        "gemini-4-argon",
        "gemini-3.1-pro",
        "gemini-3.5-flash",
        "gemini-2.5-flash",
    }
    assert all(
        price is not None and "storage: " in price.source for model, price in known.items() if stored[model]
    )
    free = {MODEL: Price(input=2, output=1, cache_storage_hour=0.1)}
    assert not contents_of(lambda: 0.0, prices=free).pays(MODEL), "reads are not cheaper"


@pytest.mark.parametrize("options", [{"ttl": 0}, {"ttl": float("inf")}, {"refresh_below": 1.0}])
def test_figures_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PriceError):
        contents_of(lambda: 0.0, **options)
    with pytest.raises(PriceError, match="cache_storage_hour"):
        Price(input=1, output=1, cache_storage_hour=-1)


@pytest.mark.parametrize(
    ("options", "system"),
    [
        ({"expected_requests": 3}, RULE),
        ({}, "Be kind."),
        ({"prices": {MODEL: Price(input=1, output=1)}}, RULE),
    ],
)
def test_nothing_is_made_that_does_not_pay(
    server: GeminiServer, client: Any, clock: FakeClock, options: dict[str, Any], system: str
) -> None:
    contents = contents_of(clock, **options)
    session_of(contents, client, system).respond("hi")
    assert server.calls("POST") == []
    assert names(server) == [None]
    assert contents.cost == 0


def test_a_cache_of_the_users_own_is_left_alone(server: GeminiServer, client: Any, clock: FakeClock) -> None:
    server.contents["cachedContents/mine"] = {}
    context = StableContext(MODEL, params={"cached_content": "cachedContents/mine"})
    for dialect in (Gemini(contents=contents_of(clock)), Gemini()):
        Session(context, dialect, client=client).respond("hi")
    assert [body["cachedContent"] for body in server.generated] == ["cachedContents/mine"] * 2
    assert server.calls("POST") == []


# The life of a cache


def test_one_cache_serves_a_session_and_its_forks(
    server: GeminiServer, client: Any, clock: FakeClock
) -> None:
    contents = contents_of(clock)
    assert Gemini(contents=contents).bind(MODEL).contents is contents
    session = session_of(contents, client)
    session.respond("hi")
    for _ in session.fork().stream("and?"):
        pass
    session_of(contents, client).respond("hi")
    assert names(server) == ["cachedContents/c1"] * 3
    (made,) = server.calls("POST")
    request = session.request("hi")
    kept = {key: made.json[key] for key in HEAD}
    assert json.dumps(kept, sort_keys=True) == json.dumps(
        {key: request.body[key] for key in HEAD}, sort_keys=True
    )
    assert made.json["model"] == f"models/{MODEL}"
    assert made.json["ttl"] == "3600s"
    assert RULE not in made.json["displayName"]
    assert server.generated[0]["generationConfig"] == {"temperature": 0}
    assert contents.names == ("cachedContents/c1",)


def test_another_head_has_another_cache(server: GeminiServer, client: Any, clock: FakeClock) -> None:
    contents = contents_of(clock)
    for system in (RULE, RULE + "!"):
        session_of(contents, client, system).respond("hi")
    assert names(server) == ["cachedContents/c1", "cachedContents/c2"]
    assert len(contents.names) == 2


def test_storage_is_paid_until_the_end(server: GeminiServer, client: Any, clock: FakeClock) -> None:
    contents = contents_of(clock)
    session_of(contents, client).respond("hi")
    assert contents.creation_cost == pytest.approx(0.1 * 2)  # the server counts 100,000 tokens
    clock.advance(1800)
    assert contents.storage_cost() == pytest.approx(0.1 * 4.5 / 2)
    assert contents.cost == pytest.approx(0.1 * 2 + 0.1 * 4.5 / 2)
    assert contents.storage_cost(clock() + 900) == pytest.approx(0.1 * 4.5 * 0.75)
    contents.close(client)
    assert [seen.path for seen in server.calls("DELETE")] == ["cachedContents/c1"]
    clock.advance(3600)
    assert contents.storage_cost() == pytest.approx(0.1 * 4.5 / 2)
    session_of(contents, client).respond("hi")
    assert names(server) == ["cachedContents/c1", None], "closed"


def test_a_cache_that_expired_is_made_anew(server: GeminiServer, client: Any, clock: FakeClock) -> None:
    contents = contents_of(clock)
    session = session_of(contents, client)
    session.respond("hi")
    clock.advance(3600)
    assert contents.names == ()
    assert contents.storage_cost() == pytest.approx(0.1 * 4.5)
    session.respond("and?")
    assert names(server) == ["cachedContents/c1", "cachedContents/c2"]
    assert contents.storage_cost(clock() + 7200) == pytest.approx(2 * 0.1 * 4.5), "no longer than it lives"


def test_a_cache_in_use_is_refreshed(server: GeminiServer, client: Any, clock: FakeClock) -> None:
    contents = contents_of(clock)
    session = session_of(contents, client)
    for _ in range(5):
        session.respond("hi")
        clock.advance(600)
    assert server.calls("PATCH") == [], "a quarter of its life is not begun"
    session.respond("hi")
    (refreshed,) = server.calls("PATCH")
    assert (refreshed.path, refreshed.json) == ("cachedContents/c1", {"ttl": "3600s"})
    clock.advance(1800)
    assert contents.storage_cost() == pytest.approx(0.1 * 4.5 * 4800 / 3600)
    session.respond("hi")
    assert names(server) == ["cachedContents/c1"] * 7
    assert len(server.calls("POST")) == 1


def test_a_cache_is_refreshed_once_however_many_ask(
    server: GeminiServer, client: Any, clock: FakeClock
) -> None:
    contents = contents_of(clock, ttl=1e6, expected_requests=1e6)
    kwargs = session_of(contents, client).request("hi").kwargs
    for _ in range(3):
        contents.lease(client, kwargs, rules_for(MODEL))
    assert server.calls("POST")[0].json["ttl"] == "1000000s"
    contents = contents_of(clock)

    class Slow:
        class caches:  # noqa: N801 - an attribute of the SDK's client
            create = client.caches.create

            @staticmethod
            def update(**arguments: Any) -> None:
                for _ in range(3):  # others come while one refreshes
                    assert contents.lease(Slow, kwargs, rules_for(MODEL)) is not None
                client.caches.update(**arguments)

    for _ in range(9):
        contents.lease(Slow, kwargs, rules_for(MODEL))
    clock.advance(3000)
    assert contents.lease(Slow, kwargs, rules_for(MODEL)) is not None
    assert len(server.calls("PATCH")) == 1


def test_a_cache_that_is_hardly_used_is_not_refreshed(
    server: GeminiServer, client: Any, clock: FakeClock
) -> None:
    contents = contents_of(clock)
    session = session_of(contents, client)
    session.respond("hi")
    clock.advance(3500)
    session.respond("hi")
    assert names(server) == ["cachedContents/c1"] * 2
    assert server.calls("PATCH") == []


def test_a_refresh_that_fails_changes_nothing(
    server: GeminiServer, client: Any, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    contents = contents_of(clock)
    session = session_of(contents, client)
    for _ in range(6):
        session.respond("hi")
    server.fail = lambda seen: Failure(500, RULE) if seen.method == "PATCH" else None
    clock.advance(3000)
    session.respond("hi")
    assert names(server) == ["cachedContents/c1"] * 7
    assert "refreshing cachedContents/c1 failed: ServerError 500" in caplog.text
    assert RULE not in caplog.text
    clock.advance(600)
    assert contents.names == ()


# Faults


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("status", [403, 404])
def test_a_cache_that_is_gone_loses_nothing(
    server: GeminiServer, client: Any, clock: FakeClock, streaming: bool, status: int
) -> None:
    contents = contents_of(clock)
    session = session_of(contents, client)
    converse = (lambda words: list(session.stream(words))) if streaming else session.respond
    converse("one")
    converse("two")
    server.contents.clear()
    if status == 404:
        server.fail = lambda seen: Failure(404) if b'"cachedContents/c1"' in seen.body else None
    clock.advance(60)
    converse("three")
    assert names(server) == ["cachedContents/c1"] * 3 + [None]
    assert server.answered == 3, "answered once"
    assert [message.text for message in session.messages] == ["one", "Hi!", "two", "Hi!", "three", "Hi!"]
    assert contents.storage_cost(clock() + 3600) == pytest.approx(0.1 * 4.5 / 60)
    converse("four")
    assert names(server)[-1] == "cachedContents/c2", "made anew"


def test_a_cache_that_never_worked_is_not_made_again_by_those_who_waited(
    server: GeminiServer, client: Any, clock: FakeClock
) -> None:
    server.released.clear()
    server.fail = lambda seen: Failure(403) if b'"cachedContent"' in seen.body else None
    contents = contents_of(clock)
    threads = [Thread(target=session_of(contents, client).respond, args=("hi",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert server.asked.wait(20)
    server.released.set()
    for thread in threads:
        thread.join(20)
    session_of(contents, client).respond("hi")
    assert len(server.calls("POST")) == 1
    assert server.answered == 4


def test_a_cache_that_never_worked_is_not_made_again_at_once(
    server: GeminiServer, client: Any, clock: FakeClock
) -> None:
    """Caches belong to a project: with clients of two, each would make one that the other cannot read."""
    server.fail = lambda seen: Failure(403) if b'"cachedContent"' in seen.body else None
    session = session_of(contents_of(clock), client)
    for _ in range(3):
        session.respond("hi")
    assert len(server.calls("POST")) == 1
    assert names(server) == ["cachedContents/c1", None, None, None]
    clock.advance(301)
    session.respond("hi")
    assert len(server.calls("POST")) == 2


@pytest.mark.parametrize("streaming", [False, True])
def test_other_errors_pass_through_and_are_not_sent_twice(
    server: GeminiServer, client: Any, clock: FakeClock, streaming: bool
) -> None:
    server.fail = lambda seen: Failure(429) if "enerateContent" in seen.path else None
    session = session_of(contents_of(clock), client)
    with pytest.raises(genai.errors.ClientError, match="429"):
        list(session.stream("hi")) if streaming else session.respond("hi")
    assert names(server) == ["cachedContents/c1"]


def test_a_cache_that_cannot_be_made_fails_no_request(
    server: GeminiServer, client: Any, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail = lambda seen: Failure(429, RULE) if seen.path == "cachedContents" else None
    contents = contents_of(clock, retry_after=60.0)
    session = session_of(contents, client)
    for _ in range(3):
        assert session.respond("hi").text == "Hi!"
    assert len(server.calls("POST")) == 1
    assert names(server) == [None] * 3
    assert f"making a cache for {MODEL} failed: ClientError 429" in caplog.text
    assert RULE not in caplog.text
    assert contents.cost == 0
    server.fail = lambda seen: None
    clock.advance(61)
    session.respond("hi")
    assert names(server)[-1] == "cachedContents/c1"


def test_deleting_what_is_gone_is_no_error(
    server: GeminiServer, client: Any, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    contents = contents_of(clock)
    session_of(contents, client).respond("hi")
    server.contents.clear()
    contents.forget(client, "cachedContents/c1")
    assert contents.names == ()
    session_of(contents, client).respond("hi")
    assert names(server) == ["cachedContents/c1", "cachedContents/c2"]
    server.fail = lambda seen: Failure(500) if seen.method == "DELETE" else None
    contents.close(client)
    assert list(contents.names) == ["cachedContents/c2"], "it is paid for until it expires"
    assert [record.levelno for record in caplog.records if record.name == "llmbuffer.gemini"] == [
        logging.WARNING
    ] * 2


# Several at once


def test_two_threads_make_one_cache(server: GeminiServer, client: Any, clock: FakeClock) -> None:
    server.released.clear()
    contents = contents_of(clock)
    threads = [Thread(target=session_of(contents, client).respond, args=("hi",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert server.asked.wait(20)
    server.released.set()
    for thread in threads:
        thread.join(20)
    assert len(server.calls("POST")) == 1
    assert names(server) == ["cachedContents/c1"] * 4


def test_who_waits_for_a_cache_that_fails_goes_on(
    server: GeminiServer, client: Any, clock: FakeClock
) -> None:
    server.released.clear()
    server.fail = lambda seen: Failure(400) if seen.path == "cachedContents" else None
    contents = contents_of(clock)
    threads = [Thread(target=session_of(contents, client).respond, args=("hi",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert server.asked.wait(20)
    server.released.set()
    for thread in threads:
        thread.join(20)
    assert len(server.calls("POST")) == 1
    assert names(server) == [None] * 3


@pytest.mark.anyio
async def test_the_life_of_a_cache_with_the_asynchronous_client(
    server: GeminiServer, client: Any, clock: FakeClock
) -> None:
    contents = contents_of(clock)
    async with client.aio as aio, anyio.create_task_group() as group:
        sessions = [session_of(contents, aio) for _ in range(4)]
        for session in sessions:
            group.start_soon(session.arespond, "hi")
        while any(not session.messages for session in sessions):
            await anyio.lowlevel.checkpoint()
        assert names(server) == ["cachedContents/c1"] * 4
        clock.advance(3000)
        await sessions[0].arespond("hi")
        assert len(server.calls("PATCH")) == 1
        server.contents.clear()
        await sessions[0].arespond("hi")
        assert names(server)[-2:] == ["cachedContents/c1", None]
        assert [event.text async for event in sessions[1].astream("hi")] == ["Hi!", ""]
        assert names(server)[-1] == "cachedContents/c2"
        server.contents.clear()
        assert [event.text async for event in sessions[1].astream("hi")] == ["Hi!", ""]
        assert names(server)[-2:] == ["cachedContents/c2", None]
        await sessions[0].arespond("hi")
        assert contents.names == ("cachedContents/c3",)
        await contents.aclose(aio)
    assert [seen.path for seen in server.calls("DELETE")] == ["cachedContents/c3"]
    assert contents.names == ()


@pytest.mark.anyio
async def test_an_asynchronous_request_that_fails(
    server: GeminiServer, client: Any, clock: FakeClock
) -> None:
    server.fail = lambda seen: Failure(500) if "enerateContent" in seen.path else None
    async with client.aio as aio:
        session = session_of(contents_of(clock), aio)
        with pytest.raises(genai.errors.ServerError):
            await session.arespond("hi")
        with pytest.raises(genai.errors.ServerError):
            [event async for event in session.astream("hi")]
    assert names(server) == ["cachedContents/c1"] * 2


def test_who_is_interrupted_lets_others_make_the_cache(clock: FakeClock) -> None:
    contents = contents_of(clock)
    kwargs = session_of(contents, None).request("hi").kwargs

    class Interrupted:
        class caches:  # noqa: N801 - an attribute of the SDK's client
            @staticmethod
            def create(**_: Any) -> Any:
                raise KeyboardInterrupt

    class Working:
        class caches:  # noqa: N801 - an attribute of the SDK's client
            @staticmethod
            def create(**_: Any) -> Any:
                return genai.types.CachedContent(name="cachedContents/x")

    with pytest.raises(KeyboardInterrupt):
        contents.lease(Interrupted, kwargs, rules_for(MODEL))
    lease = contents.lease(Working, kwargs, rules_for(MODEL))
    assert lease is not None
    assert lease.kwargs["config"]["http_options"]["extra_body"]["cachedContent"] == "cachedContents/x"
    assert "systemInstruction" in kwargs["config"]["http_options"]["extra_body"], "the request is as it was"
    assert not lease.refused(ValueError("x"))
    assert contents.creation_cost > 0, "without a count of the provider's, our own"


@pytest.mark.parametrize(
    "config", [None, {"system_instruction": RULE}, genai.types.GenerateContentConfig(system_instruction=RULE)]
)
def test_arguments_that_are_not_the_dialects_are_left_alone(clock: FakeClock, config: Any) -> None:
    assert (
        contents_of(clock).lease(None, {"model": MODEL, "contents": "hi", "config": config}, rules_for(MODEL))
        is None
    )


def test_usage_of_a_request_with_a_cache_counts_what_was_read(
    server: GeminiServer, client: Any, clock: FakeClock
) -> None:
    server.script[:] = [Said("Hi!", usage=(10, 6000, 0, 2))]
    seen: list[Any] = []
    session_of(contents_of(clock), client).respond("hi", on_observe=seen.append)
    assert seen[0].usage == Usage(input_tokens=6010, cache_read_tokens=6000, output_tokens=2)
