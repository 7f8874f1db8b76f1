"""Opening a store: URLs, capacities, policies, plugins; and what is not built is refused, not ignored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmbuffer import Message, Session, StableContext
from llmbuffer.errors import StoreError
from llmbuffer.hookspecs import Register, hookimpl
from llmbuffer.plugins import plugins
from llmbuffer.store import Store, open_store
from llmbuffer.store.memory import MemoryBackend


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("", {}, "is no store"),
        ("nothing", {}, r"\['memory', .*'sqlite'"),
        (None, {}, "is no store"),
        ("mongodb://localhost", {}, "install the distribution"),
        ("memory:x", {}, "names more than memory"),
        ("sqlite:///", {}, "names no file"),
        ("sqlite://a.db", {}, "names no file"),
        ("sqlite:///a.db?mode=rwx", {}, "unknown mode 'rwx'"),
        ("memory:", {"key": bytes(32)}, "32 zero bytes"),
        ("memory:", {"tenant": ""}, "'' is no name"),
        ("memory:", {"capabilities": ["read"]}, "give principal="),
        ("memory:", {"capacity": "much"}, "'much' is no size"),
        ("memory:", {"capacity": 0}, "0 is no size"),
        ("memory:", {"capacity": True}, "True is no size"),
        ("memory:", {"capacity": "0 MiB"}, "no size"),
        ("memory:", {"capacity": "1 parsec"}, "no size"),
        ("memory:", {"policy": "fifo"}, "unknown eviction policy 'fifo'"),
    ],
)
def test_what_cannot_be_opened_is_refused_in_words(url: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(StoreError, match=words):
        open_store(url, **options)


def test_a_url_is_told_without_its_password() -> None:
    with pytest.raises(StoreError) as caught:
        open_store("mongodb://ann:secret@localhost/db?x=@")
    assert "secret" not in str(caught.value)
    assert "mongodb://…@localhost/db" in str(caught.value)


def test_a_relative_and_an_absolute_path_name_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store("sqlite:///a b.db") as one, open_store(f"sqlite:///{tmp_path}/a b.db") as two:
        one.put("k", b"v")
        assert two.get("k") == b"v"


@pytest.mark.parametrize("policy", ["arc", "lru", "lfu", "s3fifo", "cost"])
def test_every_policy_keeps_the_capacity(policy: str) -> None:
    with open_store("memory:", capacity="1 kB", policy=policy) as store:
        for number in range(100):
            store.put(f"k{number}", bytes(90), price=number)
            assert store.stats().records <= 11
        assert store.get("k99") == bytes(90)


def test_the_capacity_holds_for_all_processes_together(tmp_path: Path) -> None:
    where = f"sqlite:///{tmp_path}/a.db"
    with open_store(where, capacity=1_000) as one, open_store(where, capacity=1_000) as two:
        for number in range(30):
            (one if number % 2 else two).put(f"k{number}", bytes(90))
        assert one.stats().records <= 11
        two.drop("k29")
        assert one.get("k29") is None


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """A plugin's scheme; its URLs as they are opened."""
    urls: list[str] = []

    class Plugin:
        @hookimpl
        def register_stores(self, register: Register) -> None:
            register("mine", lambda: self.open)
            register("broken", lambda: str)

        def open(self, url: str) -> MemoryBackend:
            urls.append(url)
            return MemoryBackend()

    plugin = Plugin()
    plugins.register(plugin, distribution="my-stores")
    yield urls
    plugins.unregister(plugin)


def test_a_plugin_brings_a_scheme(opened: list[str]) -> None:
    with open_store("mine://somewhere") as store:
        assert isinstance(store, Store)
    assert opened == ["mine://somewhere"]
    with pytest.raises(StoreError, match="is no Backend"):
        open_store("broken:")


def test_a_session_without_a_store_cannot_be_saved() -> None:
    with pytest.raises(StoreError, match="has no store"):
        Session(StableContext("gpt-5.5")).save()


def test_a_session_moves_from_one_store_to_another() -> None:
    with open_store("memory:") as one, open_store("memory:") as two:
        session = Session(StableContext("gpt-5.5"), store=one, session_id="s1")
        session.append(Message("user", "a"))
        session.save()
        two.save(session, session._saved)
        assert two.messages("s1") == one.messages("s1")
