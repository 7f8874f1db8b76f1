"""The simulated provider seen through the real SDKs: what they read is what its cache did."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest

from llmbuffer import Message, Segment, Session, StableContext, ToolResult, Usage
from llmbuffer.plugins import get_dialect
from llmbuffer.rules import CacheRules
from llmbuffer.simulate import Asked, Call, Limits, ProviderServer, Reply
from llmbuffer.testing import FakeClock, assert_hit_ratio
from llmbuffer.tokens import EstimateCounter

genai = pytest.importorskip("google.genai")

RULES = "You track parcels, and you are brief and kind. " * 700  # some 7,000 tokens
PIXEL = "iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"number": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "track", "description": "Track.", "parameters": SCHEMA}}
CALLS = Reply("Let me see.", (Call("track", '{"number": "7"}'),))


def served(**arguments: Any) -> ProviderServer:
    """A server that counts alike wherever tests run."""
    return ProviderServer(counter=EstimateCounter(), **arguments)


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with served() as running:
        yield running


CLIENTS: list[Any] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while CLIENTS:
        CLIENTS.pop().close()


def openai_client(server: ProviderServer, **options: Any) -> openai.OpenAI:
    client = openai.OpenAI(**{"base_url": server.openai_url, "api_key": "k", "max_retries": 0, **options})
    CLIENTS.append(client)
    return client


def anthropic_client(server: ProviderServer) -> anthropic.Anthropic:
    client = anthropic.Anthropic(base_url=server.anthropic_url, api_key="k", max_retries=0)
    CLIENTS.append(client)
    return client


def gemini_client(server: ProviderServer) -> Any:
    client = genai.Client(api_key="k", http_options={"base_url": server.gemini_url})
    CLIENTS.append(client)
    return client


def marked(text: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, "cache_control": {"type": "ephemeral", **fields}}


CHAT: dict[str, Any] = {
    "model": "gpt-5.6",
    "messages": [{"role": "developer", "content": RULES}, {"role": "user", "content": "Where is it?"}],
}
RESPONSES: dict[str, Any] = {"model": "gpt-5.6", "instructions": RULES, "input": "Where is it?"}
MESSAGES: dict[str, Any] = {
    "model": "claude-sonnet-5.5",
    "max_tokens": 100,
    "system": [marked(RULES)],
    "messages": [{"role": "user", "content": "Where is it?"}],
}
GENERATE: dict[str, Any] = {
    "model": "gemini-2.5-pro",
    "contents": "Where is it?",
    "config": {"system_instruction": RULES},
}


class Seen:
    """What one SDK call gave: usage as its dialect reads it, and the text."""

    def __init__(self, wire: str, response: Any, text: str | None) -> None:
        usage = get_dialect(wire).read_usage(response)
        assert usage is not None
        self.usage, self.text = usage, text


def chat(server: ProviderServer, stream: bool) -> Seen:
    create = openai_client(server).chat.completions.create
    if not stream:
        whole = create(**CHAT)
        return Seen("openai", whole, whole.choices[0].message.content)
    *chunks, last = create(**CHAT, stream=True, stream_options={"include_usage": True})
    assert all(chunk.usage is None for chunk in chunks)
    return Seen("openai", last, "".join(chunk.choices[0].delta.content or "" for chunk in chunks))


def responses(server: ProviderServer, stream: bool) -> Seen:
    client = openai_client(server)
    if not stream:
        whole = client.responses.create(**RESPONSES)
    else:
        with client.responses.stream(**RESPONSES) as events:
            for _ in events:
                pass
            whole = events.get_final_response()
    return Seen("openai-responses", whole, whole.output_text)


def messages(server: ProviderServer, stream: bool) -> Seen:
    client = anthropic_client(server)
    if not stream:
        whole = client.messages.create(**MESSAGES)
    else:
        with client.messages.stream(**MESSAGES) as events:
            whole = events.get_final_message()
    return Seen("anthropic", whole, getattr(whole.content[0], "text", None))


def generate(server: ProviderServer, stream: bool) -> Seen:
    models = gemini_client(server).models
    if not stream:
        whole = models.generate_content(**GENERATE)
        return Seen("gemini", whole, whole.text)
    chunks = list(models.generate_content_stream(**GENERATE))
    return Seen("gemini", chunks[-1], "".join(chunk.text or "" for chunk in chunks))


async def chat_async(server: ProviderServer, stream: bool) -> Seen:
    async with openai.AsyncOpenAI(base_url=server.openai_url, api_key="k") as client:
        if not stream:
            whole = await client.chat.completions.create(**CHAT)
            return Seen("openai", whole, whole.choices[0].message.content)
        options: Any = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = [chunk async for chunk in await client.chat.completions.create(**CHAT, **options)]
        return Seen("openai", chunks[-1], "".join(c.choices[0].delta.content or "" for c in chunks[:-1]))


async def responses_async(server: ProviderServer, stream: bool) -> Seen:
    async with openai.AsyncOpenAI(base_url=server.openai_url, api_key="k") as client:
        if not stream:
            whole = await client.responses.create(**RESPONSES)
        else:
            async with client.responses.stream(**RESPONSES) as events:
                whole = await events.get_final_response()
        return Seen("openai-responses", whole, whole.output_text)


async def messages_async(server: ProviderServer, stream: bool) -> Seen:
    async with anthropic.AsyncAnthropic(base_url=server.anthropic_url, api_key="k") as client:
        if not stream:
            whole = await client.messages.create(**MESSAGES)
        else:
            async with client.messages.stream(**MESSAGES) as events:
                whole = await events.get_final_message()
        return Seen("anthropic", whole, getattr(whole.content[0], "text", None))


async def generate_async(server: ProviderServer, stream: bool) -> Seen:
    holder = genai.Client(api_key="k", http_options={"base_url": server.gemini_url})
    CLIENTS.append(holder)
    async with holder.aio as client:
        if not stream:
            whole = await client.models.generate_content(**GENERATE)
            return Seen("gemini", whole, whole.text)
        chunks = [chunk async for chunk in await client.models.generate_content_stream(**GENERATE)]
        return Seen("gemini", chunks[-1], "".join(chunk.text or "" for chunk in chunks))


SYNC = {"openai": chat, "openai-responses": responses, "anthropic": messages, "gemini": generate}
ASYNC = {
    "openai": chat_async,
    "openai-responses": responses_async,
    "anthropic": messages_async,
    "gemini": generate_async,
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("wire", SYNC)
def test_an_sdk_reads_the_usage_that_the_server_has(wire: str, stream: bool, server: ProviderServer) -> None:
    cold, warm = SYNC[wire](server, stream), SYNC[wire](server, stream)
    assert [request.usage for request in server.requests] == [cold.usage, warm.usage]
    assert [request.outcome for request in server.requests] == ["cold", "hit"]
    assert cold.usage.cache_read_tokens == 0
    assert warm.usage.hit_ratio > 0.99
    assert (
        cold.text
        == warm.text
        == f"This is a simulated reply to a prompt of {warm.usage.input_tokens:,} tokens."
    )
    assert server.requests[-1].stream is stream


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("wire", ASYNC)
def test_an_asynchronous_sdk_reads_the_same(wire: str, stream: bool, server: ProviderServer) -> None:
    cold = asyncio.run(ASYNC[wire](server, stream))
    warm = SYNC[wire](server, not stream)  # streamed or not, and from whatever client: one prompt
    assert [request.usage for request in server.requests] == [cold.usage, warm.usage]
    assert (cold.usage.cache_read_tokens, warm.usage.hit_ratio > 0.99) == (0, True)
    assert cold.text == warm.text


def test_a_stream_says_nothing_of_usage_unless_asked(server: ProviderServer) -> None:
    chunks = list(openai_client(server).chat.completions.create(**CHAT, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert server.requests[-1].usage.input_tokens > 5000


def test_writes_are_told_by_their_lifetime(server: ProviderServer) -> None:
    client = anthropic_client(server)
    body = {
        **MESSAGES,
        "system": [marked(RULES, ttl="1h")],
        "messages": [{"role": "user", "content": [marked("Hi")]}],
    }
    usage = client.messages.create(**body).usage
    assert usage.cache_creation is not None
    head, tail = (
        usage.cache_creation.ephemeral_1h_input_tokens,
        usage.cache_creation.ephemeral_5m_input_tokens,
    )
    assert head > 5000 > tail > 0 == usage.input_tokens
    assert usage.cache_creation_input_tokens == head + tail

    options: Any = {"ttl": "12h"}
    whole = openai_client(server).responses.create(**RESPONSES, prompt_cache_options=options).model_dump()
    told = whole["usage"]  # as a mapping: openai 2 has no fields for these counts
    written = told["input_tokens_details"]["cache_write_tokens_details"]
    assert (written["ttl_12h_tokens"], written["ttl_30m_tokens"]) == (told["input_tokens"], 0)


# The tokens of a session and of the server differ by framing alone: segments that OpenAI's older models get as one string,
# and Gemini's results, which go as JSON.
TOLERANCE = 8
SESSIONS = [
    ("openai", "gpt-5.5", openai_client),
    ("openai", "gpt-5.6", openai_client),
    ("openai-responses", "gpt-5.6", openai_client),
    ("deepseek", "deepseek-v4-pro", openai_client),
    ("anthropic", "claude-sonnet-5.5", anthropic_client),
    ("gemini", "gemini-2.5-pro", gemini_client),
]


@pytest.mark.parametrize(
    ("dialect", "model", "client_of"), SESSIONS, ids=[f"{d}-{m}" for d, m, _ in SESSIONS]
)
def test_a_session_forecasts_what_the_server_reports(
    dialect: str, model: str, client_of: Callable[[ProviderServer], Any]
) -> None:
    def reply(asked: Asked) -> Reply:
        return CALLS if asked.number % 2 == 0 else Reply("It is in Lyon.")

    clock = FakeClock()
    with served(replies=reply, clock=clock) as server:
        client = client_of(server)
        context = StableContext(
            model, [Segment("rules", RULES), Segment("more", "Be brief. " * 9)], tools=[TOOL]
        )
        session = Session(context, dialect=dialect, clock=clock, tokens=EstimateCounter())
        for turn in range(3):
            for text in (f"Question {turn}?", None):
                clock.advance(1)
                request = session.request(text, dynamic={"clock": f"12:0{turn}"} if text else None)
                forecast = request.forecast
                seen = request.observe(session.dialect.send(client, request.kwargs))
                assert seen.usage == server.requests[-1].usage
                assert abs(seen.usage.cache_read_tokens - forecast.read_tokens) <= TOLERANCE
                assert abs(seen.usage.cache_write_tokens - forecast.write_tokens) <= TOLERANCE
                assert abs(seen.usage.fresh_tokens - forecast.fresh_tokens) <= TOLERANCE
                assert seen.cache_break is None
                if text is not None:
                    (call,) = session.messages[-1].call_ids
                    session.append(Message("tool", [ToolResult(call, "In Lyon.")]))
        # DeepSeek reads a common prefix from the third request on: the dynamic text parts the prompts of two turns.
        assert_hit_ratio(session, at_least=0.6 if dialect == "deepseek" else 0.8)


def test_calls_and_pictures_come_through_every_sdk() -> None:
    url = f"data:image/png;base64,{PIXEL}"
    with served(replies=[CALLS] * 8) as server:
        picture = [{"type": "text", "text": "This?"}, {"type": "image_url", "image_url": {"url": url}}]
        chat_tools: Any = [TOOL]
        said = openai_client(server).chat.completions.create(
            model="gpt-5.5",
            tools=chat_tools,
            messages=[{"role": "user", "content": picture}],  # type: ignore[misc,list-item]
        )
        (call,) = said.choices[0].message.tool_calls or []
        assert (call.type, said.choices[0].finish_reason) == ("function", "tool_calls")
        assert json.loads(call.model_dump()["function"]["arguments"]) == {"number": "7"}

        part: Any = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": "This?"}]
        tools: Any = [{"type": "function", **TOOL["function"], "strict": False}]  # type: ignore[dict-item]
        answered = openai_client(server).responses.create(
            model="gpt-5.5", tools=tools, input=[{"role": "user", "content": part}]
        )
        assert [item.type for item in answered.output] == ["message", "function_call"]

        source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
        block: Any = [{"type": "image", "source": source}, {"type": "text", "text": "This?"}]
        tool: Any = {"name": "track", "input_schema": SCHEMA}
        for _ in range(2):
            with anthropic_client(server).messages.stream(
                model="claude-sonnet-5.5",
                max_tokens=9,
                tools=[tool],
                messages=[{"role": "user", "content": block}],
            ) as events:
                whole = events.get_final_message()
        assert (whole.stop_reason, whole.content[1].type) == ("tool_use", "tool_use")
        assert whole.content[1].model_dump()["input"] == {"number": "7"}

        types = genai.types
        contents = [types.Part.from_bytes(data=b"png", mime_type="image/png"), "This?"]
        config = {"tools": [{"function_declarations": [{"name": "track"}]}]}
        config["automatic_function_calling"] = {"disable": True}  # type: ignore[assignment]
        drawn = gemini_client(server).models.generate_content(
            model="gemini-2.5-pro", contents=contents, config=config
        )
        assert drawn.function_calls[0].args == {"number": "7"}
        assert all(request.usage.input_tokens > 765 for request in server.requests)


def ask_together(server: ProviderServer, number: int) -> list[Usage]:
    """The usage of so many equal requests side by side."""

    async def one(client: anthropic.AsyncAnthropic) -> Usage:
        async with client.messages.stream(**MESSAGES) as events:
            usage = get_dialect("anthropic").read_usage(await events.get_final_message())
        assert usage is not None
        return usage

    async def all_of_them() -> list[Usage]:
        async with anthropic.AsyncAnthropic(base_url=server.anthropic_url, api_key="k") as client:
            return await asyncio.gather(*(one(client) for _ in range(number)))

    return asyncio.run(all_of_them())


class Gate:
    """A reply script that holds the first token until ``number`` requests have come."""

    def __init__(self, number: int) -> None:
        self.number, self.arrived, self.outcomes = number, 0, list[str]()
        self.opened = asyncio.Event()

    async def __call__(self, asked: Asked) -> str:
        self.arrived += 1
        self.outcomes.append(asked.outcome)
        if self.arrived == self.number:
            self.opened.set()
        await self.opened.wait()
        return "Done."


def test_side_by_side_a_cold_prompt_is_written_by_each_and_a_warm_one_by_none() -> None:
    gate = Gate(4)
    with served(replies=gate) as server:
        cold = ask_together(server, 4)
        warm = ask_together(server, 4)
        assert [usage.cache_read_tokens for usage in cold] == [0, 0, 0, 0]
        assert all(usage.cache_write_tokens > 5000 for usage in cold)
        assert gate.outcomes[:4] == ["cold", "not-yet-visible", "not-yet-visible", "not-yet-visible"]
        assert [usage.cache_write_tokens for usage in warm] == [0, 0, 0, 0]
        assert all(usage.cache_read_tokens == cold[0].cache_write_tokens for usage in warm)


def test_an_entry_can_be_read_from_the_first_token_on() -> None:
    """The leader's stream has begun and not ended while the follower asks."""
    resumed = asyncio.Event()

    async def pause() -> None:
        await resumed.wait()

    def reply(asked: Asked) -> Reply:
        if asked.number == 1:
            resumed.set()
        return Reply("one two three", pause=pause if asked.number == 0 else None)

    async def leader_then_follower(server: ProviderServer) -> tuple[int | None, bool]:
        async with anthropic.AsyncAnthropic(base_url=server.anthropic_url, api_key="k") as client:
            async with client.messages.stream(**MESSAGES) as events:
                async for _ in events.text_stream:
                    under_way = len(server.requests) == 0
                    follower = await client.messages.create(**MESSAGES)
                    break
                await events.until_done()
            return follower.usage.cache_read_input_tokens, under_way

    with served(replies=reply) as server:
        read, under_way = asyncio.run(leader_then_follower(server))
        assert under_way
        assert read is not None
        assert read > 5000


