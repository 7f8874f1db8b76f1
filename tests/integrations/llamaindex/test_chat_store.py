"""What llama-index-core's chat stores do, for `BufferedChatStore` on every store."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from llama_index.core.base.llms.types import ThinkingBlock, ToolCallBlock
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.storage.chat_store import BaseChatStore
from llama_index.core.storage.chat_store.loading import load_chat_store
from tests.postgres_server import need_postgres, postgres
from tests.servers import need_redis, redis_server

from llmbuffer.errors import StoreError
from llmbuffer.store import new_key, open_store
from llmbuffer_llamaindex import BufferedChatStore


def user(text: str) -> ChatMessage:
    return ChatMessage(text, role="user")


def assistant(text: str) -> ChatMessage:
    return ChatMessage(text, role="assistant")


CALL = ChatMessage(
    role="assistant",
    blocks=[
        TextBlock(text=""),
        ThinkingBlock(content="hm", additional_information={"signature": "s"}),
        ToolCallBlock(tool_call_id="c1", tool_name="look", tool_kwargs={"q": [1, None, "é"]}),
    ],
    additional_kwargs={"stop_reason": "tool_use"},
)
RESULT = ChatMessage("found", role="tool", additional_kwargs={"tool_call_id": "c1"})
PICTURE = ChatMessage(
    blocks=[TextBlock(text="see"), ImageBlock(url="https://example.com/a.png")], role="user"
)
ALL = [
    ChatMessage("Be kind.", role="system"),
    user("Hello"),
    CALL,
    RESULT,
    assistant(""),
    PICTURE,
    user("Ünïcode 🫖"),
]


@pytest.fixture(scope="module", params=["memory", "sqlite", "sealed", "redis", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("stores")
    if request.param == "memory":
        yield "memory:"
    elif request.param in ("sqlite", "sealed"):
        yield f"sqlite:///{folder / request.param}.db"
    elif request.param == "redis":
        need_redis()
        with redis_server(folder) as server:
            yield server.url
    else:
        need_postgres()
        with postgres() as database:
            yield database.url()


@pytest.fixture
def store(url: str, request: pytest.FixtureRequest) -> Iterator[BufferedChatStore]:
    """A chat store with a namespace of its own for each test."""
    namespace = request.node.name
    made = BufferedChatStore(url=url, namespace=namespace)
    if "sealed" in url:
        made = BufferedChatStore.of(open_store(url, key=KEY), namespace=namespace)
    try:
        yield made
    finally:
        made.close()


KEY = new_key()


class TestChatStore:
    """Add, set, get, delete, last, keys."""

    def test_it_is_a_chat_store(self, store: BufferedChatStore) -> None:
        assert isinstance(store, BaseChatStore)

    def test_add_and_get(self, store: BufferedChatStore) -> None:
        for message in ALL:
            store.add_message("one", message)
        assert store.get_messages("one") == ALL
        assert store.get_messages("two") == []

    def test_add_at_a_place(self, store: BufferedChatStore) -> None:
        store.set_messages("one", [user("1"), user("3")])
        store.add_message("one", user("2"), 1)
        assert [each.content for each in store.get_messages("one")] == ["1", "2", "3"]

    def test_set_takes_the_place_of_all(self, store: BufferedChatStore) -> None:
        store.set_messages("one", ALL)
        assert store.get_messages("one") == ALL
        store.set_messages("one", [user("new")])
        assert store.get_messages("one") == [user("new")]
        store.add_message("one", assistant("more"))
        assert store.get_messages("one") == [user("new"), assistant("more")]

    def test_set_nothing_keeps_the_key(self, store: BufferedChatStore) -> None:
        store.set_messages("one", [])
        assert store.get_messages("one") == []
        assert store.get_keys() == ["one"]

    def test_delete_messages(self, store: BufferedChatStore) -> None:
        store.set_messages("one", [user("1"), assistant("2")])
        assert store.delete_messages("one") == [user("1"), assistant("2")]
        assert store.delete_messages("one") is None
        assert store.get_keys() == []

    def test_delete_one_message(self, store: BufferedChatStore) -> None:
        store.set_messages("one", [user("1"), CALL, RESULT, user("4")])
        assert store.delete_message("one", 1) == CALL
        assert store.get_messages("one") == [user("1"), RESULT, user("4")]
        assert store.delete_message("one", 3) is None
        assert store.delete_message("none", 0) is None

    def test_delete_the_last_message(self, store: BufferedChatStore) -> None:
        store.set_messages("one", [user("1"), user("2")])
        assert store.delete_last_message("one") == user("2")
        assert store.get_messages("one") == [user("1")]
        assert store.delete_last_message("none") is None

    def test_keys_are_those_of_the_namespace(self, store: BufferedChatStore) -> None:
        store.add_message("a/b", user("1"))
        store.add_message("c d ü", user("2"))
        other = BufferedChatStore.of(store.store, namespace="another")
        other.add_message("x", user("3"))
        assert sorted(store.get_keys()) == ["a/b", "c d ü"]
        other.delete_messages("x")

    def test_the_asynchronous_twins(self, store: BufferedChatStore) -> None:
        async def run() -> None:
            await store.aset_messages("one", [user("1"), assistant("2")])
            await store.async_add_message("one", user("3"))
            assert await store.aget_messages("one") == [user("1"), assistant("2"), user("3")]
            assert await store.adelete_last_message("one") == user("3")
            assert await store.adelete_message("one", 0) == user("1")
            assert await store.aget_keys() == ["one"]
            assert await store.adelete_messages("one") == [assistant("2")]
            assert await store.aget_messages("one") == []

        asyncio.run(run())

    def test_nothing_is_lost_by_writers_at_the_same_time(self, store: BufferedChatStore) -> None:
        others = [BufferedChatStore.of(store.store, namespace=store.namespace) for _ in range(3)]
        with ThreadPoolExecutor(3) as threads:
            for _ in range(4):
                list(threads.map(lambda each: each.add_message("one", user("hi")), others))
        assert len(store.get_messages("one")) == 12

    def test_what_is_deleted_is_gone(self, store: BufferedChatStore) -> None:
        store.set_messages("one", [user("my number is 555-0199"), assistant("ok")])
        store.delete_message("one", 0)
        assert [session.id for session in store.store.sessions() if session.id.startswith(store.namespace)]
        assert store.get_messages("one") == [assistant("ok")]
        values = store.store.keys()
        assert not [key for key in values if key.startswith(store.namespace)]

    def test_what_was_compacted_is_gone_with_its_messages(self, store: BufferedChatStore) -> None:
        ways: list[Callable[[BufferedChatStore], object]] = [
            lambda each: each.delete_messages("one"),
            lambda each: each.delete_message("one", 1),
            lambda each: each.delete_message("one", -3),
            lambda each: each.add_message("one", user("new"), 1),
            lambda each: each.set_messages("one", [user("new")]),
        ]
        for way in ways:
            store.set_messages("one", [user("1"), assistant("2"), user("3"), assistant("4")])
            store.set_compacted("one", [assistant("of 1 and 2")], covers=2)
            assert store.get_compacted("one") == [assistant("of 1 and 2")]
            assert store.get_keys() == ["one"]
            way(store)
            assert store.get_compacted("one") == []
            values = store.store.keys()
            assert not [key for key in values if key.startswith(store.namespace)]

    def test_what_was_compacted_stays_while_its_messages_do(self, store: BufferedChatStore) -> None:
        store.set_messages("one", [user("1"), assistant("2"), user("3"), assistant("4")])
        store.set_compacted("one", [assistant("of 1 and 2")], covers=2)
        store.add_message("one", user("5"))
        store.delete_last_message("one")
        store.delete_message("one", 2)
        store.add_message("one", user("6"), 2)
        assert store.get_compacted("one") == [assistant("of 1 and 2")]

    def test_a_key_may_end_as_it_likes(self, store: BufferedChatStore) -> None:
        """Nothing that is kept beside a conversation is taken for one, nor the other way round."""
        keys = ["one", "one#compacted", "one#rewritten", "one#compacted#compacted"]
        for key in keys:
            store.set_messages(key, [user(key)])
            store.set_compacted(key, [assistant(f"of {key}")], covers=1)
        store.delete_messages("one")
        for key in keys[1:]:
            assert store.get_messages(key) == [user(key)]
            assert store.get_compacted(key) == [assistant(f"of {key}")]
        assert sorted(store.get_keys()) == sorted(keys[1:])

    def test_a_crash_between_two_writes_loses_nothing(
        self, store: BufferedChatStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.set_messages("one", [user("1"), user("2")])

        def crash(*_: object, **__: object) -> None:
            raise StoreError("gone")

        with monkeypatch.context() as patch:
            patch.setattr(BufferedChatStore, "_new", crash)
            with pytest.raises(StoreError, match="gone"):
                store.set_messages("one", [user("new")])
        assert store.get_messages("one") == [user("new")]
        assert store.get_keys() == ["one"]
        store.add_message("one", assistant("more"))
        assert store.get_messages("one") == [user("new"), assistant("more")]

    def test_in_a_memory_of_the_framework(self, store: BufferedChatStore) -> None:
        memory = ChatMemoryBuffer.from_defaults(
            chat_store=store, chat_store_key="one", token_limit=100, tokenizer_fn=str.split
        )
        memory.put(user("Hello"))
        memory.put(CALL)
        assert memory.get_all() == [user("Hello"), CALL]
        memory.reset()
        assert memory.get() == []


def test_serialised_it_tells_its_url_or_its_conversations(tmp_path: Path) -> None:
    kept = BufferedChatStore(url=f"sqlite:///{tmp_path / 'a.db'}")
    fleeting = BufferedChatStore()
    for each in (kept, fleeting):
        each.set_messages("one", ALL)
        again = BufferedChatStore.from_json(each.to_json())
        loaded = load_chat_store(each.to_dict())
        assert again.get_messages("one") == loaded.get_messages("one") == ALL
        again.close()
        loaded.close()
    assert "conversations" not in kept.to_dict()
    kept.close()


def test_a_memory_of_the_framework_is_loaded_with_it() -> None:
    memory = ChatMemoryBuffer.from_defaults(
        chat_store=BufferedChatStore(), token_limit=100, tokenizer_fn=str.split
    )
    memory.put(user("Hello"))
    again = ChatMemoryBuffer.from_string(memory.to_string())
    assert isinstance(again.chat_store, BufferedChatStore)
    assert again.get_all() == [user("Hello")]


def test_a_copy_says_where_the_same_conversations_are(tmp_path: Path) -> None:
    kept = BufferedChatStore(url=f"sqlite:///{tmp_path / 'a.db'}")
    fleeting = BufferedChatStore()
    for each in (kept, fleeting):
        each.set_messages("one", [user("1")])
        each.set_compacted("one", [assistant("of 1")], covers=1)
        assert copy.deepcopy(each).get_messages("one") == [user("1")]
        again = pickle.loads(pickle.dumps(each))
        assert again.get_messages("one") == [user("1")]
        assert again.get_compacted("one") == [assistant("of 1")]
        again.close()
    kept.close()


def test_it_outlives_its_process(tmp_path: Path) -> None:
    first = BufferedChatStore(url=f"sqlite:///{tmp_path / 'a.db'}")
    first.set_messages("one", ALL)
    first.close()
    second = BufferedChatStore(url=f"sqlite:///{tmp_path / 'a.db'}")
    assert second.get_messages("one") == ALL
    second.close()
