"""One prompt as it will be sent: its chain with the dynamic text in place, and its breakpoints."""

from __future__ import annotations

from functools import cached_property

from .chain import Node, ancestor
from .context import StableContext
from .family import Family
from .layout import Candidate, Head, plan_marks
from .placing import Placed
from .rules import Dialect, Mark, Place
from .snapshot import MarkAt, Snapshot
from .state import Anchor, dynamic_nodes

__all__ = ["Prompt"]


class Prompt:
    """The geometry of one request; pure, and computed when first asked for."""

    def __init__(
        self,
        placed: Placed,
        *,
        context: StableContext,
        dialect: Dialect,
        head: Head,
        family: Family,
        fork_anchor: Anchor | None,
    ) -> None:
        self.placed, self.head, self.dialect = placed, head, dialect
        self._context, self._family, self._fork_anchor = context, family, fork_anchor

    @cached_property
    def snapshot(self) -> Snapshot:
        """What is sent, frozen, as the cache models see it."""
        marks = [MarkAt(candidate.node, candidate.in_head, candidate.mark.long) for candidate in self.plan]
        if self.implicit:
            marks.append(MarkAt(self.tip))
        turn = self.placed.turn
        split = self._at(turn.user.node) if turn is not None else self.placed.state.tip
        return Snapshot(self.head.node, self.tip, split, self.head.message_seed, tuple(marks))

    @cached_property
    def blocks(self) -> list[Node]:
        """The nodes of the dynamic text."""
        turn, counter = self.placed.turn, self._family.counter
        if not self.placed.segments:
            return []
        if turn is not None:
            return turn.blocks(counter)
        return dynamic_nodes(self.placed.state.tip, self.placed.segments, counter)

    @cached_property
    def tip(self) -> Node:
        """The last node of what is sent."""
        if not self.blocks:
            return self.placed.state.tip
        turn = self.placed.turn
        return self.blocks[-1] if turn is None else turn.chain(self.placed.state.tip, self._family.counter)

    def _at(self, node: Node) -> Node:
        """The node of the history on the chain that is sent."""
        turn = self.placed.turn
        if turn is None or not self.blocks or node.depth <= turn.user.node.depth:
            return node
        return ancestor(self.tip, node.depth + len(self.blocks))

    @property
    def _dynamic_is_last(self) -> bool:
        return bool(self.blocks) and self.tip is self.blocks[-1]

    @cached_property
    def implicit(self) -> bool:
        """Whether the provider's own breakpoint at the end of the prompt is wanted."""
        if not self.dialect.rules.implicit:
            return False
        if self._dynamic_is_last:
            return self._goes_on
        anchor = self.placed.state.anchor
        return anchor is None or anchor.node is not self.placed.state.tip

    @property
    def _goes_on(self) -> bool:
        """Whether writing the dynamic text pays, because the turn is likely to read it again.

        Writing costs w - 1 more now and saves w - r if a further request follows: it pays if p > (w - 1) / (w - r).
        """
        rules, state = self.dialect.rules, self.placed.state
        if not self._context.tools or self.placed.turn is None:
            return False
        likely = (state.requests - state.turns + 1) / (state.requests + 2)
        return likely * (rules.write_multiplier - rules.read_multiplier) > rules.write_multiplier - 1

    @cached_property
    def plan(self) -> list[Candidate]:
        """The explicit breakpoints, in prompt order."""
        rules, state = self.dialect.rules, self.placed.state
        if not rules.has_marks:
            return []
        taken = state.given_marks + ("cache_control" in self._context.params)
        instead = 1 if rules.implicit and not self.implicit else 0  # the slot of the implicit one
        tail = self._candidate("tail", state.anchor)
        levels = [self._level(index) for index in range(len(self.head.levels))]
        fork = self._candidate("fork", self._fork_anchor)
        fixed = [tail, self._previous(tail), self._split(), self._dynamic_end(), fork]
        return plan_marks(rules, fixed, levels, slots=max(0, rules.slots + instead - taken))

    def _candidate(self, kind: str, anchor: Anchor | None) -> Candidate | None:
        if anchor is None:
            return None
        return self._in_messages(Mark(anchor.place, kind), self._at(anchor.node))

    def _in_messages(self, mark: Mark, node: Node) -> Candidate:
        start = self.head.node
        return Candidate(mark, node, start.end + node.end, start.position + node.position)

    def _level(self, index: int) -> Candidate:
        level = self.head.levels[index]
        sharing = self._family.sharing.get(level.name, 1)
        mark = Mark(level.place, level.name, level.long)
        return Candidate(mark, level.node, level.node.end, level.node.position, in_head=True, sharing=sharing)

    def _previous(self, tail: Candidate | None) -> Candidate | None:
        """The anchor of the last request, where the look-back from the new tail does not reach it."""
        previous = self._candidate("previous", self.placed.state.previous_tail)
        if (
            previous is None
            or tail is None
            or tail.position - previous.position < self.dialect.rules.lookback
        ):
            return None
        return previous

    def _split(self) -> Candidate | None:
        """The user message before dynamic text that will go when the turn ends."""
        turn = self.placed.turn
        if turn is None or self._dynamic_is_last or not self.blocks:
            return None
        return self._candidate("split", turn.user)

    def _dynamic_end(self) -> Candidate | None:
        turn = self.placed.turn
        if turn is None or not self._dynamic_is_last or self.dialect.rules.implicit or not self._goes_on:
            return None
        place = turn.user.place
        end = Place("messages", place.item, place.end + len(self.blocks) - 1, place.end + len(self.blocks))
        return self._in_messages(Mark(end, "dynamic"), self.tip)
