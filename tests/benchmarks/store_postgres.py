"""The PostgreSQL store in ratios: a long history, and a stored value, against bare statements of the same driver.

    python tests/benchmarks/store_postgres.py --messages 10000 --rounds 9

A server is started on the loopback interface, with ``fsync`` on. Each figure is a median of rounds in one run, in which
store and reference take turns.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.postgres_server import postgres

from llmbuffer import Message, Session, StableContext
from llmbuffer.store import open_store
from llmbuffer.store.records import decode_message
from llmbuffer.tokens import EstimateCounter

CONTEXT = StableContext("gpt-5.5", "You are kind. " * 100)


def filled(url: str, messages: int) -> None:
    """A session of so many messages whose rows lie between those of two others, and statistics of the tables."""
    with open_store(url) as store:
        sessions = [
            Session(CONTEXT, tokens=EstimateCounter(), session_id=name, store=store) for name in "abc"
        ]
        for start in range(0, messages, 100):
            for session in sessions:
                texts = (
                    f"{session.id} {number} " + "some words " * 25 for number in range(start, start + 100)
                )
                session.append([Message("user", text) for text in texts])
                session.save()
        store.put("value", bytes(20_000))


def medians(rounds: int, *works: Callable[[], Any]) -> list[float]:
    """Seconds of each work; they take turns."""
    taken: list[list[float]] = [[] for _ in works]
    for number in range(rounds + 1):
        for work, times in zip(works, taken, strict=True):
            begun = time.perf_counter()
            work()
            if number:  # the first round warms up
                times.append(time.perf_counter() - begun)
    return [median(times) for times in taken]


def bare_value(connection: Any) -> Any:
    query = "SELECT body FROM llmbuffer.records WHERE space = %s AND kind = %s AND key = %s"
    return connection.execute(query, [b"", "value", b"value"], binary=True).fetchone()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    for name, default in (("messages", 10_000), ("rounds", 9)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    with postgres(settings="fsync = on") as server, server.connect() as bare:
        filled(server.url(), asked.messages)
        bare.execute("ANALYZE")
        with open_store(server.url()) as store:
            backend = store.backend
            found = backend.history(b"", b"b")
            assert found is not None
            digests = [row.digest for row in found[1]]
            assert len(digests) == asked.messages

            query = "SELECT id FROM llmbuffer.nodes WHERE digest = ANY(%s)"
            ids = [number for (number,) in bare.execute(query, [digests]).fetchall()]

            def by_id() -> list[Any]:
                query = (
                    "SELECT digest, body, note, parent FROM llmbuffer.nodes WHERE id = ANY(%s) ORDER BY id"
                )
                rows: list[Any] = bare.execute(query, [ids], binary=True).fetchall()
                return rows

            def decoded() -> list[Any]:
                return [decode_message(row[1][:-8]) for row in by_id()]

            def opened() -> Any:
                session = Session.load(store, "b", tokens=EstimateCounter())
                return session.request("next").body

            assert len(by_id()) == asked.messages
            history, known, decoding, opening = medians(
                asked.rounds, lambda: backend.history(b"", b"b"), by_id, decoded, opened
            )
            hit, read = medians(asked.rounds * 50, lambda: store.get("value"), lambda: bare_value(bare))
    print(
        f"history of {asked.messages:,} nodes: {history / known:.2f} of a SELECT of the same rows by their ids"
    )
    print(
        f"opening it and building the next request: {opening / decoding:.2f} of reading and decoding its rows"
    )
    print(f"a value of 20,000 bytes: {hit / read:.2f} of a bare SELECT by its key")


if __name__ == "__main__":
    main()
