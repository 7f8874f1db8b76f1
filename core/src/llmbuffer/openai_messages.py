"""Messages to and from OpenAI's chat format, without loss in either direction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from .errors import LossyError, MessageError, PairingError
from .frozen import check_text, thawed
from .messages import File, Image, Message, Opaque, Part, Reasoning, Role, Text, ToolCall, ToolResult

__all__ = ["content_item", "from_openai", "to_openai", "wire_message"]

_KNOWN = {"role", "content", "name", "tool_calls", "tool_call_id"}


def from_openai(message: Mapping[str, Any]) -> Message:
    """One message of OpenAI's chat format as a ``Message``; see ``Message.from_openai``."""
    if not isinstance(message, Mapping):
        raise MessageError(f"a message is a mapping with 'role' and 'content', not {type(message).__name__}")
    role = message.get("role")
    if role == "tool":
        return _tool_message(message)
    if message.get("tool_call_id") is not None:
        raise PairingError(f"a {role!r} message carries tool_call_id: only 'tool' messages do")
    shape, parts = _content(message)
    reasoning = message.get("reasoning_content")
    if isinstance(reasoning, str):
        parts.insert(0, Reasoning(check_text(reasoning, "reasoning_content")))
    calls = message.get("tool_calls")
    if calls is not None and not isinstance(calls, list | tuple):
        raise MessageError(f"tool_calls is a {type(calls).__name__}: give a list of calls, or None")
    parts += map(_call, calls or ())
    parts += _fields(message, reasons=True)
    return Message(cast(Role, role), parts, message.get("name"), _shape=shape)


def _fields(message: Mapping[str, Any], *, reasons: bool) -> list[Part]:
    """What has no part of its own; of the known fields, those that say nothing (null, an empty list)."""
    return [
        Opaque.of("openai", value, f"field:{_key(key)}")
        for key, value in message.items()
        if not _has_part(key, value, reasons=reasons)
    ]


def _has_part(key: object, value: object, *, reasons: bool) -> bool:
    if key == "reasoning_content":
        return reasons and isinstance(value, str)
    return key == "content" or (key in _KNOWN and value is not None and value not in ([], ()))


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise MessageError(f"the field {key!r} is a {type(key).__name__}: fields of a message are strings")
    return check_text(key, "field")


def _content(message: Mapping[str, Any]) -> tuple[str | None, list[Part]]:
    if "content" not in message:
        return "absent", []
    content = message["content"]
    if content is None:
        return "null", []
    if isinstance(content, str):
        return None, [Text(check_text(content, "content"))]
    if isinstance(content, list | tuple):
        return "parts", [_part(item, f"content[{index}]") for index, item in enumerate(content)]
    raise MessageError(f"content is a {type(content).__name__}: give a string, a list of parts or None")


def _part(item: object, path: str) -> Text | Image | File | Opaque:
    if isinstance(item, str):
        raise MessageError(f"{path} is a bare string: write {{'type': 'text', 'text': …}}")
    if not isinstance(item, Mapping):
        raise MessageError(f"{path} is a {type(item).__name__}: parts are mappings with 'type'")
    kind = item.get("type")
    inner = item.get("image_url") if kind == "image_url" else item.get("file")
    if kind == "text" and set(item) == {"type", "text"} and isinstance(item["text"], str):
        return Text(check_text(item["text"], f"{path}.text"))
    if (
        kind == "image_url"
        and set(item) == {"type", "image_url"}
        and _only_strings(inner, {"url"}, {"detail"})
    ):
        return Image(**cast(dict[str, str], dict(cast(Mapping[str, str], inner))))
    if kind == "file" and set(item) == {"type", "file"} and _only_strings(inner, set(), set(_FILE)):
        return File(**{_FILE[key]: value for key, value in cast(Mapping[str, str], inner).items()})
    return Opaque.of("openai", item)


_FILE = {"file_data": "url", "file_id": "id", "filename": "name"}


def _only_strings(value: object, needed: set[str], allowed: set[str]) -> bool:
    if not isinstance(value, Mapping) or not needed <= set(value) <= needed | allowed:
        return False
    return bool(value) and all(isinstance(item, str) for item in value.values())


def _call(call: object) -> Part:
    if not isinstance(call, Mapping):
        raise MessageError(f"a tool call is a mapping with 'id' and 'function', not {type(call).__name__}")
    function = call.get("function")
    plain = call.get("type") == "function" and isinstance(call.get("id"), str)
    if plain and isinstance(function, Mapping) and set(function) == {"name", "arguments"}:
        if isinstance(function["arguments"], str) and isinstance(function["name"], str):
            rest = {key: value for key, value in call.items() if key not in ("id", "type", "function")}
            extra = Opaque.of("openai", rest, "tool_call") if rest else None
            return ToolCall(
                call["id"], function["name"], check_text(function["arguments"], "arguments"), extra
            )
        raise MessageError(
            f"call {call['id']!r}: arguments is a {type(function['arguments']).__name__}, not the string that the "
            "model wrote; pass json.dumps(arguments)"
        )
    if isinstance(call.get("id"), str):
        return Opaque.of("openai", call, "tool_calls")
    raise MessageError(f"a tool call has no id: found keys {list(call)}")


