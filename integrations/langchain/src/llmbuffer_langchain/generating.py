"""The methods of a buffered model that call the provider, made from those of the model's own class."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, cast

from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.outputs.chat_generation import merge_chat_generation_chunks

from .calling import Planned, Sending, asking_for_usage
from .wiring import wiring_of

__all__ = ["agenerate_of", "astream_of", "generate_of", "get_name_of", "stream_of"]


def get_name_of(kind: Any) -> Any:
    """The name by which caches of replies and traces know the model: that of its own class."""

    def get_name(self: Any, suffix: str | None = None, *, name: str | None = None) -> str:
        return cast(str, kind.get_name(self, suffix, name=name or self.name or kind.__name__))

    return get_name


def _send(self: Any, messages: Any, manager: Any, kwargs: dict[str, Any]) -> Sending:
    return Sending(wiring_of(self).of(self), self, messages, kwargs, manager)


def _goes_as_is(self: Any, messages: Any) -> bool:
    """Whether a call is planned for already, or by nobody: the model was made from its class alone."""
    return isinstance(messages, Planned) or self._llmbuffer is None


def generate_of(kind: Any) -> Any:
    """``_generate``, with a plan."""

    def _generate(
        self: Any, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        def asked(messages: Any, kwargs: dict[str, Any]) -> ChatResult:
            return cast(
                ChatResult, kind._generate(self, messages, stop=stop, run_manager=run_manager, **kwargs)
            )

        if _goes_as_is(self, messages):
            return asked(messages, kwargs)
        sending = _send(self, messages, run_manager, kwargs)
        with sending.gates.held(sending.gate) as held:
            result = asked(sending.messages, sending.kwargs)
            held.begun()
        while result.generations and sending.again(result.generations[0].message):
            result = asked(sending.messages, sending.kwargs)
        return _taken(sending, result)

    return _generate


def agenerate_of(kind: Any) -> Any:
    """``_agenerate``, with a plan."""

    async def _agenerate(
        self: Any, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        async def asked(messages: Any, kwargs: dict[str, Any]) -> ChatResult:
            found = await kind._agenerate(self, messages, stop=stop, run_manager=run_manager, **kwargs)
            return cast(ChatResult, found)

        if _goes_as_is(self, messages):
            return await asked(messages, kwargs)
        sending = _send(self, messages, run_manager, kwargs)
        async with sending.gates.aheld(sending.gate) as held:
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


def stream_of(kind: Any) -> Any:
    """``_stream``, with a plan."""

    def _stream(
        self: Any, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        def asked(messages: Any, kwargs: dict[str, Any]) -> Iterator[ChatGenerationChunk]:
            chunks = kind._stream(self, messages, stop=stop, run_manager=run_manager, **kwargs)
            return cast("Iterator[ChatGenerationChunk]", chunks)

        if _goes_as_is(self, messages):
            yield from asked(messages, kwargs)
            return
        kwargs = asking_for_usage(self, wiring_of(self).family, kwargs)
        sending = _send(self, messages, run_manager, kwargs)
        if not sending.hides:
            seen: list[ChatGenerationChunk] = []
            with sending.gates.held(sending.gate) as held:
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


def astream_of(kind: Any) -> Any:
    """``_astream``, with a plan."""

    async def _astream(
        self: Any, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        def asked(messages: Any, kwargs: dict[str, Any]) -> AsyncIterator[ChatGenerationChunk]:
            chunks = kind._astream(self, messages, stop=stop, run_manager=run_manager, **kwargs)
            return cast("AsyncIterator[ChatGenerationChunk]", chunks)

        if _goes_as_is(self, messages):
            async for chunk in asked(messages, kwargs):
                yield chunk
            return
        kwargs = asking_for_usage(self, wiring_of(self).family, kwargs)
        sending = _send(self, messages, run_manager, kwargs)
        if not sending.hides:
            seen: list[ChatGenerationChunk] = []
            async with sending.gates.aheld(sending.gate) as held:
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
