"""One request: made without changing the session, sent by the user's client, and observed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from .breaks import CacheBreak
from .chain import Node, ancestor
from .context import CacheKey, Segment
from .forecast import Forecast, forecast
from .frozen import FrozenDict, FrozenList
from .layout import Candidate, Placement, plan_marks, render_dynamic
from .messages import Message, content_hash
from .rendered import edited
from .rules import Mark, Place
from .snapshot import MarkAt, Snapshot
from .state import Anchor, Link, State, Turn, dynamic_nodes
from .usage import Usage

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Observation", "Request"]


class Observation(msgspec.Struct, frozen=True):
    """What a response told: ``usage`` (``None`` if unreported), ``cache_break`` or ``None``, ``cost`` in USD or ``None``.

    ``session`` is the one that went on with the reply: the request's own, or a new fork (``forked``) where the session
    had moved on since the request was made.
    """

    usage: Usage | None
    cache_break: CacheBreak | None
    cost: float | None
    message: Message | None
    session: Session
    forked: bool = False


class Request:
    """A request that was built, not sent. Reading it any number of times gives the same bytes.

    ``body`` is the JSON body, ``kwargs`` the same as arguments for the SDK, ``key`` its identity, ``forecast`` what the
    provider will serve from its cache; ``dynamic`` the segments that stand in it for this turn only.
    """

    def __init__(
        self,
        session: Session,
        base: State,
        state: State,
        pending: Link | None,
        *,
        turn: Turn | None,
        dynamic: tuple[Segment, ...],
        params: Mapping[str, Any],
        notes: tuple[str, ...],
        warnings: tuple[str, ...],
    ) -> None:
        self._session = session
        self._base = base
        self._state = state
        self._pending = pending
        self._turn = turn  # where the dynamic text is inserted; None: it is the last thing of the prompt
        self._params = params
        self._notes, self._warnings = notes, warnings
        self.dynamic = dynamic
        self.at = session.clock()
        self._family = session._family
        self._context, self._dialect, self._head = session._context, session._dialect, session._head
        self._fork_anchor = session._fork_anchor

    @cached_property
    def body(self) -> FrozenDict:
        """The JSON body: read-only ``dict`` and ``list`` objects, shared with the session; deepcopy gives plain ones."""
        dialect = self._dialect
        marks = [candidate.mark for candidate in self._plan]
        messages = FrozenList()
        system = self._head_with(self._head.system, "system", marks)
        if dialect.system_in_messages:
            list.extend(messages, system)
        first = len(messages)
        self._state.rendered.extend(messages, dialect)
        self._edit(messages, first, [mark for mark in marks if mark.place.section == "messages"])
        return dialect.assemble(
            model=self._context.model,
            tools=self._head_with(self._head.tools, "tools", marks),
            system=system,
            messages=messages,
            params={**self._context.params, **self._params},
            implicit=self._implicit,
            routing_key=self._family.routing_key,
        )

    @property
    def kwargs(self) -> dict[str, Any]:
        """``body`` as arguments for the SDK's ``create``; fields that the SDK lacks are in ``extra_body``."""
        return self._dialect.kwargs(self.body)

    @cached_property
    def key(self) -> CacheKey:
        """Identity of the stable part, and of the history, dynamic content and further params."""
        rest = [self._state.tip.digest, msgspec.json.encode(self.dynamic), msgspec.json.encode(dict(self._params))]
        return CacheKey(self._context.fingerprint, content_hash(rest))

    @property
    def forecast(self) -> Forecast:
        """What the provider will read from its cache, write and compute, and what the input costs, as of now."""
        family = self._family
        lookup = family.look(self._dialect, self.snapshot, self._session.clock())
        calibration = family.calibration(self._context.model)
        return forecast(
            lookup,
            self._dialect.rules,
            family.price(self._context.model),
            factor=calibration.factor,
            estimated=family.counter.estimated,
            warnings=self._warnings,
            notes=self._notes,
        )

    @cached_property
    def snapshot(self) -> Snapshot:
        """What this request sends, frozen, as the cache models see it."""
        marks = [MarkAt(candidate.node, candidate.in_head, candidate.mark.long) for candidate in self._plan]
        if self._implicit:
            marks.append(MarkAt(self._tip))
        split = self._at(self._turn.user.node) if self._turn is not None else self._state.tip
        return Snapshot(self._head.node, self._tip, split, self._head.message_seed, tuple(marks))

    def observe(self, response: Any = None, message: Message | None = None, *, usage: Usage | None = None) -> Observation:
        """Take in the response: the user's text, the reply and the freeze are committed here.

        ``response`` is the SDK's object, its dict form, or a ``Usage``; with a ``Usage`` (or ``usage=``) the reply is
        ``message``. If the session moved on since the request was made, the reply goes to a new fork and
        ``Observation.forked`` says so. Raises ``DialectError`` for a response of another shape; nothing is changed then.
        """
        if isinstance(response, tuple) and len(response) == 2:
            response, message = response
        if isinstance(response, Usage):
            usage = response
        elif response is not None:
            usage = self._dialect.read_usage(response) if usage is None else usage
            message = self._dialect.read_message(response) if message is None else message
        if isinstance(message, Mapping):
            message = Message.from_openai(message)
        return self._session._commit(self, usage, message)

    # Where things stand

    @cached_property
    def _blocks(self) -> list[Node]:
        if not self.dynamic:
            return []
        if self._turn is not None:
            return self._turn.blocks(self._family.counter)
        return dynamic_nodes(self._state.tip, self.dynamic, self._family.counter)

    @cached_property
    def _tip(self) -> Node:
        if not self._blocks:
            return self._state.tip
        if self._turn is not None:
            return self._turn.chain(self._state.tip, self._family.counter)
        return self._blocks[-1]

    def _at(self, node: Node) -> Node:
        """The node of the history on the chain that is sent."""
        if self._turn is None or not self._blocks or node.depth <= self._turn.user.node.depth:
            return node
        return ancestor(self._tip, node.depth + len(self._blocks))

    @property
    def _dynamic_is_last(self) -> bool:
        return bool(self._blocks) and self._tip is self._blocks[-1]

    @cached_property
    def _implicit(self) -> bool:
        """Whether the provider's own breakpoint at the end of the prompt is wanted."""
        if not self._dialect.rules.implicit:
            return False
        if self._dynamic_is_last:
            return self._goes_on
        return self._state.anchor is None or self._state.anchor.node is not self._state.tip

    @property
    def _goes_on(self) -> bool:
        """Whether writing the dynamic text pays, because the turn is likely to read it again.

        Writing costs w - 1 more now and saves w - r if a further request follows: it pays if p > (w - 1) / (w - r).
        """
        rules, state = self._dialect.rules, self._state
        if not self._context.tools or self._turn is None:
            return False
        likely = (state.requests - state.turns + 1) / (state.requests + 2)
        return likely * (rules.write_multiplier - rules.read_multiplier) > rules.write_multiplier - 1

    @cached_property
    def _plan(self) -> list[Candidate]:
        rules, state = self._dialect.rules, self._state
        if not rules.has_marks:
            return []
        taken = state.given_marks + ("cache_control" in self._context.params)
        extra = 1 if rules.implicit and not self._implicit else 0
        tail = self._candidate("tail", state.anchor)
        levels = [self._level(index) for index in range(len(self._head.levels))]
        fixed = [tail, self._previous(tail), self._split(), self._dynamic_end(), self._candidate("fork", self._fork_anchor)]
        return plan_marks(rules, fixed, levels, slots=max(0, rules.slots + extra - taken))

    def _candidate(self, kind: str, anchor: Anchor | None) -> Candidate | None:
        if anchor is None:
            return None
        return self._message_candidate(Mark(anchor.place, kind), self._at(anchor.node))

    def _message_candidate(self, mark: Mark, node: Node) -> Candidate:
        head = self._head.node
        return Candidate(mark, node, head.end + node.end, head.position + node.position)

    def _level(self, index: int) -> Candidate:
        level = self._head.levels[index]
        sharing = self._family.sharing.get(level.name, 1)
        mark = Mark(level.place, level.name, level.long)
        return Candidate(mark, level.node, level.node.end, level.node.position, in_head=True, sharing=sharing)

    def _previous(self, tail: Candidate | None) -> Candidate | None:
        previous = self._candidate("previous", self._state.previous_tail)
        if previous is None or tail is None or tail.position - previous.position < self._dialect.rules.lookback:
            return None
        return previous

    def _split(self) -> Candidate | None:
        if self._turn is None or self._dynamic_is_last or not self._blocks:
            return None
        return self._candidate("split", self._turn.user)

    def _dynamic_end(self) -> Candidate | None:
        if not self._dynamic_is_last or self._turn is None or self._dialect.rules.implicit or not self._goes_on:
            return None
        place = self._turn.user.place
        end = Place("messages", place.item, place.end + len(self._blocks) - 1, place.end + len(self._blocks))
        return self._message_candidate(Mark(end, "dynamic"), self._tip)

    # The body's edits

    def _head_with(self, items: FrozenList, section: str, marks: list[Mark]) -> FrozenList:
        wanted = [mark for mark in marks if mark.place.section == section]
        if not wanted:
            return items
        out = FrozenList(items)
        for item in {mark.place.item for mark in wanted}:
            here = [(mark.place.part, mark.long) for mark in wanted if mark.place.item == item]
            whole = not (section == "system" and self._dialect.system_in_messages)
            new = self._dialect.mark_part(out[item], long=here[0][1]) if whole else edited(out[item], self._dialect, marks=here)
            list.__setitem__(out, item, new)
        return out

    def _edit(self, messages: FrozenList, first: int, marks: list[Mark]) -> None:
        parts = [self._dialect.dynamic_part(text) for text in render_dynamic(self.dynamic)]
        for mark in marks:
            if mark.kind == "dynamic":
                parts[-1] = self._dialect.mark_part(parts[-1], long=mark.long)
        marks = [mark for mark in marks if mark.kind != "dynamic"]
        items = {mark.place.item for mark in marks}
        place = self._insertion(messages, first, parts)
        for item in items | ({place.item} if place is not None else set()):
            here = [(mark.place.part, mark.long) for mark in marks if mark.place.item == item]
            inserted = parts if place is not None and place.item == item else ()
            new = edited(
                messages[first + item],
                self._dialect,
                marks=here,
                insert_at=place.end if place is not None and inserted else 0,
                insert=inserted,
            )
            list.__setitem__(messages, first + item, new)

    def _insertion(self, messages: FrozenList, first: int, parts: list[FrozenDict]) -> Place | None:
        """Where the dynamic parts go; as a user message of their own if no user message can take them."""
        if not parts:
            return None
        if self._turn is not None:
            return self._turn.user.place
        last = messages[-1] if len(messages) > first else {}
        content = last.get(self._dialect.content_key)
        if last.get("role") == "user":
            return Place("messages", len(messages) - 1 - first, -1, len(content) if isinstance(content, list) else 1)
        list.append(messages, FrozenDict({"role": "user", self._dialect.content_key: FrozenList(parts)}))
        return None

    def __repr__(self) -> str:
        return f"Request(messages={self._state.tip.depth}, dynamic={[segment.name for segment in self.dynamic]})"


def resolve_placement(state: State, wanted: Placement, tail_allowed: bool) -> Turn | None:
    """The turn whose user message takes the dynamic text, or ``None`` if the text ends the prompt."""
    turn = state.turn
    if turn is None or turn.user.node is state.tip:
        return turn
    return None if wanted == "tail" and tail_allowed else turn
