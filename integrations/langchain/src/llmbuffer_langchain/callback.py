"""A callback that tells usage and breaks, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import RLock
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from llmbuffer import Session, StableContext
from llmbuffer.dialects.openai_chat import OpenAIChat
from llmbuffer.seam import Call, Counted, Seam

from .calling import usage_of
from .convert import LangChainHost
from .where import Named, at, where
from .wiring import NAMELESS

if TYPE_CHECKING:
    from llmbuffer.observing import Observation
    from llmbuffer.rules import Dialect

__all__ = ["BufferCallbackHandler"]

_DIALECTS = {
    "openai": "openai",
    "azure": "openai",
    "anthropic": "anthropic",
    "deepseek": "deepseek",
    "google_genai": "gemini",
}


class BufferCallbackHandler(Counted, BaseCallbackHandler):
    """Tells what the prompts of a run read from the cache, and what broke it: ``invoke(…, {"callbacks": [handler]})``.

    It observes only; models, messages and settings stay as they are. ``account``, ``usage`` and ``breaks`` tell what was
    used, by conversation (thread or session id) and member (agent or node). In agents, graphs and chains these are read off
    ``configurable`` too; of a model that is called directly LangChain tells callbacks only ``metadata``, so put the
    ``thread_id`` there. ``conversation`` and ``member`` are names or callables as for ``BufferedChatModel``. Where a provider tells no usage in streams, ask for it
    (``ChatOpenAI(stream_usage=True)``).

    A callback never stops a run: what cannot be read is left out.
    """

    run_inline = True  # in the order of the calls

    def __init__(
        self,
        *,
        conversation: Named = None,
        member: Named = None,
        limit: int = 1024,
        on_observe: Callable[[Observation], object] | None = None,
    ) -> None:
        self._conversation, self._member = conversation, member
        self._limit, self._on_observe = limit, on_observe
        self._seams: dict[tuple[str, str], Seam] = {}
        self._calls: dict[UUID, Call] = {}
        self._lock = RLock()

    def on_chat_model_start(
        self,
        serialized: Mapping[str, Any],
        messages: Sequence[Sequence[Any]],
        *,
        run_id: UUID,
        metadata: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A model is about to be called."""
        told = dict(metadata or {})
        params = kwargs.get("invocation_params") or {}
        seam = self._seam(told, params)
        with at(told):
            place = where(None, self._conversation, self._member)
        call = seam.call(
            messages=list(messages[0]),
            tools=params.get("tools") or None,
            conversation=place.conversation,
            member=place.member,
        )
        with self._lock:
            self._calls[run_id] = call
            while len(self._calls) > self._limit:  # calls that ended without a word
                del self._calls[next(iter(self._calls))]

    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A model has answered."""
        with self._lock:
            call = self._calls.pop(run_id, None)
        message = getattr(response.generations[0][0], "message", None) if response.generations else None
        if call is not None and message is not None:
            call.observe(message=message, usage=usage_of(getattr(message, "usage_metadata", None)))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A call has failed: nothing is entered."""
        with self._lock:
            self._calls.pop(run_id, None)

    def _seam(self, told: Mapping[str, Any], params: Mapping[str, Any]) -> Seam:
        provider = str(told.get("ls_provider") or "")
        model = str(told.get("ls_model_name") or params.get("model") or "unknown")
        with self._lock:
            found = self._seams.get((provider, model))
            if found is None:
                dialect: str | Dialect = _DIALECTS.get(provider) or OpenAIChat(OpenAIChat().bind("").rules)
                session = Session(StableContext(model), dialect)
                host = LangChainHost(names=session.dialect.name not in NAMELESS)
                found = Seam(
                    host, session=session, mode="observe", limit=self._limit, on_observe=self._on_observe
                )
                self._seams[provider, model] = found
            return found

    # What was used

    @property
    def seams(self) -> tuple[Seam, ...]:
        """The seam of each model that was called."""
        with self._lock:
            return tuple(self._seams.values())

    def __repr__(self) -> str:
        return f"BufferCallbackHandler(models={len(self._seams)}, requests={self.account().requests})"
