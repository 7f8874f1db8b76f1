"""What a store says of itself: whether it is sealed, and its own keys, wrapped by those that it is opened with.

A sealed store has keys of its own, drawn at random when it is first opened and numbered: number 0 names things and stays,
the highest one seals. Each lies there once for every key that may open it, so that a new key costs one small record, and
a name or a digest never changes.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from ..errors import CorruptStoreError, SealError, StoreError
from .backend import Backend, Record
from .ciphers import aes, derived
from .envelope import Plain
from .keys import KeyLike, Keyring, fingerprint_of
from .records import decode, encode, record_place

__all__ = ["HOME", "Marker", "Safe", "marked_plain", "slot_place"]

HOME = b"seal"  # the space of what a store says of itself; those of tenants have 16 bytes
MARKER_KEY = b"marker"
NAMING = 0  # the number of the key that names
_REFRESH_SECONDS = 5.0
_READINGS = 5
_PLAIN = Plain()


class Marker(msgspec.Struct, frozen=True):
    """Whether a store is sealed, and its random id."""

    sealed: bool
    store_id: bytes
    version: int = 1


class _Slot(NamedTuple):
    """One of the store's keys, wrapped by one of those that may open it; without a fingerprint, what proves the key."""

    number: int
    fingerprint: bytes
    wrapped: bytes


def marked_plain(backend: Backend) -> Marker:
    """The marker of a store that is not sealed; one that has none gets one.

    Raises ``SealError`` for a store that is sealed, and ``CorruptStoreError`` for one whose marker cannot be read.
    """
    found = _marker(backend)
    if found is None:
        found = Marker(False, secrets.token_bytes(16))
        with suppress(StoreError):  # one that is only read goes without
            backend.append(HOME, [], None, [_record(MARKER_KEY, encode(found), b"")])
            found = _marker(backend) or found
    if found.sealed:
        raise SealError("the store is sealed: open it with key=")
    return found


def _marker(backend: Backend) -> Marker | None:
    """The marker, or ``None`` for a store that has none and nothing that would need one."""
    found = backend.get(HOME, "seal", MARKER_KEY)
    try:
        if found is not None:
            return decode(_PLAIN.unwrap(record_place(found), found.body), Marker)
    except CorruptStoreError:
        if _has_keys(backend):
            raise
        return Marker(False, b"")  # a plain store that is damaged: verify() tells, the rest is readable
    if _has_keys(backend):
        raise CorruptStoreError(
            "the marker of the store is missing, and its keys are there: restore it from a backup"
        )
    return None


def _has_keys(backend: Backend) -> bool:
    return any(record.key != MARKER_KEY for record in backend.records(HOME))


def _marked_sealed(backend: Backend) -> Marker | None:
    """The marker of a sealed store, or ``None`` for an empty one."""
    found = _marker(backend)
    size = backend.size(b"")
    if found is None and not (size.nodes or size.sessions or size.records):
        return None
    if found is None or not found.sealed:
        raise SealError(
            "the store is not sealed, and a key was given: leave key= out, or export it, and import it into a new store that "
            "is opened with key="
        )
    return found


def _record(key: bytes, body: bytes, owner: bytes) -> Record:
    record = Record("seal", key, b"", owner, pinned=True)
    return record._replace(body=_PLAIN.wrap(record_place(record), body))


def slot_place(store_id: bytes, number: int, fingerprint: bytes) -> bytes:
    """Where a wrapped key stands: it opens there and nowhere else."""
    return encode(("llmbuffer-slot", 1, store_id, number, fingerprint))


