"""A message history of LangChain in a store of llmbuffer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage, message_to_dict, messages_from_dict

from llmbuffer import Message, Session, StableContext
from llmbuffer.errors import ConflictError, UnknownSessionError
from llmbuffer.store import open_store
from llmbuffer.tokens import EstimateCounter

if TYPE_CHECKING:
    from llmbuffer.store import Store

__all__ = ["BufferedChatMessageHistory"]

_TRIES = 8  # when other processes append at the same time
_ROLES = {"ai": "assistant", "AIMessageChunk": "assistant"}


class BufferedChatMessageHistory(BaseChatMessageHistory):
    """The messages of one conversation in a store: swap-in memory for ``RunnableWithMessageHistory``.

    ``store`` is a ``Store`` or the URL of one. The messages come back equal, ids, metadata and usage included. They are
    appended, never rewritten; two processes that append at the same time lose nothing. ``session_id`` names the
    conversation in the store.

    Raises ``StoreError`` as the store does; a failed append leaves what was there.

    >>> history = BufferedChatMessageHistory("thread-1", "memory:")
    >>> history.add_user_message("Hello")
    >>> [message.text for message in history.messages]
    ['Hello']
    """

    def __init__(self, session_id: str, store: Store | str) -> None:
        self.session_id = session_id
        self.store = open_store(store) if isinstance(store, str) else store
        self._place = f"langchain/history/{session_id}"

    @property
    def messages(self) -> list[BaseMessage]:
        """All messages, in order."""
        try:
            kept = self.store.messages(self._place)
        except UnknownSessionError:
            return []
        found: list[BaseMessage] = messages_from_dict([json.loads(each.text) for each in kept])
        return found

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Append messages, all of them or none."""
        new = [
            Message(_ROLES.get(message.type, "user"), json.dumps(message_to_dict(message)))  # type: ignore[arg-type]
            for message in messages
        ]
        if not new:
            return
        for left in reversed(range(_TRIES)):
            session = self._session()
            session.append(new)
            try:
                session.save()
            except ConflictError:
                if not left:
                    raise
            else:
                return

    def clear(self) -> None:
        """Forget the conversation; where nothing is kept, there is nothing to do."""
        with suppress(UnknownSessionError):
            self.store.forget(self._place)

    def _session(self) -> Session:
        try:
            return Session.load(self.store, self._place, tokens=EstimateCounter())
        except UnknownSessionError:
            return Session(
                StableContext("langchain"), store=self.store, session_id=self._place, tokens=EstimateCounter()
            )

    def __repr__(self) -> str:
        return f"BufferedChatMessageHistory({self.session_id!r})"