def _tool_message(message: Mapping[str, Any]) -> Message:
    call_id = message.get("tool_call_id")
    if not isinstance(call_id, str):
        raise PairingError(f"a tool message needs tool_call_id, found {call_id!r}")
    if message.get("tool_calls"):
        raise PairingError(
            f"the tool message for call {call_id!r} makes calls itself: only 'assistant' messages do"
        )
    shape, parts = _content(message)
    content: Any = parts[0].text if shape is None and isinstance(parts[0], Text) else tuple(parts)
    fields = _fields(message, reasons=False)
    return Message("tool", [ToolResult(call_id, content), *fields], message.get("name"), _shape=shape)


def to_openai(message: Message) -> dict[str, Any]:
    """A ``Message`` in OpenAI's chat format, strictly: what does not come back equal raises ``LossyError``."""
    wire = wire_message(message)
    if from_openai(wire) != message:
        raise LossyError(
            f"the {message.role} message does not come back equal from OpenAI's chat format (it has no field that flags "
            "a tool result as an error, and tells the order of text and calls in one way only)"
        )
    return wire


def wire_message(message: Message) -> dict[str, Any]:
    """A message as it is sent: all its content, though the flag of an error result and the order of parts may go.

    Raises ``LossyError`` for content that has no place there.
    """
    if message.role == "tool":
        return _from_tool(message)
    out: dict[str, Any] = {"role": message.role}
    items = [content_item(part) for part in message.parts if _in_content(part)]
    if message._shape != "absent":
        out["content"] = _shaped(items, message._shape)
    if message.name is not None:
        out["name"] = message.name
    calls = [call_item(part) for part in message.parts if _is_call(part)]
    if calls:
        out["tool_calls"] = calls
    _put_fields(out, message)
    return out


def _shaped(items: list[dict[str, Any]], shape: str | None) -> Any:
    if not items:
        return [] if shape == "parts" else None
    if len(items) == 1 and shape != "parts" and items[0].keys() == {"type", "text"}:
        return items[0]["text"]
    return items


def _from_tool(message: Message) -> dict[str, Any]:
    results = message.tool_results
    if len(results) != 1 or any(not isinstance(part, ToolResult | Opaque) for part in message.parts):
        raise LossyError(
            f"a tool message with {len(results)} results and {len(message.parts)} parts has no single OpenAI "
            "message; make one message for each result"
        )
    content: Any = results[0].content
    if not isinstance(content, str):
        content = None if message._shape == "null" else [content_item(part) for part in content]
    out: dict[str, Any] = {"role": "tool", "tool_call_id": results[0].call_id, "content": content}
    if message._shape == "absent":
        del out["content"]
    if message.name is not None:
        out["name"] = message.name
    _put_fields(out, message)
    return out


def _put_fields(out: dict[str, Any], message: Message) -> None:
    elsewhere = () if message.role == "tool" else ("content", "tool_calls")
    for part in message.parts:
        if isinstance(part, Opaque) and part.slot not in elsewhere:
            _own(part)
            if not part.slot.startswith("field:"):
                raise LossyError(
                    f"an opaque part of slot {part.slot!r} has no place in a {message.role} message"
                )
            out[part.slot.removeprefix("field:")] = thawed(part.value)
        elif isinstance(part, ToolResult) and message.role != "tool":
            raise LossyError(
                f"a tool result in a {message.role!r} message has no place in OpenAI's chat format"
            )
        elif isinstance(part, Reasoning):
            if "reasoning_content" in out:
                raise LossyError("two reasoning parts: OpenAI's chat format has one field for them")
            out["reasoning_content"] = part.text


def _in_content(part: Part) -> bool:
    return isinstance(part, Text | Image | File) or (isinstance(part, Opaque) and part.slot == "content")


def _is_call(part: Part) -> bool:
    return isinstance(part, ToolCall) or (isinstance(part, Opaque) and part.slot == "tool_calls")


def _own(part: Opaque) -> None:
    if part.dialect not in ("openai", "any"):
        raise LossyError(
            f"an opaque {part.dialect!r} part has no place in OpenAI's chat format; fork the session from before "
            "it, or drop it on purpose"
        )


def content_item(part: Part) -> dict[str, Any]:
    """One content part in OpenAI's chat format; raises ``LossyError`` where it has no place there."""
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Image):
        detail = {} if part.detail is None else {"detail": part.detail}
        return {"type": "image_url", "image_url": {"url": part.url, **detail}}
    if isinstance(part, File):
        fields = {key: getattr(part, field) for key, field in _FILE.items()}
        return {"type": "file", "file": {key: value for key, value in fields.items() if value is not None}}
    if isinstance(part, Opaque):
        _own(part)
        return cast(dict[str, Any], thawed(part.value))
    raise LossyError(f"a {type(part).__name__} part has no place in OpenAI's content list")


def call_item(part: Part) -> dict[str, Any]:
    """One tool call in OpenAI's chat format."""
    if isinstance(part, ToolCall):
        if part.extra is not None:
            _own(part.extra)
        extra = {} if part.extra is None else thawed(part.extra.value)
        return {
            "id": part.id,
            "type": "function",
            "function": {"name": part.name, "arguments": part.arguments},
            **extra,
        }
    assert isinstance(part, Opaque)
    _own(part)
    return cast(dict[str, Any], thawed(part.value))
