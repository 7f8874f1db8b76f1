"""Ways to lay a recorded call out as a prompt: as it was written, or through a session that keeps its prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from ..chain import Block, Node
from ..context import StableContext
from ..errors import LossyError
from ..layout import Head, Placement, render_dynamic, render_head
from ..messages import Message, Text
from ..request import Request
from ..rules import CacheRules, Dialect
from ..session import Session
from ..snapshot import MarkAt, Snapshot
from ..state import State, attach, link
from ..tokens import TokenCounter
from ..usage import Usage
from .noise import moment
from .recordings import CLOCK, Agent, Call, Recording

__all__ = ["AsWritten", "Buffered", "Layout", "Prompt", "automatic_marks"]


class Prompt(msgspec.Struct, frozen=True):
    """What a call sends; its changing text has ``noise_tokens``, from the token ``noise_at`` on."""

    snapshot: Snapshot
    noise_at: int = 0
    noise_tokens: int = 0


class Layout(Protocol):
    """Turns the calls of one recording into prompts, in the order recorded."""

    def ask(self, call: Call, texts: Mapping[str, str], at: float) -> Prompt:
        """The prompt of the next call with the changing ``texts``, ``at`` seconds after the first call."""

    def answer(self, call: Call, usage: Usage) -> None:
        """The reply to what was asked last."""


def automatic_marks(rules: CacheRules, head: Node, tip: Node) -> tuple[MarkAt, ...]:
    """The marks of a program that leaves caching to the provider.

    For caches with a look-back: one after the system text, and the one that Anthropic's top-level ``cache_control`` puts
    at the end; for those that match entries, the provider's own at the end.
    """
    if rules.match == "lookback":
        return (MarkAt(head, in_head=True), MarkAt(tip))
    return (MarkAt(tip),) if rules.implicit else ()


class AsWritten:
    """The prompt as recorded, and changing text at the end of the system prompt.

    ``clock`` renders the time into system texts that had it (``CLOCK``), at every call as the recorded program did.
    """

    def __init__(self, recording: Recording, dialect: Dialect, model: str, counter: TokenCounter, *, clock: bool) -> None:
        self._agents, self._clock = recording.agents, clock and recording.clock
        self._dialect, self._model, self._counter = dialect, model, counter
        self._takes_names = _takes_names(dialect)
        self._heads: dict[int, Head] = {}
        self._states: dict[int, list[State]] = {}  # by agent: the state after each message of its last prompt

    def ask(self, call: Call, texts: Mapping[str, str], at: float) -> Prompt:
        """See ``Layout``."""
        states = self._states.setdefault(call.agent, [State.empty()])
        del states[call.keep + 1 :]
        for message in call.new:
            new = link(states[-1], _fitted(message, self._takes_names), self._dialect, self._counter)
            states.append(attach(states[-1], new, self._dialect))
        head, tip = self._head(call.agent, at), states[-1].tip
        node = head.node
        for name, text in texts.items():
            wire = text.encode()
            node = node.child(Block("system", name, text), content=wire, wire=wire, tokens=self._counter.count(text) + 1)
        marks = automatic_marks(self._dialect.rules, node, tip)
        return Prompt(Snapshot(node, tip, tip, head.message_seed, marks), head.node.end, node.end - head.node.end)

    def answer(self, call: Call, usage: Usage) -> None:
        """Nothing: the next call brings the reply along."""

    def _head(self, index: int, at: float) -> Head:
        agent = self._agents[index]
        if self._clock and CLOCK in agent.system:
            return self._rendered(agent, agent.system.replace(CLOCK, _shown(at)))
        if index not in self._heads:
            self._heads[index] = self._rendered(agent, agent.system)
        return self._heads[index]

    def _rendered(self, agent: Agent, system: str) -> Head:
        return render_head(StableContext(self._model, system, agent.tools), self._dialect, self._counter.count)


class Buffered:
    """Each agent's calls through a ``Session`` of its own; changing text is dynamic content.

    It is given when a user turn begins and kept for the calls of that turn. A call that extends its agent's last prompt
    appends what is new; any other goes on from a fork at the common beginning.
    """

    def __init__(
        self, recording: Recording, dialect: Dialect, model: str, counter: TokenCounter, placement: Placement
    ) -> None:
        self._recording, self._dialect, self._model, self._counter = recording, dialect, model, counter
        self._placement: Placement = placement
        self._takes_names = _takes_names(dialect)
        self._now = 0.0
        self._threads: dict[int, _Thread] = {}
        self._asked: Request | None = None

    def ask(self, call: Call, texts: Mapping[str, str], at: float) -> Prompt:
        """See ``Layout``."""
        self._now = at
        agent = self._recording.agents[call.agent]
        if call.agent not in self._threads:
            self._threads[call.agent] = _Thread(self._session(agent))
        dynamic = dict(texts)
        if self._recording.clock and CLOCK in agent.system:
            dynamic["current_time"] = _shown(at)
        new = self._threads[call.agent].go_on(call)
        self._asked = self._request(self._threads[call.agent], new, dynamic if call.begins_turn and dynamic else None)
        return _prompt(self._asked, self._counter)

    def answer(self, call: Call, usage: Usage) -> None:
        """Observe the reply."""
        assert self._asked is not None, "an answer follows a question"
        self._asked.observe(usage, _fitted(call.reply, self._takes_names))

    def _session(self, agent: Agent) -> Session:
        context = StableContext(self._model, agent.system, agent.tools)
        return Session(
            context, self._dialect, tokens=self._counter, clock=lambda: self._now, placement=self._placement
        )

    def _request(self, thread: _Thread, new: list[Message], dynamic: Mapping[str, str] | None) -> Request:
        carried = [_fitted(message, self._takes_names) for message in new]
        # Only what a request brings along can be said together with text that sticks to it.
        asked = carried.pop() if dynamic and self._placement in ("sticky", "auto") and carried[-1].role == "user" else None
        thread.session.append(carried)
        thread.bookmark(len(thread.sent) - (asked is not None))
        return thread.session.request(asked, dynamic)


class _Thread:
    """One agent's session, its last prompt, and forks kept at earlier points to go back to."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sent: list[Message] = []
        self._reply: Message | None = None
        self._bookmarks = [(0, session.fork())]  # (messages, a session that holds so many)

    def go_on(self, call: Call) -> list[Message]:
        """The messages that the session lacks for this call; forks where the call does not go on from the last reply."""
        new = list(call.new)
        if call.keep == len(self.sent) and new and self._reply is not None and new[0] == self._reply:
            lacking = new[1:]
        else:
            self._bookmarks = [(length, fork) for length, fork in self._bookmarks if length <= call.keep]
            length, fork = self._bookmarks[-1]
            self.session = fork.fork()
            lacking = self.sent[length : call.keep] + new
        self.sent[call.keep :] = new
        self._reply = call.reply
        return lacking

    def bookmark(self, length: int) -> None:
        """Keep a fork of the session as it is, with ``length`` messages."""
        self._bookmarks.append((length, self.session.fork()))


def _prompt(request: Request, counter: TokenCounter) -> Prompt:
    snapshot = request.snapshot
    noise = sum(counter.count(text) + 1 for text in render_dynamic(request.dynamic))
    return Prompt(snapshot, snapshot.head.end + snapshot.split.end, noise)


def _shown(at: float) -> str:
    return f"{moment(at):%a %b %d %Y %H:%M:%S %z}"


def _takes_names(dialect: Dialect) -> bool:
    try:
        dialect.render_message(Message("user", "hi", name="someone"), None)
    except LossyError:
        return False
    return True


def _fitted(message: Message, takes_names: bool) -> Message:
    """The message with its speaker in the text, where the dialect has no field for the name."""
    if message.name is None or takes_names or message.role == "tool":
        return message
    first, *rest = message.parts or (Text(""),)
    said = (Text(f"{message.name}: {first.text}"),) if isinstance(first, Text) else (Text(f"{message.name}:"), first)
    return Message(message.role, [*said, *rest])
