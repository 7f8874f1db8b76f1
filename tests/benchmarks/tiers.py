"""What the two tiers save, as ratios in one run: `python tests/benchmarks/tiers.py [--json]`. Measured; no provider is asked.

Prints what a session with a known stable context counts against one without, what a stable-tier hit costs against a bare
``sqlite3`` read of the same blob, how many calls equal requests are at once, what levels and pages save, and what sessions in a
store cost. Exits with 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from llmbuffer import Message, Segment, Session, StableContext
from llmbuffer.pages import Pages
from llmbuffer.replies import Replies
from llmbuffer.store import Store, open_store
from llmbuffer.store.levels import Levels
from llmbuffer.testing.fakes import reply
from llmbuffer.tokens import EstimateCounter, counter_for

POLICY = "".join(f"Rule {number}: answer kindly, briefly and with a source. " for number in range(400))
TOOLS = [{"name": f"tool_{number}", "parameters": {"type": "object"}} for number in range(12)]
CONTEXT = StableContext("gpt-5.5", [Segment("policy", POLICY, level="global")], TOOLS)
ROUNDS = 400
ASKERS = 32


class Counting:
    """The counter of the model, and how many characters it was asked to count."""

    def __init__(self) -> None:
        self.counter = counter_for("gpt-5.5")
        self.name, self.estimated = self.counter.name, self.counter.estimated
        self.calls = self.characters = 0

    def count(self, text: str) -> int:
        self.calls += 1
        self.characters += len(text)
        return self.counter.count(text)


def median(action: Callable[[], object], rounds: int = ROUNDS) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def quickest(action: Callable[[], object], rounds: int) -> float:
    return min(median(action, 1) for _ in range(rounds))


def first_request(store: Store | None, counter: Any) -> None:
    session = Session(CONTEXT, store=store, tokens=counter)
    assert session.request("Hello", {"clock": "12:00"}).forecast.input_tokens


def stable_hit(store: Store) -> dict[str, float]:
    """A new session on a context that the store knows, against one without a store."""
    begun = Session(CONTEXT, store=store)
    reply(begun.request("Hello"))
    begun.save()
    cold, warm = Counting(), Counting()
    first_request(None, cold)
    first_request(store, warm)
    plain = median(lambda: first_request(None, counter_for("gpt-5.5")), 60)
    hit = median(lambda: first_request(store, counter_for("gpt-5.5")), 60)
    return {
        "tokenizer_calls_without": cold.calls,
        "tokenizer_calls_with": warm.calls,
        "characters_counted_without": cold.characters,
        "characters_counted_with": warm.characters,
        "seconds_with_over_without": hit / plain,
    }


def against_sqlite(store: Store, path: Path, *, again: bool) -> float:
    """``store.compiled`` against a bare read of the same blob by primary key, taken in turns.

    The first time in a process it is checked and decoded; ``again`` it is compared with what was.
    """
    fingerprint = CONTEXT.fingerprint
    found = store.compiled(fingerprint, "openai")
    assert found is not None
    record = next(store.backend.records(store.space, "compiled"))
    connection = sqlite3.connect(path.with_name("bare.db"))
    connection.execute("CREATE TABLE IF NOT EXISTS blobs (key BLOB PRIMARY KEY, body BLOB) WITHOUT ROWID")
    connection.execute("INSERT OR REPLACE INTO blobs VALUES (?, ?)", (record.key, record.body))
    connection.commit()
    query = "SELECT body FROM blobs WHERE key = ?"
    ratios = []

    def hit() -> object:
        if not again:
            store._opened.clear()
        return store.compiled(fingerprint, "openai")

    for _ in range(9):
        bare = median(lambda: connection.execute(query, (record.key,)).fetchone())
        ratios.append(median(hit) / bare)
    connection.close()
    return statistics.median(ratios)


def calls_of_equal_requests(store: Store | None = None) -> int:
    """How often a provider is asked when many threads ask the same at once."""
    asked, free = [0], threading.Event()

    def create(**_: Any) -> dict[str, Any]:
        asked[0] += 1
        free.wait(10)
        return {"choices": [{"message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}]}

    client = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))
    session = Session(CONTEXT.replace(params={"temperature": 0}), client=client)
    replies, request = Replies(store=store), session.request("Hello")
    with ThreadPoolExecutor(ASKERS) as pool:
        futures = [pool.submit(session.fork().respond, "Hello", reuse=replies) for _ in range(ASKERS)]
        while replies.waiting(request) < ASKERS - 1:
            time.sleep(0.001)
        free.set()
        assert {future.result().text for future in futures} == {"Hi."}
    return asked[0]


def levels_share(folder: Path, users: int = 200) -> float:
    """Bytes of contexts of many users that share a level, against those of contexts without names."""

    def size(name: str, *, named: bool) -> int:
        with open_store(f"sqlite:///{folder}/{name}.db") as store:
            levels = Levels(store)
            policy = levels.put("global", "policy", POLICY)
            for number in range(users):
                text = f"The customer is number {number}."
                made = [policy, levels.put("user", str(number), text)] if named else None
                context = StableContext(
                    "gpt-5.5",
                    made or [Segment("policy", POLICY + " ", "global"), Segment("user", text, "user")],
                )
                Session(context, store=store, session_id=str(number)).save()
            return store.stats().record_bytes

    return size("named", named=True) / size("unnamed", named=False)


def pages_bill(changes: int = 40) -> float:
    """Tokens billed again for changes of pages in the order of ``select``, against the order of names."""
    with open_store("memory:") as store:
        book = Pages(store, "repo", counter=EstimateCounter())

        def texts(step: int) -> dict[str, str]:
            return {f"p{n}": f"{step // (1 + n)} " + "line of code\n" * 40 for n in range(12)}

        for step in range(changes // 2):
            book.sync(texts(step))
        lengths = {page.name: page.tokens for page in book.pages}
        chosen, named = book.select(100_000).names, tuple(sorted(lengths))
        billed = {chosen: 0, named: 0}
        for step in range(changes // 2, changes):
            before, after = texts(step - 1), texts(step)
            changed = [name for name in named if before[name] != after[name]]
            for order in billed:
                first = min(order.index(name) for name in changed)
                billed[order] += sum(lengths[name] for name in order[first:])
        return billed[chosen] / billed[named]


def messages(number: int, name: str = "") -> list[Message]:
    return [
        Message("user" if index % 2 == 0 else "assistant", f"{name} {index}: the parcel is on its way, " * 8)
        for index in range(number)
    ]


def opening(folder: Path, number: int = 10_000) -> float:
    """Opening a session and building its next request, against reading and decoding its rows."""
    with open_store(f"sqlite:///{folder}/long.db") as store:
        session = Session(CONTEXT, store=store, session_id="long", tokens=EstimateCounter())
        session.append(messages(number))
        session.save()

        def opened() -> object:
            return Session.load(store, "long", tokens=EstimateCounter()).request("And now?").body

        return quickest(opened, 9) / quickest(lambda: store.messages("long"), 9)


def saving(folder: Path) -> float:
    """Saving a turn of a session of 1,000 turns, against saving one of 10 turns."""
    costs = []
    for turns in (10, 1_000):
        with open_store(f"sqlite:///{folder}/turns-{turns}.db") as store:
            session = Session(CONTEXT, store=store, tokens=EstimateCounter())
            session.append(messages(2 * turns))
            session.save()

            times = []
            for said in range(200):
                session.append(messages(2, f"turn {said}"))
                start = time.perf_counter()
                session.save()
                times.append(time.perf_counter() - start)
            costs.append(min(times))  # the rest waits for a disk that others use
    return costs[1] / costs[0]


def figures(folder: Path) -> dict[str, Any]:
    path = folder / "tiers.db"
    with open_store(f"sqlite:///{path}") as store:
        hit = stable_hit(store)
        return {
            **hit,
            "compiled_over_bare_sqlite_read": against_sqlite(store, path, again=True),
            "first_compiled_over_bare_sqlite_read": against_sqlite(store, path, again=False),
            "calls_of_32_equal_requests": calls_of_equal_requests(),
            "calls_of_32_equal_requests_with_store": calls_of_equal_requests(store),
            "bytes_of_contexts_with_levels_over_without": levels_share(folder),
            "tokens_billed_again_select_order_over_name_order": pages_bill(),
            "opening_10000_messages_over_reading_them": opening(folder),
            "saving_a_turn_at_1000_turns_over_at_10": saving(folder),
        }


BOUNDS = {
    "compiled_over_bare_sqlite_read": 3.0,
    "calls_of_32_equal_requests": 1,
    "calls_of_32_equal_requests_with_store": 1,
    "bytes_of_contexts_with_levels_over_without": 0.2,
    "tokens_billed_again_select_order_over_name_order": 1.0,
    "seconds_with_over_without": 1.0,
    "opening_10000_messages_over_reading_them": 1.5,
    "saving_a_turn_at_1000_turns_over_at_10": 1.5,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = figures(Path(folder))
    missed = [name for name, bound in BOUNDS.items() if found[name] > bound]
    if options.json:
        print(json.dumps({"figures": found, "bounds": BOUNDS, "missed": missed}))
    else:
        for name, value in found.items():
            bound = f"  (at most {BOUNDS[name]:g})" if name in BOUNDS else ""
            print(f"{name:>52}  {value:.4g}{bound}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
