"""Values, compiled contexts, leases and originals: what a store keeps beside sessions."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ..errors import StoreError
from ..messages import Message
from .backend import Record
from .books import Books
from .records import Compiled, decode, decode_message, encode, encode_message
from .rights import needs
from .shelf import Shelf

__all__ = ["Lease", "Values"]


class Lease(NamedTuple):
    """Who holds a name, and until when by the store's clock, in seconds."""

    name: str
    owner: str
    until: float


class Values(Shelf):
    """The part of ``Store`` that keeps single values."""

    books: Books

    # Values

    @needs("write")
    def put(
        self,
        key: str,
        value: bytes,
        *,
        ttl: float | None = None,
        weight: int | None = None,
        price: float | None = None,
        pinned: bool = False,
    ) -> None:
        """Keep ``value`` under ``key`` for ``ttl`` seconds (default: for ever), and evict others if there is no room.

        ``weight`` is what it counts for, in bytes (default: its length); ``price`` what making it anew costs, in any unit that
        is the same for all, for the policy ``cost``. A pinned value is neither evicted nor does it expire. Raises ``StoreError``
        for a value that is heavier than the capacity, or than what pinned ones leave of it.
        """
        counted = len(value) if weight is None else weight
        if not isinstance(value, bytes) or counted < 0 or (ttl is not None and not ttl > 0):
            raise StoreError(
                f"value {key!r} is a {type(value).__name__} with ttl={ttl!r}, weight={weight!r}: give bytes, and numbers "
                "that are positive"
            )
        expires = None if ttl is None else float(self.clock() + ttl)
        name = self.envelope.name("value", key)
        # What a back end gives back is a float, whatever was given, and the check value covers it.
        worth = None if price is None else float(price)
        record = Record("value", name, encode((key, value)), b"", expires, counted, bool(pinned), worth)
        self.books.put(record, self.wrapped(record))

    @needs("read")
    def get(self, key: str) -> bytes | None:
        """The value, or ``None`` if there is none or it has expired."""
        name = self.envelope.name("value", key)
        found = self.backend.get(self.space, "value", name)
        if found is None or self._expired(found):
            self.books.left(name)
            return None
        self.books.touched(name)
        return self._value(found)[1]

    @needs("write")
    def drop(self, key: str) -> bool:
        """Remove a value; whether there was one."""
        name = self.envelope.name("value", key)
        self.books.left(name)
        return self.backend.drop(self.space, "value", name)

    @needs("write")
    def pin(self, key: str, pinned: bool = True) -> None:
        """Keep a value from eviction, or no longer. Raises ``StoreError`` where there is none."""
        found = self.backend.get(self.space, "value", self.envelope.name("value", key))
        if found is None or self._expired(found):
            raise StoreError(f"there is no value {key!r} to pin: put it first")
        record = self.shown(found)._replace(body=self.record_body(found), pinned=pinned)
        self.books.put(record, self.wrapped(record))

    @needs("read")
    def keys(self) -> tuple[str, ...]:
        """The keys of all values that have not expired."""
        records = self.backend.records(self.space, "value")
        return tuple(self._value(record)[0] for record in records if not self._expired(record))

    def _value(self, record: Record) -> tuple[str, bytes]:
        return decode(self.record_body(record), tuple[str, bytes])

    def _expired(self, record: Record) -> bool:
        return record.expires is not None and record.expires <= self.clock() and not record.pinned

    # Compiled contexts

    @needs("write")
    def put_compiled(self, compiled: Compiled) -> None:
        """Keep a stable context as a dialect sends it, and the provider's handle on it."""
        name = self._compiled_name(compiled.fingerprint, compiled.dialect)
        owner = self.envelope.name("fingerprint", compiled.fingerprint)
        record = Record("compiled", name, encode(compiled), owner)
        self.backend.put(self.space, self.wrapped(record))

    @needs("read")
    def compiled(self, fingerprint: str, dialect: str) -> Compiled | None:
        """The compiled context, if there is one."""
        return self._compiled(fingerprint, dialect)

    def _compiled(self, fingerprint: str, dialect: str) -> Compiled | None:
        found = self.backend.get(self.space, "compiled", self._compiled_name(fingerprint, dialect))
        return None if found is None else decode(self.record_body(found), Compiled)

    @needs("write")
    def warmed(self, fingerprint: str, dialect: str, at: float | None = None) -> None:
        """Note when a compiled context was last sent (default: now). Without one, nothing is noted."""
        found = self._compiled(fingerprint, dialect)
        if found is not None:
            self.put_compiled(msgspec.structs.replace(found, warm_at=self.clock() if at is None else at))

    def _compiled_name(self, fingerprint: str, dialect: str) -> bytes:
        return self.envelope.name("compiled", f"{fingerprint}/{dialect}")

    # Leases

    @needs("write")
    def take(self, name: str, owner: str, seconds: float) -> bool:
        """Hold ``name`` for ``seconds`` from now, unless somebody else does; whether ``owner`` holds it."""
        until = self.clock() + seconds
        where, by = self.envelope.name("lease", name), self.envelope.name("owner", owner)
        record = Record("lease", where, encode((name, owner, until)), by, until)
        return self.backend.claim(self.space, self.wrapped(record), self.clock()).owner == by

    @needs("write")
    def renew(self, name: str, owner: str, seconds: float) -> bool:
        """Hold it for ``seconds`` from now, if ``owner`` still does; False if it was lost meanwhile."""
        found = self.backend.get(self.space, "lease", self.envelope.name("lease", name))
        if found is None or found.owner != self.envelope.name("owner", owner):
            return False
        return self.take(name, owner, seconds)

    @needs("write")
    def release(self, name: str, owner: str) -> bool:
        """Let go; whether ``owner`` held it."""
        where, by = self.envelope.name("lease", name), self.envelope.name("owner", owner)
        return self.backend.drop(self.space, "lease", where, by)

    @needs("read")
    def holder(self, name: str) -> Lease | None:
        """Who holds a name now."""
        found = self.backend.get(self.space, "lease", self.envelope.name("lease", name))
        if found is None or self._expired(found):
            return None
        return Lease(*decode(self.record_body(found), tuple[str, str, float]))

    # Originals of compacted messages

    @needs("write")
    def keep_original(self, session_id: str, name: str, message: Message) -> None:
        """Keep what a compaction replaced, until the session is forgotten."""
        owner = self.envelope.name("session", session_id)
        where = self.envelope.name("original", f"{session_id}/{name}")
        record = Record("original", where, encode((session_id, name, encode_message(message))), owner)
        self.backend.put(self.space, self.wrapped(record))

    @needs("read")
    def original(self, session_id: str, name: str) -> Message | None:
        """What a compaction replaced, if it was kept."""
        where = self.envelope.name("original", f"{session_id}/{name}")
        found = self.backend.get(self.space, "original", where)
        if found is None:
            return None
        return decode_message(decode(self.record_body(found), tuple[str, str, bytes])[2])
