"""Where an arm runs: an engine of its own, fresh each time, so that no arm reads what another has left in a cache."""

from __future__ import annotations

import errno
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from ..engine import EngineServer
from ..errors import LLMBufferError
from .client import Engine, HttpEngine, SimulatedEngine
from .clock import DemoClock
from .vocabulary import BytePairs

if TYPE_CHECKING:
    from .script import Script, Turn, Worker

__all__ = ["CONTEXT", "ENGINES", "EngineName", "Fresh", "fresh_engines", "missing", "script_texts"]

EngineName = Literal["auto", "llamacpp", "simulate"]
ENGINES: tuple[EngineName, ...] = ("auto", "llamacpp", "simulate")
CONTEXT = 32_768  # tokens that the slot holds; the longest prompt of the demo has 25,000 at most
_NEEDED = ("xllamacpp", "gguf", "numpy")

# A new engine for one arm, with that arm's clock, ended with the block.
Fresh: TypeAlias = Callable[[DemoClock], AbstractContextManager[Engine]]


def missing() -> list[str]:
    """The packages that the engine needs and that are not installed."""
    return [name for name in _NEEDED if importlib.util.find_spec(name) is None]


@contextmanager
def fresh_engines(script: Script, *, measured: bool, threads: int) -> Iterator[Fresh]:
    """What starts engines: llama.cpp servers if ``measured``, else models of their cache.

    The model file lies in a temporary folder that goes with the block. Raises ``LLMBufferError`` if there is no room for
    it, if a package is missing, or, later, if a server does not start.
    """
    texts = script_texts(script)
    if not measured:
        count = lru_cache(maxsize=16_384)(BytePairs.trained(texts).count)

        @contextmanager
        def simulated(clock: DemoClock) -> Iterator[Engine]:
            yield SimulatedEngine(clock, count)

        yield simulated
        return
    lacking = missing()
    if lacking:
        raise LLMBufferError(
            f"the engine is not installed: {', '.join(lacking)} missing; install the extra 'demo', or give --engine simulate"
        )
    with _folder() as folder:
        model = _written(folder / "demo.gguf", texts)

        @contextmanager
        def served(_clock: DemoClock) -> Iterator[Engine]:
            server = EngineServer(model, slots=1, context=CONTEXT, threads=threads)
            with _started(server) as url, closing(HttpEngine(url)) as engine:
                yield engine

        yield served


@contextmanager
def _started(server: EngineServer) -> Iterator[str]:
    """The address of the server, which is ended with the block.

    It is started in a thread: signals interrupt the main one alone, so no process begins that nobody knows of. Wherever the
    main one is then, the thread is waited for, and what it started is ended.
    """
    try:
        with ThreadPoolExecutor(1) as starter:
            url = _address(starter.submit(server.start))
        yield url
    finally:
        server.stop()


def _address(starting: Future[EngineServer]) -> str:
    try:
        return starting.result().url
    except OSError as error:
        raise _no_room("the log of the engine", error) from None


@contextmanager
def _folder() -> Iterator[Path]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="llmbuffer-demo-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _no_room("a temporary folder", error) from None
    with folder as path:
        yield Path(path)


def _written(path: Path, texts: list[str]) -> Path:
    from .model import write_demo_model

    try:
        return write_demo_model(path, texts)
    except OSError as error:
        raise _no_room(f"the model of the demo in {path.parent}", error) from None


def _no_room(what: str, error: OSError) -> LLMBufferError:
    # What numpy could write in part only has no number.
    full = error.errno in (None, errno.ENOSPC, errno.EDQUOT)
    why = "there is no space left on the device" if full else (error.strerror or str(error))
    return LLMBufferError(
        f"cannot write {what}: {why}; set TMPDIR to a folder with 50 MB of room, or give --engine simulate"
    )


def script_texts(script: Script) -> list[str]:
    """All that is said in the script, once: what the demo's vocabulary is trained on."""
    texts = [script.persona, script.policy, *map(_json, script.tools)]
    for turn in (*script.turns, *script.coordinator):
        texts += [turn.user, turn.retrieved, turn.preferences, *_said(turn)]
    for worker in script.workers:
        texts += [worker.task, *_said(worker)]
    return list(dict.fromkeys(texts))


def _said(turn: Turn | Worker) -> list[str]:
    texts: list[str] = []
    for step in turn.steps:
        texts += [step.reply.text, *(_json(call.arguments) for call in step.reply.tool_calls), *step.results]
    return texts


def _json(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
