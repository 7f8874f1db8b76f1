"""Group chats: buffered, as a team, with an automatic choice of speakers, forked."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from autogen import ConversableAgent
from autogen.agentchat.contrib.capabilities.transform_messages import TransformMessages
from autogen.agentchat.contrib.capabilities.transforms import MessageHistoryLimiter
from tests.integrations.autogen.chats import (
    LONG,
    assistant,
    bodies,
    config,
    equip,
    group,
    members,
    person,
    transcript,
)

from llmbuffer import Session, StableContext, Usage
from llmbuffer.reconcile import Policy
from llmbuffer.simulate import Asked, Call, ProviderServer, Reply
from llmbuffer.testing import assert_prefix_stable
from llmbuffer.testing.oracle import measured
from llmbuffer.testing.scripts import handbook, personas, tools
from llmbuffer_autogen.classic import BufferedGroupChat, fork_group_chat
from llmbuffer_autogen.classic.groupchat import SELECTION

NAMES = list(personas())
SAYS = "Remark {0}: the parcel of week {0} is on its way to the depot, and the driver was told so."


def says(asked: Asked) -> str:
    """A remark by its number; or, where the next speaker is asked for, the next one in order."""
    told = str(asked.body["messages"][-1]["content"])
    if "select the next role" in told:
        return NAMES[asked.number // 2 % 3]
    return SAYS.format(asked.number)


def discussed(
    mode: str | None, method: str = "round_robin", rounds: int = 7, model: str = "gpt-5.5", **given: Any
) -> tuple[Any, list[Any], list[Any], Usage]:
    """A discussion: the group, the bodies, the transcript and the server's usage."""
    with ProviderServer(replies=says, keep_bodies=True) as server:
        llm = config(server.openai_url, model)
        chat, manager = group(
            server,
            mode,
            members(server, llm_config=llm),
            rounds=rounds,
            method=method,
            manager={"llm_config": llm},
            **given,
        )
        person().initiate_chat(manager, message="Where is parcel 7?", silent=True)
        return chat, bodies(server), transcript(chat.messages), server.usage()


def system_of(body: Any) -> str:
    """The text that leads the messages."""
    content = body["messages"][0]["content"]
    return content if isinstance(content, str) else str(content[0]["text"])


def of_member(sent: list[Any], name: str) -> list[Any]:
    """The bodies whose system text begins with a member's persona."""
    return [body for body in sent if system_of(body).startswith(personas()[name])]


# --- one group


@pytest.mark.parametrize("method", ["round_robin", "auto"])
def test_observe_changes_no_byte_and_tells_the_usage_of_each_member(method: str) -> None:
    _, before, said, _ = discussed(None, method)
    chat, after, again, usage = discussed("observe", method)
    assert after == before
    assert again == said
    assert chat.usage == usage
    assert sum((each.usage for each in chat.accounts.values()), Usage()) == usage
    assert set(chat.accounts) == {*NAMES, *([SELECTION] if method == "auto" else [])}


@pytest.mark.parametrize("method", ["round_robin", "auto"])
def test_a_buffered_group_says_the_same_and_each_member_is_append_only(method: str) -> None:
    _, _, said, _ = discussed(None, method)
    chat, sent, again, usage = discussed("buffer", method, model="gpt-5.6")
    assert again == said
    assert chat.usage == usage
    for name in NAMES:
        assert_prefix_stable(of_member(sent, name))
        assert chat.accounts[name].breaks == ()


def test_the_question_who_speaks_next_is_read_behind_the_history() -> None:
    chat, sent, _, _ = discussed("buffer", "auto", model="gpt-5.6")
    asked = [body["messages"] for body in sent if "select the next role" in str(body["messages"][-1])]
    assert len(asked) == 6
    assert {each[-1]["role"] for each in asked} == {"system"}
    assert chat.accounts[SELECTION].breaks == ()
    for one, other in pairwise(asked):
        before = [{**each, "content": str(each["content"])} for each in bare(one[:-1])]
        assert [{**each, "content": str(each["content"])} for each in bare(other)][: len(before)] == before


