"""What eviction policies share: entries with a weight, a price, pins and a time to live, within two bounds.

A policy keeps books and holds no values. The store that owns the values tells it what happens, and drops what it names:

    for victim in policy.add(key, len(blob), price=tokens, ttl=3600):   # first make room: this may raise
        del values[victim.key]                # or write it to a slower tier; `victim.expired` says what is not worth it
    values[key] = blob
    …
    if policy.touch(key):                     # False: never added, evicted, or past its time
        return values[key]

- `add` makes room before the newcomer comes in, so it never evicts what it adds, and never names the key it was given.
- Bytes and entries are both bounds; either may be None. A weight is at least 1, so the books are bounded too.
- A pinned key is neither evicted nor expired; pins are counted. Only `remove` takes it.
- Whatever raises has changed nothing.
- Time is read only for entries with a TTL. Where the clock was set back since the last reading, no time has passed: from
  then on it goes on as before, so a clock that is corrected by an hour does not make entries live an hour longer.
- Not safe for threads by itself: values and books must change together, so the store holds one lock around both.
  Lists are returned and iteration runs over a copy of the keys, so no caller iterates over what another changes.

A subclass gives an order and nothing else: `_enter`, `_leave`, `_used`, `_choose`, and `_admit` if it remembers what it
evicted. Pinned entries are outside that order: `_leave` at the first pin, `_enter` and `_used` when the last one goes.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Generic

from .entry import CapacityError, Entry, K, PolicyError, Victim
from .order import Ranking

__all__ = ["Policy"]


class Policy(ABC, Generic[K]):
    """Which entries to keep within ``capacity`` bytes and at most ``entries`` of them.

    At least one bound must be given. ``clock`` returns seconds; the default does not follow the wall clock.
    """

    def __init__(
        self,
        capacity: int | None = None,
        entries: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, bound in (("capacity", capacity), ("entries", entries)):
            if bound is not None and bound < 1:
                raise PolicyError(f"{name} is {bound!r}: give at least 1, or None for no bound")
        if capacity is None and entries is None:
            raise PolicyError(
                "neither capacity nor entries is given: without a bound nothing is ever evicted"
            )
        self.capacity = capacity
        self.entries = entries
        self._most_bytes = math.inf if capacity is None else capacity
        self._most_entries = math.inf if entries is None else entries
        self._clock = clock
        self._latest = -math.inf  # the clock's last reading
        self._lost = 0.0  # seconds by which the clock was set back so far
        self._held: dict[K, Entry[K]] = {}
        self._expiries: Ranking[K] = Ranking()
        self._weight = 0
        self._pinned_weight = 0
        self._pinned = 0

    # What a policy decides.

    @abstractmethod
    def _enter(self, entry: Entry[K]) -> None:
        """Take an entry into the order: a new one, or one that `_leave` took out."""

    @abstractmethod
    def _leave(self, entry: Entry[K]) -> None:
        """Take an entry out of the order, wherever it stands."""

    @abstractmethod
    def _used(self, entry: Entry[K]) -> None:
        """Note the use of an entry that is in the order."""

    @abstractmethod
    def _choose(self) -> Entry[K]:
        """Take the next victim out of the order, which is not empty, and return it."""

    def _admit(self, entry: Entry[K]) -> None:
        """Look at a key that is not held, before room is made for it."""

    # What a store calls.

    @property
    def weight(self) -> int:
        """Bytes held, pinned ones and those past their time included."""
        return self._weight

    @property
    def pinned_weight(self) -> int:
        """Bytes that are pinned."""
        return self._pinned_weight

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: object) -> bool:
        """Whether the key is held and its time has not passed; this is no use of it."""
        entry = self._held.get(key)  # type: ignore[arg-type]  # any object may be asked for
        return entry is not None and not self._expired(entry)

    def __iter__(self) -> Iterator[K]:
        """The keys held when the iteration began, in no particular order; the policy may change meanwhile."""
        return iter(list(self._held))

    def __repr__(self) -> str:
        bounds = f"capacity={self.capacity!r}, entries={self.entries!r}"
        return f"<{type(self).__name__} {bounds}: {len(self)} entries, {self._weight} bytes>"

    def touch(self, key: K) -> bool:
        """Note a use of ``key``; False if it is not held or its time has passed, and then it counts as a miss."""
        entry = self._held.get(key)
        if entry is None or (entry.expires is not None and self._expired(entry)):
            return False
        if not entry.pins:
            self._used(entry)
        return True

    def add(
        self, key: K, weight: int, *, price: float | None = None, ttl: float | None = None
    ) -> list[Victim]:
        """Hold ``key`` of ``weight`` bytes, and return what had to go for it; what is past its time goes first.

        ``price`` is what making the entry anew costs, in any unit that is the same for all (tokens, money); without one
        each byte costs the same. ``ttl`` is in seconds. A key that is held is replaced, which counts as a use and keeps
        its pins; its old price and time are forgotten.

        Raises ``CapacityError`` if the entry is larger than the capacity, or than what pins leave of it.
        """
        self._check_sense(key, weight, price, ttl)
        entry = Entry(
            key, weight, weight if price is None else price, None if ttl is None else self._now() + ttl
        )
        old = self._held.get(key)
        if self._pinned or self._over(weight, 1):
            self._check_fits(entry, old)
        known = None if old is None or self._expired(old) else old
        if old is not None:
            self._forget(old)
        if known is None:
            self._admit(entry)
        else:
            entry.pins, entry.count, entry.main = known.pins, known.count, known.main
        victims = self.expire() if self._expiries else []
        if self._over(weight, 1):
            victims += self._make_room(self._most_bytes - weight, self._most_entries - 1)
        self._hold(entry, known=known is not None)
        return victims

    def remove(self, key: K) -> bool:
        """Forget ``key``, pinned or not; False if it was not held. It is not named as a victim."""
        entry = self._held.get(key)
        if entry is None:
            return False
        self._forget(entry)
        return True

    def pin(self, key: K) -> bool:
        """Hold on to ``key`` until ``unpin`` was called as often; False if it is not held or its time has passed."""
        entry = self._held.get(key)
        if entry is None or self._expired(entry):
            return False
        if not entry.pins:
            self._leave(entry)
            self._expiries.drop(key)
            self._pinned_weight += entry.weight
            self._pinned += 1
        entry.pins += 1
        return True

    def unpin(self, key: K) -> bool:
        """Take one pin off; False if there is none. When the last goes, all that happened under it counts as one use."""
        entry = self._held.get(key)
        if entry is None or not entry.pins:
            return False
        entry.pins -= 1
        if not entry.pins:
            self._pinned_weight -= entry.weight
            self._pinned -= 1
            self._enter(entry)
            self._used(entry)
            if entry.expires is not None:
                self._expiries.put(key, entry.expires)
        return True

    def expire(self) -> list[Victim]:
        """Drop what is past its time and not pinned, the longest past first, and return it."""
        victims: list[Victim] = []
        if not self._expiries:
            return victims
        now = self._now()
        while self._expiries and self._expiries.lowest()[0] <= now:
            entry = self._held[self._expiries.lowest()[1]]
            self._forget(entry)
            victims.append(Victim(entry.key, entry.weight, expired=True))
        return victims

    def evict_until(self, weight: int | None = None, entries: int | None = None) -> list[Victim]:
        """Evict down to ``weight`` bytes and ``entries`` entries (None: as they are), and return what went.

        Raises ``CapacityError`` if the pinned entries alone are more.
        """
        target, number = (math.inf if bound is None else bound for bound in (weight, entries))
        if self._pinned_weight > target or self._pinned > number:
            raise CapacityError(
                f"cannot evict down to weight={weight!r}, entries={entries!r}: {self._pinned} pinned entries hold "
                f"{self._pinned_weight} bytes; unpin some first"
            )
        return self.expire() + self._make_room(target, number)

    # The books.

    def _now(self) -> float:
        """The clock's time, with every step back taken out."""
        reading = self._clock()
        if reading < self._latest:
            self._lost += self._latest - reading
        self._latest = reading
        return reading + self._lost

    def _expired(self, entry: Entry[K]) -> bool:
        return entry.expires is not None and not entry.pins and entry.expires <= self._now()

    def _over(self, weight: int, number: int) -> bool:
        """Whether ``number`` more entries of ``weight`` bytes in all would be too much."""
        return self._weight + weight > self._most_bytes or len(self._held) + number > self._most_entries

    def _check_sense(self, key: K, weight: int, price: float | None, ttl: float | None) -> None:
        if weight >= 1 and (price is None or 0 <= price < math.inf) and (ttl is None or ttl > 0):
            return
        raise PolicyError(
            f"cannot hold {key!r} with weight={weight!r}, price={price!r}, ttl={ttl!r}: "
            "give a weight of at least 1, a finite price of at least 0 and a ttl above 0"
        )

    def _check_fits(self, entry: Entry[K], old: Entry[K] | None) -> None:
        if entry.weight > self._most_bytes:
            raise CapacityError(
                f"cannot hold {entry.key!r}: it weighs {entry.weight} bytes and the capacity is {self.capacity}; "
                "raise the capacity or store it in pieces"
            )
        own = old if old is not None and old.pins else None  # what is pinned under the key is replaced
        weight = self._pinned_weight - (own.weight if own else 0)
        number = self._pinned - (1 if own else 0)
        if weight + entry.weight > self._most_bytes or number + 1 > self._most_entries:
            raise CapacityError(
                f"cannot hold {entry.key!r} of {entry.weight} bytes: {number} pinned entries hold {weight} bytes, the "
                f"bounds are {self.capacity!r} bytes and {self.entries!r} entries; unpin some or raise the bounds"
            )

    def _make_room(self, weight: float, number: float) -> list[Victim]:
        victims = []
        while self._weight > weight or len(self._held) > number:
            entry = self._choose()
            del self._held[entry.key]
            self._weight -= entry.weight
            if entry.expires is not None:
                self._expiries.drop(entry.key)
            victims.append(Victim(entry.key, entry.weight))
        return victims

    def _hold(self, entry: Entry[K], *, known: bool) -> None:
        self._held[entry.key] = entry
        self._weight += entry.weight
        if entry.pins:
            self._pinned_weight += entry.weight
            self._pinned += 1
            return
        if entry.expires is not None:
            self._expiries.put(entry.key, entry.expires)
        self._enter(entry)
        if known:
            self._used(entry)

    def _forget(self, entry: Entry[K]) -> None:
        del self._held[entry.key]
        self._weight -= entry.weight
        if entry.expires is not None:
            self._expiries.drop(entry.key)
        if entry.pins:
            self._pinned_weight -= entry.weight
            self._pinned -= 1
        else:
            self._leave(entry)
