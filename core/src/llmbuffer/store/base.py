"""The store: sessions that survive restarts and are shared by processes, without losing or doubling a turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..chain import Node, ancestor, walk
from ..context import StableContext
from ..errors import ConflictError, CorruptStoreError, UnknownSessionError
from ..messages import Message
from ..session import Session
from .backend import ROOT, Backend, MissingNodeError, NodeRow, SessionRow, StaleError
from .books import Books
from .envelope import Envelope, Plain
from .records import (
    SessionRecord,
    decode_context,
    decode_message,
    encode,
    encode_message,
    note_of,
    tokens_of,
)
from .sessions import Given, record_of, restored
from .transfer import Transfer
from .upkeep import Upkeep
from .values import Values

if TYPE_CHECKING:
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


class Store(Values, Upkeep, Transfer):
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
        policy: str | Callable[..., Policy[Any]] = "lru",
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(backend, envelope if envelope is not None else Plain(), clock)
        self.books = Books(backend, self.space, policy, capacity, clock)

    # Writing

    def save(self, session: Session, saved: object = None) -> Saved:
        """Write what is new in a session; what ``session.save()`` calls, with what it got from the last call.

        Raises ``ConflictError`` if another writer saved the session meanwhile; then nothing is written.
        """
        tip = session.tip
        last = saved if isinstance(saved, Saved) and saved.store is self else None
        own = last is not None and last.session_id == session.id
        revision = last.revision if last is not None and own else 0
        base = last if last is not None and _holds(tip, last.node) else None
        try:
            digest = self._write(session, base, revision + 1)
        except MissingNodeError:  # what it was forked from, or had saved, was forgotten meanwhile
            digest = self._write(session, None, revision + 1)
        return Saved(self, session.id, tip, digest, revision + 1)

    def _write(self, session: Session, base: Saved | None, revision: int) -> bytes:
        rows = self._new_rows(session, base)
        tip = rows[-1].digest if rows else base.digest if base is not None else ROOT
        context = self.context_record(session.context)
        row = SessionRow(self.envelope.name("session", session.id), tip, revision, context.key, b"")
        row = self.session_body(row, encode(record_of(session)))
        try:
            self.backend.append(self.space, rows, row, [context])
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
    ) -> Session:
        """A saved session; what ``Session.load`` calls. Work is proportional to its messages.

        Raises ``UnknownSessionError``, and ``CorruptStoreError`` if what is stored of it is damaged.
        """
        row, record, rows = self._read(session_id)
        counter = tokens.name if tokens is not None else record.counter
        said = [(decode_message(self.node_body(each)), tokens_of(each.note, counter)) for each in rows]
        given = Given(client, dialect, tokens, clock if clock is not None else self.clock, prices)
        session = restored(record, self._context_at(row.context), said, given, kind=kind, store=self)
        if record.counter != session.counter.name:  # counted by one that is not to be had here
            session = restored(
                record,
                session.context,
                [(each, None) for each, _ in said],
                given,
                kind=kind,
                store=self,
            )
        session._saved = Saved(self, record.id, session.tip, row.tip, row.revision)
        return session

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
        return decode_context(self.record_body(found))

    def context(self, fingerprint: str) -> StableContext | None:
        """A stable context by its fingerprint, if a saved session has it."""
        owner = self.envelope.name("fingerprint", fingerprint)
        found = next(self.backend.records(self.space, "context", owner), None)
        return None if found is None else decode_context(self.record_body(found))


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
