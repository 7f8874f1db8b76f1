"""A store under kill -9, under writers of one session, and with damaged bytes.

    python tests/benchmarks/store_crash.py --store sqlite --rounds 300 --turns 200 --flips 1000
    python tests/benchmarks/store_crash.py --store redis --rounds 100
    python tests/benchmarks/store_crash.py --store postgresql --rounds 100 --turns 0 --flips 0

Every round starts four processes that append, fork, compact and forget, and kills them with SIGKILL after a random number
of saves. Then every chain must verify, every session must be as one of its saves left it (its messages, and the bytes of
its next request), and every acknowledged message of this round and of those before it in the same store must be in the
session or among its originals. Where there is a server, it is killed, too, in every third round, and started again while
the writers wait. Servers are started on the loopback interface, as safe as they can be (``appendfsync always``,
``fsync on``). 0 leaves a part out.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.crash_rounds import Told, crash_round
from tests.nursery import Nursery, nursery
from tests.redis_flips import flip_redis
from tests.servers import redis_server
from tests.store_writers import filled, flip, race_round

TOGETHER = 20  # rounds that go on in one store


class Store(NamedTuple):
    """Where stores are: a URL for each name, how their server crashes and comes back, and how a byte is flipped."""

    url: Callable[[str], str]
    crash: Callable[[], None] | None = None
    flips: Callable[[str, int, Random], Iterator[str]] | None = None


@contextmanager
def sqlite(folder: Path) -> Iterator[Store]:
    def flips(url: str, count: int, random: Random) -> Iterator[str]:
        told, path = filled(url), Path(url.removeprefix("sqlite:///"))
        whole = path.read_bytes()
        return (flip(path, whole, random, told) for _ in range(count))

    yield Store(lambda name: f"sqlite:///{folder}/{name}.db", None, flips)


@contextmanager
def redis(folder: Path) -> Iterator[Store]:
    with redis_server(folder) as server:

        def crash() -> None:
            server.kill()
            server.start()

        def flips(url: str, count: int, random: Random) -> Iterator[str]:
            told = filled(url)
            return (flip_redis(url, random, told) for _ in range(count))

        yield Store(lambda name: f"{server.url}?prefix={name}:", crash, flips)


@contextmanager
def postgresql(_: Path) -> Iterator[Store]:
    from tests.postgres_server import postgres

    with postgres(settings="fsync = on") as server:
        yield Store(lambda name: server.url(name.replace("-", "_")), server.crash)


STORES = {"sqlite": sqlite, "redis": redis, "postgresql": postgresql}


def crashes(nest: Nursery, store: Store, rounds: int, seed: int) -> str:
    random, saves, restarts, stores = Random(seed), 0, 0, [Told()]
    for number in range(rounds):
        crash = store.crash if number % 3 == 2 else None
        restarts += crash is not None
        if number % TOGETHER == 0:
            stores.append(Told())
        url = store.url(f"crash-{number // TOGETHER}")
        saves += crash_round(nest, url, random, told=stores[-1], server_crash=crash)
        print(f"\rround {number + 1} of {rounds}, {saves:,} saves", end="", file=sys.stderr, flush=True)
    servers = f", the server in {restarts} of them" if restarts else ""
    acknowledged = sum(len(told.acknowledged) for told in stores)
    compactions = sum(told.compactions for told in stores)
    return (
        f"kill -9: {rounds} rounds of 4 writers{servers}: {saves:,} acknowledged saves with {acknowledged:,} messages, none "
        f"lost; {compactions:,} compactions; every chain verifies, nothing half-written"
    )


def races(store: Store, turns: int) -> str:
    accepted, refused = race_round(store.url("race"), 8, turns)
    return f"race: 8 processes, {8 * turns:,} turns: {accepted:,} in, {refused:,} refused with both tips, none vanished"


def flips(store: Store, count: int, seed: int) -> str:
    if store.flips is None:
        return "flips: not tried with this store"
    found = Counter(store.flips(store.url("flips"), count, Random(seed)))
    return f"flips: {count:,}: {dict(sorted(found.items()))}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--store", choices=STORES, default="sqlite")
    for name, default in (("rounds", 300), ("turns", 200), ("flips", 1_000), ("seed", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, STORES[asked.store](Path(name)) as store:
        print(f"{asked.store}, measured", flush=True)
        if asked.flips:
            print(flips(store, asked.flips, asked.seed), flush=True)
        if asked.turns:
            print(races(store, asked.turns), flush=True)
        if asked.rounds:
            with nursery() as nest:
                print(crashes(nest, store, asked.rounds, asked.seed), flush=True)
        print(f"in {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
