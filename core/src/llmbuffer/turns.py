"""The turn tier: what a turn worked out, kept in memory for as many turns as it is likely to be asked for again.

Keys are those of requests, ``CacheKey(stable, dynamic)``, and a ``kind`` says what stands under one: ``dynamic`` (rendered
dynamic text and its tokens), ``hook`` (what a hook made), ``reply`` (whole replies, see ``replies``), or a kind of your own.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import RLock
from typing import Any

from .context import CacheKey
from .errors import PolicyError
from .messages import Message, canonical, content_hash
from .tokens import TokenCounter

__all__ = ["DynamicCounter", "TurnTier", "weigh"]

_Place = tuple[CacheKey, str]
_OVERHEAD = 200  # bytes: the key, its entry in two dicts, and the object around the value


class _Held:
    """A value, what it weighs, who used it last and in which of their turns, and how often it is pinned."""

    __slots__ = ("owner", "pins", "turn", "value", "weight")

    def __init__(self, value: Any, weight: int, owner: str, turn: int) -> None:
        self.value, self.weight, self.owner, self.turn = value, weight, owner, turn
        self.pins = 0


class TurnTier:
    """Values that live for ``keep_turns`` turns of whoever used them last; at most ``capacity`` bytes and ``entries`` of them.

    With ``keep_turns=1`` a value goes when the turn ends in which it was used. ``owner`` names whose turns count: a
    session's id, for instance, so that the turns of one conversation do not age what another one needs. Beyond the bounds,
    what was used longest ago goes first. What is pinned stays until it is unpinned or dropped. Thread-safe. Values are
    handed out as they were put in: put in what is frozen.

    Raises ``PolicyError`` for bounds below 1.

    >>> tier = TurnTier(keep_turns=1)
    >>> key = CacheKey("b2:1", "b2:2")
    >>> tier.put(key, "rendered text", owner="session-1"), tier.get(key)
    (True, 'rendered text')
    >>> tier.end_turn("session-1")
    1
    >>> tier.get(key) is None
    True
    """

    def __init__(self, *, keep_turns: int = 2, capacity: int = 16 * 2**20, entries: int = 4096) -> None:
        for name, bound in (("keep_turns", keep_turns), ("capacity", capacity), ("entries", entries)):
            if isinstance(bound, bool) or not isinstance(bound, int) or bound < 1:
                raise PolicyError(f"{name} is {bound!r}: give a whole number from 1 on")
        self.keep_turns, self.capacity, self.entries = keep_turns, capacity, entries
        self._held: OrderedDict[_Place, _Held] = OrderedDict()  # what was used longest ago comes first
        self._owned: dict[str, set[_Place]] = {}
        self._turns: dict[str, int] = {}  # of those who own something
        self._weight = self._pinned_weight = 0
        self._lock = RLock()

    @property
    def weight(self) -> int:
        """Bytes held, as they were weighed."""
        return self._weight

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: object) -> bool:
        """Whether anything stands under the key; this is no use of it."""
        with self._lock:
            return any(key == held for held, _ in self._held)

    def put(
        self, key: CacheKey, value: Any, *, kind: str = "value", weight: int | None = None, owner: str = ""
    ) -> bool:
        """Keep a value (``None`` is none); whether there was room. One that is there is replaced and keeps its pins.

        ``weight`` in bytes defaults to what ``weigh`` says.
        """
        counted = (weigh(value) if weight is None else weight) + _OVERHEAD
        place = (key, kind)
        with self._lock:
            old = self._remove(place)
            if self._pinned_weight + counted > self.capacity:
                return False
            held = _Held(value, counted, owner, self._turns.get(owner, 0))
            held.pins = 0 if old is None else old.pins
            self._evict(self.capacity - counted, self.entries - 1)
            self._hold(place, held)
            return True

    def get(self, key: CacheKey, kind: str = "value", *, owner: str | None = None) -> Any:
        """The value, or ``None``. With ``owner``, it lives for ``keep_turns`` turns of theirs from now on."""
        place = (key, kind)
        with self._lock:
            held = self._held.get(place)
            if held is None:
                return None
            self._held.move_to_end(place)
            if owner is not None:
                self._disown(place, held)
                held.owner, held.turn = owner, self._turns.get(owner, 0)
                self._own(place, held)
            return held.value

    def drop(self, key: CacheKey, kind: str | None = None) -> bool:
        """Remove what stands under a key, or the value of one kind, pinned or not; whether there was any."""
        with self._lock:
            places = [place for place in self._held if place[0] == key and kind in (None, place[1])]
            return len([self._remove(place) for place in places]) > 0

    def pin(self, key: CacheKey, kind: str = "value") -> bool:
        """Keep a value from going until ``unpin`` was called as often; False if there is none."""
        return self._pinned(key, kind, 1)

    def unpin(self, key: CacheKey, kind: str = "value") -> bool:
        """Take one pin off; False if there is none."""
        return self._pinned(key, kind, -1)

    def evict(self, to: int = 0) -> int:
        """Let go of what was used longest ago until at most ``to`` bytes are held, pinned values apart; how many went."""
        with self._lock:
            return self._evict(to, self.entries)

    def end_turn(self, owner: str = "", turns: int = 1) -> int:
        """So many turns of ``owner`` have ended: what was not used for ``keep_turns`` of them goes; how many went."""
        with self._lock:
            if owner not in self._owned or turns < 1:
                return 0
            now = self._turns[owner] = self._turns[owner] + turns
            held = [(place, self._held[place]) for place in self._owned[owner]]
            old = [place for place, each in held if not each.pins and now - each.turn >= self.keep_turns]
            for place in old:
                self._remove(place)
            return len(old)

    def clear(self) -> None:
        """Let go of everything, pinned or not."""
        with self._lock:
            self._held.clear()
            self._owned.clear()
            self._turns.clear()
            self._weight = self._pinned_weight = 0

    def _pinned(self, key: CacheKey, kind: str, by: int) -> bool:
        with self._lock:
            held = self._held.get((key, kind))
            if held is None or held.pins + by < 0:
                return False
            before = bool(held.pins)
            held.pins += by
            self._pinned_weight += (bool(held.pins) - before) * held.weight
            return True

    def _hold(self, place: _Place, held: _Held) -> None:
        self._held[place] = held
        self._weight += held.weight
        self._pinned_weight += held.weight * bool(held.pins)
        self._own(place, held)

    def _remove(self, place: _Place) -> _Held | None:
        held = self._held.pop(place, None)
        if held is not None:
            self._weight -= held.weight
            self._pinned_weight -= held.weight * bool(held.pins)
            self._disown(place, held)
        return held

    def _own(self, place: _Place, held: _Held) -> None:
        self._owned.setdefault(held.owner, set()).add(place)
        self._turns.setdefault(held.owner, held.turn)

    def _disown(self, place: _Place, held: _Held) -> None:
        owned = self._owned[held.owner]
        owned.discard(place)
        if not owned:  # turns are counted for those who own something
            del self._owned[held.owner], self._turns[held.owner]

    def _evict(self, most_bytes: int, most_entries: int) -> int:
        weight, count = self._weight, len(self._held)
        gone: list[_Place] = []
        for place, held in self._held.items():  # only as far as there is something to be gained
            if weight <= most_bytes and count <= most_entries:
                break
            if not held.pins:
                gone.append(place)
                weight, count = weight - held.weight, count - 1
        for place in gone:
            self._remove(place)
        return len(gone)

    def __repr__(self) -> str:
        return (
            f"TurnTier(keep_turns={self.keep_turns}, capacity={self.capacity}): {len(self)} entries, "
            f"{self._weight} bytes"
        )


class DynamicCounter:
    """Counts dynamic text once for as many turns as a tier keeps it, under the stable context that it stands behind.

    >>> from llmbuffer.tokens import EstimateCounter
    >>> tier = TurnTier()
    >>> counter = DynamicCounter(EstimateCounter(), tier, "b2:1")
    >>> counter.count("what was found") == counter.count("what was found"), len(tier)
    (True, 1)
    """

    __slots__ = ("_counter", "_owner", "_stable", "_tier", "estimated", "name")

    def __init__(self, counter: TokenCounter, tier: TurnTier, stable: str, owner: str = "") -> None:
        self._counter, self._tier, self._stable, self._owner = counter, tier, stable, owner
        self.name, self.estimated = counter.name, counter.estimated

    def count(self, text: str) -> int:
        """The tokens of ``text``."""
        key = CacheKey(self._stable, content_hash(text.encode()))
        known: tuple[str, int] | None = self._tier.get(key, "dynamic", owner=self._owner)
        if known is not None:
            return known[1]
        tokens = self._counter.count(text)
        self._tier.put(key, (text, tokens), kind="dynamic", owner=self._owner)
        return tokens


def weigh(value: Any) -> int:
    """About how many bytes a value takes: of texts, bytes and messages what they hold, and of sequences the sum.

    >>> weigh("four"), weigh(b"four"), weigh(["four", b"four"])
    (4, 4, 8)
    """
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, Message):
        return len(canonical(value))
    if isinstance(value, list | tuple | set | frozenset):
        return sum(map(weigh, value))
    if isinstance(value, dict):
        return sum(weigh(name) + weigh(item) for name, item in value.items())
    return 32
