"""How bytes are named and wrapped before a back end sees them: plain, with a check value.

An envelope decides three things: what a name becomes, what the digest of a node is, and how a body is protected
against damage and against being moved to another place.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Protocol

from ..errors import CorruptStoreError

__all__ = ["Envelope", "Plain", "node_digest"]

_CHECK_BYTES = 8


class Envelope(Protocol):
    """Names and wraps for one tenant. ``place`` says where a body stands; it opens there and nowhere else."""

    space: bytes

    def name(self, kind: str, text: str) -> bytes:
        """The key under which ``text`` is stored."""
        ...

    def digest(self, parent: bytes, body: bytes) -> bytes:
        """The digest of a node, 24 bytes."""
        ...

    def wrap(self, place: bytes, body: bytes) -> bytes:
        """The body as it is stored."""
        ...

    def unwrap(self, place: bytes, stored: bytes) -> bytes:
        """The body as it was; raises ``CorruptStoreError`` if it, or its place, was changed."""
        ...


def node_digest(parent: bytes, body: bytes) -> bytes:
    """The digest of a message behind a parent.

    >>> len(node_digest(bytes(24), b"hi"))
    24
    """
    return blake2b(parent + body, digest_size=24).digest()


class Plain:
    """No secrets: names as they are, and a check value of eight bytes behind each body.

    >>> stored = Plain().wrap(b"here", b"body")
    >>> Plain().unwrap(b"here", stored)
    b'body'
    >>> Plain().unwrap(b"there", stored)
    Traceback (most recent call last):
    llmbuffer.errors.CorruptStoreError: 12 bytes do not match their check value: ...
    """

    space = b""

    def name(self, kind: str, text: str) -> bytes:
        """The text itself."""
        return text.encode()

    def digest(self, parent: bytes, body: bytes) -> bytes:
        """See ``node_digest``."""
        return node_digest(parent, body)

    def wrap(self, place: bytes, body: bytes) -> bytes:
        """The body, and its check value."""
        return body + _check(place, body)

    def unwrap(self, place: bytes, stored: bytes) -> bytes:
        """The body, if the check value is that of this place."""
        body = stored[:-_CHECK_BYTES]
        if stored[-_CHECK_BYTES:] != _check(place, body):
            raise CorruptStoreError(
                f"{len(stored)} bytes do not match their check value: the file was damaged, or the value moved here from "
                "another place; run verify(), and restore what it names from a backup"
            )
        return body


def _check(place: bytes, body: bytes) -> bytes:
    return blake2b(b"%d:" % len(place) + place + body, digest_size=_CHECK_BYTES).digest()
