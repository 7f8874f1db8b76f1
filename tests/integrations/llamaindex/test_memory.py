"""What llama-index-core's memories do, for `BufferedMemory`, and what it does not do: cut from the front."""

from __future__ import annotations

import asyncio
import copy
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.core.memory import BaseMemoryBlock
from llama_index.core.memory.types import BaseMemory
from llama_index.core.storage.chat_store import SimpleChatStore
from llama_index.llms.openai import OpenAI
from pydantic import Field
from tests.benchmarks.adapters.llamaindex_scenarios import words

from llmbuffer.simulate import ProviderServer
from llmbuffer.testing.prefix import assert_prefix_stable
from llmbuffer_llamaindex import BufferedChatStore, BufferedLLM, BufferedMemory


def user(text: str) -> ChatMessage:
    return ChatMessage(text, role="user")


def assistant(text: str) -> ChatMessage:
    return ChatMessage(text, role="assistant")


def memory_of(**fields: Any) -> BufferedMemory:
    return BufferedMemory.from_defaults(**{"token_limit": 100, "tokenizer_fn": words, **fields})


def talk(memory: BufferedMemory, turns: int, start: int = 0) -> list[list[ChatMessage]]:
    """Turns of 20 words each; what is sent at each."""
    sent = []
    for turn in range(start, start + turns):
        memory.put(user(f"q{turn} " + "w " * 9))
        sent.append(memory.get())
        memory.put(assistant(f"a{turn} " + "t " * 9))
    return sent


def test_put_get_set_reset() -> None:
    memory = memory_of()
    assert isinstance(memory, BaseMemory)
    memory.put_messages([user("1"), assistant("2")])
    memory.put(user("3"))
    assert (
        [each.content for each in memory.get()]
        == ["1", "2", "3"]
        == [each.content for each in memory.get_all()]
    )
    memory.set([user("only")])
    assert memory.get() == [user("only")]
    memory.reset()
    assert memory.get() == memory.get_all() == []


def test_the_asynchronous_twins() -> None:
    async def run() -> None:
        memory = memory_of(chat_history=[user("0")])
        await memory.aput(assistant("1"))
        await memory.aput_messages([user("2"), assistant("3")])
        assert [each.content for each in await memory.aget()] == ["0", "1", "2", "3"]
        assert await memory.aget_all() == await memory.aget()
        await memory.aset([user("only")])
        assert await memory.aget() == [user("only")]
        await memory.areset()
        assert await memory.aget() == []

    asyncio.run(run())


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="Token limit must be set"):
        memory_of(token_limit=-1)
    with pytest.raises(ValueError, match="give a share of the limit"):
        memory_of(target=1.5)
    with pytest.raises(ValueError, match="unique names"):
        memory_of(memory_blocks=[Fact(name="a"), Fact(name="a")])
    with pytest.raises(ValueError, match="Initial token count exceeds token limit"):
        memory_of().get(initial_token_count=101)


def test_the_limit_of_an_llm_is_three_quarters_of_its_window() -> None:
    assert (
        BufferedMemory.from_defaults(llm=OpenAI("gpt-4o", api_key="k"), tokenizer_fn=words).token_limit
        == 96_000
    )


def test_over_the_limit_it_is_compacted_once_for_many_turns() -> None:
    memory = memory_of()
    sent = talk(memory, 12)
    assert len(memory.get_all()) == 24, "nothing is lost"
    assert all(sum(len(words(each.content or "")) for each in view) <= 120 for view in sent)
    moved = [now[: len(before)] != before for before, now in pairwise(sent)]
    assert 0 < sum(moved) <= 4, "a memory that cuts from the front moves in each turn"
    assert sent[-1][0].content == sent[0][0].content, "what the conversation began with stays"


def test_get_changes_nothing_and_counts_what_stands_before() -> None:
    memory = memory_of()
    talk(memory, 5)
    before = memory.to_dict()
    first = memory.get()
    assert memory.get() == first
    assert len(memory.get(initial_token_count=50)) < len(first)
    assert memory.get() == first
    assert memory.to_dict() == before


