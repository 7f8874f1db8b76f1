"""What a compaction costs of our own time: of a history of 5,000 messages, and of one more message at commit time.

    python tests/benchmarks/compaction.py [--messages 5000] [--json]

The first figure is that of deciding about the history, running the hook, checking what it gave and building the new history;
the reference is building the same history once by `append`. The second is `append` of a clipped result behind a history
of 100 and of `--messages` messages: it is flat if the ratio is about 1. The third is a request behind each, where nothing is
compacted. Measured as processor time of this process, the best of several runs.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from llmbuffer import Message, Session, StableContext, Text, ToolCall, ToolResult, Usage
from llmbuffer.compaction import ClipToolOutput, Compaction, ElideToolResults, Summarizer, Truncator
from llmbuffer.testing import FakeClock
from llmbuffer.tokens import EstimateCounter

HOOKS: dict[str, Callable[[], Any]] = {
    "ElideToolResults": lambda: ElideToolResults(keep_last=3),
    "Truncator": Truncator,
    "Summarizer": lambda: Summarizer(lambda messages: "They went on." * 20, 100),
}
BOUND = 50.0  # milliseconds


def messages_of(count: int) -> list[Message]:
    out: list[Message] = []
    for number in range(count // 4):
        out += [
            Message("user", f"question {number} " + "word " * 50),
            Message("assistant", [Text("let me see"), ToolCall(f"call_{number}", "look", '{"q": 1}')]),
            Message("tool", [ToolResult(f"call_{number}", f"{number} " + "found " * 100)]),
            Message("assistant", f"answer {number} " + "word " * 30),
        ]
    return out


def compaction_of(hooks: list[Any], window: int) -> Compaction:
    """Not in debug mode, where each hook is called twice the first time."""
    return Compaction(window, 0.5, hooks, horizon=20, max_loss=1.0, debug=False)


def session_of(hooks: list[Any], messages: list[Message], window: int = 10**9) -> Session:
    session = Session(
        StableContext("claude-haiku-4.5", "You are kind."),
        "anthropic",
        tokens=EstimateCounter(),
        clock=FakeClock(),
        compaction=compaction_of(hooks, window),
    )
    session.append(messages)
    return session


def best(runs: int, prepare: Callable[[], Any], act: Callable[[Any], Any]) -> float:
    """Milliseconds of the fastest run."""
    times = []
    for _ in range(runs):
        given = prepare()
        gc.collect()
        start = time.process_time()
        act(given)
        times.append(time.process_time() - start)
    return min(times) * 1000


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=5_000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    many, few = messages_of(options.messages), messages_of(100)
    tokens = session_of([], many).tip.end
    figures: dict[str, float] = {}
    for name, make in HOOKS.items():
        figures[f"compaction, {name}, ms"] = best(
            options.runs, partial(_full, make, many, tokens), _compacted
        )
    figures["append of the same history, ms"] = best(options.runs, list, lambda _: session_of([], many))
    for label, messages in (("few", few), ("many", many)):
        figures[f"commit behind {label}, ms"] = best(options.runs, partial(_called, messages), _commit)
        figures[f"request behind {label}, ms"] = best(options.runs, partial(_observed, messages), _ask)
    figures["commit, many to few"] = figures["commit behind many, ms"] / figures["commit behind few, ms"]
    figures["request, many to few"] = figures["request behind many, ms"] / figures["request behind few, ms"]
    if options.json:
        print(json.dumps({"measured": True, "messages": options.messages, **figures}))
        return
    print(f"{options.messages:,} messages, {tokens:,} tokens; measured, best of {options.runs}")
    for name, value in figures.items():
        print(f"{name:<36}{value:>10.2f}")
    worst = max(value for name, value in figures.items() if name.startswith("compaction"))
    print(f"{'slowest compaction / bound of 50 ms':<36}{worst / BOUND:>10.2f}")


def _full(make: Callable[[], Any], messages: list[Message], tokens: int) -> Session:
    return session_of([make()], messages, tokens)


def _compacted(session: Session) -> None:
    assert session.request("And now? " * 50).placed.compacted is not None


def _called(messages: list[Message]) -> Session:
    session = session_of([ClipToolOutput(100), ElideToolResults()], messages)
    session.append([Message("user", "x"), Message("assistant", [ToolCall("c", "look", "{}")])])
    return session


def _commit(session: Session) -> None:
    session.append(Message("tool", [ToolResult("c", "found " * 3_000)]))


def _observed(messages: list[Message]) -> Session:
    session = session_of([ClipToolOutput(100), ElideToolResults()], messages)
    session.request("Hello").observe(Usage(100, 1), Message("assistant", "Hi."))
    return session


def _ask(session: Session) -> None:
    session.request("And now?")


if __name__ == "__main__":
    main()
