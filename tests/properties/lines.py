"""What the sessions of a test should hold."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TypeAlias

from tests.properties import naive, wires
from tests.properties.wires import Wire

from llmbuffer import Message, Request, Session, StableContext

Dynamic: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(eq=False)
class Line:
    """What a session should hold: its history as messages and wires, and the turn that is open."""

    session: Session
    history: list[tuple[Message, Wire]] = field(default_factory=list)
    committed: list[str] = field(default_factory=list)
    open_calls: list[str] = field(default_factory=list)
    turn_user: int | None = None
    turn_dynamic: Dynamic | None = None
    turns: int = 0
    version: int = 0

    def add(self, message: Message, wire: Wire) -> None:
        self.history.append((message, wire))
        self.version += 1
        results = [result.call_id for result in message.tool_results]
        self.open_calls = [call for call in self.open_calls if call not in results]
        if message.role == "user" and not results:
            self.turn_user, self.turn_dynamic = len(self.history) - 1, None
        if message.role == "assistant":
            self.open_calls = wires.calls_of(wire)
            if not self.open_calls:
                self.turns += self.turn_user is not None
                self.turn_user = self.turn_dynamic = None

    def __repr__(self) -> str:
        return f"Line({self.session.id[:4]}, version={self.version})"

    def forked(self, session: Session) -> Line:
        return copy.copy(self)._of(session)

    def _of(self, session: Session) -> Line:
        self.session, self.history, self.open_calls = session, list(self.history), list(self.open_calls)
        return self


@dataclass(eq=False)
class Asked:
    """An open request, and the line as it will be once the request is observed."""

    line: Line
    after: Line
    request: Request
    sent: naive.Sent
    blocks: list[str]
    dynamic: Dynamic
    version: int
    context: StableContext
