"""A store in one SQLite file: shared by threads and processes, and safe against crashes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock, get_ident
from threading import enumerate as living
from typing import Any, cast

from ..errors import CorruptStoreError, StoreError
from .backend import (
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
from .sqlite_file import DAMAGED_NAMES, Mode, connect, explained, prepare
from .sqlite_forks import watch
from .sqlite_pages import new_body, page_query, rows_of

__all__ = ["SqliteBackend", "open_sqlite"]

_NODE_ID = "SELECT id FROM nodes WHERE space = ? AND digest = ?"
_SESSION = """SELECT s.key, coalesce(n.digest, iif(s.tip = 0, ?, x'')), s.revision, s.context, s.body, s.tip
    FROM sessions s LEFT JOIN nodes n ON n.id = s.tip WHERE s.space = ?"""
_CHAIN = """WITH RECURSIVE chain (id, parent, digest, body, note) AS (
        SELECT id, parent, digest, body, note FROM nodes WHERE id = ?
        UNION ALL
        SELECT n.id, n.parent, n.digest, n.body, n.note FROM chain c JOIN nodes n ON n.id = c.parent
        WHERE c.parent < c.id)
    SELECT digest, body, note, parent FROM chain"""
# A plus keeps SQLite from an index and a sort: what stands before the damage in a file is then read before it is met.
_NODES = """SELECT n.digest, coalesce(p.digest, iif(n.parent = 0, ?, x'')), n.body, n.note
    FROM nodes n LEFT JOIN nodes p ON p.id = n.parent AND p.id < n.id WHERE +n.space = ? ORDER BY n.id"""
_SESSIONS = "SELECT key, tip, revision, context, body FROM sessions WHERE +space = ? ORDER BY id"
_RECORD = "SELECT kind, key, body, owner, expires, weight, pinned, price FROM records WHERE space = ?"
_WEIGHTS = """SELECT kind, key, x'', owner, expires, weight, pinned, price FROM records
    WHERE space = ? AND kind = ? ORDER BY id"""
_INSERT = """INSERT INTO records (space, kind, key, body, owner, expires, weight, pinned, price)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (space, kind, key) DO """
_PUT_NEW = _INSERT + "NOTHING"
_PUT = f"""{_INSERT} UPDATE SET body = excluded.body, owner = excluded.owner,
    expires = excluded.expires, weight = excluded.weight, pinned = excluded.pinned, price = excluded.price"""
_FREE = " WHERE records.owner = excluded.owner OR records.expires <= ?"
_DEAD_NODES = """DELETE FROM nodes WHERE space = ? AND id NOT IN (
    WITH RECURSIVE live (id) AS (SELECT tip FROM sessions WHERE space = ?
        UNION SELECT n.parent FROM live JOIN nodes n ON n.id = live.id)
    SELECT id FROM live)"""
_DEAD_RECORDS = """DELETE FROM records WHERE space = ? AND ((expires <= ? AND pinned = 0) OR
    (kind = 'context' AND key NOT IN (SELECT context FROM sessions WHERE space = ?)))"""


class SqliteBackend:
    """Rows in one file in WAL mode, with a connection for each thread. A forked process opens its own.

    Every write is one transaction and is on the disk when it returns. ``mode`` is ``rw``, ``ro``, or ``salvage``: read what
    is left of a damaged file.
    """

    def __init__(self, path: Path, mode: Mode = "rw") -> None:
        self.path, self.mode = path.resolve(), mode  # also after a change of the working directory
        self._lock = RLock()
        self._open: dict[int, sqlite3.Connection] = {}
        self._closed = False
        watch(self)
        self.connection()

    def connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        found = self._open.get(get_ident())
        return found if found is not None else self._connect()

    def connections(self) -> int:
        """See ``HasConnections``."""
        return len(self._open)

    def release(self) -> list[sqlite3.Connection]:
        """See ``HasConnections``."""
        self._lock = RLock()  # another thread may have held it when the process was forked
        released, self._open = list(self._open.values()), {}
        return released

    def _connect(self) -> sqlite3.Connection:
        with self._lock:
            if self._closed:
                raise StoreError(f"store {str(self.path)!r} is closed: open it again")
            threads = {thread.ident for thread in living()}
            for ended in self._open.keys() - threads:
                self._open.pop(ended).close()
            connection = connect(self.path, self.mode)
            try:
                prepare(connection, self.path, self.mode)
            except BaseException:
                connection.close()
                raise
            self._open[get_ident()] = connection
            return connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        connection = self.connection()
        with explained(self.path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                raise

    def _rows(self, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        with explained(self.path):
            yield from self.connection().execute(query, values)

    def _one(self, query: str, *values: Any) -> Any:
        try:
            return self.connection().execute(query, values).fetchone()
        except (sqlite3.Error, *DAMAGED_NAMES):
            with explained(self.path):
                raise

    def append(
        self,
        space: bytes,
        rows: Sequence[NodeRow],
        session: SessionRow | None,
        records: Sequence[Record] = (),
    ) -> int:
        """See ``Backend``."""
        with self._writing() as connection:
            if session is not None:
                found = self.session(space, session.key)
                if session.revision != (found.revision if found is not None else 0) + 1:
                    raise StaleError(found)
            ids: dict[bytes, int] = {ROOT: 0}
            added = sum(_insert(connection, space, row, ids) for row in rows)
            if session is not None:
                tip = _id_of(connection, space, session.tip, ids)
                connection.execute(
                    """INSERT INTO sessions (space, key, tip, revision, context, body) VALUES (?, ?, ?, ?, ?, ?)
                    ON CONFLICT (space, key) DO UPDATE SET tip = excluded.tip, revision = excluded.revision,
                    context = excluded.context, body = excluded.body""",
                    (space, session.key, tip, session.revision, session.context, session.body),
                )
            connection.executemany(_PUT_NEW, [(space, *record) for record in records])
            return added

    def history(self, space: bytes, key: bytes) -> tuple[SessionRow, list[NodeRow]] | None:
        """See ``Backend``."""
        connection = self.connection()
        with explained(self.path):
            connection.execute("BEGIN")
            try:
                found = connection.execute(f"{_SESSION} AND s.key = ?", (ROOT, space, key)).fetchone()
                if found is None:
                    return None
                return SessionRow(*found[:5]), chained(connection.execute(_CHAIN, (found[5],)).fetchall())
            finally:
                with suppress(
                    sqlite3.Error
                ):  # nothing was written; a damaged file is told about by what was read
                    connection.execute("ROLLBACK")

    def session(self, space: bytes, key: bytes) -> SessionRow | None:
        """See ``Backend``."""
        found = self._one(f"{_SESSION} AND s.key = ?", ROOT, space, key)
        return None if found is None else SessionRow(*found[:5])

    def sessions(self, space: bytes) -> Iterator[SessionRow]:
        """See ``Backend``."""
        for key, tip, *rest in self._rows(_SESSIONS, space):
            yield SessionRow(key, self._tip(tip), *rest)

    def _tip(self, number: int) -> bytes:
        """The digest of a tip; ``b""`` where it is missing or cannot be read, so that other sessions still can."""
        if number == 0:
            return ROOT
        try:
            found = self._one("SELECT digest FROM nodes WHERE id = ?", number)
        except CorruptStoreError:
            return b""
        return b"" if found is None else bytes(found[0])

    def nodes(self, space: bytes) -> Iterator[NodeRow]:
        """See ``Backend``."""
        return (NodeRow(*found) for found in self._rows(_NODES, ROOT, space))

    def put(self, space: bytes, record: Record) -> None:
        """See ``Backend``."""
        with self._writing() as connection:
            connection.execute(_PUT, (space, *record))

    def claim(self, space: bytes, record: Record, now: float) -> Record:
        """See ``Backend``."""
        with self._writing() as connection:
            connection.execute(_PUT + _FREE, (space, *record, now))
            found = self.get(space, record.kind, record.key)
            assert found is not None, "it was set, or another one stood there"
            return found

    def get(self, space: bytes, kind: str, key: bytes) -> Record | None:
        """See ``Backend``."""
        found = self._one(f"{_RECORD} AND kind = ? AND key = ?", space, kind, key)
        return None if found is None else Record(*found)

    def drop(self, space: bytes, kind: str, key: bytes, owner: bytes | None = None) -> bool:
        """See ``Backend``."""
        with self._writing() as connection:
            query = "DELETE FROM records WHERE space = ? AND kind = ? AND key = ?"
            values: tuple[Any, ...] = (space, kind, key)
            if owner is not None:
                query, values = f"{query} AND owner = ?", (*values, owner)
            return connection.execute(query, values).rowcount > 0

    def records(self, space: bytes, kind: str | None = None, owner: bytes | None = None) -> Iterator[Record]:
        """See ``Backend``."""
        query, values = _RECORD, [cast(Any, space)]
        for field, value in (("kind", kind), ("owner", owner)):
            if value is not None:
                query, values = f"{query} AND {field} = ?", [*values, value]
        return (Record(*found) for found in self._rows(f"{query} ORDER BY id", *values))

    def weights(self, space: bytes, kind: str) -> Iterator[Record]:
        """See ``Backend``."""
        return (Record(*found) for found in self._rows(_WEIGHTS, space, kind))

    def forget(self, space: bytes, key: bytes) -> bool:
        """See ``Backend``."""
        with self._writing() as connection:
            connection.execute(
                "DELETE FROM records WHERE space = ? AND kind = 'original' AND owner = ?", (space, key)
            )
            query = "DELETE FROM sessions WHERE space = ? AND key = ?"
            return connection.execute(query, (space, key)).rowcount > 0

    def sweep(self, space: bytes, now: float) -> Swept:
        """See ``Backend``."""
        with self._writing() as connection:
            nodes = connection.execute(_DEAD_NODES, (space, space)).rowcount
            return Swept(nodes, connection.execute(_DEAD_RECORDS, (space, now, space)).rowcount)

    def page(self, space: bytes, table: Table, after: bytes, count: int) -> tuple[list[Row], bytes]:
        """See ``Reseals``."""
        found = self._rows(page_query(table), ROOT, space, int.from_bytes(after, "big"), count)
        return rows_of(table, list(found), count)

    def replace(self, space: bytes, rows: Sequence[tuple[Row, bytes]]) -> int:
        """See ``Reseals``."""
        with self._writing() as connection:
            return sum(connection.execute(*new_body(space, row, body)).rowcount for row, body in rows)

    def vacuum(self) -> bool:
        """See ``Backend``. Old pages leave the log, too, unless another process is reading them."""
        with explained(self.path):
            connection = self.connection()
            try:
                connection.execute("VACUUM")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                return False
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            return not busy

    def size(self, space: bytes) -> Size:
        """See ``Backend``."""
        query = """SELECT (SELECT count(*) FROM nodes WHERE space = ?),
            (SELECT coalesce(sum(length(body)), 0) FROM nodes WHERE space = ?),
            (SELECT count(*) FROM sessions WHERE space = ?), (SELECT count(*) FROM records WHERE space = ?),
            (SELECT coalesce(sum(length(body)), 0) FROM records WHERE space = ?)"""
        nodes, node_bytes, sessions, records, record_bytes = self._one(query, *[space] * 5)
        files = (self.path, self.path.with_name(f"{self.path.name}-wal"))
        file_bytes = sum(file.stat().st_size for file in files if file.exists())
        return Size(nodes, node_bytes, sessions, records, record_bytes, file_bytes)

    def check(self) -> list[str]:
        """See ``Backend``."""
        try:
            found = [row[0] for row in self._rows("PRAGMA integrity_check")]
            size = self._one("PRAGMA page_size")[0]
        except StoreError as error:
            return [str(error)]
        there = self.path.stat().st_size
        if there % size:
            found.append(f"the file has {there:,} bytes, no multiple of {size:,}: it was cut off")
        return [line for line in found if line != "ok"]

    def close(self) -> None:
        """See ``Backend``."""
        with self._lock:
            self._closed = True
            while self._open:
                self._open.popitem()[1].close()


def _insert(connection: sqlite3.Connection, space: bytes, row: NodeRow, ids: dict[bytes, int]) -> int:
    """Add a node unless it is there; ``ids`` learns its id."""
    parent = _id_of(connection, space, row.parent, ids)
    done = connection.execute(
        """INSERT INTO nodes (space, digest, parent, body, note) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT (space, digest) DO NOTHING""",
        (space, row.digest, parent, row.body, row.note),
    )
    if done.rowcount == 1 and done.lastrowid is not None:
        ids[row.digest] = done.lastrowid
        return 1
    return 0


def _id_of(connection: sqlite3.Connection, space: bytes, digest: bytes, ids: dict[bytes, int]) -> int:
    if digest not in ids:
        found = connection.execute(_NODE_ID, (space, digest)).fetchone()
        if found is None:
            raise MissingNodeError(f"node {digest.hex()} is not stored")
        ids[digest] = found[0]
    return ids[digest]


def open_sqlite(url: str) -> Backend:
    """The back end for ``sqlite:///path``, ``sqlite:////absolute/path``, and either with ``?mode=ro`` or ``salvage``."""
    path, _, mode = url.removeprefix("sqlite:///").partition("?mode=")
    if not url.startswith("sqlite:///") or not path:
        raise StoreError(
            f"{url!r} names no file: give 'sqlite:///sessions.db', or four slashes and an absolute path"
        )
    if mode not in ("", "ro", "rw", "salvage"):
        raise StoreError(f"{url!r}: unknown mode {mode!r}; use ro, rw or salvage")
    return SqliteBackend(Path(path), cast(Mode, mode or "rw"))
