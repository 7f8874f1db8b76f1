"""What a history remembers beside its messages: originals, pins, documents, and when it was last compacted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from .compaction.documents import Document
from .messages import Message

__all__ = ["Archive", "Original"]


class Original(msgspec.Struct, frozen=True):
    """Messages that something else stands for, under the id that a marker names; ``older`` was kept before."""

    name: str
    messages: tuple[Message, ...]
    older: Original | None = None


class Archive(msgspec.Struct, frozen=True):
    """Frozen; forks share it.

    ``newest`` begins the list of originals, ``pins`` are messages that stay, ``documents`` those by key; ``compactions``
    counts the planned breaks of this history, ``removed`` the tokens that they took out of it, and below ``ask_at`` tokens
    another one need not be thought about.

    >>> archive = Archive().keeping({"ab12": (Message("user", "hi"),)})
    >>> archive.original("ab12"), archive.original("cd34")
    ((Message(role='user', parts=<1: text, 2 characters>),), None)
    """

    newest: Original | None = None
    pins: tuple[Message, ...] = ()
    documents: tuple[Document, ...] = ()
    compactions: int = 0
    ask_at: int = 0
    removed: int = 0

    def originals(self, since: Original | None = None) -> Iterator[Original]:
        """What was kept after ``since`` (default: everything), the newest first."""
        found = self.newest
        while found is not None and found is not since:
            yield found
            found = found.older

    def original(self, name: str) -> tuple[Message, ...] | None:
        """The messages under an id."""
        return next((each.messages for each in self.originals() if each.name == name), None)

    def keeping(self, kept: Mapping[str, tuple[Message, ...]]) -> Archive:
        """This archive with more originals."""
        newest = self.newest
        for name, messages in kept.items():
            newest = Original(name, messages, newest)
        return self if newest is self.newest else msgspec.structs.replace(self, newest=newest)

    def pinning(self, message: Message) -> Archive:
        """This archive with one more message that stays."""
        return msgspec.structs.replace(self, pins=(*self.pins, message))

    def pinned(self, message: Message) -> bool:
        """Whether a message has to stay."""
        return any(pin is message or pin == message for pin in self.pins)

    def documented(self, document: Document) -> Archive:
        """This archive with a document as it is now."""
        others = tuple(each for each in self.documents if each.key != document.key)
        return msgspec.structs.replace(self, documents=(*others, document))
