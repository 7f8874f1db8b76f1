"""What is written into a store, as bytes: messages, contexts, sessions, compiled contexts.

A message is written with full fidelity: what loads is equal, and renders to the same bytes. The digests of a store
are therefore not those of ``chain``, which see neither the key order of opaque JSON nor how empty content was written.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, cast
from zlib import crc32

import msgspec

from ..context import Segment, StableContext
from ..errors import CorruptStoreError, LLMBufferError
from ..frozen import FrozenDict, wire_json
from ..messages import ROLES, Message, text_message
from ..parts import Part
from ..tools import Tool
from .backend import NodeRow, Record, SessionRow

__all__ = [
    "ArchiveRecord",
    "Compiled",
    "ContextRecord",
    "DocumentRecord",
    "Said",
    "SentRecord",
    "SessionRecord",
    "TurnRecord",
    "decode",
    "decode_context",
    "decode_message",
    "decode_said",
    "encode",
    "encode_context",
    "encode_message",
    "node_place",
    "note_of",
    "read_plain",
    "record_place",
    "session_place",
    "tokens_of",
    "weight_place",
]

T = TypeVar("T")
Said = tuple[str, str | tuple[Part, ...], str | None, str | None]  # role, content, name, shape

_ENCODER = msgspec.msgpack.Encoder()
_MESSAGE: msgspec.msgpack.Decoder[Said] = msgspec.msgpack.Decoder(Said)
_NOTE = struct.Struct(">II")


class ContextRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stable context. ``params`` are JSON, so that numbers of any size and the order of keys stay.

    ``texts`` are the segments whose text is kept elsewhere, by place and key; then ``fingerprint`` is that of the whole.
    """

    model: str
    segments: tuple[Segment, ...]
    dynamic: tuple[Segment, ...]
    tools: tuple[Tool, ...]
    params: bytes
    texts: tuple[tuple[int, str], ...] = ()
    fingerprint: str = ""


class TurnRecord(msgspec.Struct, frozen=True):
    """An open turn: the depth of its user message, and the dynamic text behind it."""

    depth: int
    segments: tuple[Segment, ...]
    inserted: bool


class SentRecord(msgspec.Struct, frozen=True):
    """The last request: when it was made, how many messages of the history it had, and breakpoints as depth and ``long``."""

    at: float
    depth: int
    marks: tuple[tuple[int, bool], ...]


class DocumentRecord(msgspec.Struct, frozen=True):
    """A document: its text as it is now, and the depths of the messages that tell it."""

    key: str
    text: str
    version: int
    told: tuple[int, ...]


class ArchiveRecord(msgspec.Struct, frozen=True):
    """What a history remembers: turns that were observed, compactions, and its pinned messages by their depth."""

    turns: int
    compactions: int
    ask_at: int
    pins: tuple[int, ...] = ()
    documents: tuple[DocumentRecord, ...] = ()
    removed: int = 0


class SessionRecord(msgspec.Struct, frozen=True):
    """What a session is beside its messages and its context.

    ``depth`` counts its messages; ``previous_tail`` and ``fork_anchor`` are a node's depth and a place in the body. ``owner``
    is the principal that made it, where one was named.
    """

    id: str
    parent_id: str | None
    name: str | None
    dialect: str
    model: str
    fingerprint: str
    placement: str
    epoch: int
    frozen: bool
    expected_requests: int
    diagnostics: bool
    routing_key: str
    sharing: dict[str, int]
    counter: str
    depth: int
    requests: int
    response_id: str | None
    turn: TurnRecord | None
    previous_tail: tuple[int, str, int, int, int] | None
    fork_anchor: tuple[int, str, int, int, int] | None
    owner: str | None = None
    sent: SentRecord | None = None
    archive: ArchiveRecord | None = None


class Compiled(msgspec.Struct, frozen=True):
    """A stable context as one dialect sends it, and what the provider knows it by.

    ``digest`` is that of its bytes as sent, ``tokens`` their count; ``handle`` is the provider's name for it (a cached
    content, a slot file, a routing key), ``warm_at`` when it was last sent, in seconds, and ``ttl`` how long the provider
    keeps it from then on. ``counts`` are the tokens of each tool and system text by ``counter``, ``marks`` the breakpoints
    that were sent in it: depth, whether it is kept long, and when.

    >>> Compiled("b2:12", "gemini", handle="cachedContents/1", warm_at=100.0, ttl=3600.0).warm(200.0)
    True
    """

    fingerprint: str
    dialect: str
    digest: bytes = b""
    tools: bytes = b""
    system: bytes = b""
    tokens: int = 0
    handle: str | None = None
    warm_at: float | None = None
    ttl: float | None = None
    counter: str = ""
    counts: tuple[int, ...] = ()
    marks: tuple[tuple[int, bool, float], ...] = ()

    def warm(self, now: float) -> bool:
        """Whether the provider still holds it at ``now``."""
        return self.warm_at is not None and self.ttl is not None and now < self.warm_at + self.ttl


def encode(value: Any) -> bytes:
    """Any of these records as bytes."""
    return _ENCODER.encode(value)


def decode(body: bytes, kind: type[T]) -> T:
    """Any of these records; raises ``CorruptStoreError`` for bytes that are none."""
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.DecodeError, LLMBufferError) as error:
        raise CorruptStoreError(f"{len(body)} bytes are no {kind.__name__}: {error}; run verify()") from error


