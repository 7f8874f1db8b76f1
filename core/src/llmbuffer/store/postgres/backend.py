"""A store in a PostgreSQL database: shared by threads, processes and machines, and as safe as the server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...errors import CorruptStoreError, StoreError
from ..backend import (
    ROOT,
    Backend,
    MissingNodeError,
    NodeRow,
    Record,
    Row,
    SessionRow,
    Size,
    StaleError,
    Swept,
    Table,
    chained,
)
from .errors import driver, explained
from .link import Address, Connections
from .save import Save, new_token, session_in, values_of
from .schema import Statements
from .upkeep import check, vacuum

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["PostgresBackend", "open_postgres"]

_FETCH = 200  # rows of a stream that are here at a time
_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
# A chain is walked by its index, one row at a time, however small a table seems to the planner.
_WALK = f"{_SNAPSHOT}; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"


class PostgresBackend:
    """Rows in one schema of a database, made at the first use. Thread-safe; a forked process opens connections of its own.

    ``url`` is what libpq takes, ``postgresql://user:password@host:port/database``, with ``?llmbuffer_schema=`` for a schema
    other than ``llmbuffer``, and ``?llmbuffer_vacuum=off`` (see ``vacuum``). Every write is one transaction and is on the disk when it returns. A lost connection is opened
    again, for about eight seconds, and so is the first one; a save whose answer was lost is neither doubled nor taken for another writer's.
    ``pause`` waits for so many seconds between attempts.

    Raises ``StoreError`` for a server, database, user or schema that is not to be had; the password is never shown.

    >>> PostgresBackend("postgresql://ann:secret@127.0.0.1:1/llm", pause=lambda seconds: None)
    Traceback (most recent call last):
    llmbuffer.store.postgres.errors.LostError: store 'postgresql://ann@127.0.0.1:1/llm': connection failed: ...
    """

    def __init__(self, url: str, *, pause: Callable[[float], None] = time.sleep) -> None:
        address = Address(url)
        self.address, self._sql = address, Statements(address.schema)
        self._connections = Connections(address, self._sql, pause)
        self._unsure: dict[tuple[bytes, bytes], tuple[SessionRow, bytes]] = {}
        self._connections.repeated(lambda connection: connection.execute("SELECT 1"))

    # Writing sessions

    def append(
        self,
        space: bytes,
        rows: Sequence[NodeRow],
        session: SessionRow | None,
        records: Sequence[Record] = (),
    ) -> int:
        """See ``Backend``. A save that was once left in doubt is recognised when it is made again."""
        token = self._token(space, session)
        save = Save(self._sql, space, rows, session, records, token)
        try:
            return self._connections.written(save.write)
        except (StaleError, MissingNodeError):
            raise
        except BaseException:  # an interrupt, too: nobody knows how far it came
            if session is not None:
                self._unsure[space, session.key] = (session, token)
            raise

    def _token(self, space: bytes, session: SessionRow | None) -> bytes:
        """What names this save; that of an equal one, if it was left in doubt before."""
        fresh = new_token()
        if session is None:
            return fresh
        before, token = self._unsure.pop((space, session.key), (None, fresh))
        same = before is not None and before._replace(body=b"") == session._replace(body=b"")
        return token if same else fresh

    # Reading sessions

    def history(self, space: bytes, key: bytes) -> tuple[SessionRow, list[NodeRow]] | None:
        """See ``Backend``. The moment is that of a snapshot: writers neither wait nor are waited for."""

        def work(connection: Connection[Any]) -> tuple[SessionRow, list[NodeRow]] | None:
            connection.execute(_WALK)
            found = connection.execute(self._sql.session, [ROOT, space, key], binary=True).fetchone()
            chain = []
            if found is not None:
                chain = connection.execute(self._sql.chain, [found[5]], binary=True).fetchall()
            connection.execute("COMMIT")
            return None if found is None else (SessionRow(*found[:5]), chained(chain))

        return self._connections.repeated(work)

    def session(self, space: bytes, key: bytes) -> SessionRow | None:
        """See ``Backend``."""
        return self._connections.repeated(lambda connection: session_in(connection, self._sql, space, key))

    def sessions(self, space: bytes) -> Iterator[SessionRow]:
        """See ``Backend``."""
        last = 0
        try:
            for found in self._stream(self._sql.sessions, [ROOT, space]):
                last = found[6]
                yield SessionRow(*found[:5])
        except CorruptStoreError:  # it may be a node that cannot be read: the sessions still can
            for key, tip, *rest in self._stream(self._sql.sessions_alone, [space, last]):
                yield SessionRow(key, self._tip(tip), *rest)

    def _tip(self, number: int) -> bytes:
        """The digest of a tip; ``b""`` where it is missing or cannot be read."""
        if number == 0:
            return ROOT
        query = self._sql.digest
        try:
            found = self._connections.repeated(
                lambda each: each.execute(query, [number], binary=True).fetchone()
            )
        except CorruptStoreError:
            return b""
        return b"" if found is None else bytes(found[0])

    def nodes(self, space: bytes) -> Iterator[NodeRow]:
        """See ``Backend``."""
        return (NodeRow(*found) for found in self._stream(self._sql.nodes, [ROOT, space]))

    def _stream(self, query: str, values: list[Any]) -> Iterator[tuple[Any, ...]]:
        """The rows of a query as of one moment, some at a time, on a connection that nobody else has meanwhile."""
        psycopg = driver()
        # What was lost while it waited is found out here; a stream that has begun cannot begin again.
        self._connections.repeated(lambda connection: connection.execute("SELECT 1"))
        process = os.getpid()
        try:
            with self._connections.borrowed() as connection:
                try:
                    connection.execute(_SNAPSHOT)
                    connection.execute(f"DECLARE stream NO SCROLL CURSOR FOR {query}", values)
                    while rows := connection.execute(f"FETCH {_FETCH} FROM stream", binary=True).fetchall():
                        yield from rows
                finally:
                    if process == os.getpid():
                        with suppress(psycopg.Error):
                            connection.execute("ROLLBACK")
        except psycopg.Error as error:
            raise explained(self.address.shown, error) from None

    # Records

    def put(self, space: bytes, record: Record) -> None:
        """See ``Backend``."""
        values = [space, *values_of(record)]
        self._connections.written(lambda connection: connection.execute(self._sql.put, values).rowcount)

    def claim(self, space: bytes, record: Record, now: float) -> Record:
        """See ``Backend``."""

        def work(connection: Connection[Any]) -> Record:
            if connection.execute(self._sql.claim, [space, *values_of(record), now]).rowcount:
                return record
            found = self._get(connection, space, record.kind, record.key)
            assert found is not None, "it was set, or another one stands there and is locked"
            return found

        return self._connections.written(work, lambda found: found[-1])

    def get(self, space: bytes, kind: str, key: bytes) -> Record | None:
        """See ``Backend``."""
        return self._connections.repeated(lambda connection: self._get(connection, space, kind, key))

    def _get(self, connection: Connection[Any], space: bytes, kind: str, key: bytes) -> Record | None:
        query = f"{self._sql.records} AND kind = %s AND key = %b"
        found = connection.execute(query, [space, kind, key], binary=True).fetchone()
        return None if found is None else Record(*found)

    def drop(self, space: bytes, kind: str, key: bytes, owner: bytes | None = None) -> bool:
        """See ``Backend``."""
        query, values = self._sql.drop, [space, kind, key]
        if owner is not None:
            query, values = f"{query} AND owner = %b", [*values, owner]
        return self._connections.written(lambda connection: connection.execute(query, values).rowcount > 0)

    def records(self, space: bytes, kind: str | None = None, owner: bytes | None = None) -> Iterator[Record]:
        """See ``Backend``."""
        query = self._sql.records
        values: list[Any] = [space]
        for field, value in (("kind", kind), ("owner", owner)):
            if value is not None:
                query, values = f"{query} AND {field} = %s", [*values, value]
        return (Record(*found) for found in self._stream(f"{query} ORDER BY id", values))

    def weights(self, space: bytes, kind: str) -> Iterator[Record]:
        """See ``Backend``. They come all at once: a round trip, and some hundred bytes a record."""
        query, values = self._sql.weights, [space, kind]
        found = self._connections.repeated(lambda each: each.execute(query, values, binary=True).fetchall())
        return (Record(*each) for each in found)

    # A change of keys

    def page(self, space: bytes, table: Table, after: bytes, count: int) -> tuple[list[Row], bytes]:
        """See ``Reseals``."""
        query, kind = self._sql.pages[table], _KINDS[table]
        values = {"root": ROOT, "space": space, "after": int.from_bytes(after, "big"), "count": count}
        found = self._connections.repeated(lambda each: each.execute(query, values, binary=True).fetchall())
        more = found[-1][0].to_bytes(8, "big") if len(found) == count else b""
        return [kind(*each[1:]) for each in found], more

    def replace(self, space: bytes, rows: Sequence[tuple[Row, bytes]]) -> int:
        """See ``Reseals``."""

        def work(connection: Connection[Any]) -> int:
            done = 0
            for row, body in rows:
                table, place = _place(row)
                values = [body, space, *place, row.body]
                done += connection.execute(self._sql.rebodies[table], values).rowcount
            return done

        return self._connections.written(work)

    # Upkeep

    def forget(self, space: bytes, key: bytes) -> bool:
        """See ``Backend``."""

        def work(connection: Connection[Any]) -> bool:
            connection.execute(self._sql.forget_originals, [space, key])
            return connection.execute(self._sql.forget, [space, key]).rowcount > 0

        return self._connections.written(work)

    def sweep(self, space: bytes, now: float) -> Swept:
        """See ``Backend``. It waits until appends to the space that have begun are done, and later ones wait for it."""

        def work(connection: Connection[Any]) -> Swept:
            # A statement of its own, so that the next one sees what was committed until the lock was had.
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [self._sql.lock(space)])
            nodes = connection.execute(self._sql.sweep_nodes, {"space": space}).rowcount
            expired = connection.execute(self._sql.sweep_expired, [space, now]).rowcount
            contexts = connection.execute(self._sql.sweep_contexts, {"space": space}).rowcount
            return Swept(nodes, expired + contexts)

        return self._connections.written(work)

    def vacuum(self) -> bool:
        """Write the tables anew without what was removed, and give the old files back to the operating system.

        That is ``VACUUM FULL``: readers and writers of a table wait while it is copied, and it needs room for the copy and
        the owner's right (or that of the database's owner). ``False`` if somebody held a table for longer than two
        seconds, an open snapshot still sees removed rows, or the right is missing. What was removed may also stand in the
        write-ahead log until its files are used again, and in archives, replicas and backups: their keeper decides.
        ``?llmbuffer_vacuum=off`` leaves all of it to the keeper of the database: then this does nothing and is ``False``.
        """
        if not self.address.vacuums:
            return False
        return self._connections.repeated(lambda connection: vacuum(connection, self._sql))

    def size(self, space: bytes) -> Size:
        """See ``Backend``. The bytes on disk are those of all spaces of the schema."""
        values = {"space": space}
        found = self._connections.repeated(lambda each: each.execute(self._sql.size, values).fetchone())
        return Size(*found) if found is not None else Size(0, 0, 0, 0, 0, 0)

    def check(self) -> list[str]:
        """See ``Backend``. Indexes are walked where the extension ``amcheck`` is there and this user may use it."""
        try:
            return self._connections.repeated(lambda connection: check(connection, self._sql.schema))
        except StoreError as error:
            return [str(error)]

    def close(self) -> None:
        """See ``Backend``."""
        self._connections.close()

    def __repr__(self) -> str:
        return f"PostgresBackend({self.address!r})"


_KINDS: dict[Table, Any] = {"nodes": NodeRow, "sessions": SessionRow, "records": Record}


def _place(row: Row) -> tuple[Table, tuple[Any, ...]]:
    if isinstance(row, Record):
        return "records", (row.kind, row.key)
    return ("nodes", (row.digest,)) if isinstance(row, NodeRow) else ("sessions", (row.key,))


def open_postgres(url: str) -> Backend:
    """The back end for ``postgresql://user:password@host:port/database``, with ``?llmbuffer_schema=`` for a schema of its own.

    >>> open_postgres("postgresql://db/llm?llmbuffer_schema=no-name")
    Traceback (most recent call last):
    llmbuffer.errors.StoreError: llmbuffer_schema='no-name' is no name for a schema: ...
    """
    return PostgresBackend(url)
