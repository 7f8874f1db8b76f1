"""A chat model whose prompts stay cacheable: a subclass instance of the model's own class."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.outputs.chat_generation import merge_chat_generation_chunks
from pydantic import PrivateAttr

from llmbuffer.errors import MessageError

from .calling import Planned, Sending, Wiring, asking_for_usage
from .where import Named, at, config_of

if TYPE_CHECKING:
    from llmbuffer import Session
    from llmbuffer.observing import Observation
    from llmbuffer.reconcile import Policy
    from llmbuffer.rules import Dialect
    from llmbuffer.seam import Mode, Seam

__all__ = ["BufferedChatModel", "Buffering", "is_buffered", "wired", "wiring_of"]

M = TypeVar("M", bound=BaseChatModel)


def BufferedChatModel(  # noqa: N802  # it gives an object of a class, and is used like one
    model: M,
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
) -> M:
    """The model, with prompts that stay cacheable: for LCEL chains, LangGraph nodes, and wherever a chat model goes.

    What comes back is an instance of a subclass of the model's own class, so that ``isinstance``, ``bind_tools``,
    ``with_structured_output``, streaming, caches and profiles stay as they are; the model that was given is left alone.
    ``model.seam`` tells usage, cost and breaks by conversation and member.

    ``mode``, ``policy``, ``limit`` (conversations) and ``on_observe`` are those of ``llmbuffer.seam.Seam``; ``session`` is
    what all conversations are forked from, ``dialect`` what the provider speaks (default: by the model's class).
    ``conversation`` and ``member`` are names, or callables that get the config's metadata and configurable fields; the
    default is the thread (or session) id, and the agent's or node's name. Without a name, prompts are told apart by what
    they begin with.

    Raises ``TypeError`` for what is no chat model, and ``MessageError`` for one that is buffered already. Errors of the
    model come through as they are; then nothing is committed.

        model = BufferedChatModel(ChatOpenAI(model="gpt-5.5"))
        chain = prompt | model
    """
    if not isinstance(model, BaseChatModel):
        raise TypeError(
            f"BufferedChatModel takes a chat model, and this is a {type(model).__name__}: wrap the model before "
            "bind_tools, with_structured_output or with_config make something else of it"
        )
    if is_buffered(model):
        raise MessageError(f"this {type(model).__name__} is buffered already: use it as it is")
    wiring = Wiring(
        model,
        mode=mode,
        policy=policy,
        session=session,
        dialect=dialect,
        conversation=conversation,
        member=member,
        members=members,
        limit=limit,
        on_observe=on_observe,
    )
    return wired(model, wiring)


def is_buffered(model: Any) -> bool:
    """Whether a model came from ``BufferedChatModel``."""
    return isinstance(model, Buffering)


def wiring_of(model: Any) -> Wiring:
    """What stands behind a buffered model."""
    return cast(Wiring, model._llmbuffer)


def wired(model: M, wiring: Wiring) -> M:
    """A copy of the model that plans its calls with ``wiring``."""
    out = model.model_copy()
    object.__setattr__(out, "__class__", _buffered(cast(Any, type(model))))
    object.__setattr__(
        out, "__pydantic_private__", {**(out.__pydantic_private__ or {}), "_llmbuffer": wiring}
    )
    return out


class Buffering:
    """What the classes of buffered models have in common; ``isinstance(model, Buffering)`` tells them apart."""

    _llmbuffer: Any

    @property
    def seam(self) -> Seam:
        """The conversations of this model: usage, cost and breaks by conversation and member."""
        return cast(Wiring, self._llmbuffer).seam

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002  # LangChain's name
        """See ``BaseChatModel.invoke``."""
        with at(config_of(config)):
            return super().invoke(input, config, **kwargs)  # type: ignore[misc]  # a mixin before the model's class

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002
        """See ``BaseChatModel.ainvoke``."""
        with at(config_of(config)):
            return await super().ainvoke(input, config, **kwargs)  # type: ignore[misc]  # as above

    def stream(self, input: Any, config: Any = None, **kwargs: Any) -> Iterator[Any]:  # noqa: A002
        """See ``BaseChatModel.stream``."""
        told = config_of(config)
        chunks = super().stream(input, config, **kwargs)  # type: ignore[misc]  # as above
        with at(told):  # the call is planned before the first chunk comes
            first = next(chunks, None)
        if first is not None:
            yield first
            yield from chunks

    async def astream(self, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:  # noqa: A002
        """See ``BaseChatModel.astream``."""
        told = config_of(config)
        chunks = super().astream(input, config, **kwargs)  # type: ignore[misc]  # as above
        with at(told):
            first = await anext(chunks, None)
        if first is not None:
            yield first
            async for chunk in chunks:
                yield chunk


@cache
def _buffered(kind: type[BaseChatModel]) -> Any:
    """The subclass of a model's class; it has the methods that the class has, since LangChain looks which there are."""
    space: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": kind.__doc__,
        "__annotations__": {"_llmbuffer": Any},
        "_llmbuffer": PrivateAttr(default=None),
        "_generate": _generate_of(kind),
        "lc_id": classmethod(lambda _cls: kind.lc_id()),
        "get_name": _get_name_of(kind),
    }
    for name, made in (("_agenerate", _agenerate_of), ("_stream", _stream_of), ("_astream", _astream_of)):
        if getattr(kind, name) is not getattr(BaseChatModel, name):
            space[name] = made(kind)
    meta: Any = type(kind)
    return meta(f"Buffered{kind.__name__}", (Buffering, kind), space)


