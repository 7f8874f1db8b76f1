"""Recorded agent sessions, read from files one line at a time.

A recording is brought into one shape, whatever file it came from: agents, and calls in the order recorded. A call says
how much of its agent's last prompt it keeps and what follows, so its size is that of what is new.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from os import fspath
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from ..errors import LLMBufferError, ReplayError
from ..messages import Message

__all__ = ["Agent", "Call", "Recording", "Reported", "Skipped", "read_recordings"]

CLOCK = "{{ CURRENT_TIME }}"  # stands in recorded system texts where the program rendered the time at every call
SUMMARY = (
    "The conversation history before this point was compacted into the following summary:\n\n"
    "<summary>\n{summary}\n</summary>"
)


class Agent(msgspec.Struct, frozen=True):
    """One prompt of its own: ``system`` text and ``tools`` in OpenAI's shape."""

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
    """One model call: its prompt is the first ``keep`` messages of the last prompt of the same agent, then ``new``.

    ``agent`` is an index into the recording's agents. ``at`` is the recorded time in seconds since 1970, or ``None``.
    """

    agent: int
    keep: int
    new: tuple[Message, ...]
    reply: Message
    reported: Reported | None = None
    at: float | None = None


class Recording(msgspec.Struct, frozen=True):
    """One recorded session. ``model`` is the one that answered; ``clock`` says that a time stood in the system texts."""

    id: str
    model: str | None
    agents: tuple[Agent, ...]
    calls: tuple[Call, ...]
    clock: bool = False
    file: str = ""
    line: int = 0

    def __repr__(self) -> str:
        return f"Recording(id={self.id!r}, agents={len(self.agents)}, calls={len(self.calls)})"


class Skipped(msgspec.Struct, frozen=True):
    """A line that could not be replayed: ``line`` counts from 1, ``reason`` holds no prompt text."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


def read_recordings(
    path: str | Path, *, skipped: list[Skipped] | None = None, watch: Callable[[int], None] | None = None
) -> Iterator[Recording]:
    """The recordings of a ``.jsonl`` or ``.jsonl.gz`` file (told apart by content), one at a time.

    The formats are those of recorded sessions (``system``, ``tools``, ``messages``, optional ``usage`` and ``events``) and of
    recorded teams (``agents``, ``pool``, ``calls``). Memory is that of one line. A line that is not JSON or has another shape,
    and the end of a truncated gzip file, are appended to ``skipped``; without that list the first one raises
    ``ReplayError``, naming file and line. ``watch`` is called with the bytes of the file read so far. Raises ``OSError``
    for a path that cannot be opened.

    >>> import tempfile
    >>> line = '{"id": "a", "system": "Be kind.", "messages": [{"role": "user", "content": "hi"},'
    >>> line += '{"role": "assistant", "content": "Hello!"}]}'
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "some.jsonl")
    ...     _ = path.write_text(line + "\\nno JSON\\n", encoding="utf-8")
    ...     skipped = []
    ...     [recording] = read_recordings(path, skipped=skipped)
    >>> recording, skipped[0].line
    (Recording(id='a', agents=1, calls=1), 2)
    """
    name = fspath(path)
    number = 0
    with Path(path).open("rb") as raw:
        lines = iter(_opened(raw))
        while True:
            try:
                line = next(lines, None)
            except (EOFError, OSError, zlib.error) as error:
                _skip(Skipped(name, number + 1, f"the file cannot be read on from here: {error}"), skipped)
                return
            if line is None:
                return
            number += 1
            if line.strip():
                recording = _taken(line, name, number, skipped)
                if recording is not None:
                    yield recording
            if watch is not None:
                watch(raw.tell())


def _opened(raw: IO[bytes]) -> IO[bytes]:
    start = raw.peek(3)[:3] if hasattr(raw, "peek") else b""
    if start[:2] == b"\x1f\x8b":
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw, mode="rb"))
    if start == b"\xef\xbb\xbf":  # a byte order mark, as some editors write it
        raw.read(3)
    return raw


def _taken(line: bytes, name: str, number: int, skipped: list[Skipped] | None) -> Recording | None:
    try:
        return _recording(msgspec.json.decode(line, type=_Line), name, number)
    except msgspec.ValidationError as error:
        reason = f"no recording: {error}"
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = f"not JSON: {error}"
    except RecursionError:
        reason = "nested too deeply"
    except (LLMBufferError, ValueError) as error:
        reason = str(error)
    _skip(Skipped(name, number, reason), skipped)
    return None


def _skip(line: Skipped, skipped: list[Skipped] | None) -> None:
    if skipped is None:
        raise ReplayError(f"{line}; pass skipped=[] to go on without such lines")
    skipped.append(line)


class _Usage(msgspec.Struct):
    """As recorded: ``i`` is the index of the assistant message, ``in`` the prompt tokens."""

    input: int = msgspec.field(name="in")
    i: int = -1
    out: int = 0
    cached: int | None = None
    t: str | None = None


class _Event(msgspec.Struct):
    type: str
    before_message: int = 0
    first_kept_message: int = 0
    summary: str = ""


class _Team(msgspec.Struct):
    system: str = ""
    tools: list[dict[str, Any]] = []


class _TeamCall(msgspec.Struct):
    agent: str
    messages: list[int]
    output: int
    usage: _Usage | None = None
    t: str | None = None
    system: str | None = None


class _Line(msgspec.Struct):
    """Either format: ``messages`` for a session, ``calls`` with ``agents`` and ``pool`` for a team."""

    id: str
    model: str | None = None
    system: str = ""
    tools: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] | None = None
    usage: list[_Usage] | None = None
    events: list[_Event] | None = None
    agents: dict[str, _Team] = {}
    pool: list[dict[str, Any]] = []
    calls: list[_TeamCall] | None = None
    volatile: Any = None


def _recording(line: _Line, file: str, number: int) -> Recording:
    if (line.messages is None) == (line.calls is None):
        raise ReplayError("no recording: give either 'messages' (a session) or 'agents', 'pool' and 'calls' (a team)")
    agents, calls = _session(line, line.messages) if line.messages is not None else _team(line, line.calls or [])
    clock = bool(line.volatile) and any(CLOCK in agent.system for agent in agents)
    return Recording(line.id, line.model, agents, calls, clock, file, number)


def _session(line: _Line, recorded: list[dict[str, Any]]) -> tuple[tuple[Agent, ...], tuple[Call, ...]]:
    """A request is tools + system + messages[:i] for each assistant message i > 0; compactions replace what is old."""
    messages = _messages(recorded, "messages")
    usage = {each.i: each for each in line.usage or ()}
    events = {event.before_message: event for event in line.events or () if event.type == "compaction"}
    calls: list[Call] = []
    start, sent = 0, 0  # of the agent's last prompt: its first message after a summary, and the end of it
    for index, message in enumerate(messages):
        if index in events:
            start, sent = events[index].first_kept_message, 0
            opening: tuple[Message, ...] = (Message("user", SUMMARY.format(summary=events[index].summary)),)
        elif not sent:
            opening = () if index == 0 else opening
        if message.role == "assistant" and index > 0:
            kept = sent - start + len(opening) if sent else 0
            new = (*opening, *messages[start:index]) if not sent else tuple(messages[sent:index])
            calls.append(_call(0, kept, new, message, usage.get(index), None))
            sent = index
    return (Agent("", line.system, tuple(line.tools)),), tuple(calls)
