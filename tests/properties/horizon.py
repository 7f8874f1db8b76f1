"""Horizons on recorded sessions: `python -m tests.properties.horizon FILE… [--json]`.

Sessions of one source (the first part of their ids) are taken in file order, and each finished one is learnt from. Before
every request the horizon names the requests still to come; `held` is the share of those that were at least as many. The
same sessions are then run with ``decide``, at Anthropic's prices of tokens estimated at four characters each: tool
results elided, or the history summarised in 800 tokens by a call that is paid for. What a horizon costs more than the true
number of remaining requests does is printed as a fraction, of all sessions together and as the mean of the sessions; `so
far` takes the requests so far for the horizon, `never` never cuts. All costs are simulated. Files of KV blocks
(`blocks_claudecode_*`) give lengths only.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from llmbuffer.compaction.economics import Cut, Outlook, Terms, decide, spread
from llmbuffer.compaction.horizon import Horizon
from llmbuffer.messages import Message
from llmbuffer.replay import read_recordings

QUANTILES = (0.1, 0.25, 0.35, 0.5, 0.75)
TERMS = Terms(read=0.1, write=1.25, output=5.0, minimum=1024)
SUMMARY, PLACEHOLDER = 800, 25  # tokens
KINDS = ("elide", "summary")
Blocks = list[tuple[int, int]]  # of each request: the tokens it adds, and what eliding leaves of them
Recorded = tuple[
    str, int, int, Blocks
]  # source, requests, tokens of the head, and no blocks where there is no text


def sessions(path: Path) -> Iterator[Recorded]:
    """The recorded sessions of a file."""
    if path.name.startswith("blocks_claudecode"):
        counts: dict[str, int] = {}
        with gzip.open(path, "rt") as lines:
            for line in map(json.loads, lines):
                if line["agent"] == "main":
                    counts[line["trace"]] = counts.get(line["trace"], 0) + 1
        yield from (("claudecode", count, 0, []) for count in counts.values())
        return
    for recording in read_recordings(path):
        if len(recording.agents) == 1:
            agent, calls = recording.agents[0], recording.calls
            head = (len(agent.system) + len(json.dumps(agent.tools))) // 4
            added = [[*call.new, *([calls[i - 1].reply] if i else [])] for i, call in enumerate(calls)]
            yield recording.id.split("-")[0], len(calls), head, [block(messages) for messages in added]


def block(messages: Sequence[Message]) -> tuple[int, int]:
    """The tokens of messages, and what is left of them where tool results give way to a placeholder."""
    sizes = [len(json.dumps(message.to_openai())) // 4 for message in messages]
    left = [
        min(size, PLACEHOLDER) if m.role == "tool" else size for size, m in zip(sizes, messages, strict=True)
    ]
    return sum(sizes), sum(left)


class Run:
    """A recorded session on its way: what each block has come to, and what has been paid, in input tokens."""

    def __init__(self, head: int, blocks: Blocks, kind: str) -> None:
        self.head, self.blocks, self.kind = head, blocks, kind
        self.sizes: list[int] = []
        self.done, self.held, self.paid, self.until = 0, head, 0.0, 0

    def request(self, remaining: int | None) -> None:
        """One request; ``remaining`` are those expected after it, None for never cutting."""
        fresh = self.blocks[len(self.sizes)][0]
        prompt, taken = self.held + fresh, None
        if remaining is not None and self.sizes and prompt >= self.until:
            taken = self._decided(prompt, fresh, remaining)
        kept = self.held if taken is None else taken.kept
        self.held = prompt if taken is None else taken.tokens
        self.paid += TERMS.prompt(kept if self.sizes else 0, self.held)
        self.sizes.append(fresh)

    def _decided(self, prompt: int, fresh: int, remaining: int) -> Cut | None:
        found = self._elided(fresh) if self.kind == "elide" else {0: (self.head, SUMMARY + fresh)}
        making = 0 if self.kind == "elide" else SUMMARY
        cuts = tuple(
            Cut(action=self.kind, kept=kept, left=left, making=making) for kept, left in found.values()
        )
        known = self.blocks[: len(self.sizes) + 1]
        growth = sum(size for size, _ in known) / len(known)
        asked: dict[str, Any] = {"terms": TERMS, "growth": growth, "tail": growth, "remaining": remaining}
        decision = decide(Outlook(prompt=prompt, new=fresh, protected=fresh, cuts=cuts, **asked))
        self.until = 0 if decision.compact else prompt + decision.again
        if not decision.compact or decision.cut is None:
            return None
        self._cut(next(i for i in found if found[i] == (decision.cut.kept, decision.cut.left)))
        self.paid += (TERMS.output * making + TERMS.read * prompt) if making else 0
        return decision.cut

    def _elided(self, fresh: int) -> dict[int, tuple[int, int]]:
        left, kept, found = fresh, self.held, {}
        for first in reversed(range(self.done, len(self.sizes))):
            left, kept = left + self.blocks[first][1], kept - self.sizes[first]
            found[first] = (kept, left)
        firsts = sorted(found)
        return {firsts[i]: found[firsts[i]] for i in spread([found[first][0] for first in firsts])}

    def _cut(self, first: int) -> None:
        count = len(self.sizes)
        if self.kind == "elide":
            self.sizes[first:] = [left for _, left in self.blocks[first:count]]
            self.done = count


def paid(head: int, blocks: Blocks, kind: str, expected: Callable[[int], int | None]) -> float:
    """The price of a session; ``expected(so far)`` names the requests after the next one, or None: never cut."""
    run = Run(head, blocks, kind)
    for seen in range(len(blocks)):
        run.request(expected(seen))
    return run.paid


def measured(found: Sequence[Recorded], quantile: float | None) -> tuple[float, dict[str, list[float]]]:
    """How often one horizon held, and what each session cost with it; ``quantile`` None: the requests so far."""
    learnt: dict[str, Horizon] = {}
    held = asked = 0
    costs: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for source, count, head, blocks in found:
        horizon = learnt.get(source, Horizon(quantile=quantile or 0.5))
        named = [seen if quantile is None else horizon.remaining(seen) for seen in range(count)]
        held += sum(value <= count - seen - 1 for seen, value in enumerate(named))
        asked += count
        for kind in KINDS if blocks else ():
            costs[kind].append(paid(head, blocks, kind, named.__getitem__))
        learnt[source] = horizon.observe(count)
    return held / asked, costs


def above(costs: Sequence[float], known: Sequence[float]) -> dict[str, float]:
    """By how much costs exceed the known ones: all sessions together, and the mean of the sessions."""
    each = [cost / least - 1 for cost, least in zip(costs, known, strict=True)]
    return {"total": sum(costs) / sum(known) - 1, "mean": sum(each) / len(each), "worst": max(each)}


def remained(lengths: Sequence[int], seen: int) -> int | None:
    """The 25 % quantile of the requests after the next one, in the sessions that went beyond ``seen``."""
    rest = sorted(length - seen - 1 for length in lengths if length > seen)
    return rest[len(rest) // 4] if rest else None


def report(found: Sequence[Recorded]) -> dict[str, Any]:
    """Every horizon against the true one."""
    texts = [session for session in found if session[3]]
    lengths = sorted(count for _, count, _, _ in found)

    def every(kind: str, remaining: Callable[[int, int], int | None]) -> list[float]:
        return [paid(head, blocks, kind, partial(remaining, count)) for _, count, head, blocks in texts]

    known = {kind: every(kind, lambda count, seen: count - seen - 1) for kind in KINDS}
    rows = {f"quantile {quantile}": measured(found, quantile) for quantile in QUANTILES}
    rows["so far"] = measured(found, None)
    rows["never"] = (1.0, {kind: every(kind, lambda _count, _seen: None) for kind in KINDS})
    return {
        "sessions": len(found),
        "with_text": len(texts),
        "lengths": [lengths[int((i + 0.5) / 24 * len(lengths))] for i in range(24)],
        "remained": {seen: remained(lengths, seen) for seen in (0, 10, 40, 80)},
        "rows": {
            name: {
                "held": held,
                **({kind: above(costs[kind], known[kind]) for kind in KINDS} if texts else {}),
            }
            for name, (held, costs) in rows.items()
        },
    }


def main() -> int:
    """Read, run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    document = report([session for path in options.files for session in sessions(path)])
    if options.json:
        print(json.dumps(document, indent=2))
        return 0
    print(
        f"{document['sessions']} sessions ({document['with_text']} with text), lengths {document['lengths']}"
    )
    print(f"25 % quantile of what remained, by the requests so far: {document['remained']}")
    for name, row in document["rows"].items():
        print(f"{name:14} held {row['held']:.3f}", end="")
        for kind in (kind for kind in KINDS if kind in row):
            print(f"; {kind}: total {row[kind]['total']:+.4f}, mean {row[kind]['mean']:+.4f}", end="")
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
