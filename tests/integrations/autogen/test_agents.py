"""Buffered agents of classic AutoGen: replies, tools, nested chats, summaries, the response cache, accounts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from autogen import AssistantAgent, ConversableAgent
from autogen.agentchat.contrib.capabilities.transform_messages import TransformMessages
from autogen.agentchat.contrib.capabilities.transforms import MessageHistoryLimiter
from autogen.cache.in_memory_cache import InMemoryCache
from tests.integrations.autogen.chats import (
    LONG,
    assistant,
    bodies,
    config,
    equip,
    no_calls,
    person,
    streaming,
    transcript,
)

from llmbuffer import Usage
from llmbuffer.errors import MessageError
from llmbuffer.reconcile import Policy, dynamic_text, unmarked
from llmbuffer.simulate import Asked, Call, ProviderServer, Reply
from llmbuffer.testing import assert_prefix_stable
from llmbuffer.testing.scripts import standard_script, tools
from llmbuffer_autogen.classic import BufferedAgentMixin, BufferedConversableAgent
from llmbuffer_autogen.classic.agent import adopted
from llmbuffer_autogen.classic.seams import Seams

SCRIPT = standard_script(4)


def talked(server: ProviderServer, mode: str | None, **given: Any) -> tuple[Any, list[Any]]:
    """The script by a user and an agent with tools; the agent, and the chat as the user keeps it."""
    stream = given.pop("stream", False)
    agent, user = assistant(server, mode, system=SCRIPT.system, **given), person()
    equip(agent, user, SCRIPT.tools)
    if stream:
        streaming(agent)
    for turn in SCRIPT.turns:
        user.initiate_chat(agent, message=turn.user, clear_history=False, silent=True)
    return agent, user.chat_messages[agent]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["gpt-5.5", "gpt-5.6"])
def test_usage_is_what_the_server_sent_also_in_streams(stream: bool, model: str) -> None:
    with ProviderServer(replies=SCRIPT.replies()) as server:
        llm = config(server.openai_url, model)
        agent, _ = talked(server, "buffer", llm_config=llm, stream=stream)
        assert [request.stream for request in server.requests] == [stream] * SCRIPT.requests
        assert agent.usage == server.usage()
        assert agent.usage.cache_read_tokens > 20_000
        assert (agent.usage.cache_write_tokens > 0) == (model == "gpt-5.6")
        assert agent.account.requests == len(server.requests)


def test_the_transcript_and_the_runs_of_tools_are_the_same() -> None:
    found = []
    for mode in (None, "observe", "buffer"):
        with ProviderServer(replies=SCRIPT.replies(), keep_bodies=True) as server:
            _, chat = talked(server, mode)
            found.append((transcript(chat), bodies(server)))
    assert found[1] == found[0]
    assert found[2][0] == found[0][0]
    assert [body["messages"] for body in found[2][1]] == [body["messages"] for body in found[0][1]]
    assert [sorted(body.keys() - found[0][1][0].keys()) for body in found[2][1]] == [
        ["prompt_cache_key"]
    ] * SCRIPT.requests


def test_a_key_of_the_users_own_stays() -> None:
    with ProviderServer(keep_bodies=True) as server:
        agent = assistant(server, "buffer")
        agent.client._config_list[0]["prompt_cache_key"] = "mine"
        person().initiate_chat(agent, message="Hello", silent=True)
        assert bodies(server)[0]["prompt_cache_key"] == "mine"


def test_marks_go_on_parts_and_never_turn_a_text_into_a_list() -> None:
    with ProviderServer(replies=SCRIPT.replies(), keep_bodies=True) as server:
        talked(server, "buffer", llm_config=config(server.openai_url, "gpt-5.6"))
        sent = bodies(server)
        assert_prefix_stable(sent)
    kinds = {
        (each["role"], type(each["content"])) for body in sent for each in body["messages"] if each["content"]
    }
    assert kinds == {("system", list), ("user", list), ("assistant", str), ("tool", str)}
    assert all(1 <= str(body).count("prompt_cache_breakpoint") <= 4 for body in sent)


def test_the_agent_keeps_its_own_history_untouched() -> None:
    with ProviderServer(replies=SCRIPT.replies()) as server:
        agent, _ = talked(server, "buffer", llm_config=config(server.openai_url, "gpt-5.6"))
    [kept] = agent.chat_messages.values()
    assert all(isinstance(each["content"], str | None) for each in kept)
    assert "context name" not in str(kept)


# --- ways of AutoGen


def test_a_nested_chat_is_buffered_by_the_agent_that_replies_in_it() -> None:
    said = ["Outer draft.", "Inner review.", "Outer again."]
    with ProviderServer(replies=said, keep_bodies=True) as server:
        writer = assistant(server, "buffer", "writer", "You write. " + LONG)
        critic = assistant(server, "buffer", "critic", "You review. " + LONG)
        user = ConversableAgent("user", llm_config=False, human_input_mode="NEVER")
        user.register_nested_chats(
            [{"recipient": critic, "message": "Review it.", "max_turns": 1, "summary_method": "last_msg"}],
            trigger=writer,
        )
        user.initiate_chat(writer, message="Write.", max_turns=2, silent=True)
        assert [transcript(user.chat_messages[writer])[-1][2]] == ["Outer again."]
        assert (writer.account.requests, critic.account.requests) == (2, 1)
        assert writer.usage + critic.usage == server.usage()


def test_function_maps_and_the_older_functions_work() -> None:
    told = [{"name": "hold", "description": "Hold it.", "parameters": {"type": "object", "properties": {}}}]
    with ProviderServer(replies=["Held.", "Still held."], keep_bodies=True) as server:
        agent = assistant(server, "buffer", llm_config={**config(server.openai_url), "functions": told})
        user = person(function_map={"hold": lambda: "ok"})
        for text in ("Hold it.", "And now?"):
            user.initiate_chat(agent, message=text, clear_history=False, silent=True)
        assert [body["functions"] for body in bodies(server)] == [told, told]
        assert not any("tools" in body for body in bodies(server))


@pytest.mark.parametrize("mode", ["observe", "buffer"])
def test_a_summary_by_reflection_is_seen(mode: str) -> None:
    with ProviderServer(replies=["In Lyon.", "They asked, it is in Lyon."], keep_bodies=True) as server:
        agent, user = assistant(server, mode), person()
        result = user.initiate_chat(
            agent, message="Where?", silent=True, summary_method="reflection_with_llm"
        )
        assert result.summary == "They asked, it is in Lyon."
        assert agent.account.requests == 2, "the user has no model: the agent's client was asked past it"
        assert agent.usage == server.usage()
        *_, last = bodies(server)[-1]["messages"]
        assert last["role"] == "system"
        assert "Summarize" in last["content"]


def test_the_asynchronous_way_knows_its_conversation() -> None:
    async def both(server: ProviderServer) -> Any:
        agent = assistant(server, "buffer")
        users = [person("ann"), person("bob")]
        await asyncio.gather(
            *(user.a_initiate_chat(agent, message=f"I am {user.name}.", silent=True) for user in users)
        )
        return agent

    with ProviderServer() as server:
        agent = asyncio.run(both(server))
        assert {where.split("/")[0] for where, _ in agent.seam.accounts} == {"ann", "bob"}
        assert agent.usage == server.usage()


def test_the_response_cache_of_autogen_keeps_its_keys() -> None:
    kept = InMemoryCache(7)

    def asked(server: ProviderServer, mode: str | None) -> Any:
        agent = assistant(server, mode, llm_config=config(server.openai_url, "gpt-5.6"))
        person().initiate_chat(agent, message="Where is parcel 7?", silent=True, cache=kept)
        return agent

    with ProviderServer(replies=["In Lyon."]) as server:
        plain = asked(server, None)
        assert len(server.requests) == 1
        again = asked(server, "buffer")
        assert len(server.requests) == 1, "the reply that the plain agent stored was not found again"
        assert again.usage == Usage()
        assert again.account.requests == 0
        assert plain.last_message()["content"] == again.last_message()["content"] == "In Lyon."


def test_termination_and_turn_limits_hold() -> None:
    counts = []
    for mode in (None, "buffer"):
        with ProviderServer(replies=[f"Reply {number}." for number in range(9)]) as server:
            agent = assistant(server, mode, max_consecutive_auto_reply=2)
            user = ConversableAgent(
                "user", llm_config=False, human_input_mode="NEVER", default_auto_reply="Go on."
            )
            user.initiate_chat(agent, message="Begin.", silent=True)
            user.initiate_chat(agent, message="Again.", max_turns=1, silent=True)
            counts.append(len(server.requests))
    assert counts == [3, 3]


def test_errors_of_the_sdk_come_through_and_the_next_reply_works() -> None:
    import openai

    with ProviderServer(replies=[Reply(status=400, message="no"), "Yes."]) as server:
        agent, user = assistant(server, "buffer"), person()
        with pytest.raises(openai.BadRequestError, match="no"):
            user.initiate_chat(agent, message="One?", silent=True)
        user.initiate_chat(agent, message="Two?", silent=True)
        assert agent.account.requests == 1
        assert agent.usage == server.usage()


# --- what the plan does


def test_a_clock_moves_behind_the_question() -> None:
    now = [0]

    def update(agent: ConversableAgent, messages: Any) -> None:
        told = dynamic_text("now", f"12:0{now[0]}")
        agent.update_system_message(f"{LONG}\nIt is {told}.\nBe brief.")

    with ProviderServer(keep_bodies=True) as server:
        agent = assistant(server, "buffer", update_agent_state_before_reply=[update])
        user = person()
        for turn in range(3):
            now[0] = turn
            user.initiate_chat(agent, message=f"Question {turn}?", clear_history=False, silent=True)
        sent = [body["messages"] for body in bodies(server)]
    assert {each[0]["content"] for each in sent} == {f"{LONG}\nBe brief."}
    for turn, messages in enumerate(sent):
        own, told = messages[-1]["content"].split("\n", 1)
        assert own == f"Question {turn}?"
        assert f"It is 12:0{turn}." in told
        assert "12:0" not in str(messages[:-1])


def test_observe_takes_marks_off_and_changes_nothing_else() -> None:
    marked = f"{LONG}\nIt is {dynamic_text('now', '12:00')}."
    with ProviderServer(keep_bodies=True) as server:
        agent = assistant(server, "observe", system=marked)
        person().initiate_chat(agent, message="Hello", silent=True)
        assert bodies(server)[0]["messages"][0]["content"] == unmarked(marked)
        assert "prompt_cache_key" not in bodies(server)[0]


def test_a_hidden_tool_is_refused_and_never_run() -> None:
    ran: list[str] = []
    calls = (
        Call("hold", '{"number": "7", "days": 2}', "call_1"),
        Call("look_up", '{"number": "7"}', "call_2"),
    )
    said: list[Any] = ["Hello.", Reply(calls=calls), "Then not."]

    def hold(number: str, days: int) -> str:
        ran.append(f"{number}, {days}")
        return "held"

    with ProviderServer(replies=said, keep_bodies=True) as server:
        agent, user = assistant(server, "buffer"), person()
        equip(
            agent,
            user,
            {"hold": hold, "look_up": tools()["look_up"]},
        )
        user.initiate_chat(agent, message="Hello", silent=True, clear_history=False)
        agent.update_tool_signature("hold", is_remove=True)
        result = user.initiate_chat(agent, message="Hold 7.", silent=True, clear_history=False)
        *_, asked, last = bodies(server)
    assert ran == []
    assert result.chat_history[-1]["content"] == "Then not."
    assert [tool["function"]["name"] for tool in asked["tools"]] == ["hold", "look_up"]
    results = [each["content"] for each in last["messages"] if each["role"] == "tool"]
    assert "cannot be used now" in results[0]
    assert "not executed" in results[1]
    assert agent.account.requests == 3


def test_a_model_that_insists_on_a_hidden_tool_gets_its_call_taken_out() -> None:
    def answer(asked: Asked) -> Any:
        return "Hello." if asked.number == 0 else Reply(calls=(Call("hold", "{}", f"call_{asked.number}"),))

    with ProviderServer(replies=answer) as server:
        agent, user = assistant(server, "buffer"), person()
        equip(agent, user, {"hold": lambda: pytest.fail("it was run")})
        user.initiate_chat(agent, message="Hello", silent=True, clear_history=False)
        agent.update_tool_signature("hold", is_remove=True)
        result = user.initiate_chat(agent, message="Hold 7.", silent=True, clear_history=False)
        assert "cannot be used now" in result.chat_history[-1]["content"]
        assert len(server.requests) == 5


@pytest.mark.moves_prefix(reason="AutoGen's limiter cuts off the start")
def test_a_limiter_is_followed_and_with_history_ours_it_cuts_nothing() -> None:
    kept = {}
    for history in ("host", "ours"):
        with ProviderServer(keep_bodies=True) as server:
            agent = assistant(server, "buffer", policy=Policy(history=history))
            TransformMessages(transforms=[MessageHistoryLimiter(3)], verbose=False).add_to_agent(agent)
            user = person()
            for turn in range(4):
                user.initiate_chat(agent, message=f"Question {turn}?", clear_history=False, silent=True)
            kept[history] = [len(body["messages"]) for body in bodies(server)]
            if history == "ours":
                assert_prefix_stable(bodies(server))
    assert kept == {"host": [2, 4, 4, 4], "ours": [2, 4, 6, 8]}


def test_a_cleared_history_begins_a_new_conversation_without_an_alarm() -> None:
    with ProviderServer() as server:
        agent, user = assistant(server, "buffer"), person()
        for text in ("One?", "Two?", "Three?"):
            user.initiate_chat(agent, message=text, silent=True)  # clear_history=True is AutoGen's default
        assert len({where for where, _ in agent.seam.accounts}) == 3
        assert agent.account.breaks == ()


def test_a_fallback_to_another_model_has_a_seam_of_its_own() -> None:
    with ProviderServer(replies=[Reply(status=500), "Here."], keep_bodies=True) as server:
        llm = config(server.openai_url)
        llm["config_list"].append({**llm["config_list"][0], "model": "gpt-5.6"})
        agent = assistant(server, "buffer", llm_config=llm)
        person().initiate_chat(agent, message="Hello", silent=True)
        assert [seam.session.context.model for seam in agent.seams.seams] == ["gpt-5.5", "gpt-5.6"]
        assert agent.usage == server.usage()


# --- making agents


def test_the_mixin_goes_before_an_agent_class_of_autogens_own() -> None:
    class Assistant(BufferedAgentMixin, AssistantAgent):
        pass

    with ProviderServer(replies=["Hi."]) as server:
        agent = Assistant("helper", llm_config=config(server.openai_url), mode="observe")
        assert isinstance(agent, AssistantAgent)
        person().initiate_chat(agent, message="Hello", silent=True)
        assert agent.usage == server.usage()
        assert agent.usage.input_tokens > 0


def test_an_agent_is_adopted_in_place() -> None:
    with ProviderServer(replies=["Hi."]) as server:
        agent = AssistantAgent("helper", llm_config=config(server.openai_url), is_termination_msg=no_calls)
        same = adopted(agent, Seams())
        assert same is agent
        assert type(agent).__name__ == "BufferedAssistantAgent"
        assert isinstance(agent, AssistantAgent)
        person().initiate_chat(agent, message="Hello", silent=True)
        assert same.usage == server.usage()


def test_a_mode_that_is_none_is_refused() -> None:
    with pytest.raises(MessageError, match="use 'observe', 'buffer' or 'team'"):
        BufferedConversableAgent("helper", llm_config=False, mode="fast")  # type: ignore[arg-type]  # refused


def test_nothing_of_a_prompt_is_in_a_repr() -> None:
    with ProviderServer() as server:
        agent = assistant(server, "buffer", system="The secret is 4711.")
        person().initiate_chat(agent, message="Tell 4711.", silent=True)
        shown = f"{agent.seams!r} {agent.seam!r} {agent._buffer.asking('helper', None)!r}"
        assert "4711" not in shown
