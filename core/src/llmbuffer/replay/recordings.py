"""Recorded agent sessions as values.

A recording has one shape, whatever file it came from: agents, and calls in the order recorded. A call says how much of
its agent's last prompt it keeps and what follows, so a call is as large as what is new in it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..messages import Message

__all__ = ["CLOCK", "Agent", "Call", "Fold", "Recording", "Reported", "Skipped"]

CLOCK = "{{ CURRENT_TIME }}"  # in system texts that the recorded program rendered anew at every call


class Agent(msgspec.Struct, frozen=True):
    """A prompt of its own: ``system`` text and ``tools`` in OpenAI's shape."""

    name: str
    system: str
    tools: tuple[dict[str, Any], ...]

    def __repr__(self) -> str:
        return f"Agent(name={self.name!r}, system=<{len(self.system)}>, tools=<{len(self.tools)}>)"


class Reported(msgspec.Struct, frozen=True):
    """What the provider reported for a call, in tokens; ``cached`` is ``None`` where it did not say what it read."""

    input: int
    output: int
    cached: int | None


class Call(msgspec.Struct, frozen=True):
    """One model call: its prompt is the first ``keep`` messages of its agent's last prompt, then ``new``.

    ``agent`` is an index into the recording's agents. ``at`` is the recorded time in seconds since 1970, or ``None``.
    """

    agent: int
    keep: int
    new: tuple[Message, ...]
    reply: Message
    reported: Reported | None = None
    at: float | None = None

    @property
    def begins_turn(self) -> bool:
        """Whether a user said something since the agent's last call."""
        return any(message.role == "user" for message in self.new)


class Fold(msgspec.Struct, frozen=True):
    """A compaction as recorded: from the call with index ``call`` on, ``summary`` stands for what was said before.

    ``first_kept`` is the index of the first message that stayed, among all messages ever said. A fold behind the last call
    has that many calls as its index.
    """

    call: int
    first_kept: int
    summary: str

    def __repr__(self) -> str:
        return f"Fold(call={self.call}, first_kept={self.first_kept}, summary=<{len(self.summary)}>)"


class Recording(msgspec.Struct, frozen=True):
    """A recorded session. ``model`` is the one that answered; ``clock``: a time stood in the system texts (``CLOCK``).

    ``folds`` are the compactions, which the calls have in them.
    """

    id: str
    model: str | None
    agents: tuple[Agent, ...]
    calls: tuple[Call, ...]
    clock: bool = False
    file: str = ""
    line: int = 0
    folds: tuple[Fold, ...] = ()

    def __repr__(self) -> str:
        return f"Recording(id={self.id!r}, agents={len(self.agents)}, calls={len(self.calls)})"


class Skipped(msgspec.Struct, frozen=True):
    """A line that was not replayed: ``line`` counts from 1, ``reason`` holds no prompt text.

    >>> print(Skipped("some.jsonl", 3, "not JSON"))
    some.jsonl:3: not JSON
    """

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"
