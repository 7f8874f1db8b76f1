"""How the core reads LlamaIndex's messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from llama_index.core.base.llms.types import ThinkingBlock, ToolCallBlock
from llama_index.core.llms import ChatMessage, ImageBlock, MessageRole, TextBlock

from llmbuffer.errors import LossyError, MessageError
from llmbuffer.messages import Message
from llmbuffer.parts import Image, Opaque, Part, Reasoning, Text, ToolCall, ToolResult
from llmbuffer.reconcile import leaves_of
from llmbuffer.tools import Tool

__all__ = ["LlamaHost", "role_of"]

_ROLES = {"function": "tool", "chatbot": "assistant", "model": "assistant"}
_OURS = "llamaindex"  # the dialect of parts that are kept as LlamaIndex wrote them


def role_of(message: Any) -> str:
    """The role as the core names it.

    >>> role_of(ChatMessage("hi", role="chatbot"))
    'assistant'
    """
    value = str(getattr(message.role, "value", message.role))
    return _ROLES.get(value, value)


class LlamaHost:
    """Reads ``ChatMessage`` objects, and tools as the mappings that go out; writes messages of ours as theirs.

    ``objects``: arguments of tool calls are written as objects (Anthropic), else as the text that the model wrote.

    >>> host = LlamaHost()
    >>> host.to_message(ChatMessage("hi", role="user")).text
    'hi'
    >>> host.leaves(ChatMessage("hi")) == host.leaves(ChatMessage("hi"))
    True
    """

    def __init__(self, *, objects: bool = False) -> None:
        self._objects = objects

    def leaves(self, item: Any, /) -> tuple[Any, ...]:
        """See ``Host``: the role, and what of the message is sent."""
        if not isinstance(item, ChatMessage):
            return leaves_of(item)
        out: list[Any] = [role_of(item)]
        called = False
        for block in item.blocks:
            if type(block) is TextBlock:
                if block.text:
                    out.append(block.text)
            else:
                called = called or isinstance(block, ToolCallBlock)
                out.append(_leaves_of_block(block))
        if item.additional_kwargs:
            out += _sent_fields(item.additional_kwargs, called=called)
        return tuple(out)

    def to_message(self, item: Any, /) -> Message:
        """See ``Host``. Raises ``MessageError`` for what is no message, and for blocks that have no neutral part."""
        if not isinstance(item, ChatMessage):
            raise MessageError(f"a {type(item).__name__} is no ChatMessage")
        role = role_of(item)
        parts = [part for block in item.blocks for part in _parts(block, signed=self._objects)]
        fields = item.additional_kwargs
        if role == "tool":
            call = fields.get("tool_call_id")
            if isinstance(call, str):
                texts = "".join(part.text for part in parts if isinstance(part, Text))
                rest = any(not isinstance(part, Text) for part in parts)
                content: Any = tuple(parts) if rest else texts
                return Message("tool", [ToolResult(call, content)])
        if role == "assistant" and not any(isinstance(part, ToolCall) for part in parts):
            parts += [call for each in fields.get("tool_calls") or () for call in _old_call(each)]
        return Message(role, parts)  # type: ignore[arg-type]  # an unknown role raises MessageError

    def to_tool(self, item: Any, /) -> Tool:
        """A tool as a mapping in the provider's shape."""
        return Tool.of(item)

    def stripped(self, item: Any, strip: Callable[[str], str], /) -> Any:
        """A copy whose texts went through ``strip``."""
        blocks = [
            TextBlock(text=strip(block.text)) if isinstance(block, TextBlock) else block
            for block in item.blocks
        ]
        return item.model_copy(update={"blocks": blocks})

    def from_message(self, message: Message, /) -> ChatMessage:
        """A message of ours as a ``ChatMessage``. Raises ``LossyError`` for what has no place in one."""
        try:
            if message.tool_results:
                made = self._result(message)
            else:
                blocks = [self._block(part) for part in message.parts]
                made = ChatMessage(role=MessageRole(message.role), blocks=blocks)
            same = self.to_message(made) == message
        except (TypeError, ValueError) as error:  # pydantic's own included
            raise LossyError(
                f"a {message.role} message has no place in LlamaIndex: {type(error).__name__}"
            ) from None
        if not same:
            raise LossyError(
                f"the {message.role} message does not come back equal from LlamaIndex's ChatMessage"
            )
        return made

    def copied(self, item: Any, /) -> Any:
        """A copy that stays as it is, whatever the framework does to its own object."""
        return item.model_copy(deep=True)

    def from_tool(self, tool: Tool, /) -> Any:
        """A tool of ours as a mapping in the provider's shape."""
        fields: dict[str, Any] = {"name": tool.name, "description": tool.description or ""}
        schema = json.loads(tool.parameters or b'{"type": "object", "properties": {}}')
        extra = json.loads(tool.extra or b"{}")
        if self._objects:
            return {**fields, "input_schema": schema, **extra}
        return {"type": "function", "function": {**fields, "parameters": schema, **extra}}

    def speaker(self, item: Any, /) -> str | None:
        """Nobody: LlamaIndex's messages do not say which agent wrote them."""
        return None

    def _block(self, part: Part) -> Any:
        if isinstance(part, Text):
            return TextBlock(text=part.text)
        if isinstance(part, Image):
            return ImageBlock(url=part.url, detail=part.detail)
        if isinstance(part, Reasoning):
            return ThinkingBlock(content=part.text)
        if isinstance(part, ToolCall):
            return ToolCallBlock(
                tool_call_id=part.id, tool_name=part.name, tool_kwargs=self._arguments(part.arguments)
            )
        if isinstance(part, Opaque) and part.dialect == _OURS:
            return ChatMessage(blocks=[part.value]).blocks[0]
        thought = part.value if isinstance(part, Opaque) and isinstance(part.value, dict) else {}
        if thought.get("type") == "thinking":
            signature = {"signature": thought.get("signature", "")}
            return ThinkingBlock(content=thought.get("thinking"), additional_information=signature)
        raise MessageError(f"a part {type(part).__name__} has no block in LlamaIndex")

    def _arguments(self, text: str) -> Any:
        if not self._objects:
            return text
        try:
            found = json.loads(text)
        except ValueError:
            return text
        return found if isinstance(found, dict) else text

    def _result(self, message: Message) -> ChatMessage:
        result = message.tool_results[0]
        parts = [Text(result.content)] if isinstance(result.content, str) else list(result.content)
        return ChatMessage(
            role=MessageRole.TOOL,
            blocks=[self._block(part) for part in parts],
            additional_kwargs={"tool_call_id": result.call_id},
        )