def test_an_engine_shares_at_once() -> None:
    gate = Gate(2)

    async def both(server: ProviderServer) -> list[Any]:
        async with openai.AsyncOpenAI(base_url=server.openai_url, api_key="k") as client:
            one = client.chat.completions.create
            return await asyncio.gather(*(one(**{**CHAT, "model": "mine"}) for _ in range(2)))

    with served(replies=gate, rules={"mine": "vllm"}) as server:
        asyncio.run(both(server))
        assert sorted(request.usage.cache_read_tokens > 5000 for request in server.requests) == [False, True]


def test_entries_expire_by_the_servers_clock() -> None:
    clock = FakeClock()
    with served(clock=clock) as server:
        usages = []
        for seconds in (0, 299, 299, 301):
            clock.advance(seconds)
            usages.append(messages(server, False).usage.cache_read_tokens > 0)
        assert usages == [False, True, True, False]
        assert [request.outcome for request in server.requests] == ["cold", "hit", "hit", "expired"]


def test_every_key_model_and_format_has_a_cache_of_its_own(server: ProviderServer) -> None:
    other = openai_client(server, api_key="another")
    openai_client(server).chat.completions.create(**CHAT)
    other.chat.completions.create(**CHAT)
    other.chat.completions.create(**{**CHAT, "model": "gpt-6"})
    other.responses.create(**RESPONSES)
    other.chat.completions.create(**CHAT, prompt_cache_key="elsewhere")
    assert [request.usage.cache_read_tokens for request in server.requests] == [0] * 5
    assert len({request.scope for request in server.requests}) == 2
    assert "another" not in str([request.scope for request in server.requests])
    assert server.requests[-1].key == "elsewhere"


