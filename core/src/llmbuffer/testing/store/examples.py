"""What a test class tells the contract about its back end, and what sessions the promises are tried on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ...context import StableContext
from ...messages import Message
from ...request import Request
from ...session import Session
from ...store import Backend, Store
from ..fakes import FakeClock

__all__ = ["CONTEXT", "DIALECTS", "StoreExamples", "bytes_of", "saved"]

# A model of each dialect, with marks and without.
DIALECTS = (
    ("openai", "gpt-5.5"),
    ("openai", "gpt-5.6"),
    ("openai-responses", "gpt-5.6"),
    ("anthropic", "claude-sonnet-5.5"),
    ("gemini", "gemini-3.1-pro"),
    ("deepseek", "deepseek-v4-pro"),
    ("llamacpp", "a-model"),
    ("vllm", "a-model"),
)
CONTEXT = StableContext("gpt-5.5", "You are kind.")


class StoreExamples:
    """What a test class tells about its back end: ``make`` opens one, ``again`` the same one once more.

    ``at_rest`` is for a back end that keeps its bytes elsewhere than in files of that folder.
    """

    def make(self, folder: Path) -> Backend:
        """A new, empty back end that keeps what it has in ``folder``, if anywhere."""
        raise NotImplementedError

    def again(self, folder: Path) -> Backend:
        """The back end that ``make`` opened in this folder, opened once more."""
        raise NotImplementedError

    def at_rest(self, folder: Path) -> bytes:
        """All bytes that the back end in this folder has on disk: by default those of the files in it."""
        return b"\0".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())

    @pytest.fixture
    def clock(self) -> FakeClock:
        """The clock of the store."""
        return FakeClock(1_000.0)

    @pytest.fixture
    def store(self, tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
        """An empty store of 1,000 bytes."""
        with Store(self.make(tmp_path), capacity=1_000, clock=clock) as store:
            yield store


def bytes_of(request: Request) -> bytes:
    """What is sent."""
    return msgspec.json.encode(request.body)


def saved(store: Store, *texts: str, session_id: str = "s1") -> Session:
    """A session that says these texts, saved."""
    session = Session(CONTEXT, store=store, session_id=session_id)
    session.append([Message("user", text) for text in texts])
    session.save()
    return session
