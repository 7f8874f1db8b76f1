"""The wire formats: a request body taken apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from ..errors import EncodingError, MessageError
from ..frozen import wire_json
from ..rules import Section
from .piece import (
    Piece,
    as_list,
    as_object,
    as_string,
    is_long,
    part_piece,
    parts_of,
    role_of,
    spelled,
    tool_piece,
    unmarked,
)

__all__ = ["WIRES", "Wire", "further_fields", "pieces"]

Wire = Literal["openai", "openai-responses", "anthropic", "gemini"]
INSTRUCTIONS = frozenset({"system", "developer"})
# Fields of a message that have pieces of their own or say nothing to the model, by where messages stand in the body.
_APART = {
    "messages": ("role", "content", "tool_calls"),
    "input": ("type", "role", "content", "status", "id"),
}


def pieces(body: Mapping[str, Any], wire: Wire) -> list[Piece]:
    """The pieces of a request body, in the order tools, system, messages.

    In OpenAI's formats, the system and developer messages that lead the others are system text.

    Raises ``MessageError``, naming the place, for what the format has no room for, and ``EncodingError`` for values that
    have no JSON form.

    >>> body = {"system": "Be kind.", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi",
    ...         "cache_control": {"type": "ephemeral", "ttl": "1h"}}]}]}
    >>> [(piece.path, piece.mark) for piece in pieces(body, "anthropic")]
    [('system', None), ('messages[0].content[0]', 'long')]
    """
    if wire not in _READERS:
        raise MessageError(f"unknown wire format {wire!r}: use one of {', '.join(WIRES)}")
    try:
        return list(_READERS[wire](as_object(body, "the body")))
    except UnicodeEncodeError as error:
        raise EncodingError(
            f"lone surrogate {error.object[error.start]!r}, which UTF-8 cannot carry: decode the source with "
            "errors='replace'"
        ) from None
    except RecursionError:
        raise EncodingError("the body is nested too deeply: flatten it") from None


def _chat(body: Mapping[str, Any]) -> Iterator[Piece]:
    yield from _tools(body)
    options = body.get("prompt_cache_options")
    long = isinstance(options, Mapping) and is_long(options)
    leading = True
    for index, item in enumerate(as_list(body.get("messages"), "messages")):
        path = f"messages[{index}]"
        message = as_object(item, path)
        role = role_of(message, path)
        leading = leading and role in INSTRUCTIONS
        yield from _chat_message(message, path, role, "system" if leading else "messages", long)


def _chat_message(
    message: Mapping[str, Any], path: str, role: str, section: Section, long: bool
) -> Iterator[Piece]:
    lead = _lead(role, message, "messages")
    content, calls = message.get("content"), message.get("tool_calls")
    kind = "tool_result" if role in ("tool", "function") else None
    for where, part in parts_of(content, f"{path}.content"):
        yield part_piece(section, where, role, part, lead=lead, kind=kind, long=long)
        lead = b""
    for number, item in enumerate(as_list(calls, f"{path}.tool_calls")):
        call = as_object(item, f"{path}.tool_calls[{number}]")
        yield Piece(
            section,
            f"{path}.tool_calls[{number}]",
            "tool_call",
            role,
            _call_text(call),
            lead + wire_json(call),
        )
        lead = b""
    if lead:  # a message that holds nothing
        yield Piece(section, path, "message", role, "", lead)


def _lead(role: str, message: Mapping[str, Any], place: str) -> bytes:
    """What begins a message: its role, and the fields besides its content that say something."""
    more = further_fields(message, place)
    return role.encode() + b"\x01" + (wire_json(more) if more else b"")


def further_fields(message: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The fields of a message besides its role and content that say something; ``place`` is the list that holds it.

    >>> further_fields({"role": "user", "content": "hi", "name": "ann", "refusal": None}, "messages")
    {'name': 'ann'}
    """
    known = _APART.get(place, ())
    return {key: value for key, value in message.items() if key not in known and value not in (None, [], {})}


def _call_text(call: Mapping[str, Any]) -> str:
    inner = call.get("function", call.get("custom", call))
    inner = inner if isinstance(inner, Mapping) else {}
    return f"{inner.get('name', '')}{inner.get('arguments', inner.get('input', ''))}"


def _responses(body: Mapping[str, Any]) -> Iterator[Piece]:
    yield from _tools(body)
    options = body.get("prompt_cache_options")
    long = isinstance(options, Mapping) and is_long(options)
    instructions = body.get("instructions")
    if instructions is not None:
        yield part_piece("system", "instructions", "system", as_string(instructions, "instructions"))
    given = body.get("input")
    if isinstance(given, str):
        yield part_piece("messages", "input", "user", given, lead=b"user\x01")
        return
    leading = True
    for index, item in enumerate(as_list(given, "input")):
        entry = as_object(item, f"input[{index}]")
        leading = leading and _instructs(entry)
        yield from _response_item(entry, f"input[{index}]", "system" if leading else "messages", long)


