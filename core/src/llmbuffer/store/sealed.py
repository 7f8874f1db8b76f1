"""The envelope of a sealed store: names and digests are keyed, bodies are encrypted where they stand."""

from __future__ import annotations

from hashlib import blake2b

from ..errors import CorruptStoreError
from .ciphers import OVERHEAD, Cipher
from .envelope import routed
from .safe import NAMING, Safe

__all__ = ["Sealed", "key_number", "space_of"]

_VERSION = b"\x01"
_HEADER = 5  # the version, and the number of the store's key


class Sealed:
    """Names are keyed hashes, bodies AES-256-GCM, one set of keys for each space.

    A stored body is its header (version and the number of the store's key, five bytes), a salt and a nonce of 12 bytes each,
    and the padded body with its tag of 16. Header, space and place are authenticated, so that nothing opens elsewhere.
    """

    sealed = True

    def __init__(self, safe: Safe, space: bytes = b"") -> None:
        self.safe, self.space = safe, space
        self._names = safe.derive(NAMING, b"names" + space)
        self._digests = safe.derive(NAMING, b"digests" + space)
        self._route = safe.derive(NAMING, b"routes" + space) if space else b""
        self._ciphers: dict[int, Cipher] = {}

    def name(self, kind: str, text: str) -> bytes:
        """A keyed hash, 24 bytes."""
        named = f"{len(kind)}:{kind}{text}".encode("utf-8", "surrogatepass")
        return blake2b(named, key=self._names, digest_size=24).digest()

    def digest(self, parent: bytes, body: bytes) -> bytes:
        """A keyed hash: nobody without the key can test whether a message is stored."""
        return blake2b(parent + body, key=self._digests, digest_size=24).digest()

    def wrap(self, place: bytes, body: bytes, *, lasting: bool = False) -> bytes:
        """The body, sealed by the store's current key."""
        number = NAMING if lasting else self.safe.current
        header = _VERSION + number.to_bytes(4, "big")
        return header + self._cipher(number).seal(body, self._about(header, place))

    def unwrap(self, place: bytes, stored: bytes) -> bytes:
        """The body. Raises ``SealError`` where it was sealed by a key that ours does not open."""
        number = key_number(stored)
        try:
            cipher = self._cipher(NAMING if number is None else number)
            return cipher.open(stored[_HEADER:], self._about(stored[:_HEADER], place))
        except ValueError as error:
            raise CorruptStoreError(
                f"{len(stored)} bytes do not open ({error}): they were damaged, changed, or moved here from another place; "
                "run verify(), and restore what it names from a backup"
            ) from None

    def routing_key(self, given: str) -> str:
        """See ``routed``; without a tenant, what was given."""
        return routed(self._route, given) if self._route else given

    def _cipher(self, number: int) -> Cipher:
        found = self._ciphers.get(number)
        if found is None:
            found = self._ciphers[number] = Cipher(self.safe.derive(number, b"bodies" + self.space))
        return found

    def _about(self, header: bytes, place: bytes) -> bytes:
        return b"%b%d:%b%b" % (header, len(self.space), self.space, place)


def key_number(stored: bytes) -> int | None:
    """The number of the key that sealed a body; ``None`` for bytes that are none."""
    if len(stored) < _HEADER + OVERHEAD or stored[:1] != _VERSION:
        return None
    return int.from_bytes(stored[1:_HEADER], "big")


def space_of(safe: Safe, tenant: str) -> bytes:
    """The space of a tenant, 16 bytes that tell nothing of its name."""
    key = safe.derive(NAMING, b"tenants")
    return blake2b(tenant.encode(), key=key, digest_size=16).digest()