def test_a_key_overflows_if_asked_for() -> None:
    with served(overflow=True, clock=FakeClock()) as server:
        for _ in range(17):
            chat(server, False)
        outcomes = [request.outcome for request in server.requests]
        assert outcomes == ["cold", *["hit"] * 14, "cold", "hit"]  # 15 a minute: OpenAI, prompt caching guide


def test_explicit_mode_without_a_breakpoint_does_not_cache(server: ProviderServer) -> None:
    options: Any = {"mode": "explicit"}
    client = openai_client(server)
    client.chat.completions.create(**CHAT)
    client.chat.completions.create(**CHAT, prompt_cache_options=options)
    last = server.requests[-1].usage
    assert (last.cache_read_tokens, last.cache_write_tokens) == (0, 0)


def test_a_changing_suffix_reads_nothing_without_a_breakpoint_and_all_with_one(
    server: ProviderServer,
) -> None:
    """From gpt-5.6 on: stored prefixes end at breakpoints, and the implicit one is at the end of the prompt."""

    def usage(text: str, marked: bool) -> Usage:
        mark = {"prompt_cache_breakpoint": {"mode": "explicit"}} if marked else {}
        rules: Any = [{"type": "text", "text": RULES + str(marked), **mark}]
        openai_client(server).chat.completions.create(
            model="gpt-5.6",
            messages=[{"role": "developer", "content": rules}, {"role": "user", "content": text}],
        )
        return server.requests[-1].usage

    assert [usage(text, False).cache_read_tokens for text in "ab"] == [0, 0]
    assert [usage(text, True).hit_ratio > 0.99 for text in "ab"] == [False, True]


