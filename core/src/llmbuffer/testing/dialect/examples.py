"""What a test class tells the contract about its dialect, and a stand-in for the client of its SDK."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from ...frozen import FrozenDict
from ...messages import Message, ToolCall
from ...rules import MARK_FIELDS, Dialect
from ...usage import Usage
from .trees import as_parts, without_fields

if TYPE_CHECKING:
    import pytest
    from typing_extensions import Self

__all__ = ["DialectExamples", "Pieces", "client_at"]


class DialectExamples:
    """What a test class tells about its dialect.

    ``dialect`` as plugins make it, ``model`` one that it serves, ``models`` further ones whose rules differ.

    ``replies`` are responses in their dict form, each with the message that it holds; the first is text alone, and one
    calls a tool. ``usages`` are responses, each with the usage that it reports, or ``None``. ``events`` are those of a
    whole stream in their dict form, of the reply ``streamed`` with the usage ``streamed_usage``.

    ``send_path`` leads from the SDK's client to the method that sends; the other paths to those that stream and those of
    the asynchronous client, where they differ.
    """

    dialect: Dialect
    model: str
    models: tuple[str, ...] = ()
    replies: Sequence[tuple[Mapping[str, Any], Message]]
    usages: Sequence[tuple[Mapping[str, Any], Usage | None]]
    events: Sequence[Mapping[str, Any]]
    streamed: Message
    streamed_usage: Usage | None
    send_path: str
    stream_path = ""
    asend_path = ""
    astream_path = ""
    # The fields of a body that hold the prompt, and those that hold breakpoints.
    prompt_fields: tuple[str, ...] = (
        "tools", "system", "instructions", "systemInstruction", "messages", "input", "contents",
    )  # fmt: skip
    mark_fields: frozenset[str] = MARK_FIELDS
    # Whether arguments of calls travel as the string that the model wrote; False where the wire carries an object.
    keeps_arguments = True

    def as_response(self, blocks: tuple[FrozenDict, ...]) -> Mapping[str, Any]:
        """A response whose reply is what ``render_message`` made of a message of the assistant."""
        raise NotImplementedError(f"{type(self).__name__} says how rendered blocks look in a response")

    def as_sdk_object(self, response: Mapping[str, Any]) -> Any:
        """The response as the SDK's own object; as it is where a test does without the SDK."""
        return response

    def prompt(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """What a cache sees of a body: its model and the fields of its prompt, texts as parts, without breakpoints."""
        found = {key: body[key] for key in ("model", *self.prompt_fields) if key in body}
        bare = without_fields(found, self.mark_fields)
        return as_parts(bare, self.dialect.content_key)  # type: ignore[no-any-return]  # an object stays one

    def comparable(self, message: Message) -> Message:
        """The message, its arguments spelled in one way where the wire carries an object."""
        if self.keeps_arguments:
            return message
        parts = [
            replace(part, arguments=json.dumps(json.loads(part.arguments or "{}")))
            if isinstance(part, ToolCall)
            else part
            for part in message.parts
        ]
        return Message(message.role, parts, message.name)

    def reads_as(self, response: Any, message: Message) -> bool:
        """Whether the dialect reads this message off a response."""
        return self.comparable(self.dialect.read_message(response)) == self.comparable(message)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a test with each model if it has an argument ``served``."""
        if "served" in metafunc.fixturenames:
            metafunc.parametrize("served", (self.model, *self.models))


class Pieces:
    """The events of a stream, as SDKs hand them out: an iterator and a context manager, synchronous and not."""

    def __init__(self, events: Sequence[Any]) -> None:
        self._events = events

    def __iter__(self) -> Iterator[Any]:
        return iter(self._events)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing to close."""

    async def __aiter__(self) -> AsyncIterator[Any]:
        for event in self._events:
            yield event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Nothing to close."""


def client_at(path: str, answer: Callable[..., Any]) -> Any:
    """A stand-in for an SDK's client, with ``answer`` for the method at ``path``.

    >>> client_at("messages.create", lambda **kwargs: kwargs).messages.create(model="m")
    {'model': 'm'}
    """
    names = path.split(".")
    client: Any = answer
    for name in reversed(names):
        client = SimpleNamespace(**{name: client})
    return client
