"""The part of ``Session`` that keeps documents and pinned messages in the history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from msgspec.structs import replace

from .compaction.documents import Document, first_version, next_version
from .errors import CompactionError, PairingError, PlacementError
from .messages import Message
from .state import attach, link

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Documenting"]


class Documenting:
    """What no compaction drops: messages that are pinned, and documents, which are told anew where they changed."""

    __slots__ = ()

    @property
    def _documented(self) -> Session:
        return cast("Session", self)

    def pin(self, *messages: Message) -> None:
        """Keep messages of the history from every compaction. Raises ``CompactionError`` for one that is not there."""
        session = self._documented
        with session._lock:
            there = session.messages
            archive = session._state.archive
            for message in messages:
                found = next((each for each in there if each == message), None)
                if found is None:
                    raise CompactionError(f"{message!r} is not in the history: append it first")
                archive = archive.pinning(found)
            session._state = replace(session._state, archive=archive)

    def document(self, key: str, text: str) -> Document:
        """Keep a text up to date in the history: told whole at first, then by what changed; once again at a compaction.

        It is never dropped. What changes at every request is no document: give it as ``dynamic``, which is not stored.
        Nothing happens if the text is what it was. Raises ``PairingError`` while calls await their results, and
        ``PlacementError`` where a turn is under way and the provider takes no text behind a tool's result.
        """
        session = self._documented
        with session._lock:
            state = session._state
            old = next((each for each in state.archive.documents if each.key == key), None)
            if old is not None and old.text == text:
                return old
            last = state.tip.message
            if (
                isinstance(last, Message)
                and last.role == "tool"
                and not session.dialect.rules.tail_after_tool
            ):
                if state.open_calls:
                    raise PairingError(f"the calls {list(state.open_calls)} await results: append them first")
                raise PlacementError(
                    f"document {key!r} has no place behind a tool's result: update it after the reply"
                )
            new = first_version(key, text) if old is None else next_version(old, text)
            told = new.told[-1]
            state = attach(state, link(state, told, session.dialect, session.counter), session.dialect)
            session._state = replace(state, archive=state.archive.documented(new))
            return new

    @property
    def documents(self) -> Mapping[str, str]:
        """The documents of this session, by key, as they are now."""
        return {each.key: each.text for each in self._documented._state.archive.documents}
