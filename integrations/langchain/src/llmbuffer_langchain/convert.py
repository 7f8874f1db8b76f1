"""LangChain's messages and tools in the core's terms, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from llmbuffer import Message, Tool
from llmbuffer.errors import LossyError, MessageError
from llmbuffer.messages import File, Image, Opaque, Part, Reasoning, Text, ToolCall, ToolResult
from llmbuffer.reconcile import leaves_of
from llmbuffer.rules import MARK_FIELDS

__all__ = ["LangChainHost", "marks_in"]

_ROLES = {"human": "user", "HumanMessageChunk": "user", "ai": "assistant", "AIMessageChunk": "assistant",
          "system": "system", "SystemMessageChunk": "system", "tool": "tool", "ToolMessageChunk": "tool"}  # fmt: skip
_SAYS_NOTHING = frozenset({"index", "sub_index", "id"})  # of a text: no part of what it says
_WIRE_KWARGS = ("function_call", "tool_calls", "audio", "name", "__openai_role__", "type")
_CALLS = frozenset({"tool_use", "function_call", "tool_call", "tool_call_chunk", "invalid_tool_call"})


class LangChainHost:
    """How the core reads LangChain's messages (``BaseMessage``) and tools (as ``bind_tools`` formats them).

    Breakpoints that stand on blocks are no content: a message says the same with and without them, and so it does with
    another ``id``, usage or response metadata, which no provider sees. ``names``: whether LangChain sends the names of
    speakers to this provider; Anthropic and OpenAI's Responses API have no field for them.

    >>> host = LangChainHost()
    >>> host.to_message(HumanMessage("Hello")).text
    'Hello'
    >>> host.leaves(HumanMessage("Hello", id="1")) == host.leaves(HumanMessage("Hello", id="2"))
    True
    """

    def __init__(self, *, names: bool = True) -> None:
        self._names = names

    def to_message(self, item: Any, /) -> Message:
        """A message as the core's; raises ``MessageError`` for a kind that has no role there."""
        if isinstance(item, Message):
            return item
        kind = getattr(item, "type", None)
        role = _ROLES.get(kind) if isinstance(kind, str) else None
        if kind == "chat" and getattr(item, "role", None) in ("user", "assistant", "system", "developer"):
            role = item.role
        if role is None:
            raise MessageError(
                f"a {type(item).__name__} has no role that the core knows: it is handed on untouched"
            )
        if role == "system" and item.additional_kwargs.get("__openai_role__") == "developer":
            role = "developer"
        name = (item.name or item.additional_kwargs.get("name")) if self._names else None
        if role == "tool":
            content = item.content if isinstance(item.content, str) else _inner(item.content)
            result = ToolResult(str(item.tool_call_id), content, getattr(item, "status", None) == "error")
            return Message("tool", [result], name)
        return Message(role, _parts(item), name)  # type: ignore[arg-type]  # one of the roles

    def leaves(self, item: Any, /) -> tuple[Any, ...]:
        """What goes out of a message or a tool, hashable; no ids, no usage, no metadata, no breakpoints."""
        if not isinstance(item, BaseMessage):
            return _unmarked_leaves(item) if isinstance(item, Mapping) else leaves_of(item)
        said: Any = item
        kind, content, extra = said.type, said.content, said.additional_kwargs
        found: tuple[Any, ...] = (
            kind,
            said.name if self._names else None,
            content if type(content) is str else _content_leaves(content),
        )
        if kind in ("ai", "AIMessageChunk"):
            calls = said.tool_calls
            invalid = said.invalid_tool_calls
            found = ("ai", *found[1:])
            if calls or invalid:
                found += tuple(
                    (call["id"], call["name"], _plain(call["args"])) for call in (*calls, *invalid)
                )
        elif kind in ("tool", "ToolMessageChunk"):
            found += (said.tool_call_id, said.status)
        elif kind == "chat":
            found += (said.role,)
        if extra:
            found += tuple((name, _plain(extra[name])) for name in _WIRE_KWARGS if name in extra)
        return found

    def to_tool(self, item: Any, /) -> Tool:
        """A tool, without the breakpoint that it may carry."""
        if isinstance(item, Mapping) and MARK_FIELDS & item.keys():
            return Tool.of({key: value for key, value in item.items() if key not in MARK_FIELDS})
        return Tool.of(item)

    def stripped(self, item: Any, strip: Callable[[str], str], /) -> Any:
        """A copy of a message whose texts went through ``strip``."""
        if isinstance(item.content, str):
            return item.model_copy(update={"content": strip(item.content)})
        content: list[Any] = []
        for block in item.content:
            if isinstance(block, str):
                text = strip(block)
                content += [text] if text else []
            elif isinstance(block.get("text"), str):
                text = strip(block["text"])
                content += [{**block, "text": text}] if text else []
            else:
                content.append(block)
        return item.model_copy(update={"content": content})

    def from_message(self, message: Message, /) -> BaseMessage:
        """A message of the core's own making as LangChain's; raises ``LossyError`` for one that would not come back equal."""
        item = self._written(message)
        if self.to_message(item) != (message if self._names else Message(message.role, message.parts)):
            raise LossyError(
                f"the {message.role} message has content that LangChain's messages have no place for"
            )
        return item

    def _written(self, message: Message) -> BaseMessage:
        if message.role == "tool":
            results = message.tool_results
            if len(results) != 1 or len(message.parts) != 1:
                raise LossyError(
                    f"a tool message with {len(results)} results is none of LangChain's: make one for each"
                )
            content = results[0].content
            return ToolMessage(
                content if isinstance(content, str) else [_block(part) for part in content],
                tool_call_id=results[0].call_id,
                name=message.name,
                status="error" if results[0].is_error else "success",
            )
        content = _content(message)
        if message.role == "assistant":
            valid, invalid = _calls(message)
            spelled = (
                {"tool_calls": [_spelled(call) for call in message.tool_calls]} if valid or invalid else {}
            )
            return AIMessage(
                content,
                tool_calls=valid,
                invalid_tool_calls=invalid,
                name=message.name,
                additional_kwargs=spelled,
            )
        if message.role == "user":
            return HumanMessage(content, name=message.name)
        kwargs = {"__openai_role__": "developer"} if message.role == "developer" else {}
        return SystemMessage(content, name=message.name, additional_kwargs=kwargs)

    def copied(self, item: Any, /) -> Any:
        """A copy whose content, calls and extra fields are its own; strings are shared."""
        return item.model_copy(deep=True) if isinstance(item, BaseMessage) else leaves_copy(item)

    def speaker(self, item: Any, /) -> str | None:
        """Who said a message: the name that an agent gave to it."""
        name = getattr(item, "name", None)
        return (
            name
            if isinstance(name, str) and getattr(item, "type", "") in ("ai", "AIMessageChunk", "human")
            else None
        )


