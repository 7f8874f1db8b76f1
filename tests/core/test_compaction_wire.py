"""Compacted sessions over loopback: real SDKs, the simulated provider's checks, its cache, and the summary call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from llmbuffer import Message, Opaque, Session, StableContext, Text, ToolCall, ToolResult, Usage
from llmbuffer.compaction import Compaction, DropReasoning, ElideToolResults, Summarizer, Truncator
from llmbuffer.simulate import ProviderServer
from llmbuffer.testing import FakeClock
from llmbuffer.tokens import EstimateCounter

genai = pytest.importorskip("google.genai")

RULES = "You track parcels, and you are brief and kind. " * 200
TOOLS = [{"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {"q": {}}}}]
HOOKS: dict[str, Any] = {
    "elide": lambda: [ElideToolResults(1)],
    "reasoning": lambda: [DropReasoning(1), Truncator()],
    "truncate": lambda: [Truncator()],
    "summarize": lambda: [Summarizer(over=100)],
    "all": lambda: [
        DropReasoning(1),
        ElideToolResults(1),
        Summarizer(lambda messages: "So.", 100),
        Truncator(),
    ],
}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def server(clock: FakeClock) -> Iterator[ProviderServer]:
    with ProviderServer(counter=EstimateCounter(), clock=clock, replies=_answer) as running:
        yield running


def _answer(asked: Any) -> Any:
    """A call where the user asks to look, and an answer elsewhere."""
    text = str(_last(asked.body))
    if "Look up" in text and "found" not in text:
        return {"text": "Let me see.", "tool_calls": [{"name": "look", "arguments": {"q": asked.number}}]}
    return "They spoke of parcels. " * 20


def _last(body: Any) -> Any:
    messages = body.get("messages") or body.get("input") or body.get("contents")
    return messages[-1]


def look(q: int = 0) -> str:
    return f"found {q}: " + "a parcel. " * 300


def client_of(dialect: str, server: ProviderServer) -> Any:
    if dialect == "anthropic":
        return anthropic.Anthropic(base_url=server.anthropic_url, api_key="k", max_retries=0)
    if dialect == "gemini":
        return genai.Client(api_key="k", http_options={"base_url": server.gemini_url})
    return openai.OpenAI(base_url=server.openai_url, api_key="k", max_retries=0)


def session_of(
    dialect: str, model: str, clock: FakeClock, hooks: list[Any], window: int = 8_000, **options: Any
) -> Session:
    return Session(
        StableContext(model, RULES, TOOLS),
        dialect=dialect,
        clock=clock,
        tokens=EstimateCounter(),
        compaction=Compaction(window, 0.6, hooks, horizon=20, strict=True, max_loss=1.0),
        **options,
    )


@pytest.mark.parametrize("hooks", HOOKS)
@pytest.mark.parametrize(
    ("dialect", "model"),
    [
        ("anthropic", "claude-sonnet-5.5"),
        ("anthropic", "claude-haiku-4.5"),
        ("openai", "gpt-5.5"),
        ("openai", "gpt-5.6"),
        ("openai-responses", "gpt-5.6"),
        ("gemini", "gemini-3.1-pro"),
    ],
)
def test_no_provider_refuses_a_compacted_prompt(
    dialect: str, model: str, hooks: str, server: ProviderServer, clock: FakeClock
) -> None:
    client = client_of(dialect, server)
    session = session_of(dialect, model, clock, HOOKS[hooks](), client=client)
    for number in range(9):
        session.respond(f"Look up parcel {number}.", tools={"look": look})
        clock.advance(20)
    client.close()
    assert session.epoch > 0
    assert {request.status for request in server.requests} == {200}
    assert session.ledger.breaks == ()


def filled(session: Session, turns: int) -> Session:
    """The session with turns that a host hands over."""
    for number in range(turns):
        session.append(
            [
                Message("user", "Look."),
                Message("assistant", [ToolCall(f"c{number}", "look", "{}")]),
                Message("tool", [ToolResult(f"c{number}", look(number))]),
                Message("assistant", "So."),
            ]
        )
    return session


def thinking(number: int) -> Opaque:
    return Opaque.of("anthropic", {"type": "thinking", "thinking": "hm " * 80, "signature": f"c2ln{number}"})


@pytest.mark.parametrize("hooks", HOOKS)
@pytest.mark.parametrize("model", ["claude-sonnet-5.5", "claude-opus-5.5", "claude-fable-5.1"])
def test_reasoning_bound_to_the_prompt_is_never_behind_a_change(
    model: str, hooks: str, server: ProviderServer, clock: FakeClock
) -> None:
    """The model's replies hold signed thinking; the server refuses it behind anything but what was there at first."""
    with anthropic.Anthropic(base_url=server.anthropic_url, api_key="k", max_retries=0) as client:
        session = session_of("anthropic", model, clock, HOOKS[hooks](), client=client)
        for number in range(8):
            for words in (f"Look up parcel {number}.", None):
                request = session.request(words)
                client.messages.create(**request.kwargs)
                call = ToolCall(f"call_{number}", "look", "{}")
                said = call if words else Text("It is on its way.")
                request.observe(
                    Usage(100, 9), Message("assistant", [thinking(2 * number + bool(words)), said])
                )
                if words:
                    session.append(Message("tool", [ToolResult(f"call_{number}", look(number))]))
            clock.advance(20)
    assert session.epoch > 0
    assert {request.status for request in server.requests} == {200}