def test_a_script_says_text_calls_and_errors_in_order() -> None:
    script = [
        Reply(status=429, message="slow down", retry_after=0.01),
        {"text": "Hello", "output_tokens": 77},
        Reply(status=529, message="overloaded"),
        "plain",
    ]
    with served(replies=script) as server:
        # The SDK waits as told, and asks again.
        client = openai_client(server, max_retries=1)
        said = client.chat.completions.create(**CHAT)
        assert said.choices[0].message.content == "Hello"
        assert said.usage is not None
        assert said.usage.completion_tokens == 77
        with pytest.raises(anthropic.APIStatusError, match="overloaded") as caught:
            anthropic_client(server).messages.create(**MESSAGES)
        assert (caught.value.status_code, caught.value.type) == (529, "overloaded_error")
        assert messages(server, False).text == "plain"
        assert [request.status for request in server.requests] == [429, 200, 529, 200]
        # What was refused wrote nothing.
        assert [request.outcome for request in server.requests] == ["refused", "cold", "refused", "cold"]
        assert server.summary()["errors"] == 2


def test_a_script_that_fails_says_so() -> None:
    broken = served(replies=lambda asked: {asked.number: "fine"}["missing"])
    with (
        broken,
        pytest.raises(openai.InternalServerError, match="the reply script failed: KeyError: 'missing'"),
    ):
        openai_client(broken).chat.completions.create(**CHAT)


