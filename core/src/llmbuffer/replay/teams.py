"""Recorded teams through the layouts of ``llmbuffer.team``: a prompt for each agent, one transcript of all, or the cheaper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import msgspec

from ..context import Segment, StableContext, dynamic_segments
from ..layout import Placement
from ..messages import Message
from ..prices import Price
from ..request import Request
from ..rules import Dialect
from ..session import Session
from ..snapshot import Snapshot
from ..team import Choice, Member, Said, cast_of, choose
from ..team.layouts import Roles, Shared, Turn
from ..team.telling import cue, told
from ..tokens import TokenCounter
from ..usage import Usage
from .layouts import Buffered, Layout, Prompt, fitted, shown, takes_names
from .recordings import CLOCK, Call, Recording

__all__ = ["Teamed", "TogetherLayout", "members_of"]


def members_of(recording: Recording) -> tuple[Member, ...]:
    """The agents of a recording as members, each with its whole system prompt; names that come twice are numbered."""
    names: list[str] = []
    for agent in recording.agents:
        name = agent.name.replace(":", " ").strip() or "agent"
        names.append(name if name not in names else f"{name} {len(names) + 1}")
    return tuple(
        Member(name, tools=agent.tools, system=agent.system)  # type: ignore[arg-type]  # mappings become tools
        for name, agent in zip(names, recording.agents, strict=True)
    )


# Messages, a session that holds so many, and whose roles it holds.
_Bookmark: TypeAlias = tuple[int, Session, frozenset[str]]


class Teamed:
    """One transcript for all agents (``shared``), or whatever ``choose`` takes at the first call (``auto``).

    Where the messages of the first call carry no names, nobody knows who said what: nothing is retold, and ``auto`` leaves
    each agent its own prompt, as ``Buffered`` does. ``choice`` is what was chosen, ``None`` before the first call.
    """

    def __init__(
        self,
        recording: Recording,
        dialect: Dialect,
        model: str,
        counter: TokenCounter,
        placement: Placement,
        *,
        auto: bool,
        prices: Mapping[str, Price] | None = None,
    ) -> None:
        self._now = 0.0
        self._apart = Buffered(recording, dialect, model, counter, placement)
        self._base = Session(
            StableContext(model),
            dialect,
            tokens=counter,
            clock=lambda: self._now,
            placement=placement,
            prices=prices,
        )
        self._recording, self._auto = recording, auto
        self._cast = cast_of(self._base.context, members_of(recording))
        self._layout: Layout | None = None
        self.choice: Choice | None = None

    def ask(self, call: Call, texts: Mapping[str, str], at: float) -> Prompt:
        """See ``Layout``."""
        self._now = at
        if self._layout is None:
            self.choice = self._chosen(call)
            self._layout = (
                self._apart if self.choice.layout == "separate" else self._together(call, self.choice.roles)
            )
        return self._layout.ask(call, texts, at)

    def answer(self, call: Call, usage: Usage) -> None:
        """See ``Layout``."""
        assert self._layout is not None, "an answer follows a question"
        self._layout.answer(call, usage)

    def answered(self, call: Call) -> Snapshot:
        """See ``Layout``."""
        assert self._layout is not None, "an answer follows a question"
        return self._layout.answered(call)

    def _chosen(self, call: Call) -> Choice:
        if self._cast.shared is None:
            return Choice("separate", f"separate: {self._cast.conflict}")
        if self._auto and len(self._cast.members) == 1:
            return Choice("separate", "separate: there is one agent")
        if self._auto and not _speakers(call.new):
            return Choice("separate", "separate: messages carry no names, so nothing can be retold")
        history = [Said(None, tuple(told(Said(None, call.new))))]
        return choose(self._base, self._cast, layout="auto" if self._auto else "shared", history=history)

    def _together(self, call: Call, roles: Roles) -> TogetherLayout:
        stage = Shared.of(self._base, self._cast, roles)
        return TogetherLayout(self._recording, stage, names=_speakers(call.new))


class TogetherLayout:
    """One transcript that grows by what each call has new; the agent's role and its own instruction end the prompt.

    With ``names``, the transcript is told, and a user's message without a name at the end of a call is an instruction for
    that agent alone: it is dynamic text. Without, it holds the messages as they are. A call that does not go on from what
    was sent last goes on from where the two part.
    """

    def __init__(self, recording: Recording, stage: Shared, *, names: bool) -> None:
        self._recording, self._cast, self._stage, self._names = recording, stage.cast, stage, names
        self._takes_names = takes_names(stage.session.dialect)
        self._sent: dict[int, list[Message]] = {}  # by agent: its last prompt
        self._said: list[Message] = []  # what the transcript holds
        self._bookmarks: list[_Bookmark] = [(0, stage.session.fork(), frozenset())]
        self._turn: Turn | None = None
        self._asked: Request | None = None
        self._reply: Message | None = None

    def ask(self, call: Call, texts: Mapping[str, str], at: float) -> Prompt:
        """See ``Layout``."""
        sent = self._sent.setdefault(call.agent, [])
        name = self._cast.members[call.agent].name
        goes_on = self._goes_on(call, name, len(sent))
        sent[call.keep :] = call.new
        if goes_on and self._turn is not None:
            self._turn.session.append([fitted(message, self._takes_names) for message in call.new[1:]])
            self._asked = self._turn.session.request(None)
        else:
            transcript, own = self._told(name, sent)
            self._reach(transcript)
            self._turn = self._entered(name)
            self._asked = self._request(name, own, self._dynamic(call, texts, at))
        snapshot = self._asked.snapshot
        if not texts or snapshot.insert is None:
            return Prompt(snapshot)
        return Prompt(snapshot, snapshot.head.end + snapshot.insert.after.end, snapshot.insert.tokens)

    def answer(self, call: Call, usage: Usage) -> None:
        """Observe the reply in the turn's fork."""
        assert self._asked is not None, "an answer follows a question"
        self._reply = call.reply
        self._asked.observe(usage, fitted(call.reply, self._takes_names))

    def answered(self, call: Call) -> Snapshot:
        """See ``Layout``."""
        assert self._asked is not None, "an answer follows a question"
        assert self._turn is not None, "the same"
        return msgspec.structs.replace(self._asked.snapshot, tip=self._turn.session.tip, marks=())

    def _goes_on(self, call: Call, name: str, length: int) -> bool:
        """Whether this is the next request of the same turn: the last reply, and the results of its calls."""
        if self._turn is None or self._turn.name != name or not call.new or call.keep != length:
            return False
        return self._reply is not None and bool(self._reply.call_ids) and call.new[0] == self._reply

    def _told(self, name: str, sent: Sequence[Message]) -> tuple[list[Message], list[Message]]:
        """What is for all, and what is for this agent alone."""
        if not self._names:
            return [fitted(message, self._takes_names) for message in sent], []
        private = bool(sent) and sent[-1].role == "user" and sent[-1].name is None and len(sent) > 1
        public = sent[:-1] if private else sent
        return list(_retold(name, public)), list(sent[-1:]) if private else []

    def _reach(self, wanted: list[Message]) -> None:
        """Bring the transcript to what is wanted: by what is new, or from where the two part."""
        pairs = zip(self._said, wanted, strict=False)
        keep = next((place for place, (a, b) in enumerate(pairs) if a is not b and a != b), None)
        keep = min(len(self._said), len(wanted)) if keep is None else keep
        if keep < len(self._said):
            self._bookmarks = [bookmark for bookmark in self._bookmarks if bookmark[0] <= keep]
            length, fork, known = self._bookmarks[-1]
            self._stage.session, self._stage.known = fork.fork(), set(known)
            self._stage.session.append(wanted[length:keep])
        session = self._stage.session
        before = session._state.anchor
        session.append(wanted[keep:])
        if self._turn is not None:
            seen = self._turn.session._state
            session._state = msgspec.structs.replace(
                session._state, turns=seen.turns, requests=seen.requests, previous_tail=before
            )
        self._said = wanted

    def _entered(self, name: str) -> Turn:
        """The agent's turn; its role, if it stays, is in the transcript from now on."""
        stage = self._stage
        turn = stage.enter(name)
        if turn.note is not None:
            stage.session.append(turn.note)
            stage.known.add(name)
        self._bookmarks.append((len(self._said), stage.session.fork(), frozenset(stage.known)))
        return turn

    def _request(self, name: str, own: Iterable[Message], dynamic: Sequence[Segment]) -> Request:
        assert self._turn is not None, "a request is made in a turn"
        session = self._turn.session
        private = [Segment("instruction", message.text, level="turn") for message in own]
        last = session.tip.message
        needs_cue = not isinstance(last, Message) or last.role == "assistant"
        return session.request(
            cue(name) if needs_cue else None, [*dynamic, *private, *self._stage.role(name)]
        )

    def _dynamic(self, call: Call, texts: Mapping[str, str], at: float) -> Sequence[Segment]:
        found = dict(texts)
        if self._recording.clock and CLOCK in self._recording.agents[call.agent].system:
            found["current_time"] = shown(at)
        return dynamic_segments(found)


def _speakers(messages: Iterable[Message]) -> bool:
    """Whether messages say who spoke."""
    return any(message.role == "user" and message.name is not None for message in messages)


def _retold(name: str, messages: Sequence[Message]) -> Iterable[Message]:
    """One agent's view of the conversation as everybody reads it: what it calls its own is told with its name."""
    own: list[Message] = []
    for message in messages:
        if message.role in ("assistant", "tool"):
            own.append(message)
            continue
        if own:
            yield from told(Said(name, tuple(own)))
            own = []
        yield from told(Said(None, (message,)))
    if own:
        yield from told(Said(name, tuple(own)))
