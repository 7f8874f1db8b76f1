"""The cipher of sealed stores: AES-256-GCM under short-lived keys, and lengths that tell little.

The library `cryptography` is loaded when the first value is sealed or opened.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from hashlib import blake2b
from itertools import count
from typing import TYPE_CHECKING, Any

from ..errors import SealError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["OVERHEAD", "Cipher", "aes", "derived", "padded", "unpadded"]

_SALT, _NONCE, _TAG = 12, 12, 16
OVERHEAD = _SALT + _NONCE + _TAG
_SHORTEST = 32
# NIST SP 800-38D allows 2**32 random nonces under one key; after 2**20 the chance that two are equal is 2**-57.
_MOST_UNDER_ONE_KEY = 2**20
_REMEMBERED = 1_024  # keys that were derived for reading


def aes(key: bytes) -> AESGCM:
    """AES-256-GCM; raises ``SealError`` where the library is missing."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cryptography":
            raise
        raise SealError("sealing needs cryptography: pip install 'llmbuffer[crypto]>=1'") from None
    return AESGCM(key)


def derived(secret: bytes, salt: bytes, purpose: bytes, length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869): a key for one purpose.

    >>> derived(bytes(32), b"", b"names") == derived(bytes(32), b"", b"digests")
    False
    """
    aes(bytes(32))  # the error that names the extra
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return bytes(HKDF(SHA256(), length, salt, purpose).derive(secret))


def padded(body: bytes) -> bytes:
    """The body with a mark and zeros behind it: lengths are told apart only in steps of up to 12 %, and not below 32.

    The steps are those of Padmé (Nikitin and others, PETS 2019, section 4).

    >>> [len(padded(bytes(size))) for size in (0, 31, 32, 1_000, 1_001, 100_000)]
    [32, 32, 36, 1024, 1024, 100352]
    """
    length = max(len(body) + 1, _SHORTEST)
    exponent = length.bit_length() - 1
    step = 1 << max(0, exponent - exponent.bit_length())
    return body + b"\x80" + bytes(-(-length // step) * step - len(body) - 1)


def unpadded(body: bytes) -> bytes:
    """What ``padded`` was given; raises ``ValueError`` for what it did not make."""
    bare = body.rstrip(b"\0")
    if not bare.endswith(b"\x80"):
        raise ValueError("no padding")
    return bare[:-1]


class Cipher:
    """Seals under one key, by way of keys derived from it: no two writers share one, and none seals more than 2**20 values.

    A sealed value is a salt (which names the derived key), a nonce, and the padded body with its tag. So the number of values
    under the key itself has no practical bound, and reading derives a key once for each writer. Thread-safe.

    >>> cipher = Cipher(bytes(32))
    >>> cipher.open(cipher.seal(b"secret", b"here"), b"here")
    b'secret'
    """

    def __init__(self, key: bytes) -> None:
        from cryptography.exceptions import InvalidTag

        self._key, self._refused = key, InvalidTag
        self._readers: dict[bytes, Any] = {}
        # No lock: a forked process would inherit one that is held. A race costs a count, and the bound has room for it.
        self._writer: tuple[bytes, Any, Iterator[int]] | None = None

    def seal(self, body: bytes, about: bytes) -> bytes:
        """The body sealed; it opens with the same ``about`` only."""
        writer = self._writer
        if writer is None or next(writer[2]) >= _MOST_UNDER_ONE_KEY:
            salt = secrets.token_bytes(_SALT)
            self._writer = writer = (salt, aes(self._derived(salt)), count(1))
        nonce = secrets.token_bytes(_NONCE)
        return writer[0] + nonce + bytes(writer[1].encrypt(nonce, padded(body), about))

    def open(self, sealed: bytes, about: bytes) -> bytes:
        """The body; raises ``ValueError`` for anything that was not sealed like this."""
        if len(sealed) < OVERHEAD + _SHORTEST:
            raise ValueError("cut off")
        salt, nonce = sealed[:_SALT], sealed[_SALT : _SALT + _NONCE]
        try:
            return unpadded(self._reader(salt).decrypt(nonce, sealed[_SALT + _NONCE :], about))
        except self._refused:
            raise ValueError("changed") from None

    def _reader(self, salt: bytes) -> Any:
        found = self._readers.get(salt)
        if found is None:
            if len(self._readers) >= _REMEMBERED:
                self._readers.clear()
            found = self._readers[salt] = aes(self._derived(salt))
        return found

    def _derived(self, salt: bytes) -> bytes:
        return blake2b(salt, key=self._key, digest_size=32, person=b"llmbuffer-sealed").digest()