def test_one_message_over_the_limit_is_sent() -> None:
    memory = memory_of(token_limit=5)
    memory.put(user("w " * 9))
    assert memory.get() == [user("w " * 9)]


def test_calls_and_results_stay_together() -> None:
    memory = memory_of()
    for turn in range(8):
        call = ToolCallBlock(tool_call_id=f"c{turn}", tool_name="look", tool_kwargs="{}")
        result = ChatMessage("found " * 9, role="tool", additional_kwargs={"tool_call_id": f"c{turn}"})
        memory.put_messages(
            [user(f"q{turn} " + "w " * 5), ChatMessage(role="assistant", blocks=[call]), result]
        )
        calls = {
            block.tool_call_id
            for each in memory.get()
            for block in each.blocks
            if hasattr(block, "tool_name")
        }
        results = {each.additional_kwargs["tool_call_id"] for each in memory.get() if each.role == "tool"}
        assert calls == results
        memory.put(assistant("done"))


def test_with_an_llm_a_summary_stands_in_place_of_old_turns() -> None:
    memory = memory_of(llm=MockLLM(max_tokens=4))
    talk(memory, 6)
    told = [each.content or "" for each in memory.get()]
    assert [text for text in told if text.startswith("[Summary of")]
    assert memory.get() == memory.get()


def test_an_edit_of_what_was_compacted_is_followed() -> None:
    store = BufferedChatStore()
    memory = memory_of(chat_store=store)
    talk(memory, 6)
    assert len(memory.get()) < 12
    store.delete_message("chat_history", 3)
    assert all("a1 " not in (each.content or "") for each in memory.get())
    assert len(memory.get_all()) == 11


@pytest.mark.parametrize("url", ["memory:", None])
def test_what_was_compacted_goes_with_its_messages(url: str | None) -> None:
    """At once from a store of ours; from any other one with the next reply, while the memory is in use."""
    store: Any = SimpleChatStore() if url is None else BufferedChatStore(url=url)
    memory = memory_of(chat_store=store, chat_store_key="k")
    talk(memory, 6)
    assert len(memory.get()) < 12
    store.delete_messages("k")
    if url is None:
        memory.put_messages([user("new"), assistant("new")])
    assert all(not each.startswith("k#") for each in store.get_keys())
    assert "q0 " not in str(store.to_dict())


def test_a_message_that_is_deleted_while_a_summary_is_made_is_gone() -> None:
    store = BufferedChatStore()

    class Slow(MockLLM):
        def chat(self, messages: Any, **kwargs: Any) -> Any:
            asked.append(messages)
            store.delete_message("k", 1)
            return super().chat(messages, **kwargs)

    asked: list[Any] = []
    memory = memory_of(chat_store=store, chat_store_key="k", llm=Slow(max_tokens=4))
    talk(memory, 5)
    memory.put(user("w " * 20))
    memory.put(assistant("done"))
    assert asked
    assert store.get_compacted("k") == []


def test_a_copy_goes_on_by_itself() -> None:
    memory = memory_of(memory_blocks=[Fact(name="facts")], llm=MockLLM())
    memory.put(user("Hello"))
    other = copy.deepcopy(memory)
    other.put(assistant("only there"))
    assert [each.content for each in memory.get_all()] == ["Hello"]
    assert [each.content for each in other.get_all()] == ["Hello", "only there"]
    assert other.llm is memory.llm
    assert other.memory_blocks[0] is not memory.memory_blocks[0]


def test_a_copy_has_a_lock_of_its_own() -> None:
    memory = memory_of()
    other = copy.deepcopy(memory)
    with memory._lock, ThreadPoolExecutor(1) as threads:
        threads.submit(other.put, user("Hello")).result(timeout=60)
    assert other.get() == [user("Hello")]


@pytest.mark.parametrize("kind", ["simple", "kept", "fleeting"])
def test_it_is_kept_as_text(kind: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'm.db'}" if kind == "kept" else "memory:"
    store = None if kind == "simple" else BufferedChatStore(url=url)
    memory = memory_of(chat_store=store) if store else memory_of()
    talk(memory, 7)
    again = BufferedMemory.from_string(memory.to_string(), tokenizer_fn=words)
    assert again.get() == memory.get()
    assert again.get_all() == memory.get_all()
    assert (again.token_limit, again.chat_store_key) == (100, "chat_history")
    for each in (memory, again):
        if isinstance(each.chat_store, BufferedChatStore):
            each.chat_store.close()


