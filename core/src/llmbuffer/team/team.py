"""Teams: several members who talk in one conversation, and the layout that keeps their prompts cacheable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from threading import RLock
from typing import Any, Literal

from ..calls import Executor, error_result, open_calls
from ..context import Segment, dynamic_segments
from ..errors import MessageError
from ..ledger import LedgerEntry
from ..messages import Message
from ..observing import Observation
from ..placing import Dynamic
from ..request import Request
from ..session import Session
from .asking import TeamRequest
from .choosing import EXPECTED_TURNS, Choice, choose, turn_tokens
from .layouts import Layout, Turn, layout_of
from .ledgers import TeamLedger
from .members import Member, cast_of
from .telling import Said, cue

__all__ = ["Team"]


class Team:
    """Members who talk in one conversation, each with a persona and tools of its own, over what ``session`` holds.

    ``session`` gives what is everybody's: model, system text, tools, params, history, client, prices; the team goes on in forks
    of it. ``members`` stand in the order in which they are expected to speak. ``layout`` is

    * ``separate``: each member has a prompt of its own, with its own turns as they were and what the others said;
    * ``shared``: all continue one transcript, with the tools of all, the history told with the names of the speakers, and the
      member's role (persona and tools) as its last text;
    * ``auto``: the cheaper of the two, as ``choose`` rehearses them.

    ``roles`` of a shared layout: with ``turn``, a role ends the prompts of its member's turn and is gone; with ``sticky``, it is
    told once, in the transcript, where all members can read it, and a line ends the prompts; ``auto`` takes the cheaper.
    ``expected_turns`` and ``turn_tokens`` (default: as many as turns had so far, 500 before the first) are what is rehearsed.

    The layout is chosen at the first request and holds until ``thaw``. With ``shared`` the model reads something else than it
    does with ``separate``: others' tool calls too, its own turns as text, and its persona at the end.

    May be shared by threads: requests of several members may be open at once, and are told in the order in which their
    replies come in. What fails leaves the transcript as it was. Raises ``MessageError`` for members and options that make no
    sense, and for ``shared`` where tools of one name cannot be merged or the session compacts its history.

    >>> from llmbuffer import Message, Session, StableContext, Usage
    >>> session = Session(StableContext("gpt-5.5", "You make a cookbook."))
    >>> team = Team(session, [Member("cook", "You cook."), Member("critic", "You taste.")], "shared", roles="turn")
    >>> team.append("A soup, please.")
    >>> request = team.request("cook")
    >>> _ = request.observe(Usage(input_tokens=90), Message("assistant", "Leek soup."))
    >>> [said.speaker for said in team.history], team.request("critic").body["messages"][-1]["content"][0]["text"]
    ([None, 'cook'], 'cook: Leek soup.')
    """

    def __init__(
        self,
        session: Session,
        members: Iterable[Member],
        layout: Literal["auto", "separate", "shared"] = "auto",
        *,
        roles: Literal["auto", "turn", "sticky"] = "auto",
        expected_turns: int = EXPECTED_TURNS,
        turn_tokens: int | None = None,
    ) -> None:
        if not isinstance(session, Session):
            raise MessageError(
                f"session is a {type(session).__name__}: give a Session, whose context all members share"
            )
        if expected_turns < 1 or (turn_tokens is not None and turn_tokens < 1):
            raise MessageError(
                f"expected_turns={expected_turns!r}, turn_tokens={turn_tokens!r}: give 1 or more"
            )
        self._cast = cast_of(session.context, members)
        self._base = session.fork("team")
        self._asked, self._roles = self._allowed_layout(layout), _checked_roles(roles)
        self._expected, self._tokens = expected_turns, turn_tokens
        self._log: list[Said] = []
        self._open: dict[str, Turn] = {}
        self._stage: Layout | None = None
        self._choice: Choice | None = None
        self._ledger = TeamLedger(self.names)
        self._epoch = 0
        self._lock = RLock()

    def _allowed_layout(self, layout: str) -> str:
        if layout not in ("auto", "separate", "shared"):
            raise MessageError(f"unknown layout {layout!r}: use one of auto, separate, shared")
        if layout == "shared" and self._cast.shared is None:
            raise MessageError(
                f"layout 'shared': {self._cast.conflict}; rename one, or use layout='separate'"
            )
        if layout == "shared" and self._base._compaction is not None:
            raise MessageError(
                "layout 'shared': the session compacts its history, which each fork of the transcript would do for itself; "
                "leave compaction out, or use layout='separate'"
            )
        return layout

    # What it holds

    @property
    def members(self) -> tuple[Member, ...]:
        """The members, as given."""
        return self._cast.members

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names."""
        return tuple(member.name for member in self._cast.members)

    @property
    def history(self) -> tuple[Said, ...]:
        """What was said since the team was made, oldest first; not what the session held before."""
        return tuple(self._log)

    @property
    def ledger(self) -> TeamLedger:
        """Every request, by member."""
        return self._ledger

    @property
    def layout(self) -> str:
        """``separate`` or ``shared``; chosen by now."""
        return self.choice.layout

    @property
    def reason(self) -> str:
        """Why the layout is what it is."""
        return self.choice.reason

    @property
    def choice(self) -> Choice:
        """The layout, the reason, and what was weighed."""
        with self._lock:
            if self._choice is None:
                self._choice = self._chosen()
            return self._choice

    @property
    def epoch(self) -> int:
        """How often the layout was open to be chosen anew."""
        return self._epoch

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The sessions behind it, by name: one for each member, or the one of all, named ``team``."""
        with self._lock:
            return dict(self._staged().sessions)

    def _chosen(self) -> Choice:
        tokens = self._tokens if self._tokens is not None else turn_tokens(self._log, self._base.counter)
        return choose(
            self._base,
            self._cast,
            layout=self._asked,
            roles=self._roles,
            history=self._log,
            turns=self._expected,
            tokens=tokens,
        )

    def _staged(self) -> Layout:
        if self._stage is None:
            stage = layout_of(self.choice.layout, self._base, self._cast, self.choice.roles)
            stage.take(self._log)
            self._stage = stage
        return self._stage

    # The conversation

    def append(self, message: str | Message | Mapping[str, Any] | Sequence[Any]) -> None:
        """Add what somebody said: a user's text, a message, a mapping in OpenAI's format, or a list of these.

        An assistant's or user's message whose ``name`` is a member's is that member's, and so are the tool results behind
        it. Results of calls that a member's turn awaits go to that turn. Raises a ``MessageError`` for what cannot be taken
        in; of a list, all is taken or nothing.
        """
        found = [Message.of(each) for each in (message if isinstance(message, list | tuple) else [message])]
        with self._lock:
            turn = self._awaiting(found[0]) if found else None
            if turn is not None:
                turn.session.append(found)
                return
            self._take(_attributed(found, self.names))

    def request(
        self,
        member: str,
        user: str | Message | Mapping[str, Any] | Sequence[Any] | None = None,
        dynamic: Dynamic | None = None,
        *,
        params: Mapping[str, Any] | None = None,
    ) -> TeamRequest:
        """The next request of ``member``; nothing is changed, and nothing is sent.

        ``user`` is said to all members once the reply is observed. ``dynamic`` and ``params`` as for ``Session.request``. If
        the member's last reply called tools, this goes on with its turn. Raises ``MessageError`` for an unknown member,
        ``PairingError`` while its calls await results, and what ``Session.request`` raises.
        """
        with self._lock:
            turn, words, segments = self._turn(member, user, dynamic)
        return TeamRequest(self._observed, turn, turn.session.request(words, segments, params=params))

    def respond(
        self,
        member: str,
        user: Any = None,
        *,
        dynamic: Dynamic | None = None,
        tools: Executor | None = None,
        **options: Any,
    ) -> Message:
        """``Session.respond`` for ``member``: request, send, observe, run tools, until its turn ends; returns its last message.

        A call of a tool that the member may not use is answered with an error result, and never executed.
        """
        turn, words, segments, watch = self._prepared(member, user, dynamic, options)
        try:
            return turn.session.respond(words, dynamic=segments, tools=tools, on_observe=watch, **options)
        finally:
            self._ended(turn)

    async def arespond(
        self,
        member: str,
        user: Any = None,
        *,
        dynamic: Dynamic | None = None,
        tools: Executor | None = None,
        **options: Any,
    ) -> Message:
        """The same with an asynchronous client and synchronous or asynchronous tools."""
        turn, words, segments, watch = self._prepared(member, user, dynamic, options)
        try:
            return await turn.session.arespond(
                words, dynamic=segments, tools=tools, on_observe=watch, **options
            )
        finally:
            self._ended(turn)

    def fork(self) -> Team:
        """A team that goes on apart from here, with the same layout and a ledger of its own; open turns stay behind."""
        with self._lock:
            fork = Team.__new__(Team)
            fork._cast, fork._base, fork._asked, fork._roles = (
                self._cast,
                self._base,
                self._asked,
                self._roles,
            )
            fork._expected, fork._tokens, fork._epoch = self._expected, self._tokens, self._epoch
            fork._log, fork._open, fork._lock = list(self._log), {}, RLock()
            fork._choice, fork._stage = self._choice, None if self._stage is None else self._stage.fork()
            fork._ledger = TeamLedger(self.names)
            return fork

    def thaw(self, reason: str, layout: Literal["auto", "separate", "shared"] | None = None) -> None:
        """Begin a new epoch, in which the layout is chosen anew: a planned break, entered into every ledger.

        ``layout`` takes the place of the one that was asked for. Raises ``MessageError`` while a turn is open.
        """
        with self._lock:
            if self._open:
                raise MessageError(
                    f"the turns of {sorted(self._open)} are open: let them end before the layout changes"
                )
            self._asked = self._asked if layout is None else self._allowed_layout(layout)
            self._stage = self._choice = None
            self._epoch += 1
            for ledger in self._ledger.values():
                entry = LedgerEntry(at=self._base.clock(), epoch=self._epoch, kind="thawed", reason=reason)
                ledger.add(entry)

    # Turns

    def _turn(self, member: str, user: Any, dynamic: Dynamic | None) -> tuple[Turn, Message | None, Any]:
        """The member's turn, the user's words for it, and its dynamic text; the caller holds the lock."""
        if member not in self.names:
            raise MessageError(f"unknown member {member!r}: the team has {', '.join(self.names)}")
        stage, turn = self._staged(), self._open.get(member)
        words = None if user is None else Message.of(user)
        if turn is not None:
            segments = None if dynamic is None else (*dynamic_segments(dynamic), *stage.role(member))
            return turn, words, segments
        turn = stage.enter(member)
        turn.session._ledger = self._ledger[member]
        turn.told = words is not None
        turn.opening = words if words is not None else self._opening(turn)
        return turn, turn.opening, self._segments(turn, dynamic, stage.role(member))

    def _opening(self, turn: Turn) -> Message | None:
        """A cue, where the prompt would end in an assistant's words, or hold none."""
        last = turn.session.tip.message
        return None if isinstance(last, Message) and last.role != "assistant" else cue(turn.name)

    def _segments(self, turn: Turn, dynamic: Dynamic | None, role: tuple[Segment, ...]) -> Any:
        if not role:
            return dynamic
        own = turn.session.context.dynamic if dynamic is None else dynamic_segments(dynamic)
        return (*own, *role)

    def _prepared(
        self, member: str, user: Any, dynamic: Dynamic | None, options: dict[str, Any]
    ) -> tuple[Turn, Message | None, Any, Any]:
        with self._lock:
            turn, words, segments = self._turn(member, user, dynamic)
        watch = options.pop("on_observe", None)

        def observed(seen: Observation) -> None:
            turn.session = seen.session
            self._refuse(turn)
            if watch is not None:
                watch(seen)

        return turn, words, segments, observed

    def _observed(self, turn: Turn, request: Request, seen: Observation) -> None:
        """A reply to a request that was sent by somebody else."""
        if seen.session is not turn.session:
            turn = turn.again(seen.session, request.base.tip)
        self._refuse(turn)
        self._ended(turn)

    def _refuse(self, turn: Turn) -> None:
        """Answer the calls of tools that the member may not use."""
        allowed = self._cast.allowed[turn.name]
        for call in open_calls(turn.session.tip):
            if call.name not in allowed:
                listed = ", ".join(allowed) or "none"
                text = (
                    f"{turn.name} may not use the tool {call.name!r}, nothing was run: its tools are {listed}"
                )
                turn.session.append(Message("tool", [error_result(call, text)]))

    def _ended(self, turn: Turn) -> None:
        """Tell what was said, if the turn is over; else it stays open, if anything was said."""
        with self._lock:
            if not turn.begun:
                return
            if not turn.over:
                self._open[turn.name] = turn
                return
            if self._open.get(turn.name) is turn:
                del self._open[turn.name]
            words = [Said(None, (turn.opening,))] if turn.told and turn.opening is not None else []
            self._take([*words, Said(turn.name, turn.messages())], turn)

    def _take(self, said: Sequence[Said], turn: Turn | None = None) -> None:
        if self._stage is not None:
            self._stage.take(said, turn)
        self._log += said

    def _awaiting(self, message: Message) -> Turn | None:
        wanted = {result.call_id for result in message.tool_results}
        turns = (turn for turn in self._open.values() if wanted & set(turn.session._state.open_calls))
        return next(turns, None) if wanted else None

    def __repr__(self) -> str:
        layout = self._asked if self._choice is None else self._choice.layout
        return f"Team(members={list(self.names)}, layout={layout!r}, said={len(self._log)})"


def _checked_roles(roles: str) -> str:
    if roles not in ("auto", "turn", "sticky"):
        raise MessageError(f"unknown placement of roles {roles!r}: use one of auto, turn, sticky")
    return roles


def _attributed(messages: Sequence[Message], names: Sequence[str]) -> list[Said]:
    """Messages with who said them; tool results belong to whoever called."""
    out: list[Said] = []
    for message in messages:
        if message.role == "tool" and out:
            out[-1] = Said(out[-1].speaker, (*out[-1].messages, message))
        elif message.name in names:
            out.append(Said(message.name, (Message("assistant", message.parts),)))
        else:
            out.append(Said(None, (message,)))
    return out
