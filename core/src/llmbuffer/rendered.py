"""Rendered messages, shared: every request and every fork reads the same wire objects.

A ``RenderedList`` is a value that looks like an immutable list. Behind it, lists that only grow are shared by (list,
length): whoever stands at the end of such a list appends in place, anybody else starts a list of their own behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from .frozen import FrozenDict, FrozenList
from .rules import Dialect, Place, Rendered

__all__ = ["RenderedList", "edited"]

_Chunk = tuple[list[FrozenDict], int]
_MAX_CHUNKS = 12  # forks of forks of forks: beyond this a chain of chunks is copied into one
_CLAIM = Lock()


class RenderedList:
    """The wire messages of one history: closed ones, and the last one while messages of its role may still join it.

    ``append`` returns a new value; with ``claim=False`` it never grows a shared list, for requests that may not be sent.
    """

    __slots__ = ("_blocks", "_chunks", "_closed", "role")

    def __init__(
        self,
        chunks: tuple[_Chunk, ...] = (),
        closed: int = 0,
        role: str | None = None,
        blocks: tuple[FrozenDict, ...] = (),
    ) -> None:
        self._chunks = chunks
        self._closed = closed  # wire messages in the chunks
        self.role = role  # wire role of the last message
        self._blocks = blocks  # of the open last message; empty where messages do not join

    def __len__(self) -> int:
        return self._closed + bool(self._blocks)

    def append(
        self, rendered: Rendered, dialect: Dialect, *, claim: bool = True
    ) -> tuple[RenderedList, Place]:
        """This list with one more message, and the place where that message ends."""
        if not rendered.joins:
            chunks = self._push(rendered.blocks, claim)
            closed = self._closed + len(rendered.blocks)
            content = rendered.blocks[-1].get(dialect.content_key)
            end = len(content) if isinstance(content, list) else 1
            return RenderedList(chunks, closed, rendered.role), Place(
                "messages", closed - 1, rendered.mark_at, end
            )
        if rendered.role == self.role or not rendered.blocks:
            return self._joined(rendered)
        closing = (dialect.wrap(self.role or "", self._blocks),) if self._blocks else ()
        leading = (rendered.lead,) if rendered.lead is not None else ()
        chunks = self._push(closing + leading, claim)
        closed = self._closed + len(closing) + len(leading)
        place = Place("messages", closed, rendered.mark_at, len(rendered.blocks))
        return RenderedList(chunks, closed, rendered.role, rendered.blocks), place

    def _joined(self, rendered: Rendered) -> tuple[RenderedList, Place]:
        start = len(self._blocks)
        part = start + rendered.mark_at if rendered.mark_at >= 0 else -1
        role = self.role if not rendered.blocks else rendered.role
        joined = RenderedList(self._chunks, self._closed, role, self._blocks + rendered.blocks)
        return joined, Place("messages", self._closed, part, start + len(rendered.blocks))

    def _push(self, items: tuple[FrozenDict, ...], claim: bool) -> tuple[_Chunk, ...]:
        if not items:
            return self._chunks
        if claim and self._chunks:
            shared, length = self._chunks[-1]
            with _CLAIM:
                if len(shared) == length:
                    shared.extend(items)
                    return (*self._chunks[:-1], (shared, length + len(items)))
        if len(self._chunks) >= _MAX_CHUNKS:
            flat = list(self._flat())
            return ((flat, len(flat)), (list(items), len(items)))
        return (*self._chunks, (list(items), len(items)))

    def _flat(self) -> FrozenList:
        out = FrozenList()
        self._extend(out)
        return out

    def _extend(self, out: FrozenList) -> None:
        expected = len(out)
        for shared, length in self._chunks:
            expected += length
            list.extend(out, shared if len(shared) == length else shared[:length])
            if len(out) != expected:  # another thread appended between the look at its length and the copy
                list.__delitem__(out, slice(expected, None))

    def extend(self, out: FrozenList, dialect: Dialect) -> None:
        """Put all wire messages behind ``out``, which its maker has not handed out yet."""
        self._extend(out)
        if self._blocks:
            list.append(out, dialect.wrap(self.role or "", self._blocks))


def edited(
    item: Mapping[str, Any],
    dialect: Dialect,
    *,
    marks: Sequence[tuple[int, bool]] = (),
    insert_at: int = 0,
    insert: Sequence[FrozenDict] = (),
) -> FrozenDict:
    """A wire message with marks on some of its parts and parts inserted before ``insert_at``.

    ``marks`` are pairs of a part's index, counted before the insertion, and whether its entry is kept long.
    """
    content = item.get(dialect.content_key)
    parts = [dialect.dynamic_part(content)] if isinstance(content, str) else list(content or ())
    for part, long in marks:
        parts[part] = dialect.mark_part(parts[part], long=long)
    parts[insert_at:insert_at] = insert
    return FrozenDict({**item, dialect.content_key: FrozenList(parts)})
