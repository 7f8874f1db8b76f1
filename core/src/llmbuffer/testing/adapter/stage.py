"""Where the promises are tried: a simulated provider, agents of the adapter in front of it, and what went over the wire."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from ...bodies import WIRES
from ...errors import DialectError
from ...frozen import wire_json
from ...messages import Message
from ...simulate import ProviderServer, SimulatedRequest
from ...simulate.replies import Replies
from .examples import CAPABILITIES, AdapterExamples, Agent, Group, Setup

__all__ = ["Run", "Stage", "changed", "needs", "prompt_of", "texts_of", "without_tail"]

# What a cache sees of a body, besides its model.
_PROMPT = (
    "tools",
    "functions",
    "system",
    "instructions",
    "systemInstruction",
    "messages",
    "input",
    "contents",
)
# What an adapter may ask for besides, so that usage is told.
_ASKED = frozenset({"stream_options"})
Body = Mapping[str, Any]


def needs(examples: AdapterExamples, *names: str) -> None:
    """Skip a promise that needs what the framework or the adapter does not have; fail for a capability that nobody knows."""
    unknown = sorted({*names, *examples.capabilities} - CAPABILITIES.keys())
    assert unknown == [], f"capabilities are {sorted(CAPABILITIES)}: found {unknown}"
    for name in names:
        if name not in examples.capabilities:
            pytest.skip(f"capabilities leave out {name!r}: {CAPABILITIES[name]}")


class Run:
    """What one agent did: its answers, and the bodies that its requests had."""

    def __init__(self, stage: Stage, agent: Agent) -> None:
        self.stage, self.agent = stage, agent
        self.answers: list[str] = []

    def say(self, *texts: str, conversation: str = "one") -> Run:
        """Turns of the user, one after the other."""
        self.answers += [self.agent.say(text, conversation=conversation) for text in texts]
        return self

    @property
    def bodies(self) -> list[Body]:
        """The bodies of all requests that were answered, in order."""
        return self.stage.bodies

    def history(self, conversation: str = "one") -> list[Message]:
        """What the framework keeps."""
        return self.agent.history(conversation=conversation)


class Stage:
    """One provider with empty caches and its script, and the agents of one adapter in front of it."""

    def __init__(self, examples: AdapterExamples, server: ProviderServer) -> None:
        self._examples, self.server = examples, server
        self._made: list[Agent | Group] = []

    def url(self, setup: Setup) -> str:
        """The base URL for the SDK that speaks the setup's format."""
        assert setup.wire in WIRES, f"a wire format is one of {WIRES}: found {setup.wire!r}"
        if setup.wire == "anthropic":
            return self.server.anthropic_url
        return self.server.gemini_url if setup.wire == "gemini" else self.server.openai_url

    def agent(self, setup: Setup) -> Run:
        """An agent as the setup says, closed at the end."""
        agent = self._examples.agent(self.url(setup), setup)
        self._made.append(agent)
        assert (agent.seam is None) == (setup.mode is None), "an agent has a seam unless its mode is None"
        return Run(self, agent)

    def restored(self, setup: Setup, saved: Any) -> Run:
        """An agent that goes on with what another one saved."""
        agent = self._examples.restored(self.url(setup), setup, saved)
        self._made.append(agent)
        return Run(self, agent)

    def group(self, setup: Setup, personas: Mapping[str, str]) -> Group:
        """Members in one conversation."""
        group = self._examples.group(self.url(setup), setup, personas)
        self._made.append(group)
        return group

    def fan_out(self, setup: Setup, tasks: Sequence[str]) -> list[Any]:
        """Each task by a fork."""
        return self._examples.fan_out(self.url(setup), setup, tasks)

    @property
    def answered(self) -> list[SimulatedRequest]:
        """The requests that were answered, in the order in which they came."""
        found = [request for request in self.server.requests if request.status == 200]
        return sorted(found, key=lambda request: request.number)

    @property
    def bodies(self) -> list[Body]:
        """The bodies of all requests that were answered, in the order in which they came."""
        return [request.body for request in self.answered if request.body is not None]

    def close(self) -> None:
        """Close what was made."""
        for each in self._made:
            with suppress(NotImplementedError):
                each.close()


