"""How the core reads agentchat's messages and tools, and how its own messages become agentchat's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from autogen_core import FunctionCall
from autogen_core import Image as Picture
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    SystemMessage,
    UserMessage,
)

from llmbuffer.errors import LLMBufferError, LossyError, MessageError
from llmbuffer.messages import Image, Message, Part, Text, Tool, ToolCall, ToolResult

__all__ = ["ASSISTANT", "USER", "ModelHost", "reply_of"]

USER = "user"  # the source of messages that no agent wrote
ASSISTANT = "assistant"  # the source of replies that stand in no agent's memory
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # what model clients take
Strip = Callable[[str], str]


class ModelHost:
    """A ``llmbuffer.reconcile.Host`` for ``LLMMessage`` objects of autogen-core and its tools.

    >>> ModelHost().to_message(UserMessage(content="Hello", source="user")).text
    'Hello'
    >>> ModelHost().speaker(UserMessage(content="Hello", source="critic"))
    'critic'
    """

    def to_message(self, item: Any, /) -> Message:
        """The message as the model reads it. Raises ``MessageError`` for another kind of object."""
        if isinstance(item, SystemMessage):
            return Message("system", item.content)
        if isinstance(item, UserMessage):
            return Message("user", _user_parts(item.content), self.speaker(item))
        if isinstance(item, AssistantMessage):
            return Message("assistant", _said(item.content, item.thought))
        if isinstance(item, FunctionExecutionResultMessage):
            return Message(
                "tool",
                [ToolResult(each.call_id, each.content, bool(each.is_error)) for each in item.content],
            )
        raise MessageError(f"a {type(item).__name__} is no message of agentchat's: give an LLMMessage")

    def leaves(self, item: Any, /) -> tuple[Any, ...]:
        """What the message says on the wire, hashable."""
        if isinstance(item, UserMessage):
            content = item.content
            told = content if isinstance(content, str) else tuple(map(_leaf, content))
            return (UserMessage, item.source, told)
        if isinstance(item, SystemMessage):
            return (SystemMessage, item.content)
        if isinstance(item, AssistantMessage):
            if isinstance(item.content, str):
                return (AssistantMessage, item.source, item.content)
            calls = tuple((call.id, call.name, call.arguments) for call in item.content)
            return (AssistantMessage, item.source, item.thought, calls)
        if isinstance(item, FunctionExecutionResultMessage):
            results = tuple((each.call_id, each.content, bool(each.is_error)) for each in item.content)
            return (FunctionExecutionResultMessage, results)
        return _tool_leaves(item)

    def to_tool(self, item: Any, /) -> Tool:
        """A ``Tool`` or ``ToolSchema`` of autogen-core."""
        return Tool.of({"type": "function", "function": dict(_schema(item))})

    def stripped(self, item: Any, strip: Strip, /) -> Any:
        """A copy of the message whose texts went through ``strip``."""
        if isinstance(item, SystemMessage) or isinstance(getattr(item, "content", None), str):
            return item.model_copy(update={"content": strip(item.content)})
        if isinstance(item, UserMessage):
            parts = [strip(part) if isinstance(part, str) else part for part in item.content]
            return item.model_copy(update={"content": parts})
        if isinstance(item, FunctionExecutionResultMessage):
            told = [each.model_copy(update={"content": strip(each.content)}) for each in item.content]
            return item.model_copy(update={"content": told})
        return item

    def from_message(self, message: Message, /) -> Any:
        """A message of ours as agentchat's kind of object; a user message's ``name`` becomes its source.

        Raises ``LossyError`` for what agentchat's messages cannot say.
        """
        try:
            item = _made(message)
            if self.to_message(item) == message:
                return item
        except (OSError, ValueError, LLMBufferError):  # a picture that cannot be opened, or is somewhere else
            pass
        raise LossyError(
            f"a {message.role} message has content that agentchat's messages have no place for: {message!r}"
        )

    def from_tool(self, tool: Tool, /) -> Any:
        """A tool of ours as a ``ToolSchema``."""
        fields: dict[str, Any] = {"name": tool.name}
        if tool.description is not None:
            fields["description"] = tool.description
        if tool.parameters is not None:
            fields["parameters"] = json.loads(tool.parameters)
        return fields if tool.extra is None else {**fields, **json.loads(tool.extra)}

    def copied(self, item: Any, /) -> Any:
        """A copy that stays as it is; pictures are shared, since nobody edits them."""
        if isinstance(item, UserMessage) and isinstance(item.content, list):
            return item.model_copy(update={"content": list(item.content)})
        return item.model_copy(deep=True)

    def speaker(self, item: Any, /) -> str | None:
        """The agent that wrote the message; ``None`` for the user's, and for results and instructions."""
        source = getattr(item, "source", None)
        return None if source == USER else source


