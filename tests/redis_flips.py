"""Changing single bytes of a store in Redis: of fields, values and members of its keys."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from llmbuffer.errors import StoreError
from llmbuffer.store import open_store
from llmbuffer.store.redis.link import Link


class Spot(NamedTuple):
    """Bytes of a key, and what puts others in their place."""

    place: str
    stored: bytes
    change: Callable[[Any, bytes], None]


def spots(client: Any, prefix: str) -> list[Spot]:
    found = []
    for name in sorted(client.scan_iter(match=f"{prefix}*")):
        key = name.decode("utf-8", "surrogateescape")
        kind = client.type(name)
        if kind == b"hash":
            for field, value in sorted(client.hgetall(name).items()):
                found.append(Spot(f"{key} value", value, _value(name, field)))
                found.append(Spot(f"{key} field", field, _field(name, field, value)))
        elif kind == b"set":
            found += [
                Spot(f"{key} member", each, _member(name, each)) for each in sorted(client.smembers(name))
            ]
        elif kind == b"zset":
            scored = client.zrange(name, 0, -1, withscores=True)
            found += [Spot(f"{key} member", each, _scored(name, each, score)) for each, score in scored]
        else:
            found.append(Spot(f"{key} text", client.get(name), _text(name)))
    return found


def _text(name: bytes) -> Callable[[Any, bytes], None]:
    return lambda client, new: client.set(name, new)


def _value(name: bytes, field: bytes) -> Callable[[Any, bytes], None]:
    return lambda client, new: client.hset(name, field, new)


def _field(name: bytes, field: bytes, value: bytes) -> Callable[[Any, bytes], None]:
    return lambda client, new: client.pipeline().hdel(name, field).hset(name, new, value).execute()


def _member(name: bytes, member: bytes) -> Callable[[Any, bytes], None]:
    return lambda client, new: client.pipeline().srem(name, member).sadd(name, new).execute()


def _scored(name: bytes, member: bytes, score: float) -> Callable[[Any, bytes], None]:
    return lambda client, new: client.pipeline().zrem(name, member).zadd(name, {new: score}).execute()


def flip_redis(url: str, random: Random, told: list[str]) -> str:
    """Change one byte, say what became of it, and change it back: ``refused``, ``found``, or ``harmless`` by comparison."""
    link = Link(url)
    client = link.client
    try:
        found = [spot for spot in spots(client, link.address.prefix) if spot.stored]
        spot = random.choices(found, [len(each.stored) for each in found])[0]
        changed = bytearray(spot.stored)
        changed[random.randrange(len(changed))] ^= random.randrange(1, 256)
        keys = list(client.scan_iter(match=f"{link.address.prefix}*"))
        before = {key: client.dump(key) for key in keys}
        spot.change(client, bytes(changed))
        try:
            return _what_became(url, spot.place, told)
        finally:
            client.delete(*keys)
            for key, stored in before.items():
                client.restore(key, 0, stored)
    finally:
        link.close()


def _what_became(url: str, place: str, told: list[str]) -> str:
    try:
        store = open_store(url)
    except StoreError:
        return "refused"
    with store:
        if store.verify():
            return "found"
        assert sorted(store.export()) == sorted(told), (
            f"a byte of {place} was changed, and verify() did not see it"
        )
        assert store.holder("lease") is not None, f"a byte of {place} took the lease away"
        return "harmless"