@pytest.mark.parametrize("wire", ["openai", "anthropic", "openai-responses"])
def test_a_truncated_stream_breaks_off(wire: str) -> None:
    with served(replies=[Reply("one two three four five", truncated=True)]) as server:
        text = ""
        if wire == "openai":
            for chunk in openai_client(server).chat.completions.create(**CHAT, stream=True):
                assert chunk.choices[0].finish_reason is None
                text += chunk.choices[0].delta.content or ""
        elif wire == "anthropic":
            for event in anthropic_client(server).messages.create(**MESSAGES, stream=True):
                assert event.type != "message_stop"
                text += getattr(getattr(event, "delta", None), "text", "")
        else:
            for item in openai_client(server).responses.create(**RESPONSES, stream=True):
                assert item.type != "response.completed"
                text += item.delta if item.type == "response.output_text.delta" else ""
        assert "one two three four five".startswith(text)
        assert 0 < len(text) < 20
        (request,) = server.requests
        assert not request.completed


def test_a_prewarm_writes_and_says_nothing(server: ProviderServer) -> None:
    warm = anthropic_client(server).messages.create(**{**MESSAGES, "max_tokens": 0})
    assert (warm.content, warm.stop_reason, warm.usage.output_tokens) == ([], "max_tokens", 0)
    assert messages(server, True).usage.hit_ratio > 0.99
    options: Any = {"prewarm": True}
    prepared = openai_client(server).responses.create(**RESPONSES, prompt_cache_options=options)
    assert (prepared.output, prepared.usage and prepared.usage.output_tokens) == ([], 0)
    assert responses(server, False).usage.hit_ratio > 0.99


