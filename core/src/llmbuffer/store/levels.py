"""Stable contexts made of named levels: what is said to all, to a tenant, to a user, is written once and shared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from ..context import LEVELS, Level, Segment, StableContext
from ..errors import CorruptStoreError, MessageError, StoreError
from ..tools import Tool
from .base import Store
from .records import ContextRecord, decode

__all__ = ["Levels"]

_SHELF = "levels"
_KNOWN = 1_024  # texts that a store remembers the keys of


class _Named(msgspec.Struct, frozen=True, array_like=True):
    key: str
    ttl: str | None
    pinned: bool


class Levels:
    """Named texts of the levels ``global``, ``tenant``, ``user`` and ``session`` in a store.

    ``put`` names a text, ``context`` makes a ``StableContext`` of names. Contexts that share a level share its bytes in the
    prompt, as far as the levels before it are shared as well, and its row in the store: sessions are saved with a reference to
    it. A text that was named anew stays for the sessions that were saved with it. Of a store with ``tenant=``, each tenant
    has levels of its own.

    >>> from llmbuffer.store import open_store
    >>> levels = Levels(open_store("memory:"))
    >>> for level, name, text in (("global", "policy", "Be kind."), ("user", "ann", "Ann likes tea.")):
    ...     _ = levels.put(level, name, text)
    >>> context = levels.context("gpt-5.5", {"user": "ann", "global": "policy"})
    >>> [(segment.name, segment.content) for segment in context.segments]
    [('global/policy', 'Be kind.'), ('user/ann', 'Ann likes tea.')]
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def put(
        self, level: Level, name: str, text: str, *, ttl: str | None = None, pinned: bool = False
    ) -> Segment:
        """Name a text, or name another one so from now on; ``ttl`` and ``pinned`` as for ``Segment``, which it returns.

        Raises ``MessageError`` for what is no stable level, no name or no text.
        """
        segment = Segment(_full(level, name), text, level, cast(Any, ttl), pinned)
        [key] = self.store.keep_texts(_SHELF, [text])
        named = msgspec.msgpack.encode(_Named(key, ttl, pinned))
        self.store.put(f"level/{segment.name}", named, weight=0, pinned=True)
        self._known(segment.content, key)
        return segment

    def segment(self, level: Level, name: str) -> Segment:
        """What a name stands for now. Raises ``StoreError`` for a name that is not there."""
        full = _full(level, name)
        body = self.store.get(f"level/{full}")
        if body is None:
            there = ", ".join(map(repr, self.names(level))) or "none"
            raise StoreError(f"level {level!r} has no {name!r}: put it first; there is {there}")
        named = msgspec.msgpack.decode(body, type=_Named)
        text = self.store.text(named.key)
        if text is None:
            raise CorruptStoreError(f"the text of {full!r} is missing: put it again")
        self._known(text, named.key)
        return Segment(full, text, level, cast(Any, named.ttl), named.pinned)

    def names(self, level: Level) -> tuple[str, ...]:
        """The names of one level, in order."""
        start = f"level/{level}/"
        return tuple(
            sorted(key.removeprefix(start) for key in tuple(self.store.keys()) if key.startswith(start))
        )

    def context(
        self,
        model: str,
        levels: Mapping[Level, str | Iterable[str]],
        *,
        system: Iterable[Segment] = (),
        tools: Iterable[Tool | Mapping[str, Any]] = (),
        params: Mapping[str, Any] | None = None,
    ) -> StableContext:
        """A stable context of named levels: of each level a name, or several in their order; then ``system``, your own segments.

        However they are listed, levels stand in their own order, so that contexts share as much as they can.
        """
        named = [
            self.segment(level, name)
            for level, names in levels.items()
            for name in ([names] if isinstance(names, str) else names)
        ]
        return StableContext(model, [*named, *system], tools, params)

    def drop(self, level: Level, name: str) -> bool:
        """Let go of a name; whether it was there. Its text goes with ``sweep``, once no saved session refers to it."""
        return self.store.drop(f"level/{_full(level, name)}")

    def sweep(self) -> int:
        """Remove texts that neither a name nor a saved session refers to; how many went. Safe while others save."""
        store = self.store
        texts = {key for key in tuple(store.keys()) if key.startswith(f"text/{_SHELF}/")}
        unused = {key: store.text(key) for key in texts - self._referred()}
        dropped = store.drop_texts(unused)
        # Somebody may have saved a session with one of them meanwhile: what is referred to comes back.
        back = [text for key, text in unused.items() if text is not None and key in self._referred()]
        store.keep_texts(_SHELF, back)
        return dropped - len(back)

    def _referred(self) -> set[str]:
        store = self.store
        named = (store.get(key) for key in tuple(store.keys()) if key.startswith("level/"))
        used = {msgspec.msgpack.decode(body, type=_Named).key for body in named if body is not None}
        for record in store.backend.records(store.space, "context"):
            used |= {key for _, key in decode(store.record_body(record), ContextRecord).texts}
        return used

    def _known(self, text: str, key: str) -> None:
        known = cast("dict[str, str]", self.store.known_texts)
        known[text] = key
        while len(known) > _KNOWN:  # beyond it, contexts are written in full
            known.pop(next(iter(known)), None)

    def __repr__(self) -> str:
        return f"Levels({self.store!r})"


def _full(level: str, name: str) -> str:
    if level not in LEVELS[:-1]:
        raise MessageError(f"{level!r} is no stable level: use one of {', '.join(LEVELS[:-1])}")
    if not isinstance(name, str) or not name:
        raise MessageError(f"the name of a {level} text is {name!r}: give a text")
    return f"{level}/{name}"
