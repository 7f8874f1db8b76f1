"""Items of OpenAI's Responses API as message parts; ``openai_items`` says which parts they become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

from ..errors import DialectError, LossyError, MessageError, PairingError
from ..frozen import FrozenDict, check_text
from ..messages import File, Image, Message, Opaque, Part, Role, Text, ToolCall, ToolResult
from .openai_items import ANSWERS, CUSTOM, NAME, TEXTS, is_address, is_gap, to_items

__all__ = ["from_items", "from_output", "to_input"]

Item: TypeAlias = Mapping[str, Any]

_CALLS = {answer: call for call, answer in ANSWERS.items()}
_OUTPUTS = frozenset({"function_call_output", *_CALLS})
_FILE = {"file_data": "url", "file_url": "url", "file_id": "id", "filename": "name"}


def from_output(output: object) -> list[Part]:
    """The parts of a reply, from the output items of a response.

    Ids, and the status ``completed``, stay where a reply holds more than whole messages and function calls: reasoning
    belongs to the items behind it, and goes back with them as they came. Elsewhere they say nothing and are left out.

    >>> text = {"type": "output_text", "text": "hi", "annotations": []}
    >>> from_output([{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}])
    [Text(text=<2>)]
    """
    if not isinstance(output, list | tuple) or not all(isinstance(item, Mapping) for item in output):
        raise DialectError(f"the response's output is a {type(output).__name__}: expected a list of items")
    items = [_cleaned(item) for item in output]
    if all(map(_stands_alone, items)):
        items = [_unnamed(item) for item in items]
    return _parts(items, "assistant")


def _stands_alone(item: Item) -> bool:
    spoken = _type_of(item) == "message" and item.get("role") == "assistant"
    return (spoken or _type_of(item) == "function_call") and item.get("status", "completed") == "completed"


def _cleaned(item: Item) -> Item:
    """An item without fields that are null, and without what the SDK's parsing helpers add."""
    kept = {key: value for key, value in item.items() if value is not None and key != "parsed_arguments"}
    if _type_of(kept) == "message" and isinstance(kept.get("content"), list | tuple):
        kept["content"] = [_cleaned_part(part) for part in kept["content"]]
    return kept


def _cleaned_part(part: Any) -> Any:
    if not isinstance(part, Mapping):
        return part
    return {key: value for key, value in part.items() if value is not None and key != "parsed"}


def _unnamed(item: Item) -> Item:
    return {key: value for key, value in item.items() if key not in ("id", "status")}


def from_items(items: Sequence[Item]) -> Message:
    """One message from the items that it is sent as.

    >>> from_items([{"role": "user", "content": "hi"}]).text
    'hi'
    """
    kinds = [_type_of(item) for item in items]
    spoken = [str(item.get("role")) for item, kind in zip(items, kinds, strict=True) if kind == "message"]
    if spoken and spoken[0] != "assistant":
        role = spoken[0]
    else:
        role = "tool" if kinds and _OUTPUTS.issuperset(kinds) else "assistant"
    return Message(cast(Role, role), _parts(items, role))


def to_input(message: Message) -> list[FrozenDict]:
    """The items of a message, strictly: ``from_items`` gives an equal message back, or ``LossyError`` is raised.

    >>> to_input(Message("tool", [ToolResult("call_1", "42")]))
    [{'type': 'function_call_output', 'call_id': 'call_1', 'output': '42'}]
    """
    items = list(to_items(message))
    if from_items(items) != message:
        raise LossyError(
            f"the {message.role} message does not come back equal from the Responses API (it has no field that flags a "
            "tool result as an error, and no place for names)"
        )
    return items


def _type_of(item: Item) -> str:
    return str(item.get("type", "message" if "role" in item else None))


def _parts(items: Sequence[Item], role: str) -> list[Part]:
    answered = {item.get("call_id") for item in items if _type_of(item) in _CALLS}
    parts: list[Part] = []
    joins = False  # whether a message item would be taken into the one before it
    for item in items:
        found = _of_message(item, role, whole=joins) if _type_of(item) == "message" else None
        joins = found is not None and not _is_shell(found[0])
        parts += [_of_item(item, role, answered)] if found is None else found
    return parts


def _is_shell(part: Part) -> bool:
    return isinstance(part, Opaque) and part.slot == "message"


def _of_item(item: Item, role: str, answered: set[Any]) -> Part:
    kind, call_id = _type_of(item), item.get("call_id")
    if kind == "function_call":
        return _call(item)
    if kind in _OUTPUTS and role != "assistant":
        return _result(item, kind)
    here = kind != "tool_search_call" or item.get("execution") == "client"
    if kind in ANSWERS and here and isinstance(call_id, str) and call_id not in answered:
        return Opaque.of(NAME, {"id": f"{kind}:{call_id}", "type": kind, kind: item}, "tool_calls")
    return Opaque.of(NAME, item, "item")


