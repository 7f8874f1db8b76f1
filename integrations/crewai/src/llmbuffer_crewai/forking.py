"""Many crews off one shared session: the first request warms the provider's cache, the others read it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from contextvars import copy_context
from threading import Condition
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from llmbuffer.errors import MessageError
from llmbuffer.seam import Account

if TYPE_CHECKING:
    from .llm import BufferedLLM

__all__ = ["CrewResult", "CrewResults", "fork"]


class CrewResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one crew came to: CrewAI's ``output``, or the ``error`` that ended it; the other one is ``None``.

    ``inputs`` are those it was started with, ``crew`` is the copy that ran, ``account`` what it used.

    >>> CrewResult(inputs={"topic": "rye"}, error=ValueError("no flour")).ok
    False
    """

    inputs: Mapping[str, Any]
    output: Any = None
    error: BaseException | None = None
    crew: Any = None
    account: Account = Account()

    @property
    def ok(self) -> bool:
        """Whether the crew came to its end."""
        return self.error is None

    @property
    def text(self) -> str:
        """The final answer; empty where there is none."""
        return "" if self.output is None else str(self.output.raw)

    def __repr__(self) -> str:
        end = "ok" if self.ok else f"error={type(self.error).__name__}"
        return f"CrewResult({end}, requests={self.account.requests})"


class CrewResults(tuple[CrewResult, ...]):
    """The results in the order of their inputs.

    >>> CrewResults([CrewResult(inputs={})]).ok
    True
    """

    __slots__ = ()

    @property
    def ok(self) -> bool:
        """Whether all came to their end."""
        return all(each.ok for each in self)

    @property
    def account(self) -> Account:
        """What all used."""
        return sum((each.account for each in self), Account())


def fork(
    llm: BufferedLLM,
    crew: Any,
    inputs: Sequence[Mapping[str, Any]],
    *,
    limit: int,
    warm: bool,
    patience: float,
) -> CrewResults:
    """See ``AgentFactory.fork_crew``."""
    if limit < 1:
        raise MessageError(f"limit is {limit!r}: at least one crew has to run")
    gate = Gate(patience) if warm and llm.seam.mode != "observe" and len(inputs) > 1 else None
    copies = [_copied(llm, crew, gate) for _ in inputs]
    with ThreadPoolExecutor(max_workers=min(limit, max(1, len(copies)))) as pool:
        running = [
            pool.submit(copy_context().run, _kicked_off, copy, given)
            for copy, given in zip(copies, inputs, strict=True)
        ]
        ended = [each.result() for each in running]
    return CrewResults(
        msgspec.structs.replace(result, account=_account(llm, result.crew)) for result in ended
    )


def _copied(llm: BufferedLLM, crew: Any, gate: Gate | None) -> Any:
    """A copy of the crew whose agents wait at the gate."""
    made = crew.copy()
    managers = [made.manager_agent] if made.manager_agent is not None else []
    for agent in [*made.agents, *managers]:
        if getattr(agent.llm, "seam", None) is llm.seam:
            agent.llm = agent.llm.variant(gate=gate)
    if getattr(made.manager_llm, "seam", None) is llm.seam:
        made.manager_llm = made.manager_llm.variant(gate=gate)
    return made


def _kicked_off(crew: Any, inputs: Mapping[str, Any]) -> CrewResult:
    try:
        return CrewResult(inputs=inputs, output=crew.kickoff(inputs=dict(inputs)), crew=crew)
    except Exception as error:  # noqa: BLE001 - told in the result, so that no other crew loses its own
        return CrewResult(inputs=inputs, error=error, crew=crew)


def _account(llm: BufferedLLM, crew: Any) -> Account:
    begin = f"{crew.id}/"
    accounts = llm.seam.accounts.items()
    return sum((account for (where, _), account in accounts if (where or "").startswith(begin)), Account())


class Gate:
    """Holds all calls but one until one has been answered. For threads, and for tasks in any event loop.

    ``patience``: nobody is held longer, in seconds.
    """

    def __init__(self, patience: float = 60.0) -> None:
        self._patience = patience
        self._changed = Condition()
        self._open, self._leading = False, False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait, or lead: the block is one call."""
        leads = not self._open and self._enter()
        ended = False
        try:
            yield
            ended = True
        finally:
            if leads:
                self._leave(ended)

    @asynccontextmanager
    async def aheld(self) -> AsyncIterator[None]:
        """The same in an event loop; what waits is a thread."""
        leads = not self._open and await asyncio.to_thread(self._enter)
        ended = False
        try:
            yield
            ended = True
        finally:
            if leads:
                self._leave(ended)

    def _enter(self) -> bool:
        """Whether this call leads."""
        until = monotonic() + self._patience
        with self._changed:
            while not self._open:
                if not self._leading:
                    self._leading = True
                    return True
                if not self._changed.wait(max(0.0, until - monotonic())):
                    return False
        return False

    def _leave(self, answered: bool) -> None:
        with self._changed:
            self._leading, self._open = False, self._open or answered
            self._changed.notify_all()
