"""Costs of the request path, as ratios against a reference in the same run: `python tests/benchmarks/run.py [--json]`.

Absolute times mean nothing on a shared machine, so every bound is a ratio or a size. Exits with 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from llmbuffer import Message, Segment, Session, StableContext, ToolCall, ToolResult, Usage

MODELS = (("openai", "gpt-5.5"), ("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5"))
SIZES = (100, 1_000, 10_000)
CHARACTERS = 700
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


def text(index: int) -> str:
    """Text of one message: different in each, ordinary English."""
    return (f"{index}: " + "the parcel left the depot and is on its way to the customer, " * 20)[:CHARACTERS]


def message(index: int) -> Message:
    return Message("user" if index % 2 == 0 else "assistant", text(index))


def context_of(model: str) -> StableContext:
    return StableContext(model, [Segment("policy", text(0) * 3, level="global")], tools=[TOOL])


def session_of(messages: int, dialect: str, model: str) -> Session:
    session = Session(context_of(model), dialect=dialect)
    session.append([message(index) for index in range(messages)])
    return session


def median_seconds(action: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def say(session: Session, index: int) -> Any:
    """A user's turn: two messages, and a request with a user text."""
    session.append([message(index), message(index + 1)])
    return session.request("go on", dynamic={"clock": f"12:00:{index}"}).body


def call(session: Session, index: int) -> Any:
    """A step inside one endless turn: a tool call and its result."""
    reply = Message("assistant", [ToolCall(f"call_{index}", "look_up", json.dumps({"query": text(index)}))])
    session.append([reply, Message("tool", [ToolResult(f"call_{index}", text(index + 1))])])
    request = session.request(dynamic={"clock": f"12:00:{index}"})
    return request.body, request.snapshot


def turn_cost(dialect: str, model: str, step: Callable[[Session, int], Any]) -> list[dict[str, Any]]:
    """Append two messages, build a request with changed dynamic text, read its body."""
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        session = Session(context_of(model), dialect=dialect)
        if step is call:
            session.append(Message("user", text(0)))
        for index in range(0, size, 2):
            step(session, index)
        count = iter(range(size, size + 1_000, 2))
        turn_seconds = median_seconds(lambda session=session, count=count: step(session, next(count)), 100)  # type: ignore[misc]  # bound now
        body = session.request("end" if step is say else None).body
        dump_seconds = median_seconds(lambda body=body: json.dumps(body), 10)  # type: ignore[misc]  # bound now
        rows.append({"messages": size, "turn_us": turn_seconds * 1e6, "of_dump": turn_seconds / dump_seconds})
    for row in rows:
        row["of_100_messages"] = row["turn_us"] / rows[0]["turn_us"]
    return rows


def allocated(build: Callable[[], object]) -> int:
    """Bytes that are still allocated after ``build``, measured while its result lives."""
    build()  # caches of the interpreter and of the tokenizer
    gc.collect()
    tracemalloc.start()
    held = build()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del held
    return size


def memory(dialect: str, model: str) -> dict[str, Any]:
    """A session of 10,000 messages against its plain list of dicts."""
    number = SIZES[-1]

    def plain() -> object:
        return [{"role": message(index).role, "content": text(index)} for index in range(number)]

    def buffered() -> object:
        session = Session(StableContext(model), dialect=dialect)
        for index in range(number):
            session.append(message(index))
        return session

    reference, ours = allocated(plain), allocated(buffered)
    return {"of_plain_list": ours / reference, "bytes_over_text": (ours - number * CHARACTERS) / number}


def forks() -> dict[str, Any]:
    """Forking a parent of 10,000 messages."""
    parent = session_of(SIZES[-1], "openai", "gpt-5.5")
    number = 10_000
    start = time.perf_counter()
    children = [parent.fork() for _ in range(number)]
    seconds = time.perf_counter() - start
    del children
    return {
        "us_per_fork": seconds / number * 1e6,
        "bytes_per_fork": allocated(lambda: [parent.fork() for _ in range(number)]) / number,
    }


def ledger() -> dict[str, Any]:
    """Memory that the ledger of 5,000 requests holds."""
    session = Session(StableContext("gpt-5.5", text(0) * 10))
    tracemalloc.start()
    for index in range(5_000):
        request = session.request("go on")
        request.observe(Usage(5_000 + index, 3, 1_920 if index else 0), Message("assistant", "done"))
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    entries = len(session.ledger)
    session.ledger.clear()
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"entries": entries, "megabytes": (before - after) / 1e6}


def import_seconds() -> float:
    """Best of five imports in processes of their own; the first writes the byte code that the others read."""
    program = "import time; start = time.perf_counter(); import llmbuffer; print(time.perf_counter() - start)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment)
        for _ in range(5)
    ]
    return min(float(run.stdout) for run in runs)


def bounds(figures: dict[str, Any]) -> list[tuple[str, float, float]]:
    """What was measured beside what it may be at most."""
    out: list[tuple[str, float, float]] = []
    for kind in ("turn", "tool_step"):
        for model, rows in figures[kind].items():
            name = f"{model}: {kind}"
            out.append((f"{name} at 10,000 messages / at 100", rows[-1]["of_100_messages"], 3.0))
            out += [(f"{name} / json.dumps at {row['messages']:,}", row["of_dump"], 0.1) for row in rows[1:]]
    for model, row in figures["memory"].items():
        if model == "gpt-5.5":
            out.append((f"{model}: memory / plain list of dicts", row["of_plain_list"], 1.5))
        else:
            out.append((f"{model}: bytes a message over its text", row["bytes_over_text"], 900))
    out.append(("microseconds a fork", figures["forks"]["us_per_fork"], 10))
    out.append(("bytes a fork", figures["forks"]["bytes_per_fork"], 1024))
    out.append(("ledger of 5,000 requests, MB", figures["ledger"]["megabytes"], 5))
    out.append(("import, seconds", figures["import_seconds"], 0.1))
    return out


def main() -> int:
    """Measure, print, and say whether every bound holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    wants_json = parser.parse_args().json
    figures: dict[str, Any] = {
        "turn": {model: turn_cost(dialect, model, say) for dialect, model in MODELS},
        "tool_step": {model: turn_cost(dialect, model, call) for dialect, model in MODELS},
        "memory": {model: memory(dialect, model) for dialect, model in MODELS},
        "forks": forks(),
        "ledger": ledger(),
        "import_seconds": import_seconds(),
    }
    checked = bounds(figures)
    missed = [name for name, found, bound in checked if found > bound]
    if wants_json:
        print(json.dumps({**figures, "missed": missed}, indent=2))
    else:
        for name, found, bound in checked:
            print(f"{name:<58} {found:10.3f}  at most {bound:8.2f}  {'ok' if found <= bound else 'MISSED'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
