"""What a back end keeps: rows of bytes that it never looks into, and the few steps that must be atomic.

A back end knows no message and no session: ``Store`` encodes, checks and (with a key) seals, and names everything by
bytes. ``space`` separates tenants; it is part of every call, so that no back end can forget it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from ..errors import StoreError

__all__ = [
    "ROOT",
    "Backend",
    "MissingNodeError",
    "NodeRow",
    "Record",
    "Reseals",
    "Row",
    "SessionRow",
    "Size",
    "StaleError",
    "Swept",
    "Table",
    "chained",
]

ROOT = bytes(24)  # the parent of every first node, and the tip of a session that says nothing; never stored


class NodeRow(NamedTuple):
    """A message behind ``parent``; ``note`` is what was counted of it, for readers of the same counter."""

    digest: bytes
    parent: bytes
    body: bytes
    note: bytes


class SessionRow(NamedTuple):
    """A session: its tip, how often it was saved (``revision``, from 1), and the key of its context."""

    key: bytes
    tip: bytes
    revision: int
    context: bytes
    body: bytes


class Record(NamedTuple):
    """Any other thing under a kind and a key. ``owner`` groups records; ``expires`` is in seconds, ``weight`` in bytes;
    ``price`` is what making it anew costs, in any unit that is the same for all. What is pinned does not expire.
    """

    kind: str
    key: bytes
    body: bytes
    owner: bytes = b""
    expires: float | None = None
    weight: int = 0
    pinned: bool = False
    price: float | None = None


Row = NodeRow | SessionRow | Record
Table = Literal["nodes", "sessions", "records"]


class Size(NamedTuple):
    """How much there is: rows, and the bytes that they take on disk (0 where nothing is on disk)."""

    nodes: int
    node_bytes: int
    sessions: int
    records: int
    record_bytes: int
    file_bytes: int


class Swept(NamedTuple):
    """What a sweep removed, in rows."""

    nodes: int
    records: int


class StaleError(StoreError):
    """The session was saved by somebody else: ``found`` is what stands there, or ``None``."""

    def __init__(self, found: SessionRow | None) -> None:
        super().__init__("the session was saved by another writer")
        self.found = found


class MissingNodeError(StoreError):
    """A row whose parent is not stored."""


@runtime_checkable
class Backend(Protocol):
    """Where rows lie. Every method is atomic, and what it did is durable when it returns; errors are ``StoreError``."""

    def append(
        self,
        space: bytes,
        rows: Sequence[NodeRow],
        session: SessionRow | None,
        records: Sequence[Record] = (),
    ) -> int:
        """Add rows and records that are not there yet, and set the session: all or nothing. Returns how many rows were added.

        ``session.revision`` must be one more than what is stored (1 for a new session), else ``StaleError``. Raises
        ``MissingNodeError`` for a parent that is neither stored nor an earlier row.
        """
        ...

    def history(self, space: bytes, key: bytes) -> tuple[SessionRow, list[NodeRow]] | None:
        """A session and its nodes, oldest first, as of one moment. A chain that breaks off is given as far as it goes."""
        ...

    def session(self, space: bytes, key: bytes) -> SessionRow | None:
        """The row of one session."""
        ...

    def sessions(self, space: bytes) -> Iterator[SessionRow]:
        """All sessions."""
        ...

    def nodes(self, space: bytes) -> Iterator[NodeRow]:
        """All nodes, parents before children. A parent that is missing is given as ``b""``."""
        ...

    def put(self, space: bytes, record: Record) -> None:
        """Set a record."""
        ...

    def claim(self, space: bytes, record: Record, now: float) -> Record:
        """Set a record unless one of another owner stands there that has not expired; return the one that stands."""
        ...

    def get(self, space: bytes, kind: str, key: bytes) -> Record | None:
        """A record, expired or not."""
        ...

    def drop(self, space: bytes, kind: str, key: bytes, owner: bytes | None = None) -> bool:
        """Remove a record (only if it is the owner's, where one is given); whether there was one."""
        ...

    def records(self, space: bytes, kind: str | None = None, owner: bytes | None = None) -> Iterator[Record]:
        """All records of a kind, or of all, and of an owner, or of all."""
        ...

    def weights(self, space: bytes, kind: str) -> Iterator[Record]:
        """All records of a kind without their bodies, oldest first: for eviction, which reads no content."""
        ...

    def forget(self, space: bytes, key: bytes) -> bool:
        """Remove a session, and all records that it owns; whether there was one."""
        ...

    def sweep(self, space: bytes, now: float) -> Swept:
        """Remove nodes that no session reaches, contexts that none has, and records that have expired."""
        ...

    def vacuum(self) -> bool:
        """Overwrite and give back what was removed. False if readers kept it from finishing: try again later."""
        ...

    def size(self, space: bytes) -> Size:
        """How much there is."""
        ...

    def check(self) -> list[str]:
        """What is wrong with the storage itself, in words; empty if nothing is."""
        ...

    def close(self) -> None:
        """Let go of files and connections. Closing twice does no harm."""
        ...


@runtime_checkable
class Reseals(Protocol):
    """What a change of keys needs beside ``Backend``: rows a page at a time, and new bodies for them. It may be left out."""

    def page(self, space: bytes, table: Table, after: bytes, count: int) -> tuple[list[Row], bytes]:
        """Up to ``count`` rows behind the place ``after`` (``b""``: the start), and where to go on (``b""``: that was all).

        Every row that is there from the first page to the last is given at least once.
        """
        ...

    def replace(self, space: bytes, rows: Sequence[tuple[Row, bytes]]) -> int:
        """Give each row that new body if it still has the body that it is given with; returns how many. Nothing else changes."""
        ...


def chained(found: Sequence[tuple[Any, ...]]) -> list[NodeRow]:
    """Rows ``(digest, body, note, parent)`` from tip to root as nodes, oldest first.

    Where the chain breaks off, because the oldest row has a parent that is not there, the first parent is ``b""``.
    """
    parent = ROOT if not found or found[-1][3] == 0 else b""
    rows = []
    for digest, body, note, _ in reversed(found):
        rows.append(NodeRow(digest, parent, body, note))
        parent = digest
    return rows
