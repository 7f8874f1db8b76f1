"""One prompt of a host: recognised, converted as far as it is new, and chained."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from ..chain import Node, common_prefix
from ..messages import Message
from ..request import Request
from ..state import State
from .declared import is_marked, unmarked
from .history import Kept, Own
from .hosts import Host, Leaves, readable
from .leading import Leading
from .observing import without_marks
from .policy import Policy
from .recognition import Entry, Line, Match, Relation

if TYPE_CHECKING:
    from .reconciler import Reconciler

__all__ = ["Given"]

BRANCHES = 8  # of one host's history that are known, so that it may go back to one


class Given:
    """The messages of one plan; ``own`` are those that go out where the session keeps its own history."""

    def __init__(
        self,
        reconciler: Reconciler,
        host: Host,
        policy: Policy,
        messages: Sequence[Any],
        leading: Leading | None,
        leaves: list[Leaves] | None = None,
    ) -> None:
        self.reconciler, self.host, self.policy = reconciler, host, policy
        self.offset = 0 if leading is None else len(leading.items)
        self.given = list(messages[self.offset :] if self.offset else messages)
        self.leaves = [host.leaves(item) for item in self.given] if leaves is None else leaves
        self.line_before, self.match = reconciler.look(self.leaves, self.given)
        first = None if leading is None else leading.first
        self._read: dict[int, tuple[Message, bool]] = {} if first is None else {0: first}
        self._marks: dict[int, int] = {}
        if first is not None and policy.observe:
            message, self._marks[0] = without_marks(first[0])
            self._read[0] = message, first[1]
        if policy.observe:
            self._marks_aside()
        if self.match.relation in ("forked", "new") and self._reply_stands():
            self.match = replace(self.match, relation="edited")
        self.before, at = len(self.line_before), self.match.at
        self.gone = self.line_before.entries[at].message if at < self.before else None
        self.line = self._taken()
        if not self.before and len(reconciler.lines) == 1:
            self._resume()
        self.own: list[Kept] | None = None
        self.kept = 0
        self.broken = self.match.moved
        self.archive = reconciler.session._state.archive
        if policy.history == "ours" and not policy.observe:
            self._keep_own()
        self.relation = self.match.relation
        if reconciler.branched:
            reconciler.branched = False
            self.relation = "forked" if self.relation in ("extension", "same") else self.relation
        if self.own is None:
            self.state = self.line.entries[-1].state if self.line.entries else State.empty()

    @property
    def unknown(self) -> tuple[int, ...]:
        """The places of messages that could not be read."""
        return tuple(self.line.unknown)

    def _resume(self) -> None:
        """Recognise what a session held before its host came: a fork, or one that was loaded from a store."""
        line, state = self.line, self.reconciler.session._state
        if not line.entries or not state.tip.depth:
            return
        shared = common_prefix(line.entries[-1].state.tip, state.tip).depth
        if not any(entry.message.role == "user" for entry in line.entries[:shared]):
            return
        missing = state.tip.depth - shared  # the last reply may be one that the host has not handed over yet
        relation: Relation = "forked"
        if shared == len(line) and missing <= 1:
            relation = "same"
        elif not missing:
            relation = "extension"
        self.match = replace(self.match, relation=relation)
        line.asked = [(shared, state.requests)] if relation != "forked" else []

    def _reply_stands(self) -> bool:
        """Whether the reply that was observed follows at its place, so that what is before it was edited."""
        place, answer = len(self.line_before), self.reconciler.answered(self.line_before)
        return answer is not None and place < len(self.given) and self._message(place)[0] == answer

    def _marks_aside(self) -> None:
        """Know messages again that differ in nothing but their breakpoints: hosts let those move with the end."""
        while self.match.same < min(len(self.line_before), len(self.given)):
            place = self.match.same
            if self._message(place)[0] != self.line_before.entries[place].message:
                return
            self.line_before.takes(place, self.leaves[place], self._marks.get(place, 0))
            self.line_before, self.match = self.reconciler.look(self.leaves, self.given)

    def _message(self, index: int) -> tuple[Message, bool]:
        if index not in self._read:
            read = self.reconciler.converted(self.host, self.given[index], self.leaves[index])
            if self.policy.observe:
                message, self._marks[index] = without_marks(read[0])
                read = message, read[1]
            self._read[index] = read
        return self._read[index]

    def _taken(self) -> Line:
        """The line with what is new in it."""
        match, before, lines = self.match, self.line_before, self.reconciler.lines
        known = {now: before.entries[then] for now, then in match.pairs}
        state = before.entries[match.same - 1].state if match.same else State.empty()
        entries: list[Entry] = []
        for index in range(match.same, len(self.given)):
            entry = self._entry(index, known.get(index), state)
            entries.append(entry)
            state = entry.state
        if before in lines:
            lines.remove(before)
        if match.same == len(before):
            line = before
            line.extend(entries, self.given)
        else:
            line = before.branch(match.same)
            line.extend(entries, self.given)
            if match.relation in ("forked", "new"):
                lines.insert(0, before)
        lines.insert(0, line)
        del lines[BRANCHES if self.policy.history == "host" else 1 :]
        return line

    def _entry(self, index: int, known: Entry | None, state: State) -> Entry:
        if known is not None:
            after, _, _ = self.reconciler.linked(state, known.message)
            return replace(known, state=after)
        item, leaves, shown = self.given[index], self.leaves[index], None
        message, readable_ = self._message(index)
        strip = None if self.policy.observe else getattr(self.host, "stripped", None)
        if strip is not None and _marked(leaves):
            shown = strip(item, unmarked)
            message, readable_ = readable(self.host, shown, self.host.leaves(shown))
        after, message, sent = self.reconciler.linked(state, message)
        return Entry(leaves, message, after, shown, readable_ and sent, self._marks.get(index, 0))

    # The own history

    def _keep_own(self) -> None:
        reconciler, line = self.reconciler, self.line
        own, match = reconciler.own, self.match
        if len(own.links) != self.before:  # kept for the first time
            match = Match("new", 0)
            own = reconciler.own = Own()
        trimmed = reconciler.windows.shifts(match, line, len(own.links), self.policy.trims)
        before = own.entries
        copied = getattr(self.host, "copied", copy.deepcopy)
        entries, links, gone = own.take(match, line, self.given, copied, trimmed=trimmed, policy=self.policy)
        states = own.known_states(entries)
        state = next((each for each in reversed(states) if each is not None), State.empty())
        for place in range(len(states), len(entries)):
            entries[place], state = self._enters(entries[place], state)
            states.append(state)
        own.commit(entries, links, gone, states)
        self.own, self.state = entries, state
        self.broken = not own.begins(before)
        self.kept = own.beside

    def _enters(self, entry: Kept, state: State) -> tuple[Kept, State]:
        """An entry behind a state, as the hooks of commit time leave it."""
        session, message = self.reconciler.session, entry.message
        shows = getattr(self.host, "from_message", None)
        if session._compaction is not None and shows is not None:
            message, self.archive = session._compaction.enters(
                session, message, replace(state, archive=self.archive)
            )
        after, _, _ = self.reconciler.linked(state, message)
        if message is not entry.message:
            entry = Kept(entry.number, shows(message) if shows is not None else entry.item, message)
        return entry, after

    def state_before_last(self) -> State | None:
        """The state in front of the last message that goes out."""
        states = self.reconciler.own.states
        return states[-2] if len(states) > 1 else None

    # What goes out

    def objects(self) -> list[Any]:
        """The objects of the plan, in order."""
        if self.policy.observe:
            return self.given
        if self.own is None:
            return self.line.objects(self.given)
        return [entry.item for entry in self.own]

    def marked(self) -> tuple[list[Node], int]:
        """Where the host's messages came with breakpoints, and how many those are."""
        entries, marks = self.line.entries, self.line.marks
        return [entries[place].state.tip for place in sorted(marks)], sum(marks.values())

    def requests(self, until_now: int) -> int:
        """How many requests of this branch lie behind."""
        if self.match.moved or self.own is not None:
            return until_now
        return self.line.asked[-1][1] if self.line.asked else 0

    def sent(self, request: Request) -> None:
        """The request was observed."""
        self.line.sent = request.snapshot
        self.line.asked.append((len(self.given), request.base.requests + 1))
        if self.own is not None and request.placed.compacted is not None:
            self.reconciler.own.replace(self.own, self.state)


def _marked(leaves: Any) -> bool:
    """Whether marks may stand in an object."""
    return any(
        is_marked(each) if isinstance(each, str) else isinstance(each, tuple) and _marked(each)
        for each in leaves
    )