def _instructs(item: Mapping[str, Any]) -> bool:
    role = item.get("role")
    return isinstance(role, str) and role in INSTRUCTIONS


def _response_item(item: Mapping[str, Any], path: str, section: Section, long: bool) -> Iterator[Piece]:
    kind = str(item.get("type") or "message")
    if kind == "message":
        role = role_of(item, path)
        lead = _lead(role, item, "input")
        for where, part in parts_of(item.get("content"), f"{path}.content"):
            yield part_piece(section, where, role, part, lead=lead, long=long)
            lead = b""
        if lead:
            yield Piece(section, path, "message", role, "", lead)
    elif kind.endswith("_call_output"):
        parts = list(parts_of(item.get("output"), f"{path}.output"))
        inner = [part_piece(section, where, "tool", part, long=long) for where, part in parts]
        mark = next((piece.mark for piece in reversed(inner) if piece.mark), None)
        text = "".join(piece.text for piece in inner)
        wire = wire_json(unmarked(item))
        yield Piece(section, path, kind, "tool", text, wire, mark, sum(piece.images for piece in inner))
    else:
        text = _call_text(item) if kind.endswith("_call") and "name" in item else wire_json(item).decode()
        yield Piece(section, path, kind, "assistant", text, wire_json(item))


def _anthropic(body: Mapping[str, Any]) -> Iterator[Piece]:
    yield from _tools(body)
    for where, part in parts_of(body.get("system"), "system"):
        yield part_piece("system", where, "system", part)
    for index, item in enumerate(as_list(body.get("messages"), "messages")):
        message = as_object(item, f"messages[{index}]")
        role = role_of(message, f"messages[{index}]")
        # Consecutive messages of one role are one turn to the model: anthropic 2.12.0, types/message_create_params.py.
        for where, part in parts_of(message.get("content"), f"messages[{index}].content"):
            yield part_piece("messages", where, role, part, lead=role.encode() + b"\x01")


def _gemini(body: Mapping[str, Any]) -> Iterator[Piece]:
    for index, item in enumerate(as_list(body.get("tools"), "tools")):
        tool = as_object(item, f"tools[{index}]")
        declared = tool.get("functionDeclarations", tool.get("function_declarations"))
        path = f"tools[{index}].functionDeclarations"
        for number, one in enumerate(as_list(declared, path)):
            yield tool_piece(one, f"{path}[{number}]")
        if declared is None:
            yield tool_piece(tool, f"tools[{index}]")
    system = body.get("systemInstruction", body.get("system_instruction"))
    if system is not None:
        yield from _content(system, "systemInstruction", "system")
    contents = body.get("contents")
    for index, item in enumerate(
        [contents] if isinstance(contents, Mapping) else as_list(contents, "contents")
    ):
        yield from _content(item, f"contents[{index}]", "messages")


def _content(item: Any, path: str, section: Section) -> Iterator[Piece]:
    content = {"parts": [{"text": item}]} if isinstance(item, str) else as_object(item, path)
    role = "system" if section == "system" else str(content.get("role") or "user")
    lead = role.encode() + b"\x01"
    for number, value in enumerate(as_list(content.get("parts"), f"{path}.parts")):
        yield _gemini_part(
            as_object(value, f"{path}.parts[{number}]"), f"{path}.parts[{number}]", role, section, lead
        )
        lead = b""


def _gemini_part(part: Mapping[str, Any], path: str, role: str, section: Section, lead: bytes) -> Piece:
    wire = lead + wire_json(part)
    if isinstance(part.get("text"), str):
        return Piece(section, path, "text", role, part["text"], wire)
    call = part.get("functionCall", part.get("function_call"))
    if isinstance(call, Mapping):
        text = f"{call.get('name', '')}{spelled(call.get('args'))}"
        return Piece(section, path, "function_call", role, text, wire)
    answer = part.get("functionResponse", part.get("function_response"))
    if isinstance(answer, Mapping):
        return Piece(section, path, "function_response", role, spelled(answer.get("response")), wire)
    blob = part.get("inlineData", part.get("inline_data", part.get("fileData", part.get("file_data"))))
    if isinstance(blob, Mapping):
        image = str(blob.get("mimeType", blob.get("mime_type", ""))).startswith("image/")
        return Piece(section, path, "image" if image else "file", role, "", wire, None, int(image))
    return Piece(section, path, "part", role, wire_json(part).decode(), wire)


def _tools(body: Mapping[str, Any]) -> Iterator[Piece]:
    for key in ("tools", "functions"):
        for index, item in enumerate(as_list(body.get(key), key)):
            yield tool_piece(item, f"{key}[{index}]")


_READERS: dict[str, Callable[[Mapping[str, Any]], Iterator[Piece]]] = {
    "openai": _chat,
    "openai-responses": _responses,
    "anthropic": _anthropic,
    "gemini": _gemini,
}
WIRES = tuple(_READERS)
