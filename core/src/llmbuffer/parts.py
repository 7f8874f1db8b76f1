"""Content parts of a message: frozen values whose ``repr`` tells lengths, never prompt text."""

from __future__ import annotations

from typing import Any, TypeAlias, get_args

import msgspec

from .frozen import freeze, wire_json

__all__ = [
    "File",
    "Image",
    "Opaque",
    "Part",
    "Private",
    "Reasoning",
    "Text",
    "ToolCall",
    "ToolResult",
    "wrong_field",
]


class Private(msgspec.Struct, frozen=True, gc=False):
    """A part whose ``repr`` tells lengths, never prompt text."""

    def __repr__(self) -> str:
        fields = ", ".join(_length(field, getattr(self, field)) for field in self.__struct_fields__)
        return f"{type(self).__name__}({fields})"


def _length(field: str, value: object) -> str:
    if isinstance(value, str | bytes | tuple) and field not in ("id", "call_id", "slot", "dialect"):
        return f"{field}=<{len(value)}>"
    return f"{field}={value!r}"


class Text(Private, frozen=True, gc=False, tag="text"):
    """Plain text.

    >>> Text("hello").text
    'hello'
    """

    text: str


class Image(Private, frozen=True, gc=False, tag="image"):
    """An image: an address, or a ``data:`` URL that holds the bytes; ``detail`` as OpenAI knows it.

    >>> Image("https://example.com/a.png", detail="low").detail
    'low'
    """

    url: str
    detail: str | None = None


class File(Private, frozen=True, gc=False, tag="file"):
    """A file: a ``data:`` URL or address, or the id of an upload, and its name.

    >>> File(id="file-1", name="a.pdf").name
    'a.pdf'
    """

    url: str | None = None
    id: str | None = None
    name: str | None = None


class Opaque(Private, frozen=True, gc=False, tag="opaque"):
    """Provider-specific content: raw JSON that comes back byte for byte.

    ``slot`` says where it belongs in the provider's message: ``content`` (an item of its content list),
    ``tool_calls`` (an item of that list) or ``field:NAME`` (a field of the message itself). Where a message becomes
    several items, ``item`` is one of them and ``message`` one whose texts follow as parts of their own.

    >>> Opaque.of("anthropic", {"type": "thinking", "thinking": "…", "signature": "s"}).value["signature"]
    's'
    """

    dialect: str
    json: bytes
    slot: str = "content"

    @classmethod
    def of(cls, dialect: str, value: object, slot: str = "content") -> Opaque:
        """Wrap a JSON value, key order kept; raises ``EncodingError`` for what JSON cannot carry."""
        return cls(dialect, wire_json(freeze(value, slot)), slot)

    @property
    def value(self) -> Any:
        """The JSON value, in read-only containers."""
        return freeze(msgspec.json.decode(self.json))


class ToolCall(Private, frozen=True, gc=False, tag="tool_call", omit_defaults=True):
    """A call that the model made; ``arguments`` is the exact string it wrote, valid JSON or not.

    ``extra`` holds what else the provider put into the call (a signature, a caller), for the way back.

    >>> ToolCall("call_1", "search", '{"q": 1e2}').arguments
    '{"q": 1e2}'
    """

    id: str
    name: str
    arguments: str
    extra: Opaque | None = None


class Reasoning(Private, frozen=True, gc=False, tag="reasoning"):
    """Reasoning that the provider returned as plain text, unsigned.

    >>> Reasoning("first, …").text
    'first, …'
    """

    text: str


class ToolResult(Private, frozen=True, gc=True, tag="tool_result"):
    """What a tool returned: text or parts, for the call with ``call_id``.

    >>> ToolResult("call_1", "42").content
    '42'
    """

    call_id: str
    content: str | tuple[Text | Image | File | Opaque, ...]
    is_error: bool = False


Part: TypeAlias = Text | Image | File | ToolCall | ToolResult | Reasoning | Opaque
PART_TYPES = get_args(Part)

_Kinds: TypeAlias = type | tuple[type, ...]
_MAYBE = (str, type(None))
_KINDS: dict[str, dict[str, _Kinds]] = {
    "text": {"text": str},
    "image": {"url": str, "detail": _MAYBE},
    "file": {"url": _MAYBE, "id": _MAYBE, "name": _MAYBE},
    "opaque": {"dialect": str, "json": bytes, "slot": str},
    "tool_call": {"id": str, "name": str, "arguments": str, "extra": (Opaque, type(None))},
    "reasoning": {"text": str},
    "tool_result": {"call_id": str, "content": (str, tuple), "is_error": bool},
}


def wrong_field(part: Part) -> str | None:
    """The first field that holds a value of another type than its class says, or ``None``.

    >>> wrong_field(ToolCall("call_1", "search", {"q": 1}))  # type: ignore[arg-type]
    'arguments'
    """
    for field, kinds in _KINDS[str(part.__struct_config__.tag)].items():
        if not isinstance(getattr(part, field), kinds):
            return field
    if isinstance(part, ToolResult) and isinstance(part.content, tuple):
        inner = (Text, Image, File, Opaque)
        if not all(isinstance(item, inner) and wrong_field(item) is None for item in part.content):
            return "content"
    return None
