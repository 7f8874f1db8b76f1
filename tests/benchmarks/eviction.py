"""Eviction policies on recorded traffic: hit ratios beside LRU, plain LFU and Belady's optimum, and the time of a use.

    python tests/benchmarks/eviction.py ../shared/traces/blocks_*.jsonl.gz [--policies arc] [--json]

A trace of 20 million uses takes a minute or two for each policy and size; `--policies` leaves some of them out.

A trace is a sequence of requests, a request a sequence of blocks; each block is one use, and all blocks weigh and cost the
same. Requests are taken in order of time. Block ids that are local to a session get its name in front. Where times count
from the start of the session, one session starts every ten minutes (`--start-every`), in the order of the file.

LRU and plain LFU (counts die with the entry, ties go to the oldest) are written here on an OrderedDict, without the library.
`lru` is left out of the table, since it evicts the same; so is `cost`, which is `lfu` where all costs are equal. Belady's
optimum knows the future: it evicts what is used again last. No policy has a parameter that was set for these traces.
"""

from __future__ import annotations

import argparse
import gzip
import heapq
import json
import multiprocessing
import os
import sys
import time
from array import array
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from llmbuffer.store.policies import POLICIES, make_policy

SIZES = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
BASELINES = ("LRU", "LFU")
OURS = tuple(name for name in POLICIES if name not in {"lru", "cost"})
WITHIN = 0.95  # of the better of LRU and LFU, at every size


class Trace(NamedTuple):
    """The blocks of all requests, one after the other, numbered from 0, and when each is used next (-1: never)."""

    name: str
    uses: array[int]
    following: array[int]
    blocks: int


def read(path: Path, start_every: float) -> Trace:
    requests: list[tuple[float, int, str, list[list[int]]]] = []
    starts: dict[str, float] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            session = record.get("trace", "")
            start = starts.setdefault(session, len(starts) * start_every * 1000) if session else 0.0
            ids = record.get("hash_ids_rle") or [[number, 1] for number in record["hash_ids"]]
            requests.append((start + record["timestamp"], len(requests), session, ids))
    numbers: defaultdict[tuple[str, int], int] = defaultdict(lambda: len(numbers))
    uses = array("i")
    for _, _, session, runs in sorted(requests, key=lambda request: request[:2]):
        for first, length in runs:
            uses.extend([numbers[session, number] for number in range(first, first + length)])
    following, soonest = array("i", [-1]) * len(uses), array("i", [-1]) * len(numbers)
    for position in range(len(uses) - 1, -1, -1):
        following[position] = soonest[uses[position]]
        soonest[uses[position]] = position
    return Trace(path.name.partition(".")[0], uses, following, len(numbers))


def plain_lru(trace: Trace, size: int) -> int:
    held: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for block in trace.uses:
        if block in held:
            hits += 1
            held.move_to_end(block)
        else:
            if len(held) >= size:
                held.popitem(last=False)
            held[block] = None
    return hits


def plain_lfu(trace: Trace, size: int) -> int:
    """Blocks by the number of their uses, each number with its own LRU order."""
    counts: dict[int, int] = {}
    groups: defaultdict[int, OrderedDict[int, None]] = defaultdict(OrderedDict)
    hits = lowest = 0
    for block in trace.uses:
        count = counts.get(block, 0)
        if count:
            hits += 1
            del groups[count][block]
            if count == lowest and not groups[count]:
                lowest += 1
        else:
            if len(counts) >= size:
                del counts[groups[lowest].popitem(last=False)[0]]
            lowest = 1
        counts[block] = count + 1
        groups[count + 1][block] = None
    return hits


def belady(trace: Trace, size: int) -> int:
    held: set[int] = set()
    useless: list[int] = []  # blocks that are never used again
    later: list[int] = []  # a heap of the next uses of the others, negated; past ones sink and are swept out
    hits = 0
    for position, (block, following) in enumerate(zip(trace.uses, trace.following, strict=True)):
        if block in held:
            hits += 1
        else:
            if len(held) >= size:
                held.discard(useless.pop() if useless else trace.uses[-heapq.heappop(later)])
            held.add(block)
        if following < 0:
            useless.append(block)
        else:
            heapq.heappush(later, -following)
        if len(later) > 4 * size:
            later = [use for use in later if -use > position]
            heapq.heapify(later)
    return hits


def ours(trace: Trace, size: int, name: str) -> int:
    policy = make_policy(name, entries=size)
    touch, add = policy.touch, policy.add
    hits = 0
    for block in trace.uses:
        if touch(block):
            hits += 1
        else:
            add(block, 1)
    return hits


