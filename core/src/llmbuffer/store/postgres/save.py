"""One save into a PostgreSQL store: nodes, session and records in a transaction that can be tried again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..backend import ROOT, MissingNodeError, NodeRow, Record, SessionRow, StaleError
from .link import Again
from .schema import Statements

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["Save", "new_token", "session_in", "values_of"]

_BATCH = 1_000  # nodes in one statement,
_BATCH_BYTES = 2**21  # or fewer, if they have so many bytes: the server keeps these in its memory
_TOKEN = 8  # bytes that name one save; a session remembers the last 16 of them
_REMEMBERED = 16 * _TOKEN


def new_token() -> bytes:
    """What names one save among all."""
    return os.urandom(_TOKEN)


class Save(NamedTuple):
    """What ``Backend.append`` is to write. ``token`` tells it from an equal save of another writer."""

    sql: Statements
    space: bytes
    rows: Sequence[NodeRow]
    session: SessionRow | None
    records: Sequence[Record]
    token: bytes

    def write(self, connection: Connection[Any]) -> int:
        """Write it, within a transaction that the caller began; returns how many nodes were added.

        Raises ``Again`` if another writer added the same rows meanwhile.
        """
        # Shared by all that append, and had alone by a sweep: what is found here stays until this is committed. A
        # statement of its own, since the next one sees what was committed when it began.
        connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", [self.sql.lock(self.space)])
        if self.session is None:
            added, _ = self._add_nodes(connection, ROOT)
        else:
            found = connection.execute(
                self.sql.locked, [self.space, self.session.key], binary=True
            ).fetchone()
            revision, body, writers = found if found is not None else (0, b"", b"")
            if self.token in _tokens(writers):
                self._renew(connection, self.session, body, writers)
                return 0
            if self.session.revision != revision + 1:
                raise StaleError(session_in(connection, self.sql, self.space, self.session.key))
            added, tip = self._add_nodes(connection, self.session.tip)
            self._set_session(connection, self.session, tip, writers)
        for record in self.records:
            connection.execute(self.sql.put_new, [self.space, *values_of(record)])
        return added

    def _renew(self, connection: Connection[Any], session: SessionRow, body: bytes, writers: bytes) -> None:
        """What is to be saved is in already; its body may have been sealed anew since."""
        if writers.startswith(self.token) and body != session.body:
            connection.execute(self.sql.rebody, [session.body, self.space, session.key])

    def _set_session(
        self, connection: Connection[Any], session: SessionRow, tip: int, writers: bytes
    ) -> None:
        text = self.sql.add_session if session.revision == 1 else self.sql.set_session
        kept = (self.token + writers)[:_REMEMBERED]
        values = [tip, session.revision, session.context, session.body, kept, self.space, session.key]
        if connection.execute(text, values).rowcount == 0:
            raise Again

    def _add_nodes(self, connection: Connection[Any], tip: bytes) -> tuple[int, int]:
        """Add the nodes that are not there; returns how many those are, and the id of the tip."""
        ids = self._known(connection, tip)
        new: dict[bytes, NodeRow] = {}
        for row in self.rows:
            if row.parent not in ids and row.parent not in new:
                raise MissingNodeError(f"parent {row.parent.hex()} is not stored")
            if row.digest not in ids:
                new.setdefault(row.digest, row)
        if tip not in ids and tip not in new:
            raise MissingNodeError(f"tip {tip.hex()} is not stored")
        if new:
            numbers = connection.execute(self.sql.next_ids, [len(new)]).fetchall()
            ids.update(zip(new, sorted(number for (number,) in numbers), strict=True))
        for batch in _batches(new.values()):
            self._insert(connection, batch, ids)
        return len(new), ids[tip]

    def _known(self, connection: Connection[Any], tip: bytes) -> dict[bytes, int]:
        """The ids of what is stored of all that this save names."""
        named = {tip, *(row.digest for row in self.rows), *(row.parent for row in self.rows)} - {ROOT}
        if not named:
            return {ROOT: 0}
        found = connection.execute(self.sql.ids, [self.space, list(named)], binary=True).fetchall()
        return {ROOT: 0, **dict(found)}

    def _insert(self, connection: Connection[Any], rows: Sequence[NodeRow], ids: dict[bytes, int]) -> None:
        columns = [
            [ids[row.digest] for row in rows],
            [row.digest for row in rows],
            [ids[row.parent] for row in rows],
            [row.body for row in rows],
            [row.note for row in rows],
        ]
        if connection.execute(self.sql.add_nodes, [self.space, *columns]).rowcount != len(rows):
            raise Again  # others added some of them, and only now their ids can be seen


def _batches(rows: Iterable[NodeRow]) -> Iterator[list[NodeRow]]:
    batch: list[NodeRow] = []
    size = 0
    for row in rows:
        if batch and (len(batch) == _BATCH or size + len(row.body) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += len(row.body)
    if batch:
        yield batch


def session_in(connection: Connection[Any], sql: Statements, space: bytes, key: bytes) -> SessionRow | None:
    """The row of one session."""
    found = connection.execute(sql.session, [ROOT, space, key], binary=True).fetchone()
    return None if found is None else SessionRow(*found[:5])


def values_of(record: Record) -> tuple[Any, ...]:
    """A record as the values of its columns."""
    return (*record[:6], bool(record.pinned), record.price)


def _tokens(writers: bytes) -> list[bytes]:
    return [writers[start : start + _TOKEN] for start in range(0, len(writers), _TOKEN)]
