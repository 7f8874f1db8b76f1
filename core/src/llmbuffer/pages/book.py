"""A book of pages in a store: named texts that come, change and go."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..context import Level
from ..errors import CorruptStoreError, MessageError, StoreError
from ..frozen import check_text
from ..tokens import EstimateCounter, TokenCounter
from .page import Page, rendered

if TYPE_CHECKING:
    from ..store import Store
    from .selection import Selection

__all__ = ["Page", "Pages", "Synced"]

_LEASE = 30.0  # seconds that one change of a book may take before another process may begin
_PATIENCE = 60.0  # seconds to wait for others who change it
_TAGS = 2  # tokens that a system text counts beside its own: see ``layout.render_head``


class Synced(msgspec.Struct, frozen=True):
    """What a sync found, as names in order; ``skipped`` are files that are no UTF-8 text.

    >>> Synced(added=("a.py",)).changed
    ()
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    key: str
    tokens: int
    changes: int
    since: int


class _List(msgspec.Struct, frozen=True):
    """The list of a book: how often it was synced, who counted, and its pages by name."""

    syncs: int = 0
    counter: str = ""
    pages: dict[str, _Entry] = {}


class Pages:
    """A book: pages under names, kept in ``store`` under ``name``, shared by all sessions and processes of that store.

    ``counter`` (default: an estimate) counts what a page takes in a prompt. A change of the book is done by one process at a
    time and seen by others as a whole; texts that did not change are not written again. Thread-safe.

    >>> from llmbuffer.store import open_store
    >>> book = Pages(open_store("memory:"), "repo")
    >>> book.sync({"README.md": "# Teapots", "pot.py": "def pour(): ..."}).added
    ('README.md', 'pot.py')
    >>> book.select(budget=1_000).segments[0].name
    'repo/README.md'
    """

    def __init__(self, store: Store, name: str, *, counter: TokenCounter | None = None) -> None:
        if not isinstance(name, str) or not name:
            raise MessageError(f"the name of a book is {name!r}: give a text")
        self.store, self.name = store, check_text(name, "the name of a book")
        self.counter: TokenCounter = counter if counter is not None else EstimateCounter()

    # Reading

    @property
    def pages(self) -> tuple[Page, ...]:
        """All pages, by name, without their texts."""
        listed = self._counted(self._list())
        return tuple(
            Page(name, entry.key, entry.tokens, entry.changes, listed.syncs - entry.since)
            for name, entry in sorted(listed.pages.items())
        )

    def read(self, name: str) -> str:
        """The text of a page as it is now. Raises ``StoreError`` for a name that the book does not have."""
        pages = self._list().pages
        if name not in pages:
            near = get_close_matches(str(name), pages, 3)
            hint = (
                f"did you mean {', '.join(map(repr, near))}?"
                if near
                else "list the pages to see what there is"
            )
            raise StoreError(f"book {self.name!r} has no page {name!r}: {hint}")
        return self.text(pages[name].key)

    def text(self, key: str) -> str:
        """The text of a page by its key, as long as a page of the book has it."""
        found = self.store.text(key)
        if found is None:
            raise CorruptStoreError(f"book {self.name!r}: the text {key!r} is missing; sync the book again")
        return found

    def select(
        self,
        budget: int,
        *,
        pinned: Iterable[str] = (),
        prefer: Mapping[str, float] | None = None,
        level: Level = "tenant",
    ) -> Selection:
        """Pages for the prefix, at most ``budget`` tokens of them: see ``selection.select``."""
        from .selection import select

        return select(self, budget, tuple(pinned), prefer or {}, level)

    # Changing

    def put(self, name: str, text: str) -> Synced:
        """Set one page. It counts as a sync of that page alone: others did not show whether they change."""
        return self._change({_named(name): _texted(name, text)}, set())

    def drop(self, name: str) -> Synced:
        """Remove one page, if it is there."""
        return self._change({}, {name})

    def sync(
        self, source: Mapping[str, str] | Iterable[tuple[str, str]] | Path, *, pattern: str = "**/*"
    ) -> Synced:
        """Make the book hold exactly these pages: a mapping, pairs of name and text, or the text files of a folder.

        Of a folder, files that match ``pattern`` are taken, under their path in it; hidden ones are not. Pages of other names
        are removed. Each sync shows which pages change, and how often: what ``select`` orders them by.
        """
        skipped: list[str] = []
        pairs = _files(source, pattern, skipped) if isinstance(source, Path) else source
        texts = {
            _named(name): _texted(name, text)
            for name, text in (pairs.items() if isinstance(pairs, Mapping) else pairs)
        }
        synced = self._change(texts, None)
        return msgspec.structs.replace(synced, skipped=tuple(skipped))

    def _change(self, texts: Mapping[str, str], gone: set[str] | None) -> Synced:
        """Set pages, and remove those that are ``gone``: with ``None`` all others, and then a sync is counted."""
        with self._alone():
            old = self._counted(self._list())
            removed = sorted(old.pages.keys() & gone if gone is not None else old.pages.keys() - texts.keys())
            keys = self.store.keep_texts(f"pages/{self.name}", texts.values())
            whole = gone is None
            syncs = old.syncs + whole
            pages = {name: entry for name, entry in old.pages.items() if name not in removed}
            added: list[str] = []
            changed: list[str] = []
            for (name, text), key in zip(texts.items(), keys, strict=True):
                entry = pages.get(name)
                if entry is not None and entry.key == key:
                    continue
                (changed if entry is not None else added).append(name)
                tokens = self._tokens(name, text)
                # What changed in a sync of its own had one more chance to change than the whole book had.
                since = syncs if entry is None else entry.since - (not whole)
                pages[name] = _Entry(key, tokens, 0 if entry is None else entry.changes + 1, since)
            self._write(_List(syncs, self.counter.name, pages))
            left = {entry.key for entry in old.pages.values()} - {entry.key for entry in pages.values()}
            self.store.drop_texts(left)
        return Synced(tuple(sorted(added)), tuple(sorted(changed)), tuple(removed))

    def _tokens(self, name: str, text: str) -> int:
        return self.counter.count(rendered(name, text)) + _TAGS

    def _counted(self, listed: _List) -> _List:
        """The list with tokens by this counter; what another one counted is counted anew."""
        if listed.counter == self.counter.name:
            return listed
        pages = {
            name: msgspec.structs.replace(entry, tokens=self._tokens(name, self.text(entry.key)))
            for name, entry in listed.pages.items()
        }
        return msgspec.structs.replace(listed, counter=self.counter.name, pages=pages)

    def _list(self) -> _List:
        body = self.store.get(f"pages/{self.name}")
        if body is None:
            return _List(counter=self.counter.name)
        try:
            return msgspec.msgpack.decode(body, type=_List)
        except msgspec.DecodeError as error:
            raise CorruptStoreError(
                f"the list of book {self.name!r} cannot be read: {error}; sync it again"
            ) from error

    def _write(self, listed: _List) -> None:
        self.store.put(f"pages/{self.name}", msgspec.msgpack.encode(listed), weight=0, pinned=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While the block runs, no other process changes the book."""
        name, owner, since = f"pages/{self.name}", secrets.token_hex(8), time.monotonic()
        while not self.store.take(name, owner, _LEASE):
            if time.monotonic() - since > _PATIENCE:
                raise StoreError(f"book {self.name!r} is being changed by another process: try again later")
            threading.Event().wait(0.02)
        try:
            yield
        finally:
            self.store.release(name, owner)

    def __repr__(self) -> str:
        return f"Pages({self.store!r}, {self.name!r})"


def _named(name: Any) -> str:
    if not isinstance(name, str) or not name or "\n" in name:
        raise MessageError(f"the name of a page is {name!r}: give a text of one line")
    return check_text(name, "the name of a page")


def _texted(name: str, text: Any) -> str:
    if not isinstance(text, str):
        raise MessageError(f"page {name!r} is a {type(text).__name__}: give its text")
    return check_text(text, f"page {name!r}")


def _files(folder: Path, pattern: str, skipped: list[str]) -> Iterator[tuple[str, str]]:
    if not folder.is_dir():
        raise StoreError(f"{str(folder)!r} is no folder: give one that exists")
    for path in sorted(folder.glob(pattern)):
        place = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in place.parts):
            continue
        try:
            yield place.as_posix(), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            skipped.append(place.as_posix())
