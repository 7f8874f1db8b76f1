"""The lines of recorded files as they are written, and the recordings they stand for."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Annotated, Any

import msgspec

from ..errors import MessageError, ReplayError
from ..messages import Message
from .recordings import CLOCK, Agent, Call, Fold, Recording, Reported

__all__ = ["SUMMARY", "parse"]

SUMMARY = (  # what programs put before what they kept
    "The conversation history before this point was compacted into the following summary:\n\n"
    "<summary>\n{summary}\n</summary>"
)


def parse(line: bytes, file: str = "", number: int = 0) -> Recording:
    """One line as a recording; ``file`` and ``number`` are where it stands.

    Raises ``msgspec.DecodeError`` for what is not JSON or has another shape and ``ReplayError`` for what makes no sense.

    >>> parse(b'{"id": "a", "messages": [{"role": "user", "content": "hi"}]}')
    Recording(id='a', agents=1, calls=0)
    """
    return _recording(msgspec.json.decode(line, type=_Line), file, number)


_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Usage(msgspec.Struct):
    input: _Count = msgspec.field(name="in")
    i: int = -1  # index of the assistant message
    out: _Count = 0
    cached: _Count | None = None
    t: datetime | None = None


class _Event(msgspec.Struct):
    type: str
    before_message: int = 0
    first_kept_message: int = 0
    summary: str = ""


class _Prompt(msgspec.Struct):
    system: str = ""
    tools: list[dict[str, Any]] = []


class _TeamCall(msgspec.Struct):
    agent: str
    messages: list[int]
    output: int
    usage: _Usage | None = None
    t: datetime | None = None
    system: str | None = None


class _Line(msgspec.Struct):
    id: str
    model: str | None = None
    system: str = ""
    tools: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] | None = None
    usage: list[_Usage] | None = None
    events: list[_Event] | None = None
    agents: dict[str, _Prompt] = {}
    pool: list[dict[str, Any]] = []
    calls: list[_TeamCall] | None = None
    volatile: Any = None


def _recording(line: _Line, file: str, number: int) -> Recording:
    agents: tuple[Agent, ...]
    if line.messages is not None:
        agents, calls = (Agent("", line.system, tuple(line.tools)),), _session_calls(line, line.messages)
    elif line.calls is not None:
        agents, calls = _team(line, line.calls)
    else:
        raise ReplayError(
            "not a recording: it has neither 'messages' (a session) nor 'agents', 'pool' and 'calls' (a team)"
        )
    folds = () if line.messages is None else tuple(_folds(line, line.messages))
    clock = bool(line.volatile) and any(CLOCK in agent.system for agent in agents)
    return Recording(line.id, line.model, agents, calls, clock, file, number, folds)


def _session_calls(line: _Line, recorded: list[dict[str, Any]]) -> tuple[Call, ...]:
    """A call for each assistant message after the first message; a compaction puts a summary before what was kept."""
    messages = _messages(recorded, "messages")
    usage = {each.i: each for each in line.usage or ()}
    events = {event.before_message: event for event in line.events or () if event.type == "compaction"}
    calls: list[Call] = []
    opening: tuple[Message, ...] = ()
    start = 0  # the prompt at message i is opening + messages[start:i]
    sent: int | None = None  # where the last prompt ended, if the next one extends it
    for index, message in enumerate(messages):
        if index in events:
            opening = (Message("user", SUMMARY.format(summary=events[index].summary)),)
            start, sent = _index(events[index].first_kept_message, messages, "events"), None
        if message.role == "assistant" and index > 0:
            keep = 0 if sent is None else len(opening) + sent - start
            new = (*opening, *messages[start:index]) if sent is None else messages[sent:index]
            calls.append(_call(0, keep, new, message, usage.get(index), None))
            sent = index
    return tuple(calls)


def _folds(line: _Line, recorded: list[dict[str, Any]]) -> Iterator[Fold]:
    """The compactions of a session, in order. Every assistant message but a first one is a call."""
    events = {event.before_message: event for event in line.events or () if event.type == "compaction"}
    said = [index for index, message in enumerate(recorded) if index and message.get("role") == "assistant"]
    for before, event in sorted(events.items()):
        yield Fold(bisect_left(said, before), event.first_kept_message, event.summary)


def _team(line: _Line, recorded: list[_TeamCall]) -> tuple[tuple[Agent, ...], tuple[Call, ...]]:
    """Agents by name and system text, since a call may bring its own; what a call shares with its agent's last one."""
    pool = _messages(line.pool, "pool")
    agents: dict[tuple[str, str], Agent] = {}
    last: dict[int, list[int]] = {}
    calls: list[Call] = []
    for number, call in enumerate(recorded):
        if call.agent not in line.agents:
            raise ReplayError(
                f"calls[{number}]: unknown agent {call.agent!r}: 'agents' has {sorted(line.agents)}"
            )
        prompt = line.agents[call.agent]
        key = (call.agent, prompt.system if call.system is None else call.system)
        agents.setdefault(key, Agent(*key, tuple(prompt.tools)))
        agent = list(agents).index(key)
        for place in (*call.messages, call.output):
            _index(place, pool, f"calls[{number}]")
        keep = _common(last.get(agent, []), call.messages)
        new = tuple(pool[place] for place in call.messages[keep:])
        calls.append(_call(agent, keep, new, pool[call.output], call.usage, call.t))
        last[agent] = call.messages
    return tuple(agents.values()), tuple(calls)


def _messages(recorded: list[dict[str, Any]], where: str) -> tuple[Message, ...]:
    return tuple(_message(item, f"{where}[{index}]") for index, item in enumerate(recorded))


def _message(item: dict[str, Any], where: str) -> Message:
    try:
        return Message.from_openai(item)
    except MessageError as error:
        raise ReplayError(f"{where}: {error}") from error


def _index(index: int, messages: Sequence[Message], where: str) -> int:
    if not 0 <= index < len(messages):
        raise ReplayError(f"{where}: message {index} of {len(messages)}")
    return index


def _common(a: list[int], b: list[int]) -> int:
    return next(
        (place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _call(
    agent: int, keep: int, new: tuple[Message, ...], reply: Message, usage: _Usage | None, t: datetime | None
) -> Call:
    if usage is None:
        return Call(agent, keep, new, reply, None, _seconds(t))
    reported = Reported(usage.input, usage.out, usage.cached)
    return Call(agent, keep, new, reply, reported, _seconds(t or usage.t))


def _seconds(at: datetime | None) -> float | None:
    if at is None:
        return None
    return (at if at.tzinfo is not None else at.replace(tzinfo=timezone.utc)).timestamp()
