"""The four calls of an LLM: plan, send through the LLM's own method, take in what came back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.llms import ChatMessage, MessageRole

from .channel import Asked, Channel
from .wires import wire_of

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CALLS"]

_ROUNDS = 3  # that a model gets to go on without a tool that is hidden


class Round:
    """One call of the framework: as many requests as it takes until the reply calls no hidden tool."""

    def __init__(self, llm: Any, messages: Any, arguments: dict[str, Any], *, stream: bool) -> None:
        self._state = llm._llmbuffer
        self._wire = wire_of(llm, stream_usage=self._state.stream_usage)
        self._posing = llm.metadata.system_role == MessageRole.USER
        self.asked = self._ask(list(messages), arguments, stream=stream)
        self._given, self._arguments, self._stream = list(messages), arguments, stream
        self._left = _ROUNDS

    def _ask(self, messages: list[Any], arguments: dict[str, Any], *, stream: bool) -> Asked:
        channel: Channel = self._state.channel
        sent = self._wire.streaming(arguments) if stream else arguments
        return channel.ask(self._wire, self._state.binding, messages, sent, posing=self._posing)

    def goes_on(self, response: Any) -> bool:
        """Take in a response; whether the model is asked again, told that the tools it called cannot be used."""
        self._state.channel.observe(self.asked, response)
        refused = _refused(self.asked, response) if self.asked.call.applies else []
        if not refused or len(refused) < len(_calls(response)) or not self._left:
            return False
        self._left -= 1
        results = [
            ChatMessage(text, role="tool", additional_kwargs={"tool_call_id": block.tool_call_id})
            for block, text in refused
        ]
        self._given = [*self._given, response.message, *results]
        self.asked = self._ask(self._given, self._arguments, stream=self._stream)
        return True

    def allowed(self, response: Any) -> Any:
        """The response without calls of hidden tools: they are never executed."""
        refused = [block for block, _ in _refused(self.asked, response)] if self.asked.call.applies else []
        if not refused:
            return response
        gone = {block.tool_call_id for block in refused}
        message = response.message
        blocks = [block for block in message.blocks if block not in refused]
        fields = dict(message.additional_kwargs)
        if "tool_calls" in fields:
            fields["tool_calls"] = [call for call in fields["tool_calls"] if _id(call) not in gone]
        message = message.model_copy(update={"blocks": blocks, "additional_kwargs": fields})
        return response.model_copy(update={"message": message})


def _id(call: Any) -> Any:
    return call.get("id") if isinstance(call, dict) else getattr(call, "id", None)


def _calls(response: Any) -> list[Any]:
    return [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]


def _refused(asked: Asked, response: Any) -> list[tuple[Any, str]]:
    told = [(block, asked.call.refusal(block.tool_name)) for block in _calls(response)]
    return [(block, text) for block, text in told if text is not None]


def _chat(inner: Callable[..., Any], name: str) -> Callable[..., Any]:
    def chat(self: Any, messages: Any, **kwargs: Any) -> Any:
        if self._llmbuffer is None:
            return inner(self, messages, **kwargs)
        run = Round(self, messages, kwargs, stream=False)
        while True:
            response = inner(self, run.asked.messages, **run.asked.arguments)
            if not run.goes_on(response):
                return run.allowed(response)

    return _named(chat, inner, name)


def _achat(inner: Callable[..., Any], name: str) -> Callable[..., Any]:
    async def achat(self: Any, messages: Any, **kwargs: Any) -> Any:
        if self._llmbuffer is None:
            return await inner(self, messages, **kwargs)
        run = Round(self, messages, kwargs, stream=False)
        while True:
            with await _lead(self) as lead:
                response = await inner(self, run.asked.messages, **run.asked.arguments)
                lead.begun()
            if not run.goes_on(response):
                return run.allowed(response)

    return _named(achat, inner, name)


def _stream_chat(inner: Callable[..., Any], name: str) -> Callable[..., Any]:
    def stream_chat(self: Any, messages: Any, **kwargs: Any) -> Any:
        if self._llmbuffer is None:
            return inner(self, messages, **kwargs)
        run = Round(self, messages, kwargs, stream=True)
        first = inner(self, run.asked.messages, **run.asked.arguments)

        def gen() -> Any:
            stream = first
            while True:
                last = None
                for response in stream:
                    last = response
                    yield run.allowed(response)
                if last is None or not run.goes_on(last):
                    return
                stream = inner(self, run.asked.messages, **run.asked.arguments)

        return gen()

    return _named(stream_chat, inner, name)


def _astream_chat(inner: Callable[..., Any], name: str) -> Callable[..., Any]:
    async def astream_chat(self: Any, messages: Any, **kwargs: Any) -> Any:
        if self._llmbuffer is None:
            return await inner(self, messages, **kwargs)
        run = Round(self, messages, kwargs, stream=True)
        lead = await _lead(self)
        with lead.failing():
            first = await inner(self, run.asked.messages, **run.asked.arguments)

        async def gen() -> Any:
            stream = first
            while True:
                last = None
                with lead:
                    async for response in stream:
                        lead.begun()
                        last = response
                        yield run.allowed(response)
                if last is None or not run.goes_on(last):
                    return
                stream = await inner(self, run.asked.messages, **run.asked.arguments)

        return gen()

    return _named(astream_chat, inner, name)


class _Lead:
    """The right to go first through a gate, if there is one and it is closed."""

    def __init__(self, lead: Any) -> None:
        self._lead = lead

    def begun(self) -> None:
        if self._lead is not None:
            self._lead.begun()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._lead is not None:
            self._lead.__exit__(*error)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """A block that lets the next one lead if it raises."""
        try:
            yield
        except BaseException:
            self.__exit__()
            raise


async def _lead(llm: Any) -> _Lead:
    gate = llm._llmbuffer.gate
    return _Lead(None if gate is None else await gate.enter())


def _named(call: Callable[..., Any], inner: Callable[..., Any], name: str) -> Callable[..., Any]:
    call.__name__, call.__qualname__, call.__doc__ = name, name, inner.__doc__
    return call


CALLS: dict[str, Callable[[Callable[..., Any], str], Callable[..., Any]]] = {
    "chat": _chat,
    "achat": _achat,
    "stream_chat": _stream_chat,
    "astream_chat": _astream_chat,
}
