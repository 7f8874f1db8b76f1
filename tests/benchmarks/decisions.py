"""The time of one decision about compaction, measured: `python tests/benchmarks/decisions.py [--json]`.

The reference is encoding 5,000 messages of 700 characters as JSON, which any client does with such a session for every
request. A decision with 32 cuts is timed where the schedule has to be planned, where one test rules it out, and where
``worth_asking`` says that there is no need to look for cuts. Processor time, the best of several runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

from msgspec.structs import replace

from llmbuffer.compaction.economics import Cut, Outlook, decide, worth_asking

MESSAGES, HEAD, SIZE = 5_000, 6_000, 175  # tokens of the head and of a message


def milliseconds(work: Callable[[], object], runs: int = 15, times: int = 5) -> float:
    """The best of ``runs``, each of which does the work several ``times``."""
    found = []
    for _ in range(runs):
        start = time.process_time()
        for _ in range(times):
            work()
        found.append((time.process_time() - start) / times)
    return min(found) * 1e3


def outlook(remaining: int) -> Outlook:
    """A session of 5,000 messages at the end of a turn, with 32 places to cut."""
    end = HEAD + MESSAGES * SIZE
    places = [HEAD + index * (end - HEAD - 4_000) // 32 for index in range(32)]
    cuts = [Cut(action="elide", kept=kept, left=4_000 + (end - kept - 4_000) * 7 // 10) for kept in places]
    return Outlook(
        prompt=end,
        new=2 * SIZE,
        protected=4_000,
        cuts=tuple(cuts),
        growth=2.0 * SIZE,
        remaining=remaining,
    )


def main() -> int:
    """Time, print, and say whether a decision stays under 5 ms."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    messages = [{"role": "user", "content": f"{number:07}" * 100} for number in range(MESSAGES)]
    near, window = outlook(8), replace(outlook(1_000), max_tokens=1_000_000)
    cases: dict[str, Callable[[], object]] = {
        "reference": lambda: json.dumps(messages),
        "planned, 100 requests to come": lambda: decide(outlook(100)),
        "planned, 1,000 to come and a window": lambda: decide(window),
        "ruled out, 8 to come": lambda: decide(near),
        "not worth asking": lambda: worth_asking(near, removable=400),
    }
    times = {name: milliseconds(work) for name, work in cases.items()}
    if options.json:
        print(
            json.dumps(
                {name: {"ms": took, "ratio": took / times["reference"]} for name, took in times.items()},
                indent=2,
            )
        )
    else:
        for name, took in times.items():
            print(f"{name:36} {took:8.4f} ms, {took / times['reference']:8.5f} of the reference (measured)")
    return int(max(took for name, took in times.items() if name != "reference") >= 5)


if __name__ == "__main__":
    sys.exit(main())