def bare(messages: list[Any]) -> list[Any]:
    """Messages without breakpoints."""
    return [
        {**each, "content": [{"text": part["text"]} for part in each["content"]]}
        if isinstance(each["content"], list)
        else each
        for each in messages
    ]


@pytest.mark.parametrize("method", ["round_robin", "auto"])
def test_a_team_shares_one_prefix_and_keeps_every_speaker_named(method: str) -> None:
    _, before, said, _ = discussed(None, method, rounds=13)
    chat, after, again, usage = discussed("team", method, rounds=13)
    assert again == said
    assert chat.usage == usage
    assert measured(after).uncached < 0.6 * measured(before).uncached
    heads = {system_of(body) for body in after if "role play" not in system_of(body)}
    assert heads == {LONG}
    for number, (_, name, text, _) in enumerate(said[1:-1]):
        told = [each for each in after[-1]["messages"] if text in str(each["content"])]
        assert len(told) == 1, f"remark {number} is told once"
        assert f"{name}: {text}" in str(told[0]["content"])


def test_a_member_of_a_team_cannot_run_the_tool_of_another() -> None:
    ran: list[str] = []

    def hold(number: str, days: int) -> str:
        ran.append(f"{number}, {days}")
        return "held"

    def answer(asked: Asked) -> Any:
        if asked.number == 0:
            return Reply(calls=(Call("hold", '{"number": "7", "days": 2}', "call_1"),))
        return SAYS.format(asked.number)

    with ProviderServer(replies=answer, keep_bodies=True) as server:
        agents = members(server)
        clerk, driver, _ = agents
        equip(clerk, clerk, {"look_up": tools()["look_up"]})
        equip(driver, driver, {"hold": hold})
        chat, manager = group(server, "team", agents, rounds=4)
        person().initiate_chat(manager, message="Hold parcel 7.", silent=True)
        sent = bodies(server)
    assert ran == []
    assert chat.messages[1]["content"] == SAYS.format(1)
    names = [[tool["function"]["name"] for tool in body["tools"]] for body in sent]
    assert names == [["look_up", "hold"]] * len(sent)
    assert any("cannot be used now" in str(each["content"]) for each in sent[1]["messages"])


def test_a_limiter_in_a_group_cuts_nothing_with_history_ours() -> None:
    with ProviderServer(replies=says, keep_bodies=True) as server:
        agents = members(server)
        for agent in agents:
            TransformMessages(transforms=[MessageHistoryLimiter(3)], verbose=False).add_to_agent(agent)
        _, manager = group(server, "buffer", agents, rounds=10, policy=Policy(history="ours"))
        person().initiate_chat(manager, message="Where is parcel 7?", silent=True)
        sent = bodies(server)
    for name in NAMES:
        own = of_member(sent, name)
        assert [len(body["messages"]) for body in own] == [len(own[0]["messages"]) + 3 * n for n in range(3)]
        assert_prefix_stable(own)


def test_termination_rounds_and_the_asynchronous_way() -> None:
    async def run(mode: str | None) -> tuple[list[Any], int]:
        with ProviderServer(replies=[SAYS.format(0), "We are done. TERMINATE", "Never said."]) as server:
            over = {"is_termination_msg": lambda each: "TERMINATE" in (each.get("content") or "")}
            chat, manager = group(server, mode, manager=over)
            await person().a_initiate_chat(manager, message="Where is parcel 7?", silent=True)
            if mode is not None:
                assert chat.usage == server.usage()
                assert set(chat.accounts) == set(NAMES[:2])
            return transcript(chat.messages), len(server.requests)

    assert asyncio.run(run(None)) == asyncio.run(run("buffer")) == asyncio.run(run("team"))
    assert asyncio.run(run("buffer"))[1] == 2


