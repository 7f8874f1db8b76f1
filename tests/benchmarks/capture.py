"""What recording costs, and what a redacted log still tells: `python tests/benchmarks/capture.py [--json]`.

Cost: a chat that grows to 60 messages is sent through the OpenAI SDK to a transport that answers at once, with and without
a recorder; the reference is the same chat unrecorded, in the same run, and a model that takes a second a request is the
scale that matters. Processor time, the best of several runs. Fidelity: neighbouring requests of the recorded sessions in
../shared/captures go through ``explain`` as they are and redacted. Skips what is not there.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai

from llmbuffer import LLMBufferError
from llmbuffer.capture import Recorder, redacted
from llmbuffer.capture.pseudonyms import Pseudonyms
from llmbuffer.explaining import explain
from llmbuffer.tokens import EstimateCounter, counter_for

MESSAGES, SIZE, RUNS = 60, 700, 5
CAPTURES = Path(__file__).resolve().parents[3] / "shared" / "captures"
ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-5.5",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Yes."}}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
}


def said(index: int) -> dict[str, str]:
    text = (f"{index}: " + "the parcel left the depot and is on its way to the customer, " * 20)[:SIZE]
    return {"role": "user" if index % 2 == 0 else "assistant", "content": text}


def chat(recorder: Recorder | None) -> float:
    """Seconds of processor time for a chat of ``MESSAGES`` requests, each with one message more."""
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json=ANSWER))
    http: Any = httpx2.Client(transport=transport if recorder is None else recorder.wrap(transport))
    with openai.OpenAI(api_key="none", base_url="http://localhost", http_client=http) as client:
        history: list[Any] = []
        start = time.process_time()
        for index in range(MESSAGES):
            history.append(said(index))
            client.chat.completions.create(model="gpt-5.5", messages=history)
        return time.process_time() - start


def cost() -> dict[str, float]:
    counter_for("gpt-5.5").count("loaded")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        plain = min(chat(None) for _ in range(RUNS))
        as_is = min(chat(Recorder(log, redact=False)) for _ in range(RUNS))
        hidden = min(chat(Recorder(log)) for _ in range(RUNS))
    each = 1e3 / MESSAGES
    return {
        "unrecorded_ms_per_request": round(plain * each, 3),
        "plain_log_ratio": round(as_is / plain, 2),
        "redacted_log_ratio": round(hidden / plain, 2),
        "redacted_added_ms_per_request": round((hidden - plain) * each, 3),
    }


def neighbours() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for file in sorted(CAPTURES.glob("*.jsonl.gz")):
        sessions: dict[str, list[dict[str, Any]]] = {}
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                found = json.loads(line)
                if isinstance(found.get("body"), dict):
                    sessions.setdefault(found["scenario"], []).append(found["body"])
        for bodies in sessions.values():
            yield from itertools.pairwise(bodies)


def fidelity() -> dict[str, Any] | None:
    if not CAPTURES.is_dir():
        return None
    counter = EstimateCounter()
    names = Pseudonyms(b"a key of this run", counter.count)
    pairs = breaks = agreed = 0
    tokens = [0, 0]
    for before, after in neighbours():
        try:
            plain = explain(before, after, counter=counter)
        except LLMBufferError:
            continue
        hidden = explain(redacted(before, names), redacted(after, names), counter=counter)
        pairs += 1
        breaks += plain is not None
        agreed += (plain and (plain.cause, plain.path)) == (hidden and (hidden.cause, hidden.path))
        tokens[0] += 0 if plain is None else plain.offset_tokens
        tokens[1] += 0 if hidden is None else hidden.offset_tokens
    return {
        "pairs": pairs,
        "breaks": breaks,
        "same_cause_and_path": agreed,
        "tokens_before_the_break": tokens[0],
        "the_same_redacted": tokens[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    costs, told = cost(), fidelity()
    if arguments.json:
        print(json.dumps({"cost": costs, "fidelity": told, "measured": True}, indent=2))
        return
    for title, figures in (("cost", costs), ("fidelity", told)):
        print(f"{title} (measured)" if figures else f"{title}: no recorded sessions here, skipped")
        for name, value in (figures or {}).items():
            print(f"  {name.replace('_', ' '):32} {value:>12}")


if __name__ == "__main__":
    main()