class Safe:
    """The store's own keys, opened. ``key`` may be a callable: it is asked again when the store was moved to another key.

    Raises ``SealError`` where none of the given keys opens them. Thread-safe: what is read anew replaces the old as a whole.
    """

    def __init__(self, backend: Backend, key: KeyLike, clock: Callable[[], float]) -> None:
        self.backend, self._clock, self._given = backend, clock, key
        self.keyring = Keyring.of(key)
        aes(self.keyring.current_key)  # the error that names the extra, before anything is written
        self.marker = _marked_sealed(backend) or self._founded()
        self._keys: dict[int, bytes] = {}
        self._read_at = 0.0
        self.refresh()

    def _founded(self) -> Marker:
        """Draw the keys of a new store; whoever is first wins, by one atomic step."""
        self.marker = Marker(True, secrets.token_bytes(16))
        ours = [record for number in (NAMING, 1) for record in self._drawn(number)]
        self.backend.append(HOME, [], None, [_record(MARKER_KEY, encode(self.marker), b""), *ours])
        stands = _marker(self.backend)
        if stands is None or stands.store_id != self.marker.store_id:
            for record in ours:
                self.backend.drop(HOME, "seal", record.key)
        return _marked_sealed(self.backend) or self._founded()

    def _drawn(self, number: int) -> list[Record]:
        """A new key: what proves it, which can be written once, and the key as our current one wraps it."""
        secret, store_id = secrets.token_bytes(32), self.marker.store_id
        proof = encode(_Slot(number, b"", _proof(secret)))
        return [_record(_slot_key(store_id, number, b""), proof, store_id), self._slot(number, secret)]

    def _slot(self, number: int, secret: bytes) -> Record:
        """One of the store's keys, wrapped by the current key."""
        key, store_id = self.keyring.current_key, self.marker.store_id
        fingerprint, nonce = fingerprint_of(key), secrets.token_bytes(12)
        place = slot_place(store_id, number, fingerprint)
        wrapped = nonce + aes(derived(key, store_id, place)).encrypt(nonce, secret, place)
        told = encode(_Slot(number, fingerprint, wrapped))
        return _record(_slot_key(store_id, number, fingerprint), told, store_id)

    def _slots(self) -> list[_Slot]:
        rows = self.backend.records(HOME, "seal", self.marker.store_id)
        return [decode(_PLAIN.unwrap(record_place(row), row.body), _Slot) for row in rows]

    def refresh(self) -> None:
        """Read anew which keys there are. Raises ``SealError`` where ours open them no longer; what was known stays."""
        # Not every back end lists rows as of one moment: while the keys are wrapped anew, a list may miss some.
        for _ in range(_READINGS):
            slots = self._slots()
            opened, wanted = self._openable(slots)
            if opened.keys() == wanted and len(opened) > 1:
                break
        else:
            if callable(self._given) and not opened:
                self.keyring = Keyring.of(self._given)
                opened, _ = self._openable(slots)
            if NAMING not in opened or len(opened) < 2:
                needed = sorted({slot.fingerprint.hex() for slot in slots if slot.fingerprint})
                raise SealError(
                    f"the store opens with a key of fingerprint {' or '.join(needed) or '(none is left)'}, and those given "
                    f"have {', '.join(self.keyring.fingerprints)}: give the right key; if it was rotated, the new one"
                )
        self._keys, self._read_at = opened, self._clock()

    def _openable(self, slots: list[_Slot]) -> tuple[dict[int, bytes], set[int]]:
        """The keys that ours open, and the numbers of all."""
        proofs = {slot.number: slot.wrapped for slot in slots if not slot.fingerprint}
        found = [(slot.number, self._opened(slot)) for slot in slots]
        # A key that was drawn by two at once counts for the one whose proof was first.
        opened = {
            number: key for number, key in found if key is not None and proofs.get(number) == _proof(key)
        }
        return opened, set(proofs)

    def _opened(self, slot: _Slot) -> bytes | None:
        from cryptography.exceptions import InvalidTag

        key, store_id = self.keyring.known(slot.fingerprint), self.marker.store_id
        if key is None:
            return None
        place = slot_place(store_id, slot.number, slot.fingerprint)
        try:
            cipher = aes(derived(key, store_id, place))
            return bytes(cipher.decrypt(slot.wrapped[:12], slot.wrapped[12:], place))
        except InvalidTag:
            raise CorruptStoreError(
                f"the store's key number {slot.number} was changed: restore the store from a backup"
            ) from None

    def check(self) -> list[str]:
        """What is wrong with the marker and the wrapped keys, in words."""
        try:
            self.refresh()
        except StoreError as error:
            return [str(error)]
        return []

    # Using them

    @property
    def current(self) -> int:
        """The number of the key that seals; looked up anew every five seconds."""
        since = self._clock() - self._read_at
        if not 0 <= since < _REFRESH_SECONDS:
            self.refresh()
        return max(self._keys)

    def secret(self, number: int) -> bytes:
        """A key of the store. Raises ``SealError`` for one that ours do not open, ``CorruptStoreError`` if there is none."""
        if number not in self._keys:
            self.refresh()
        if number not in self._keys:
            if any(slot.number == number and slot.fingerprint for slot in self._slots()):
                raise SealError(
                    f"key number {number} of the store was wrapped by a newer key: open the store with that one"
                )
            raise CorruptStoreError(
                f"a value is sealed by key number {number}, and the store has none: it was changed"
            )
        return self._keys[number]

    def derive(self, number: int, purpose: bytes, length: int = 32) -> bytes:
        """A key for one purpose, from one of the store's keys."""
        return derived(self.secret(number), self.marker.store_id, purpose, length)

    # Moving to another key

    def draw(self) -> int:
        """Add a new sealing key under the current one; returns its number.

        Raises ``SealError`` if another process did the same at this moment, under a key that is not ours.
        """
        self.refresh()
        number = max(self._keys) + 1
        self.backend.append(HOME, [], None, self._drawn(number))
        self.refresh()
        if number not in self._keys:
            raise SealError(
                "another process rotates the keys of the store at this moment: try again when it has ended"
            )
        return number

    def rewrap(self) -> int:
        """Wrap all keys of the store by the current key, and by no other. Returns how many of the older ways in are gone.

        What ours do not open stays as it is.
        """
        self.refresh()
        ours = fingerprint_of(self.keyring.current_key)
        # Listed before ours are added: of two that do this at once, neither takes away what the other added after it.
        stale = [
            slot
            for slot in self._slots()
            if slot.number in self._keys and slot.fingerprint not in (b"", ours)
        ]
        self.backend.append(HOME, [], None, [self._slot(number, key) for number, key in self._keys.items()])
        for slot in stale:
            name = _slot_key(self.marker.store_id, slot.number, slot.fingerprint)
            self.backend.drop(HOME, "seal", name)
        return len(stale)


def _slot_key(store_id: bytes, number: int, fingerprint: bytes) -> bytes:
    return store_id + number.to_bytes(4, "big") + fingerprint


def _proof(secret: bytes) -> bytes:
    """What tells one random key from another, and nothing else of it."""
    return blake2b(key=secret, digest_size=16, person=b"llmbuffer-proof").digest()
