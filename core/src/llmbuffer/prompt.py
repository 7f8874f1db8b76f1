"""One prompt as it will be sent: its chain with the dynamic text in place, and its breakpoints."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import msgspec

from .family import Family
from .layout import Candidate, Head, Level, plan_marks
from .placing import Placed
from .rules import Dialect, Mark, Place
from .snapshot import Insert, MarkAt, Snapshot
from .state import Anchor, dynamic_chain
from .tokens import TokenCounter

__all__ = ["Prompt"]


class Prompt:
    """The geometry of one request; pure, and computed when first asked for."""

    def __init__(
        self,
        placed: Placed,
        *,
        params: Mapping[str, Any],
        dialect: Dialect,
        head: Head,
        family: Family,
        fork_anchor: Anchor | None,
        counter: TokenCounter | None = None,
    ) -> None:
        self.placed, self.head, self.dialect = placed, head, dialect
        self.params, self._family, self._fork_anchor = params, family, fork_anchor
        self._counter = counter if counter is not None else family.counter

    @cached_property
    def snapshot(self) -> Snapshot:
        """What is sent, frozen, as the cache models see it."""
        marks = [msgspec.structs.replace(each.at, long=each.mark.long) for each in self.plan]
        bare = Snapshot(self.head.node, self.placed.state.tip, self.head.message_seed, insert=self.insert)
        if self.implicit:
            marks.append(bare.end)
        return msgspec.structs.replace(bare, marks=tuple(marks))

    @cached_property
    def insert(self) -> Insert | None:
        """The dynamic text."""
        turn, counter = self.placed.turn, self._counter
        if not self.placed.segments:
            return None
        if turn is not None:
            return Insert(turn.user.node, turn.dynamic_tip(counter))
        tip = self.placed.state.tip
        return Insert(tip, dynamic_chain(tip, self.placed.segments, counter))

    @property
    def _dynamic_is_last(self) -> bool:
        return self.insert is not None and self.insert.after is self.placed.state.tip

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
        if not self.head.tools or self.placed.turn is None:
            return False
        likely = (state.requests - state.turns + 1) / (state.requests + 2)
        return likely * (rules.write_multiplier - rules.read_multiplier) > rules.write_multiplier - 1

    @cached_property
    def plan(self) -> list[Candidate]:
        """The explicit breakpoints, in prompt order."""
        rules, state = self.dialect.rules, self.placed.state
        if not rules.has_marks:
            return []
        taken = state.given_marks + self.head.given_marks + ("cache_control" in self.params)
        instead = 1 if rules.implicit and not self.implicit else 0  # the slot of the implicit one
        tail = self._candidate("tail", state.anchor)
        levels = [self._level(level) for level in self.head.levels]
        fork = self._candidate("fork", self._fork_anchor)
        fixed = [tail, self._previous(tail), self._split(), self._dynamic_end(), fork]
        return plan_marks(rules, fixed, levels, slots=max(0, rules.slots + instead - taken))

    def _candidate(self, kind: str, anchor: Anchor | None) -> Candidate | None:
        return None if anchor is None else self._at(Mark(anchor.place, kind), MarkAt(anchor.node))

    def _at(self, mark: Mark, at: MarkAt, sharing: int = 1) -> Candidate:
        bare = Snapshot(self.head.node, self.placed.state.tip, insert=self.insert)
        return Candidate(mark, at, bare.tokens_at(at), bare.position_at(at), sharing)

    def _level(self, level: Level) -> Candidate:
        mark = Mark(level.place, level.name, level.long)
        return self._at(mark, MarkAt(level.node, in_head=True), self._family.sharing.get(level.name, 1))

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
        if turn is None or self._dynamic_is_last or self.insert is None:
            return None
        return self._candidate("split", turn.user)

    def _dynamic_end(self) -> Candidate | None:
        turn = self.placed.turn
        if turn is None or not self._dynamic_is_last or self.dialect.rules.implicit or not self._goes_on:
            return None
        place, parts = turn.user.place, len(self.placed.segments)
        end = Place("messages", place.item, place.end + parts - 1, place.end + parts)
        return self._at(Mark(end, "dynamic"), MarkAt(turn.user.node, dynamic=True))
