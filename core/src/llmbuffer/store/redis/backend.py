"""A store in a Redis or Valkey server: shared by machines, and as safe as the server's files are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ...errors import StoreError
from ..backend import Backend, Record, Row, SessionRow, Size, Swept, Table
from .base import ROWS
from .check import counted_wrong, server_findings
from .files import rewritten
from .records import RedisRecords
from .rows import meta_of, node_of, session_of
from .scripts import KIND_KEYS, REPLACE, SIZE, SWEEP, SWEEP_RECORDS
from .sessions import RedisSessions

__all__ = ["RedisBackend", "open_redis"]


class RedisBackend(RedisSessions, RedisRecords):
    """Rows under one prefix of a server. Thread-safe; a forked process makes its own connections.

    Every step is one script, which checks before it writes. More than 1,000 rows, or 4 MiB, are appended in slices: a
    slice is reachable from no session until the last one sets the session, and guarded from sweeps for a minute. What was
    acknowledged is as durable as the server's settings make it: ``appendonly yes`` and ``appendfsync always`` for what
    ``Backend`` promises. A write whose answer was lost is tried once more, and is in once.

    ``patience`` is how many seconds ``vacuum`` waits. Raises ``StoreError`` where the server cannot be reached or refuses.

    >>> RedisBackend("redis://ann:secret@127.0.0.1:1/0")
    Traceback (most recent call last):
    llmbuffer.errors.StoreError: ...'redis://ann@127.0.0.1:1/0'...
    """

    def __init__(self, url: str, *, patience: float = 30.0) -> None:
        super().__init__(url)
        self.patience = patience

    def sweep(self, space: bytes, now: float) -> Swept:
        """See ``Backend``. It is done in slices; each of them leaves a store that is whole."""
        keys, nodes, records = self.keys(space), 0, 0
        while True:
            gone, left = self.link.run(SWEEP, keys.all, [ROWS])
            nodes += gone
            if not left:
                break
        for kind in self.kinds(keys):
            more = 1
            while more:
                values = [kind, repr(float(now)), ROWS]
                gone, more = self.link.run(SWEEP_RECORDS, keys.all + keys.of(kind), values)
                records += gone
        return Swept(nodes, records)

    def page(self, space: bytes, table: Table, after: bytes, count: int) -> tuple[list[Row], bytes]:
        """See ``Reseals``. The server may give some rows more than ``count``."""
        keys = self.keys(space)
        cursor, _, kind = after.decode("utf-8", "surrogateescape").partition(" ")
        if table == "sessions":
            found, at = self.some(keys.sessions, int(cursor or 0), count)
            return [session_of(key, value) for key, value in found.items()], _place(at)
        if table == "nodes":
            found, at = self.some(keys.links, int(cursor or 0), count)
            triples = self.with_bodies(list(found), keys.links, keys.bodies)
            return [node_of(*each) for each in triples], _place(at)
        kinds = [each for each in self.kinds(keys) if each >= kind]
        if not kinds:
            return [], b""
        names = keys.of(kinds[0])
        found, at = self.some(names[0], int(cursor or 0), count)
        rows = [meta_of(kinds[0], *each).record for each in self.with_bodies(list(found), names[0], names[1])]
        if at == 0 and kinds[1:]:
            return list(rows), f"0 {kinds[1]}".encode("utf-8", "surrogateescape")
        return list(rows), _place(at, kinds[0])

    def replace(self, space: bytes, rows: Sequence[tuple[Row, bytes]]) -> int:
        """See ``Reseals``."""
        keys = self.keys(space)
        kinds = list(dict.fromkeys(row.kind for row, _ in rows if isinstance(row, Record)))
        values: list[Any] = []
        for row, body in rows:
            if isinstance(row, Record):
                values += [len(keys.all) + len(KIND_KEYS) * kinds.index(row.kind) + 2, row.key]
            else:
                values += ["session", row.key] if isinstance(row, SessionRow) else ["node", row.digest]
            values += [row.body, body]
        return int(
            self.link.run(REPLACE, [*keys.all, *(name for kind in kinds for name in keys.of(kind))], values)
        )

    def vacuum(self) -> bool:
        """Have the server write its files anew, and wait for it: its log (AOF), its snapshot, or both, as it is configured.

        Then no file that it reads holds what was removed. What no program can overwrite through a server stays until
        others use the room: blocks that the file system freed, backups. False if it took more than ``patience`` seconds,
        or if the server does not let this user do it.
        """
        return rewritten(self.link, time.monotonic, self.patience)

    def size(self, space: bytes) -> Size:
        """See ``Backend``; ``file_bytes`` is the memory that the keys of this space take, as the server estimates it."""
        keys = self.keys(space)
        names = [*keys.all, *(name for kind in self.kinds(keys) for name in keys.of(kind))]
        return Size(*map(int, self.link.run(SIZE, names, [])))

    def check(self) -> list[str]:
        """See ``Backend``: settings of the server under which it may lose what it acknowledged, and counts that are wrong.

        Counts are compared only if nobody writes meanwhile.
        """
        try:
            return [*server_findings(self.link), *counted_wrong(self.link)]
        except StoreError as error:
            return [str(error)]

    def close(self) -> None:
        """See ``Backend``."""
        self.link.close()


def _place(cursor: int, kind: str = "") -> bytes:
    """Where to go on; empty where a scan has come to its end."""
    return f"{cursor} {kind}".encode("utf-8", "surrogateescape") if cursor else b""


def open_redis(url: str) -> Backend:
    """The back end for ``redis://``, ``rediss://``, ``valkey://``, ``valkeys://`` and ``unix://``; see ``address_of``.

    >>> open_redis("redis://localhost/zero")
    Traceback (most recent call last):
    llmbuffer.errors.StoreError: 'redis://localhost/zero': 'zero' is no number of a database; ...
    """
    return RedisBackend(url)
