"""An export under a key: the same lines, each of them sealed, in an order and a number that cannot be changed."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from ..errors import CorruptStoreError, SealError
from .ciphers import aes, derived, padded, unpadded
from .keys import KeyLike, Keyring, fingerprint_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["opened_lines", "sealed_lines"]

_ABOUT = b"llmbuffer-export-1"


class _Label(msgspec.Struct, frozen=True, tag_field="line", tag="llmbuffer-sealed-export"):
    """The first line: which key opens the rest, and the salt of this export."""

    fingerprint: str
    salt: bytes
    version: int = 1


def sealed_lines(lines: Iterable[str], key: KeyLike) -> Iterator[str]:
    """The lines sealed by the current key, behind a line that says by which; the last one says that it is the last.

    >>> from llmbuffer.store.keys import new_key
    >>> key = new_key()
    >>> list(opened_lines(sealed_lines(["one", "two"], key), key))
    [b'one', b'two']
    """
    raw, salt = Keyring.of(key).current_key, secrets.token_bytes(16)
    cipher = aes(derived(raw, salt, _ABOUT))
    yield msgspec.json.encode(_Label(fingerprint_of(raw).hex(), salt)).decode()
    number = 0
    for number, line in enumerate(lines, 1):
        yield _text(cipher.encrypt(_nonce(number, last=False), padded(line.encode()), _ABOUT))
    yield _text(cipher.encrypt(_nonce(number + 1, last=True), padded(b""), _ABOUT))


def opened_lines(lines: Iterable[str | bytes], key: KeyLike) -> Iterator[bytes]:
    """What was sealed. Raises ``SealError`` for a wrong key, and ``CorruptStoreError``, naming the line, for what was changed,
    moved, left out or cut off; the lines before it were given.
    """
    from cryptography.exceptions import InvalidTag

    rest = iter(lines)
    cipher = _cipher_of(next(rest, b""), Keyring.of(key))
    number = 0
    for number, line in enumerate(rest, 1):
        try:
            sealed = base64.b64decode(line, validate=True)
            if _is_last(cipher, number, sealed):
                if next(rest, None) is not None:
                    raise CorruptStoreError(
                        f"line {number + 2} of the export stands behind its end: it was changed"
                    )
                return
            yield unpadded(cipher.decrypt(_nonce(number, last=False), sealed, _ABOUT))
        except (InvalidTag, ValueError):  # noqa: PERF203 - it names the line
            raise CorruptStoreError(
                f"line {number + 1} of the sealed export does not open: it was changed or moved; export again"
            ) from None
    raise CorruptStoreError(
        f"the sealed export breaks off behind line {number + 1}: export again from the source"
    )


def _cipher_of(label: str | bytes, ring: Keyring) -> AESGCM:
    try:
        told = msgspec.json.decode(label, type=_Label)
    except msgspec.DecodeError:
        raise SealError("a key was given, and this is no sealed export: leave key= out") from None
    key = next(
        (ring.known(bytes.fromhex(each)) for each in ring.fingerprints if each == told.fingerprint), None
    )
    if key is None:
        raise SealError(
            f"the export opens with the key of fingerprint {told.fingerprint!r}, and those given have "
            f"{', '.join(ring.fingerprints)}: give the right key"
        )
    return aes(derived(key, told.salt, _ABOUT))


def _is_last(cipher: AESGCM, number: int, sealed: bytes) -> bool:
    """The end has the length of an empty line."""
    from cryptography.exceptions import InvalidTag

    if len(sealed) != len(padded(b"")) + 16:
        return False
    try:
        cipher.decrypt(_nonce(number, last=True), sealed, _ABOUT)
    except InvalidTag:
        return False
    return True


def _nonce(number: int, *, last: bool) -> bytes:
    """Counted: the key is that of one export."""
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def _text(sealed: bytes) -> str:
    return base64.b64encode(sealed).decode()