def test_the_server_refuses_thinking_behind_another_prompt(server: ProviderServer, clock: FakeClock) -> None:
    with anthropic.Anthropic(base_url=server.anthropic_url, api_key="k", max_retries=0) as client:
        block = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
        for first, model, refused in (
            ("Hello", "claude-sonnet-5.5", False),
            ("Hello", "claude-sonnet-5.5", False),
            ("Good day", "claude-sonnet-5.5", True),
            ("Hello", "claude-haiku-4.5", False),
            ("Good day", "claude-haiku-4.5", False),
        ):
            messages: Any = [
                {"role": "user", "content": first},
                {"role": "assistant", "content": [block, {"type": "text", "text": "Hi."}]},
                {"role": "user", "content": "And now?"},
            ]
            if refused:
                with pytest.raises(anthropic.BadRequestError, match="thinking"):
                    client.messages.create(model=model, max_tokens=9, messages=messages)
            else:
                client.messages.create(model=model, max_tokens=9, messages=messages)


def test_a_turn_that_thinks_is_not_compacted_while_it_lasts(clock: FakeClock) -> None:
    session = filled(
        session_of("anthropic", "claude-sonnet-5.5", clock, [ElideToolResults(0), Truncator()]), 5
    )
    session.append(
        [Message("user", "Look."), Message("assistant", [thinking(1), ToolCall("c", "look", "{}")])]
    )
    session.append(Message("tool", [ToolResult("c", "huge " * 4_000)]))
    request = session.request()
    assert request.placed.compacted is None
    assert "over-max-tokens" in request.forecast.warnings
    assert any("thinking" in str(message) for message in request.body["messages"])


@pytest.mark.parametrize(
    ("dialect", "model"), [("anthropic", "claude-sonnet-5.5"), ("openai", "gpt-5.5"), ("openai", "gpt-5.6")]
)
def test_the_summary_call_reads_the_cached_prompt(
    dialect: str, model: str, server: ProviderServer, clock: FakeClock
) -> None:
    client = client_of(dialect, server)
    session = filled(session_of(dialect, model, clock, [Summarizer(over=100)], 20_000, client=client), 19)
    for number in range(5):
        session.respond(f"Look up parcel {number}.", tools={"look": look})
        clock.advance(20)
    client.close()
    summaries = [entry for entry in session.ledger if entry.kind == "summary"]
    assert summaries
    assert all(entry.usage is not None and entry.usage.hit_ratio > 0.95 for entry in summaries)
    assert "They spoke of parcels." in session.messages[1].text
    assert session.ledger.breaks == ()


def test_the_summary_call_with_an_asynchronous_client(server: ProviderServer, clock: FakeClock) -> None:
    async def converse() -> Session:
        async with anthropic.AsyncAnthropic(
            base_url=server.anthropic_url, api_key="k", max_retries=0
        ) as client:
            hooks = [Summarizer(over=100)]
            session = filled(
                session_of("anthropic", "claude-sonnet-5.5", clock, hooks, 20_000, client=client), 19
            )
            for number in range(4):
                await session.arespond(f"Look up parcel {number}.", tools={"look": look})
                clock.advance(20)
            async for _ in session.astream("Look up the last parcel.", tools={"look": look}):
                pass
            return session

    session = asyncio.run(converse())
    summaries = [entry for entry in session.ledger if entry.kind == "summary"]
    assert summaries
    assert all(entry.usage is not None and entry.usage.hit_ratio > 0.95 for entry in summaries)
    assert "They spoke of parcels." in session.messages[1].text
    assert {request.status for request in server.requests} == {200}
    assert session.ledger.breaks == ()