def test_anthropic_says_what_parted_the_prompts(server: ProviderServer) -> None:
    client = anthropic_client(server)

    def reason(previous: str | None, **changes: Any) -> str | None:
        said = client.messages.create(
            **{**MESSAGES, **changes}, diagnostics={"previous_message_id": previous}
        )
        found = None if said.diagnostics is None else said.diagnostics.cache_miss_reason
        return None if found is None else found.type

    first = client.messages.create(**MESSAGES).id
    user = {"role": "user", "content": "Where is it?"}
    grown = [user, {"role": "assistant", "content": "Lyon."}, {"role": "user", "content": "And now?"}]
    assert reason(None) is None
    assert reason(first, messages=grown) is None
    assert reason(first, messages=[{**user, "content": "Who?"}]) == "messages_changed"
    assert reason(first, system="Else.") == "system_changed"
    assert reason(first, tools=[{"name": "f", "input_schema": SCHEMA}]) == "tools_changed"
    assert reason(first, model="claude-opus-5.5") == "model_changed"
    assert reason(first, tool_choice={"type": "any"}, messages=grown) == "unavailable"
    assert reason("msg_unknown") == "previous_message_not_found"


def test_openai_says_what_parted_the_prompts(server: ProviderServer) -> None:
    client = openai_client(server)

    def told(previous: str, **changes: Any) -> Any:
        options: Any = {"comparison_response_id": previous}
        response = client.responses.create(**{**RESPONSES, **changes}, prompt_cache_options=options)
        return response.model_dump()["prompt_cache_diagnostics"]  # openai 2 has no field for it

    first = client.responses.create(**RESPONSES)
    assert first.model_dump().get("prompt_cache_diagnostics") is None
    assert told(first.id)["type"] == "cache_hit"
    changed = told(first.id, instructions="Else.")
    assert (changed["type"], changed["reason"]) == ("cache_miss", "input_changed")
    assert first.usage is not None
    assert changed["cache_missed_tokens"] == first.usage.input_tokens
    assert told(first.id, reasoning={"effort": "low"})["reason"] == "reasoning_effort_changed"
    assert told(first.id, prompt_cache_key="k")["reason"] == "prompt_cache_key_changed"
    assert told(first.id, model="gpt-6")["reason"] == "model_changed"
    assert told("resp_unknown")["type"] == "comparison_response_not_found"


