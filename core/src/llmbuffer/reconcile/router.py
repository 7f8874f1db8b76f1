"""Which session a prompt belongs to: by its key, or by what it begins with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import RLock
from typing import TYPE_CHECKING, Any

from ..errors import MessageError
from ..messages import Message
from .casting import Company
from .groups import Group, part_of
from .heading import Staged
from .hosts import DictHost, Host, Leaves, readable
from .instructions import Templates
from .leading import Leading
from .observing import without_marks
from .plan import Plan
from .policy import Policy, chosen
from .recognition import Line, Match
from .reconciler import reconciler_of

if TYPE_CHECKING:
    from ..placing import Dynamic
    from ..session import Session

__all__ = ["Router"]

_Key = tuple[
    str | None, str | None, int
]  # conversation, member, and a number where nobody named the conversation


class Router:
    """Keeps a session for each conversation of one wrapped model, each a fork of ``session``; thread-safe.

    ``limit`` sessions are kept, the one that was used longest ago goes first. ``convert`` and ``policy`` are those of
    ``Session.reconcile``. What the conversations of one member taught about slots serves those that begin later.

    Raises ``MessageError`` for a limit below 1.

    >>> from llmbuffer import Session, StableContext
    >>> router = Router(Session(StableContext("gpt-5.5")))
    >>> one = router.reconcile(messages=[{"role": "user", "content": "Hello"}])
    >>> other = router.reconcile(messages=[{"role": "user", "content": "Good morning"}])
    >>> one.session is other.session, len(router)
    (False, 2)
    """

    def __init__(
        self,
        session: Session,
        *,
        limit: int = 1024,
        convert: Host | None = None,
        policy: Policy | None = None,
    ) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise MessageError(f"limit is {limit!r}: give a number of sessions, from 1 on")
        self._origin, self._limit = session, limit
        self.host: Host = DictHost() if convert is None else convert
        self._policy = Policy() if policy is None else policy
        self._sessions: OrderedDict[_Key, Session] = OrderedDict()
        self._first: dict[Leaves, list[_Key]] = {}
        self._begins: dict[_Key, Leaves] = {}
        self._templates: dict[str | None, Templates] = {}
        self._groups: dict[str, Group] = {}
        self._company = Company(session, self.host)
        self._number = 0
        self.leading: dict[Leaves, Message] = {}
        self._lock = RLock()

    def reconcile(
        self,
        *,
        messages: Sequence[Any],
        conversation: str | None = None,
        member: str | None = None,
        tools: Sequence[Any] | None = None,
        system: str | Sequence[str] | None = None,
        dynamic: Dynamic | None = None,
        params: Mapping[str, Any] | None = None,
        marked: int = 0,
        **options: Any,
    ) -> Plan:
        """The plan of the session that the prompt belongs to; see ``Session.reconcile``.

        With ``conversation`` it is the one of that name (and of ``member``, an agent among several). Without, it is the one
        with the longest beginning in common, and a new one where no message of a user's is common; a branch off a known
        conversation gets a session of its own. Raises ``MessageError`` for ``history="ours"`` without a conversation.
        """
        policy = chosen(self._policy, options, conversation)
        with self._lock:
            leading, staged, leaves = None, None, None
            notes: tuple[str, ...] = ()
            if conversation is not None:
                session = self.session(conversation, member)
            else:
                leading = Leading(self, self.host, messages) if system is None else None
                session = self._found(messages[0 if leading is None else len(leading.items) :], member)
            if conversation is not None and member and policy.team != "separate" and not policy.observe:
                leading = Leading(reconciler_of(session), self.host, messages) if system is None else None
                group = self._group(conversation)
                staged = self._staged(group, session, member, system, leading, tools, policy)
                notes = (group.note,)
                if staged is not None:
                    start = 0 if leading is None else len(leading.items)
                    told, leaves = group.tell(member, messages[start:])
                    messages = [*messages[:start], *told]
            return reconciler_of(session).plan(
                tools=tools,
                system=system,
                messages=messages,
                dynamic=dynamic,
                params=params,
                host=self.host,
                policy=policy,
                marked=marked,
                leading=leading,
                staged=staged,
                leaves=leaves,
                notes=notes,
            )

    def declare(
        self,
        member: str,
        *,
        system: str | Sequence[str] | None = None,
        tools: Sequence[Any] | None = None,
        **options: Any,
    ) -> None:
        """Say beforehand that a member will speak, with its system text and tools as they will be handed over.

        Then the first request of a team has the prefix that all its members will share, and nothing has to move when the
        second one speaks. A declaration takes the place of an earlier one. Raises ``MessageError`` for an empty name.

        >>> from llmbuffer import Session, StableContext
        >>> router = Router(Session(StableContext("gpt-5.5")), policy=Policy(team="shared"))
        >>> for name in ("ann", "bob"):
        ...     router.declare(name, system=f"You are {name}. Be kind to everybody who asks.")
        >>> said = [{"role": "user", "content": "Hello"}]
        >>> ann = router.reconcile(
        ...     system="You are ann. Be kind to everybody who asks.", messages=said, conversation="c", member="ann"
        ... )
        >>> ann.system, "You are ann." in ann.tail.text
        ('Be kind to everybody who asks.', True)
        """
        if not isinstance(member, str) or not member:
            raise MessageError(f"a member's name is {member!r}: give the name by which it will call")
        texts = (system,) if isinstance(system, str) else tuple(system or ())
        policy = chosen(self._policy, options, member)
        with self._lock:
            self._company.enter(member, part_of(texts, tools, policy, self.host), declared=True)

    def _group(self, conversation: str) -> Group:
        return self._groups.setdefault(conversation, Group(self._company))

    def _staged(
        self,
        group: Group,
        session: Session,
        member: str,
        system: str | Sequence[str] | None,
        leading: Leading | None,
        tools: Sequence[Any] | None,
        policy: Policy,
    ) -> Staged | None:
        """What the member's prompt has in common with those of the others, if they share one."""
        if leading is not None:
            texts = leading.texts
        else:
            texts = (system,) if isinstance(system, str) else tuple(system or ())
        templates, known = self._templates.setdefault(member, Templates()), reconciler_of(session).sent
        return group.staged(member, texts, tools, policy, templates, known=known)

    def begins(self, leaves: Leaves) -> bool:
        """Whether a conversation that nobody named begins with this message."""
        return leaves in self._first

    def converted(self, host: Host, item: Any, leaves: Leaves) -> tuple[Message, bool]:
        """One object as a message, and whether it could be read."""
        return readable(host, item, leaves)

    def session(self, conversation: str, member: str | None = None) -> Session:
        """The session of a conversation (and member); a new one where there is none."""
        with self._lock:
            key = (conversation, member, 0)
            found = self._sessions.get(key)
            if found is None:
                found = self._enter(key, self._origin.fork(member or conversation))
            self._sessions.move_to_end(key)
            return found

    def forget(self, conversation: str, member: str | None = None) -> bool:
        """Let go of a conversation, or of one member's part in it; whether there was any."""
        with self._lock:
            gone = [
                key
                for key in self._sessions
                if key[0] == conversation and (member is None or key[1] == member)
            ]
            for key in gone:
                self._drop(key)
            if member is not None and conversation in self._groups:
                self._groups[conversation].forget(member)
            return bool(gone)

    def reset(self) -> None:
        """Let go of all conversations, and of what was learned."""
        with self._lock:
            self._sessions.clear()
            self._first.clear()
            self._begins.clear()
            self._templates.clear()
            self._groups.clear()
            self._company = Company(self._origin, self.host)

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The sessions that are kept, the one used longest ago first."""
        with self._lock:
            return tuple(self._sessions.values())

    def __len__(self) -> int:
        return len(self._sessions)

    def _found(self, messages: Sequence[Any], member: str | None) -> Session:
        leaves = [self.host.leaves(item) for item in messages]
        best: tuple[int, _Key] | None = None
        for key in reversed(self._first.get(leaves[0], []) if leaves else []):
            known = reconciler_of(self._sessions[key])
            depth = known.depth(leaves) if key[1] == member else 0
            if depth and (best is None or depth > best[0]):
                best = (depth, key)
                if depth == len(leaves) or known.extended_by(depth):
                    break
        if best is None:
            return self._begun(member, leaves, self._origin.fork(member))
        key = best[1]
        known = reconciler_of(self._sessions[key])
        line, match = known.look(leaves, messages)
        if match.relation == "forked" or self._parted(known.answered(line), line, match, leaves, messages):
            return self._begun(member, leaves, known.branch(line, match.same))
        self._sessions.move_to_end(key)
        return self._sessions[key]

    def _parted(
        self,
        answer: Message | None,
        line: Line,
        match: Match,
        leaves: Sequence[Leaves],
        messages: Sequence[Any],
    ) -> bool:
        """Whether two conversations part here that began alike: an assistant says something else, and their users the same.

        Of an edit it is known that the object is the same, or that something is there which the assistant said later:
        ``answer`` is what it said behind the line.
        """

        def said(place: int) -> Message:
            return without_marks(self.converted(self.host, messages[place], leaves[place])[0])[0]

        place = match.same
        if not match.moved or place >= min(len(line), len(messages)) or messages[place] is line.items[place]:
            return False
        before, _ = without_marks(line.entries[place].message)
        later = any(line.entries[then].message.role == "assistant" for _, then in match.pairs)
        if before.role != "assistant" or later or said(place).role != "assistant" or said(place) == before:
            return False
        behind, last = match.pairs[-1]
        goes_on = answer is not None and last == len(line) - 1 and behind + 1 < len(messages)
        return not (goes_on and said(behind + 1) == answer)

    def _begun(self, member: str | None, leaves: Sequence[Leaves], session: Session) -> Session:
        self._number += 1
        key = (None, member, self._number)
        if leaves:
            self._begins[key] = leaves[0]
            self._first.setdefault(leaves[0], []).append(key)
        return self._enter(key, session)

    def _enter(self, key: _Key, session: Session) -> Session:
        self._sessions[key] = session
        reconciler_of(session, self._templates.setdefault(key[1], Templates()))
        while len(self._sessions) > self._limit:
            self._drop(next(iter(self._sessions)))
        return session

    def _drop(self, key: _Key) -> None:
        del self._sessions[key]
        if key[0] in self._groups and not any(each[0] == key[0] for each in self._sessions):
            del self._groups[key[0]]
        begins = self._begins.pop(key, None)
        if begins is not None:
            self._first[begins].remove(key)
            if not self._first[begins]:
                del self._first[begins]

    def __repr__(self) -> str:
        return f"Router(sessions={len(self._sessions)}, limit={self._limit})"
