"""Random workloads: sessions in a tree of tenants and users that share levels of their system text, fork and converse.

A text says how many tokens it has (``#300``), so that a workload is small and its prompts are not.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

from msgspec.structs import replace

from llmbuffer import (
    CacheRules,
    Message,
    Request,
    Segment,
    Session,
    StableContext,
    ToolCall,
    ToolResult,
    Usage,
)
from llmbuffer.context import Level
from llmbuffer.snapshot import MarkAt, Snapshot
from llmbuffer.testing import FakeClock

LEVELS: tuple[Level, ...] = ("global", "tenant", "user", "session")
FOREVER = 1e12  # seconds


class Counter:
    """A text says how many tokens it has."""

    name = "declared"
    estimated = False

    def count(self, text: str) -> int:
        declared = re.search(r"#(\d+)", text)
        return int(declared[1]) if declared is not None else 0


class Sent(NamedTuple):
    """One request: as planned, when, and every place that could be marked, by kind."""

    planned: Snapshot
    at: float
    places: dict[str, MarkAt]


class Workload:
    """One session after the other, each of up to 60 positions between two requests; nothing expires."""

    def __init__(self, seed: int, model: str) -> None:
        self.random = random.Random(seed)
        self.model = model
        self.clock = FakeClock()
        self.numbers = count()
        self.sent: list[Sent] = []
        self._run(list(self._sessions()))

    def _sessions(self) -> Iterator[Session]:
        draw = self.random
        sizes = {level: draw.choice([0, 300, 800, 2_000, 5_000]) for level in LEVELS}
        size = draw.choice([0, 400, 1_500, 4_000])
        tools = [{"name": "tool", "description": f"#{size}"}] if size else []
        tenants, users, sessions = draw.randint(1, 3), draw.randint(1, 2), draw.randint(1, 2)
        sharing = {"session": 1, "user": sessions, "tenant": users * sessions}
        sharing["tools"] = sharing["global"] = tenants * users * sessions
        dialect = "anthropic" if self.model.startswith("claude") else "openai"
        names = [
            ("", f"{tenant}", f"{tenant}.{user}", f"{tenant}.{user}.{number}")
            for tenant in range(tenants)
            for user in range(users)
            for number in range(sessions)
        ]
        for name in names:
            levels = [(level, text, sizes[level]) for level, text in zip(LEVELS, name, strict=True)]
            system = [Segment(level, f"{text}#{size}", level) for level, text, size in levels if size]
            context = StableContext(self.model, system, tools)
            yield Session(context, dialect, tokens=Counter(), clock=self.clock, sharing=sharing)

    def _run(self, sessions: list[Session]) -> None:
        self.rules: CacheRules = replace(sessions[0].dialect.rules, ttl=FOREVER)
        for session in sessions:
            positions, turns = self.random.choice([1, 5, 18, 25, 60]), self.random.randint(2, 4)
            self._turns(session, turns, positions)
            for _ in range(self.random.choice([0, 0, 2, 4])):
                self._turns(session.fork(), self.random.randint(1, 3), positions)

    def _turns(self, session: Session, turns: int, positions: int) -> None:
        for _ in range(turns):
            self._talk(session, positions)
            self._ask(session, self._text(50, 600)).observe(
                Usage(1), Message("assistant", self._text(50, 300))
            )

    def _talk(self, session: Session, positions: int) -> None:
        most = self.random.randint(1, positions)
        for _ in range(most // 2):
            session.append([Message("user", self._text(20, 200)), Message("assistant", self._text(20, 200))])

    def _ask(self, session: Session, user: str | None, dynamic: dict[str, str] | None = None) -> Request:
        request = session.request(user, dynamic)
        self.sent.append(Sent(request.snapshot, request.at, places(request)))
        self.clock.advance(1)
        return request

    def _text(self, least: int, most: int) -> str:
        return f"{next(self.numbers)}#{self.random.randint(least, most)}"


class Mixed(Workload):
    """Sessions and forks by turns, with tools, dynamic text in half of the turns, and pauses in which entries expire."""

    def _run(self, sessions: list[Session]) -> None:
        self.rules = sessions[0].dialect.rules
        for _ in self._by_turns([self._session(session) for session in sessions]):
            self.clock.advance(self.random.choice([1, 1, 5, 5, 30, 30, 60, 700]))

    def _by_turns(self, running: list[Iterator[None]]) -> Iterator[None]:
        while running:
            one = self.random.choice(running)
            try:
                yield next(one)
            except StopIteration:
                running.remove(one)

    def _session(self, session: Session) -> Iterator[None]:
        positions = self.random.choice([1, 5, 18, 25, 60])
        yield from self._conversation(session, self.random.randint(2, 4), positions)
        forks = [session.fork() for _ in range(self.random.choice([0, 0, 2, 4]))]
        yield from self._by_turns(
            [self._conversation(fork, self.random.randint(1, 3), positions) for fork in forks]
        )

    def _conversation(self, session: Session, turns: int, positions: int) -> Iterator[None]:
        for _ in range(turns):
            dynamic = {"found": self._text(100, 1_500)} if self.random.random() < 0.5 else {}
            request = self._ask(session, self._text(50, 600), dynamic)
            rounds = self.random.choice([0, 0, 1, 2, 3]) if session.context.tools else 0
            for _ in range(rounds):
                request.observe(Usage(1), self._call())
                session.append(Message("tool", [ToolResult("call", self._text(50, 2_000))]))
                yield
                request = self._ask(session, None)
            request.observe(Usage(1), Message("assistant", self._text(50, 300)))
            if not rounds:
                self._talk(session, positions)
            yield

    def _call(self) -> Message:
        return Message("assistant", [ToolCall("call", "tool", f'{{"q": "{self._text(20, 60)}"}}')])


def places(request: Request) -> dict[str, MarkAt]:
    """Every place of a request that may carry a mark, by kind."""
    prompt = request._prompt
    state, turn = prompt.placed.state, prompt.placed.turn
    anchors = {"tail": state.anchor, "previous": state.previous_tail, "fork": prompt._fork_anchor}
    found = {kind: MarkAt(anchor.node) for kind, anchor in anchors.items() if anchor is not None}
    if turn is not None and prompt.insert is not None:
        found["split"] = MarkAt(turn.user.node)
        found["dynamic"] = MarkAt(turn.user.node, dynamic=True)
    if request.dialect.rules.implicit:
        found["end"] = request.snapshot.end
    markable = {level.name: level for level in prompt.head.levels if level.place.part >= 0}
    return found | {name: MarkAt(level.node, in_head=True) for name, level in markable.items()}
