"""What a store costs, as ratios in one run: `python tests/benchmarks/store.py [--sessions 10000] [--json]`. Measured.

Prints a stable-tier hit on SQLite against a bare ``sqlite3`` read of the same blob by its primary key, a sealed one against that
one, saving a turn late in a session of 1,000 turns against early in it, the bytes of sessions that share a stable context of 5,000
tokens and half their history against separate dumps, and opening a session of 10,000 messages and building its next request
against reading and decoding its rows. Exits with 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmbuffer import Message, Segment, Session, StableContext
from llmbuffer.store import Store, new_key, open_store
from llmbuffer.testing.fakes import reply
from llmbuffer.tokens import EstimateCounter

COUNTER = EstimateCounter()
POLICY = "".join(f"Rule {number}: answer kindly, briefly and with a source. " for number in range(330))
TOOLS = [{"name": f"tool_{number}", "parameters": {"type": "object"}} for number in range(12)]
CONTEXT = StableContext("gpt-5.5", [Segment("policy", POLICY, level="global")], TOOLS)
ROUNDS, READS = 15, 300


def seconds(act: Callable[[], object], times: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(times):
        act()
    return time.perf_counter() - start


def messages(number: int, name: str = "") -> list[Message]:
    return [
        Message("user" if index % 2 == 0 else "assistant", f"{name} {index}: the parcel is on its way, " * 8)
        for index in range(number)
    ]


def compared(one: Callable[[], object], other: Callable[[], object], times: int = READS) -> float:
    """The time of one against that of the other: the median of many rounds in turns."""
    one(), other()
    return statistics.median(seconds(one, times) / seconds(other, times) for _ in range(ROUNDS))


def bare_read(store: Store, path: Path) -> tuple[sqlite3.Connection, Callable[[], object]]:
    """A file with nothing but the blob of the compiled context, read as a program would that needs no more."""
    record = next(store.backend.records(store.space, "compiled"))
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE blobs (key BLOB PRIMARY KEY, body BLOB)")
    connection.execute("INSERT INTO blobs VALUES (?, ?)", (record.key, record.body))
    connection.commit()
    query = "SELECT body FROM blobs WHERE key = ?"
    return connection, lambda: connection.execute(query, (record.key,)).fetchone()


def hits(folder: Path) -> dict[str, float]:
    """``store.compiled``, again and (as in a new process) for the first time; sealed against plain."""

    def hit(store: Store) -> object:
        return store.compiled(CONTEXT.fingerprint, "openai")

    def first(store: Store) -> object:
        store._opened.clear()
        return hit(store)

    with (
        open_store(f"sqlite:///{folder}/plain.db") as plain,
        open_store(f"sqlite:///{folder}/sealed.db", key=new_key()) as sealed,
    ):
        for store in (plain, sealed):
            session = Session(CONTEXT, store=store, tokens=COUNTER)
            reply(session.request("Hello"))
            session.save()
        connection, bare = bare_read(plain, folder / "bare.db")
        found = {
            "hit_over_bare_read": compared(lambda: hit(plain), bare),
            "first_hit_over_bare_read": compared(lambda: first(plain), bare),
            "sealed_hit_over_hit": compared(lambda: hit(sealed), lambda: hit(plain)),
            "sealed_first_hit_over_first_hit": compared(lambda: first(sealed), lambda: first(plain)),
        }
        connection.close()
        return found


def saving(folder: Path, turns: int = 1_000) -> float:
    """The median of the last 100 saves of a session against that of the first 100; a turn is two messages."""
    with open_store(f"sqlite:///{folder}/turns.db") as store:
        session = Session(CONTEXT, store=store, tokens=COUNTER)
        times = []
        for turn in range(turns):
            session.append(messages(2, f"turn {turn:4}"))
            times.append(seconds(session.save))
        return statistics.median(times[-100:]) / statistics.median(times[:100])


def sharing(folder: Path, sessions: int, history: int = 40) -> float:
    """Bytes of the file, all of it, against those of each session's body as JSON."""
    start = Session(CONTEXT, tokens=COUNTER)
    start.append(messages(history // 2))
    dumps = 0
    with open_store(f"sqlite:///{folder}/shared.db") as store:
        start._store = store
        for number in range(sessions):
            fork = start.fork()
            fork.append(messages(history // 2, str(number)))
            fork.save()
            dumps += len(json.dumps(fork.request(None).body))
        store.vacuum()
        return store.stats().file_bytes / dumps


def opening(folder: Path, number: int = 10_000) -> float:
    with open_store(f"sqlite:///{folder}/long.db") as store:
        session = Session(CONTEXT, store=store, session_id="long", tokens=COUNTER)
        session.append(messages(number))
        session.save()

        def opened() -> object:
            return Session.load(store, "long", tokens=COUNTER).request("And now?").body

        return compared(opened, lambda: store.messages("long"), times=1)


BOUNDS = {
    "hit_over_bare_read": 3.0,
    "first_hit_over_bare_read": 3.0,
    "sealed_hit_over_hit": 2.0,
    "sealed_first_hit_over_first_hit": 2.0,
    "last_100_saves_of_1000_turns_over_first_100": 1.25,
    "bytes_of_sessions_over_separate_dumps": 0.55,
    "opening_10000_messages_over_reading_them": 1.5,
}


def figures(folder: Path, sessions: int) -> dict[str, float]:
    return {
        **hits(folder),
        "last_100_saves_of_1000_turns_over_first_100": saving(folder),
        "opening_10000_messages_over_reading_them": opening(folder),
        "bytes_of_sessions_over_separate_dumps": sharing(folder, sessions),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sessions", type=int, default=10_000, help="that share a context and half their history"
    )
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = figures(Path(folder), asked.sessions)
    missed = [name for name, bound in BOUNDS.items() if found[name] > bound]
    if asked.json:
        print(json.dumps({"sessions": asked.sessions, "figures": found, "bounds": BOUNDS, "missed": missed}))
    else:
        for name, bound in BOUNDS.items():
            print(f"{name:<46}{found[name]:>7.3f}  at most {bound:g}  {'MISSED' if name in missed else 'ok'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
