"""Originals of compacted messages, and the rest of what a history remembers, in a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from ..archive import Archive, Original
from ..chain import Node, walk
from ..compaction.documents import Document
from ..errors import CorruptStoreError
from ..messages import Message
from .backend import Record
from .records import ArchiveRecord, DocumentRecord, decode, decode_message, encode, encode_message
from .rights import needs
from .shelf import Shelf

if TYPE_CHECKING:
    from ..state import State

__all__ = ["Originals", "archive_of", "archived"]


class Originals(Shelf):
    """The part of ``Store`` that keeps what compactions replaced, until the session is forgotten.

    A message lies under its id; of several under one id, each lies under the id, a slash and its number.
    """

    @needs("read")
    def originals(self, session_id: str, name: str) -> tuple[Message, ...] | None:
        """What a marker stands for, if it was kept; one message or several."""
        single = self._original(session_id, name)
        if single is not None:
            return (single,)
        found = tuple(self._numbered(session_id, name))
        return found or None

    def _numbered(self, session_id: str, name: str) -> Iterator[Message]:
        number = 0
        while (found := self._original(session_id, f"{name}/{number}")) is not None:
            yield found
            number += 1

    def _original(self, session_id: str, name: str) -> Message | None:
        where = self.envelope.name("original", f"{session_id}/{name}")
        found = self.backend.get(self.space, "original", where)
        return None if found is None else decode_message(self._kept_original(found)[2])

    def _kept_original(self, record: Record) -> tuple[str, str, bytes]:
        return decode(self.record_body(record), tuple[str, str, bytes])

    def _original_record(self, session_id: str, name: str, body: bytes) -> Record:
        owner = self.envelope.name("session", session_id)
        where = self.envelope.name("original", f"{session_id}/{name}")
        return self.wrapped(Record("original", where, encode((session_id, name, body)), owner))

    def original_records(
        self, session_id: str, archive: Archive, since: object, inherited: str | None
    ) -> list[Record]:
        """What to write of an archive: originals kept after ``since``, and those of the session that this one came from."""
        last = since if isinstance(since, Original) else None
        records = []
        for kept in archive.originals(last):
            single = len(kept.messages) == 1
            for number, message in enumerate(kept.messages):
                name = kept.name if single else f"{kept.name}/{number}"
                records.append(self._original_record(session_id, name, encode_message(message)))
        if inherited is not None and inherited != session_id:
            owner = self.envelope.name("session", inherited)
            for record in self.backend.records(self.space, "original", owner):
                _, name, body = self._kept_original(record)
                records.append(self._original_record(session_id, name, body))
        return records


def archive_of(state: State) -> ArchiveRecord:
    """What a history remembers, but for its originals."""
    archive = state.archive
    places: Mapping[int, int] = {}
    if archive.pins or archive.documents:
        places = {id(node.message): node.depth for node in walk(state.tip)}
    pins = tuple(places[id(pin)] for pin in archive.pins if id(pin) in places)
    documents = tuple(
        DocumentRecord(
            each.key, each.text, each.version, tuple(places[id(t)] for t in each.told if id(t) in places)
        )
        for each in archive.documents
    )
    return ArchiveRecord(state.turns, archive.compactions, archive.ask_at, pins, documents, archive.removed)


def archived(state: State, record: ArchiveRecord | None) -> State:
    """The state with what its history remembered. Raises ``CorruptStoreError`` for a message that is not there."""
    if record is None:
        return state
    nodes: dict[int, Node] = {}
    if record.pins or record.documents:
        nodes = {node.depth: node for node in walk(state.tip)}

    def at(depth: int) -> Message:
        node = nodes.get(depth)
        if node is None or not isinstance(node.message, Message):
            raise CorruptStoreError(
                f"the session remembers message {depth} of {state.tip.depth}; run verify()"
            )
        return node.message

    documents = tuple(
        Document(each.key, each.text, each.version, tuple(map(at, each.told))) for each in record.documents
    )
    archive = Archive(
        pins=tuple(map(at, record.pins)),
        documents=documents,
        compactions=record.compactions,
        ask_at=record.ask_at,
        removed=record.removed,
    )
    return msgspec.structs.replace(state, turns=record.turns, archive=archive)
