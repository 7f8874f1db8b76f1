"""What observing and diagnosing cost beside building a request: `python tests/benchmarks/observe.py [--json]`.

Ratios within one run, against appending two messages and building the request with its body, in sessions of 100 to 10,000
messages: `observe` (usage taken in, compared with what a warm cache would have read, entered into the ledger; without the
appending of the reply, which every history needs) with `diagnose` in it, and `forecast` with its warnings. A
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
from collections.abc import Callable
from typing import Any

from tests.benchmarks.run import MODELS, SIZES, context_of, message, text

from llmbuffer import Message, Session, Usage
from llmbuffer.explaining import BreakDetector
from llmbuffer.judging import judge

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
        seconds, told = timed(lambda request=request: request.forecast)  # type: ignore[misc]  # bound now
        times["forecast"].append(seconds)
        usage = Usage(told.input_tokens, 20, told.read_tokens, told.write_tokens)
        kept, lookup = request.kept, session.family.look(session.dialect, request.snapshot, session.clock())
        answer = request.answer(usage, Message("assistant", "Done."))
        seconds, _ = timed(lambda: judge(request, session, lookup, answer, kept))  # noqa: B023 - called now
        times["diagnose"].append(seconds)
        reply = Message("assistant", text(index + 3))
        bare = (
            session.fork()
        )  # the history has to take in the reply in any case: it is hashed, counted and rendered
        seconds, _ = timed(lambda: bare.append(reply))  # noqa: B023 - called now
        times["append"].append(seconds)
        again, _ = timed(lambda: request.observe(usage, reply))  # noqa: B023 - called now
        times["observe"].append(again - seconds)
    return {"messages": size, **{name: statistics.median(found) * 1e6 for name, found in times.items()}}


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
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    wants_json = parser.parse_args().json
    gc.disable()
    found = {model: [row(size, dialect, model) for size in SIZES] for dialect, model in MODELS}
    detector = [detector_row(size) for size in SIZES]
    checked: list[tuple[str, float, float]] = []
    for model, rows in found.items():
        for each in rows:
            for name in ("observe", "forecast"):
                share = each[name] / each["build"]
                checked.append((f"{model}: {name} / build, {each['messages']:,} messages", share, SHARE))
        for name in ("observe", "forecast"):
            growth = rows[-1][name] / rows[0][name]
            checked.append((f"{model}: {name} at 10,000 messages / at 100", growth, GROWTH))
    missed = [name for name, ratio, bound in checked if ratio > bound]
    if wants_json:
        print(json.dumps({"rows": found, "detector": detector, "missed": missed}, indent=2))
        return int(bool(missed))
    print(f"{'medians in microseconds (measured)':38}" + "".join(f"{name:>10}" for name in list(rows[0])[1:]))
    for model, rows in found.items():
        for each in rows:
            numbers = "".join(f"{each[name]:10.1f}" for name in list(each)[1:])
            print(f"{model + ', ' + format(each['messages'], ',') + ' messages':38}{numbers}")
    for each in detector:
        print(
            f"BreakDetector.see / json.dumps of the body, {each['messages']:,} messages: {each['of_dump']:.1f}"
        )
    for name, ratio, bound in checked:
        print(f"{name:<72}{ratio:8.3f}  at most {bound:5.2f}  {'ok' if ratio <= bound else 'MISSED'}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
