"""The memory that one session of an arm holds when its last turn has ended."""

from __future__ import annotations

import gc
import tracemalloc
from typing import TYPE_CHECKING

from msgspec.structs import replace

from .arms import Arm, ArmName, new_arm
from .client import ScriptedClient, SilentEngine
from .clock import DemoClock

if TYPE_CHECKING:
    from .script import Script, Turn

__all__ = ["session_memory"]

_SESSIONS = 2


def session_memory(name: ArmName, script: Script) -> int:
    """Bytes that one session allocated and still holds after its last turn, texts included: the mean of two sessions.

    What the sessions of a process share (persona, policy, tools, the code itself) is not counted: one session goes before.
    """
    _held(name, script)
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        held = [_held(name, script) for _ in range(_SESSIONS)]
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) // len(held)
    finally:
        if not tracing:
            tracemalloc.stop()


def _held(name: ArmName, script: Script) -> Arm:
    """A session after its last turn; its client and its engine keep nothing."""
    clock = DemoClock()
    arm = new_arm(name, script, ScriptedClient(SilentEngine()), clock)
    for turn in script.turns:
        arm.run(_copied(turn))
    return arm


def _copied(turn: Turn) -> Turn:
    """The turn with texts of its own, as they come from users and tools."""
    steps = tuple(replace(step, results=tuple(map(_copy, step.results))) for step in turn.steps)
    return replace(
        turn,
        user=_copy(turn.user),
        retrieved=_copy(turn.retrieved),
        preferences=_copy(turn.preferences),
        steps=steps,
    )


def _copy(text: str) -> str:
    return text.encode().decode()
