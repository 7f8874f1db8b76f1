"""Filling a cache before it is needed, and what providers themselves say about a miss."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest
from tests.loopback import Said, loopback

from llmbuffer import Message, PairingError, Session, StableContext, ToolCall, Usage
from llmbuffer.dialects.anthropic import TOOL_RUNS, Anthropic
from llmbuffer.dialects.openai_chat import OpenAIChat
from llmbuffer.errors import LoopError
from llmbuffer.rules import Diagnosis
from llmbuffer.testing import FakeClock
from llmbuffer.tokens import EstimateCounter

POLICY = "Answer kindly, briefly and with a source. " * 200


def warm_session(**options: Any) -> Session:
    context = StableContext("claude-sonnet-5.5", POLICY, tools=[{"name": "search"}])
    return Session(context, "anthropic", tokens=EstimateCounter(), clock=FakeClock(), **options)


def anthropic_client(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)


def marks(value: Any) -> int:
    if isinstance(value, dict):
        return ("cache_control" in value) + sum(map(marks, value.values()))
    return sum(map(marks, value)) if isinstance(value, list) else 0


def test_a_prewarm_marks_what_is_stable_and_says_nothing() -> None:
    with loopback([Said(usage=(2, 0, 2_000, 0))]) as server, anthropic_client(server.url) as client:
        session = warm_session(client=client)
        seen = session.prewarm()
        body = server.requests[0]
    assert seen is not None
    assert seen.usage == Usage(input_tokens=2_002, cache_write_tokens=2_000)
    assert body["max_tokens"] == 0
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "."}]}]
    assert marks(body["messages"]) == 0
    assert marks(body["system"]) == 1
    assert session.messages == ()
    assert [entry.kind for entry in session.ledger] == ["prewarm"]
    assert session.ledger[0].cost == seen.cost is not None


def test_what_was_warmed_is_forecast_as_read() -> None:
    with loopback([Said(usage=(2, 0, 2_000, 0))]) as server, anthropic_client(server.url) as client:
        session = warm_session(client=client)
        assert session.request("Hello").forecast.read_tokens == 0
        session.prewarm()
    assert session.request("Hello").forecast.read_tokens > 1_500


def test_a_history_that_the_assistant_ended_is_warmed_up_to_its_end() -> None:
    script = [Said("Hi!"), Said(usage=(2, 0, 9, 0))]
    with loopback(script) as server, anthropic_client(server.url) as client:
        session = warm_session(client=client)
        session.respond("Hello")
        session.prewarm()
        body = server.requests[1]
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert [marks(message) for message in body["messages"]] == [0, 1, 0]
    assert len(session.messages) == 2


def test_a_task_that_waits_for_its_answer_is_warmed_as_it_stands() -> None:
    with loopback([Said(usage=(2, 0, 9, 0))]) as server, anthropic_client(server.url) as client:
        session = warm_session(client=client)
        session.append(Message("user", "a task"))
        session.prewarm()
        [message] = server.requests[0]["messages"]
    assert [part["text"] for part in message["content"]] == ["a task"]
    assert marks(message) == 1


def test_the_asynchronous_client_warms_as_well() -> None:
    async def warm(url: str, session: Session) -> Any:
        async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as client:
            return await session.aprewarm(client=client)

    with loopback([Said(usage=(2, 0, 2_000, 0))]) as server:
        seen = asyncio.run(warm(server.url, warm_session()))
    assert seen.usage.cache_write_tokens == 2_000


def test_an_api_without_prewarm_is_sent_nothing() -> None:
    with loopback() as server, openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        session = Session(StableContext("gpt-5.6", POLICY), client=client, tokens=EstimateCounter())
        assert session.prewarm() is None
        assert server.bodies == []
    assert len(session.ledger) == 0


@pytest.mark.parametrize(
    "params",
    [
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"tool_choice": {"type": "any"}},
        {"output_config": {"format": {"type": "json_schema", "schema": {}}}},
    ],
)
def test_what_anthropic_refuses_beside_no_output_is_not_warmed(params: dict[str, Any]) -> None:
    dialect = Anthropic().bind("claude-sonnet-5.5")
    assert dialect.prewarm({"model": "m", "messages": [], **params}) is None
    assert dialect.prewarm({"model": "m", "messages": [], "stream": True}) == {
        "model": "m",
        "messages": [],
        "max_tokens": 0,
    }


def test_open_calls_and_a_missing_client_are_said() -> None:
    session = warm_session()
    with pytest.raises(LoopError, match="no client"):
        session.prewarm()
    session.append(Message("assistant", [ToolCall("1", "search", "{}")]))
    with pytest.raises(PairingError, match="await results"):
        session.prewarm()


# Diagnostics of the provider's own


def message(number: int, diagnostics: Any = None) -> dict[str, Any]:
    text = {"type": "text", "text": "Hi!"}
    usage = {"input_tokens": 5, "cache_read_input_tokens": 0, "output_tokens": 3}
    return {"id": f"msg_{number}", "content": [text], "usage": usage, "diagnostics": diagnostics}


def test_diagnostics_name_the_response_before_and_are_sent_only_if_asked_for() -> None:
    session = warm_session(diagnostics=True)
    first = session.request("Hello")
    assert first.body["diagnostics"] == {"previous_message_id": None}
    first.observe(message(1))
    fork = session.fork()
    assert fork.diagnostics
    for each in (session, fork):
        assert each.request("And?").body["diagnostics"] == {"previous_message_id": "msg_1"}
    assert "diagnostics" not in warm_session().request("Hello").body


REASONS: list[tuple[str, str | None]] = [
    ("model_changed", "model-changed"),
    ("system_changed", "system-changed"),
    ("tools_changed", "tool-schema-changed"),
    ("messages_changed", "history-edited"),
    ("previous_message_not_found", None),
    ("unavailable", None),
]


@pytest.mark.parametrize(("reason", "cause"), REASONS)
def test_a_reason_of_anthropics_comes_with_the_observation(reason: str, cause: str | None) -> None:
    told = {"cache_miss_reason": {"type": reason, "cache_missed_input_tokens": 1_200}}
    seen = warm_session().request("Hello").observe(message(1, told))
    assert seen.diagnosis == Diagnosis(reason, cause, 1_200)


@pytest.mark.parametrize("told", [None, {}, {"cache_miss_reason": None}])
def test_a_pending_diagnosis_is_none(told: Any) -> None:
    assert warm_session().request("Hello").observe(message(1, told)).diagnosis is None


def test_the_sdk_reads_the_diagnosis_too() -> None:
    told = {"cache_miss_reason": {"type": "system_changed", "cache_missed_input_tokens": 7}}
    typed = anthropic.types.Message.model_validate(
        {**message(1, told), "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn"}
    )
    assert Anthropic().read_diagnosis(typed) == Diagnosis("system_changed", "system-changed", 7)
    assert Anthropic().read_id(typed) == "msg_1"


# Options where sources disagree


def positions(dialect: Anthropic) -> int:
    session = Session(StableContext("claude-sonnet-5.5"), dialect, tokens=EstimateCounter())
    calls = [ToolCall(str(number), "search", "{}") for number in range(5)]
    session.append([{"role": "user", "content": "go"}, Message("assistant", calls)])
    return session.tip.position


def test_the_look_back_counts_each_tool_block_unless_told_otherwise() -> None:
    assert Anthropic().bind("claude-opus-5").rules.collapsed == frozenset()
    assert Anthropic(collapse_tool_runs=True).bind("claude-opus-5").rules.collapsed == TOOL_RUNS
    assert positions(Anthropic()) == 6
    assert positions(Anthropic(collapse_tool_runs=True)) == 2


@pytest.mark.parametrize(
    ("make", "model", "marked"),
    [
        (OpenAIChat, "gpt-5.6", False),
        (lambda: OpenAIChat(mark_tool_results=True), "gpt-5.6", True),
        (lambda: OpenAIChat(mark_tool_results=True), "gpt-5.5", False),
    ],
)
def test_tool_results_are_marked_only_if_asked_for(
    make: Callable[[], OpenAIChat], model: str, marked: bool
) -> None:
    context = StableContext(model, POLICY, tools=[{"name": "search"}])
    session = Session(context, make(), tokens=EstimateCounter())
    session.append(
        [
            Message("user", "go"),
            Message("assistant", [ToolCall("1", "search", "{}")]),
            {"role": "tool", "tool_call_id": "1", "content": "found"},
        ]
    )
    result = session.request().body["messages"][-1]
    expected = [{"type": "text", "text": "found", "prompt_cache_breakpoint": {"mode": "explicit"}}]
    assert result["content"] == (expected if marked else "found")