def test_a_summary_by_the_manager_is_seen() -> None:
    with ProviderServer(replies=[*map(SAYS.format, range(3)), "All is on its way."]) as server:
        chat, manager = group(server, "buffer", rounds=4)
        result = person().initiate_chat(
            manager, message="Where is it?", silent=True, summary_method="reflection_with_llm"
        )
        assert result.summary == "All is on its way."
        assert chat.usage == server.usage()
        assert chat.accounts["manager:summary"].requests == 1


def test_agents_that_are_buffered_already_take_the_settings_of_the_group() -> None:
    with ProviderServer(replies=says, keep_bodies=True) as server:
        own = assistant(server, "observe", "clerk")
        chat, manager = group(server, "buffer", [own, *members(server)[1:]], rounds=4)
        person().initiate_chat(manager, message="Where is it?", silent=True)
        assert own.seams is chat.seams
        assert own.usage == chat.accounts["clerk"].usage
        assert all("prompt_cache_key" in body for body in bodies(server))


def test_a_cleared_group_begins_a_new_conversation() -> None:
    with ProviderServer(replies=says) as server:
        chat, manager = group(server, "buffer", rounds=4)
        user = person()
        for _ in range(2):
            user.initiate_chat(manager, message="Where is it?", silent=True)
        assert len({where for seam in chat.seams.seams for where, _ in seam.accounts}) == 2
        assert chat.seams.account().breaks == ()


def test_a_new_conversation_offers_no_tool_that_an_agent_has_lost_since() -> None:
    def hold(number: str) -> str:
        return f"{number} is held"

    with ProviderServer(replies=says, keep_bodies=True) as server:
        agents = members(server)
        clerk, driver, _ = agents
        equip(clerk, clerk, {"look_up": tools()["look_up"]})
        equip(driver, driver, {"hold": hold})
        _, manager = group(server, "team", agents, rounds=4)
        user = person()
        user.initiate_chat(manager, message="Where is it?", silent=True)
        driver.update_tool_signature("hold", is_remove=True)
        user.initiate_chat(manager, message="And now?", silent=True)
        sent = bodies(server)
    names = [[tool["function"]["name"] for tool in body["tools"]] for body in sent]
    assert names == [["look_up", "hold"]] * 3 + [["look_up"]] * 3


def test_a_group_is_told_without_text() -> None:
    with ProviderServer() as server:
        chat, _ = group(server, "buffer", session=Session(StableContext("gpt-5.5")))
        assert LONG[:40] not in repr(chat.seams)


# --- forks


def forked(model: str, *, api_type: str | None = None) -> list[Any]:
    """A group that has talked for some 3,000 tokens, and four forks of it side by side; the requests in order."""
    with ProviderServer(replies=says, keep_bodies=True) as server:
        llm = config(server.openai_url, model)
        helper = ConversableAgent("helper", handbook(30), llm_config=llm, human_input_mode="NEVER")
        chat = BufferedGroupChat(
            agents=[person("ann"), helper], messages=[], max_round=2, speaker_selection_method="round_robin"
        )
        from autogen import GroupChatManager

        manager = GroupChatManager(groupchat=chat, llm_config=False)
        chat.agents[0].initiate_chat(manager, message="Read the handbook, please.", silent=True)
        forks = fork_group_chat(chat, [f"Task {number}: look into week {number}." for number in range(4)])
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda fork: fork.start(silent=True), forks))
        assert len(results) == 4
        for number, fork in enumerate(forks):
            said = [each["content"] for each in fork.group.messages]
            assert said[:2] == ["Read the handbook, please.", SAYS.format(0)]
            assert said[2] == f"Task {number}: look into week {number}."
            assert len(said) == 4
        assert [each["content"] for each in chat.messages] == ["Read the handbook, please.", SAYS.format(0)]
        assert sum((fork.group.usage for fork in forks), chat.usage) == server.usage()
        assert {str(body["prompt_cache_key"]) for body in bodies(server)} == {
            bodies(server)[0]["prompt_cache_key"]
        }
        return sorted(server.requests, key=lambda request: request.number)


