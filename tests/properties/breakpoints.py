"""The planner of breakpoints against the best static choice: `python -m tests.properties.breakpoints [--json]`.

Every request's marks, as ``Session`` plans them, are priced by the exact cache model, and so is the best static choice:
any at most four kinds of place, marked in every request, chosen with hindsight. `plain` workloads fork and append up to 60
positions between two requests. `mixed` ones take turns, call tools, carry dynamic text and let entries expire, so that
what pays depends on what nobody can know yet; there the mean counts. Exits with 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.properties.static_search import StaticSearch
from tests.properties.workloads import Mixed, Workload

MODELS = ("claude-sonnet-4.5", "gpt-5.6")
KINDS: dict[str, type[Workload]] = {"plain": Workload, "mixed": Mixed}
WORST_PLAIN, MEAN_MIXED = 0.02, 0.005  # above the best static choice, as fractions of it


class Outcome(NamedTuple):
    """What the planner pays above the best static choice, as a fraction of it, and which that was."""

    seed: int
    requests: int
    excess: float
    best: tuple[str, ...]


def compare(seed: int, model: str, kind: str = "plain") -> Outcome:
    """One workload. The search is fast, so its two results are checked with the cache model."""
    search = StaticSearch(KINDS[kind](seed, model))
    best, choice = search.best()
    planned = search.exact(None)
    assert abs(planned - search.cost(None)) + abs(search.exact(choice) - best) < 1e-6 * best
    return Outcome(seed, len(search.sent), planned / best - 1, choice)


def summary(found: Sequence[Outcome]) -> dict[str, Any]:
    """Mean and worst of several workloads."""
    worst = max(found, key=lambda outcome: outcome.excess)
    return {
        "workloads": len(found),
        "requests": sum(outcome.requests for outcome in found),
        "mean_excess": sum(outcome.excess for outcome in found) / len(found),
        "worst_excess": worst.excess,
        "above_2_percent": sum(outcome.excess > WORST_PLAIN for outcome in found),
        "worst": worst._asdict(),
    }


def main() -> int:
    """Compare, print, and say whether the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", type=int, default=300)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    document: dict[str, Any] = {}
    for kind in KINDS:
        for model in MODELS:
            row = summary([compare(seed, model, kind) for seed in range(options.workloads)])
            document[f"{kind} {model}"] = row
            if not options.json:
                print(
                    f"{kind:5} {model:17} {row['workloads']} workloads, {row['requests']} requests: planner above the best "
                    f"static choice: mean {row['mean_excess']:+.4f}, worst {row['worst_excess']:+.4f}, "
                    f"{row['above_2_percent']} above 2 %"
                )
    if options.json:
        print(json.dumps(document, indent=2))
    plain = [row["worst_excess"] <= WORST_PLAIN for name, row in document.items() if name.startswith("plain")]
    mixed = [row["mean_excess"] <= MEAN_MIXED for name, row in document.items() if name.startswith("mixed")]
    return int(not all(plain + mixed))


if __name__ == "__main__":
    sys.exit(main())
