"""How bytes are named and wrapped before a back end sees them: plain, with a check value. ``sealed`` has the other way.

An envelope decides three things: what a name becomes, what the digest of a node is, and how a body is protected
against damage and against being moved to another place.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Protocol
from zlib import crc32

from ..errors import CorruptStoreError

__all__ = ["Envelope", "Plain", "node_digest", "routed"]

_CHECK_BYTES = 4


class Envelope(Protocol):
    """Names and wraps for one tenant. ``place`` says where a body stands; it opens there and nowhere else.

    ``space`` parts the rows of tenants; where ``sealed``, nobody without the key may learn from a row what it says.
    """

    space: bytes
    sealed: bool

    def name(self, kind: str, text: str) -> bytes:
        """The key under which ``text`` is stored."""
        ...

    def digest(self, parent: bytes, body: bytes) -> bytes:
        """The digest of a node, 24 bytes."""
        ...

    def wrap(self, place: bytes, body: bytes, *, lasting: bool = False) -> bytes:
        """The body as it is stored; ``lasting`` under a key that does not rotate, for what stands outside of bodies."""
        ...

    def unwrap(self, place: bytes, stored: bytes) -> bytes:
        """The body as it was; raises ``CorruptStoreError`` if it, or its place, was changed."""
        ...

    def routing_key(self, given: str) -> str:
        """What a provider is sent in place of a routing key, so that tenants share none."""
        ...


def node_digest(parent: bytes, body: bytes) -> bytes:
    """The digest of a message behind a parent.

    >>> len(node_digest(bytes(24), b"hi"))
    24
    """
    return blake2b(parent + body, digest_size=24).digest()


class Plain:
    """No secrets: names as they are, and a check value of four bytes behind each body. A tenant has a space of its own.

    The check value is a CRC-32 of place and body: it finds every change that lies within four bytes, so each flipped bit and
    byte, and of all others all but one in four thousand million. Whoever changes bytes on purpose can mend it: sealing is
    against that.

    >>> stored = Plain().wrap(b"here", b"body")
    >>> Plain().unwrap(b"here", stored)
    b'body'
    >>> Plain().unwrap(b"there", stored)
    Traceback (most recent call last):
    llmbuffer.errors.CorruptStoreError: 8 bytes do not match their check value: ...
    """

    sealed = False

    def __init__(self, space: bytes = b"", route: bytes = b"") -> None:
        self.space = space
        self._route = route

    def name(self, kind: str, text: str) -> bytes:
        """The text itself."""
        return text.encode()

    def digest(self, parent: bytes, body: bytes) -> bytes:
        """See ``node_digest``."""
        return node_digest(parent, body)

    def wrap(self, place: bytes, body: bytes, *, lasting: bool = False) -> bytes:
        """The body, and its check value."""
        return body + _check(place, body)

    def unwrap(self, place: bytes, stored: bytes) -> bytes:
        """The body, if the check value is that of this place."""
        body = stored[:-_CHECK_BYTES]
        if int.from_bytes(stored[-_CHECK_BYTES:], "big") != crc32(body, crc32(place, len(place))):
            raise CorruptStoreError(
                f"{len(stored)} bytes do not match their check value: the file was damaged, or the value moved here from "
                "another place; run verify(), and restore what it names from a backup"
            )
        return body

    def routing_key(self, given: str) -> str:
        """See ``routed``; without a tenant, what was given."""
        return routed(self._route, given) if self._route else given


def routed(key: bytes, given: str) -> str:
    """A routing key of one tenant, 32 hexadecimal digits: another's is never equal, and it does not tell what was given.

    >>> routed(b"of tenant 1", "support") == routed(b"of tenant 2", "support")
    False
    """
    return blake2b(given.encode(), key=key, digest_size=16).hexdigest()


def _check(place: bytes, body: bytes) -> bytes:
    return crc32(body, crc32(place, len(place))).to_bytes(_CHECK_BYTES, "big")  # the length parts the two
