"""Summaries that read the cached prompt instead of paying for it again."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Literal

from langchain.agents.middleware import AgentMiddleware
from langchain.agents.middleware.types import ExtendedModelResponse
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, RemoveMessage, ToolMessage
from langchain_core.messages.utils import count_tokens_approximately
from langgraph.types import Command

from llmbuffer.errors import MessageError

from .where import FORK, FORK_OF, PLANNED, at, config_of, thread_of

__all__ = ["BufferedSummarization"]

Size = tuple[Literal["tokens", "messages"], int]
_INSTRUCTION = (
    "Do not answer the last message, and call no tool. Write a summary of this conversation up to here, from which "
    "somebody who sees nothing else can go on: what the user wants, what was decided and why, what was found out (names, "
    "numbers, identifiers as they are), and what is open. Reply with the summary alone."
)
_LEAD = "Here is a summary of the conversation to date:\n\n"


class BufferedSummarization(AgentMiddleware):
    """Summarizes an agent's older messages, by a call that reads the cached prompt: in place of ``SummarizationMiddleware``.

    LangChain's own sends its model one text with all messages in it, which no cache knows. This one asks the agent's own
    model, with the agent's system prompt and tools, what was said so far: the cached prompt, and a question behind it. Put
    it before ``BufferedMiddleware``.

    ``trigger`` says when: ``("tokens", n)`` or ``("messages", n)``; one of them, or a list of which any will do. ``keep``
    is what stays as it is, the newest messages (calls and their results stay together). ``token_counter`` counts messages,
    ``instruction`` is what the model is asked. The summary takes the place of the older messages in the agent's state, by
    their reducer. A reply without text changes nothing, and errors of the model come through.

    Raises ``MessageError`` for sizes that are none.

        create_agent(model, tools, middleware=[BufferedSummarization(trigger=("tokens", 30_000)), BufferedMiddleware()])
    """

    def __init__(
        self,
        *,
        trigger: Size | Sequence[Size],
        keep: Size = ("messages", 20),
        token_counter: Callable[[Iterable[Any]], int] = count_tokens_approximately,
        instruction: str = _INSTRUCTION,
    ) -> None:
        super().__init__()
        self.tools: Sequence[Any] = []
        given: Any = trigger
        self._triggers = [_sized(each) for each in (given if isinstance(given, list) else [given])]
        self._keep = _sized(keep)
        self._count, self._instruction = token_counter, instruction

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Summarize first, where it is time to."""
        older, newer = self._parted(request.messages)
        if not older:
            return handler(request)
        with at(_aside(request)):
            summary = _text(handler(self._asking(request, older)))
        if not summary:
            return handler(request)
        said = _summary(summary, older)
        with at({PLANNED: "older messages were summarized"}):
            return _told(handler(request.override(messages=[said, *newer])), said, older)

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """The same, asynchronously."""
        older, newer = self._parted(request.messages)
        if not older:
            return await handler(request)
        with at(_aside(request)):
            summary = _text(await handler(self._asking(request, older)))
        if not summary:
            return await handler(request)
        said = _summary(summary, older)
        with at({PLANNED: "older messages were summarized"}):
            return _told(await handler(request.override(messages=[said, *newer])), said, older)

    def _asking(self, request: Any, older: Sequence[BaseMessage]) -> Any:
        return request.override(messages=[*older, HumanMessage(self._instruction)], response_format=None)

    def _parted(self, messages: Sequence[BaseMessage]) -> tuple[list[BaseMessage], list[BaseMessage]]:
        """What is to be summarized, and what stays; nothing where it is not time."""
        if not any(self._size(messages, kind) >= least for kind, least in self._triggers):
            return [], list(messages)
        cut = len(messages)
        kind, most = self._keep
        while cut > 0 and self._size(messages[cut - 1 :], kind) <= most:
            cut -= 1
        while 0 < cut < len(messages) and isinstance(messages[cut], ToolMessage):
            cut -= 1  # a result stays with its call
        older = list(messages[:cut])
        fresh = [
            message for message in older if message.additional_kwargs.get("lc_source") != "summarization"
        ]
        return (
            (older, list(messages[cut:])) if len(fresh) > 1 and cut < len(messages) else ([], list(messages))
        )

    def _size(self, messages: Sequence[BaseMessage], kind: str) -> int:
        return len(messages) if kind == "messages" else self._count(messages)


def _sized(size: Any) -> Size:
    if (
        isinstance(size, tuple)
        and len(size) == 2
        and size[0] in ("tokens", "messages")
        and isinstance(size[1], int)
        and size[1] > 0
    ):
        return size
    raise MessageError(f"a size is ('tokens', n) or ('messages', n) with n from 1 on: found {size!r}")


def _aside(request: Any) -> dict[str, Any]:
    """The summary is asked for by a branch of the conversation, so that the conversation knows nothing of it."""
    thread = thread_of(request) or config_of().get("thread_id")
    return {} if thread is None else {FORK: f"{thread}/summary-{uuid.uuid4().hex}", FORK_OF: str(thread)}


def _text(response: Any) -> str:
    reply = response.result[0] if response.result else None
    return reply.text.strip() if isinstance(reply, AIMessage) and not reply.tool_calls else ""


def _summary(text: str, older: Sequence[BaseMessage]) -> HumanMessage:
    """The summary; it takes the place of the first message by having its id."""
    return HumanMessage(_LEAD + text, id=older[0].id, additional_kwargs={"lc_source": "summarization"})


def _told(response: Any, said: BaseMessage, older: Sequence[BaseMessage]) -> Any:
    """The response, and what becomes of the agent's state."""
    gone = [RemoveMessage(id=message.id) for message in older[1:] if message.id is not None]
    return ExtendedModelResponse(model_response=response, command=Command(update={"messages": [said, *gone]}))
