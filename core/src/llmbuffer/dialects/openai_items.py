"""Message parts as items of OpenAI's Responses API.

A neutral message is a run of items here. What has no neutral part travels as an ``Opaque`` part of the dialect
``openai-responses``, by its slot:

* ``content``: a content part of a message item (an image by its id);
* ``message``: a message item of a reply whose id, phase or annotations matter. It is kept whole but for its texts, which
  stand empty (null) in it and follow as ``Text`` parts;
* ``tool_calls``: a call that the program answers and that is no function call, as ``{"id", "type", TYPE: item}``. Its
  id names its type (``custom_tool_call:call_1``), since each type is answered by an item of its own;
* ``item``: any other item (reasoning, server tools, compaction). As the only content of a ``ToolResult`` it is the item
  that answers the call.

A refusal is one of ``openai``, as in chat completions, so that it can be told there as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from ..errors import LossyError
from ..frozen import FrozenDict, FrozenList
from ..messages import File, Image, Message, Opaque, Part, Text, ToolCall, ToolResult

__all__ = ["ANSWERS", "CUSTOM", "NAME", "TEXTS", "input_text", "is_address", "is_gap", "to_items"]

NAME = "openai-responses"
CUSTOM = "custom_tool_call"
# Calls besides function calls that the program answers, each by an item of its own:
# openai 3.54.0, types/responses/response_input_item_param.py
ANSWERS = {
    "apply_patch_call": "apply_patch_call_output",
    "computer_call": "computer_call_output",
    CUSTOM: "custom_tool_call_output",
    "local_shell_call": "local_shell_call_output",
    "shell_call": "shell_call_output",
    "tool_search_call": "tool_search_output",
}
TEXTS = frozenset({"input_text", "output_text"})
_NOTHING = FrozenList()
_INPUT = frozenset({"input_text", "input_image", "input_file"})


def input_text(text: str) -> FrozenDict:
    """A text part of a message that is not the model's."""
    return FrozenDict(type="input_text", text=text)


def to_items(message: Message, role: str | None = None) -> tuple[FrozenDict, ...]:
    """The items of one message, as they are sent; none for a message without parts. ``role`` replaces the message's own.

    Raises ``LossyError`` for parts that have no place here.

    >>> to_items(Message("user", "hi"))
    ({'role': 'user', 'content': [{'type': 'input_text', 'text': 'hi'}]},)
    """
    role = message.role if role is None else role
    if message.name is not None and message.role != "tool":
        raise LossyError(
            f"the {message.role} message names its speaker {message.name!r}, which the Responses API has no field for: "
            "put the name into the text"
        )
    items: list[FrozenDict] = []
    content: list[FrozenDict] = []
    parts = iter(message.parts)
    for part in parts:
        if _says_nothing(part):
            continue
        if _in_content(part):
            content.append(_content_part(part, role))
            continue
        _close(items, content, role)
        items.append(_item(part, parts, role))
    _close(items, content, role)
    return tuple(items)


def _close(items: list[FrozenDict], content: list[FrozenDict], role: str) -> None:
    """End the message item under way."""
    if not content:
        return
    if role == "tool":
        raise LossyError("text beside a tool result has no place in the Responses API; give it to the result")
    head = {"type": "message", "role": role} if role == "assistant" else {"role": role}
    items.append(FrozenDict(head, content=FrozenList(content)))
    content.clear()


def _says_nothing(part: Part) -> bool:
    """Fields of chat completions that say nothing: ``"refusal": null``, ``"annotations": []``."""
    return (
        isinstance(part, Opaque) and part.slot.startswith("field:") and part.json in (b"null", b"[]", b"{}")
    )


def _in_content(part: Part) -> bool:
    return isinstance(part, Text | Image | File) or (
        isinstance(part, Opaque) and part.slot in ("content", "field:refusal")
    )


def _content_part(part: Part, role: str) -> FrozenDict:
    if isinstance(part, Opaque):
        return _opaque_content(part, role)
    if role == "assistant":
        if isinstance(part, Text):
            return FrozenDict(type="output_text", text=part.text, annotations=_NOTHING)
        raise LossyError(f"an assistant message with a {type(part).__name__}: replies hold text only here")
    if isinstance(part, Text):
        return input_text(part.text)
    if isinstance(part, Image):
        detail = {} if part.detail is None else {"detail": part.detail}
        return FrozenDict(type="input_image", image_url=part.url, **detail)
    assert isinstance(part, File)
    return _file(part)


def _file(part: File) -> FrozenDict:
    if part.url is None and part.id is None:
        raise LossyError(f"file {part.name!r} has neither data nor id")
    url = "file_url" if part.url is not None and is_address(part.url) else "file_data"
    fields = {url: part.url, "file_id": part.id, "filename": part.name}
    given = {key: value for key, value in fields.items() if value is not None}
    return FrozenDict({"type": "input_file", **given})


def is_address(url: str) -> bool:
    """Whether a file is told by its address, not by its data."""
    return "://" in url[:32] and not url.startswith("data:")


