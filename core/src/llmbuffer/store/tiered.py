"""Two tiers seen as one: what a turn worked out, in memory, and what is worth keeping, in a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ..context import CacheKey
from ..errors import CorruptStoreError, LLMBufferError, StoreError
from ..frozen import freeze, wire_json
from ..messages import Message
from ..turns import TurnTier
from .base import Store
from .records import decode_message, encode_message

__all__ = ["Tiers"]


class Tiers:
    """A turn tier in front of a stable one: ``get`` looks into both, ``put`` writes the first, ``promote`` copies to the second.

    ``stable`` is a ``Store``; ``turns`` (default: one of its own) may be that of a session's family. Values are bytes, texts,
    messages, sequences of these, and whatever has a JSON form. Thread-safe.

    >>> from llmbuffer.store import open_store
    >>> tiers = Tiers(open_store("memory:"))
    >>> key = CacheKey("b2:1", "b2:2")
    >>> tiers.put(key, "a summary", kind="hook")
    True
    >>> tiers.promote(key, "hook"), tiers.evict(), tiers.get(key, "hook")
    (True, 1, 'a summary')
    """

    def __init__(self, stable: Store, turns: TurnTier | None = None) -> None:
        self.stable = stable
        self.turns = turns if turns is not None else TurnTier()

    @property
    def weight(self) -> int:
        """Bytes in the turn tier; ``stable.stats()`` tells of the other."""
        return self.turns.weight

    def get(self, key: CacheKey, kind: str = "value", *, owner: str | None = None) -> Any:
        """The value, or ``None``: of the turn tier, or of the stable one, and then the turn tier has it, too.

        From the stable tier sequences come back as tuples, and objects of JSON as they are read.
        """
        found = self.turns.get(key, kind, owner=owner)
        if found is not None:
            return found
        body = self.stable.get(_name(key, kind))
        if body is None:
            return None
        value = _decoded(body)
        self.turns.put(key, value, kind=kind, owner=owner or "")
        return value

    def put(
        self, key: CacheKey, value: Any, *, kind: str = "value", weight: int | None = None, owner: str = ""
    ) -> bool:
        """Keep a value for some turns: see ``TurnTier.put``. What was promoted under the key stays as it was."""
        return self.turns.put(key, value, kind=kind, weight=weight, owner=owner)

    def promote(
        self,
        key: CacheKey,
        kind: str = "value",
        *,
        ttl: float | None = None,
        price: float | None = None,
        pinned: bool = False,
    ) -> bool:
        """Copy a value of the turn tier to the stable one, where it outlives turns and processes; False if there is none.

        ``ttl`` in seconds, ``price`` and ``pinned`` as for ``Store.put``. Raises ``StoreError`` for what cannot be stored.
        """
        value = self.turns.get(key, kind)
        if value is None:
            return False
        self.stable.put(_name(key, kind), _encoded(value, kind), ttl=ttl, price=price, pinned=pinned)
        return True

    def drop(self, key: CacheKey, kind: str = "value") -> bool:
        """Remove a value from both tiers; whether there was one."""
        dropped = self.turns.drop(key, kind)
        return self.stable.drop(_name(key, kind)) or dropped

    def pin(self, key: CacheKey, kind: str = "value") -> bool:
        """Keep a value from going, in each tier that holds it; False if none does."""
        here, name = self.turns.pin(key, kind), _name(key, kind)
        if self.stable.get(name) is None:
            return here
        self.stable.pin(name)
        return True

    def unpin(self, key: CacheKey, kind: str = "value") -> bool:
        """Let it go again, in each tier that holds it; False if none does."""
        here, name = self.turns.unpin(key, kind), _name(key, kind)
        if self.stable.get(name) is None:
            return here
        self.stable.pin(name, pinned=False)
        return True

    def evict(self, to: int = 0) -> int:
        """Let the turn tier go down to ``to`` bytes; how many values went. The stable tier evicts by its own policy."""
        return self.turns.evict(to)

    def end_turn(self, owner: str = "") -> int:
        """A turn of ``owner`` has ended: see ``TurnTier.end_turn``."""
        return self.turns.end_turn(owner)

    def __repr__(self) -> str:
        return f"Tiers({self.turns!r}, {self.stable!r})"


def _name(key: CacheKey, kind: str) -> str:
    return f"turn/{kind}/{key.stable}/{key.dynamic}"


def _encoded(value: Any, kind: str) -> bytes:
    try:
        return msgspec.msgpack.encode(_told(value))
    except (LLMBufferError, TypeError, ValueError) as error:
        raise StoreError(
            f"a {type(value).__name__} of kind {kind!r} cannot be stored: promote bytes, texts, messages, or what has a JSON "
            f"form ({error})"
        ) from error


def _told(value: Any) -> tuple[str, Any]:
    """A value with its type, so that it comes back as one."""
    if isinstance(value, Message):
        return ("message", encode_message(value))
    if isinstance(value, bytes):
        return ("bytes", value)
    if isinstance(value, tuple):
        return ("tuple", [_told(each) for each in value])

    return ("json", wire_json(freeze(value)))


def _decoded(body: bytes) -> Any:
    try:
        return _read(msgspec.msgpack.decode(body))
    except (msgspec.DecodeError, LLMBufferError, TypeError, ValueError, LookupError) as error:
        raise CorruptStoreError(f"{len(body)} bytes are no promoted value: {error}; run verify()") from error


def _read(told: list[Any]) -> Any:
    kind, value = told
    if kind == "tuple":
        return tuple(map(_read, value))
    return _READ[kind](value)


_READ: dict[str, Callable[[Any], Any]] = {
    "message": decode_message,
    "bytes": bytes,
    "json": msgspec.json.decode,
}
