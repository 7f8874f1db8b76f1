"""The model of an engine with slots against the engine itself: random prompts, every count of cached tokens the same."""

from __future__ import annotations

import json
import math
import random
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbuffer import CacheRules
from llmbuffer.cache import CacheModel
from llmbuffer.chain import Block, root
from llmbuffer.engine import EngineServer
from llmbuffer.snapshot import Snapshot

REQUESTS = 25
LETTERS = "abcdefgh "


def prompts(draw: random.Random) -> Iterator[str]:
    """Prompts that extend, cut, repeat or part from earlier ones, at any point; some are new."""
    known: list[str] = []
    for _ in range(REQUESTS):
        if known and draw.random() < 0.85:
            base = draw.choice(known[-6:])
            kept = draw.choice([len(base), int(len(base) * draw.random())])
            text = base[:kept] + _noise(draw, draw.choice([0, 5, 60, 400, 900]))
        else:
            text = _noise(draw, draw.choice([30, 300, 1_000]))
        known.append(text[:3_500] or "x")
        yield known[-1]


def _noise(draw: random.Random, length: int) -> str:
    return "".join(draw.choice(LETTERS) for _ in range(length))


def sent(text: str) -> Snapshot:
    """The prompt as the model sees it: with the tiny model's vocabulary, a character is a token."""
    wire = text.encode()
    said = Block("messages", "", text)
    return Snapshot(root(), root().child(said, content=wire, wire=wire, tokens=len(text)))


def cached(url: str, text: str) -> int:
    """The tokens that the engine took from its cache for this prompt."""
    body = {"prompt": text, "n_predict": 1, "cache_prompt": True, "temperature": 0}
    request = urllib.request.Request(
        f"{url}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        found: int = json.load(response)["timings"]["cache_n"]
    return found


@pytest.mark.parametrize(
    ("slots", "memory", "seed"),
    [(1, None, 1), (1, 0, 2), (2, None, 3), (2, 0, 4), (3, None, 24), (3, None, 44)],
)
def test_the_model_of_slots_and_memory_agrees_with_the_engine(
    model: Path, slots: int, memory: int | None, seed: int
) -> None:
    rules = CacheRules(
        name="engine", match="lanes", lanes=slots, recomputed=1, ttl=math.inf, capacity=memory
    )  # the memory of None has room for all of them
    predicted = CacheModel(rules, count=len)
    found, expected = [], []
    with EngineServer(model, slots=slots, context=4_096, memory=memory) as engine:
        for at, text in enumerate(prompts(random.Random(seed))):
            expected.append(predicted.commit(sent(text), at).read_tokens)
            found.append(cached(engine.url, text))
    assert found == expected
    assert sum(found) > 0
