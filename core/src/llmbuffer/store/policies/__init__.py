"""Eviction policies: which entries of a store to keep.

`base` says how a store uses one. By name: ``lru``, ``lfu`` (aged), ``s3fifo``, ``arc`` (recency and frequency, balanced by
itself) and ``cost`` (price of making an entry anew, for each byte). All are exact, deterministic and without parameters
of their own.

They are made here because none of the caching libraries keeps books only: in `cachetools` (MIT) values live in the cache,
eviction shows the caller no victims to write elsewhere, there are no pins and no two bounds, its LFU never ages, and a
time to live is another cache class, not a property of an entry. `tests/benchmarks/eviction.py` compares them on recorded
traffic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Any

from .arc import ARC
from .base import Policy
from .entry import CapacityError, PolicyError, Victim
from .greedy import AgedLFU, Cost
from .lru import LRU
from .s3fifo import S3FIFO

__all__ = [
    "ARC",
    "LRU",
    "POLICIES",
    "S3FIFO",
    "AgedLFU",
    "CapacityError",
    "Cost",
    "Policy",
    "PolicyError",
    "Victim",
    "make_policy",
]

POLICIES: dict[str, type[Policy[Any]]] = {
    "arc": ARC,
    "cost": Cost,
    "lfu": AgedLFU,
    "lru": LRU,
    "s3fifo": S3FIFO,
}


def make_policy(
    name: str | Callable[..., Policy[Hashable]],
    capacity: int | None = None,
    entries: int | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Policy[Any]:
    """The policy of that name, or of that class, for ``capacity`` bytes and ``entries`` entries.

    Raises ``PolicyError`` for a name that is unknown.

    >>> make_policy("arc", capacity=1_000_000)
    <ARC capacity=1000000, entries=None: 0 entries, 0 bytes>
    """
    if callable(name):
        return name(capacity, entries, clock=clock)
    if name not in POLICIES:
        raise PolicyError(
            f"unknown eviction policy {name!r}: choose one of {', '.join(POLICIES)}, or pass a class"
        )
    return POLICIES[name](capacity, entries, clock=clock)