def test_a_fork_goes_on_by_itself() -> None:
    memory = memory_of()
    talk(memory, 6)
    fork = memory.fork("fork")
    assert fork.get() == memory.get()
    fork.put(user("only there"))
    assert len(fork.get_all()) == len(memory.get_all()) + 1


class Fact(BaseMemoryBlock[str]):
    """Says another thing each time it is asked, and keeps what it is put."""

    asked: int = 0
    kept: list[ChatMessage] = Field(default_factory=list)

    async def _aget(self, messages: Any = None, **_: Any) -> str:
        self.asked += 1
        return f"fact {self.asked}"

    async def _aput(self, messages: list[ChatMessage]) -> None:
        self.kept = [*self.kept, *messages]


def test_memory_blocks_are_asked_once_a_turn_and_stand_behind_the_question() -> None:
    fact = Fact(name="facts")
    memory = memory_of(memory_blocks=[fact])
    memory.put(user("Hello"))
    first = memory.get()
    assert memory.get() == first == asyncio.run(memory.aget())
    assert fact.asked == 1
    assert first[0].blocks[0].text == "Hello"
    assert "<facts>\nfact 1\n</facts>" in first[0].blocks[1].text
    memory.put(assistant("Hi"))
    memory.put(user("And now?"))
    assert [len(each.blocks) for each in memory.get()] == [1, 1, 2]
    assert [len(each.blocks) for each in memory.get_all()] == [1, 1, 1], "nothing of it is kept"


def test_memory_blocks_are_put_what_goes() -> None:
    fact = Fact(name="facts")
    talk(memory_of(memory_blocks=[fact]), 6)
    assert [each.content[:2] for each in fact.kept[:2]] == ["a0", "q1"]


def test_through_a_buffered_llm_blocks_and_history_are_append_only() -> None:
    with ProviderServer(keep_bodies=True) as server:
        llm = BufferedLLM(OpenAI("gpt-5.5", api_base=server.openai_url, api_key="k", max_retries=0))
        engine = SimpleChatEngine.from_defaults(
            llm=llm,
            system_prompt="Be kind.",
            memory=memory_of(token_limit=10**6, memory_blocks=[Fact(name="facts")]),
        )
        for turn in range(3):
            engine.chat(f"question {turn}")
        llm._client.close()
        bodies = [request.body for request in server.requests]
    told = [body["messages"][-1]["content"] for body in bodies if body]
    assert told == [
        f'question {turn}\n\n<context name="memory: facts">\nfact {turn + 1}\n</context>' for turn in range(3)
    ]
    bare = [{**body, "messages": [*body["messages"][:-1], {"role": "user", "content": f"question {turn}"}]}
            for turn, body in enumerate(bodies) if body]  # fmt: skip
    assert_prefix_stable(bare)
    assert llm.seam.breaks == ()


@pytest.mark.moves_prefix(reason="a summary stands in place of old turns")
def test_a_summary_is_asked_for_behind_what_is_cached() -> None:
    with ProviderServer(
        keep_bodies=True, replies=lambda asked: f"Reply {asked.number}: " + "t " * 300
    ) as server:
        llm = BufferedLLM(OpenAI("gpt-5.5", api_base=server.openai_url, api_key="k", max_retries=0))
        engine = SimpleChatEngine.from_defaults(
            llm=llm, system_prompt="Be kind.", memory=memory_of(token_limit=3000, llm=llm)
        )
        for turn in range(6):
            engine.chat(f"question {turn} " + "w " * 300)
        llm._client.close()
        asked = [
            each for each in server.requests if "concise summary" in str((each.body or {})["messages"][-1])
        ]
    assert len(asked) == 1
    assert asked[0].usage.hit_ratio > 0.8
    assert asked[0].body is not None
    assert asked[0].body["messages"][0]["content"] == "Be kind."