def _of_message(item: Item, role: str, *, whole: bool) -> list[Part] | None:
    """The parts of a message item; ``None`` if it is no message of that role. ``whole`` keeps it an item of its own."""
    content = item.get("content")
    kind = "output_text" if role == "assistant" else "input_text"
    if isinstance(content, str):
        content = [{"type": kind, "text": content}]
    if item.get("role") != role or not isinstance(content, list | tuple) or not content:
        return None
    if not all(isinstance(part, Mapping) for part in content) or any(map(is_gap, content)):
        return None
    texts = [part["text"] for part in content if _is_text(part)]
    plain = role != "assistant" or all(_is_plain_text(part, kind) for part in content if _is_text(part))
    if plain and not whole and item.keys() <= {"type", "role", "content"}:
        return [_of_content(part, kind) for part in content]
    gaps = [{**part, "text": None} if _is_text(part) else part for part in content]
    shell = Opaque.of(NAME, {**item, "content": gaps}, "message")
    return [shell, *(Text(check_text(text, kind)) for text in texts)]


def _is_text(part: Item) -> bool:
    return part.get("type") in TEXTS and isinstance(part.get("text"), str)


def _is_plain_text(part: Item, kind: str) -> bool:
    says_more = any(part[key] for key in part if key not in ("type", "text"))
    known = part.keys() <= {"type", "text", "annotations", "logprobs"}
    return part.get("type") == kind and isinstance(part.get("text"), str) and known and not says_more


def _of_content(part: Any, kind: str = "input_text") -> Text | Image | File | Opaque:
    if not isinstance(part, Mapping):
        raise MessageError(f"content holds a {type(part).__name__}: parts are mappings with 'type'")
    if _is_plain_text(part, kind):
        return Text(check_text(part["text"], kind))
    fields = {key: value for key, value in part.items() if key != "type"}
    if all(isinstance(value, str) for value in fields.values()):
        found = part.get("type"), frozenset(fields)
        if found == ("refusal", frozenset({"refusal"})) and kind == "output_text":
            return Opaque.of("openai", fields["refusal"], "field:refusal")
        if found[0] == "input_image" and {"image_url"} <= found[1] <= {"image_url", "detail"}:
            return Image(fields["image_url"], fields.get("detail"))
        if found[0] == "input_file" and _names_one_file(fields):
            return File(**{_FILE[key]: value for key, value in fields.items()})
    return Opaque.of(NAME, part)


def _names_one_file(fields: Mapping[str, str]) -> bool:
    """Whether a ``File`` says the same, and leads back to the same fields."""
    url = fields.get("file_url", fields.get("file_data"))
    return (
        set(fields) <= set(_FILE)
        and len({"file_url", "file_data"} & set(fields)) <= 1
        and not set(fields) <= {"filename"}
        and (url is None or is_address(url) == ("file_url" in fields))
    )


def _call(item: Item) -> ToolCall:
    call_id, name, arguments = (item.get(key) for key in ("call_id", "name", "arguments"))
    if not isinstance(call_id, str) or not isinstance(name, str):
        raise MessageError(f"a function call needs call_id and name: found the fields {list(item)}")
    if not isinstance(arguments, str):
        raise MessageError(
            f"call {call_id!r}: arguments is a {type(arguments).__name__}, not the string that the model wrote"
        )
    rest = {key: value for key, value in item.items() if key not in ("type", "call_id", "name", "arguments")}
    extra = Opaque.of(NAME, rest, "tool_call") if rest else None
    return ToolCall(call_id, name, check_text(arguments, "arguments"), extra)


def _result(item: Item, kind: str) -> ToolResult:
    call = _CALLS.get(kind)
    call_id = item.get("id") if kind == "local_shell_call_output" else item.get("call_id")
    if not isinstance(call_id, str):
        raise PairingError(f"an item of type {kind!r} needs the id of its call, found {call_id!r}")
    named = call_id if call is None else f"{call}:{call_id}"
    output = item.get("output")
    if call in (None, CUSTOM) and item.keys() == {"type", "call_id", "output"}:
        if isinstance(output, str):
            return ToolResult(named, check_text(output, "output"))
        if isinstance(output, list | tuple):
            return ToolResult(named, tuple(_of_content(part) for part in output))
    return ToolResult(named, (Opaque.of(NAME, item, "item"),))
