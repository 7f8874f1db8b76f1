"""`BufferedSummarization` reads the cached prompt, and leaves a summary in the place of what it tells."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver
from tests.integrations.langchain.lc_agents import model_at

from llmbuffer.errors import MessageError
from llmbuffer.simulate import Asked, Call, ProviderServer, Reply
from llmbuffer.testing.scripts import handbook, passage
from llmbuffer_langchain import BufferedMiddleware, BufferedSummarization

MODELS = [("openai", "gpt-5.5"), ("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5")]


def look_up(number: str) -> str:
    """Look up where a parcel is."""
    return f"Parcel {number} is in Lyon."


def answer(asked: Asked) -> Reply:
    last = str(asked.body["messages"][-1])
    if "Write a summary" in last:
        return Reply("The customer asked about parcels.")
    if "tool_result" in last or "'tool'" in last:
        return Reply("It is in Lyon. " + passage(1))
    return Reply(calls=(Call("look_up", '{"number": "7"}', f"call_{len(asked.body['messages'])}"),))


def agent_at(server: ProviderServer, wire: str, model: str, **options: Any) -> tuple[Any, BufferedMiddleware]:
    url = server.anthropic_url if wire == "anthropic" else server.openai_url
    sizes: Any = {"trigger": ("messages", 13), "keep": ("messages", 4), **options}
    ours = BufferedMiddleware()
    agent = create_agent(
        model_at(url, wire, model),
        [look_up],
        system_prompt=handbook(16),
        middleware=[BufferedSummarization(**sizes), ours],
        checkpointer=InMemorySaver(),
    )
    return agent, ours


def say(agent: Any, turn: int) -> Any:
    return agent.invoke({"messages": [("user", passage(turn))]}, {"configurable": {"thread_id": "one"}})


@pytest.mark.moves_prefix(reason="a summary takes the place of older messages")
@pytest.mark.parametrize(("wire", "model"), MODELS)
def test_the_summary_reads_what_is_cached(wire: str, model: str) -> None:
    with ProviderServer(replies=answer, keep_bodies=True) as server:
        agent, ours = agent_at(server, wire, model)
        for turn in range(5):
            state = say(agent, turn)
        requests = sorted(server.requests, key=lambda request: request.number)
        asked = [
            request for request in requests if "Write a summary" in str((request.body or {})["messages"][-1])
        ]
        assert len(asked) == 1
        assert asked[0].usage.hit_ratio > 0.9
        assert (asked[0].body or {})["tools"] == (requests[0].body or {})["tools"]
        assert all(request.status == 200 for request in requests)
        assert ours.usage == server.usage(), "the summary is paid for as well"
    messages = state["messages"]
    assert messages[0].text.endswith("The customer asked about parcels.")
    assert passage(0) not in str(messages), "what was summarized is gone"
    assert passage(4) in str(messages)
    assert "Write a summary" not in str(messages)
    assert ours.breaks == (), "a planned change is no alarm"
    assert "thawed" in {entry.kind for entry in ours.ledger}


@pytest.mark.moves_prefix(reason="a summary takes the place of older messages")
def test_asynchronously_it_is_the_same() -> None:
    def bodies(asynchronous: bool) -> list[Any]:
        with ProviderServer(replies=answer, keep_bodies=True) as server:
            agent, _ = agent_at(server, "openai", "gpt-5.5")

            async def talk() -> None:
                for turn in range(5):
                    asked = {"messages": [("user", passage(turn))]}
                    await agent.ainvoke(asked, {"configurable": {"thread_id": "one"}})

            if asynchronous:
                asyncio.run(talk())
            else:
                for turn in range(5):
                    say(agent, turn)
            found = [dict(request.body or {}) for request in server.requests]
            assert all(body.pop("prompt_cache_key") for body in found), "another one for each wrapped model"
            return found

    assert bodies(asynchronous=True) == bodies(asynchronous=False)


def test_a_summary_without_text_changes_nothing() -> None:
    calls = (Call("look_up", '{"number": "7"}', "call_1"),)
    with ProviderServer(
        replies=lambda asked: Reply(calls=calls) if "Write a" in str(asked.body) else "Yes."
    ) as server:
        agent, _ = agent_at(server, "openai", "gpt-5.5", trigger=[("tokens", 10**6), ("messages", 5)])
        for turn in range(3):
            state = say(agent, turn)
    assert [message.type for message in state["messages"]] == ["human", "ai"] * 3
    assert state["messages"][0].text == passage(0)


@pytest.mark.moves_prefix(reason="a summary takes the place of older messages")
def test_a_call_stays_with_its_results() -> None:
    with ProviderServer(replies=answer) as server:
        agent, _ = agent_at(server, "openai", "gpt-5.5", keep=("messages", 3))
        for turn in range(5):
            state = say(agent, turn)
            kinds = [message.type for message in state["messages"]]
            assert all(
                kinds[index - 1] in ("ai", "tool") for index, kind in enumerate(kinds) if kind == "tool"
            )


@pytest.mark.parametrize("size", [("words", 5), ("messages", 0), "messages", ("messages", 1.5)])
def test_sizes_that_are_none_are_refused(size: Any) -> None:
    with pytest.raises(MessageError, match="a size is"):
        BufferedSummarization(trigger=size)
    with pytest.raises(MessageError, match="a size is"):
        BufferedSummarization(trigger=("messages", 5), keep=size)