def test_geminis_explicit_caches_live_until_they_expire() -> None:
    clock = FakeClock()
    with served(clock=clock) as server:
        client = gemini_client(server)
        config = {"system_instruction": RULES, "ttl": "60s", "display_name": "rules"}
        made = client.caches.create(model="gemini-2.5-pro", config=config)
        assert made.usage_metadata.total_token_count > 5000
        use = {"model": "gemini-2.5-pro", "contents": "Where?", "config": {"cached_content": made.name}}
        said = client.models.generate_content(**use)
        assert said.usage_metadata.cached_content_token_count >= made.usage_metadata.total_token_count
        assert said.usage_metadata.prompt_token_count > said.usage_metadata.cached_content_token_count
        assert [each.name for each in client.caches.list()] == [made.name]
        longer = client.caches.update(name=made.name, config={"ttl": "120s"})
        assert longer.expire_time > made.expire_time
        clock.advance(119)
        assert client.caches.get(name=made.name).display_name == "rules"
        clock.advance(2)
        with pytest.raises(genai.errors.ClientError, match="CachedContent not found") as caught:
            client.models.generate_content(**use)
        assert caught.value.code == 403
        again = client.caches.create(model="gemini-2.5-pro", config=config)
        client.caches.delete(name=again.name)
        assert list(client.caches.list()) == []


def test_tokens_are_counted_without_a_request(server: ProviderServer) -> None:
    body = {key: value for key, value in MESSAGES.items() if key != "max_tokens"}
    counted = anthropic_client(server).messages.count_tokens(**body).input_tokens
    assert server.requests == ()
    assert counted == messages(server, False).usage.input_tokens
    total = (
        gemini_client(server)
        .models.count_tokens(model="gemini-2.5-pro", contents="Where is it?")
        .total_tokens
    )
    assert 0 < total < 20


