"""The keys that a store is opened with: 32 random bytes each, one of them current."""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from ..errors import SealError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["KEY_BYTES", "KeyLike", "Keyring", "fingerprint_of", "new_key"]

_log = logging.getLogger("llmbuffer.store")

KEY_BYTES = 32
_SALT_BYTES = 16
_FEWEST_VALUES = 12  # 32 random bytes have fewer different values once in more than 10**12 draws
_SCRYPT = {"n": 2**17, "r": 8, "p": 1, "maxmem": 2**28}  # 128 MiB: OWASP's password storage cheat sheet
_ADVICE = (
    "draw one with llmbuffer.store.keys.new_key(), or derive one with Keyring.from_passphrase(…, salt=…)"
)

KeyLike: TypeAlias = "bytes | bytearray | str | Keyring | Callable[[], bytes | bytearray | str | Keyring]"


def new_key() -> str:
    """A new random key, as 64 hexadecimal digits.

    >>> len(bytes.fromhex(new_key()))
    32
    """
    return secrets.token_hex(KEY_BYTES)


def fingerprint_of(key: bytes) -> bytes:
    """What a key is known by in the store, eight bytes: it tells nothing of the key, nor of its name."""
    return hashlib.blake2b(key=key, digest_size=8, person=b"llmbuffer-key-id").digest()


class Keyring:
    """Keys by id: all of them open a store, ``current`` is the one that ``rotate`` moves it to.

    A key is 32 bytes, or their hexadecimal (64 digits) or base64 text. Ids are for people: they are not stored. Frozen.
    Raises ``SealError`` for a key of another length, for one of zeros, and for an unknown ``current``; one that is plainly not
    random is warned of in the log ``llmbuffer.store``.

    >>> ring = Keyring({"2026": new_key(), "2025": new_key()}, current="2026")
    >>> ring
    Keyring(['2025', '2026'], current='2026')
    """

    __slots__ = ("_by_fingerprint", "_ids", "current")

    def __init__(self, keys: Mapping[str, bytes | bytearray | str], current: str) -> None:
        if current not in keys:
            raise SealError(
                f"the current key {current!r} is not among {sorted(keys)}: give the id of one of them"
            )
        self.current = current
        self._ids = {name: _checked(name, key) for name, key in keys.items()}
        self._by_fingerprint = {fingerprint_of(key): key for key in self._ids.values()}

    @classmethod
    def of(cls, key: KeyLike) -> Keyring:
        """The keyring that ``key`` is, or makes: bytes, text, a ``Keyring``, or a callable that returns one of these."""
        if callable(key):
            key = key()
        return key if isinstance(key, Keyring) else cls({"key": key}, "key")

    @classmethod
    def from_passphrase(cls, passphrase: str, *, salt: bytes) -> Self:
        """A key derived with scrypt (128 MiB, about half a second). ``salt`` is 16 random bytes or more, kept for next time.

        Raises ``SealError`` for fewer, and for a passphrase of fewer than 12 characters.
        """
        if len(salt) < _SALT_BYTES:
            raise SealError(
                f"the salt has {len(salt)} bytes: draw 16 with secrets.token_bytes, and keep them"
            )
        if len(passphrase) < 12:
            raise SealError(f"the passphrase has {len(passphrase)} characters: give 12 or more, or {_ADVICE}")
        key = hashlib.scrypt(passphrase.encode(), salt=salt, dklen=KEY_BYTES, **_SCRYPT)
        return cls({"passphrase": key}, "passphrase")

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, sorted."""
        return tuple(sorted(self._ids))

    @property
    def current_key(self) -> bytes:
        """The key that the store is to be kept under."""
        return self._ids[self.current]

    def known(self, fingerprint: bytes) -> bytes | None:
        """The key with this fingerprint, if it is here."""
        return self._by_fingerprint.get(fingerprint)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """What the keys are known by in a store, in hexadecimal digits."""
        return tuple(sorted(each.hex() for each in self._by_fingerprint))

    def __repr__(self) -> str:
        return f"Keyring({list(self.ids)}, current={self.current!r})"


def _checked(name: str, key: bytes | bytearray | str) -> bytes:
    if isinstance(key, str):
        raw = _decoded(name, key)
    elif isinstance(key, bytes | bytearray):
        raw = bytes(key)
    else:
        raise SealError(
            f"key {name!r} is a {type(key).__name__}: give 32 bytes, or their hexadecimal or base64 text"
        )
    if len(raw) != KEY_BYTES:
        raise SealError(f"key {name!r} has {len(raw)} bytes, and AES-256 takes 32: {_ADVICE}")
    if not any(raw):
        raise SealError(f"key {name!r} is 32 zero bytes, as a buffer is that nobody has filled: {_ADVICE}")
    if len(set(raw)) < _FEWEST_VALUES or all(32 <= byte < 127 for byte in raw):
        _log.warning("key %r is text or a pattern, which can be guessed: %s", name, _ADVICE)
    return raw


def _decoded(name: str, text: str) -> bytes:
    readers: tuple[Callable[[str], bytes], ...] = (bytes.fromhex, _base64)
    for read in readers:
        try:
            raw = read(text)
        except (ValueError, binascii.Error):
            continue
        if len(raw) == KEY_BYTES:
            return raw
    raise SealError(
        f"key {name!r} is a text of {len(text)} characters that is neither 64 hexadecimal digits nor the base64 of 32 bytes; "
        f"a passphrase is no key: {_ADVICE}"
    )


def _base64(text: str) -> bytes:
    return base64.b64decode(text.translate(str.maketrans("-_", "+/")), validate=True)
