"""The store: sessions that survive restarts and are shared by processes, without losing or doubling a turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple

from ..chain import Node, ancestor, walk
from ..context import StableContext
from ..errors import ConflictError, CorruptStoreError, UnknownSessionError
from ..messages import Message
from ..session import Session
from .backend import ROOT, Backend, MissingNodeError, NodeRow, Record, SessionRow, StaleError
from .books import Books
from .envelope import Envelope, Plain
from .heads import Heads
from .originals import Originals
from .records import (
    SessionRecord,
    decode_context,
    decode_message,
    encode,
    encode_message,
    note_of,
    read_plain,
    tokens_of,
)
from .replies import KeptReplies
from .rights import needs
from .rotation import Rotation
from .sessions import Given, record_of, restored
from .texts import Texts
from .transfer import Transfer
from .upkeep import Upkeep

if TYPE_CHECKING:
    from ..compaction.base import Compaction
    from ..prices import Price
    from ..rules import Dialect
    from ..tokens import TokenCounter
    from .policies import Policy

__all__ = ["Store"]


class Saved(NamedTuple):
    """What a session remembers of its last save, so that the next one writes what is new."""

    store: Store
    session_id: str
    node: Node
    digest: bytes
    revision: int
    owner: str | None = None
    original: object = None  # the newest original that was written


class Store(Heads, KeptReplies, Texts, Upkeep, Transfer, Rotation, Originals):
    """Sessions, stable contexts, values and leases in a back end: what ``open_store`` returns.

    ``capacity`` bounds the values in bytes, ``policy`` says which go; sessions are never evicted. ``clock`` gives seconds.
    Thread-safe. A context manager that closes itself.

    >>> from llmbuffer import Session, StableContext
    >>> from llmbuffer.store import open_store
    >>> with open_store("memory:") as store:
    ...     session = Session(StableContext("gpt-5.5", "You are kind."), store=store, session_id="s1")
    ...     session.append({"role": "user", "content": "Hello"})
    ...     session.save()
    ...     Session.load(store, "s1").messages == session.messages
    True
    """

    def __init__(
        self,
        backend: Backend,
        *,
        envelope: Envelope | None = None,
        capacity: int = 256 * 2**20,
        policy: str | Callable[..., Policy[Any]] = "arc",
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(backend, envelope if envelope is not None else Plain(), clock)
        self._noted, self._opened, self.known_texts = {}, {}, {}
        self.books = Books(backend, self.space, policy, capacity, clock, self.shown)

    def for_principal(self, name: str, capabilities: Iterable[str]) -> Store:
        """The same store as ``name`` may use it: ``read``, ``write``, ``fork``, ``admin``, or fewer (see ``Rights``).

        Raises ``CapabilityError`` for more than this one may do. Checked in this process: against others, only keys help.
        """
        limited = copy(self)
        limited.rights = self.rights.narrowed(name, capabilities)
        return limited

    # Writing

    @needs("write", "fork")
    def save(self, session: Session, saved: object = None, records: Sequence[Record] = ()) -> Saved:
        """Write what is new in a session; what ``session.save()`` calls, with what it got from the last call.

        ``records`` are written in the same step, where none stands under their keys: neither is there without the other.
        Raises ``ConflictError`` if another writer saved the session meanwhile; then nothing is written.
        """
        tip = session.tip
        last = saved if isinstance(saved, Saved) and self._is_with(saved.store) else None
        own = last is not None and last.session_id == session.id
        revision = last.revision if last is not None and own else 0
        owner = self._owner_of(session, last if own else None, forked=last is not None and not own)
        base = last if last is not None and _holds(tip, last.node) else None
        archive = session._state.archive
        since, inherited = (
            (last.original if own else None, last.session_id) if last is not None else (None, None)
        )
        records = [*records, *self.original_records(session.id, archive, since, inherited)]
        try:
            digest = self._write(session, base, revision + 1, records, owner)
        except MissingNodeError:  # what it was forked from, or had saved, was forgotten meanwhile
            digest = self._write(session, None, revision + 1, records, owner)
        self.note(session)
        return Saved(self, session.id, tip, digest, revision + 1, owner, archive.newest)

    def _is_with(self, other: Store) -> bool:
        """Whether it is this store, or a view of it."""
        return other.backend is self.backend and other.space == self.space

    def _owner_of(self, session: Session, last: Saved | None, *, forked: bool) -> str | None:
        """Whose the session is from now on. Raises ``CapabilityError`` if it may not be saved."""
        owner = last.owner if last is not None else self.rights.principal
        if "write" not in self.rights.granted and not (forked or (last and owner == self.rights.principal)):
            self.rights.check(
                f"saving session {session.id!r}, which {owner!r} made and which is no fork,", "write"
            )
        return owner

    def _write(
        self,
        session: Session,
        base: Saved | None,
        revision: int,
        records: Sequence[Record],
        owner: str | None,
    ) -> bytes:
        rows = self._new_rows(session, base)
        tip = rows[-1].digest if rows else base.digest if base is not None else ROOT
        context = self.context_record(session.context)
        row = SessionRow(self.envelope.name("session", session.id), tip, revision, context.key, b"")
        row = self.session_body(row, encode(record_of(session, owner)))
        try:
            self.backend.append(self.space, rows, row, [context, *self._texts_of(session.context), *records])
        except StaleError as stale:
            raise _conflict(session.id, tip, stale.found, revision - 1) from None
        return tip

    def _new_rows(self, session: Session, base: Saved | None) -> list[NodeRow]:
        depth = base.node.depth if base is not None else 0
        new = []
        for node in walk(session.tip):
            if node.depth <= depth:
                break
            new.append(node)
        at, counter = base.digest if base is not None else ROOT, session.counter.name
        rows = []
        for node in reversed(new):
            assert isinstance(node.message, Message), "a history holds messages only"
            row = self.node_row(at, encode_message(node.message), note_of(counter, node.tokens))
            rows.append(row)
            at = row.digest
        return rows

    # Reading

    @needs("read")
    def load(
        self,
        session_id: str,
        *,
        kind: type[Session] = Session,
        client: Any = None,
        dialect: str | Dialect | None = None,
        tokens: TokenCounter | None = None,
        clock: Callable[[], float] | None = None,
        prices: Mapping[str, Price] | None = None,
        compaction: Compaction | None = None,
    ) -> Session:
        """A saved session; what ``Session.load`` calls. Work is proportional to its messages.

        Raises ``UnknownSessionError``, and ``CorruptStoreError`` if what is stored of it is damaged.
        """
        row, record, rows = self._read(session_id)
        counter = tokens.name if tokens is not None else record.counter
        said = self._said(rows, counter)
        given = Given(client, dialect, tokens, clock if clock is not None else self.clock, prices, compaction)
        session = restored(record, self._context_at(row.context), said, given, kind=kind, store=self)
        if record.counter != session.counter.name:  # counted by one that is not to be had here
            session = restored(
                record,
                session.context,
                [(each, None) for each in session.messages],
                given,
                kind=kind,
                store=self,
            )
        session._saved = Saved(self, record.id, session.tip, row.tip, row.revision, record.owner)
        return session

    def _said(self, rows: Iterable[NodeRow], counter: str) -> Iterator[tuple[Message, int | None]]:
        """The messages of rows, and their tokens where this counter counted them."""

        def said(row: NodeRow) -> tuple[Message, int | None]:
            body, note = self.node_said(row)
            return decode_message(body), tokens_of(note, counter)

        return (
            map(said, rows) if self.envelope.sealed else read_plain(rows, self.envelope.unwrap, counter, said)
        )

    @needs("read")
    def messages(self, session_id: str) -> tuple[Message, ...]:
        """The messages of a saved session, oldest first, without making a session of them."""
        return tuple(decode_message(self.node_body(row)) for row in self._read(session_id)[2])

    def _read(self, session_id: str) -> tuple[SessionRow, SessionRecord, Sequence[NodeRow]]:
        found = self.backend.history(self.space, self.envelope.name("session", session_id))
        if found is None:
            raise UnknownSessionError(
                f"the store holds no session {session_id!r}: sessions() lists those that it holds; was it saved?"
            )
        row, rows = found
        record = self.session_record(row)
        if len(rows) != record.depth or (rows and rows[0].parent != ROOT):
            raise CorruptStoreError(
                f"session {session_id!r} has {record.depth} messages, of which {len(rows)} were found: the file is "
                "damaged; run verify(), and restore it from a backup"
            )
        return row, record, rows

    def _context_at(self, key: bytes) -> StableContext:
        found = self.backend.get(self.space, "context", key)
        if found is None:
            raise CorruptStoreError(f"context {key.hex()} is missing: the file is damaged; run verify()")
        return decode_context(self.record_body(found), self._text)

    @needs("read")
    def context(self, fingerprint: str) -> StableContext | None:
        """A stable context by its fingerprint, if a saved session has it."""
        owner = self.envelope.name("fingerprint", fingerprint)
        found = next(self.backend.records(self.space, "context", owner), None)
        return None if found is None else decode_context(self.record_body(found), self._text)


def _holds(tip: Node, node: Node) -> bool:
    """Whether the history has this very node: an equal one may be written in another way."""
    return node.depth <= tip.depth and ancestor(tip, node.depth) is node


def _conflict(session_id: str, ours: bytes, found: SessionRow | None, seen: int) -> ConflictError:
    if found is None:
        state = "was forgotten"
    elif seen == 0:
        state = f"is there already, with the tip {found.tip.hex()[:12]!r}"
    else:
        state = f"was moved on to {found.tip.hex()[:12]!r} by another writer"
    return ConflictError(
        f"session {session_id!r} {state}, and this one would make it {ours.hex()[:12]!r}: nothing was written; load it "
        "and append again, or save session.fork() under an id of its own",
        ours=ours.hex(),
        theirs=None if found is None else found.tip.hex(),
    )
