"""``BufferedChatCompletionContext``: nothing that was said is lost, and prompts only grow."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_core import FunctionCall
from autogen_core.model_context import ChatCompletionContext, UnboundedChatCompletionContext
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    SystemMessage,
    UserMessage,
)
from tests.integrations.agentchat.ac_agents import model_client

from llmbuffer import Session, StableContext
from llmbuffer.errors import MessageError
from llmbuffer.simulate import ProviderServer
from llmbuffer.testing import assert_prefix_stable
from llmbuffer_autogen.agentchat import BufferedChatCompletionContext, ModelHost


def said(number: int) -> Any:
    return UserMessage(content=f"message {number}", source="user")


TALK = [
    SystemMessage(content="A note in the middle."),
    said(1),
    AssistantMessage(content=[FunctionCall("c1", "{}", "look")], thought="Hm.", source="ann"),
    FunctionExecutionResultMessage(content=[FunctionExecutionResult(content="x", name="look", call_id="c1")]),
    AssistantMessage(content="Done.", thought="Kept.", source="ann"),
]


def filled(context: ChatCompletionContext, messages: list[Any]) -> list[Any]:
    async def fill() -> list[Any]:
        for message in messages:
            await context.add_message(message)
        return list(await context.get_messages())

    return asyncio.run(fill())


def test_what_is_added_comes_back_by_reference() -> None:
    context = BufferedChatCompletionContext()
    found = filled(context, TALK)
    assert all(one is other for one, other in zip(found, TALK, strict=True))
    assert context.messages == tuple(TALK)


def test_the_session_takes_in_what_is_said() -> None:
    session = Session(StableContext("gpt-5.5"))
    context = BufferedChatCompletionContext(session=session)
    filled(context, TALK)
    host = ModelHost()
    assert list(context.session.messages) == [host.to_message(message) for message in TALK]
    assert context.unread == 0
    assert session.messages == (), "the session that was given is what others fork from too"


def test_a_window_is_cut_once_in_so_many_messages() -> None:
    context = BufferedChatCompletionContext(3)
    begins = []
    for number in range(20):
        found = filled(context, [said(number)])
        assert found[-1].content == f"message {number}"
        assert min(number + 1, 3) <= len(found) <= 6
        begins.append(found[0].content)
    assert len(set(begins)) == 5, "4 cuts in 20 messages"
    assert [message.content for message in context.messages] == [f"message {number}" for number in range(20)]


def test_a_window_never_begins_with_a_result() -> None:
    context = BufferedChatCompletionContext(2)
    found = filled(context, [said(0), said(1), *TALK[2:]])
    assert not isinstance(found[0], FunctionExecutionResultMessage)
    assert len(context.messages) == 5


def test_a_saved_state_goes_on() -> None:
    context = BufferedChatCompletionContext(2)
    before = filled(context, [said(number) for number in range(7)])
    state = json.loads(json.dumps(asyncio.run(context.save_state())))
    again = BufferedChatCompletionContext(2)
    asyncio.run(again.load_state(state))
    assert asyncio.run(again.get_messages()) == before
    assert again.messages == context.messages
    assert again.session.messages == context.session.messages


def test_a_state_of_the_frameworks_own_is_taken() -> None:
    other = UnboundedChatCompletionContext()
    filled(other, list(TALK))
    context = BufferedChatCompletionContext()
    asyncio.run(context.load_state(asyncio.run(other.save_state())))
    assert asyncio.run(context.get_messages()) == TALK


def test_clearing_forgets_all() -> None:
    context = BufferedChatCompletionContext(1)
    filled(context, [said(number) for number in range(5)])
    asyncio.run(context.clear())
    assert (context.messages, context.session.messages) == ((), ())
    assert filled(context, [said(9)])[0].content == "message 9"


def test_a_fork_goes_its_own_way() -> None:
    context = BufferedChatCompletionContext()
    filled(context, [said(1)])
    fork = context.fork()
    filled(fork, [said(2)])
    filled(context, [said(3)])
    assert [message.content for message in fork.messages] == ["message 1", "message 2"]
    assert [message.content for message in context.messages] == ["message 1", "message 3"]
    assert len(fork.session.messages) == 2


def test_it_is_dumped_and_loaded() -> None:
    context = BufferedChatCompletionContext(3, initial_messages=[said(0)])
    again = ChatCompletionContext.load_component(context.dump_component())
    assert isinstance(again, BufferedChatCompletionContext)
    assert again.messages == context.messages


@pytest.mark.parametrize("size", [0, -1, True])
def test_sizes_that_are_none_are_refused(size: Any) -> None:
    with pytest.raises(MessageError, match="buffer_size"):
        BufferedChatCompletionContext(size)


def test_an_agents_prompts_only_grow_between_two_cuts() -> None:
    with ProviderServer(replies=[f"Answer {number}." for number in range(12)], keep_bodies=True) as server:
        inner = model_client(server.openai_url)
        context = BufferedChatCompletionContext(6)

        async def run() -> None:
            agent = AssistantAgent("ann", inner, model_context=context, system_message="Be kind.")
            for number in range(12):
                await agent.run(task=f"Question {number}")
            await inner.close()

        asyncio.run(run())
        bodies = [
            request.body or {} for request in sorted(server.requests, key=lambda request: request.number)
        ]
    begins = [body["messages"][1]["content"] for body in bodies]
    assert all(text.startswith("Question") for text in begins), "providers want a prompt to begin with a user"
    stretches = [
        [body for body, at in zip(bodies, begins, strict=True) if at == text] for text in set(begins)
    ]
    assert len(stretches) <= 4
    for stretch in stretches:
        assert_prefix_stable(stretch)
