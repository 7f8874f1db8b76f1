"""The middleware for LangChain's agents."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import BaseChatModel

from llmbuffer.errors import MessageError
from llmbuffer.seam import Counted

from .bindings import reached
from .model import wired
from .where import AGENT, Named, at, thread_of
from .wiring import Wiring

if TYPE_CHECKING:
    from llmbuffer import Session
    from llmbuffer.observing import Observation
    from llmbuffer.reconcile import Policy
    from llmbuffer.rules import Dialect
    from llmbuffer.seam import Mode, Seam

__all__ = ["BufferedMiddleware"]

_log = logging.getLogger("llmbuffer_langchain")
_MODELS = 32  # of one agent, as middlewares choose among them


class _Known(NamedTuple):
    """A model and the buffered one, by the ``owner`` that gave it: itself, or what makes a model for each call."""

    owner: Any
    wiring: Wiring
    model: BaseChatModel
    buffered: BaseChatModel


class BufferedMiddleware(Counted, AgentMiddleware):
    """Keeps the prompts of an agent cacheable: ``create_agent(model, tools, middleware=[…, BufferedMiddleware()])``.

    Put it last, so that it is the innermost: it wraps the model that the others chose, and sees their final prompt.
    Nothing is written into the agent's state.

    ``mode``, ``policy``, ``limit`` and ``on_observe`` are those of ``llmbuffer.seam.Seam``. ``session`` is what all
    conversations are forked from (one model then), ``dialect`` what the provider speaks (default: by the model's class).
    ``conversation`` and ``member`` are names, or callables that get what is known of the run; the default is the thread
    id, and the agent's name. ``members`` are those of a team with their system prompts (``mode="team"``; the agents share
    one middleware then): who is told of beforehand shares the prefix from the first request on.

    The model may have arguments bound, or be chosen by a config (``init_chat_model(configurable_fields=…)``). One that is
    buffered already is left as it is; in anything else no model is found, which is logged once as a warning. Raises
    ``MessageError`` for an unknown mode.

        agent = create_agent(model, tools, middleware=[BufferedMiddleware()], checkpointer=InMemorySaver())
    """

    def __init__(
        self,
        *,
        mode: Mode = "buffer",
        policy: Policy | None = None,
        session: Session | None = None,
        dialect: str | Dialect | None = None,
        conversation: Named = None,
        member: Named = None,
        members: Mapping[str, str] | None = None,
        limit: int = 1024,
        on_observe: Callable[[Observation], object] | None = None,
    ) -> None:
        super().__init__()
        if mode not in ("observe", "buffer", "team"):
            raise MessageError(f"mode is {mode!r}: use 'observe', 'buffer' or 'team'")
        self.tools: Sequence[Any] = []
        self._options: dict[str, Any] = {
            "mode": mode,
            "policy": policy,
            "session": session,
            "dialect": dialect,
            "conversation": conversation,
            "member": member,
            "members": members,
            "limit": limit,
            "on_observe": on_observe,
        }
        self._models: OrderedDict[tuple[int, type], _Known] = OrderedDict()
        self._unreached: set[str] = set()
        self._lock = RLock()

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Call the model with a plan; see ``AgentMiddleware.wrap_model_call``."""
        with at(_told(request)):
            return handler(self._with_model(request))

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """The same, asynchronously."""
        with at(_told(request)):
            return await handler(self._with_model(request))

    def _with_model(self, request: Any) -> Any:
        found = reached(request.model, self._made)
        if found is None:
            self._warn(type(request.model).__name__)
        return request if found is None or found is request.model else request.override(model=found)

    def _warn(self, kind: str) -> None:
        with self._lock:
            told = kind in self._unreached
            self._unreached.add(kind)
        if not told:
            _log.warning(
                "no chat model is found in a %s, so its calls go out as they are, and nothing is counted: give the "
                "models in it to BufferedChatModel",
                kind,
            )

    def model(self, model: BaseChatModel) -> BaseChatModel:
        """The buffered one of a model: made once, and the same for equal copies of it that share their fields."""
        return self._made(model, model)

    def _made(self, model: BaseChatModel, owner: Any) -> BaseChatModel:
        key = (id(owner), type(model))
        with self._lock:
            known = self._models.get(key)
            if known is None or known.owner is not owner:
                wiring = Wiring(model, **self._options)
                known = _Known(owner, wiring, model, wired(model, wiring))
            elif known.model is not model:
                known = known._replace(model=model, buffered=wired(model, known.wiring))
            self._models[key] = known
            self._models.move_to_end(key)
            while len(self._models) > _MODELS:
                self._models.popitem(last=False)
            return known.buffered

    # What was used

    @property
    def seams(self) -> tuple[Seam, ...]:
        """The seam of each model that was called, and those of forks."""
        with self._lock:
            return tuple(seam for known in self._models.values() for seam in known.wiring.seams)

    @property
    def seam(self) -> Seam:
        """The seam of the model that was called last. Raises ``MessageError`` where none was called."""
        with self._lock:
            if not self._models:
                raise MessageError("no model was called yet: the seam is there after the agent's first call")
            known = next(reversed(self._models.values()))
            return known.wiring.of(known.model).seam

    def __repr__(self) -> str:
        return f"BufferedMiddleware(mode={self._options['mode']!r}, models={len(self._models)})"


def _told(request: Any) -> dict[str, Any]:
    thread = thread_of(request)
    return {AGENT: True} if thread is None else {AGENT: True, "thread_id": thread}
