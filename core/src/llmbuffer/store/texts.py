"""Texts by their content: written once however many refer to them, never evicted, gone when they are dropped."""

from __future__ import annotations

from collections.abc import Iterable

from ..context import StableContext
from ..messages import content_hash
from .backend import Record
from .records import encode
from .rights import needs
from .values import Values

__all__ = ["Texts"]


class Texts(Values):
    """The part of ``Store`` that keeps texts under a digest of what they say, for pages and levels.

    They are values that are pinned and weigh nothing: content, not cache.

    >>> from llmbuffer.store import open_store
    >>> store = open_store("memory:")
    >>> keys = store.keep_texts("pages/repo", ["one", "two", "one"])
    >>> len(set(keys)), store.text(keys[1])
    (2, 'two')
    """

    @needs("write")
    def keep_texts(self, shelf: str, texts: Iterable[str]) -> list[str]:
        """Their keys, in order; all are written in one step, or none. What is there already is not written again."""
        bodies = [text.encode() for text in texts]
        keys = [f"text/{shelf}/{content_hash(body)[3:]}" for body in bodies]
        records = [self._text_record(key, body) for key, body in dict(zip(keys, bodies, strict=True)).items()]
        if records:
            self.backend.append(self.space, [], None, records)
        return keys

    def _text_record(self, key: str, body: bytes) -> Record:
        name = self.envelope.name("value", key)
        return self.wrapped(Record("value", name, encode((key, body)), pinned=True))

    def _texts_of(self, context: StableContext) -> list[Record]:
        """The texts that a context refers to, to be written with it where they are not there any more."""
        contents = {each.content for each in context.segments if each.content in self.known_texts}
        return [self._text_record(self.known_texts[each], each.encode()) for each in sorted(contents)]

    @needs("read")
    def text(self, key: str) -> str | None:
        """The text, or ``None`` if it was dropped."""
        return self._text(key)

    def _text(self, key: str) -> str | None:
        found = self.backend.get(self.space, "value", self.envelope.name("value", key))
        return None if found is None else self._value(found)[1].decode()

    @needs("write")
    def drop_texts(self, keys: Iterable[str]) -> int:
        """Remove texts that nobody refers to any more, as the caller knows; how many there were."""
        return sum(self.drop(key) for key in set(keys))
