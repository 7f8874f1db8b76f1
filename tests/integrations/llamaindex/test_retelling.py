"""Which conversation a transcript is sent behind: the caller's own or none, and nothing of it that the transcript lacks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.chat_engine import CondensePlusContextChatEngine
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.llms.openai import OpenAI
from tests.benchmarks.adapters.llamaindex_scenarios import RECORDED, Retriever, words

from llmbuffer.simulate import ProviderServer
from llmbuffer_llamaindex import BufferedLLM, dynamic_text, retelling

Body = dict[str, Any]
POLICY = "You help the customers of a parcel service. Be brief. Never promise a day. Be kind to all."
QUESTION = ChatMessage("Do you ship to Paris?", role="user")
ANSWER = "Yes, we ship there by van and by train on every working day of the week, and at night. " * 5
USERS = ("alice", "bob")
ONE_SENTENCE = pytest.mark.moves_prefix(
    reason="the sentence in which two system prompts differ goes to the tail"
)


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer(keep_bodies=True, replies=lambda asked: ANSWER) as running:
        yield running


def llm_of(server: ProviderServer, **options: Any) -> Any:
    return BufferedLLM(OpenAI("gpt-4o", api_base=server.openai_url, api_key="k", max_retries=0), **options)


def last(server: ProviderServer) -> list[Body]:
    """The messages that went out last."""
    newest = max(server.requests, key=lambda each: each.number)
    assert newest.body is not None
    messages: list[Body] = newest.body["messages"]
    return messages


def prompt(user: str) -> ChatMessage:
    return ChatMessage(f"{POLICY} The card of {user} is {user}-card.", role="system")


def transcript(messages: Sequence[Any]) -> str:
    lines = "\n".join(f"{each.role.value}: {each.content}" for each in messages)
    return f"Chat History:\n{lines}\nFollow Up: And Rome?"


def talk(llm: Any, user: str) -> list[ChatMessage]:
    """One exchange, with a system prompt that names the user; what was said, without the prompt."""
    return [QUESTION, llm.chat([prompt(user), QUESTION]).message]


def test_the_callers_own_conversation_is_told(server: ProviderServer) -> None:
    llm = llm_of(server)
    said = {user: talk(llm.bound(conversation=user), user) for user in USERS}
    for user in USERS:
        llm.bound(conversation=user).complete(transcript(said[user]))
        with_name = last(server)
        with llm.conversation(user):
            llm.complete(transcript(said[user]))
        assert last(server) == with_name
        assert [each["role"] for each in with_name] == ["system", "user", "assistant", "user"]
        assert with_name[0]["content"] == prompt(user).content


@pytest.mark.parametrize("conversation", ["carol", None])
def test_nobody_elses_conversation_is_told(server: ProviderServer, conversation: str | None) -> None:
    """Neither to a caller with another name, nor to one that gives none."""
    llm = llm_of(server)
    said = talk(llm.bound(conversation="alice"), "alice")
    llm.bound(conversation=conversation).complete(transcript(said))
    assert last(server) == [{"role": "user", "content": transcript(said)}]


def test_a_member_tells_what_it_was_told(server: ProviderServer) -> None:
    llm = llm_of(server)
    said = {user: talk(llm.bound(conversation="room", member=user), user) for user in USERS}
    for user in USERS:
        llm.bound(conversation="room", member=user).complete(transcript(said[user]))
        assert last(server)[0]["content"] == prompt(user).content


@ONE_SENTENCE
def test_without_a_name_only_one_conversation_can_be_meant(server: ProviderServer) -> None:
    llm = llm_of(server)
    said = talk(llm, "alice")
    llm.complete(transcript(said))
    assert last(server)[0]["content"] == prompt("alice").content
    talk(llm, "bob")
    llm.complete(transcript(said))
    assert last(server) == [{"role": "user", "content": transcript(said)}]


@ONE_SENTENCE
def test_a_conversation_that_is_no_longer_looked_through_can_be_meant_too(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retelling, "_KNOWN", 1)
    llm = llm_of(server)
    said = talk(llm, "alice")
    talk(llm, "bob")
    llm.complete(transcript(said))
    assert last(server) == [{"role": "user", "content": transcript(said)}]


def test_a_transcript_that_goes_on_otherwise_is_of_another_conversation(server: ProviderServer) -> None:
    llm = llm_of(server)
    said = [*talk(llm, "alice"), ChatMessage("And Rome?"), ChatMessage("No.", role="assistant")]
    llm.complete(transcript(said))
    assert last(server) == [{"role": "user", "content": transcript(said)}]


@pytest.mark.parametrize("named", [True, pytest.param(False, marks=ONE_SENTENCE)])
def test_two_engines_that_are_asked_alike(server: ProviderServer, named: bool) -> None:
    llm = llm_of(server)
    engines = {
        user: CondensePlusContextChatEngine.from_defaults(
            Retriever(RECORDED),
            llm=llm.bound(conversation=user) if named else llm,
            system_prompt=prompt(user).content,
            memory=ChatMemoryBuffer.from_defaults(token_limit=10**6, tokenizer_fn=words),
        )
        for user in USERS
    }
    for question in ("Do you ship to Paris?", "And to Rome?"):
        for user, other in zip(USERS, reversed(USERS), strict=True):
            before = len(server.requests)
            engines[user].chat(question)
            sent = [json.dumps(each.body) for each in server.requests[before:]]
            assert sent
            assert f"{other}-card" not in "".join(sent)
            if named and len(sent) > 1:
                assert f"{user}-card" in sent[0], "the question is condensed behind the conversation"


CALL = ToolCallBlock(tool_call_id="c1", tool_name="look", tool_kwargs={"q": "secret-argument"})
RESULT = ChatMessage("secret-result", role="tool", additional_kwargs={"tool_call_id": "c1"})


@pytest.mark.parametrize("text", ["", "Let me look."])
@pytest.mark.parametrize("told", [True, False])
def test_results_of_tools_are_sent_where_the_transcript_has_them(
    server: ProviderServer, text: str, told: bool
) -> None:
    called = ChatMessage(role="assistant", blocks=[*([TextBlock(text=text)] if text else []), CALL])
    llm = llm_of(server, conversation="one")
    first = ChatMessage("Hello. " * 40, role="user")
    greeted = [first, llm.chat([prompt("alice"), first]).message]
    asked = [*greeted, QUESTION, called, RESULT]
    answer = llm.chat([prompt("alice"), *asked]).message
    kept = [each for each in asked if told or each not in (called, RESULT)]
    shown = [each for each in [*kept, answer] if each.content]
    llm.complete(transcript(shown))
    assert ("secret" in json.dumps(last(server))) == told
    assert last(server)[0]["content"] == prompt("alice").content, "what it has in common is read"


def test_what_was_deleted_at_the_beginning_does_not_come_back(server: ProviderServer) -> None:
    llm = llm_of(server, conversation="one")
    first = ChatMessage("My number is 555-0199.", role="user")
    history = [first, llm.chat([prompt("alice"), first]).message, QUESTION]
    history.append(llm.chat([prompt("alice"), *history]).message)
    llm.complete(transcript(history[1:]))
    assert "555-0199" not in json.dumps(last(server))


def test_a_picture_that_may_be_deleted_does_not_come_back(server: ProviderServer) -> None:
    llm = llm_of(server, conversation="one")
    shown = ChatMessage(
        blocks=[TextBlock(text="See this."), ImageBlock(url="https://example.com/a.png")], role="user"
    )
    answer = llm.chat([prompt("alice"), shown]).message
    llm.complete(transcript([ChatMessage("See this."), answer]))
    assert "a.png" not in json.dumps(last(server))


def test_what_was_streamed_is_recognised_without_its_last_blank(server: ProviderServer) -> None:
    llm = llm_of(server)
    list(llm.stream_chat([prompt("alice"), QUESTION]))
    llm.complete(transcript([QUESTION, ChatMessage(ANSWER.strip(), role="assistant")]))
    assert [each["role"] for each in last(server)] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize("way", ["forget", "seam.reset", "reset"])
@pytest.mark.parametrize("conversation", ["alice", None])
def test_what_was_forgotten_is_not_told(server: ProviderServer, way: str, conversation: str | None) -> None:
    llm = llm_of(server)
    said = talk(llm.bound(conversation="alice"), "alice")
    if way == "forget":
        assert llm.seam.forget("alice")
    else:
        (llm.reset if way == "reset" else llm.seam.reset)()
    llm.bound(conversation=conversation).complete(transcript(said))
    assert last(server) == [{"role": "user", "content": transcript(said)}]


def test_observe_mode_takes_off_the_marks_and_nothing_else(server: ProviderServer) -> None:
    llm = llm_of(server, mode="observe")
    marked = ChatMessage("Be kind. It is " + dynamic_text("now", "10:00") + ".", role="system")
    llm.chat([marked, QUESTION])
    assert last(server) == [
        {"role": "system", "content": "Be kind. It is 10:00."},
        {"role": "user", "content": QUESTION.content},
    ]
