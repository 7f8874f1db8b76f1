"""One piece of a prompt, and what all wire formats share in reading it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from ..errors import MessageError
from ..frozen import wire_json
from ..rules import MARK_FIELDS, Section
from ..snapshot import IMAGE_TOKENS, MESSAGE_OVERHEAD

__all__ = [
    "LONG",
    "MarkLength",
    "Piece",
    "as_list",
    "as_object",
    "as_string",
    "is_long",
    "part_piece",
    "parts_of",
    "role_of",
    "spelled",
    "tool_piece",
    "unmarked",
]

MarkLength = Literal["short", "long"]
LONG = frozenset({"1h", "12h"})
_IMAGES = frozenset({"image", "image_url", "input_image"})
# Parts whose bytes say nothing about their tokens.
_FILES = frozenset({"document", "file", "input_file", "input_audio"})


class Piece(msgspec.Struct, frozen=True, gc=False):
    """A piece of a prompt, as sent.

    ``path`` is where it stands in the body, ``kind`` its type on the wire (``tool``, ``text``, ``tool_use`` …), ``text``
    what counts in tokens besides ``images`` pictures, ``wire`` its bytes without breakpoints, and ``mark`` the breakpoint
    behind it, by how long its entry is kept.

    >>> from llmbuffer.bodies import pieces
    >>> pieces({"messages": [{"role": "user", "content": "hi"}]}, "openai")
    [Piece(section='messages', path='messages[0].content', kind='text', role='user', text=<2>)]
    """

    section: Section
    path: str
    kind: str
    role: str
    text: str
    wire: bytes
    mark: MarkLength | None = None
    images: int = 0

    def __repr__(self) -> str:
        shown = f"kind={self.kind!r}, role={self.role!r}, text=<{len(self.text)}>"
        return f"Piece(section={self.section!r}, path={self.path!r}, {shown})"

    def tokens(self, count: Callable[[str], int]) -> int:
        """Prompt tokens of this piece as ``count`` sees its text, framing included."""
        framing = {"tools": 0, "system": 2, "messages": MESSAGE_OVERHEAD}[self.section]
        return count(self.text) + framing + IMAGE_TOKENS * self.images


def parts_of(content: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Content as (path, part): a string is one part."""
    if isinstance(content, str):
        yield path, content
    else:
        yield from ((f"{path}[{number}]", part) for number, part in enumerate(as_list(content, path)))


def part_piece(
    section: Section,
    path: str,
    role: str,
    part: Any,
    *,
    lead: bytes = b"",
    kind: str | None = None,
    long: bool = False,
) -> Piece:
    """A text or content part as a piece.

    ``lead`` stands before it in its bytes, ``kind`` replaces its type, ``long`` is how marks without a TTL are kept.
    """
    if isinstance(part, str):
        return Piece(section, path, kind or "text", role, part, lead + b"text\x00" + part.encode())
    part = as_object(part, path)
    name = str(part.get("type", "text"))
    text, images = _weight(name, part)
    if name in ("text", "input_text", "output_text") and part.keys() <= {"type", "text", *MARK_FIELDS}:
        wire = lead + b"text\x00" + text.encode()
    else:
        wire = lead + wire_json(unmarked(part))
    return Piece(section, path, kind or name, role, text, wire, _mark(part, long), images)


def tool_piece(item: Any, path: str) -> Piece:
    """A tool as a piece: its JSON counts in tokens."""
    tool = as_object(item, path)
    wire = wire_json(unmarked(tool))
    return Piece("tools", path, "tool", "", wire.decode(), wire, _mark(tool, False))


def _weight(kind: str, part: Mapping[str, Any]) -> tuple[str, int]:
    """What counts in tokens: a text, and the number of pictures."""
    if isinstance(part.get("text"), str):
        return part["text"], 0
    if kind in _IMAGES:
        return "", 1
    source = part.get("source")
    if kind in _FILES and not (isinstance(source, Mapping) and source.get("type") in ("text", "content")):
        return "", 0
    if kind == "tool_use":
        return f"{part.get('name', '')}{spelled(part.get('input'))}", 0
    if kind == "tool_result":
        content = part.get("content")
        inner = [part_piece("messages", where, "user", one) for where, one in parts_of(content, "content")]
        return "".join(piece.text for piece in inner), sum(piece.images for piece in inner)
    return wire_json(unmarked(part)).decode(), 0


def spelled(value: Any) -> str:
    """Arguments as a model writes them."""
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _mark(part: Mapping[str, Any], long: bool) -> MarkLength | None:
    for holder in (part, *reversed(_nested(part))):
        for field in MARK_FIELDS:
            control = holder.get(field)
            if isinstance(control, Mapping):
                kept = is_long(control) or (long and control.get("ttl") is None)
                return "long" if kept else "short"
    return None


def is_long(control: Mapping[str, Any]) -> bool:
    """Whether a breakpoint, or options for all of them, ask for the long lifetime."""
    ttl = control.get("ttl")
    return isinstance(ttl, str) and ttl in LONG


def _nested(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The blocks inside a tool result, which may carry marks of their own."""
    content = part.get("content", part.get("output"))
    return (
        [block for block in content if isinstance(block, Mapping)]
        if isinstance(content, list | tuple)
        else []
    )


def unmarked(part: Mapping[str, Any]) -> dict[str, Any]:
    """A part without breakpoints, those of the blocks inside it included."""
    kept = {key: value for key, value in part.items() if key not in MARK_FIELDS}
    for key in ("content", "output"):
        if isinstance(kept.get(key), list | tuple):
            kept[key] = [unmarked(block) if isinstance(block, Mapping) else block for block in kept[key]]
    return kept


def as_object(value: Any, path: str) -> Mapping[str, Any]:
    """The value, if it is an object. Raises ``MessageError``."""
    if not isinstance(value, Mapping):
        raise MessageError(f"{path}: found a {type(value).__name__}, expected an object")
    return value


def as_list(value: Any, path: str) -> Sequence[Any]:
    """The value, if it is a list; an empty one for null. Raises ``MessageError``."""
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise MessageError(f"{path}: found a {type(value).__name__}, expected a list")
    return value


def as_string(value: Any, path: str) -> str:
    """The value, if it is a string. Raises ``MessageError``."""
    if not isinstance(value, str):
        raise MessageError(f"{path}: found a {type(value).__name__}, expected a string")
    return value


def role_of(message: Mapping[str, Any], path: str) -> str:
    """The role of a message. Raises ``MessageError`` where it has none."""
    role = message.get("role")
    if not isinstance(role, str):
        raise MessageError(f"{path}.role: found {role!r}, expected a string")
    return role