def _opaque_content(part: Opaque, role: str) -> FrozenDict:
    if part.dialect != "openai":
        return _own(part)
    value = part.value
    if part.slot == "field:refusal" and isinstance(value, str) and role == "assistant":
        return FrozenDict(type="refusal", refusal=value)
    if role != "assistant" and part.slot == "content" and isinstance(value, Mapping):
        kind = value.get("type")
        inner = value.get(str(kind))
        rest = {key: field for key, field in value.items() if key not in ("type", kind)}
        if kind in _INPUT:
            return cast(FrozenDict, value)
        if kind == "text" and isinstance(inner, str):
            return FrozenDict(input_text(inner), **rest)
        if kind == "image_url" and isinstance(inner, Mapping) and "url" in inner:
            named = {"image_url" if key == "url" else key: field for key, field in inner.items()}
            return FrozenDict({"type": "input_image", **named, **rest})
        if kind == "file" and isinstance(inner, Mapping):
            return FrozenDict({"type": "input_file", **inner, **rest})
    return _own(part)


def _own(part: Opaque) -> FrozenDict:
    value = part.value
    if (
        part.dialect not in (NAME, "any")
        or part.slot.startswith("field:")
        or not isinstance(value, FrozenDict)
    ):
        raise LossyError(
            f"an opaque {part.dialect!r} part ({part.slot}) has no place in the Responses API; fork the session from "
            "before it, or drop it on purpose"
        )
    return value


def _item(part: Part, rest: Iterator[Part], role: str) -> FrozenDict:
    if isinstance(part, ToolCall):
        if _kind_of(part.id) != "function_call":
            raise LossyError(f"call {part.id!r} of tool {part.name!r}: function calls have no such id here")
        extra = FrozenDict() if part.extra is None else _own(part.extra)
        fields = {"call_id": part.id, "name": part.name, "arguments": part.arguments, **extra}
        return FrozenDict({"type": "function_call", **fields})
    if isinstance(part, ToolResult):
        return _answer(part)
    if not isinstance(part, Opaque):
        raise LossyError(
            f"a {type(part).__name__} part is unsigned, and the Responses API takes reasoning items of its own; drop it "
            "first"
        )
    value = _own(part)
    if part.slot == "message":
        return _filled(value, rest)
    if part.slot == "tool_calls":
        inner = value.get(str(value.get("type")))
        if not isinstance(inner, FrozenDict):
            raise LossyError("an opaque call that holds no item: write {'id': …, 'type': KIND, KIND: item}")
        return inner
    if part.slot != "item":
        raise LossyError(f"an opaque part of slot {part.slot!r} has no place in a {role} message here")
    return value


def _filled(item: FrozenDict, rest: Iterator[Part]) -> FrozenDict:
    """A message item with its texts, which follow it."""
    content = item.get("content")
    if not isinstance(content, list):
        raise LossyError("an opaque message item has no list of content parts")
    filled = FrozenList(_with_text(each, rest) if is_gap(each) else each for each in content)
    return FrozenDict({**item, "content": filled})


def _with_text(gap: Mapping[str, Any], rest: Iterator[Part]) -> FrozenDict:
    text = next(rest, None)
    if not isinstance(text, Text):
        raise LossyError("a message item of the Responses API misses one of the texts that stood in it")
    return FrozenDict({**gap, "text": text.text})


def is_gap(part: object) -> bool:
    """Whether a content part waits for its text."""
    return isinstance(part, Mapping) and part.get("type") in TEXTS and part.get("text", "") is None


def _kind_of(call_id: str) -> str:
    """The type of call that an id tells."""
    kind, colon, _ = call_id.partition(":")
    return kind if colon and kind in ANSWERS else "function_call"


def _answer(result: ToolResult) -> FrozenDict:
    kind, content = _kind_of(result.call_id), result.content
    if not isinstance(content, str):
        items = [part for part in content if isinstance(part, Opaque) and part.slot == "item"]
        if items and len(content) == 1:
            return _own(items[0])
    if kind in ("function_call", CUSTOM):
        call_id = result.call_id if kind == "function_call" else result.call_id.partition(":")[2]
        output = (
            content
            if isinstance(content, str)
            else FrozenList(_content_part(part, "tool") for part in content)
        )
        return FrozenDict(type=f"{kind}_output", call_id=call_id, output=output)
    return _other_answer(kind, result)


def _other_answer(kind: str, result: ToolResult) -> FrozenDict:
    """The answer to a call of a provider's own kind: from a text, or an image of the screen, where that is enough."""
    call_id, content, failed = result.call_id.partition(":")[2], result.content, result.is_error
    head = {"type": ANSWERS[kind], "call_id": call_id}
    if kind == "local_shell_call" and isinstance(content, str):
        return FrozenDict(type=head["type"], id=call_id, output=content)
    if kind == "apply_patch_call" and isinstance(content, str):
        return FrozenDict(head, status="failed" if failed else "completed", output=content)
    if kind == "shell_call" and isinstance(content, str):
        end = FrozenDict(type="exit", exit_code=int(failed))
        streams = {"stdout": "" if failed else content, "stderr": content if failed else ""}
        return FrozenDict(head, output=FrozenList([FrozenDict(streams, outcome=end)]))
    if kind == "computer_call" and len(content) == 1 and isinstance(content[0], Image):
        screen = FrozenDict(type="computer_screenshot", image_url=content[0].url)
        return FrozenDict(head, output=screen)
    raise LossyError(
        f"call {result.call_id!r} is answered by an item of its own: give ToolResult({result.call_id!r}, "
        f"(Opaque.of({NAME!r}, {{'type': {ANSWERS[kind]!r}, …}}, 'item'),))"
    )
