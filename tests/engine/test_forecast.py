"""What the rules of llamacpp foretell against what the engine does, for conversations that compete for its slots."""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.benchmarks.engine import PARAMS, client_of, text_of, usages_of

from llmbuffer import Session, StableContext
from llmbuffer.dialects.llamacpp import LlamaCpp
from llmbuffer.engine import EngineServer

SEEDS = range(5)
STEPS = 24


class Bytes:
    """The tiny model's own tokenizer."""

    name = "bytes"
    estimated = False

    def count(self, text: str) -> int:
        return len(text.encode())


class Pair(NamedTuple):
    """One request: tokens foretold to be read, those that were, and the length of the prompt."""

    foretold: int
    read: int
    tokens: int

    @property
    def agrees(self) -> bool:
        """Within 5 % of the prompt; the frame around each message is estimated."""
        return abs(self.foretold - self.read) <= 0.05 * self.tokens + 30


def requests(model: Path, slots: int, memory: int | None, seed: int) -> list[Pair]:
    """Forks of one session, some with a system text of their own, take turns by chance; now and then one more is forked."""
    draw = random.Random(seed)
    dialect = LlamaCpp(lanes=slots, capacity=memory)
    with EngineServer(model, slots=slots, memory=memory) as server, client_of(server.url) as client:
        context = StableContext("local", text_of(draw.choice([50, 400, 1500]), seed), params=PARAMS)
        root = Session(context, dialect, client=client, tokens=Bytes())
        own = [text_of(draw.choice([300, 1500]), 100 * seed + fork) for fork in range(5)]
        sessions = [root.fork(system=system if draw.random() < 0.4 else None) for system in own]
        pairs = []
        for step in range(STEPS):
            session = draw.choice(sessions)
            if draw.random() < 0.25:
                sessions.append(session.fork())
            user = text_of(draw.choice([20, 200, 900]), 1000 * seed + step)
            foretold = session.request(user).forecast.read_tokens
            session.respond(user)
            usage = usages_of(session)[-1]
            pairs.append(Pair(foretold, usage.cache_read_tokens, usage.input_tokens))
    return pairs


@pytest.mark.moves_prefix(reason="forks with another system text compete for the slots")
@pytest.mark.parametrize(("slots", "memory"), [(1, None), (1, 0), (2, None), (4, None)])
def test_reads_are_as_foretold(slots: int, memory: int | None, model: Path) -> None:
    pairs = [pair for seed in SEEDS for pair in requests(model, slots, memory, seed)]
    assert len(pairs) == len(SEEDS) * STEPS
    # Sequences that share about as much as one of the engine's thresholds go either way.
    assert sum(pair.agrees for pair in pairs) >= 0.97 * len(pairs), [
        pair for pair in pairs if not pair.agrees
    ]
    missed = [pair for pair in pairs if pair.read < 0.1 * pair.tokens]
    parts = [pair for pair in pairs if 0.1 * pair.tokens <= pair.read < 0.7 * pair.tokens]
    assert min(len(missed), len(parts)) >= 5, "the conversations do compete"
