"""Real llama.cpp servers, one for each configuration, and clients of the real SDKs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.benchmarks.engine import client_of, text_of

from llmbuffer.engine import EngineServer, write_tiny_model

PREFIX = 2_000  # tokens; long enough to tell the prefix from everything else


def need(*packages: str) -> None:
    """Skip without these packages; where CI runs, fail, so that nothing is left out there in silence."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"not installed: {missing}; these tests must run where CI is set")
    if missing:
        pytest.skip(f"not installed: {missing}")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model."""
    need("xllamacpp", "gguf")
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="session")
def engines(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], EngineServer]]:
    """A running server with so many slots; started when first asked for, shared by the tests that ask for the same."""
    running: dict[int, EngineServer] = {}
    with ExitStack() as stack:

        def engine(slots: int) -> EngineServer:
            if slots not in running:
                folder = tmp_path_factory.mktemp("slots")
                server = EngineServer(model, slots=slots, context=16_384, slot_dir=folder)
                running[slots] = stack.enter_context(server)
            return running[slots]

        yield engine


@pytest.fixture
def one(engines: Callable[[int], EngineServer]) -> EngineServer:
    """A server with one slot."""
    return engines(1)


@pytest.fixture
def four(engines: Callable[[int], EngineServer]) -> EngineServer:
    """A server with four slots."""
    return engines(4)


@pytest.fixture
def client(one: EngineServer) -> Iterator[Any]:
    """An OpenAI client of the server with one slot."""
    with client_of(one.url) as client:
        yield client


_seeds = count(100)


@pytest.fixture
def system() -> str:
    """A long text that no other test sent, so that nothing of it is in a cache."""
    return text_of(PREFIX, next(_seeds))
