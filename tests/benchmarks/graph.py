"""What a task graph costs beside its tasks, and how near a run comes to its critical path.

    python tests/benchmarks/graph.py [--tasks 10000] [--rounds 5] [--json]

Own time is the processor time of a run less that of the same work done by hand in the same process: coroutines that do
nothing, and prompts to a client that answers at once. Rounds of both alternate, and the least of each counts, since other
programs of the machine can only add. Exits with 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import anyio

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.virtual_clock import run_virtually

from llmbuffer import Message, Session, StableContext
from llmbuffer.graph import TaskGraph
from llmbuffer.tokens import EstimateCounter

BOUND = 100.0  # microseconds of own time a task
ANSWER = {
    "choices": [{"message": {"content": "done"}}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 1},
}


async def nothing(**_: object) -> None:
    """A task that does nothing."""


async def answer(**_: object) -> dict[str, Any]:
    return ANSWER


CLIENT = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=answer)))


def session() -> Session:
    return Session(StableContext("gpt-5.5", "You are kind."), tokens=EstimateCounter())


def chain(work: Any, count: int, link: str) -> TaskGraph:
    graph = TaskGraph()
    for number in range(count):
        graph.task(f"t{number}", work, **({link: f"t{number - 1}"} if number else {}))
    return graph


def fan(work: Any, count: int) -> TaskGraph:
    graph = TaskGraph()
    keys = [graph.task(f"t{number}", work).key for number in range(count)]
    graph.task("end", nothing, after=keys)
    return graph


async def by_hand(count: int) -> None:
    for _ in range(count):
        await nothing()


async def forks_by_hand(count: int) -> None:
    kept: list[Session] = []
    base = session()
    for number in range(count):
        fork = base.fork(f"t{number}")
        await fork.arespond("Do it.", client=CLIENT)
        kept.append(fork)


async def told_by_hand(count: int) -> None:
    kept: list[Session] = []
    base, said = session(), ""
    for number in range(count):
        fork = base.fork(f"t{number}")
        if number:
            fork.append(Message("user", f'<result task="t{number - 1}">\n{said}\n</result>'))
        said = (await fork.arespond("Do it.", client=CLIENT)).text
        kept.append(fork)


async def turns_by_hand(count: int) -> None:
    kept: list[Session] = []
    fork = session()
    for number in range(count):
        fork = fork.fork(f"t{number}")
        await fork.arespond("Do it.", client=CLIENT)
        kept.append(fork)


Making = Callable[[], TaskGraph]
Reference = Callable[[int], Awaitable[None]]


def cases(count: int) -> dict[str, tuple[Making, Reference]]:
    return {
        "chain of coroutines": (lambda: chain(nothing, count, "after"), by_hand),
        "fan of coroutines": (lambda: fan(nothing, count), by_hand),
        "fan of prompts": (lambda: fan("Do it.", count), forks_by_hand),
        "chain of prompts, results told": (lambda: chain("Do it.", count, "after"), told_by_hand),
        "chain of prompts, one conversation": (lambda: chain("Do it.", count, "continues"), turns_by_hand),
    }


def processor_seconds(work: Callable[[], Awaitable[Any]]) -> float:
    gc.collect()
    started = time.process_time()
    asyncio.run(work())  # type: ignore[arg-type]  # every Awaitable here is a coroutine
    return time.process_time() - started


async def build_and_run(make: Making) -> None:
    """Define, check and run: all that a graph costs."""
    run = await make().run(session(), client=CLIENT)
    assert run.ok


def own_microseconds(make: Making, reference: Reference, count: int, rounds: int) -> dict[str, float]:
    graph, hand = [], []
    for _ in range(rounds):
        graph.append(processor_seconds(partial(build_and_run, make)))
        hand.append(processor_seconds(partial(reference, count)))
    whole, plain = (min(each) / count * 1e6 for each in (graph, hand))
    return {"graph_us": round(whole, 1), "by_hand_us": round(plain, 1), "own_us": round(whole - plain, 1)}


def unbalanced(seed: int, count: int) -> tuple[TaskGraph, float, float]:
    """A random graph, its critical path, and what it would take in waves, in seconds."""
    random, graph = Random(seed), TaskGraph()
    ends: dict[str, float] = {}
    depths: dict[str, int] = {}
    waves: dict[int, float] = {}
    for number in range(count):
        after = random.sample(list(ends), min(len(ends), random.randrange(4)))
        seconds = random.choice((0.1, 1.0, 1.0, 10.0))
        key = graph.task(
            f"t{number}", partial(_take, seconds), after={f"u{place}": k for place, k in enumerate(after)}
        ).key
        ends[key] = seconds + max((ends[each] for each in after), default=0.0)
        depths[key] = 1 + max((depths[each] for each in after), default=0)
        waves[depths[key]] = max(waves.get(depths[key], 0.0), seconds)
    return graph, max(ends.values()), sum(waves.values())


async def _take(seconds: float, **_: object) -> None:
    await anyio.sleep(seconds)


def critical_path(seeds: int, count: int) -> dict[str, float]:
    """The worst ratio of a run's virtual time to its critical path over random graphs, and that of waves."""
    worst, waves = 0.0, 0.0
    for seed in range(seeds):
        graph, critical, in_waves = unbalanced(seed, count)
        run = run_virtually(partial(graph.run, session(), jobs=float("inf")))
        worst, waves = max(worst, run.seconds / critical), max(waves, in_waves / critical)
    return {"worst_over_critical_path": round(worst, 4), "waves_over_critical_path": round(waves, 4)}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    def say(line: str) -> None:
        if not options.json:
            print(line, flush=True)

    path = critical_path(20, 60)
    say(
        f"unbalanced graphs, virtual time over critical path: {path['worst_over_critical_path']:.3f} at worst; waves would "
        f"take {path['waves_over_critical_path']:.2f}"
    )
    say(f"{options.tasks:,} tasks; microseconds of processor time a task, defining and checking included")
    figures: dict[str, Any] = {"tasks": options.tasks, "critical_path": path, "own_time": {}}
    for name, (make, reference) in cases(options.tasks).items():
        row = own_microseconds(make, reference, options.tasks, options.rounds)
        figures["own_time"][name] = row
        say(
            f"  {name:<36} graph {row['graph_us']:7.1f}  by hand {row['by_hand_us']:7.1f}  own {row['own_us']:6.1f}"
        )
    if options.json:
        print(json.dumps(figures, indent=2))
    missed = [name for name, row in figures["own_time"].items() if row["own_us"] > BOUND]
    if figures["critical_path"]["worst_over_critical_path"] > 1.05:
        missed.append("critical path")
    if missed:
        print(f"missed: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
