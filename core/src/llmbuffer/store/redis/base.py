"""What all parts of the Redis back end share: the link, the keys, and reading the fields of hashes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...errors import StoreError
from .link import SCHEMA_VERSION, Link
from .rows import Keys, keys_of
from .scripts import READ

__all__ = ["BYTES", "ROWS", "RedisBase"]

ROWS, BYTES = 1_000, 2**22  # of one script at most, so that others need not wait


class RedisBase:
    """A server under one prefix."""

    def __init__(self, url: str) -> None:
        self.link = Link(url)
        try:
            self._check_schema()
        except BaseException:
            self.link.close()
            raise

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.link.address.shown!r})"

    def _check_schema(self) -> None:
        from redis.exceptions import ResponseError

        def read(client: Any) -> Any:
            found = client.get(key)
            if found is None:
                try:
                    client.set(key, SCHEMA_VERSION, nx=True)
                except ResponseError:  # what can only be read is read all the same
                    return SCHEMA_VERSION
            return client.get(key)

        key = f"{self.link.address.prefix}schema"
        found = self.link.ask(read)
        if found not in (None, SCHEMA_VERSION):
            raise StoreError(
                f"store {self.link.address.shown!r} has schema version {found!r}, and this llmbuffer knows version "
                f"{SCHEMA_VERSION!r}: update llmbuffer, or export with the version that wrote it and import here"
            )

    def keys(self, space: bytes) -> Keys:
        """The keys of a space."""
        return keys_of(self.link.address.prefix, space)

    def scan(self, key: str) -> Iterator[tuple[bytes, bytes]]:
        """The fields of a hash, some of them twice; all that are there from beginning to end."""
        at = 0
        while True:
            found, at = self.some(key, at, ROWS)
            yield from found.items()
            if at == 0:
                return

    def some(self, key: str, at: int, count: int) -> tuple[dict[bytes, bytes], int]:
        """About so many fields of a hash, and where to go on; 0 where that was all."""
        cursor, found = self.link.ask(lambda client: client.hscan(key, at, count=count))
        return found, int(cursor)

    def with_bodies(self, names: list[bytes], heads: str, bodies: str) -> list[tuple[bytes, bytes, bytes]]:
        """Those of the names that are there, each with its head and its body, as of one moment."""
        if not names:
            return []
        three = zip(names, *self.link.run(READ, [heads, bodies], list(names)), strict=True)
        return [(name, head, body or b"") for name, head, body in three if head is not None]

    def kinds(self, keys: Keys) -> list[str]:
        """All kinds of records that a space ever had, sorted."""
        found: set[bytes] = self.link.ask(lambda client: client.smembers(keys.kinds))
        return sorted(kind.decode("utf-8", "surrogateescape") for kind in found)
