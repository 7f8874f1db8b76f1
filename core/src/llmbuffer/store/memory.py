"""A store in the memory of this process: for tests, and for sessions that need not outlive it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import RLock
from typing import Any

from ..errors import StoreError
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
)

__all__ = ["MemoryBackend", "open_memory"]


class _Space:
    """The rows of one tenant; nodes in the order in which they came, so parents before children."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, NodeRow] = {}
        self.sessions: dict[bytes, SessionRow] = {}
        self.records: dict[tuple[str, bytes], Record] = {}


class MemoryBackend:
    """Rows in dictionaries behind one lock. Thread-safe; gone when the process ends.

    >>> backend = MemoryBackend()
    >>> backend.put(b"", Record("value", b"key", b"body"))
    >>> backend.get(b"", "value", b"key").body
    b'body'
    """

    def __init__(self) -> None:
        self._spaces: dict[bytes, _Space] = {}
        self._lock = RLock()

    def _in(self, space: bytes) -> _Space:
        return self._spaces.setdefault(space, _Space())

    def append(
        self,
        space: bytes,
        rows: Sequence[NodeRow],
        session: SessionRow | None,
        records: Sequence[Record] = (),
    ) -> int:
        """See ``Backend``."""
        with self._lock:
            here = self._in(space)
            if session is not None:
                found = here.sessions.get(session.key)
                if session.revision != (found.revision if found is not None else 0) + 1:
                    raise StaleError(found)
            new: dict[bytes, NodeRow] = {}
            for row in rows:
                if row.parent != ROOT and row.parent not in here.nodes and row.parent not in new:
                    raise MissingNodeError(f"parent {row.parent.hex()} is not stored")
                if row.digest not in here.nodes:
                    new[row.digest] = row
            if session is not None:
                if session.tip != ROOT and session.tip not in here.nodes and session.tip not in new:
                    raise MissingNodeError(f"tip {session.tip.hex()} is not stored")
                here.sessions[session.key] = session
            for record in records:
                here.records.setdefault((record.kind, record.key), record)
            here.nodes.update(new)
            return len(new)

    def history(self, space: bytes, key: bytes) -> tuple[SessionRow, list[NodeRow]] | None:
        """See ``Backend``."""
        with self._lock:
            here = self._in(space)
            session = here.sessions.get(key)
            if session is None:
                return None
            rows: list[NodeRow] = []
            at = session.tip
            while (row := here.nodes.get(at)) is not None:
                rows.append(row)
                at = row.parent
            rows.reverse()
            return session, rows

    def session(self, space: bytes, key: bytes) -> SessionRow | None:
        """See ``Backend``."""
        return self._in(space).sessions.get(key)

    def sessions(self, space: bytes) -> Iterator[SessionRow]:
        """See ``Backend``."""
        with self._lock:
            return iter(list(self._in(space).sessions.values()))

    def nodes(self, space: bytes) -> Iterator[NodeRow]:
        """See ``Backend``."""
        with self._lock:
            stored = self._in(space).nodes
            return iter([_with_parent(row, stored) for row in stored.values()])

    def put(self, space: bytes, record: Record) -> None:
        """See ``Backend``."""
        with self._lock:
            self._in(space).records[record.kind, record.key] = record

    def claim(self, space: bytes, record: Record, now: float) -> Record:
        """See ``Backend``."""
        with self._lock:
            records = self._in(space).records
            found = records.get((record.kind, record.key))
            if found is not None and found.owner != record.owner and not _expired(found, now):
                return found
            records[record.kind, record.key] = record
            return record

    def get(self, space: bytes, kind: str, key: bytes) -> Record | None:
        """See ``Backend``."""
        return self._in(space).records.get((kind, key))

    def drop(self, space: bytes, kind: str, key: bytes, owner: bytes | None = None) -> bool:
        """See ``Backend``."""
        with self._lock:
            records = self._in(space).records
            found = records.get((kind, key))
            if found is None or (owner is not None and found.owner != owner):
                return False
            del records[kind, key]
            return True

    def records(self, space: bytes, kind: str | None = None, owner: bytes | None = None) -> Iterator[Record]:
        """See ``Backend``."""
        with self._lock:
            found = list(self._in(space).records.values())
        return (
            record
            for record in found
            if (kind is None or record.kind == kind) and (owner is None or record.owner == owner)
        )

    def weights(self, space: bytes, kind: str) -> Iterator[Record]:
        """See ``Backend``."""
        return (record._replace(body=b"") for record in self.records(space, kind))

    def forget(self, space: bytes, key: bytes) -> bool:
        """See ``Backend``."""
        with self._lock:
            here = self._in(space)
            for place, record in list(here.records.items()):
                if record.kind == "original" and record.owner == key:
                    del here.records[place]
            return here.sessions.pop(key, None) is not None

    def sweep(self, space: bytes, now: float) -> Swept:
        """See ``Backend``."""
        with self._lock:
            here = self._in(space)
            live: set[bytes] = set()
            for session in here.sessions.values():
                at = session.tip
                while at in here.nodes and at not in live:
                    live.add(at)
                    at = here.nodes[at].parent
            contexts = {session.context for session in here.sessions.values()}
            dead = [
                place
                for place, record in here.records.items()
                if _expired(record, now) or (record.kind == "context" and record.key not in contexts)
            ]
            swept = Swept(len(here.nodes) - len(live), len(dead))
            here.nodes = {digest: row for digest, row in here.nodes.items() if digest in live}
            for place in dead:
                del here.records[place]
            return swept

    def page(self, space: bytes, table: Table, after: bytes, count: int) -> tuple[list[Row], bytes]:
        """See ``Reseals``."""
        with self._lock:
            rows = _named(self._in(space), table)
            names = sorted(name for name in rows if name > after)[:count]
            return [rows[name] for name in names], names[-1] if len(names) == count else b""

    def replace(self, space: bytes, rows: Sequence[tuple[Row, bytes]]) -> int:
        """See ``Reseals``."""
        with self._lock:
            here, done = self._in(space), 0
            for row, body in rows:
                if isinstance(row, SessionRow):
                    done += _replaced(here.sessions, row.key, row, body)
                elif isinstance(row, NodeRow):
                    done += _replaced(here.nodes, row.digest, row, body)
                else:
                    done += _replaced(here.records, (row.kind, row.key), row, body)
            return done

    def vacuum(self) -> bool:
        """Nothing to do: what is dropped is gone."""
        return True

    def size(self, space: bytes) -> Size:
        """See ``Backend``."""
        with self._lock:
            here = self._in(space)
            return Size(
                nodes=len(here.nodes),
                node_bytes=sum(len(row.body) for row in here.nodes.values()),
                sessions=len(here.sessions),
                records=len(here.records),
                record_bytes=sum(len(record.body) for record in here.records.values()),
                file_bytes=0,
            )

    def check(self) -> list[str]:
        """Nothing can be wrong with a dictionary."""
        return []

    def close(self) -> None:
        """Forget all rows."""
        with self._lock:
            self._spaces.clear()


def _named(here: _Space, table: Table) -> dict[bytes, Row]:
    """The rows of a table under a name each that is not empty."""
    if table == "nodes":
        return {b"n" + row.digest: row for row in here.nodes.values()}
    if table == "sessions":
        return {b"s" + row.key: row for row in here.sessions.values()}
    return {record.kind.encode() + b"/" + record.key: record for record in here.records.values()}


def _replaced(rows: Any, name: Any, row: Row, body: bytes) -> int:
    found = rows.get(name)
    if found is None or found.body != row.body:
        return 0
    rows[name] = found._replace(body=body)
    return 1


def _with_parent(row: NodeRow, stored: dict[bytes, NodeRow]) -> NodeRow:
    return row if row.parent == ROOT or row.parent in stored else row._replace(parent=b"")


def _expired(record: Record, now: float) -> bool:
    return record.expires is not None and record.expires <= now and not record.pinned


def open_memory(url: str) -> Backend:
    """A new, empty back end for ``memory:``; each is its own. Raises ``StoreError`` for anything behind the colon."""
    if url != "memory:":
        raise StoreError(f"{url!r} names more than memory: use 'memory:', or 'sqlite:///path' to share")
    return MemoryBackend()
