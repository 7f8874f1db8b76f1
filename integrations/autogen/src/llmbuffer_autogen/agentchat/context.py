"""``BufferedChatCompletionContext``: what an agent remembers, kept append-only, with a session beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autogen_core import Component
from autogen_core.model_context import ChatCompletionContext
from autogen_core.models import FunctionExecutionResultMessage, UserMessage
from typing_extensions import Self

from llmbuffer.context import StableContext
from llmbuffer.errors import LLMBufferError, MessageError
from llmbuffer.session import Session

from .config import ContextConfig
from .convert import ModelHost

__all__ = ["BufferedChatCompletionContext"]


class BufferedChatCompletionContext(ChatCompletionContext, Component[ContextConfig]):
    """A ``ChatCompletionContext`` whose prompts only grow, in place of autogen-core's class of the same name.

    Without ``buffer_size``, the agent reads all that was said. With it, the agent reads the last ``buffer_size`` messages and
    at most twice as many, beginning with a user's message where one is near: the start is cut off once for about
    ``buffer_size`` messages, where autogen-core cuts at every one and loses the provider's cache each time. Nothing that was
    said is lost: ``messages`` and ``save_state`` hold all of it.

    ``session`` takes in what is said, for a store, a report or a fork: by default a new one. What it cannot take in is
    counted in ``unread``, and stays in ``messages``.

    Raises ``MessageError`` for a ``buffer_size`` below 1.

    >>> import asyncio
    >>> from autogen_core.models import UserMessage
    >>> context = BufferedChatCompletionContext(buffer_size=2)
    >>> async def say():
    ...     for number in range(5):
    ...         await context.add_message(UserMessage(content=str(number), source="user"))
    ...     return [message.content for message in await context.get_messages()]
    >>> asyncio.run(say()), len(context.messages)
    (['3', '4'], 5)
    """

    component_config_schema = ContextConfig
    component_provider_override = "llmbuffer_autogen.agentchat.BufferedChatCompletionContext"

    def __init__(
        self,
        buffer_size: int | None = None,
        *,
        initial_messages: Sequence[Any] | None = None,
        session: Session | None = None,
    ) -> None:
        if buffer_size is not None and (isinstance(buffer_size, bool) or buffer_size < 1):
            raise MessageError(
                f"buffer_size is {buffer_size!r}: give a number of messages, from 1 on, or None"
            )
        super().__init__(None if initial_messages is None else list(initial_messages))
        self._buffer_size, self._start = buffer_size, 0
        self.host = ModelHost()
        self._origin = Session(StableContext("unknown")) if session is None else session
        self._begin()

    def _begin(self) -> None:
        """Take everything into a session anew."""
        self.session, self.unread = self._origin.fork(), 0
        for message in self._messages:
            self._take(message)

    def _take(self, message: Any) -> None:
        try:
            self.session.append(self.host.to_message(message))
        except LLMBufferError:
            self.unread += 1

    @property
    def messages(self) -> tuple[Any, ...]:
        """All that was said since the last ``clear``, the agent's own objects."""
        return tuple(self._messages)

    async def add_message(self, message: Any) -> None:
        """Take in a message."""
        await super().add_message(message)
        self._take(message)

    async def get_messages(self) -> list[Any]:
        """What the agent reads next: the objects that were added, in order."""
        size = self._buffer_size
        if size is not None and len(self._messages) - self._start > 2 * size:
            self._start = _begins(self._messages, len(self._messages) - size, size)
        return self._messages[self._start :]

    async def clear(self) -> None:
        """Forget everything; the session begins anew."""
        await super().clear()
        self._start = 0
        self._begin()

    async def save_state(self) -> Mapping[str, Any]:
        """All messages, and from which one on the agent reads."""
        return {**await super().save_state(), "start": self._start}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, that of another context of autogen-core too."""
        await super().load_state(state)
        start = state.get("start", 0)
        self._start = start if isinstance(start, int) and 0 <= start <= len(self._messages) else 0
        self._begin()

    def fork(self) -> Self:
        """A context of its own with all that was said so far; neither hears what the other one is told from now on."""
        out = type(self)(self._buffer_size, session=self._origin)
        out._initial_messages = self._initial_messages
        out._messages, out._start = list(self._messages), self._start
        out.session, out.unread = self.session.fork(), self.unread
        return out

    def _to_config(self) -> ContextConfig:
        return ContextConfig(buffer_size=self._buffer_size, initial_messages=self._initial_messages)

    @classmethod
    def _from_config(cls, config: ContextConfig) -> Self:
        return cls(config.buffer_size, initial_messages=config.initial_messages)

    def __repr__(self) -> str:
        return f"BufferedChatCompletionContext(messages={len(self._messages)}, read from {self._start})"


def _begins(messages: Sequence[Any], start: int, size: int) -> int:
    """The message from which a prompt of about the last ``size`` messages reads best: one of a user's, else no result.

    Some providers refuse a prompt that begins with a reply, all of them a result without its call.
    """
    for place in range(start, start - size // 2 - 1, -1):
        if isinstance(messages[place], UserMessage):
            return place
    while start < len(messages) - 1 and isinstance(messages[start], FunctionExecutionResultMessage):
        start += 1
    return start
