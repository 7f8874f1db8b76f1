"""What a fan-out may be told beside its tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

import anyio
import msgspec

from ..calls import check_executor
from ..errors import LimitError, LoopError
from ..limits import Budget, Retry
from ..loop import MAX_ROUNDS, Executor
from ..session import Session
from .events import OnEvent
from .gate import Sleep
from .keys import KEY_POLICIES, KeyPolicy
from .tasks import Task

__all__ = ["Further", "OnError", "Options", "Warm"]

Warm = Literal["auto", "always", "never"]
OnError = Literal["collect", "raise"]


class Further(TypedDict, total=False):
    """The options of ``fan_out`` that are seldom given; see ``Options`` for what they do."""

    params: Mapping[str, Any] | None
    neutral: bool | str
    budget: Budget | None
    retry: Retry
    timeout: float | None
    tool_timeout: float | None
    max_rounds: int
    stream: bool | None
    patience: float
    affinity: str | None
    on_event: OnEvent | None
    sleep: Sleep


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a fan-out runs.

    ``limit`` is how many workers run at a time. ``warm``: ``auto`` lets one request go first where the shared prefix is cold,
    above the minimum and worth it; ``always`` lets one go first whatever is forecast, ``never`` holds nobody. ``key_policy``:
    see ``keys.KeyRing``. ``tools`` run the calls of all workers. ``on_error``: ``collect`` gives errors as results, ``raise``
    stops everything at the first one and raises it.

    ``params`` are added to every request. ``neutral`` sets the workers free from the parent's role (see ``Session.fork``).
    ``budget`` bounds tokens and money, checked before each request by its forecast; ``retry`` says which requests are
    sent again (default: none, beside what the SDK does itself). ``timeout`` is how many seconds a worker may take, those in
    which it is held aside, ``tool_timeout`` each of its tool calls; ``max_rounds`` how many requests. ``stream``: whether replies are streamed, with
    their text as events (default: only the one that goes first, where the client can). ``patience`` is how many seconds
    anybody is held at most. ``affinity`` is a header that carries the routing key, for a router in front of several
    engines. ``on_event`` is told what happens, in the event loop; ``sleep`` waits, between retries and between looks at
    what other processes do.
    """

    limit: int = 8
    warm: Warm = "auto"
    key_policy: KeyPolicy = "auto"
    tools: Executor | None = None
    on_error: OnError = "collect"
    params: Mapping[str, Any] | None = None
    neutral: bool | str = False
    budget: Budget | None = None
    retry: Retry = Retry(0)
    timeout: float | None = None
    tool_timeout: float | None = None
    max_rounds: int = MAX_ROUNDS
    stream: bool | None = None
    patience: float = 60.0
    affinity: str | None = None
    on_event: OnEvent | None = None
    sleep: Sleep = anyio.sleep

    def __post_init__(self) -> None:
        if isinstance(self.limit, bool) or not isinstance(self.limit, int) or self.limit < 1:
            raise LimitError(f"limit is {self.limit!r}: give how many workers run at a time, 1 or more")
        for name, value, known in (
            ("warm", self.warm, ("auto", "always", "never")),
            ("key_policy", self.key_policy, KEY_POLICIES),
            ("on_error", self.on_error, ("collect", "raise")),
        ):
            if value not in known:
                raise LimitError(f"{name} is {value!r}: use one of {', '.join(known)}")
        for name, seconds in (("timeout", self.timeout), ("patience", self.patience)):
            if seconds is not None and not seconds > 0:
                raise LimitError(f"{name} is {seconds!r}: give seconds, more than 0")

    def check(self, session: Session, tasks: tuple[Task, ...], client: Any, *, asynchronous: bool) -> None:
        """Refuse what cannot work before anything is sent. Raises ``LoopError``."""
        if client is None:
            raise LoopError("no client: give an SDK client to Session(client=…), or to this call as client=…")
        right, wrong = ("__aenter__", "__enter__") if asynchronous else ("__enter__", "__aenter__")
        if hasattr(client, wrong) and not hasattr(client, right):
            fitting = "fan_out" if asynchronous else "afan_out or fan_out_events"
            raise LoopError(
                f"a {type(client).__name__} works with {fitting} only: call that, or give the other client"
            )
        for tools in (self.tools, *(task.tools for task in tasks)):
            check_executor(tools, asynchronous=asynchronous)
        if session._state.open_calls:
            raise LoopError(
                f"the calls {list(session._state.open_calls)} of the session await results, and forks would each have to "
                "answer them: append a tool message for each first"
            )
