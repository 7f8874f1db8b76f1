"""History, cache of replies, and callback: what is kept, and what is told."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pydantic
import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables.history import RunnableWithMessageHistory
from langgraph.checkpoint.memory import InMemorySaver
from tests.integrations.langchain.lc_agents import model_at

from llmbuffer import Usage
from llmbuffer.simulate import ProviderServer, Reply
from llmbuffer.store import open_store
from llmbuffer.testing import FakeClock
from llmbuffer.testing.scripts import handbook
from llmbuffer_langchain import (
    BufferCallbackHandler,
    BufferedCache,
    BufferedChatMessageHistory,
    BufferedChatModel,
)

SAID: list[Any] = [
    SystemMessage("Be kind."),
    HumanMessage([{"type": "text", "text": "Where is 7?"}], id="h1", name="ann"),
    AIMessage(
        "Let me look.",
        id="a1",
        tool_calls=[{"id": "call_1", "name": "look_up", "args": {"number": "7"}, "type": "tool_call"}],
        usage_metadata={"input_tokens": 9, "output_tokens": 2, "total_tokens": 11},
        response_metadata={"model_name": "gpt-5.5"},
    ),
    ToolMessage("In Lyon.", tool_call_id="call_1", name="look_up", artifact={"raw": [1, 2]}),
    AIMessage("In Lyon, naïve 漢字 🫖."),
]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'kept.db'}"


def test_messages_come_back_equal_in_another_process(url: str) -> None:
    with open_store(url) as store:
        history = BufferedChatMessageHistory("one", store)
        assert history.messages == []
        for message in SAID:
            history.add_messages([message])
        BufferedChatMessageHistory("two", store).add_user_message("Hello")
        assert history.messages == SAID
    with open_store(url) as store:
        again = BufferedChatMessageHistory("one", store)
        assert again.messages == SAID
        assert asyncio.run(again.aget_messages()) == SAID
        again.clear()
        assert again.messages == []
        assert len(BufferedChatMessageHistory("two", store).messages) == 1


def test_an_empty_history_is_cleared_without_a_word(url: str) -> None:
    with open_store(url) as store:
        history = BufferedChatMessageHistory("one", store)
        history.clear()
        history.add_messages([])
        history.add_user_message("Hello")
        for _ in range(2):
            history.clear()
            assert history.messages == []
        asyncio.run(history.aclear())
        history.add_user_message("Again")
        assert [message.text for message in history.messages] == ["Again"]


def test_two_that_append_at_once_lose_nothing(url: str) -> None:
    def append(name: str) -> None:
        history = BufferedChatMessageHistory("one", store)
        for number in range(5):
            history.add_messages([HumanMessage(f"{name}{number}"), AIMessage("ok")])

    with open_store(url) as store:
        threads = [threading.Thread(target=append, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        texts = [message.text for message in BufferedChatMessageHistory("one", store).messages]
    assert sorted(text for text in texts if text != "ok") == sorted(
        f"{name}{n}" for name in "ab" for n in range(5)
    )
    assert texts[1::2] == ["ok"] * 10, "what was appended together stays together"


def test_it_is_the_memory_of_a_chain(url: str) -> None:
    with ProviderServer() as server, open_store(url) as store:
        model: Any = BufferedChatModel(model_at(server.openai_url, "openai", "gpt-5.5"))
        prompt = ChatPromptTemplate.from_messages(
            [("system", handbook(16)), MessagesPlaceholder("history"), ("human", "{text}")]
        )
        chain = RunnableWithMessageHistory(
            prompt | model,
            lambda session_id: BufferedChatMessageHistory(session_id, store),
            input_messages_key="text",
            history_messages_key="history",
        )
        for text in ("One?", "Two?", "Three?"):
            chain.invoke({"text": text}, {"configurable": {"session_id": "s"}})
        assert [message.type for message in BufferedChatMessageHistory("s", store).messages] == [
            "human",
            "ai",
        ] * 3
        assert [request.outcome for request in server.requests] == ["cold", "hit", "hit"]
        assert list(model.seam.accounts) == [("s", None)]
        assert model.seam.breaks == ()


def test_replies_are_kept_in_a_store(url: str) -> None:
    reply = [ChatGeneration(message=AIMessage("Hi", usage_metadata=SAID[2].usage_metadata))]
    with open_store(url) as store:
        store.put("mine", b"stays")
        BufferedCache(store).update("prompt", "settings", reply)
    cache = BufferedCache(url)
    assert cache.lookup("prompt", "settings") == reply
    assert cache.lookup("prompt", "other settings") is None
    cache.clear()
    assert cache.lookup("prompt", "settings") is None
    assert cache.store.get("mine") == b"stays"
    cache.store.close()


def test_replies_expire_and_what_cannot_be_read_is_not_there() -> None:
    clock = FakeClock()
    cache = BufferedCache(open_store("memory:", clock=clock), ttl=60)
    cache.update("prompt", "settings", [Generation(text="Hi")])
    (key,) = cache.store.keys()
    assert cache.lookup("prompt", "settings") == [Generation(text="Hi")]
    clock.advance(61)
    assert cache.lookup("prompt", "settings") is None
    for body in (
        b"no json",
        b"[1]",
        b'["no generation"]',
        b'[{"kind": "system", "text": "x", "info": null}]',
    ):
        cache.store.put(key, body)
        assert cache.lookup("prompt", "settings") is None


class City(pydantic.BaseModel):
    """Where a parcel is."""

    city: str


def test_a_reply_with_an_object_of_the_users_is_not_kept() -> None:
    cache = BufferedCache()
    with ProviderServer(replies=['{"city": "Lyon"}'] * 2) as server:
        model: Any = BufferedChatModel(model_at(server.openai_url, "openai", "gpt-5.5", cache=cache))
        asking = model.with_structured_output(City)
        assert asking.invoke("Where?") == asking.invoke("Where?") == City(city="Lyon")
        assert cache.store.keys() == ()
        assert model.invoke("Hello").text == model.invoke("Hello").text
        assert (len(server.requests), len(cache.store.keys())) == (3, 1)


def test_the_callback_tells_and_changes_nothing() -> None:
    def bodies(callbacks: list[Any]) -> tuple[list[Any], Usage]:
        with ProviderServer(keep_bodies=True) as server:
            agent = create_agent(
                model_at(server.anthropic_url, "anthropic", "claude-sonnet-5.5"),
                [],
                system_prompt=handbook(16),
                checkpointer=InMemorySaver(),
                name="ann",
            )
            for text in ("One?", "Two?"):
                config: Any = {"configurable": {"thread_id": "t"}, "callbacks": callbacks}
                agent.invoke({"messages": [("user", text)]}, config)
            return [request.body for request in server.requests], server.usage()

    handler = BufferCallbackHandler()
    alone, _ = bodies([])
    observed, usage = bodies([handler])
    assert observed == alone
    assert handler.usage == usage
    assert handler.account(conversation="t", member="ann").requests == 2
    assert [seam.session.dialect.name for seam in handler.seams] == ["anthropic"]


@pytest.mark.moves_prefix(reason="the system prompt changes, and it is only observed")
def test_the_callback_tells_what_broke_the_cache() -> None:
    handler = BufferCallbackHandler(conversation="one")
    with ProviderServer(replies=["One.", "Two.", Reply(status=500, message="not now")]) as server:
        model = model_at(server.openai_url, "openai", "gpt-5.5")
        for number in (1, 2):
            asked = [SystemMessage(f"It is 10:0{number}. {handbook(16)}"), HumanMessage("Hello")]
            model.invoke(asked, {"callbacks": [handler]})
        with pytest.raises(Exception, match="not now"):
            model.invoke("Hello", {"callbacks": [handler]})
    assert [each.cause for each in handler.breaks] == ["volatile-in-prefix"]
    assert handler.account().requests == 2


def test_the_callback_is_told_the_thread_of_a_direct_call_by_metadata() -> None:
    handler = BufferCallbackHandler()
    with ProviderServer() as server:
        model = model_at(server.openai_url, "openai", "gpt-5.5")
        model.invoke("Hello", {"callbacks": [handler], "configurable": {"thread_id": "1"}})
        model.invoke("Hello", {"callbacks": [handler], "metadata": {"thread_id": "2"}})
        chain = ChatPromptTemplate.from_messages([("human", "{text}")]) | model
        chain.invoke({"text": "Hello"}, {"callbacks": [handler], "configurable": {"thread_id": "3"}})
    counts = {name: handler.account(conversation=name).requests for name in "123"}
    assert counts == {"1": 0, "2": 1, "3": 1}, (
        "LangChain hands callbacks no configurable fields of a direct call"
    )
    assert handler.account().requests == 3
