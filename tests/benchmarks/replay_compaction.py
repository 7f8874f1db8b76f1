"""What keeping recorded sessions inside a window costs, and what stays of them, by `llmbuffer replay --compaction`.

    python tests/benchmarks/replay_compaction.py ../shared/traces/long_public.jsonl.gz [--window 150000,100000] [--json]

A table for each model and window: one row for each way and session. Simulated. Exit code 1 if `auto` is not the cheapest of
those whose every prompt fits, or if its summary calls read less than 95 % of their input from the cache.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmbuffer.replay import Figures, Recording, read_recordings, replay
from llmbuffer.replay.compactions import COMPACTIONS

MODELS = {
    "claude-sonnet-5.5": "anthropic",
    "claude-opus-4.5": "anthropic",
    "gpt-5.5": "openai",
    "gpt-5.6": "openai",
    "gpt-4o": "openai",
}
READ_SHARE = 0.95
COLUMNS = (
    *("session", "way", "USD", "to `auto`", "hit ratio", "requests", "compactions", "kept at the end"),
    *("kept on average", "summary calls", "read from cache"),
)


def rows(
    recordings: list[Recording], model: str, window: int, pace: Any
) -> Iterator[tuple[str, str, Figures]]:
    for recording in recordings:
        for way in COMPACTIONS:
            result = replay(
                [recording],
                dialect=MODELS[model],
                model=model,
                compaction=way,  # type: ignore[arg-type]  # one of them
                window=window,
                pace=pace,
                recorded_usage=False,
            )
            yield recording.id, way, result.total


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--window", default="150000")
    parser.add_argument("--model", default=",".join(MODELS))
    parser.add_argument("--pace", default="steady")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    missing = [str(file) for file in options.files if not file.exists()]
    if missing:
        print(f"skipped: no recordings at {', '.join(missing)}")
        return 0
    recordings = [recording for file in options.files for recording in read_recordings(file)]
    wrong: list[str] = []
    for model in options.model.split(","):
        for window in map(int, options.window.split(",")):
            found = list(rows(recordings, model, window, options.pace))
            wrong += [f"{model}, {window:,}: {each}" for each in faults(found)]
            (as_json if options.json else as_table)(found, model, window)
    for each in wrong:
        print(f"not met: {each}", file=sys.stderr)
    return 1 if wrong else 0


def faults(found: list[tuple[str, str, Figures]]) -> Iterator[str]:
    """Where `auto` is not the cheapest that fits, or makes summaries without the cache."""
    ours = {name: figures for name, way, figures in found if way == "auto"}
    for name, way, figures in found:
        told = figures.retention
        assert told is not None
        assert figures.cost_usd is not None
        if not told.over_window and figures.cost_usd < (ours[name].cost_usd or 0.0):
            yield f"{name}: {way} costs {figures.cost_usd:.2f} USD, auto {ours[name].cost_usd:.2f}"
        if way == "auto" and told.over_window:
            yield f"{name}: {told.over_window} prompts of auto do not fit"
        if way == "auto" and told.summary_read_share is not None and told.summary_read_share < READ_SHARE:
            yield f"{name}: summary calls read {told.summary_read_share:.1%}"


def as_json(found: list[tuple[str, str, Figures]], model: str, window: int) -> None:
    for name, way, figures in found:
        print(
            json.dumps(
                {"model": model, "window": window, "source": name, "compaction": way, **figures.to_json()}
            )
        )


def as_table(found: list[tuple[str, str, Figures]], model: str, window: int) -> None:
    print(f"\n{model}, window {window:,} (simulated)\n")
    print(f"| {' | '.join(COLUMNS)} |\n|---|---|{'---:|' * (len(COLUMNS) - 2)}")
    ours = {name: figures.cost_usd or 1.0 for name, way, figures in found if way == "auto"}
    for name, way, figures in found:
        print(f"| {' | '.join(cells(name, way, figures, ours[name]))} |")


def cells(name: str, way: str, figures: Figures, ours: float) -> list[str]:
    told, cost = figures.retention, figures.cost_usd or 0.0
    assert told is not None
    read = "" if told.summary_read_share is None else f"{told.summary_read_share:.1%}"
    fits = f"{way}" if not told.over_window else f"{way} ({told.over_window} calls do not fit)"
    return [
        *(name, fits, f"{cost:.2f}", f"{cost / ours:.2f}", f"{figures.hit_ratio:.3f}", f"{figures.requests}"),
        *(f"{told.compactions}", f"{told.retained_end:.0%}", f"{told.retained_mean:.0%}"),
        *(f"{told.summary_requests}", read),
    ]


if __name__ == "__main__":
    sys.exit(main())
