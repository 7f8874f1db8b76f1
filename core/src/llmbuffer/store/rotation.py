"""Moving a sealed store to another key while others read and write it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, get_args

import msgspec

from ..errors import CorruptStoreError, SealError
from .backend import NodeRow, Record, Reseals, Row, SessionRow, Table
from .envelope import Plain
from .records import encode, node_place, record_place, session_place
from .rights import needs
from .safe import HOME, Safe
from .sealed import Sealed, key_number
from .shelf import Shelf
from .tenancy import tenant_rows, tenants_of

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Rotated", "Rotation"]

_LEASE_SECONDS = 600.0
_PASSES = 3  # the second finds what was written by others during the first
_TABLES: tuple[Table, ...] = get_args(Table)


class Rotated(msgspec.Struct, frozen=True):
    """What a rotation did: the number of the store's new key, how many rows were sealed anew, how many were left.

    ``left`` were written by processes that had not seen the new key yet, or are damaged; they stay readable, and the next
    rotation takes them. ``vacuumed`` says whether the old bytes are overwritten (else ``vacuum`` later).

    >>> Rotated(number=2, rows=10, left=0, vacuumed=True).left
    0
    """

    number: int
    rows: int
    left: int
    vacuumed: bool


class Rotation(Shelf):
    """The part of ``Store`` that changes keys, and knows all tenants."""

    @needs("admin")
    def rotate(self, *, rows: int = 500) -> Rotated:
        """Draw a new key for the store, wrap its keys by the current key alone, and seal everything anew, for all tenants.

        The current key is that of the ``Keyring`` that the store was opened with. Readers and writers that have both keys go
        on; a slice of ``rows`` rows is one transaction. Broken off at any moment, the store is whole, and another rotation
        ends the work. Raises ``SealError`` for a store that is not sealed, that was opened for one tenant, that another
        process rotates, or whose back end cannot reseal.
        """
        safe, backend = self._whole("rotate"), self.backend
        if not isinstance(backend, Reseals):
            raise SealError(
                f"{type(backend).__name__} cannot reseal what it holds: export, and import into a new store with the new key"
            )
        with _Turn(safe, self.clock) as turn:
            number = safe.draw()
            safe.rewrap()
            done = left = 0
            for _ in range(_PASSES):
                fresh = left = 0
                for old, new in _passed(safe, backend, number, rows):
                    turn.renew()
                    fresh, left = fresh + new, left + old - new
                done += fresh
                if not fresh:
                    break
            return Rotated(number, done, left, backend.vacuum())

    @needs("admin")
    def tenants(self) -> tuple[str, ...]:
        """The names of all tenants of a sealed store, sorted; as ``rotate``, for a store that was not opened for one."""
        return tenants_of(self._whole("tenants"))

    def _whole(self, act: str) -> Safe:
        envelope = self.envelope
        if not isinstance(envelope, Sealed):
            raise SealError(f"{act} is for sealed stores, and this one was opened without key=")
        if envelope.space:
            raise SealError(f"{act} is for the whole store: open it without tenant=")
        return envelope.safe


class _Turn:
    """One process rotates at a time; one that died holds others up for ten minutes of the store's clock."""

    def __init__(self, safe: Safe, clock: Callable[[], float]) -> None:
        self._safe, self._clock = safe, clock
        self._owner = secrets.token_bytes(16)

    def __enter__(self) -> Self:
        self.renew()
        return self

    def renew(self) -> None:
        """Hold on to it; raises ``SealError`` if another process has it."""
        now = self._clock()
        record = Record("lease", b"rotate", b"", self._owner, now + _LEASE_SECONDS)
        record = record._replace(body=Plain().wrap(record_place(record), encode("rotate")))
        if self._safe.backend.claim(HOME, record, now).owner != self._owner:
            raise SealError(
                "another process rotates the keys of the store at this moment: try again when it has ended"
            )

    def __exit__(self, *_: object) -> None:
        self._safe.backend.drop(HOME, "lease", b"rotate", self._owner)


def _passed(safe: Safe, backend: Reseals, number: int, count: int) -> Iterator[tuple[int, int]]:
    """Seal anew what is under an older key, a slice at a time: how much that was, and how much of it was done."""
    tenants = tenant_rows(safe)
    home = Sealed(safe, HOME)
    yield _resealed(home, backend, [row for row in tenants if key_number(row.body) != number])
    for space in (b"", *(row.key for row in tenants)):
        envelope = Sealed(safe, space)
        for table in _TABLES:
            after = b""
            while True:
                rows, after = backend.page(space, table, after, count)
                yield _resealed(envelope, backend, [row for row in rows if key_number(row.body) != number])
                if not after:
                    break


def _resealed(envelope: Sealed, backend: Reseals, stale: list[Row] | list[Record]) -> tuple[int, int]:
    fresh: list[tuple[Row, bytes]] = []
    for row in stale:
        place = place_of(row)
        try:
            fresh.append((row, envelope.wrap(place, envelope.unwrap(place, row.body))))
        except CorruptStoreError:  # verify() lists it; it stays as it is
            continue
    return len(stale), backend.replace(envelope.space, fresh) if fresh else 0


def place_of(row: Row) -> bytes:
    """Where the body of any row stands."""
    if isinstance(row, NodeRow):
        return node_place(row)
    if isinstance(row, SessionRow):
        return session_place(row)
    return record_place(row)
