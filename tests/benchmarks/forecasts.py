"""Forecast reads against those of an engine and of recorded usage: `python tests/benchmarks/forecasts.py [FILE …] [--json]`.

A llama.cpp engine (measured; needs openai, xllamacpp and gguf) answers sessions whose dynamic text changes with each turn. For
the recorded sessions in FILEs (measured by their providers), each call goes through a session, which learns from the reported
usage as it would have then. Errors are those of forecast reads against reported ones, from the sixth request of a session on,
of calls whose provider read anything; `nothing read` counts those where it read nothing although something was forecast.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.engine import PARAMS, client_of, text_of, usages_of

from llmbuffer import Session, StableContext, Usage
from llmbuffer.dialects.llamacpp import LlamaCpp
from llmbuffer.dialects.server_counter import ServerCounter
from llmbuffer.engine import EngineServer, write_tiny_model
from llmbuffer.replay import read_recordings
from llmbuffer.replay.agreement import dialect_of
from llmbuffer.replay.layouts import fitted, takes_names
from llmbuffer.replay.recordings import Recording
from llmbuffer.tokens import counter_for

LEARNED = 5  # requests of a session before its forecasts count
BOUND = 0.01
Pair = tuple[int, int]  # forecast and reported reads


def engine_pairs(sessions: int = 6, requests: int = 14) -> Iterator[Pair]:
    """Sessions on an engine with one slot, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        model = write_tiny_model(Path(folder) / "tiny.gguf")
        for seed in range(sessions):
            with EngineServer(model) as server, client_of(server.url) as client:
                context = StableContext("local", text_of(1_500 + 700 * seed, seed), params=PARAMS)
                session = Session(context, LlamaCpp(), client=client, tokens=ServerCounter(client))
                for number in range(requests):
                    user, now = text_of(60 + 20 * seed, 100 * seed + number), {"clock": f"12:{number:02}"}
                    told = session.request(user, dynamic=now).forecast.read_tokens
                    session.respond(user, dynamic=now)
                    if number >= LEARNED:
                        yield told, usages_of(session)[-1].cache_read_tokens


def recorded_pairs(recording: Recording) -> Iterator[Pair]:
    """The calls of the first agent that only added to what was sent before; a rewritten prompt ends the session."""
    dialect = dialect_of(recording.model)
    if dialect is None or recording.model is None:
        return
    now = 0.0
    agent, names = recording.agents[0], takes_names(dialect)
    context = StableContext(recording.model, agent.system, agent.tools)
    session = Session(context, dialect, tokens=counter_for(recording.model), clock=lambda: now)
    sent = 0
    for number, call in enumerate(each for each in recording.calls if each.agent == 0):
        reported, new = call.reported, [fitted(message, names) for message in call.new]
        if reported is None or reported.cached is None or call.keep < sent:
            return
        now = call.at if call.at is not None else now + 1.0
        session.append(new if number == 0 else new[1:])
        request = session.request()
        told = request.forecast.read_tokens
        usage = Usage(reported.input, reported.output, min(reported.cached, reported.input))
        request.observe(usage, fitted(call.reply, names))
        sent = call.keep + len(new)
        if number >= LEARNED:
            yield told, reported.cached


def figures(pairs: Sequence[Pair]) -> dict[str, Any]:
    errors = [abs(told - read) / read for told, read in pairs if read]
    return {
        "requests": len(pairs),
        "median_error": statistics.median(errors) if errors else None,
        "within_1_percent": sum(error <= BOUND for error in errors) / len(errors) if errors else None,
        "nothing_read": sum(not read and told > 0 for told, read in pairs),
    }


def main() -> int:
    """Measure, print, and say whether the medians are within 1 %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--no-engine", action="store_true")
    given = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    if not given.no_engine:
        found["llama.cpp"] = figures(list(engine_pairs()))
    by_model: dict[str, list[Pair]] = {}
    for recording in (each for file in given.files for each in read_recordings(file)):
        by_model.setdefault(recording.model or "", []).extend(recorded_pairs(recording))
    found |= {model: figures(pairs) for model, pairs in by_model.items() if pairs}
    if given.json:
        print(json.dumps({"measured": True, "rows": found}, indent=2))
    else:
        print(
            f"{'forecast against reported (measured)':38}{'requests':>9}{'median error':>14}{'within 1 %':>12}{'nothing read':>14}"
        )
        for name, row in found.items():
            shares = "".join(
                f"{'-' if value is None else format(value, '.4f'):>13}" for value in list(row.values())[1:3]
            )
            print(f"{name:38}{row['requests']:9,}{shares}{row['nothing_read']:14}")
    medians = [row["median_error"] for row in found.values() if row["median_error"] is not None]
    return int(any(error > BOUND for error in medians))


if __name__ == "__main__":
    sys.exit(main())
