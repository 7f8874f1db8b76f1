"""The arms: one session, sent in four ways.

``default``
    A program as people write it: a list of dicts, and a system prompt that is rendered anew at every call, with the clock,
    the retrieved documents and the customer's preferences in it. They stand at its end: of all places in a system prompt
    the one that costs least, since tools, persona and policy before them stay the same.
``per-turn``
    The same, but the clock stands still while a turn lasts, so that the system prompt changes once a turn.
``buffered``
    llmbuffer: the stable texts are segments of a ``Session``, the changing ones are its dynamic content, given when a turn
    begins, at the session's default placement (``turn``: behind the user's words, gone when the turn has ended).
``oracle``
    ``default`` without the changing texts: what remains to be computed when nothing moves. Its model is told less.

Workers are three further agents that go on from what a coordinator has found out. In ``default`` and ``per-turn`` each is a
fresh session that is told everything anew; in ``buffered`` it is a fork of the coordinator's session.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..context import Segment, StableContext
from ..layout import Placement
from ..session import Session
from ..tokens import EstimateCounter
from .client import ScriptedClient
from .clock import DemoClock

if TYPE_CHECKING:
    from .script import Script, Step, Turn, Worker

__all__ = ["ARMS", "PARAMS", "Arm", "ArmName", "Buffered", "Plain", "new_arm", "told"]

ArmName = Literal["default", "per-turn", "buffered", "oracle"]
ARMS: tuple[ArmName, ...] = ("default", "per-turn", "buffered", "oracle")
PARAMS = {"max_tokens": 1, "temperature": 0}
_HEADINGS = {
    "preferences": "Customer preferences",
    "retrieved": "Retrieved documents",
    "clock": "Current time",
}


def told(turn: Turn, clock: DemoClock) -> dict[str, str]:
    """The changing texts by name, as of now."""
    return {"preferences": turn.preferences, "retrieved": turn.retrieved, "clock": clock.shown}


class Arm(Protocol):
    """A way to run turns of a session, and workers that go on from it."""

    def run(self, turn: Turn) -> None:
        """Take the user's words through model and tools to the final answer."""

    def work(self, worker: Worker, after: Turn) -> None:
        """Let a worker do its task, told what ``after``, the last turn, was told."""


def new_arm(name: ArmName, script: Script, client: ScriptedClient, clock: DemoClock) -> Arm:
    """The arm of this name, at the begin of its session."""
    if name == "buffered":
        return Buffered(script, client, clock)
    tells: dict[ArmName, Tells] = {"default": "call", "per-turn": "turn", "oracle": "never"}
    return Plain(script, client, clock, tells[name])


Tells = Literal["call", "turn", "never"]


class Plain:
    """A program without llmbuffer; ``tells`` says when it renders its system prompt anew."""

    def __init__(self, script: Script, client: ScriptedClient, clock: DemoClock, tells: Tells) -> None:
        self._script, self._client, self._clock, self._tells = script, client, clock, tells
        self._tools = list(script.tools)
        self.messages: list[dict[str, Any]] = [
            {"role": "system", "content": f"{script.persona}\n\n{script.policy}"}
        ]

    def run(self, turn: Turn) -> None:
        """See ``Arm``."""
        self._converse(turn.user, turn, turn.steps)

    def work(self, worker: Worker, after: Turn) -> None:
        """A fresh session: its own system prompt, all that was said so far, and the task."""
        fresh = Plain(self._script, self._client, self._clock, self._tells)
        fresh.messages += self.messages[1:]
        fresh._converse(worker.task, after, worker.steps)

    def _converse(self, user: str, turn: Turn, steps: Sequence[Step]) -> None:
        results = _begin(self._client, steps)
        if self._tells == "turn":
            self.messages[0] = self._system(turn)
        self.messages.append({"role": "user", "content": user})
        while True:
            if self._tells == "call":
                self.messages[0] = self._system(turn)
            response = self._client.chat.completions.create(
                model="local", messages=self.messages, tools=self._tools, **PARAMS
            )
            self._clock.tick()
            message = response["choices"][0]["message"]
            self.messages.append(message)
            calls = message.get("tool_calls") or []
            for call in calls:
                result = {"role": "tool", "tool_call_id": call["id"], "content": results.popleft()}
                self.messages.append(result)
            if not calls:
                return

    def _system(self, turn: Turn) -> dict[str, Any]:
        parts = [self._script.persona, self._script.policy]
        changing = told(turn, self._clock)
        parts += [f"## {_HEADINGS[name]}\n{text}" for name, text in changing.items()]
        return {"role": "system", "content": "\n\n".join(parts)}


class Buffered:
    """The same program with llmbuffer; ``placement`` of the changing texts is the session's default."""

    def __init__(
        self, script: Script, client: ScriptedClient, clock: DemoClock, *, placement: Placement = "turn"
    ) -> None:
        self._client, self._clock = client, clock
        segments = [
            Segment("persona", script.persona, level="global"),
            Segment("policy", script.policy, level="tenant"),
        ]
        self.session = Session(
            StableContext("local", segments, tools=script.tools, params=PARAMS),
            dialect="llamacpp",
            client=client,
            tokens=EstimateCounter(),
            clock=clock,
            placement=placement,
            session_id="demo",
        )

    def run(self, turn: Turn) -> None:
        """See ``Arm``."""
        self._converse(self.session, turn.user, turn, turn.steps)

    def work(self, worker: Worker, after: Turn) -> None:
        """A fork: it shares every byte that the coordinator has sent."""
        self._converse(self.session.fork(worker.name), worker.task, after, worker.steps)

    def _converse(self, session: Session, user: str, turn: Turn, steps: Sequence[Step]) -> None:
        results = _begin(self._client, steps)

        def answer(_name: str, _arguments: Mapping[str, Any]) -> str:
            return results.popleft()

        session.respond(
            user,
            dynamic=told(turn, self._clock),
            tools=answer,
            on_observe=lambda _: self._clock.tick(),
        )


def _begin(client: ScriptedClient, steps: Sequence[Step]) -> deque[str]:
    """Lay out what the model will say, and return what the tools will."""
    client.expect(step.reply for step in steps)
    return deque(result for step in steps for result in step.results)
