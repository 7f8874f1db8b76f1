"""The demo from end to end: every arm on an engine of its own, then what it costs, holds and breaks."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from ..errors import LLMBufferError
from .arms import ARMS, ArmName
from .broken import what_broke
from .engines import ENGINES, EngineName, Fresh, fresh_engines, missing
from .figures import ArmFigures, Demo, WorkerFigures
from .measured import Watch, run_session, run_workers
from .memory import session_memory
from .providers import PROVIDERS, counters, session_cost

if TYPE_CHECKING:
    from .script import Script

__all__ = ["WORKER_ARMS", "calls_of", "run_demo"]

WORKER_ARMS: tuple[ArmName, ...] = ("default", "buffered")


def run_demo(
    script: Script | None = None,
    *,
    engine: EngineName = "auto",
    threads: int = 1,
    watch: Watch | None = None,
) -> Demo:
    """Run every arm and return the figures.

    ``script`` (default: the demo's own); ``engine``: ``llamacpp`` is the real one, ``simulate`` a model of its cache,
    ``auto`` the real one where it is installed; ``threads`` of the real one; ``watch`` is called after each model call with
    the name of the arm. Raises ``LLMBufferError`` if the engine is missing, does not start, or has no room for its model.
    """
    if engine not in ENGINES:
        raise LLMBufferError(f"unknown engine {engine!r}: use one of {', '.join(ENGINES)}")
    if threads < 1:
        raise LLMBufferError(f"threads is {threads!r}: give 1 or more")
    if script is None:
        from .script import script as own

        script = own()
    start = perf_counter()
    seen: Watch = watch if watch is not None else _nobody
    measured = engine == "llamacpp" or (engine == "auto" and not missing())
    with fresh_engines(script, measured=measured, threads=threads) as fresh:
        arms = {name: _arm(name, script, fresh, seen) for name in ARMS}
        workers = {name: _workers(name, script, fresh, seen) for name in WORKER_ARMS}
    return Demo(
        engine="llamacpp" if measured else "simulate",
        arms=arms,
        workers=workers,
        counters=counters(),
        threads=threads,
        seconds=perf_counter() - start,
    )


def calls_of(script: Script) -> int:
    """The model calls that a run makes over all arms.

    >>> from .script import script
    >>> calls_of(script()) > 100
    True
    """
    session = sum(len(turn.steps) for turn in script.turns)
    team = sum(len(turn.steps) for turn in script.coordinator)
    team += sum(len(worker.steps) for worker in script.workers)
    return session * len(ARMS) + team * len(WORKER_ARMS)


def _arm(name: ArmName, script: Script, fresh: Fresh, watch: Watch) -> ArmFigures:
    turns = run_session(name, script, fresh, watch)
    return ArmFigures(
        turns=tuple(turns),
        cost_usd={provider: session_cost(name, script, provider) for provider in PROVIDERS},
        memory_bytes=session_memory(name, script),
        broken=tuple(what_broke(call for turn in turns for call in turn.sent)),
    )


def _workers(name: ArmName, script: Script, fresh: Fresh, watch: Watch) -> WorkerFigures:
    coordinator, *workers = run_workers(name, script, fresh, watch)
    return WorkerFigures(coordinator, tuple(workers))


def _nobody(_name: ArmName) -> None:
    """Watch nothing."""
