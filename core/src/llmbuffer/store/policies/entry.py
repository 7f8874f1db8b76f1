"""What stands in the books of a policy, what comes out of them, and what may go wrong."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from ...errors import CapacityError, PolicyError

__all__ = ["CapacityError", "Entry", "K", "PolicyError", "Victim"]

K = TypeVar("K", bound=Hashable)


class Victim(NamedTuple):
    """A key that is no longer held, what it weighed in bytes, and whether its time had passed."""

    key: Hashable
    weight: int
    expired: bool = False


class Entry(Generic[K]):
    """One key in the books. ``count`` and ``main`` are the policy's own; pins and expiry are the base's."""

    __slots__ = ("count", "expires", "key", "main", "pins", "price", "weight")

    def __init__(self, key: K, weight: int, price: float, expires: float | None) -> None:
        self.key = key
        self.weight = weight
        self.price = price
        self.expires = expires
        self.pins = 0
        self.count = 0
        self.main = False