def _made(message: Message) -> Any:
    """The object that says as much of a message as it can."""
    if message.role in ("system", "developer"):
        return SystemMessage(content=message.text)
    if message.role == "tool":
        return FunctionExecutionResultMessage(content=[_result(each) for each in message.tool_results])
    if message.role == "assistant":
        calls = [FunctionCall(each.id, each.arguments, each.name) for each in message.tool_calls]
        thought = (message.text or None) if calls else None
        return AssistantMessage(content=calls or message.text, thought=thought, source=ASSISTANT)
    if message.name is not None and not _NAME.fullmatch(message.name):
        raise MessageError(f"{message.name!r} cannot be the source of a message")
    parts = [_shown(part) for part in message.parts]
    plain = len(parts) == 1 and isinstance(parts[0], str)
    return UserMessage(content=parts[0] if plain else parts, source=message.name or USER)


def reply_of(result: Any) -> Message:
    """The message that a ``CreateResult`` holds."""
    return Message("assistant", _said(result.content, result.thought))


def _said(content: Any, thought: str | None) -> list[Part]:
    """What an assistant said; a thought goes out beside calls only."""
    if isinstance(content, str):
        return [Text(content)]
    calls: list[Part] = [ToolCall(call.id, call.name, call.arguments) for call in content]
    return [Text(thought), *calls] if thought else calls


def _user_parts(content: Any) -> str | list[Part]:
    if isinstance(content, str):
        return content
    return [Text(part) if isinstance(part, str) else Image(part.data_uri) for part in content]


def _leaf(part: Any) -> Any:
    """A text, or what a picture shows; its encoding would cost milliseconds at each request."""
    if isinstance(part, str):
        return part
    picture = part.image
    return (Picture, picture.size, picture.mode, hash(picture.tobytes()))


def _shown(part: Part) -> Any:
    if isinstance(part, Text):
        return part.text
    if isinstance(part, Image):
        return Picture.from_uri(part.url)
    raise MessageError(f"a {type(part).__name__} has no place in a UserMessage of agentchat")


def _result(result: ToolResult) -> FunctionExecutionResult:
    content = result.content if isinstance(result.content, str) else ""
    return FunctionExecutionResult(content=content, name="", call_id=result.call_id, is_error=result.is_error)


def _schema(tool: Any) -> Mapping[str, Any]:
    found = tool if isinstance(tool, Mapping) else getattr(tool, "schema", None)
    if not isinstance(found, Mapping):
        raise MessageError(f"a {type(tool).__name__} is no tool: give a Tool or a ToolSchema of autogen-core")
    return found


def _tool_leaves(item: Any) -> tuple[Any, ...]:
    """A tool by its schema; anything else by its type and text."""
    found = item if isinstance(item, Mapping) else getattr(item, "schema", None)
    if isinstance(found, Mapping):
        return ("tool", json.dumps(found, default=repr))
    dump = getattr(item, "model_dump_json", None)
    return (type(item), repr(item) if dump is None else dump())
