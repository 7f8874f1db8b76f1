"""A store as JSON lines, and back: for backups, for moving to another back end, for rescuing what is left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from ..errors import CorruptStoreError, LLMBufferError, SealError, StoreError
from .backend import ROOT, NodeRow, Record, SessionRow, StaleError
from .envelope import node_digest
from .keys import KeyLike
from .records import (
    Compiled,
    ContextRecord,
    Said,
    SessionRecord,
    decode,
    decode_context,
    decode_said,
    encode,
)
from .rights import needs
from .shelf import Shelf

__all__ = ["Imported", "Transfer"]

VERSION = 1
_BATCH = 1_000


class _Line(msgspec.Struct, frozen=True, tag_field="line"):
    """One line; bytes are base64."""


class _Head(_Line, frozen=True, tag="llmbuffer-store"):
    version: int


class _Context(_Line, frozen=True, tag="context"):
    key: str
    context: ContextRecord


class _Node(_Line, frozen=True, tag="node"):
    digest: str
    parent: str
    note: bytes
    message: Said


class _Session(_Line, frozen=True, tag="session"):
    tip: str
    context: str
    session: SessionRecord


class _Value(_Line, frozen=True, tag="value"):
    key: str
    value: bytes
    expires: float | None
    weight: int
    pinned: bool
    price: float | None


class _Compiled(_Line, frozen=True, tag="compiled"):
    compiled: Compiled


class _Original(_Line, frozen=True, tag="original"):
    session_id: str
    name: str
    message: bytes


_Any = _Head | _Context | _Node | _Session | _Value | _Compiled | _Original
_DECODER: msgspec.json.Decoder[_Any] = msgspec.json.Decoder(_Any)


class Imported(msgspec.Struct, frozen=True):
    """What an import added; what was there already is not counted.

    >>> Imported(nodes=2, sessions=1).records
    0
    """

    nodes: int = 0
    sessions: int = 0
    records: int = 0


class Transfer(Shelf):
    """The part of ``Store`` that writes and reads JSON lines."""

    @needs("admin")
    def export(
        self, *, skip_damaged: bool = False, key: KeyLike | None = None, plain: bool = False
    ) -> Iterator[str]:
        """Everything but leases, a line at a time. ``skip_damaged`` leaves out what cannot be read.

        With ``key`` the lines are sealed; without, they are in the clear, which a sealed store is asked for with ``plain``:
        else ``SealError``. Raises ``CorruptStoreError`` at the first damaged row.
        """
        lines = self._lines(skip_damaged)
        if key is not None:
            from .parcel import sealed_lines

            return sealed_lines(lines, key)
        if self.envelope.sealed and not plain:
            raise SealError(
                "the store is sealed, and the export would be in the clear: give key= to seal it, or plain=True"
            )
        return lines

    def _lines(self, skip_damaged: bool) -> Iterator[str]:
        yield _text(_Head(VERSION))
        contexts: dict[bytes, str] = {}
        for record in _guarded(self.backend.records(self.space), skip_damaged):
            if record.kind != "lease":
                yield from self._told(self._record_line, (record, contexts), skip_damaged)
        known: dict[bytes, bytes] = {ROOT: ROOT}
        for row in _guarded(self._node_rows(skip_damaged), skip_damaged):
            if row.digest not in known:
                yield from self._told(self._node_line, (row, known), skip_damaged)
        for session in _guarded(self.backend.sessions(self.space), skip_damaged):
            yield from self._told(self._session_line, (session, known, contexts), skip_damaged)

    def _told(self, line: Any, arguments: tuple[Any, ...], skip_damaged: bool) -> Iterator[str]:
        try:
            yield _text(line(*arguments))
        except (LLMBufferError, KeyError, TypeError, ValueError) as error:
            if skip_damaged:
                return
            if isinstance(error, StoreError):
                raise
            raise CorruptStoreError(
                f"a row cannot be read: {type(error).__name__}: {error}; run verify(), or export(skip_damaged=True)"
            ) from error

    def _node_rows(self, skip_damaged: bool) -> Iterator[NodeRow]:
        """All nodes; where the file is damaged and this asks for the rest, those of each session that can be read."""
        try:
            yield from self.backend.nodes(self.space)
        except StoreError:
            if not skip_damaged:
                raise
            for session in _guarded(self.backend.sessions(self.space), skip_damaged):
                yield from self._chain_of(session)

    def _chain_of(self, session: SessionRow) -> Sequence[NodeRow]:
        """The nodes of a session that may be damaged."""
        try:
            found = self.backend.history(self.space, session.key)
        except CorruptStoreError:
            return ()
        return found[1] if found is not None else ()

    def _record_line(self, record: Record, contexts: dict[bytes, str]) -> _Line:
        body = self.record_body(record)
        if record.kind == "context":
            decode_context(body)
            contexts[record.key] = node_digest(b"context", body).hex()
            return _Context(contexts[record.key], decode(body, ContextRecord))
        if record.kind == "compiled":
            return _Compiled(decode(body, Compiled))
        if record.kind == "original":
            return _Original(*decode(body, tuple[str, str, bytes]))
        key, value = decode(body, tuple[str, bytes])
        record = self.shown(record)
        return _Value(key, value, record.expires, record.weight, bool(record.pinned), record.price)

    def _node_line(self, row: NodeRow, known: dict[bytes, bytes]) -> _Line:
        parent, (body, note) = known[row.parent], self.node_said(row)
        said = decode_said(body)
        known[row.digest] = node_digest(parent, body)
        return _Node(known[row.digest].hex(), parent.hex(), note, said)

    def _session_line(self, row: SessionRow, known: dict[bytes, bytes], contexts: dict[bytes, str]) -> _Line:
        return _Session(known[row.tip].hex(), contexts[row.context], self.session_record(row))

    @needs("admin")
    def import_(self, lines: Iterable[str | bytes], *, key: KeyLike | None = None) -> Imported:
        """Take in what ``export`` wrote, with the ``key`` if it sealed it. What is there already stays; nothing is overwritten but values and compiled contexts.

        Raises ``StoreError``, naming the line, for what is no such export and for digests that do not match,
        and for a session that is there with another tip. The lines before it are in.
        """
        if key is not None:
            from .parcel import opened_lines

            lines = opened_lines(lines, key)
        return _Reading(self).read(lines)


class _Reading:
    """One import: what the digests of the export are called here."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.known: dict[str, bytes] = {ROOT.hex(): ROOT}
        self.contexts: dict[str, Record] = {}
        self.batch: list[NodeRow] = []
        self.nodes = self.sessions = self.records = 0

    def read(self, lines: Iterable[str | bytes]) -> Imported:
        number = 0
        for number, text in enumerate(lines, 1):
            try:
                self._take(self._decoded(number, text))
            except (msgspec.DecodeError, KeyError, StoreError) as error:  # noqa: PERF203 - it names the line
                kind = type(error) if isinstance(error, CorruptStoreError) else StoreError
                raise kind(f"line {number} of the export: {error}; export again from the source") from error
        if not number:
            raise StoreError("the export is empty: it has at least a line that says its version")
        self._flush()
        return Imported(self.nodes, self.sessions, self.records)

    @staticmethod
    def _decoded(number: int, text: str | bytes) -> _Any:
        line = _DECODER.decode(text)
        if number == 1 and not (isinstance(line, _Head) and line.version == VERSION):
            raise StoreError(f"an export begins with a line that says version {VERSION}")
        return line

    def _take(self, line: _Any) -> None:
        if isinstance(line, _Node):
            self._take_node(line)
        elif isinstance(line, _Context):
            self._take_context(line)
        elif isinstance(line, _Session):
            self._take_session(line)
        elif not isinstance(line, _Head):
            self._take_record(line)

    def _take_node(self, line: _Node) -> None:
        body, parent = encode(line.message), bytes.fromhex(line.parent)
        if node_digest(parent, body).hex() != line.digest:
            raise CorruptStoreError(f"the digest {line.digest} is not that of its message")
        row = self.shelf.node_row(self.known[line.parent], body, line.note)
        self.known[line.digest] = row.digest
        self.batch.append(row)
        if len(self.batch) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        self.nodes += self.shelf.backend.append(self.shelf.space, self.batch, None)
        self.batch = []

    def _take_context(self, line: _Context) -> None:
        body = encode(line.context)
        if node_digest(b"context", body).hex() != line.key:
            raise CorruptStoreError(f"the digest {line.key} is not that of its context")
        self.contexts[line.key] = self.shelf.context_record(decode_context(body), body)

    def _take_session(self, line: _Session) -> None:
        shelf, tip, context = self.shelf, self.known[line.tip], self.contexts[line.context]
        key = shelf.envelope.name("session", line.session.id)
        row = shelf.session_body(SessionRow(key, tip, 1, context.key, b""), encode(line.session))
        try:
            self.nodes += shelf.backend.append(shelf.space, self.batch, row, [context])
            self.sessions += 1
            self.batch = []
        except StaleError as stale:
            if stale.found is None or stale.found.tip != tip:
                raise StoreError(
                    f"session {line.session.id!r} is there already, with another tip: forget it first, or import elsewhere"
                ) from None

    def _take_record(self, line: _Value | _Compiled | _Original) -> None:
        self.shelf.backend.put(self.shelf.space, self.shelf.wrapped(self._record(line)))
        self.records += 1

    def _record(self, line: _Value | _Compiled | _Original) -> Record:
        name = self.shelf.envelope.name
        if isinstance(line, _Value):
            body = encode((line.key, line.value))
            where, rest = name("value", line.key), (line.expires, line.weight, line.pinned, line.price)
            return Record("value", where, body, b"", *rest)
        if isinstance(line, _Compiled):
            told = line.compiled
            where = name("compiled", f"{told.fingerprint}/{told.dialect}")
            return Record("compiled", where, encode(told), name("fingerprint", told.fingerprint))
        where = name("original", f"{line.session_id}/{line.name}")
        body = encode((line.session_id, line.name, line.message))
        return Record("original", where, body, name("session", line.session_id))


def _text(line: _Line) -> str:
    return msgspec.json.encode(line).decode()


def _guarded(rows: Iterator[Any], skip_damaged: bool) -> Iterator[Any]:
    """The rows; where the file is damaged and only the rest is asked for, those before the damage."""
    try:
        yield from rows
    except StoreError:
        if not skip_damaged:
            raise
