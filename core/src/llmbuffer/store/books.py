"""Which values stay: the books of an eviction policy, kept level with what other processes put and drop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

from ..errors import CorruptStoreError, StoreError
from .backend import Backend, Record
from .policies import Policy, PolicyError, make_policy

__all__ = ["Books"]


class Books:
    """The values of one space, as one process sees them: their keys, weights and uses.

    Uses are counted by each process for itself, so that reading writes nothing; what others put is taken in before room
    is made. ``shown`` gives the weight and price of a stored value, where they are sealed.
    """

    def __init__(
        self,
        backend: Backend,
        space: bytes,
        policy: str | Callable[..., Policy[Any]],
        capacity: int,
        clock: Callable[[], float],
        shown: Callable[[Record], Record] = lambda record: record,
    ) -> None:
        self._backend, self._space, self._clock, self._shown = backend, space, clock, shown
        self._lock = RLock()
        with _as_store_errors():
            self._policy: Policy[bytes] = make_policy(policy, capacity, clock=clock)

    def put(self, record: Record, stored: Record) -> None:
        """Make room for a value and store it; raises ``StoreError`` if it cannot fit, and changes nothing then."""
        with self._lock, _as_store_errors():
            self._level()
            self._drop(self._add(record))
            self._backend.put(self._space, stored)

    def touched(self, key: bytes) -> None:
        """A value was read."""
        with self._lock:
            self._policy.touch(key)

    def left(self, key: bytes) -> None:
        """A value is gone."""
        with self._lock:
            self._policy.remove(key)

    def _add(self, record: Record) -> list[Any]:
        ttl = None if record.expires is None else max(1e-9, record.expires - self._clock())
        victims = self._policy.add(record.key, max(1, record.weight), price=record.price, ttl=ttl)
        while self._policy.unpin(record.key):  # a replaced key keeps its pins
            pass
        if record.pinned:
            self._policy.pin(record.key)
        return victims

    def _level(self) -> None:
        """Take in what other processes put, and leave out what they dropped."""
        stored = {record.key: record for record in self._backend.weights(self._space, "value")}
        for key in self._policy:
            if key not in stored:
                self._policy.remove(key)
        known = set(self._policy)
        for key in [key for key in stored if key not in known]:  # oldest first, as they are given
            try:
                record = self._shown(stored[key])
            except CorruptStoreError:  # verify() lists it; what it weighs, nobody can tell
                continue
            if record.pinned or record.expires is None or record.expires > self._clock():
                self._drop(self._add(record))
            else:
                self._backend.drop(self._space, "value", key)

    def _drop(self, victims: list[Any]) -> None:
        for victim in victims:
            self._backend.drop(self._space, "value", victim.key)


@contextmanager
def _as_store_errors() -> Iterator[None]:
    try:
        yield
    except PolicyError as error:
        raise StoreError(str(error)) from error
