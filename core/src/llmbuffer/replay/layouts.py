"""Ways to lay a recorded call out as a prompt: as it was written, or through a session that keeps its prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from ..chain import Block, Node
from ..context import StableContext
from ..errors import LossyError
from ..layout import Head, Placement, render_head
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

__all__ = [
    "AsWritten",
    "Aside",
    "Buffered",
    "History",
    "Layout",
    "Prompt",
    "automatic_marks",
    "fitted",
    "shown",
    "takes_names",
]


class Aside(msgspec.Struct, frozen=True):
    """A call that was made for another one, with ``output`` tokens in its reply: one that makes a summary."""

    snapshot: Snapshot
    output: int


class History(msgspec.Struct, frozen=True):
    """What a call still sends of all that was said: ``kept`` tokens of ``whole``, word for word.

    ``compacted``: less of it than the call before. ``over``: the prompt does not fit the window.
    """

    kept: int
    whole: int
    compacted: bool = False
    over: bool = False


class Prompt(msgspec.Struct, frozen=True):
    """What a call sends; its changing text has ``noise_tokens``, from the token ``noise_at`` on.

    ``history`` is there where compaction is replayed, ``asides`` are calls that were made for it before.
    """

    snapshot: Snapshot
    noise_at: int = 0
    noise_tokens: int = 0
    history: History | None = None
    asides: tuple[Aside, ...] = ()


class Layout(Protocol):
    """Turns the calls of one recording into prompts, in the order recorded."""

    def ask(self, call: Call, texts: Mapping[str, str], at: float) -> Prompt:
        """The prompt of the next call with the changing ``texts``, ``at`` seconds after the first call."""

    def answer(self, call: Call, usage: Usage) -> None:
        """The reply to what was asked last."""

    def answered(self, call: Call) -> Snapshot:
        """What was asked last, with its reply; after ``answer``."""


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

    def __init__(
        self, recording: Recording, dialect: Dialect, model: str, counter: TokenCounter, *, clock: bool
    ) -> None:
        self._agents, self._clock = recording.agents, clock and recording.clock
        self._dialect, self._model, self._counter = dialect, model, counter
        self._takes_names = takes_names(dialect)
        self._heads: dict[int, Head] = {}
        self._states: dict[int, list[State]] = {}  # by agent: the state after each message of its last prompt
        self._asked: Snapshot | None = None

    def ask(self, call: Call, texts: Mapping[str, str], at: float) -> Prompt:
        """See ``Layout``."""
        states = self._states.setdefault(call.agent, [State.empty()])
        del states[call.keep + 1 :]
        for message in call.new:
            new = link(states[-1], fitted(message, self._takes_names), self._dialect, self._counter)
            states.append(attach(states[-1], new, self._dialect))
        head, tip = self._head(call.agent, at), states[-1].tip
        node = head.node
        for name, text in texts.items():
            wire = text.encode()
            node = node.child(
                Block("system", name, text), content=wire, wire=wire, tokens=self._counter.count(text) + 1
            )
        marks = automatic_marks(self._dialect.rules, node, tip)
        self._asked = Snapshot(node, tip, head.message_seed, marks)
        return Prompt(self._asked, head.node.end, node.end - head.node.end)

    def answer(self, call: Call, usage: Usage) -> None:
        """Nothing: the next call brings the reply along."""

    def answered(self, call: Call) -> Snapshot:
        """See ``Layout``."""
        assert self._asked is not None, "an answer follows a question"
        state = self._states[call.agent][-1]
        reply = link(state, fitted(call.reply, self._takes_names), self._dialect, self._counter)
        return msgspec.structs.replace(self._asked, tip=reply.node, marks=())

    def _head(self, index: int, at: float) -> Head:
        agent = self._agents[index]
        if self._clock and CLOCK in agent.system:
            return self._rendered(agent, agent.system.replace(CLOCK, shown(at)))
        if index not in self._heads:
            self._heads[index] = self._rendered(agent, agent.system)
        return self._heads[index]

    def _rendered(self, agent: Agent, system: str) -> Head:
        return render_head(
            StableContext(self._model, system, agent.tools), self._dialect, self._counter.count
        )


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
        self._takes_names = takes_names(dialect)
        self._now = 0.0
        self._threads: dict[int, _Thread] = {}
        self._asked: Request | None = None

    def ask(self, call: Call, texts: Mapping[str, str], at: float) -> Prompt:
        """See ``Layout``."""
        self._now = at
        agent = self._recording.agents[call.agent]
        if call.agent not in self._threads:
            self._threads[call.agent] = _Thread(self._session(agent))
        thread = self._threads[call.agent]
        lacking = thread.go_on(call.keep, [fitted(message, self._takes_names) for message in call.new])
        dynamic = dict(texts)
        if self._recording.clock and CLOCK in agent.system:
            dynamic["current_time"] = shown(at)
        self._asked = self._request(thread, lacking, dynamic if call.begins_turn and dynamic else None)
        return _prompt(self._asked.snapshot)

    def answer(self, call: Call, usage: Usage) -> None:
        """Observe the reply."""
        assert self._asked is not None, "an answer follows a question"
        reply = fitted(call.reply, self._takes_names)
        self._asked.observe(usage, reply)
        self._threads[call.agent].reply = reply

    def answered(self, call: Call) -> Snapshot:
        """See ``Layout``."""
        assert self._asked is not None, "an answer follows a question"
        tip = self._threads[call.agent].session.tip
        return msgspec.structs.replace(self._asked.snapshot, tip=tip, marks=())

    def _session(self, agent: Agent) -> Session:
        context = StableContext(self._model, agent.system, agent.tools)
        return Session(
            context, self._dialect, tokens=self._counter, clock=lambda: self._now, placement=self._placement
        )

    def _request(self, thread: _Thread, lacking: list[Message], dynamic: Mapping[str, str] | None) -> Request:
        # Only to a message that the request itself brings along can text stick.
        sticks = self._placement in ("sticky", "auto") and dynamic and lacking and lacking[-1].role == "user"
        asked = lacking.pop() if sticks else None
        thread.session.append(lacking)
        thread.bookmark(len(thread.sent) - (asked is not None))
        return thread.session.request(asked, dynamic)


class _Thread:
    """One agent's session, its last prompt, and forks kept at earlier points to go back to."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sent: list[Message] = []
        self.reply: Message | None = None
        self._bookmarks: list[tuple[int, Session]] = []  # (messages, a session that holds so many), ascending
        self.bookmark(0)

    def bookmark(self, length: int) -> None:
        """Keep a fork of the session as it is, with ``length`` messages."""
        self._bookmarks.append((length, self.session.fork()))

    def go_on(self, keep: int, new: list[Message]) -> list[Message]:
        """What the session lacks for a prompt of the last one's first ``keep`` messages and ``new``."""
        if keep == len(self.sent) and new and new[0] == self.reply:
            lacking = new[1:]
        else:
            self._go_back(keep)
            lacking = list(new)
        self.sent[keep:] = new
        return lacking

    def _go_back(self, keep: int) -> None:
        self._bookmarks = [(length, fork) for length, fork in self._bookmarks if length <= keep]
        length, fork = self._bookmarks[-1]
        self.session = fork.fork()
        if length < keep:
            self.session.append(self.sent[length:keep])
            self.bookmark(keep)
            self.session = self._bookmarks[-1][1].fork()


def _prompt(snapshot: Snapshot) -> Prompt:
    if snapshot.insert is None:
        return Prompt(snapshot)
    return Prompt(snapshot, snapshot.head.end + snapshot.insert.after.end, snapshot.insert.tokens)


def shown(at: float) -> str:
    """The time as the recorded program wrote it.

    >>> shown(75)
    'Sun Mar 01 2026 09:01:15 +0000'
    """
    return f"{moment(at):%a %b %d %Y %H:%M:%S %z}"


def takes_names(dialect: Dialect) -> bool:
    """Whether messages may carry the name of their speaker in a field."""
    try:
        dialect.render_message(Message("user", "hi", name="someone"), None)
    except LossyError:
        return False
    return True


def fitted(message: Message, takes_names: bool) -> Message:
    """The message with its speaker in the text, where the dialect has no field for the name."""
    if message.name is None or takes_names or message.role == "tool":
        return message
    first, *rest = message.parts or (Text(""),)
    said = (
        (Text(f"{message.name}: {first.text}"),)
        if isinstance(first, Text)
        else (Text(f"{message.name}:"), first)
    )
    return Message(message.role, [*said, *rest])
