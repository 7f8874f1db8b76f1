"""Documents that a conversation keeps up to date: the first text, what changed since, and one text again in the end."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import unified_diff

import msgspec

from ..errors import MessageError
from ..messages import Message

__all__ = ["Document", "consolidated", "first_version", "next_version"]


class Document(msgspec.Struct, frozen=True):
    """A document under its key: ``text`` as it is now, and the messages of the history that tell it, oldest first."""

    key: str
    text: str
    version: int
    told: tuple[Message, ...]

    def __repr__(self) -> str:
        return f"Document(key={self.key!r}, text=<{len(self.text)}>, version={self.version})"


def first_version(key: str, text: str) -> Document:
    r"""A new document, and the message that tells it.

    >>> first_version("plan", "1. Look.").told[0].text
    '<document name="plan" version="1">\n1. Look.\n</document>'
    """
    if not isinstance(key, str) or not key or not isinstance(text, str):
        raise MessageError(f"document {key!r} is a {type(text).__name__}: give a name and a text")
    return Document(key, text, 1, (_whole(key, text, 1),))


def _whole(key: str, text: str, version: int) -> Message:
    return Message("user", f'<document name="{key}" version="{version}">\n{text}\n</document>')


def next_version(old: Document, text: str) -> Document:
    r"""The document with a new text; told as what changed, or whole where that is not longer.

    >>> print(next_version(first_version("plan", "1. Look.\n2. Ask.\n" + "3. Wait.\n" * 99), "1. Look.\n").told[1].text[:80])
    <document name="plan" version="2" replaces="all">
    1. Look.
    <BLANKLINE>
    </document>
    """
    if not isinstance(text, str):
        raise MessageError(f"document {old.key!r} is a {type(text).__name__}: give a text")
    version = old.version + 1
    lines = unified_diff(old.text.splitlines(), text.splitlines(), lineterm="", n=1)
    changed = "\n".join(list(lines)[2:])
    head = f'<document name="{old.key}" version="{version}"'
    whole = f'{head} replaces="all">\n{text}\n</document>'
    delta = f'{head} changes="{old.version}">\n{changed}\n</document>'
    told = Message("user", delta if changed and len(delta) < len(whole) else whole)
    return Document(old.key, text, version, (*old.told, told))


def consolidated(messages: Sequence[Message], document: Document) -> tuple[tuple[Message, ...], Document]:
    r"""The messages with the newest text alone, where the first one was told.

    Nothing happens where it was told once, or where a message that tells it is not there any more.

    >>> document = next_version(first_version("plan", "a"), "b")
    >>> [message.text for message in consolidated([*document.told, Message("user", "go")], document)[0]]
    ['<document name="plan" version="2">\nb\n</document>', 'go']
    """
    told = {id(message) for message in document.told}
    places = [index for index, message in enumerate(messages) if id(message) in told]
    if len(places) < 2:
        return tuple(messages), document
    whole = _whole(document.key, document.text, document.version)
    gone = set(places[1:])
    out = tuple(
        whole if index == places[0] else message
        for index, message in enumerate(messages)
        if index not in gone
    )
    return out, msgspec.structs.replace(document, told=(whole,))
