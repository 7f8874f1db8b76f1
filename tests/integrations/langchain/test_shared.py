"""A session that is given stands in front of every prompt, and nothing of it stays with the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, SystemMessage
from langgraph.checkpoint.memory import InMemorySaver
from tests.integrations.langchain.lc_agents import model_at

from llmbuffer import Message, Segment, Session, StableContext
from llmbuffer.reconcile import Policy
from llmbuffer.simulate import ProviderServer
from llmbuffer.testing import assert_prefix_stable
from llmbuffer.testing.scripts import handbook
from llmbuffer_langchain import BufferedChatModel, BufferedMiddleware, dynamic_text

SERVED = [
    ("openai", "gpt-5.5"),
    ("openai", "gpt-5.6"),
    ("openai-responses", "gpt-5.5"),
    ("anthropic", "claude-sonnet-5.5"),
]


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer(keep_bodies=True) as server:
        yield server


def model_of(server: ProviderServer, wire: str = "openai", model: str = "gpt-5.5") -> Any:
    return model_at(server.anthropic_url if wire == "anthropic" else server.openai_url, wire, model)


def shared(wire: str = "openai", model: str = "gpt-5.5", more: str = "") -> Session:
    dialect = {"openai-responses": "openai-responses", "anthropic": "anthropic"}.get(wire, "openai")
    texts = [Segment("firm", "You work for Acme."), Segment("manner", f"Be kind.{more}")]
    session = Session(StableContext(model, texts), dialect)
    session.append([Message("user", "We open at 9."), Message("assistant", "Noted.")])
    return session


def text_of(content: Any) -> str:
    return content if isinstance(content, str) else "\n\n".join(part["text"] for part in content)


def told(body: Any) -> list[str]:
    """The texts of a request, system text first."""
    begun = [text_of(body["system"])] if "system" in body else []
    return begun + [text_of(item["content"]) for item in body.get("messages") or body["input"]]


def bodies(server: ProviderServer) -> list[Any]:
    return [request.body for request in sorted(server.requests, key=lambda request: request.number)]


@pytest.mark.parametrize(("wire", "model"), SERVED)
def test_it_stands_in_front(server: ProviderServer, wire: str, model: str) -> None:
    buffered: Any = BufferedChatModel(model_of(server, wire, model), session=shared(wire, model))
    history: list[Any] = [SystemMessage("You are a clerk."), HumanMessage("Hello")]
    for _ in range(2):
        history += [buffered.invoke(history, {"configurable": {"thread_id": "t"}}), HumanMessage("And now?")]
    front = ["You work for Acme.\n\nBe kind.\n\nYou are a clerk.", "We open at 9.", "Noted.", "Hello"]
    assert [told(body)[:4] for body in bodies(server)] == [front, front]
    assert_prefix_stable(bodies(server))
    assert buffered.seam.breaks == ()
    assert history[0].content == "You are a clerk.", "the host's own message is left alone"


def test_it_stands_alone_where_the_host_has_no_system_text(server: ProviderServer) -> None:
    BufferedChatModel(model_of(server), session=shared()).invoke("Hello")
    assert told(bodies(server)[0]) == ["You work for Acme.\n\nBe kind.", "We open at 9.", "Noted.", "Hello"]


def test_what_the_host_tells_already_is_not_told_twice(server: ProviderServer) -> None:
    buffered = BufferedChatModel(model_of(server), session=shared())
    buffered.invoke(
        [
            ("system", "You work for Acme.\n\nBe kind."),
            ("user", "We open at 9."),
            ("assistant", "Noted."),
            ("user", "Hello"),
        ]
    )
    assert told(bodies(server)[0]) == ["You work for Acme.\n\nBe kind.", "We open at 9.", "Noted.", "Hello"]


def test_an_agents_state_has_nothing_of_it(server: ProviderServer) -> None:
    agent = create_agent(
        model_of(server),
        [],
        system_prompt="You are a clerk.",
        middleware=[BufferedMiddleware(session=shared())],
        checkpointer=InMemorySaver(),
    )
    for text in ("Hello", "And now?"):
        state = agent.invoke({"messages": [("user", text)]}, {"configurable": {"thread_id": "t"}})
    assert "We open at 9." in told(bodies(server)[1])
    assert [message.type for message in state["messages"]] == ["human", "ai"] * 2
    assert "Acme" not in str(state)
    assert "We open at 9." not in str(state)


def test_observing_sends_nothing_of_it(server: ProviderServer) -> None:
    BufferedChatModel(model_of(server), session=shared(), mode="observe").invoke("Hello")
    assert told(bodies(server)[0]) == ["Hello"]


def test_conversations_off_one_session_never_meet(server: ProviderServer) -> None:
    buffered: Any = BufferedChatModel(model_of(server), session=shared())
    histories: dict[str, list[Any]] = {"amber": [], "birch": []}
    for turn in range(3):
        for name, history in histories.items():
            history.append(HumanMessage(f"{turn} {name}"))
            history.append(buffered.invoke([SystemMessage("You are a clerk."), *history]))
    for body in bodies(server):
        assert ("amber" in str(body)) != ("birch" in str(body))
    assert len(buffered.seam.sessions) == 2
    assert buffered.seam.breaks == ()


@pytest.mark.parametrize(("wire", "model"), SERVED)
def test_members_with_prompts_of_their_own_read_what_they_share(
    server: ProviderServer, wire: str, model: str
) -> None:
    session = shared(wire, model, handbook(16))
    buffered: Any = BufferedChatModel(model_of(server, wire, model), session=session)
    for name in ("ann", "bob", "cleo"):
        said = [SystemMessage(f"You are {name}."), HumanMessage("Hello")]
        buffered.invoke(said, {"metadata": {"thread_id": "t", "lc_agent_name": name}})
    assert [request.usage.hit_ratio > 0.9 for request in server.requests] == [False, True, True]
    assert all(str(body).count("'cache_control'") <= 4 for body in bodies(server))


def test_a_team_shares_it(server: ProviderServer) -> None:
    prompts = {name: f"You are {name}. {handbook(4)}" for name in ("ann", "bob")}
    buffered: Any = BufferedChatModel(
        model_of(server), session=shared(), mode="team", members=prompts, policy=Policy(team="shared")
    )
    history: list[Any] = [HumanMessage("Hello")]
    for name, prompt in prompts.items():
        place = {"metadata": {"thread_id": "t", "lc_agent_name": name}}
        history.append(buffered.invoke([SystemMessage(prompt), *history], place))
        history[-1].name = name
    for body in bodies(server):
        assert told(body)[0].startswith("You work for Acme.\n\nBe kind.")
        assert not any(f"You are {name}." in told(body)[0] for name in prompts)


def test_observing_takes_marks_off_and_changes_nothing_else(server: ProviderServer) -> None:
    buffered: Any = BufferedChatModel(model_of(server, "openai", "gpt-5.6"), mode="observe")
    marked = f"It is {dynamic_text('now', '10:00')}. Be kind."
    parts: list[Any] = [
        {"type": "text", "text": marked, "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "text", "text": ""},
    ]
    given: list[Any] = [SystemMessage(marked), HumanMessage(parts), HumanMessage("Hello")]
    buffered.invoke(given)
    model_of(server, "openai", "gpt-5.6").invoke(
        [
            SystemMessage("It is 10:00. Be kind."),
            HumanMessage([{**parts[0], "text": "It is 10:00. Be kind."}, parts[1]]),
            HumanMessage("Hello"),
        ]
    )
    assert bodies(server)[0] == bodies(server)[1]
    assert given[0].content == marked, "the host's own message is left alone"
