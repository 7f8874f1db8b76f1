"""Rows as the bytes that Redis keeps under their keys, and the keys themselves; ``scripts`` says what lies where."""

from __future__ import annotations

import math
import struct
from hashlib import blake2b
from typing import Any, NamedTuple, cast

import msgspec

from ..backend import NodeRow, Record, SessionRow
from .scripts import KIND_KEYS, SPACE_KEYS

__all__ = [
    "Keys",
    "Meta",
    "NodeLink",
    "keys_of",
    "link_of",
    "meta_of",
    "node_of",
    "packed_meta",
    "ring_holds",
    "session_of",
]

_LINK = struct.Struct(">IQ24s")
_SESSION = struct.Struct(">QQ24s96sI")
_META = struct.Struct(">QBdI")
RING = 8  # writers that a session remembers, 12 bytes each


class Keys:
    """The keys of one space; all begin with ``base``.

    >>> keys_of("llmbuffer:", b"").links
    'llmbuffer:{cae66941d9efbd404e4d88758ea67670}:links'
    """

    def __init__(self, base: str) -> None:
        self._base = base
        self.all = [base + name for name in SPACE_KEYS]
        self.state, self.links, self.bodies, self.loose, self.guards = self.all[:5]
        self.sessions, self.uses, self.idle, self.kinds = self.all[5:]

    def of(self, kind: str) -> list[str]:
        """The four keys of a kind of records."""
        return [f"{self._base}{name}:{kind}" for name in KIND_KEYS]


def keys_of(prefix: str, space: bytes) -> Keys:
    """The keys of a space. All have one hash tag, so that a server that spreads keys keeps them together."""
    return Keys(f"{prefix}{{{blake2b(space, digest_size=16).hexdigest()}}}:")


class NodeLink(NamedTuple):
    """Where a node hangs, how many refer to it, and when it came."""

    references: int
    seq: int
    parent: bytes
    note: bytes


class Meta(NamedTuple):
    """A record but for its body, and when it came."""

    seq: int
    record: Record


def link_of(value: bytes) -> NodeLink:
    """A link; what is too short for one gives zeros, so that the check value of the node tells."""
    if len(value) < _LINK.size:
        return NodeLink(0, 0, b"", value)
    references, seq, parent = _LINK.unpack_from(value)
    return NodeLink(references, seq, parent, value[_LINK.size :])


def node_of(digest: bytes, link: bytes, body: bytes | None) -> NodeRow:
    """A node."""
    found = link_of(link)
    return NodeRow(digest, found.parent, body or b"", found.note)


def session_of(key: bytes, value: bytes) -> SessionRow:
    """A session; what is too short for one has an empty tip, so that its check value tells."""
    if len(value) < _SESSION.size:
        return SessionRow(key, b"", 0, b"", value)
    _, revision, tip, _, length = _SESSION.unpack_from(value)
    context, body = value[_SESSION.size : _SESSION.size + length], value[_SESSION.size + length :]
    return SessionRow(key, tip, revision, context, body)


def ring_holds(value: bytes, token: bytes) -> bool:
    """Whether one of the last writers of a session has this token."""
    ring = value[40 : 40 + 12 * RING]
    return any(ring[at : at + 8] == token for at in range(0, 12 * RING, 12))


def packed_meta(record: Record) -> tuple[bytes, str]:
    """A record but for its body and its seq, and the second at which it expires, as text; empty if it does not."""
    expires = record.expires if record.expires is not None and not record.pinned else None
    head = _META.pack(0, record.pinned, 0.0 if expires is None else expires, len(record.owner))
    rest = msgspec.msgpack.encode((record.expires, record.weight, record.pinned, record.price))
    when = "" if expires is None or math.isnan(expires) else repr(float(expires))
    return head[8:] + record.owner + rest, when


def meta_of(kind: str, key: bytes, value: bytes, body: bytes = b"") -> Meta:
    """A record; what cannot be read has nothing but its body, so that its check value tells."""
    try:
        seq, _, _, length = _META.unpack_from(value)
        owner = value[_META.size : _META.size + length]
        rest = msgspec.msgpack.decode(value[_META.size + length :])
        expires, weight, pinned, price = cast("tuple[Any, Any, Any, Any]", rest)
    except (struct.error, msgspec.DecodeError, TypeError, ValueError):
        return Meta(0, Record(kind, key, body, b"(damaged)"))
    return Meta(seq, Record(kind, key, body, owner, expires, weight, pinned, price))