def leaves_copy(value: Any) -> Any:
    """A copy of mappings and lists, down to their leaves."""
    if isinstance(value, Mapping):
        return {key: leaves_copy(each) for key, each in value.items()}
    return [leaves_copy(each) for each in value] if isinstance(value, list | tuple) else value


def marks_in(item: Any) -> int:
    """How many breakpoints a message or a tool carries.

    >>> marks_in(HumanMessage([{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]))
    1
    """
    if isinstance(item, Mapping):
        extras = item.get("extras")
        inner = extras if isinstance(extras, Mapping) else {}
        return int(any(item.get(field) or inner.get(field) for field in MARK_FIELDS))
    content = getattr(item, "content", None)
    return sum(map(marks_in, content)) if type(content) is list else 0


# What is read


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) or value is None else leaves_of(value)


def _content_leaves(content: Any) -> tuple[Any, ...]:
    return tuple(block if isinstance(block, str) else _unmarked_leaves(block) for block in content)


def _unmarked_leaves(block: Mapping[str, Any]) -> tuple[Any, ...]:
    if MARK_FIELDS & block.keys():
        return leaves_of({key: value for key, value in block.items() if key not in MARK_FIELDS})
    return leaves_of(block)


def _parts(item: Any) -> str | list[Part]:
    content = item.content
    made = (*(getattr(item, "tool_calls", None) or ()), *(getattr(item, "invalid_tool_calls", None) or ()))
    if isinstance(content, str) and not made:
        return content
    spellings = _spellings(item) if "tool_calls" in item.additional_kwargs else {}
    calls = {call["id"]: _call(call, spellings) for call in made}
    parts: list[Part] = []
    blocks: list[Any] = [content] if isinstance(content, str) else content
    for block in blocks:
        kind = block.get("type") if isinstance(block, Mapping) else None
        if kind in _CALLS:
            call = calls.pop(block.get("call_id") if kind == "function_call" else block.get("id"), None)
            parts += [] if call is None else [call]
        elif block:
            parts.append(_part(block))
    return [*parts, *calls.values()]


