"""`fork_runnable`: branches of one conversation share its prefix, and never see each other."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.prompts import ChatPromptTemplate
from langgraph.checkpoint.memory import InMemorySaver
from tests.integrations.langchain.lc_agents import model_at

from llmbuffer.errors import MessageError
from llmbuffer.simulate import ProviderServer, Reply
from llmbuffer.testing import assert_prefix_stable
from llmbuffer.testing.scripts import handbook
from llmbuffer_langchain import BufferedChatModel, BufferedMiddleware, fork_runnable

MODELS = [("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5")]
COUNT = 8


def agent_at(server: ProviderServer, wire: str, model: str) -> tuple[Any, BufferedMiddleware]:
    url = server.anthropic_url if wire == "anthropic" else server.openai_url
    ours = BufferedMiddleware()
    agent = create_agent(
        model_at(url, wire, model),
        [],
        system_prompt=handbook(30),
        middleware=[ours],
        checkpointer=InMemorySaver(),
    )
    return agent, ours


def asked(text: str) -> Any:
    return {"messages": [("user", text)]}


@pytest.mark.parametrize(("wire", "model"), MODELS)
def test_one_writes_and_eight_read(wire: str, model: str) -> None:
    with ProviderServer(keep_bodies=True) as server:
        agent, ours = agent_at(server, wire, model)
        agent.invoke(asked("Where is parcel 7?"), {"configurable": {"thread_id": "parent"}})
        forks = fork_runnable(agent, COUNT, conversation="parent")
        with ThreadPoolExecutor(COUNT) as pool:
            states = list(pool.map(lambda each: each[1].invoke(asked(f"Task {each[0]}.")), enumerate(forks)))
        first, *others = server.requests
        assert first.usage.cache_read_tokens == 0
        assert first.usage.input_tokens > 2_500
        assert all(request.usage.cache_read_tokens > 0.95 * first.usage.input_tokens for request in others)
        bodies = [request.body or {} for request in server.requests]
        for body in bodies[1:]:
            assert_prefix_stable([bodies[0], body])
            assert sum(f"Task {number}." in str(body["messages"]) for number in range(COUNT)) == 1
        again = agent.invoke(asked("And parcel 8?"), {"configurable": {"thread_id": "parent"}})
    assert [message.text for message in again["messages"] if message.type == "human"] == [
        "Where is parcel 7?",
        "And parcel 8?",
    ]
    assert all(len(state["messages"]) == 4 for state in states)
    assert ours.account().requests == COUNT + 2
    assert ours.breaks == ()


@pytest.mark.parametrize(("wire", "model"), MODELS)
def test_cold_forks_wait_for_the_first_of_them(wire: str, model: str) -> None:
    with ProviderServer(latency=(0.05, 0.0)) as server:
        agent, _ = agent_at(server, wire, model)

        async def run() -> None:
            forks = fork_runnable(agent, [f"worker-{number}" for number in range(COUNT)])
            await asyncio.gather(
                *(fork.ainvoke(asked(f"Task {number}.")) for number, fork in enumerate(forks))
            )

        asyncio.run(run())
        cold = [request for request in server.requests if not request.usage.cache_read_tokens]
        assert len(cold) == 1


def test_where_the_first_one_fails_the_next_one_goes() -> None:
    replies: list[Reply | str] = [Reply(status=500, message="not now"), *["Done."] * 3]
    with ProviderServer(replies=replies, latency=(0.05, 0.0)) as server:
        agent, _ = agent_at(server, "anthropic", "claude-sonnet-5.5")

        def run(each: Any) -> str:
            number, fork = each
            try:
                return str(fork.invoke(asked(f"Task {number}."))["messages"][-1].text)
            except Exception as error:  # noqa: BLE001  # which of them it is, the order of threads decides
                return type(error).__name__

        with ThreadPoolExecutor(4) as pool:
            said = sorted(pool.map(run, enumerate(fork_runnable(agent, 4))))
        assert said[1:] == ["Done."] * 3
        assert "Error" in said[0]
        answered = [request for request in server.requests if request.status == 200]
        assert [request.usage.cache_read_tokens > 0 for request in answered] == [False, True, True]


def test_a_chain_is_forked_too() -> None:
    with ProviderServer(keep_bodies=True) as server:
        model: Any = BufferedChatModel(model_at(server.anthropic_url, "anthropic", "claude-sonnet-5.5"))
        chain = ChatPromptTemplate.from_messages([("system", handbook(30)), ("human", "{text}")]) | model
        chain.invoke({"text": "Hello"}, {"configurable": {"thread_id": "parent"}})
        for name, fork in zip("ab", fork_runnable(chain, "ab", conversation="parent"), strict=True):
            list(fork.stream({"text": f"Task {name}."}))
        assert [request.outcome for request in server.requests] == ["cold", "hit", "hit"]
        assert [seam.account().requests for seam in model._llmbuffer.seams] == [1, 1, 1]


def test_what_cannot_be_forked_is_refused() -> None:
    with ProviderServer() as server:
        agent, _ = agent_at(server, "openai", "gpt-5.5")
        for forks in (0, True, [], ["a", "a"]):
            with pytest.raises(MessageError, match="forks is"):
                fork_runnable(agent, forks)
        with pytest.raises(MessageError, match="the thread 'nobody' has no checkpoint"):
            fork_runnable(agent, 2, conversation="nobody")


def test_time_travel_shares_the_prefix() -> None:
    with ProviderServer(keep_bodies=True) as server:
        agent, ours = agent_at(server, "anthropic", "claude-sonnet-5.5")
        config: Any = {"configurable": {"thread_id": "one"}}
        for text in ("First?", "Second?", "Third?"):
            agent.invoke(asked(text), config)
        earlier = [
            state for state in agent.get_state_history(config) if len(state.values.get("messages", ())) == 4
        ]
        agent.invoke(asked("Another third?"), earlier[0].config)
        assert server.requests[-1].usage.hit_ratio > 0.95
        assert ours.breaks == ()
        bodies = [request.body or {} for request in server.requests]
        assert_prefix_stable([*bodies[:2], bodies[3]])
