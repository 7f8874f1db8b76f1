"""What observing and diagnosing cost beside building a request: `python tests/benchmarks/observe.py [--json]`.

Ratios within one run, against appending two messages and building the request with its body, in sessions of 100 to 10,000
messages: `observe` (usage taken in, compared with what a warm cache would have read, entered into the ledger; without the
appending of the reply, which every history needs) with `diagnose` in it; and, without a bound, `forecast` with its warnings. A
`BreakDetector`, which has bodies alone, reads each as a whole: its row shows what that costs against `json.dumps` of the body.
Exits with 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.benchmarks.run import MODELS, SIZES, context_of, message, text

from llmbuffer import Message, Session, StableContext, Usage
from llmbuffer.explaining import BreakDetector
from llmbuffer.judging import judge
from llmbuffer.replay import read_recordings, sample_recordings

SHARE, GROWTH = 0.20, 3.0  # bounds: of building a request, and of 10,000 messages against 100
ROUNDS = 200


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    made = action()
    return time.perf_counter() - start, made


def session_of(size: int, dialect: str, model: str) -> Session:
    session = Session(context_of(model), dialect=dialect)
    session.append([message(index) for index in range(size)])
    return session


def build(session: Session, index: int) -> Any:
    """Append what is new, build the next request, read its body: what a program does at each turn."""
    session.append([message(index), message(index + 1)])
    request = session.request(text(index + 2), dynamic={"clock": f"12:00:{index}"})
    _ = request.body, request.snapshot
    return request


def row(size: int, dialect: str, model: str) -> dict[str, Any]:
    """Medians over many turns of one session, in seconds."""
    session = session_of(size, dialect, model)
    times: dict[str, list[float]] = {
        name: [] for name in ("build", "forecast", "append", "observe", "diagnose")
    }
    for index in range(size, size + 2 * ROUNDS, 2):
        seconds, request = timed(lambda index=index: build(session, index))  # type: ignore[misc]  # bound now
        times["build"].append(seconds)
        measure(session, request, Message("assistant", text(index + 3)), times)
    return {"messages": size, **{name: statistics.median(found) * 1e6 for name, found in times.items()}}


def measure(session: Session, request: Any, reply: Message, times: dict[str, list[float]]) -> None:
    """Forecast, diagnose and observe one request."""
    seconds, told = timed(lambda: request.forecast)
    times["forecast"].append(seconds)
    usage = Usage(told.input_tokens, 20, told.read_tokens, told.write_tokens)
    kept, lookup = request.kept, session.family.look(session.dialect, request.snapshot, session.clock())
    answer = request.answer(usage, reply)
    seconds, _ = timed(lambda: judge(request, session, lookup, answer, kept))
    times["diagnose"].append(seconds)
    # The history has to take in the reply in any case: it is hashed, counted and rendered.
    bare = session.fork()
    bare._state = request.placed.state
    seconds, _ = timed(lambda: bare.append(reply))
    times["append"].append(seconds)
    again, _ = timed(lambda: request.observe(usage, reply))
    times["observe"].append(again - seconds)


def recorded_row(files: Sequence[str], dialect: str, model: str) -> dict[str, Any]:
    """The same over the calls of recorded sessions that only added to what was sent before."""
    times: dict[str, list[float]] = {
        name: [] for name in ("build", "forecast", "append", "observe", "diagnose")
    }
    recordings = [each for file in files for each in read_recordings(file)] or list(sample_recordings())
    for recording in recordings:
        agent, sent = recording.agents[0], 0
        session = Session(StableContext(model, agent.system, agent.tools), dialect)
        for number, call in enumerate(each for each in recording.calls if each.agent == 0):
            if call.keep < sent or any(message.name for message in call.new):
                break
            new = list(call.new if number == 0 else call.new[1:])
            sent = call.keep + len(call.new)
            seconds, request = timed(lambda: next_of(session, new))  # noqa: B023 - called now
            times["build"].append(seconds)
            measure(session, request, call.reply, times)
    return {
        "messages": len(times["build"]),
        **{name: statistics.median(found) * 1e6 for name, found in times.items()},
    }


def next_of(session: Session, new: Sequence[Message]) -> Any:
    session.append(new)
    request = session.request()
    _ = request.body, request.snapshot
    return request


def detector_row(size: int) -> dict[str, Any]:
    session, detector = session_of(size, *MODELS[0]), BreakDetector()
    seen, dumped = [], []
    for index in range(size, size + 10, 2):
        body = build(session, index).body
        seen.append(timed(lambda body=body, at=float(index): detector.see(body, at=at))[0])  # type: ignore[misc]  # bound now
        dumped.append(timed(lambda body=body: json.dumps(body))[0])  # type: ignore[misc]  # bound now
    return {"messages": size, "of_dump": statistics.median(seen[1:]) / statistics.median(dumped[1:])}


def main() -> int:
    """Measure, print, and say whether the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "files", nargs="*", help="recorded sessions; without any, the one that ships with llmbuffer"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args()
    gc.disable()
    found = {model: [row(size, dialect, model) for size in SIZES] for dialect, model in MODELS}
    recorded = {model: recorded_row(given.files, dialect, model) for dialect, model in MODELS}
    detector = [detector_row(size) for size in SIZES]
    checked: list[tuple[str, float, float]] = []
    checked += [
        (f"{model}: observe / build, recorded sessions", each["observe"] / each["build"], SHARE)
        for model, each in recorded.items()
    ]
    for model, rows in found.items():
        for each in rows:
            share = each["observe"] / each["build"]
            checked.append((f"{model}: observe / build, {each['messages']:,} short messages", share, SHARE))
        for name in ("observe", "forecast"):
            growth = rows[-1][name] / rows[0][name]
            checked.append((f"{model}: {name} at 10,000 messages / at 100", growth, GROWTH))
    missed = [name for name, ratio, bound in checked if ratio > bound]
    if given.json:
        print(
            json.dumps(
                {"recorded": recorded, "rows": found, "detector": detector, "missed": missed}, indent=2
            )
        )
        return int(bool(missed))
    show(found, recorded, detector)
    for name, ratio, bound in checked:
        print(f"{name:<72}{ratio:8.3f}  at most {bound:5.2f}  {'ok' if ratio <= bound else 'MISSED'}")
    return int(bool(missed))


def show(
    found: dict[str, list[dict[str, Any]]],
    recorded: dict[str, dict[str, Any]],
    detector: list[dict[str, Any]],
) -> None:
    names = ("build", "forecast", "append", "observe", "diagnose")
    print(f"{'microseconds (measured)':38}" + "".join(f"{name:>10}" for name in names))
    lines = [(f"{model}, {each['messages']:,} recorded calls", each) for model, each in recorded.items()]
    lines += [
        (f"{model}, {each['messages']:,} messages", each) for model, rows in found.items() for each in rows
    ]
    for name, each in lines:
        print(f"{name:38}" + "".join(f"{each[column]:10.1f}" for column in names))
    for each in detector:
        print(
            f"BreakDetector.see / json.dumps of the body, {each['messages']:,} messages: {each['of_dump']:.1f}"
        )


if __name__ == "__main__":
    sys.exit(main())
