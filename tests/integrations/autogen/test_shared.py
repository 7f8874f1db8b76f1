"""A session that is given stands in front of every prompt, and nothing of it stays with the agents."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from autogen import ConversableAgent
from tests.integrations.autogen.chats import (
    KEY,
    assistant,
    bodies,
    config,
    group,
    members,
    older_anthropic,
    person,
    transcript,
)

from llmbuffer import Message, Segment, Session, StableContext
from llmbuffer.reconcile import Policy
from llmbuffer.simulate import ProviderServer, Reply
from llmbuffer.testing import assert_prefix_stable
from llmbuffer.testing.scripts import handbook, personas
from llmbuffer_autogen.classic import fork_group_chat

OPENING = "You work for Acme.\n\nBe kind."


def shared(model: str = "gpt-5.5", dialect: str = "openai", more: str = "") -> Session:
    texts = [Segment("firm", "You work for Acme."), Segment("manner", f"Be kind.{more}")]
    session = Session(StableContext(model, texts), dialect)
    session.append([Message("user", "We open at 9."), Message("assistant", "Noted.")])
    return session


def told(body: Any) -> list[str]:
    """The texts of a request, system text first."""
    items = [*([{"content": body["system"]}] if "system" in body else []), *body["messages"]]
    contents = [item["content"] for item in items]
    return [each if isinstance(each, str) else "\n".join(part["text"] for part in each) for each in contents]


def test_it_stands_in_front() -> None:
    with ProviderServer(keep_bodies=True) as server:
        agent = assistant(server, "buffer", system="You are a clerk.", session=shared())
        user = person(max_consecutive_auto_reply=0)
        for text in ("Hello", "And now?"):
            user.initiate_chat(agent, message=text, clear_history=False, silent=True)
        sent = bodies(server)
    front = [f"{OPENING}\n\nYou are a clerk.", "We open at 9.", "Noted.", "Hello"]
    assert [told(body)[:4] for body in sent] == [front, front]
    assert_prefix_stable(sent)
    assert agent.account.breaks == ()
    assert "We open" not in str(transcript(user.chat_messages[agent])), "the history is AutoGen's own"
    assert agent.system_message == "You are a clerk."


def test_observing_sends_nothing_of_it() -> None:
    with ProviderServer(keep_bodies=True) as server:
        agent = assistant(server, "observe", system="You are a clerk.", session=shared())
        person(max_consecutive_auto_reply=0).initiate_chat(agent, message="Hello", silent=True)
        assert told(bodies(server)[0]) == ["You are a clerk.", "Hello"]


def test_a_fallback_to_another_model_is_told_the_same() -> None:
    with ProviderServer(replies=[Reply(status=500), "ok"], keep_bodies=True) as server:
        llm = config(server.openai_url)
        llm["config_list"].append({**llm["config_list"][0], "model": "gpt-5.4"})
        agent = assistant(server, "buffer", system="You are a clerk.", session=shared(), llm_config=llm)
        person(max_consecutive_auto_reply=0).initiate_chat(agent, message="Hello", silent=True)
        answered = bodies(server)[-1]
    assert answered["model"] == "gpt-5.4"
    assert told(answered) == [f"{OPENING}\n\nYou are a clerk.", "We open at 9.", "Noted.", "Hello"]
    assert [seam.session.context.model for seam in agent.seams.seams] == ["gpt-5.5", "gpt-5.4"]


@pytest.mark.parametrize("mode", ["buffer", "team"])
@pytest.mark.parametrize("model", ["gpt-5.5", "gpt-5.6", "claude-sonnet-5.5"])
def test_members_of_a_group_read_what_they_share(model: str, mode: str) -> None:
    claude = model.startswith("claude")
    session = shared(model, "anthropic" if claude else "openai", handbook(16))
    older: Any = older_anthropic() if claude else nullcontext()
    with older, ProviderServer(keep_bodies=True) as server:
        llm = config(server.openai_url, model)
        if claude:
            llm["config_list"][0] = {
                "model": model, "api_key": KEY, "base_url": server.anthropic_url, "api_type": "anthropic", "price": [0, 0],
            }  # fmt: skip
        agents = [
            ConversableAgent(name, f"{text} Answer.", llm_config=llm, human_input_mode="NEVER")
            for name, text in personas().items()
        ]
        chat, manager = group(
            server, mode, agents, rounds=4, session=session, policy=Policy(), manager={"llm_config": False}
        )
        person().initiate_chat(manager, message="Where is parcel 7?", silent=True)
        hits = [request.usage.hit_ratio > 0.8 for request in server.requests]
        sent = bodies(server)
    assert all(told(body)[0].startswith(OPENING) for body in sent)
    assert all(str(body).count("'cache_control'") <= 4 for body in sent)
    assert hits == [False, True, True]
    assert "Acme" not in str(chat.messages)
    assert not any("\ue0f1" in str(body) for body in sent)


def test_forks_are_told_it_once() -> None:
    with ProviderServer(keep_bodies=True) as server:
        llm = config(server.openai_url)
        chat, manager = group(
            server,
            "buffer",
            members(server, llm_config=llm),
            rounds=3,
            session=shared(),
            manager={"llm_config": False},
        )
        person().initiate_chat(manager, message="Where is parcel 7?", silent=True)
        for fork in fork_group_chat(chat, ["Plan tests.", "Plan docs."]):
            fork.start(silent=True)
        sent = bodies(server)
    assert len(sent) > 4
    assert {str(body).count("We open at 9.") for body in sent} == {1}
    assert {str(body).count("You work for Acme.") for body in sent} == {1}
