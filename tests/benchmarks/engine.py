"""Prompt tokens that a real llama.cpp engine computes, measured: `python tests/benchmarks/engine.py [--json] [--prefix N]`.

Each case runs twice on servers of its own: as programs send their prompts by default, and with llmbuffer. Needs the packages
openai, xllamacpp and gguf. The model is tiny and random, a token is a byte; what is computed and what is read is the
engine's own count.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from llmbuffer import Segment, Session, StableContext, Usage
from llmbuffer.dialects.llamacpp import LlamaCpp
from llmbuffer.dialects.llamacpp_slots import broadcast_slot, restore_slot, save_slot
from llmbuffer.engine import EngineServer, write_tiny_model
from llmbuffer.tokens import EstimateCounter

WORKERS = 4
PREFIX = 10_000  # tokens
# One token of answer: what the tiny model says is noise.
PARAMS = {"max_tokens": 1, "temperature": 0}
TEXT = "the parcel left the depot and is on its way to the customer who asked for a refund of late delivery"


class Case(NamedTuple):
    """What one case computed in tokens: as sent by default, with llmbuffer, and how long prefix and tails are."""

    case: str
    prefix: int
    tails: int
    default: int
    buffered: int


def text_of(tokens: int, seed: int) -> str:
    """An English-looking text of so many bytes, another one for each seed."""
    draw, known = random.Random(seed), TEXT.split()
    words = [f"{seed}:"]
    while sum(map(len, words)) + len(words) < tokens:
        words.append(draw.choice(known))
    return " ".join(words)[:tokens]


@contextmanager
def client_of(url: str) -> Iterator[Any]:
    """The real SDK's client."""
    from openai import OpenAI

    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


def session_of(client: Any, system: str, *, lanes: int = 1) -> Session:
    """A session on the engine whose answers are one token long."""
    context = StableContext("local", [Segment("policy", system, level="global")], params=PARAMS)
    return Session(context, LlamaCpp(lanes=lanes), client=client, tokens=EstimateCounter())


def computed(usages: Sequence[Usage]) -> int:
    """The prompt tokens that were not read from the cache."""
    return sum(usage.input_tokens - usage.cache_read_tokens for usage in usages)


def usages_of(*sessions: Session) -> list[Usage]:
    """What the engine reported for every request of the sessions."""
    return [entry.usage for session in sessions for entry in session.ledger if entry.usage is not None]


def plainly(client: Any, system: str, user: str, **options: Any) -> Usage:
    """A request without llmbuffer: one system message, one user message."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    response = client.chat.completions.create(
        model="local", messages=messages, extra_body=options or None, **PARAMS
    )
    usage = LlamaCpp().read_usage(response)
    assert usage is not None, "the engine reports usage"
    return usage


def prewarmed(session: Session) -> Usage:
    """What the engine computes to fill its cache with the session's prefix."""
    seen = session.prewarm()
    assert seen is not None, "the dialect has a way to prewarm"
    assert seen.usage is not None, "the engine reports usage"
    return seen.usage


def side_by_side(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run all jobs at once; their results in order."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


def suffix_case(model: Path, prefix: int) -> Case:
    """Four requests behind one prefix, while a clock runs: in the system prompt by default, as dynamic text with llmbuffer."""
    system, clocks = text_of(prefix, 1), ["12:00", "12:01", "13:00", "20:30"]
    with EngineServer(model) as server, client_of(server.url) as client:
        default = [plainly(client, f"It is {clock}.\n{system}", f"Question {clock}?") for clock in clocks]
    with EngineServer(model) as server, client_of(server.url) as client:
        session = session_of(client, system)
        for clock in clocks:
            session.respond(f"Question {clock}?", dynamic={"clock": clock})
        ours = usages_of(session)
    tails = sum(usage.input_tokens - prefix for usage in ours)
    return Case("4 requests, a clock", prefix, tails, computed(default), computed(ours))


def fork_case(model: Path, prefix: int) -> Case:
    """Four workers from one cold prefix on four slots: at once by default, the prefix put into each slot with llmbuffer."""
    system = text_of(prefix, 2)
    tasks = [f"You are worker {index}: {text_of(40, index)}" for index in range(WORKERS)]
    with EngineServer(model, slots=WORKERS) as server, client_of(server.url) as client:
        default = side_by_side([partial(plainly, client, system, task) for task in tasks])
    with (
        tempfile.TemporaryDirectory() as folder,
        EngineServer(model, slots=WORKERS, slot_dir=folder) as server,
        client_of(server.url) as client,
    ):
        session = session_of(client, system, lanes=WORKERS)
        first = prewarmed(session.fork("leader", params={**PARAMS, "id_slot": 0}))
        broadcast_slot(client, 0, range(WORKERS), "prefix.bin")
        forks = [session.fork(f"worker-{slot}", task=task) for slot, task in enumerate(tasks)]
        side_by_side([partial(fork.respond, params={"id_slot": slot}) for slot, fork in enumerate(forks)])
        ours = usages_of(*forks)
    tails = sum(usage.input_tokens - prefix for usage in ours)
    return Case("4 workers, 4 slots, cold", prefix, tails, computed(default), computed([first, *ours]))


def restart_case(model: Path, prefix: int) -> Case:
    """A session that goes on after the server was started anew: from nothing by default, from a saved slot with llmbuffer."""
    system = text_of(prefix, 3)
    with tempfile.TemporaryDirectory() as folder:
        server = EngineServer(model, slot_dir=folder)
        with server, client_of(server.url) as client:
            session = session_of(client, system)
            session.respond("Question one?")
            save_slot(client, 0, "session.bin")
        again = session.fork("default"), session.fork("restored")
        for fork, name in zip(again, (None, "session.bin"), strict=True):
            with server, client_of(server.url) as client:
                if name is not None:
                    restore_slot(client, 0, name)
                fork.respond("Question two?", client=client)
    default, ours = usages_of(again[0]), usages_of(again[1])
    return Case(
        "server started anew", prefix, ours[0].input_tokens - prefix, computed(default), computed(ours)
    )


CASES: Mapping[str, Callable[[Path, int], Case]] = {
    "suffix": suffix_case,
    "forks": fork_case,
    "restart": restart_case,
}


def measure(prefix: int = PREFIX) -> list[Case]:
    """All cases with a prefix of so many tokens."""
    with tempfile.TemporaryDirectory() as folder:
        model = write_tiny_model(Path(folder) / "tiny.gguf")
        return [case(model, prefix) for case in CASES.values()]


def as_json(cases: Sequence[Case]) -> dict[str, Any]:
    """The figures as one document."""
    rows = [
        {
            "case": case.case,
            "prefix_tokens": case.prefix,
            "tail_tokens": case.tails,
            "default": {"computed_tokens": case.default},
            "buffered": {"computed_tokens": case.buffered},
            "ratio": case.buffered / case.default,
        }
        for case in cases
    ]
    return {"engine": "llama.cpp", "measured": True, "rows": rows}


def main() -> None:
    """Print the table, or the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--prefix", type=int, default=PREFIX, help="tokens of the shared prefix")
    options = parser.parse_args()
    cases = measure(options.prefix)
    if options.json:
        print(json.dumps(as_json(cases), indent=2))
        return
    print(f"prompt tokens computed by llama.cpp (measured), prefix of {options.prefix:,} tokens")
    print(f"{'case':28}{'by default':>12}{'llmbuffer':>12}{'ratio':>8}")
    for case in cases:
        print(f"{case.case:28}{case.default:>12,}{case.buffered:>12,}{case.buffered / case.default:>8.3f}")


if __name__ == "__main__":
    main()