def _spellings(item: Any) -> dict[str, str]:
    """The arguments of calls as the model wrote them, where the message has them."""
    raw = item.additional_kwargs["tool_calls"]
    functions = [(call.get("id"), call.get("function")) for call in raw if isinstance(call, Mapping)]
    return {
        key: function["arguments"]
        for key, function in functions
        if isinstance(key, str)
        and isinstance(function, Mapping)
        and isinstance(function.get("arguments"), str)
    }


def _call(call: Mapping[str, Any], spellings: Mapping[str, str]) -> ToolCall:
    args, spelled = call["args"], spellings.get(call["id"] or "")
    if isinstance(args, str) or args is None:
        return ToolCall(call["id"] or "", call["name"] or "", args or "")
    if spelled is not None and _loaded(spelled) == args:
        return ToolCall(call["id"] or "", call["name"] or "", spelled)
    return ToolCall(call["id"] or "", call["name"] or "", json.dumps(args, ensure_ascii=False))


def _loaded(arguments: str) -> Any:
    try:
        return json.loads(arguments) if arguments else {}
    except ValueError:
        return None


def _spelled(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _part(block: Any) -> Any:
    if isinstance(block, str):
        return Text(block)
    kind = block.get("type")
    fields = {key: value for key, value in block.items() if key not in MARK_FIELDS}
    if kind == "text":
        fields = {key: value for key, value in fields.items() if key not in _SAYS_NOTHING and value != []}
    if kind == "text" and isinstance(fields.get("text"), str) and fields.keys() <= {"type", "text", "extras"}:
        return Text(fields["text"])
    inner: Any = fields.get("image_url")
    if kind == "image_url" and fields.keys() == {"type", "image_url"}:
        inner = {"url": inner} if isinstance(inner, str) else inner
        if (
            isinstance(inner, Mapping)
            and inner.keys() <= {"url", "detail"}
            and isinstance(inner.get("url"), str)
        ):
            return Image(inner["url"], inner.get("detail"))
    return Opaque.of("any", fields)


def _inner(content: Any) -> tuple[Any, ...]:
    return tuple(_part(block) for block in content if block)


# What is written


def _content(message: Message) -> Any:
    parts = [part for part in message.parts if not isinstance(part, ToolCall)]
    if all(isinstance(part, Text) for part in parts) and len(parts) < 2:
        return message.text
    return [_block(part) for part in parts]


def _block(part: Any) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Image):
        detail = {} if part.detail is None else {"detail": part.detail}
        return {"type": "image_url", "image_url": {"url": part.url, **detail}}
    if isinstance(part, File):
        fields = {"file_data": part.url, "file_id": part.id, "filename": part.name}
        return {"type": "file", "file": {key: value for key, value in fields.items() if value is not None}}
    if isinstance(part, Reasoning):
        return {"type": "reasoning", "reasoning": part.text}
    if isinstance(part, Opaque) and part.slot == "content":
        block: dict[str, Any] = json.loads(part.json)
        return block
    raise LossyError(f"a {type(part).__name__} part has no place among LangChain's content blocks here")


def _calls(message: Message) -> tuple[list[Any], list[Any]]:
    valid: list[Any] = []
    invalid: list[Any] = []
    for call in message.tool_calls:
        args = _loaded(call.arguments)
        if isinstance(args, dict):
            valid.append({"type": "tool_call", "id": call.id, "name": call.name, "args": args})
        else:
            invalid.append(
                {
                    "type": "invalid_tool_call",
                    "id": call.id,
                    "name": call.name,
                    "args": call.arguments,
                    "error": None,
                }
            )
    return valid, invalid
