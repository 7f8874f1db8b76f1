"""What all parts of a store share: the back end, the envelope, the clock; bodies wrapped and unwrapped."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..context import StableContext
from ..errors import CorruptStoreError
from .backend import Backend, NodeRow, Record, SessionRow
from .envelope import Envelope
from .records import SessionRecord, decode, encode_context, node_place, record_place, session_place

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Shelf"]


class Shelf:
    """A back end seen through an envelope: what goes in is wrapped, what comes out was checked."""

    def __init__(self, backend: Backend, envelope: Envelope, clock: Callable[[], float]) -> None:
        self.backend, self.envelope, self.clock = backend, envelope, clock
        self.space = envelope.space

    def node_row(self, parent: bytes, body: bytes, note: bytes) -> NodeRow:
        """The row of a message behind ``parent``."""
        row = NodeRow(self.envelope.digest(parent, body), parent, b"", note)
        return row._replace(body=self.envelope.wrap(node_place(row), body))

    def node_body(self, row: NodeRow) -> bytes:
        """The message of a row, as bytes."""
        return self._unwrap(node_place(row), row.body, f"message {row.digest.hex()[:12]!r}")

    def session_body(self, row: SessionRow, record: bytes) -> SessionRow:
        """The row with its body."""
        return row._replace(body=self.envelope.wrap(session_place(row), record))

    def session_record(self, row: SessionRow) -> SessionRecord:
        """What a row tells of its session."""
        body = self._unwrap(session_place(row), row.body, f"session {row.key!r}")
        return decode(body, SessionRecord)

    def context_record(self, context: StableContext, body: bytes | None = None) -> Record:
        """A context as it is stored, under a digest of all its bytes: its fingerprint does not see the order of keys."""
        body = encode_context(context) if body is None else body
        key, owner = (
            self.envelope.digest(b"context", body),
            self.envelope.name("fingerprint", context.fingerprint),
        )
        return self.wrapped(Record("context", key, body, owner, pinned=True))

    def wrapped(self, record: Record) -> Record:
        """The record with its body as it is stored."""
        return record._replace(body=self.envelope.wrap(record_place(record), record.body))

    def record_body(self, record: Record) -> bytes:
        """The body of a record."""
        return self._unwrap(record_place(record), record.body, f"{record.kind} {record.key!r}")

    def _unwrap(self, place: bytes, stored: bytes, what: str) -> bytes:
        try:
            return self.envelope.unwrap(place, stored)
        except CorruptStoreError as error:
            raise CorruptStoreError(f"{what}: {error}") from error

    def close(self) -> None:
        """Let go of files and connections. Closing twice does no harm."""
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.backend).__name__})"