def test_all_that_is_remembered_is_bounded() -> None:
    limits = Limits(scopes=2, entries=3, nodes=5, counts=7, requests=4, fingerprints=3, contents=2)
    with served(limits=limits) as server:
        client = anthropic_client(server)
        for number in range(12):
            text = f"{number} " * 3000
            body = {**MESSAGES, "model": f"claude-sonnet-5.5-{number % 3}", "system": [marked(text)]}
            client.messages.create(**body)
        provider = server.provider
        assert len(server.requests) == 4
        assert [request.number for request in server.requests] == [8, 9, 10, 11]
        assert server.summary()["requests"] == 12
        assert len(provider._scopes) == 2
        assert len(provider._fingerprints) == 3
        assert max(len(count) for count in provider._scopes._counts.values()) <= 7
        assert all(len(scope.nodes) <= 5 for scope in provider._scopes._scopes.values())


def test_the_text_that_prompts_share_is_bounded() -> None:
    with served(limits=Limits(characters=50_000)) as server:
        for number in range(8):
            messages: Any = [{"role": "user", "content": f"{number} " * 10_000}]
            openai_client(server).chat.completions.create(model="gpt-5.5", messages=messages)
        (scope,) = server.provider._scopes._scopes.values()
        assert len(scope.nodes) == 2
        assert chat(server, False).usage.cache_read_tokens == 0
        assert chat(server, False).usage.hit_ratio > 0.99


def test_no_text_is_kept_unless_asked_for(server: ProviderServer) -> None:
    chat(server, False)
    assert server.requests[0].body is None
    assert "parcels" not in repr(server.requests)
    with served(keep_bodies=True) as keeping:
        chat(keeping, False)
        assert keeping.requests[0].body == CHAT
        assert "parcels" not in repr(keeping.requests)


def test_a_reset_empties_caches_and_log(server: ProviderServer) -> None:
    first = chat(server, False).usage
    assert server.usage() == first
    server.reset()
    assert (server.requests, server.usage()) == ((), Usage())
    assert chat(server, False).usage == first


def test_sums_are_told_by_format_and_model(server: ProviderServer) -> None:
    usages = [chat(server, False).usage, chat(server, True).usage, messages(server, False).usage]
    summary = openai_client(server, base_url=server.url).get("/summary", cast_to=object)
    total = sum(usages, Usage())
    assert isinstance(summary, dict)
    assert (summary["requests"], summary["errors"], summary["measured"]) == (3, 0, False)
    assert summary["input_tokens"] == total.input_tokens
    assert summary["cache_read_tokens"] == total.cache_read_tokens
    assert summary["cost_usd"] > 0
    assert summary["cost_usd"] == pytest.approx(sum(row["cost_usd"] for row in summary["rows"]), abs=1e-5)
    assert summary["hit_ratio"] == pytest.approx(total.hit_ratio, abs=1e-6)
    assert [(row["wire"], row["model"]) for row in summary["rows"]] == [
        ("anthropic", "claude-sonnet-5.5"),
        ("openai", "gpt-5.6"),
    ]
    metrics = server.provider.log.metrics()
    read = usages[1].cache_read_tokens
    assert f'llmbuffer_tokens_total{{wire="openai",model="gpt-5.6",kind="read"}} {read}' in metrics
    assert_hit_ratio([request.usage for request in server.requests][1:2], at_least=0.9)


def test_a_sum_with_an_unknown_price_has_none(server: ProviderServer) -> None:
    openai_client(server).chat.completions.create(**{**CHAT, "model": "no-such-model"})
    chat(server, False)
    assert [row["cost_usd"] is None for row in server.summary()["rows"]] == [False, True]
    assert server.summary()["cost_usd"] is None


def test_rules_can_be_replaced_by_model() -> None:
    rules = {
        "claude-*": {"min_tokens": 10**6},
        "gpt-*": CacheRules(name="mine", match="prefix", min_tokens=0),
    }
    with served(rules=rules) as server:
        messages(server, False)
        assert server.requests[-1].outcome == "below-minimum"
        chat(server, False)
        assert chat(server, False).usage.hit_ratio == 1.0