def _sent_fields(fields: dict[str, Any], *, called: bool) -> Iterator[Any]:
    """The further fields that are sent; calls stand there only where they are no blocks."""
    for name in ("tool_call_id", "reference_audio_id", "tool_calls", "function_call"):
        value = fields.get(name)
        if value and not (called and name in ("tool_calls", "function_call")):
            yield (name, *leaves_of({name: value}))


def _leaves_of_block(block: Any) -> tuple[Any, ...]:
    if isinstance(block, ToolCallBlock):
        arguments = block.tool_kwargs
        told = arguments if isinstance(arguments, str) else json.dumps(arguments, default=repr)
        return (ToolCallBlock, block.tool_call_id, block.tool_name, told)
    if isinstance(block, ImageBlock):
        return (ImageBlock, block.image, str(block.url), str(block.path), block.detail)
    return leaves_of(block)


def _parts(block: Any, *, signed: bool) -> Iterator[Part]:
    """The parts of a block; with ``signed``, thinking goes back to the provider with its signature."""
    if isinstance(block, TextBlock):
        if block.text:
            yield Text(block.text)
    elif isinstance(block, ToolCallBlock):
        arguments = block.tool_kwargs
        told = arguments if isinstance(arguments, str) else json.dumps(arguments)
        yield ToolCall(block.tool_call_id or "", block.tool_name, told)
    elif isinstance(block, ThinkingBlock):
        signature = block.additional_information.get("signature")
        if signed and block.content and signature:
            wire = {"type": "thinking", "thinking": block.content, "signature": signature}
            yield Opaque.of("anthropic", wire)
        elif block.content:
            yield Reasoning(block.content)
    elif isinstance(block, ImageBlock) and (block.url or block.image):
        inline = f"data:{block.image_mimetype};base64,{(block.image or b'').decode()}" if block.image else ""
        yield Image(inline or str(block.url), block.detail)
    elif getattr(block, "block_type", None) != "cache":
        try:
            yield Opaque.of(_OURS, block.model_dump(mode="json"))
        except (TypeError, ValueError) as error:
            raise MessageError(f"a {type(block).__name__} cannot be written as JSON: {error}") from None


def _old_call(call: Any) -> Iterator[ToolCall]:
    """A tool call as messages of older versions carry it: OpenAI's object, or a mapping of OpenAI or Anthropic."""
    read = call if isinstance(call, dict) else getattr(call, "model_dump", dict)()
    function = read.get("function") or {"name": read.get("name"), "arguments": json.dumps(read.get("input"))}
    if isinstance(function.get("name"), str) and isinstance(read.get("id"), str):
        yield ToolCall(read["id"], function["name"], str(function.get("arguments") or ""))