def _get_name_of(kind: Any) -> Any:
    def get_name(self: Any, suffix: str | None = None, *, name: str | None = None) -> str:
        # Caches of replies and traces know the model by this name.
        return cast(str, kind.get_name(self, suffix, name=name or self.name or kind.__name__))

    return get_name


def _send(self: Any, messages: Any, manager: Any, kwargs: dict[str, Any]) -> Sending:
    return Sending(wiring_of(self), self, messages, kwargs, manager)


def _generate_of(kind: Any) -> Any:
    def _generate(
        self: Any, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        def asked(messages: Any, kwargs: dict[str, Any]) -> ChatResult:
            return cast(
                ChatResult, kind._generate(self, messages, stop=stop, run_manager=run_manager, **kwargs)
            )

        if isinstance(messages, Planned):
            return asked(messages, kwargs)
        sending = _send(self, messages, run_manager, kwargs)
        with wiring_of(self).gates.held(sending.gate) as held:
            result = asked(sending.messages, sending.kwargs)
            held.begun()
        while result.generations and sending.again(result.generations[0].message):
            result = asked(sending.messages, sending.kwargs)
        return _taken(sending, result)

    return _generate


def _agenerate_of(kind: Any) -> Any:
    async def _agenerate(
        self: Any, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        async def asked(messages: Any, kwargs: dict[str, Any]) -> ChatResult:
            found = await kind._agenerate(self, messages, stop=stop, run_manager=run_manager, **kwargs)
            return cast(ChatResult, found)

        if isinstance(messages, Planned):
            return await asked(messages, kwargs)
        sending = _send(self, messages, run_manager, kwargs)
        async with wiring_of(self).gates.aheld(sending.gate) as held:
            result = await asked(sending.messages, sending.kwargs)
            held.begun()
        while result.generations and sending.again(result.generations[0].message):
            result = await asked(sending.messages, sending.kwargs)
        return _taken(sending, result)

    return _agenerate


def _taken(sending: Sending, result: ChatResult) -> ChatResult:
    """The result, once its first reply was taken in."""
    if result.generations:
        first = result.generations[0]
        first.message = sending.done(first.message)
    return result


def _stream_of(kind: Any) -> Any:
    def _stream(
        self: Any, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        def asked(messages: Any, kwargs: dict[str, Any]) -> Iterator[ChatGenerationChunk]:
            chunks = kind._stream(self, messages, stop=stop, run_manager=run_manager, **kwargs)
            return cast("Iterator[ChatGenerationChunk]", chunks)

        if isinstance(messages, Planned):
            yield from asked(messages, kwargs)
            return
        kwargs = asking_for_usage(self, wiring_of(self).family, kwargs)
        sending = _send(self, messages, run_manager, kwargs)
        if not sending.hides:
            seen: list[ChatGenerationChunk] = []
            with wiring_of(self).gates.held(sending.gate) as held:
                for chunk in asked(sending.messages, sending.kwargs):
                    held.begun()
                    seen.append(chunk)
                    yield chunk
            sending.done(_whole(seen))
            return
        while sending.again(reply := _whole(seen := list(asked(sending.messages, sending.kwargs)))):
            pass
        yield from _shown(sending, reply, seen)

    return _stream


def _astream_of(kind: Any) -> Any:
    async def _astream(
        self: Any, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        def asked(messages: Any, kwargs: dict[str, Any]) -> AsyncIterator[ChatGenerationChunk]:
            chunks = kind._astream(self, messages, stop=stop, run_manager=run_manager, **kwargs)
            return cast("AsyncIterator[ChatGenerationChunk]", chunks)

        if isinstance(messages, Planned):
            async for chunk in asked(messages, kwargs):
                yield chunk
            return
        kwargs = asking_for_usage(self, wiring_of(self).family, kwargs)
        sending = _send(self, messages, run_manager, kwargs)
        if not sending.hides:
            seen: list[ChatGenerationChunk] = []
            async with wiring_of(self).gates.aheld(sending.gate) as held:
                async for chunk in asked(sending.messages, sending.kwargs):
                    held.begun()
                    seen.append(chunk)
                    yield chunk
            sending.done(_whole(seen))
            return
        while True:
            seen = [chunk async for chunk in asked(sending.messages, sending.kwargs)]
            reply = _whole(seen)
            if not sending.again(reply):
                break
        for chunk in _shown(sending, reply, seen):
            yield chunk

    return _astream


def _whole(chunks: Sequence[ChatGenerationChunk]) -> Any:
    """The reply that chunks are the pieces of; ``None`` without any."""
    whole = merge_chat_generation_chunks(list(chunks))
    return None if whole is None else whole.message


def _shown(sending: Sending, reply: Any, chunks: list[ChatGenerationChunk]) -> list[ChatGenerationChunk]:
    """What goes to the host of a reply that was held back: its chunks, unless calls had to be taken out of it."""
    shown = sending.done(reply)
    return chunks if shown is reply else [ChatGenerationChunk(message=shown)]
