"""What all parts of a store share: the back end, the envelope, the clock, rights; bodies wrapped and unwrapped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..context import StableContext
from ..errors import CorruptStoreError
from ..frozen import FrozenDict
from .backend import Backend, NodeRow, Record, SessionRow
from .envelope import Envelope
from .records import (
    SessionRecord,
    decode,
    encode,
    encode_context,
    node_place,
    record_place,
    session_place,
    weight_place,
)
from .rights import EVERYTHING, Rights

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Shelf"]


class Shelf:
    """A back end seen through an envelope: what goes in is wrapped, what comes out was checked.

    Where the envelope seals, what else a row would show moves into sealed bytes: the note of a node in front of its
    message, weight and price of a value into the field of its owner.
    """

    # Texts that are kept beside contexts, and the keys that they have there.
    known_texts: Mapping[str, str] = FrozenDict()

    rights: Rights = EVERYTHING

    def __init__(self, backend: Backend, envelope: Envelope, clock: Callable[[], float]) -> None:
        self.backend, self.envelope, self.clock = backend, envelope, clock
        self.space = envelope.space

    def node_row(self, parent: bytes, body: bytes, note: bytes) -> NodeRow:
        """The row of a message behind ``parent``."""
        row = NodeRow(self.envelope.digest(parent, body), parent, b"", note)
        if self.envelope.sealed:
            row, body = row._replace(note=b""), bytes([len(note)]) + note + body
        return row._replace(body=self.envelope.wrap(node_place(row), body))

    def node_said(self, row: NodeRow) -> tuple[bytes, bytes]:
        """The message of a row, as bytes, and what was counted of it."""
        body = self._unwrap(node_place(row), row.body, f"message {row.digest.hex()[:12]!r}")
        if not self.envelope.sealed:
            return body, row.note
        end = 1 + body[0]
        return body[end:], body[1:end]

    def node_body(self, row: NodeRow) -> bytes:
        """The message of a row, as bytes."""
        return self.node_said(row)[0]

    def session_body(self, row: SessionRow, record: bytes) -> SessionRow:
        """The row with its body."""
        return row._replace(body=self.envelope.wrap(session_place(row), record))

    def session_record(self, row: SessionRow) -> SessionRecord:
        """What a row tells of its session."""
        body = self._unwrap(session_place(row), row.body, f"session {row.key!r}")
        return decode(body, SessionRecord)

    def context_record(self, context: StableContext, body: bytes | None = None) -> Record:
        """A context as it is stored, under a digest of all its bytes: its fingerprint does not see the order of keys."""
        body = encode_context(context, self.known_texts) if body is None else body
        key, owner = (
            self.envelope.digest(b"context", body),
            self.envelope.name("fingerprint", context.fingerprint),
        )
        return self.wrapped(Record("context", key, body, owner, pinned=True))

    def wrapped(self, record: Record) -> Record:
        """The record as it is stored."""
        if self.envelope.sealed and record.kind == "value":
            numbers = encode((record.weight, record.price))
            owner = self.envelope.wrap(weight_place(record), numbers, lasting=True)
            record = record._replace(owner=owner, weight=0, price=None)
        return record._replace(body=self.envelope.wrap(record_place(record), record.body))

    def record_body(self, record: Record) -> bytes:
        """The body of a record."""
        return self._unwrap(record_place(record), record.body, f"{record.kind} {record.key!r}")

    def shown(self, record: Record) -> Record:
        """A stored value with its weight and price, its body as it is stored."""
        if not self.envelope.sealed or record.kind != "value":
            return record
        stored = self._unwrap(weight_place(record), record.owner, f"{record.kind} {record.key!r}")
        weight, price = decode(stored, tuple[int, float | None])
        return record._replace(owner=b"", weight=weight, price=price)

    def _unwrap(self, place: bytes, stored: bytes, what: str) -> bytes:
        try:
            return self.envelope.unwrap(place, stored)
        except CorruptStoreError as error:
            raise CorruptStoreError(f"{what}: {error}") from error

    def routing_key(self, given: str) -> str:
        """What a session of this store sends in place of its routing key: what was given, or for a tenant a keyed hash of it."""
        return self.envelope.routing_key(given)

    def close(self) -> None:
        """Let go of files and connections. Closing twice does no harm."""
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.backend).__name__})"