PLAIN: dict[str, Callable[[Trace, int], int]] = {"LRU": plain_lru, "LFU": plain_lfu, "Belady": belady}
TRACES: list[Trace] = []  # inherited by the workers


def hits_of(task: tuple[int, int, str]) -> tuple[tuple[int, int, str], int]:
    number, size, column = task
    trace = TRACES[number]
    return task, PLAIN[column](trace, size) if column in PLAIN else ours(trace, size, column)


def table(columns: tuple[str, ...], jobs: int) -> list[dict[str, Any]]:
    """One row a trace and size. The longest traces go first; what is found is told on the way."""
    order = sorted(range(len(TRACES)), key=lambda number: -len(TRACES[number].uses))
    tasks = [(number, size, column) for number in order for size in SIZES for column in columns]
    found = {}
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for task, hits in pool.imap_unordered(hits_of, tasks):
            number, size, column = task
            found[task] = hits / len(TRACES[number].uses)
            print(f"{TRACES[number].name} {size} {column} {found[task]:.4f}", file=sys.stderr, flush=True)
    return [
        {"trace": trace.name, "size": size, **{column: found[number, size, column] for column in columns}}
        for number, trace in enumerate(TRACES)
        for size in SIZES
    ]


def mean(rows: list[dict[str, Any]], column: str) -> float:
    return float(sum(row[column] for row in rows) / len(rows))


def verdicts(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """For each policy: its worst share of the better of LRU and LFU, and its averages against both."""
    found = []
    traces = [[row for row in rows if row["trace"] == trace.name] for trace in TRACES]
    for name in columns:
        if name == "Belady":
            continue
        worst = min(rows, key=lambda row: row[name] / max(row["LRU"], row["LFU"]))
        share = worst[name] / max(worst["LRU"], worst["LFU"])
        better = all(mean(part, name) > max(mean(part, "LRU"), mean(part, "LFU")) for part in traces)
        found.append(
            {
                "policy": name,
                "worst_share": share,
                "worst_at": f"{worst['trace']} {worst['size']}",
                "mean": mean(rows, name),
                "better_on_average": better,
                "meets_target": share >= WITHIN and better,
            }
        )
    return found


def speeds(trace: Trace) -> list[dict[str, Any]]:
    """Nanoseconds a use, hits and misses as they come, and how many times that of the OrderedDict; best of three."""
    best: dict[tuple[int, str], float] = {}
    for _ in range(3):
        for size in (SIZES[0], SIZES[-1]):
            for name in ("OrderedDict", *POLICIES):
                begun = time.perf_counter()
                if name == "OrderedDict":
                    plain_lru(trace, size)
                else:
                    ours(trace, size, name)
                spent = time.perf_counter() - begun
                best[size, name] = min(best.get((size, name), spent), spent)
    return [
        {
            "policy": name,
            "size": size,
            "ns_per_use": spent / len(trace.uses) * 1e9,
            "ratio": spent / best[size, "OrderedDict"],
        }
        for (size, name), spent in best.items()
    ]


def show(document: dict[str, Any]) -> None:
    print("Hit ratio a block; entries of equal weight and cost\n")
    columns = list(document["rows"][0])[2:]
    print(f"{'trace':<30}{'blocks':>8}" + "".join(f"{column:>9}" for column in columns))
    for row in document["rows"]:
        print(f"{row['trace']:<30}{row['size']:>8}" + "".join(f"{row[column]:>9.4f}" for column in columns))
    print("\nShare of the better of LRU and LFU where it is lowest, and means over all rows")
    for found in document["policies"]:
        verdict = "meets the target" if found["meets_target"] else "misses the target"
        print(
            f"{found['policy']:<10}{found['worst_share']:>7.3f} at {found['worst_at']:<36}"
            f"mean {found['mean']:.4f}  {verdict}"
        )
    print(
        "\nTime of a use, hits and misses as they come, against an OrderedDict that does LRU and nothing else"
    )
    for found in document["speed"]:
        print(
            f"{found['policy']:<12}{found['size']:>8} entries {found['ns_per_use']:>8.0f} ns {found['ratio']:>6.1f} times"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument(
        "--start-every", type=float, default=600, help="seconds between the starts of sessions"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--policies", nargs="+", choices=OURS, default=OURS)
    asked = parser.parse_args()
    columns = (*BASELINES, *asked.policies, "Belady")
    TRACES.extend(read(path, asked.start_every) for path in asked.traces)
    document = {"speed": speeds(min(TRACES, key=lambda trace: len(trace.uses)))}
    rows = table(columns, asked.jobs)
    document |= {"rows": rows, "policies": verdicts(rows, columns)}
    if asked.json:
        print(json.dumps(document, indent=2))
    else:
        show(document)


if __name__ == "__main__":
    main()
