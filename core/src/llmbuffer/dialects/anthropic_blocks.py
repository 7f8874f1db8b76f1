"""Message parts to and from Anthropic's content blocks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import DialectError, LossyError
from ..frozen import FrozenDict, FrozenList, check_text, freeze
from ..messages import File, Image, Message, Opaque, Part, Text, ToolCall, ToolResult
from .base import json_object

__all__ = ["block_kind", "from_blocks", "from_message", "text_block", "to_blocks", "to_message"]


def text_block(text: str) -> FrozenDict:
    """A text block."""
    return FrozenDict(type="text", text=text)


def block_kind(block: Mapping[str, Any]) -> str:
    """The kind of a block, as marks and look-back see it."""
    return str(block.get("type"))


def to_blocks(message: Message) -> tuple[FrozenDict, ...]:
    """The content blocks of one message. Empty texts are left out: the API refuses them.

    Raises ``LossyError`` for parts that have no place here, such as arguments that are no JSON object.
    """
    _refuse_name(message)
    if isinstance(message._content, str):
        return (text_block(message._content),) if message._content.strip() else ()
    blocks = [_block(part) for part in message._content if not _says_nothing(part)]
    # The API wants the results first when one user message answers calls and says more.
    return tuple(sorted(blocks, key=lambda block: block.get("type") != "tool_result"))


def _refuse_name(message: Message) -> None:
    if message.name is not None and message.role != "tool":
        raise LossyError(
            f"the {message.role} message names its speaker {message.name!r}, which Anthropic has no field for: put the "
            "name into the text"
        )


def _says_nothing(part: Part) -> bool:
    if isinstance(part, Text):
        return not part.text.strip()
    # Fields of OpenAI's replies that say nothing: "refusal": null, "annotations": [].
    return (
        isinstance(part, Opaque) and part.slot.startswith("field:") and part.json in (b"null", b"[]", b"{}")
    )


def _block(part: Part) -> FrozenDict:
    if isinstance(part, Text):
        return text_block(part.text)
    if isinstance(part, Image):
        return _image(part)
    if isinstance(part, File):
        return _document(part)
    if isinstance(part, ToolCall):
        extra = FrozenDict() if part.extra is None else _own(part.extra)
        return FrozenDict(
            {"type": "tool_use", "id": part.id, "name": part.name, "input": _object(part), **extra}
        )
    if isinstance(part, ToolResult):
        return _result(part)
    if isinstance(part, Opaque):
        return _own(part)
    raise LossyError(
        f"a {type(part).__name__} part is unsigned, and Anthropic takes signed thinking only; drop it first"
    )


def _own(part: Opaque) -> FrozenDict:
    if part.dialect not in ("anthropic", "any") or part.slot.startswith("field:"):
        raise LossyError(
            f"an opaque {part.dialect!r} part ({part.slot}) has no place in Anthropic's format; fork the session from "
            "before it, or drop it on purpose"
        )
    value = part.value
    if not isinstance(value, FrozenDict):
        raise LossyError(
            f"an opaque {part.dialect!r} part is a {type(value).__name__}: content blocks are objects"
        )
    return value


def _object(call: ToolCall) -> FrozenDict:
    return json_object(call, "Anthropic") if call.arguments.strip() else FrozenDict()


def _result(part: ToolResult) -> FrozenDict:
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": part.call_id}
    if isinstance(part.content, str):
        block["content"] = part.content
    else:
        block["content"] = FrozenList(_block(item) for item in part.content if not _says_nothing(item))
    if part.is_error:
        block["is_error"] = True
    return FrozenDict(block)


def _image(part: Image) -> FrozenDict:
    if part.detail not in (None, "auto"):
        raise LossyError(f"image detail {part.detail!r} has no place in Anthropic's format; leave it out")
    return FrozenDict(type="image", source=_source(part.url))


def _document(part: File) -> FrozenDict:
    if part.id is not None and part.url is not None:
        raise LossyError(f"file {part.name!r} has both data and an id, and Anthropic takes one source")
    if part.id is not None:
        source = FrozenDict(type="file", file_id=part.id)
    elif part.url is not None:
        source = _source(part.url)
    else:
        raise LossyError(f"file {part.name!r} has neither data nor id")
    title = {} if part.name is None else {"title": part.name}
    return FrozenDict(type="document", source=source, **title)


def _source(url: str) -> FrozenDict:
    if not url.startswith("data:"):
        if "://" not in url[:32]:
            raise LossyError(f"{url[:16]!r}… is neither an address nor a data URL: give one of them")
        return FrozenDict(type="url", url=url)
    head, _, data = url.partition(",")
    if not head.endswith(";base64"):
        raise LossyError(f"data URL {head!r} is not base64")
    return FrozenDict(type="base64", media_type=head[len("data:") : -len(";base64")], data=data)


def from_blocks(blocks: str | Sequence[Mapping[str, Any]]) -> list[Part]:
    """The parts of a reply; blocks without a neutral part stay as they came."""
    if isinstance(blocks, str):
        return [Text(check_text(blocks, "content"))]
    return [_part(block) for block in blocks]


def _part(block: Mapping[str, Any]) -> Part:
    if not isinstance(block, Mapping):
        raise DialectError(f"content holds a {type(block).__name__}: expected blocks with 'type'")
    kind, text = block.get("type"), block.get("text")
    part: Part | None = None
    if (
        kind == "text"
        and isinstance(text, str)
        and not _more(block, "text", "citations")
        and not block.get("citations")
    ):
        part = Text(check_text(text, "text block"))
    elif kind == "tool_use" and _strings(block, "id", "name") and isinstance(block.get("input"), Mapping):
        part = _call(block)
    elif kind == "tool_result" and _strings(block, "tool_use_id") and not _more(block, *_RESULT):
        part = _from_result(block)
    elif kind == "image" and not _more(block, "source"):
        url = _url(block.get("source"))
        part = None if url is None else Image(url)
    elif kind == "document" and not _more(block, "source", "title"):
        part = _from_document(block)
    return Opaque.of("anthropic", block) if part is None else part


_RESULT = ("tool_use_id", "content", "is_error")


def _more(block: Mapping[str, Any], *known: str) -> bool:
    """Whether a block has fields besides its type and the known ones."""
    return not set(block) <= {"type", *known}


def _strings(block: Mapping[str, Any], *fields: str) -> bool:
    return all(isinstance(block.get(field), str) for field in fields)


def _call(block: Mapping[str, Any]) -> ToolCall:
    rest = {key: value for key, value in block.items() if key not in ("type", "id", "name", "input")}
    frozen = freeze(block["input"], f"input of call {block['id']!r}")
    arguments = json.dumps(frozen, ensure_ascii=False, allow_nan=False)
    return ToolCall(
        block["id"], block["name"], arguments, Opaque.of("anthropic", rest, "tool_call") if rest else None
    )


def _from_result(block: Mapping[str, Any]) -> ToolResult:
    content: Any = block.get("content")
    if not isinstance(content, str):
        content = tuple(_part(item) for item in content or ())
    return ToolResult(block["tool_use_id"], content, bool(block.get("is_error", False)))


def _from_document(block: Mapping[str, Any]) -> File | None:
    source, title = block.get("source"), block.get("title")
    if not isinstance(source, Mapping) or ("title" in block and not isinstance(title, str)):
        return None
    if (
        source.keys() == {"type", "file_id"}
        and source["type"] == "file"
        and isinstance(source["file_id"], str)
    ):
        return File(id=source["file_id"], name=title)
    url = _url(source)
    return None if url is None else File(url, name=title)


def _url(source: object) -> str | None:
    """The address or data URL of a source, where it leads back to the same source."""
    if not isinstance(source, Mapping) or not all(isinstance(value, str) for value in source.values()):
        return None
    if source.keys() == {"type", "url"}:
        url = str(source["url"])
    elif source.keys() == {"type", "media_type", "data"}:
        url = f"data:{source['media_type']};base64,{source['data']}"
    else:
        return None
    try:
        return url if _source(url) == source else None
    except LossyError:
        return None


def to_message(message: Message) -> dict[str, Any]:
    """A message in Anthropic's format, strictly: ``from_message`` gives an equal one back, or ``LossyError`` is raised.

    >>> to_message(Message("user", "hi"))
    {'role': 'user', 'content': [{'type': 'text', 'text': 'hi'}]}
    """
    role = "assistant" if message.role == "assistant" else "user"
    wire = {"role": role, "content": FrozenList(to_blocks(message))}
    if message.role not in ("user", "assistant", "tool") or from_message(wire) != message:
        raise LossyError(
            f"the {message.role} message does not come back equal from Anthropic's format (spelling of arguments, empty "
            "texts, names and roles are what it cannot hold)"
        )
    return wire


def from_message(wire: Mapping[str, Any]) -> Message:
    """A message of Anthropic's format; a user message of tool results alone becomes a ``tool`` message.

    >>> from_message({"role": "user", "content": "hi"}).text
    'hi'
    """
    parts = from_blocks(wire["content"])
    results = parts and all(isinstance(part, ToolResult) for part in parts)
    if wire.get("role") not in ("user", "assistant"):
        raise DialectError(f"unknown role {wire.get('role')!r}: expected 'user' or 'assistant'")
    return Message("tool" if results else wire["role"], parts)
