"""A process that runs a graph of prompts against a server, to be killed at any moment; it prints every result that it was told of.

python -m tests.graph_runs URL STORE RUN_ID
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anyio
import openai

from llmbuffer import Session, StableContext
from llmbuffer.graph import GraphEvent, TaskGraph
from llmbuffer.store import open_store
from llmbuffer.tokens import EstimateCounter

TASKS = 200
SYSTEM = "You help people who wait for parcels. Be brief and cite the rule. " * 20


def session() -> Session:
    return Session(StableContext("gpt-5.5", SYSTEM), tokens=EstimateCounter(), session_id="base")


def graph_of(tasks: int = TASKS, edited: int | None = None) -> TaskGraph:
    """Chains, conversations that go on, and joins; ``edited`` is the number of a task that says something else."""
    graph = TaskGraph("crash")
    for number in range(tasks):
        text = f"Task {number}." if number != edited else f"Task {number}, but other."
        if number < 8:
            graph.task(f"t{number}", text)
        elif number % 3 == 0:
            graph.task(f"t{number}", text, continues=f"t{number - 8}")
        else:
            graph.task(f"t{number}", text, after=[f"t{number - 8}", f"t{number - 5}"])
    return graph


async def run(url: str, store: str, run_id: str) -> None:
    def tell(event: GraphEvent) -> None:
        print(json.dumps([event.kind, event.key]), flush=True)

    async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
        with open_store(store) as opened:
            done = await graph_of().run(session(), client=client, store=opened, run_id=run_id, on_event=tell)
    print(json.dumps(["values", {key: done[key] for key in done}]), flush=True)


def started(url: str, store: str, run_id: str) -> subprocess.Popen[str]:
    """Such a process; whoever starts it ends it."""
    command = [sys.executable, "-m", "tests.graph_runs", url, store, run_id]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])


if __name__ == "__main__":
    anyio.run(run, sys.argv[1], sys.argv[2], sys.argv[3])
