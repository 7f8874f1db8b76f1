"""`BufferedMiddleware` among other middlewares, and what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ClearToolUsesEdit,
    ContextEditingMiddleware,
    dynamic_prompt,
)
from langchain_anthropic.middleware import AnthropicPromptCachingMiddleware
from langgraph.checkpoint.memory import InMemorySaver
from tests.integrations.langchain.lc_agents import model_at

from llmbuffer import Usage
from llmbuffer.errors import MessageError
from llmbuffer.reconcile import Policy
from llmbuffer.simulate import Call, ProviderServer, Reply
from llmbuffer.testing import assert_prefix_stable
from llmbuffer.testing.scripts import clock, handbook
from llmbuffer_langchain import BufferedChatModel, BufferedMiddleware, dynamic_text

SYSTEM = handbook(16)


def look_up(number: str) -> str:
    """Look up where a parcel is."""
    return f"Parcel {number} is in Lyon. " * 30


def hold(number: str) -> str:
    """Hold a parcel back."""
    raise AssertionError("a hidden tool was run")


CALLS = [
    Reply(calls=(Call("look_up", '{"number": "7"}', f"call_{turn}"),)) if turn % 2 == 0 else "In Lyon."
    for turn in range(8)
]


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer(replies=CALLS, keep_bodies=True) as server:
        yield server


def thread(name: str = "one") -> Any:
    return {"configurable": {"thread_id": name}}


def talk(agent: Any, turns: int = 3, name: str = "one") -> list[Any]:
    state: Any = {}
    for turn in range(turns):
        state = agent.invoke({"messages": [("user", f"Question {turn}?")]}, thread(name))
    found: list[Any] = state["messages"]
    return found


def bodies(server: ProviderServer) -> list[Any]:
    return [request.body for request in sorted(server.requests, key=lambda request: request.number)]


@pytest.mark.parametrize("first", [True, False])
def test_marks_of_anthropics_own_middleware_are_counted(server: ProviderServer, first: bool) -> None:
    model = model_at(server.anthropic_url, "anthropic", "claude-sonnet-5.5")
    both: list[Any] = [AnthropicPromptCachingMiddleware(), BufferedMiddleware()]
    agent = create_agent(
        model,
        [look_up],
        system_prompt=SYSTEM,
        middleware=both if first else both[::-1],
        checkpointer=InMemorySaver(),
    )
    talk(agent)
    for body in bodies(server):
        assert str(body).count("cache_control") <= 4
        assert {body["cache_control"]["ttl"], body["tools"][-1]["cache_control"]["ttl"]} == {"5m"}, (
            "theirs stay"
        )
    assert [request.status for request in server.requests] == [200] * 6
    assert all(request.usage.hit_ratio > 0.8 for request in server.requests[1:])


@pytest.mark.parametrize("outer", [True, False])
def test_clearing_is_undone_wherever_the_middleware_stands(server: ProviderServer, outer: bool) -> None:
    edit = ContextEditingMiddleware(edits=[ClearToolUsesEdit(trigger=50, keep=1, placeholder="[cleared]")])
    ours = BufferedMiddleware(policy=Policy(history="ours", cleared=("[cleared]",)))
    agent = create_agent(
        model_at(server.openai_url, "openai", "gpt-5.5"),
        [look_up],
        system_prompt=SYSTEM,
        middleware=[ours, edit] if outer else [edit, ours],
        checkpointer=InMemorySaver(),
    )
    talk(agent)
    assert "[cleared]" not in str(bodies(server))
    assert_prefix_stable(bodies(server))
    assert ours.breaks == ()


@pytest.mark.moves_prefix(reason="the host clears tool results, and wins")
def test_clearing_is_followed_by_default(server: ProviderServer) -> None:
    edit = ContextEditingMiddleware(edits=[ClearToolUsesEdit(trigger=50, keep=1, placeholder="[cleared]")])
    ours = BufferedMiddleware()
    agent = create_agent(
        model_at(server.openai_url, "openai", "gpt-5.5"),
        [look_up],
        system_prompt=SYSTEM,
        middleware=[ours, edit],
        checkpointer=InMemorySaver(),
    )
    talk(agent)
    assert "[cleared]" in str(bodies(server)[-1])
    assert {each.cause for each in ours.breaks} == {"history-edited"}


class Choosing(AgentMiddleware):
    """Chooses the model by the length of the conversation, as `dynamic model` middlewares do."""

    def __init__(self, models: list[Any]) -> None:
        super().__init__()
        self.tools: list[Any] = []
        self.models = models

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        return handler(request.override(model=self.models[len(request.messages) > 2]))


def test_each_model_has_conversations_of_its_own(server: ProviderServer) -> None:
    models = [model_at(server.openai_url, "openai", name) for name in ("gpt-5.5", "gpt-5.4")]
    ours = BufferedMiddleware()
    agent = create_agent(
        models[0],
        [look_up],
        system_prompt=SYSTEM,
        middleware=[Choosing(models), ours],
        checkpointer=InMemorySaver(),
    )
    talk(agent)
    assert [seam.session.context.model for seam in ours.seams] == ["gpt-5.5", "gpt-5.4"]
    assert ours.account().requests == len(server.requests) == 6
    assert ours.usage == server.usage()


def test_a_model_that_is_buffered_already_is_left_alone(server: ProviderServer) -> None:
    model: Any = BufferedChatModel(model_at(server.openai_url, "openai", "gpt-5.5"))
    ours = BufferedMiddleware()
    agent = create_agent(model, [look_up], middleware=[ours], checkpointer=InMemorySaver())
    talk(agent, 1)
    assert (model.seam.account().requests, ours.account().requests) == (2, 0)
    with pytest.raises(MessageError, match="no model was called yet"):
        _ = ours.seam


def test_usage_is_told_by_thread_and_agent(server: ProviderServer) -> None:
    ours = BufferedMiddleware()
    model = model_at(server.openai_url, "openai", "gpt-5.5")
    for name in ("ann", "bob"):
        agent = create_agent(
            model, [look_up], system_prompt=SYSTEM, middleware=[ours], checkpointer=InMemorySaver(), name=name
        )
        talk(agent, 1, "t1")
        if name == "ann":
            asyncio.run(agent.ainvoke({"messages": [("user", "Again?")]}, thread("t2")))
    assert set(ours.seam.accounts) == {("t1", "ann"), ("t2", "ann"), ("t1", "bob")}
    assert ours.account(member="ann").requests == 4
    assert ours.account(conversation="t1").requests == 4
    assert ours.usage == sum((request.usage for request in server.requests), Usage())
    assert [entry.usage for entry in ours.ledger if entry.usage] == [
        request.usage for request in server.requests
    ]
    assert ours.forget("t2")
    assert not ours.forget("t2")
    assert ours.account(conversation="t2").requests == 2, "what was used stays counted"
    ours.reset()
    assert ours.account().requests == 0


class Hiding(AgentMiddleware):
    """Takes a tool away from the second turn on."""

    def __init__(self) -> None:
        super().__init__()
        self.tools: list[Any] = []

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        asked = sum(message.type == "human" for message in request.messages)
        return handler(request if asked < 2 else request.override(tools=request.tools[:1]))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("wire", "model"), [("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5")])
def test_a_hidden_tool_is_answered_for_and_other_calls_go_on(wire: str, model: str, streaming: bool) -> None:
    hidden = Call("hold", '{"number": "7"}', "call_h")
    replies: list[Reply | str] = [
        "Hello!",
        Reply(calls=(hidden,)),
        Reply(calls=(Call("look_up", '{"number": "7"}', "call_l"), hidden)),
        "In Lyon.",
    ]
    with ProviderServer(replies=replies, keep_bodies=True) as server:
        url = server.anthropic_url if wire == "anthropic" else server.openai_url
        built = model_at(url, wire, model, **({"streaming": True} if streaming else {}))
        ours = BufferedMiddleware()
        agent = create_agent(
            built,
            [look_up, hold],
            system_prompt=SYSTEM,
            middleware=[Hiding(), ours],
            checkpointer=InMemorySaver(),
        )
        messages = talk(agent, 2)
        sent = [len(body["tools"]) for body in bodies(server)]
        assert sent == [2] * 4, "the list of tools stays"
        assert "cannot be used now" in str(bodies(server)[2])
        assert ours.usage == server.usage()
    assert [message.type for message in messages[-4:]] == ["human", "ai", "tool", "ai"]
    assert [call["name"] for call in messages[-3].tool_calls] == ["look_up"]
    assert messages[-1].text == "In Lyon."


def test_a_model_that_insists_on_a_hidden_tool_gets_an_end() -> None:
    replies: list[Reply | str] = [
        "Hello!",
        *[Reply("Hm.", calls=(Call("hold", "{}", f"call_{turn}"),)) for turn in range(4)],
    ]
    with ProviderServer(replies=replies) as server:
        agent = create_agent(
            model_at(server.anthropic_url, "anthropic", "claude-sonnet-5.5"),
            [look_up, hold],
            middleware=[Hiding(), BufferedMiddleware()],
            checkpointer=InMemorySaver(),
        )
        last = talk(agent, 2)[-1]
        assert (last.text, last.tool_calls, len(server.requests)) == ("Hm.", [], 5)


def test_ours_needs_a_thread(server: ProviderServer) -> None:
    agent = create_agent(
        model_at(server.openai_url, "openai", "gpt-5.5"),
        [look_up],
        middleware=[BufferedMiddleware(policy=Policy(history="ours"))],
    )
    with pytest.raises(MessageError, match="needs a key"):
        agent.invoke({"messages": [("user", "Hello")]})
    assert not server.requests


def test_an_agent_without_a_thread_is_told_by_what_it_says(server: ProviderServer) -> None:
    ours = BufferedMiddleware()
    agent = create_agent(
        model_at(server.openai_url, "openai", "gpt-5.5"), [look_up], system_prompt=SYSTEM, middleware=[ours]
    )
    agent.invoke({"messages": [("user", "Hello")]})
    agent.invoke({"messages": [("user", "Good morning")]})
    assert len(ours.seam.sessions) == 2
    assert {where for where, _ in ours.seam.accounts} == {None}


def test_an_unknown_mode_is_refused_at_once() -> None:
    with pytest.raises(MessageError, match="mode is 'fast': use 'observe', 'buffer' or 'team'"):
        BufferedMiddleware(mode="fast")  # type: ignore[arg-type]  # what users may write


@pytest.mark.parametrize(("wire", "model"), [("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5")])
def test_the_time_stands_behind_the_prompt_and_not_in_the_state(wire: str, model: str) -> None:
    turn = [0]

    def prompt(request: Any) -> str:
        turn[0] += 1
        return f"It is {dynamic_text('now', clock(turn[0]))}.\n{SYSTEM}"

    with ProviderServer(replies=CALLS, keep_bodies=True) as server:
        url = server.anthropic_url if wire == "anthropic" else server.openai_url
        agent = create_agent(
            model_at(url, wire, model),
            [look_up],
            middleware=[dynamic_prompt(prompt), BufferedMiddleware()],
            checkpointer=InMemorySaver(),
        )
        messages = talk(agent)
        assert "context name" not in str(messages)
        for number, body in enumerate(bodies(server), 1):
            system = body.get("system") or body["messages"][0]
            assert "It is" not in str(system)
            assert clock(number) in str(body["messages"])
            assert clock(number - 1) not in str(body["messages"])