@pytest.mark.parametrize("model", ["gpt-5.5", "gpt-5.6"])
def test_four_forks_read_what_the_group_wrote(model: str) -> None:
    first, *others = forked(model)
    assert first.usage.cache_read_tokens == 0
    assert first.usage.input_tokens > 2_500
    assert [request.outcome for request in others] == ["hit"] * 4
    assert min(request.usage.hit_ratio for request in others) > 0.95


def test_forks_of_a_cold_group_wait_for_the_one_that_writes() -> None:
    with ProviderServer(replies=says, latency=(0.05, 0.0)) as server:
        llm = config(server.openai_url, "gpt-5.6")
        chat, manager = group(server, "buffer", members(server, llm_config=llm), rounds=3)
        forks = fork_group_chat(chat, ["One.", "Two.", "Three.", "Four."], manager=manager, sender=person())
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda fork: fork.start(silent=True), forks))
        outcomes = sorted(request.outcome for request in server.requests)
    assert outcomes == ["cold"] * 2 + ["hit"] * 6, "one writes for the clerk, one for the driver"


def test_a_fork_shares_no_history_counter_or_hook_with_the_group() -> None:
    with ProviderServer(replies=says) as server:
        chat, manager = group(server, "buffer", rounds=4)
        person().initiate_chat(manager, message="Where is it?", silent=True)
        before = transcript(chat.messages)
        [fork] = fork_group_chat(chat, ["And parcel 8?"])
        assert [agent.name for agent in fork.group.agents] == NAMES
        assert not {id(agent) for agent in fork.group.agents} & {id(agent) for agent in chat.agents}
        fork.start(silent=True)
        assert transcript(chat.messages) == before
        assert len(fork.group.messages) > len(before)
        for mine, theirs in zip(chat.agents, fork.group.agents, strict=True):
            assert len(mine.chat_messages[manager]) < len(theirs.chat_messages[fork.manager])
            assert list(theirs.chat_messages) == [fork.manager]


def test_a_group_that_never_ran_needs_a_manager_to_fork() -> None:
    with ProviderServer() as server:
        chat, _ = group(server, "buffer")
        with pytest.raises(ValueError, match="pass manager="):
            fork_group_chat(chat, ["One."])


# --- hand-offs


@pytest.mark.parametrize("mode", ["observe", "buffer"])
def test_hand_offs_go_the_same_way(mode: str) -> None:
    from autogen.agentchat import initiate_group_chat
    from autogen.agentchat.group import AgentTarget, TerminateTarget
    from autogen.agentchat.group.patterns import DefaultPattern

    def handed(mode: str | None) -> tuple[list[Any], list[Any], Usage, Usage]:
        with ProviderServer(replies=[SAYS.format(n) for n in range(9)], keep_bodies=True) as server:
            clerk, driver = assistant(server, mode, "clerk"), assistant(server, mode, "driver")
            clerk.handoffs.set_after_work(AgentTarget(driver))
            driver.handoffs.set_after_work(TerminateTarget())
            pattern = DefaultPattern(initial_agent=clerk, agents=[clerk, driver])
            result, _, _ = initiate_group_chat(pattern=pattern, messages="Where is parcel 7?", max_rounds=6)
            used = Usage() if mode is None else clerk.usage + driver.usage
            return transcript(result.chat_history), bodies(server), used, server.usage()

    said, alone, _, _ = handed(None)
    again, sent, used, reported = handed(mode)
    assert [each[1] for each in said if each[1] in NAMES] == ["clerk", "driver"]
    assert again == said
    assert used == reported
    assert (sent == alone) == (mode == "observe")
