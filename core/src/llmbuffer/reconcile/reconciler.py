"""The machinery behind ``session.reconcile``: what one session remembers of the host that it serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from ..breaks import CacheBreak
from ..context import Segment
from ..errors import LLMBufferError, MessageError
from ..frozen import FrozenDict
from ..ledger import LedgerEntry
from ..messages import Message
from ..observing import Answer, Observation
from ..placing import Placed
from ..rebuilding import still_there
from ..request import Request
from ..snapshot import texts as texts_of
from ..state import State, Turn, attach, link
from ..usage import Usage
from .compacts import compacted
from .given import Given
from .heading import Staged, headed, together
from .heads import Heading
from .history import Own, Windows
from .hosts import DictHost, Host, Leaves, plain_message, readable
from .instructions import Read, Templates, volatile
from .leading import Leading
from .losses import lost_by
from .observing import as_given
from .plan import Change, Plan
from .policy import Policy
from .recognition import Line, Match, matched, shared_length
from .tails import Tails

if TYPE_CHECKING:
    from ..placing import Dynamic
    from ..session import Session

__all__ = ["Reconciler", "reconciler_of"]

_HOST = DictHost()


def reconciler_of(session: Session, templates: Templates | None = None) -> Reconciler:
    """The session's reconciler; made when it is first asked for."""
    with session._lock:
        found: Reconciler | None = getattr(session, "_reconciler", None)
        if found is None:
            found = session._reconciler = Reconciler(session, templates)
        return found