@contextmanager
def on_stage(examples: AdapterExamples, replies: Replies = None) -> Iterator[Stage]:
    """A stage whose model says ``replies``, see ``ProviderServer``."""
    server = ProviderServer(replies=replies, keep_bodies=True)
    try:
        server.start()
    except DialectError as error:
        pytest.fail(str(error), pytrace=False)
    stage = Stage(examples, server)
    try:
        yield stage
    finally:
        stage.close()
        server.stop()


def ran(examples: AdapterExamples, setup: Setup, replies: Replies, drive: Callable[[Run], object]) -> Played:
    """What one agent did on a stage of its own."""
    with on_stage(examples, replies) as stage:
        run = stage.agent(setup)
        drive(run)
        return Played(run.answers, stage.bodies, run.history(), stage.answered, run.agent)


class Played:
    """A run that is over: answers, bodies, the history of conversation ``one``, the server's log, and the agent."""

    def __init__(
        self,
        answers: list[str],
        bodies: list[Body],
        history: list[Message],
        log: list[SimulatedRequest],
        agent: Agent,
    ) -> None:
        self.answers, self.bodies, self.history, self.log, self.agent = answers, bodies, history, log, agent


# --- bodies


def prompt_of(body: Body) -> dict[str, Any]:
    """What a cache sees of a body: its model, tools, system text and messages."""
    return {key: body[key] for key in ("model", *_PROMPT) if key in body}


def changed(before: Sequence[Body], after: Sequence[Body]) -> list[str]:
    """Where two runs differ at the wire, by request and field; usage that was asked for in streams does not count."""
    out = [] if len(before) == len(after) else [f"{len(before)} requests became {len(after)}"]
    for number, (one, other) in enumerate(zip(before, after, strict=False)):
        out += [
            f"request {number}: {key}{_first_difference(one.get(key), other.get(key))}"
            for key in dict.fromkeys([*one, *other])
            if key not in _ASKED and _json(one, key) != _json(other, key)
        ]
    return out


def _json(body: Body, key: str) -> bytes | None:
    return wire_json(body[key]) if key in body else None


def _first_difference(one: Any, other: Any) -> str:
    if isinstance(one, list) and isinstance(other, list):
        for index, (left, right) in enumerate(zip(one, other, strict=False)):
            if wire_json(left) != wire_json(right):
                return f"[{index}]{_first_difference(left, right)}"
    elif isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            if _json(one, key) != _json(other, key):
                return f".{key}{_first_difference(one.get(key), other.get(key))}"
    return f": {_short(one)} became {_short(other)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:60]} … {text[-60:]}"


_ENVELOPE = re.compile(r'\s*<context name="[^"\n]*">\n.*?\n</context>', re.DOTALL)


def without_tail(body: Body) -> dict[str, Any]:
    """The body without dynamic text as llmbuffer sends it: the pieces, and messages that held nothing else."""
    out = dict(body)
    for key in ("messages", "input", "contents"):
        if isinstance(body.get(key), list):
            kept = [_without(item) for item in body[key]]
            out[key] = [item for item in kept if item is not None]
    return out


def _without(item: Any) -> Any:
    if not isinstance(item, Mapping):
        return item
    found = dict(item)
    for key in ("content", "parts", "output"):
        value = item.get(key)
        if isinstance(value, str) and _ENVELOPE.search(value):
            found[key] = _ENVELOPE.sub("", value)
            if not found[key]:
                return None
        elif isinstance(value, list) and value:
            parts = [part for part in map(_bare, value) if part is not None]
            if not parts:
                return None
            found[key] = parts
    return found


def _bare(part: Any) -> Any:
    """A part without dynamic text; ``None`` where nothing else was in it."""
    text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
    if not isinstance(text, str) or not _ENVELOPE.search(text):
        return part
    rest = _ENVELOPE.sub("", text)
    if not rest:
        return None
    return rest if isinstance(part, str) else {**part, "text": rest}


def texts_of(value: Any) -> list[str]:
    """All strings of a body or a part of one, in order."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for each in value.values() for text in texts_of(each)]
    if isinstance(value, list | tuple):
        return [text for each in value for text in texts_of(each)]
    return []
