"""What recognising a host's prompt costs, against copying the list that it hands over.

    python tests/benchmarks/reconcile.py [--json]

A host hands over a history of 100, 1,000 and 10,000 messages and adds two. `same` is a plan for what is known already, by
the same objects; `copies` the same by fresh copies; `new` a plan for the two messages more; `team` is `same` for one of two
members who share a prefix, each message of the other one told by name. Each is given in microseconds,
and as a multiple of `list(messages)` and of `copy.deepcopy(messages)`; `conversions` counts the messages that were
converted for the two. Measured as processor time of this process, the best of several runs.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import time
from collections.abc import Callable
from typing import Any

from llmbuffer import Message, Session, StableContext
from llmbuffer.reconcile import DictHost, Plan, Policy, Router
from llmbuffer.tokens import EstimateCounter

SIZES = (100, 1_000, 10_000)
RUNS = 7


class Counting(DictHost):
    """Counts what is converted."""

    conversions = 0

    def to_message(self, item: Any, /) -> Message:
        self.conversions += 1
        return super().to_message(item)


def history(size: int) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    return [
        {"role": roles[index % 2], "content": f"message {index} " + "word " * 40} for index in range(size)
    ]


def best(work: Callable[[], object]) -> float:
    """Microseconds of the fastest run."""
    taken = []
    gc.disable()
    try:
        for _ in range(RUNS):
            start = time.process_time_ns()
            work()
            taken.append(time.process_time_ns() - start)
    finally:
        gc.enable()
    return min(taken) / 1e3


def shared(size: int) -> float:
    """Microseconds of a plan for a member that shares, of what is known."""
    session = Session(StableContext("gpt-5.5"), tokens=EstimateCounter())
    router = Router(session, policy=Policy(team="shared"))
    for name in ("ann", "bob"):
        router.declare(name, system=f"You are {name}.")
    names: tuple[dict[str, str], ...] = ({"name": "bob"}, {})
    items = [{**item, **names[index % 2]} for index, item in enumerate(history(size))]

    def planned() -> Plan:
        return router.reconcile(system="You are ann.", messages=items, conversation="c", member="ann")

    assert planned().messages[0]["content"].startswith("bob: ")
    return best(planned)


def measured(size: int) -> dict[str, float]:
    """One size."""
    items, host = history(size), Counting()
    session = Session(StableContext("gpt-5.5"), tokens=EstimateCounter())
    session.reconcile(messages=items, convert=host)
    copies = copy.deepcopy(items)
    before = host.conversions

    def grown() -> None:
        items.append({"role": "user", "content": "one more"})
        items.append({"role": "assistant", "content": "and its answer"})
        session.reconcile(messages=items, convert=host)

    same = best(lambda: session.reconcile(messages=items, convert=host))
    copied = best(lambda: session.reconcile(messages=copies, convert=host))
    listed = best(lambda: [list(items) for _ in range(10)]) / 10
    deep = best(lambda: copy.deepcopy(items))
    new = best(grown)
    return {
        "messages": size,
        "same": same,
        "copies": copied,
        "new": new,
        "team": shared(size),
        "list": listed,
        "deepcopy": deep,
        "conversions": (host.conversions - before) / RUNS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What recognising a host's prompt costs.")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = [measured(size) for size in SIZES]
    if arguments.json:
        print(json.dumps(rows))
        return
    print(
        f"{'messages':>8} {'same':>9} {'copies':>9} {'new':>9} {'team':>9} {'same/list':>10} {'same/deepcopy':>14} {'conversions':>12}"
    )
    for row in rows:
        print(
            f"{row['messages']:8.0f} {row['same']:7.0f}us {row['copies']:7.0f}us {row['new']:7.0f}us {row['team']:7.0f}us "
            f"{row['same'] / row['list']:10.0f} {row['same'] / row['deepcopy']:14.3f} {row['conversions']:12.0f}"
        )


if __name__ == "__main__":
    main()