class Reconciler:
    """Recognises what a host hands over to one session, and plans; used under the session's lock.

    ``conversions`` counts the messages that were converted.
    """

    def __init__(self, session: Session, templates: Templates | None = None) -> None:
        self.session = session
        self.conversions = 0
        self.lines: list[Line] = []  # the one that was used last comes first
        self.templates = Templates() if templates is None else templates
        self.heading = Heading(session)
        self.own = Own()
        self.windows = Windows()
        self.leading: dict[Leaves, Message] = {}  # system messages in front of the last prompt's messages
        self.branched = False  # from another session, and not planned for yet
        self._replied: tuple[State, Message, State] | None = (
            None  # behind which state, what, and the state with it
        )
        self._pending: CacheBreak | None = None
        self.changes: tuple[Change, ...] = ()
        self.tails = Tails(session)

    @property
    def sent(self) -> bool:
        """Whether a request of this host was observed."""
        return any(line.sent is not None for line in self.lines)

    # Recognition

    def depth(self, leaves: Sequence[Leaves]) -> int:
        """How many messages of a prompt are known here; 0 without a common message of the user's."""
        found = max((shared_length(line.leaves, leaves) for line in self.lines), default=0)
        said = any(entry.message.role == "user" for line in self.lines[:1] for entry in line.entries[:found])
        return found if said else 0

    def begins(self, leaves: Leaves) -> bool:
        """Whether a history that is known begins with this message."""
        return any(line.leaves[:1] == [leaves] for line in self.lines)

    def look(self, leaves: Sequence[Leaves], items: Sequence[Any]) -> tuple[Line, Match]:
        """The line that a prompt belongs to, and how it relates to it."""
        line = self.lines[0] if self.lines else Line()
        same = shared_length(line.leaves, leaves)
        if same < len(line):
            for each in self.lines[1:]:
                found = shared_length(each.leaves, leaves)
                if found > same:
                    line, same = each, found
        return line, matched(line, leaves, items, same)

    def extended_by(self, depth: int) -> bool:
        """Whether a prompt with so many messages in common goes on from all that the last one had."""
        return any(len(line) == depth for line in self.lines)

    def answered(self, line: Line) -> Message | None:
        """The last reply that was observed, if it followed what a line ends with."""
        replied = self._replied
        if replied is None or not line.entries or line.entries[-1].state.tip.digest != replied[0].tip.digest:
            return None
        return replied[1]

    def branch(self, line: Line, length: int) -> Session:
        """A session that goes on from an earlier message of a line, with what is known of it."""
        session = self.session.fork()
        child = session._reconciler = Reconciler(session, self.templates)
        child.lines, child.branched = [line.branch(length)], True
        asked = child.lines[0].asked
        session._state = replace(session._state, requests=asked[-1][1] if asked else 0)
        return session

    def plan(
        self,
        *,
        tools: Sequence[Any] | None,
        system: str | Sequence[str] | None,
        messages: Sequence[Any],
        dynamic: Dynamic | None,
        params: Mapping[str, Any] | None,
        host: Host | None,
        policy: Policy,
        marked: int,
        leading: Leading | None = None,
        staged: Staged | None = None,
        leaves: list[Leaves] | None = None,
        notes: tuple[str, ...] = (),
    ) -> Plan:
        """See ``Session.reconcile``."""
        host = _HOST if host is None else host
        with self.session._lock:
            if system is None and leading is None:
                leading = Leading(self, host, messages)
            prompt = Given(self, host, policy, messages, leading, leaves)
            texts = _texts(system, leading)
            head = headed(self, prompt, texts, tools, dict(params or {}), policy, staged)
            segments = () if policy.observe else together(dynamic, head)
            nodes, given = prompt.marked()
            placed = self._placed(prompt, segments, head.read, marked + given, staged)
            if prompt.own is not None:
                placed = compacted(self, prompt, placed, host)
            base = placed.state if placed.pending is None or placed.start is None else placed.start
            request = Request(self.session, base, placed, FrozenDict())
            if policy.observe:
                as_given(request, nodes, marked)
            found = lost_by(prompt, head.sent, request, head.moved)
            self._pending = request.moved = self._pending if found is None else found
            stable = head.read.stable
            shown = [] if leading is None else leading.items if policy.observe else leading.shown(stable)
            told = system if system is None or policy.observe else stable
            return Plan(
                self.session,
                request,
                relation=prompt.relation,
                messages=(*shown, *prompt.objects()),
                system=stable[0] if isinstance(system, str) else told,
                leading=len(shown),
                offer=head.offer,
                arguments=head.arguments,
                observed=lambda *seen: self._observed(prompt, host, staged, *seen),
                unknown=tuple(len(shown) + place for place in prompt.unknown),
                kept=prompt.kept,
                changes=head.read.changes,
                notes=(*notes, *_notes(prompt.line, head.read)),
                as_given=policy.observe,
                shared=staged is not None,
            )

    # Placement

    def _placed(
        self,
        given: Given,
        segments: tuple[Segment, ...],
        read: Read,
        marked: int,
        staged: Staged | None,
    ) -> Placed:
        """The history of the request, with its dynamic text where it costs least among the places that it may stand in."""
        now, tip = self.session._state, given.state
        tail = None if staged is None else staged.tail
        state = replace(
            tip,
            turn=None if tip.turn is None else Turn(tip.turn.user),
            requests=given.requests(now.requests),
            previous_tail=still_there(tail, tip.tip) or still_there(now.previous_tail, tip.tip),
            response_id=now.response_id,
            sent=now.sent,
            archive=now.archive if given.own is None else given.archive,
            given_marks=tip.given_marks + marked,
        )
        learned = bool(read.changes)
        turn, again = self.tails.turn(state, segments, learned=learned, per_call=staged is not None)
        if not segments:
            return Placed(state, None, (), None)
        if turn is None:
            return Placed(state, None, segments, None)
        warnings = ("dynamic-in-prefix",) if again and turn.user.node is not state.tip else ()
        return Placed(state, None, segments, Turn(turn.user, segments), warnings=warnings)

    # What came of it

    def _observed(
        self,
        given: Given,
        host: Host,
        staged: Staged | None,
        plan: Plan,
        response: Any,
        message: Any,
        usage: Usage | None,
    ) -> Observation:
        session, request = self.session, plan.request
        if message is not None and not isinstance(message, Message | Mapping):
            message = _reply(host, message)
        with session._lock:
            answer = request.answer(response, message, usage=usage)
            self._enter_changes(request)
            seen = self._committed(request, answer)
            self._pending = None
            given.sent(request)
            if staged is not None:
                staged.observed(seen.session, request.snapshot)
            if answer.reply is not None and seen.message is not None:
                marked = (
                    request.base.given_marks - given.state.given_marks
                )  # what the host adds to each request anew
                after = replace(session._state, given_marks=session._state.given_marks - marked)
                self._replied = (given.state, answer.reply, after)
            return seen

    def _enter_changes(self, request: Request) -> None:
        """Enter the slots that moved: a planned break, recorded and never an alarm."""
        session = self.session
        for change in self.changes:
            session._epoch += 1
            session.ledger.add(
                LedgerEntry(at=request.at, epoch=session._epoch, kind="moved", reason=change.reason)
            )
        self.changes = ()

    def _committed(self, request: Request, answer: Answer) -> Observation:
        """Go on with the reply; one that cannot follow what the host sent is left out, and what was paid counts."""
        session, before = self.session, self.session._state
        session._state = request.base
        try:
            return session.commit(request, answer)
        except MessageError:
            return session.commit(request, replace(answer, reply=None))
        except BaseException:
            session._state = before
            raise

    # Used by the history

    def converted(self, host: Host, item: Any, leaves: Leaves) -> tuple[Message, bool]:
        """One new object as a message, and whether it could be read."""
        self.conversions += 1
        return readable(host, item, leaves)

    def linked(self, state: State, message: Message) -> tuple[State, Message, bool]:
        """The state with one more message, and the message; one that the dialect cannot send counts by its text."""
        session, replied = self.session, self._replied
        if replied is not None and replied[0] is state and replied[1] == message:
            return replied[2], message, True
        try:
            new = link(state, message, session.dialect, session.counter, paired=False)
            return attach(state, new, session.dialect), message, True
        except LLMBufferError:
            told = plain_message((message.role, *texts_of(message)))
            new = link(state, told, session.dialect, session.counter, paired=False)
            return attach(state, new, session.dialect), told, False


def _notes(line: Line, read: Read) -> tuple[str, ...]:
    """What looks volatile in the stable texts, looked for once."""
    if line.notes[0] != read.stable:
        line.notes = (read.stable, volatile(read.stable))
    return line.notes[1]


def _reply(host: Host, item: Any) -> Message | None:
    try:
        return host.to_message(item)
    except LLMBufferError:
        return None


def _texts(system: str | Sequence[str] | None, leading: Leading | None) -> tuple[str, ...] | None:
    """The system texts that the host gave; ``None`` where it gave none, and the session's own are sent."""
    if system is not None:
        return (system,) if isinstance(system, str) else tuple(system)
    return leading.texts if leading is not None and leading.items else None
