"""Branches of one conversation: N runnables that share its prefix."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from langchain_core.runnables import Runnable

from llmbuffer.errors import MessageError

from .where import FORK, FORK_OF, GROUP

__all__ = ["fork_runnable"]


def fork_runnable(
    runnable: Runnable[Any, Any], forks: int | Iterable[str], *, conversation: str | None = None
) -> list[Runnable[Any, Any]]:
    """Branches of a chain, a graph or an agent whose models are buffered, to run one after the other or side by side.

    ``forks`` is how many, or their names. ``conversation`` is the thread that they branch from: their prompts go on from
    what it sent last, and the checkpoint of a graph is copied to a thread of each branch (``CONVERSATION/NAME``). Without
    one they share what their prompts begin with, system text and tools. The branches never see each other, and the
    conversation goes on beside them. Where what they share is cold, one of them goes first, and the others wait until it
    begins to be answered.

    Raises ``MessageError`` for no forks at all, for a name that is there twice, and for a conversation without a
    checkpoint in a graph that keeps them.

        answers = [fork.invoke(task) for fork, task in zip(fork_runnable(agent, 8, conversation="thread-1"), tasks)]
    """
    if isinstance(forks, bool):
        raise MessageError(f"forks is {forks!r}: give how many, or their names")
    names = (
        [str(number) for number in range(1, forks + 1)]
        if isinstance(forks, int)
        else [str(name) for name in forks]
    )
    if not names or len(set(names)) < len(names):
        raise MessageError(f"forks is {forks!r}: give a number from 1 on, or names that differ")
    group = uuid.uuid4().hex
    out: list[Runnable[Any, Any]] = []
    for name in names:
        place = f"{group if conversation is None else conversation}/{name}"
        told = {"thread_id": place, FORK: place, GROUP: group}
        if conversation is not None:
            told[FORK_OF] = conversation
            _copy_checkpoint(runnable, conversation, place)
        out.append(runnable.with_config(configurable=told))
    return out


def _copy_checkpoint(runnable: Any, source: str, target: str) -> None:
    """The last checkpoint of a graph's thread as the first one of another thread."""
    saver = getattr(runnable, "checkpointer", None)
    if saver is None or isinstance(saver, bool):
        return
    found = saver.get_tuple({"configurable": {"thread_id": source, "checkpoint_ns": ""}})
    if found is None:
        raise MessageError(
            f"the thread {source!r} has no checkpoint: run it once, or fork without conversation="
        )
    place = {"configurable": {"thread_id": target, "checkpoint_ns": ""}}
    saver.put(place, found.checkpoint, found.metadata, found.checkpoint["channel_versions"])
