"""Anthropic's models behind AutoGen's own client: breakpoints get through it, and all usage is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.integrations.autogen.chats import (
    assistant,
    bodies,
    config,
    equip,
    group,
    members,
    older_anthropic,
    person,
    streaming,
    transcript,
)

from llmbuffer.simulate import ProviderServer
from llmbuffer.testing import assert_prefix_stable
from llmbuffer.testing.scripts import standard_script
from llmbuffer_autogen.classic.marking import marked_text, with_breakpoints

pytest.importorskip("anthropic", reason="AutoGen's client for Anthropic needs its SDK")
MODEL = "claude-sonnet-5.5"
SCRIPT = standard_script(4)
pytestmark = pytest.mark.filterwarnings("ignore:Cost calculation not available:UserWarning")


@pytest.fixture(autouse=True)
def _older() -> Iterator[None]:
    with older_anthropic():
        yield


def llm(server: ProviderServer) -> dict[str, Any]:
    return config(server.anthropic_url, MODEL, api_type="anthropic", max_tokens=500)


def talked(mode: str | None, *, stream: bool = False) -> tuple[Any, list[Any], list[Any], Any]:
    with ProviderServer(replies=SCRIPT.replies(), keep_bodies=True) as server:
        agent, user = assistant(server, mode, system=SCRIPT.system, llm_config=llm(server)), person()
        equip(agent, user, SCRIPT.tools)
        if stream:
            streaming(agent)
        for turn in SCRIPT.turns:
            user.initiate_chat(agent, message=turn.user, clear_history=False, silent=True)
        return agent, bodies(server), transcript(user.chat_messages[agent]), server.usage()


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_sent_is_read_again_and_told(stream: bool) -> None:
    _, alone, said, before = talked(None, stream=stream)
    agent, sent, again, usage = talked("buffer", stream=stream)
    assert again == said
    assert before.cache_read_tokens == 0
    assert agent.usage == usage
    assert usage.hit_ratio > 0.8
    assert usage.fresh_tokens == 0
    assert_prefix_stable(sent)
    assert all(1 <= str(body).count("cache_control") <= 4 for body in sent)
    assert not any("\ue0f1" in str(body) for body in sent)
    assert [texts(body) for body in sent] == [texts(body) for body in alone]


def texts(body: Any) -> list[str]:
    """All that a model reads in the messages."""
    out = []
    for message in body["messages"]:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            inner = part.get("content", part.get("text", part.get("input")))
            out.append(
                inner
                if isinstance(inner, str)
                else str(inner[0]["text"] if isinstance(inner, list) else inner)
            )
    return out


@pytest.mark.parametrize("stream", [False, True])
def test_observe_changes_no_byte(stream: bool) -> None:
    _, alone, _, _ = talked(None, stream=stream)
    agent, observed, _, usage = talked("observe", stream=stream)
    assert observed == alone
    assert agent.usage == usage


def test_a_group_of_three_as_a_team() -> None:
    hits = {}
    for mode in (None, "buffer", "team"):
        with ProviderServer(replies=[f"Remark {n}." for n in range(9)], keep_bodies=True) as server:
            chat, manager = group(
                server,
                mode,
                members(server, llm_config=llm(server)),
                rounds=10,
                manager={"llm_config": False},
            )
            person().initiate_chat(manager, message="Where is parcel 7?", silent=True)
            hits[mode] = server.usage().hit_ratio
            if mode is not None:
                assert chat.usage == server.usage()
    assert hits[None] == 0
    assert 0.6 < hits["buffer"] < 0.7, "three cold copies"
    assert hits["team"] > 0.8, "one"


def test_a_mark_in_the_middle_of_a_joined_text_cuts_it_there() -> None:
    made = with_breakpoints({"system": marked_text("Be kind.", long=True) + "\nBe brief."})
    assert made["system"] == [
        {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "text", "text": "\nBe brief."},
    ]


def test_a_mark_on_a_result_goes_on_its_block_and_one_on_tools_behind_the_last() -> None:
    result = {"type": "tool_result", "tool_use_id": "1", "content": marked_text("ok", long=False)}
    body = {"messages": [{"role": "user", "content": [result]}], "tools": [{"name": "a"}, {"name": "b"}]}
    made = with_breakpoints(body, tools=False)
    assert made["messages"][0]["content"] == [
        {**result, "content": "ok", "cache_control": {"type": "ephemeral"}}
    ]
    assert made["tools"] == [{"name": "a"}, {"name": "b", "cache_control": {"type": "ephemeral"}}]
