"""What sealing costs: a sealed SQLite store against one that is not, the same acts in the same run.

    python tests/benchmarks/store_seal.py --rounds 31 --messages 1000

Prints ratios, medians of so many rounds in turns: reading a value of 200 bytes, 5 kB and 100 kB, loading a session,
saving a turn, and the size of the file. A value of 5 kB is about a compiled stable context of 1,000 tokens.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter

from llmbuffer import Message, Session, StableContext
from llmbuffer.store import Store, new_key, open_store
from llmbuffer.tokens import EstimateCounter

READS = 300


def filled(store: Store, messages: int) -> Session:
    random = Random(7)
    session = Session(
        StableContext("a-model", "You are kind."), tokens=EstimateCounter(), store=store, session_id="s"
    )
    texts = (random.randbytes(random.randrange(40, 800)).hex() for _ in range(messages))
    session.append([Message("user", text) for text in texts])
    session.save()
    for size in (200, 5_000, 100_000):
        store.put(f"v{size}", random.randbytes(size))
    return session


def acts(store: Store, session: Session) -> dict[str, Callable[[], object]]:
    def read(size: int) -> Callable[[], object]:
        return lambda: [store.get(f"v{size}") for _ in range(READS)]

    def turn() -> None:
        session.append([Message("user", "And now?"), Message("assistant", "So. " * 100)])
        session.save()

    return {
        "reading a value of 200 bytes": read(200),
        "reading a value of 5 kB": read(5_000),
        "reading a value of 100 kB": read(100_000),
        "loading a session": lambda: Session.load(store, "s", tokens=EstimateCounter()),
        "saving a turn": turn,
    }


def seconds(act: Callable[[], object]) -> float:
    start = perf_counter()
    act()
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--messages", type=int, default=1_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        with (
            open_store(f"sqlite:///{where}/plain.db") as plain,
            open_store(f"sqlite:///{where}/sealed.db", key=new_key()) as sealed,
        ):
            both = [acts(store, filled(store, given.messages)) for store in (plain, sealed)]
            sizes = [store.stats().file_bytes for store in (plain, sealed)]
            for name in both[0]:
                times = [[seconds(each[name]) for each in both] for _ in range(given.rounds)]
                ratio = median(one[1] for one in times) / median(one[0] for one in times)
                print(f"{name}: sealed takes {ratio:.2f} times the time")
            print(f"the file: sealed takes {sizes[1] / sizes[0]:.2f} times the bytes")


if __name__ == "__main__":
    main()
