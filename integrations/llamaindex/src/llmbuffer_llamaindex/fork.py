"""Forks of a workflow: N of them off one shared prefix, which is written to the provider's cache once."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from llama_index.core.llms import LLM

from llmbuffer.errors import MessageError
from llmbuffer.fanout import Gate

from .memory import BufferedMemory
from .model import BufferedLLM

if TYPE_CHECKING:
    from llmbuffer.session import Session

__all__ = ["fork_workflow"]

Flow = TypeVar("Flow")
_numbers = itertools.count(1)


def fork_workflow(
    workflow: Flow,
    forks: int | Sequence[str],
    *,
    session: Session | None = None,
    warm: bool | Literal["auto"] = "auto",
) -> list[Flow]:
    """Copies of an agent, an ``AgentWorkflow`` or a ``Workflow`` of your own, each a conversation of its own off one shared prefix.

    ``forks`` says how many, or names them. The buffered LLMs in a copy (and in its agents, lists and mappings) are bound to it, agents
    as members by their names, and a ``BufferedMemory`` in it is forked. Everything else is shared. ``session`` is what all forks
    begin with, its system text and its history; without one they go on where the LLM's own session is.

    Run side by side in one event loop, the first request goes first, and the others wait until it begins to be answered, if nothing was sent
    through this LLM before (``warm="auto"``), always (``True``) or never (``False``): one writes, the others read.

    Returns the copies in order. Raises ``MessageError`` for a workflow that holds no ``BufferedLLM``, and for names that are not unique.
    """
    names = [f"fork {next(_numbers)}" for _ in range(forks)] if isinstance(forks, int) else list(forks)
    if len(set(names)) < len(names):
        raise MessageError(f"the names of forks are {names}: give each its own")
    shared = _Shared(session, warm)
    copies = [_Copier(shared, name).of(workflow) for name in names]
    if names and not shared.found:
        raise MessageError(
            f"this {type(workflow).__name__} holds no BufferedLLM: wrap the LLM of its agents in BufferedLLM(…)"
        )
    return copies


class _Shared:
    """What all forks share: one channel and one gate for each LLM that they were made from."""

    def __init__(self, session: Session | None, warm: bool | Literal["auto"]) -> None:
        self._session, self._warm = session, warm
        self._origins: dict[int, tuple[Any, Gate | None]] = {}

    @property
    def found(self) -> bool:
        return bool(self._origins)

    def bound(self, llm: Any, name: str, member: str | None) -> Any:
        """The LLM for one fork."""
        key = id(llm.seam)
        if key not in self._origins:
            origin = llm if self._session is None else llm.forked(self._session)
            sent = origin.seam.account().requests or len(origin.seam.session.ledger)
            cold = not sent if self._warm == "auto" else self._warm
            self._origins[key] = (origin, Gate() if cold else None)
        origin, gate = self._origins[key]
        return origin.bound(conversation=name, member=member, gate=gate)


class _Copier:
    """Copies one workflow for one fork."""

    def __init__(self, shared: _Shared, name: str) -> None:
        self._shared, self._name = shared, name
        self._done: dict[int, Any] = {}

    def of(self, workflow: Any, member: str | None = None) -> Any:
        """A copy whose LLMs, memories and agents are those of the fork."""
        found = self._done.get(id(workflow))
        if found is not None:
            return found
        made = copy.copy(workflow)
        self._done[id(workflow)] = made
        for field, value in list(vars(workflow).items()):
            changed = self._changed(value, member)
            if changed is not value:
                object.__setattr__(made, field, changed)
        return made

    def _changed(self, value: Any, member: str | None) -> Any:
        if isinstance(value, BufferedLLM):
            return self._shared.bound(value, self._name, member)
        if isinstance(value, BufferedMemory):
            return value.fork(f"{value.chat_store_key}/{self._name}")
        if isinstance(value, dict):
            changed = {key: self._changed(each, member) for key, each in value.items()}
            return changed if any(changed[key] is not each for key, each in value.items()) else value
        if isinstance(value, list | tuple):
            items = [self._changed(each, member) for each in value]
            same = all(one is other for one, other in zip(items, value, strict=True))
            return value if same else type(value)(items)
        if _is_flow(value) and not isinstance(value, LLM):
            return self.of(value, getattr(value, "name", None) or member)
        return value


def _is_flow(value: Any) -> bool:
    """Whether something is a workflow or an agent, which may hold LLMs itself."""
    from llama_index.core.workflow import Workflow

    return isinstance(value, Workflow)
