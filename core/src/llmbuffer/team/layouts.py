"""The two layouts of a team: a prompt for each member, or one transcript that all members continue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import Literal, Protocol

import msgspec

from ..chain import Node, walk
from ..context import Segment, StableContext
from ..messages import Message
from ..session import Session
from .members import Cast
from .telling import Said, heard, note_of, reminder_of, role_of, told

__all__ = ["Layout", "LayoutName", "Roles", "Separate", "Shared", "Turn", "layout_of"]

LayoutName = Literal["separate", "shared"]
Roles = Literal["turn", "sticky"]


class Turn:
    """A member's turn under way, in a fork of its own, ``session``.

    ``base`` is where the fork began, ``opening`` what the turn began with (a user's words, or a cue), ``told`` whether that is
    for all to read; ``note`` tells its role for good, where it does.
    """

    __slots__ = ("base", "first", "name", "note", "opening", "session", "told")

    def __init__(self, name: str, session: Session, note: Message | None = None) -> None:
        self.name, self.session, self.note = name, session, note
        if note is not None:
            session.append(note)
        self.base = session.tip
        self.opening: Message | None = None
        self.told, self.first = False, True

    @property
    def over(self) -> bool:
        """Whether the member has said all it had to say."""
        last = self.session.tip.message
        return isinstance(last, Message) and last.role == "assistant" and not last.call_ids

    @property
    def begun(self) -> bool:
        """Whether the fork has moved on."""
        return self.session.tip is not self.base

    def again(self, session: Session, base: Node) -> Turn:
        """Another answer to a request that was answered before: ``session`` holds it behind ``base``."""
        turn = Turn(self.name, session)
        turn.base, turn.opening, turn.first = base, self.opening, False
        return turn

    def messages(self) -> tuple[Message, ...]:
        """What the member said, and what its tools answered."""
        found = list(self._back())[::-1]
        return tuple(found[1:] if found and found[0] is self.opening else found)

    def _back(self) -> Iterator[Message]:
        for node in walk(self.session.tip):
            if node is self.base or not isinstance(node.message, Message):
                return
            yield node.message
            if node.message is self.opening:  # a compaction may have replaced all that lies before
                return


class Layout(Protocol):
    """Where members find their prompts, and where it goes on when something was said."""

    name: LayoutName
    cast: Cast

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The sessions, by name."""

    def enter(self, name: str) -> Turn:
        """A fork in which the member may take a turn."""

    def role(self, name: str) -> tuple[Segment, ...]:
        """What the member's prompt ends with for the turn."""

    def take(self, said: Sequence[Said], turn: Turn | None = None) -> None:
        """Something was said, all of it in ``turn`` if that is given."""

    def fork(self) -> Layout:
        """The same, to go on apart."""


class Separate:
    """A session for each member: its own prompt, its own turns as they were, and what others said."""

    name: LayoutName = "separate"

    def __init__(self, sessions: Mapping[str, Session], cast: Cast) -> None:
        self.sessions: dict[str, Session] = dict(sessions)
        self.cast = cast

    @classmethod
    def of(cls, base: Session, cast: Cast) -> Separate:
        """A fork of ``base`` for each member; they share its family."""
        return cls({name: _forked(base, name, context) for name, context in cast.alone.items()}, cast)

    def enter(self, name: str) -> Turn:
        """See ``Layout``."""
        return Turn(name, self.sessions[name].fork(name))

    def role(self, name: str) -> tuple[Segment, ...]:
        """Nothing: its own prompt says who it is."""
        return ()

    def take(self, said: Sequence[Said], turn: Turn | None = None) -> None:
        """See ``Layout``. The turn's fork takes the place of the member's session; what others said meanwhile follows.

        Work is proportional to what was said, times the members.
        """
        for name, session in self.sessions.items():
            if turn is not None and turn.first and name == turn.name:
                turn.session.append(_since(session, turn.base))
                turn.session._id = session.id
                self.sessions[name] = turn.session
            else:
                session.append([message for each in said for message in heard(each, name)])

    def fork(self) -> Separate:
        """See ``Layout``."""
        return Separate({name: session.fork(name) for name, session in self.sessions.items()}, self.cast)


class Shared:
    """One session that holds the transcript; each turn is a fork of it that ends in the member's role.

    Such a fork has a mark where it parts from the transcript, so that the next member finds what its request wrote.
    ``roles``: with ``turn``, the whole role ends the prompt and goes when the turn ends; with ``sticky``, it enters the
    transcript with the member's first turn, for all to read, and a line ends the prompt. ``known`` are those who did.
    """

    name: LayoutName = "shared"

    def __init__(
        self, session: Session, cast: Cast, roles: Roles = "turn", known: Iterable[str] = ()
    ) -> None:
        self.session, self.cast, self.roles, self.known = session, cast, roles, set(known)

    @classmethod
    def of(cls, base: Session, cast: Cast, roles: Roles = "turn") -> Shared:
        """A fork of ``base`` with the prompt that all members share."""
        assert cast.shared is not None, "a team whose tools cannot be merged is separate"
        return cls(_forked(base, "team", cast.shared), cast, roles)

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The one session."""
        return {"team": self.session}

    def enter(self, name: str) -> Turn:
        """See ``Layout``."""
        fork = self.session.fork(name)
        if fork.placement in ("sticky", "auto"):
            fork._placement = "turn"  # what says who speaks must not stay for the next
        note = note_of(name, *self._role(name)) if self.roles == "sticky" and name not in self.known else None
        return Turn(name, fork, note)

    def role(self, name: str) -> tuple[Segment, ...]:
        """Who the model is, what for, and its tools; or that it knows."""
        return (reminder_of(name) if self.roles == "sticky" else role_of(name, *self._role(name)),)

    def _role(self, name: str) -> tuple[str, Sequence[str], list[str]]:
        assert self.cast.shared is not None, "a team whose tools cannot be merged is separate"
        union = [tool.name for tool in self.cast.shared.tools]
        return self.cast.personas[name], self.cast.allowed[name], union

    def take(self, said: Sequence[Said], turn: Turn | None = None) -> None:
        """See ``Layout``. What was said in a fork is told in the transcript; work is proportional to it."""
        messages = [message for each in said for message in told(each)]
        if turn is not None:
            messages = [*self._sent(turn), *messages]
        before = self.session._state
        self.session.append(messages)
        if turn is not None:
            observed = turn.session._state
            self.session._state = msgspec.structs.replace(
                self.session._state,
                turns=observed.turns,
                requests=observed.requests,
                sent=observed.sent,
                previous_tail=before.anchor,  # where the turn's request had a mark that can be found again
            )
            self.session._frozen = True

    def _sent(self, turn: Turn) -> Iterator[Message]:
        """What the turn's request held and nobody said: the role that stays, and the cue."""
        if turn.note is not None and turn.name not in self.known:
            self.known.add(turn.name)
            yield turn.note
        if turn.opening is not None and turn.first and not turn.told:
            yield turn.opening

    def fork(self) -> Shared:
        """See ``Layout``."""
        return Shared(self.session.fork("team"), self.cast, self.roles, self.known)


def layout_of(name: LayoutName, base: Session, cast: Cast, roles: Roles = "turn") -> Layout:
    """The layout of that name, over a fork or forks of ``base``."""
    return Separate.of(base, cast) if name == "separate" else Shared.of(base, cast, roles)


def _forked(base: Session, name: str, context: StableContext) -> Session:
    """A fork with a prompt of its own, whatever was frozen before; what is known of the provider's cache is common."""
    fork = base.fork(name)
    fork._family = copy(base.family)  # another conversation, as far as prefixes go
    fork._frozen = False
    fork._change(context)
    return fork


def _since(session: Session, base: Node) -> list[Message]:
    """What a session took in behind ``base``."""
    found: list[Message] = []
    for node in walk(session.tip):
        if node is base or not isinstance(node.message, Message):
            break
        found.append(node.message)
    return found[::-1]
