"""LlamaIndex's chat store on any store of llmbuffer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from threading import RLock
from typing import Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr, SerializationInfo, model_serializer
from llama_index.core.llms import ChatMessage, TextBlock
from llama_index.core.storage.chat_store.base import BaseChatStore
from llama_index.core.storage.chat_store.loading import RECOGNIZED_CHAT_STORES

from llmbuffer.context import StableContext
from llmbuffer.errors import ConflictError, MessageError, UnknownSessionError
from llmbuffer.messages import Message
from llmbuffer.session import Session
from llmbuffer.store import Store, open_store
from llmbuffer.tokens import EstimateCounter

__all__ = ["BufferedChatStore"]

_OURS = "llamaindex"  # the name of messages that hold a ChatMessage as JSON
_TRIES = 16  # to write while others write the same conversation
_PLAIN = frozenset({"user", "assistant"})


class BufferedChatStore(BaseChatStore):
    """Conversations in a store of llmbuffer: memory, SQLite, Redis, PostgreSQL, sealed or not.

    ``url`` is opened with ``open_store`` when it is first needed; give ``BufferedChatStore.of(store)`` a store that is open already, with a
    key or a tenant, say. Each key is one session of the store, under ``namespace/key``. Every call reads what other processes
    wrote, and writes all it has to or nothing; adding to a conversation never loses what somebody else adds at the same time.
    What is deleted is gone from the store. Messages come back equal, with all their blocks and fields.

    Serialised, it tells its URL; a store in memory tells its conversations. It does not outlive the process otherwise.

    >>> store = BufferedChatStore(url="memory:")
    >>> store.add_message("one", ChatMessage("Hello", role="user"))
    >>> [message.content for message in store.get_messages("one")], store.get_keys()
    (['Hello'], ['one'])
    """

    url: str = Field(
        default="memory:", description="Where the conversations are: see llmbuffer.store.open_store."
    )
    namespace: str = Field(default="llamaindex", description="What the ids of its sessions begin with.")
    _store: Store | None = PrivateAttr(default=None)
    _lock: Any = PrivateAttr(default_factory=RLock)

    def __init__(self, **fields: Any) -> None:
        said, compacted = fields.pop("conversations", None), fields.pop("compacted", None)
        super().__init__(**fields)
        for key, messages in (said or {}).items():
            self.set_messages(key, [ChatMessage.model_validate(each) for each in messages])
        for key, value in (compacted or {}).items():
            self.store.put(self._id(key) + _COMPACTED, json.dumps(value).encode(), pinned=True)

    @classmethod
    def of(cls, store: Store, *, namespace: str = "llamaindex") -> BufferedChatStore:
        """A chat store on a store that is open; its serialised form holds the conversations."""
        made = cls(namespace=namespace)
        made._store = store
        return made

    @classmethod
    def class_name(cls) -> str:
        """See ``BaseComponent``."""
        return "BufferedChatStore"

    @property
    def store(self) -> Store:
        """The store itself; opened when it is first asked for. Raises ``StoreError`` if it cannot be."""
        with self._lock:
            if self._store is None:
                self._store = open_store(self.url)
            return self._store

    def close(self) -> None:
        """Close the store; the next call opens it again, where there is a URL to do so."""
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None

    @model_serializer(mode="wrap")
    def custom_model_dump(self, handler: Any, info: SerializationInfo) -> dict[str, Any]:
        """See ``BaseComponent``."""
        data: dict[str, Any] = handler(self)
        data["class_name"] = self.class_name()
        if self.url == "memory:":
            data["conversations"] = {
                key: [each.model_dump(mode="json") for each in self.get_messages(key)]
                for key in self.get_keys()
            }
            compacted = {key: self._compacted(key) for key in data["conversations"]}
            data["compacted"] = {key: value for key, value in compacted.items() if value is not None}
        return data

    def __deepcopy__(self, memo: Any = None) -> BufferedChatStore:
        """The chat store itself: it says where conversations are, and a copy would be the same place."""
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickled as it is serialised."""
        return type(self).from_dict, (self.to_dict(),)

    # What BaseChatStore asks for; its async twins call these in a thread

    def set_messages(self, key: str, messages: Sequence[ChatMessage]) -> None:
        """Put these in place of the messages of a key."""
        with self._lock:
            self._replace(key, [_message(each) for each in messages])

    def get_messages(self, key: str) -> list[ChatMessage]:
        """The messages of a key, oldest first; none where there is no such key."""
        return [_chat_message(each) for each in self._read(key) or ()]

    def add_message(self, key: str, message: ChatMessage, idx: int | None = None) -> None:
        """Add a message at the end, or in front of the one with index ``idx``."""
        self.add_messages(key, [message], idx)

    def add_messages(self, key: str, messages: Sequence[ChatMessage], idx: int | None = None) -> None:
        """Add several messages in one step."""
        new = [_message(each) for each in messages]
        with self._lock:
            if idx is None:
                self._append(key, new)
                return
            said = list(self._read(key) or ())
            same = len(said[:idx])
            said[idx:idx] = new
            self._replace(key, said, same)

    def delete_messages(self, key: str) -> list[ChatMessage] | None:
        """Delete a key; its messages, or ``None`` where there is no such key."""
        with self._lock:
            said = self._read(key)
            if said is None:
                return None
            self._forget(key)
            return [_chat_message(each) for each in said]

    def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Delete one message; ``None`` where there is none with this index."""
        with self._lock:
            said = list(self._read(key) or ())
            if not -len(said) <= idx < len(said):
                return None
            same = idx % len(said)
            gone = said.pop(idx)
            self._replace(key, said, same)
            return _chat_message(gone)

    def delete_last_message(self, key: str) -> ChatMessage | None:
        """Delete the newest message; ``None`` where there is none."""
        return self.delete_message(key, -1)

    def get_keys(self) -> list[str]:
        """All keys, those of conversations without messages included."""
        start = f"{self.namespace}/"
        rewritten = self.store.keys()
        found = [record.id for record in self.store.sessions()]
        found += [value[: -len(_REST)] for value in rewritten if value.endswith(_REST)]
        return list(dict.fromkeys(each[len(start) :] for each in found if each.startswith(start)))

    # What a BufferedMemory compacted: no conversation of its own, and gone with the messages that it stands for

    def get_compacted(self, key: str) -> list[ChatMessage]:
        """What was put for a key with ``set_compacted``; nothing once the messages that it stands for have changed."""
        found = self._compacted(key)
        return [] if found is None else [ChatMessage.model_validate(each) for each in found["messages"]]

    def set_compacted(self, key: str, messages: Sequence[ChatMessage], *, covers: int) -> None:
        """Put messages that stand for the first ``covers`` ones of a key."""
        value = {"covers": covers, "messages": [each.model_dump(mode="json") for each in messages]}
        self.store.put(self._id(key) + _COMPACTED, json.dumps(value).encode(), pinned=True)

    def drop_compacted(self, key: str, *, same: int = 0) -> None:
        """Delete what was put, unless it only stands for the first ``same`` messages."""
        found = self._compacted(key)
        if found is not None and found["covers"] > same:
            self.store.drop(self._id(key) + _COMPACTED)

    def _compacted(self, key: str) -> Any:
        found = self.store.get(self._id(key) + _COMPACTED)
        return None if found is None else json.loads(found)

    # How they lie in the store

    def _id(self, key: str) -> str:
        return f"{self.namespace}/{key}"

    def _read(self, key: str) -> Sequence[Message] | None:
        """The messages of a key. One that is being rewritten is read from where its new messages were put before."""
        try:
            return self.store.messages(self._id(key))
        except UnknownSessionError:
            rest = self.store.get(self._id(key) + _REST)
            return None if rest is None else [Message("user", each, _OURS) for each in json.loads(rest)]

    def _append(self, key: str, new: Sequence[Message]) -> None:
        self._save(key, new, self._session)

    def _session(self, key: str) -> Session:
        """The session of a key, or a new one."""
        try:
            return Session.load(self.store, self._id(key), tokens=EstimateCounter())
        except UnknownSessionError:
            session = self._new(key)
            rest = self._read(key)
            if rest:
                session.append(rest)
            return session

    def _new(self, key: str) -> Session:
        return Session(
            StableContext("llamaindex-chat-store"),
            tokens=EstimateCounter(),
            session_id=self._id(key),
            store=self.store,
        )

    def _replace(self, key: str, messages: Sequence[Message], same: int = 0) -> None:
        """Write a conversation anew. Its messages are put aside before: who reads meanwhile, or after a crash, finds them.

        The first ``same`` messages are those that were there.
        """
        self.drop_compacted(key, same=same)
        rest = [json.dumps(_chat_message(each).model_dump(mode="json")) for each in messages]
        self.store.put(self._id(key) + _REST, json.dumps(rest).encode(), pinned=True)

        def emptied(key: str) -> Session:
            self._forget_session(key)
            return self._new(key)

        self._save(key, messages, emptied)
        self.drop_compacted(key, same=same)  # made by somebody else from what was there before

    def _save(self, key: str, messages: Sequence[Message], session_of: Callable[[str], Session]) -> None:
        """Add messages to a session and save it, again from the start where somebody else wrote first."""
        for attempt in range(_TRIES):
            session = session_of(key)
            session.append(messages)
            try:
                session.save()
            except ConflictError:
                if attempt == _TRIES - 1:
                    raise
            else:
                self.store.drop(self._id(key) + _REST)
                return

    def _forget(self, key: str) -> None:
        self.drop_compacted(key)
        self.store.drop(self._id(key) + _REST)
        self._forget_session(key)
        self.drop_compacted(key)  # as in _replace

    def _forget_session(self, key: str) -> None:
        try:
            self.store.forget(self._id(key))
        except UnknownSessionError:
            return


_REST, _COMPACTED = "#rewritten", "#compacted"  # ends of the names of values beside the sessions


def _message(item: ChatMessage) -> Message:
    """A message as it lies in the store: what only has a text as it is, anything else as JSON.

    Raises ``MessageError`` for fields that JSON cannot carry.
    """
    role = item.role.value
    if role in _PLAIN and not item.additional_kwargs and len(item.blocks) == 1:
        block = item.blocks[0]
        if type(item) is ChatMessage and type(block) is TextBlock and block.text:
            return Message(role, block.text)
    try:
        return Message("user", json.dumps(item.model_dump(mode="json"), ensure_ascii=False), _OURS)
    except (TypeError, ValueError) as error:
        raise MessageError(f"a message of role {role!r} cannot be written as JSON: {error}") from None


def _chat_message(message: Message) -> ChatMessage:
    if message.name == _OURS:
        return ChatMessage.model_validate(json.loads(message.text))
    return ChatMessage(message.text, role=message.role)


# LlamaIndex's own memories load their chat store by its class name.
RECOGNIZED_CHAT_STORES.setdefault(BufferedChatStore.class_name(), BufferedChatStore)
