"""The public sessions as scripts: what is said at each call, and text that changes, drawn by a seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from llmbuffer.replay import Recording, read_recordings
from llmbuffer.replay.figures import sources
from llmbuffer.replay.noise import Noise

TRACES = Path(__file__).resolve().parents[4] / "shared" / "traces"
SEED = 7
Changing: TypeAlias = Literal[
    "call", "turn"
]  # whether programs write a clock anew at each call, or once for a turn


class Script(NamedTuple):
    """One session: its source, the recording cut to so many calls, and the changing texts of each call."""

    source: str
    recording: Recording
    texts: list[dict[str, str]]

    def job(self, changing: Changing) -> dict[str, Any]:
        """What a peer is given: messages in OpenAI's format, and the changing text as programs write it."""
        agent = self.recording.agents[0]
        steps: list[dict[str, Any]] = []
        for call, texts in zip(self.recording.calls, self.texts, strict=True):
            begins = not steps or any(message.role == "user" for message in call.new)
            dynamic = "\n".join(texts.values()) if begins or changing == "call" else steps[-1]["dynamic"]
            steps.append({"new": [message.to_openai() for message in call.new], "dynamic": dynamic})
        tools = list(agent.tools)
        return {"id": self.recording.id, "system": agent.system, "tools": tools, "steps": steps}


def scripts(sessions: int, calls: int) -> Iterator[Script]:
    """So many sessions of each source, the first ones of the file, cut to so many calls; only those that grow by appending."""
    found = list(read_recordings(TRACES / "sessions_public.jsonl.gz"))
    source_of = sources(recording.id for recording in found)
    taken: dict[str, int] = {}
    for recording in found:
        source = source_of[recording.id]
        cut = recording.calls[:calls]
        if taken.get(source, 0) >= sessions or len(recording.agents) != 1 or not _appends(recording):
            continue
        taken[source] = taken.get(source, 0) + 1
        short = Recording(recording.id, recording.model, recording.agents, cut, recording.clock)
        noise = Noise(short, ("clock", "retrieval"), SEED, lambda text: max(1, len(text) // 4))
        yield Script(source, short, [noise.at(index, float(index)) for index in range(len(cut))])


def _appends(recording: Recording) -> bool:
    """Whether each prompt is the one before it, its reply, and what came then."""
    length = 0
    for call in recording.calls:
        if call.keep != length:
            return False
        length += len(call.new)
    return True