def encode_message(message: Message) -> bytes:
    """A message with everything that makes its bytes on the wire.

    >>> decode_message(encode_message(Message("user", "hi"))) == Message("user", "hi")
    True
    """
    return _ENCODER.encode((message.role, message._content, message.name, message._shape))


def decode_message(body: bytes) -> Message:
    """The message; raises ``CorruptStoreError`` for bytes that are none."""
    role, content, name, shape = decode_said(body)
    try:
        return Message(cast(Any, role), content, name, _shape=shape)
    except LLMBufferError as error:
        raise CorruptStoreError(f"{len(body)} bytes are no message: {error}; run verify()") from error


def decode_said(body: bytes) -> Said:
    """Role, content, name and shape of a message."""
    try:
        return _MESSAGE.decode(body)
    except (msgspec.DecodeError, LLMBufferError) as error:
        raise CorruptStoreError(f"{len(body)} bytes are no message: {error}; run verify()") from error


def encode_context(context: StableContext, known: Mapping[str, str] = FrozenDict()) -> bytes:
    """A stable context with the order of its keys, which its fingerprint does not see.

    ``known`` texts are kept elsewhere: they are written as the keys that they have there.
    """
    segments = context.segments
    texts = tuple(
        (index, known[each.content]) for index, each in enumerate(segments) if each.content in known
    )
    params = wire_json(context.params)
    if not texts:
        # Left out as a whole: what is a default is known by identity, and not every empty tuple is the same object.
        return encode(ContextRecord(context.model, segments, context.dynamic, context.tools, params))
    away = {index for index, _ in texts}
    segments = tuple(
        msgspec.structs.replace(each, content="") if index in away else each
        for index, each in enumerate(segments)
    )
    told = ContextRecord(
        context.model, segments, context.dynamic, context.tools, params, texts, context.fingerprint
    )
    return encode(told)


def decode_context(body: bytes, text: Callable[[str], str | None] | None = None) -> StableContext:
    """The stable context. ``text`` reads what is kept elsewhere; without it such segments are empty.

    >>> context = StableContext("gpt-5.5", "You are kind.", params={"temperature": 0})
    >>> decode_context(encode_context(context)) == context
    True
    """
    told = decode(body, ContextRecord)
    try:
        params = json.loads(told.params)
    except ValueError as error:
        raise CorruptStoreError(f"the params of a context are no JSON: {error}; run verify()") from error
    segments = list(told.segments)
    for index, key in told.texts:
        content = "" if text is None else text(key)
        if content is None:
            raise CorruptStoreError(
                f"the text {key!r} of a context is missing: the store is damaged; run verify()"
            )
        segments[index] = msgspec.structs.replace(segments[index], content=content)
    context = StableContext(told.model, [*segments, *told.dynamic], told.tools, params)
    if told.texts and text is None:
        object.__setattr__(context, "_fingerprint", told.fingerprint)
    return context


def note_of(counter: str, tokens: int) -> bytes:
    """What was counted of a message, and by whom.

    >>> tokens_of(note_of("o200k_base", 7), "o200k_base"), tokens_of(note_of("o200k_base", 7), "other")
    (7, None)
    """
    return _NOTE.pack(crc32(counter.encode()), tokens)


def tokens_of(note: bytes, counter: str) -> int | None:
    """The tokens, if this counter counted them."""
    if len(note) != _NOTE.size:
        return None
    by, tokens = cast("tuple[int, int]", _NOTE.unpack(note))
    return tokens if by == crc32(counter.encode()) else None


def read_plain(
    rows: Iterable[NodeRow],
    unwrap: Callable[[bytes, bytes], bytes],
    counter: str,
    slow: Callable[[NodeRow], tuple[Message, int | None]],
) -> Iterator[tuple[Message, int | None]]:
    """What ``slow`` gives for each row of a store that is not sealed, with as few calls as can be: histories are long.

    Its check value says that a body is what a message was written as, so texts are taken as they are. ``slow`` takes the
    rest, and says what is wrong with a row.
    """
    decode, by = _MESSAGE.decode, _NOTE.pack(crc32(counter.encode()), 0)[:4]
    for row in rows:
        digest, parent, stored, note = row
        try:
            role, content, name, shape = decode(unwrap(b"node%b%b%b" % (digest, parent, note), stored))
        except (msgspec.DecodeError, LLMBufferError):
            yield slow(row)
            continue
        if isinstance(content, str) and role in ROLES:
            tokens = int.from_bytes(note[4:], "big") if note[:4] == by else None
            yield text_message(role, content, name, shape), tokens
        else:
            yield slow(row)


def node_place(row: NodeRow) -> bytes:
    """Where the body of a node stands."""
    return b"node" + row.digest + row.parent + row.note


def session_place(row: SessionRow) -> bytes:
    """Where the body of a session stands."""
    return encode(("session", row.key, row.tip, row.revision, row.context))


def record_place(record: Record) -> bytes:
    """Where the body of a record stands."""
    return encode(
        (
            record.kind,
            record.key,
            record.owner,
            record.expires,
            record.weight,
            bool(record.pinned),
            record.price,
        )
    )


def weight_place(record: Record) -> bytes:
    """Where weight and price of a value stand, if they are sealed."""
    return encode(("weight", record.kind, record.key))
