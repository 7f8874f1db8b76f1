"""Records in Redis: values, leases, contexts and whatever else a store keeps beside sessions."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from ...errors import StoreError
from ..backend import Record
from .base import ROWS, RedisBase
from .rows import Meta, meta_of, packed_meta
from .scripts import DROP, FORGET, PUT

__all__ = ["RedisRecords"]


class RedisRecords(RedisBase):
    """The part of ``RedisBackend`` that keeps records, and forgets what a session owns."""

    def put(self, space: bytes, record: Record) -> None:
        """See ``Backend``."""
        self._put(space, record, b"")

    def claim(self, space: bytes, record: Record, now: float) -> Record:
        """See ``Backend``."""
        found = self._put(space, record, struct.pack(">d", now))
        return meta_of(record.kind, record.key, *found).record if found else record

    def _put(self, space: bytes, record: Record, now: bytes) -> Any:
        keys, (meta, expires) = self.keys(space), packed_meta(record)
        values = [record.kind, record.key, meta, record.body, expires, now]
        return self.link.run(PUT, keys.all + keys.of(record.kind), values)

    def get(self, space: bytes, kind: str, key: bytes) -> Record | None:
        """See ``Backend``."""
        names = self.keys(space).of(kind)
        found = self.with_bodies([key], names[0], names[1])
        return meta_of(kind, *found[0]).record if found else None

    def drop(self, space: bytes, kind: str, key: bytes, owner: bytes | None = None) -> bool:
        """See ``Backend``. Raises ``StoreError`` if the answer was lost and the record is not there."""
        keys = self.keys(space)
        values = [key, 0 if owner is None else 1, owner or b"", kind]
        return self._gone(self.link.run_told(DROP, keys.all + keys.of(kind), values), f"{kind} {key!r}")

    def forget(self, space: bytes, key: bytes) -> bool:
        """See ``Backend``. Raises ``StoreError`` if the answer was lost and the session is not there."""
        keys = self.keys(space)
        values = [key, *bounds_of(key)]
        told = self.link.run_told(FORGET, keys.all + keys.of("original"), values)
        return self._gone(told, f"session {key!r}")

    @staticmethod
    def _gone(told: tuple[Any, bool], what: str) -> bool:
        done, lost = told
        if lost and not done:
            raise StoreError(
                f"{what} is not there, and the answer to the first try was lost: whether this call removed it cannot be told"
            )
        return bool(done)

    def records(self, space: bytes, kind: str | None = None, owner: bytes | None = None) -> Iterator[Record]:
        """See ``Backend``."""
        keys = self.keys(space)
        for each in self.kinds(keys) if kind is None else [kind]:
            names = keys.of(each)
            found = self._owned(names, owner) if owner else self._field_names(each, names, owner)
            for at in range(0, len(found), ROWS // 2):
                part = self.with_bodies(found[at : at + ROWS // 2], names[0], names[1])
                for row in sorted((meta_of(each, *three) for three in part), key=_came):
                    if owner is None or row.record.owner == owner:
                        yield row.record

    def _owned(self, names: list[str], owner: bytes) -> list[bytes]:
        low, high = bounds_of(owner)
        found = self.link.ask(lambda client: client.zrangebylex(names[2], low, high))
        return [member[len(low) - 1 :] for member in found]

    def _field_names(self, kind: str, names: list[str], owner: bytes | None) -> list[bytes]:
        metas = self._metas(kind, names[0])
        return [each.record.key for each in metas if owner is None or each.record.owner == owner]

    def _metas(self, kind: str, name: str) -> list[Meta]:
        found = self.link.ask(lambda client: client.hgetall(name))
        return sorted((meta_of(kind, key, value) for key, value in found.items()), key=_came)

    def weights(self, space: bytes, kind: str) -> Iterator[Record]:
        """See ``Backend``."""
        return (each.record for each in self._metas(kind, self.keys(space).of(kind)[0]))


def _came(row: Meta) -> int:
    return row.seq


def bounds_of(owner: bytes) -> tuple[bytes, bytes]:
    """Where the records of an owner begin in the order of bytes, and where they end."""
    start = len(owner).to_bytes(4, "big") + owner
    after = start.rstrip(b"\xff")
    return b"[" + start, b"(" + after[:-1] + bytes([after[-1] + 1])
