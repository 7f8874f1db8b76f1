"""Messages, their parts, and tools: frozen values that are equal by content.

Nothing a provider or a framework put into a message is lost: what has no neutral part travels as an ``Opaque``
part and comes back as it was. Arguments of a tool call stay the string that the model wrote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NoReturn, TypeAlias, cast, get_args

import msgspec

from .errors import EncodingError, MessageError
from .frozen import canonical_json, check_text, freeze, wire_json

__all__ = ["File", "Image", "Message", "Opaque", "Part", "Reasoning", "Role", "Text", "Tool", "ToolCall", "ToolResult"]

Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: frozenset[str] = frozenset(get_args(Role))
MAX_MESSAGE_BYTES = 32 * 2**20  # Anthropic refuses requests over 32 MB; OpenAI's limit is higher


class _Private(msgspec.Struct, frozen=True, gc=False):
    """A part whose ``repr`` tells lengths, never prompt text."""

    def __repr__(self) -> str:
        fields = ", ".join(_length(field, getattr(self, field)) for field in self.__struct_fields__)
        return f"{type(self).__name__}({fields})"


def _length(field: str, value: object) -> str:
    if isinstance(value, str | bytes | tuple) and field not in ("id", "call_id", "slot", "dialect"):
        return f"{field}=<{len(value)}>"
    return f"{field}={value!r}"


class Text(_Private, frozen=True, gc=False, tag="text"):
    """Plain text.

    >>> Text("hello").text
    'hello'
    """

    text: str


class Image(_Private, frozen=True, gc=False, tag="image"):
    """An image: an address, or a ``data:`` URL that holds the bytes; ``detail`` as OpenAI knows it.

    >>> Image("https://example.com/a.png", detail="low").detail
    'low'
    """

    url: str
    detail: str | None = None


class File(_Private, frozen=True, gc=False, tag="file"):
    """A file: a ``data:`` URL or address, or the id of an upload, and its name.

    >>> File(id="file-1", name="a.pdf").name
    'a.pdf'
    """

    url: str | None = None
    id: str | None = None
    name: str | None = None


class Opaque(_Private, frozen=True, gc=False, tag="opaque"):
    """Provider-specific content: raw JSON that comes back byte for byte.

    ``slot`` says where it belongs in the provider's message: ``content`` (an item of its content list),
    ``tool_calls`` (an item of that list) or ``field:NAME`` (a field of the message itself).

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


class ToolCall(_Private, frozen=True, gc=False, tag="tool_call", omit_defaults=True):
    """A call that the model made; ``arguments`` is the exact string it wrote, valid JSON or not.

    ``extra`` holds what else the provider put into the call (a signature, a caller), for the way back.

    >>> ToolCall("call_1", "search", '{"q": 1e2}').arguments
    '{"q": 1e2}'
    """

    id: str
    name: str
    arguments: str
    extra: Opaque | None = None


class Reasoning(_Private, frozen=True, gc=False, tag="reasoning"):
    """Reasoning that the provider returned as plain text, unsigned.

    >>> Reasoning("first, …").text
    'first, …'
    """

    text: str


class ToolResult(_Private, frozen=True, gc=True, tag="tool_result"):
    """What a tool returned: text or parts, for the call with ``call_id``.

    >>> ToolResult("call_1", "42").content
    '42'
    """

    call_id: str
    content: str | tuple[Text | Image | File | Opaque, ...]
    is_error: bool = False


Part: TypeAlias = Text | Image | File | ToolCall | ToolResult | Reasoning | Opaque
PART_TYPES = get_args(Part)


class Message:
    """One chat message, frozen; equal by content, without time stamps or random ids.

    Arguments: ``role``, one of ``Role``; ``parts``, a string or a sequence of parts; ``name`` of the speaker.
    Raises ``MessageError`` for an unknown role or part and ``EncodingError`` for text that UTF-8 cannot carry.

    >>> message = Message("user", "hello")
    >>> message.parts
    (Text(text=<5>),)
    >>> message == Message("user", [Text("hello")])
    True
    >>> message
    Message(role='user', parts=<1: text, 5 characters>)
    """

    __slots__ = ("_content", "_shape", "name", "role")
    role: Role
    name: str | None
    _content: str | tuple[Part, ...]  # one Text part is kept as its bare string: half the memory of a session
    _shape: str | None  # how OpenAI's `content` was written ("null", "parts", …): for to_openai(), not identity

    def __init__(
        self, role: Role, parts: str | Sequence[Part] = (), name: str | None = None, *, _shape: str | None = None
    ) -> None:
        if role not in ROLES:
            raise MessageError(f"unknown role {role!r}: use one of {', '.join(sorted(ROLES))}")
        content = parts if isinstance(parts, str) else _checked(tuple(parts))
        if not isinstance(content, str) and len(content) == 1 and isinstance(content[0], Text):
            content = content[0].text
        if name is not None and not isinstance(name, str):
            raise MessageError(f"name is a {type(name).__name__}, not a string: {role} message")
        put = object.__setattr__
        put(self, "role", role)
        put(self, "name", name)
        put(self, "_content", content)
        put(self, "_shape", _shape)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content parts, in order."""
        return (Text(self._content),) if isinstance(self._content, str) else self._content

    @property
    def text(self) -> str:
        """The text parts, joined without a separator."""
        if isinstance(self._content, str):
            return self._content
        return "".join(part.text for part in self._content if isinstance(part, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls in this message, in order."""
        if isinstance(self._content, str):
            return ()
        return tuple(part for part in self._content if isinstance(part, ToolCall))

    @property
    def call_ids(self) -> tuple[str, ...]:
        """Ids of everything in this message that awaits a tool result, provider's own kinds of call included."""
        if isinstance(self._content, str):
            return ()
        return tuple(filter(None, map(_call_id, self._content)))

    @property
    def tool_results(self) -> tuple[ToolResult, ...]:
        """The tool results in this message, in order."""
        if isinstance(self._content, str):
            return ()
        return tuple(part for part in self._content if isinstance(part, ToolResult))

    @classmethod
    def from_openai(cls, message: Mapping[str, Any]) -> Message:
        """Take in one message of OpenAI's chat format; ``to_openai()`` gives an equal ``dict`` back.

        >>> Message.from_openai({"role": "user", "content": "hi"}).to_openai()
        {'role': 'user', 'content': 'hi'}
        """
        from .openai_messages import from_openai

        return from_openai(message)

    def to_openai(self) -> dict[str, Any]:
        """This message in OpenAI's chat format, as a plain ``dict``.

        Raises ``LossyError`` for parts that the format cannot carry.
        """
        from .openai_messages import to_openai

        return to_openai(self)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"Message is frozen: make a new one instead of setting {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"Message is frozen: {name!r} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return canonical(self) == canonical(other)

    def __hash__(self) -> int:
        return hash(canonical(self))

    def __copy__(self) -> Message:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Message:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self.role, self._content, self.name, self._shape))

    def __repr__(self) -> str:
        kinds = ", ".join(dict.fromkeys(str(part.__struct_config__.tag) for part in self.parts))
        name = f", name={self.name!r}" if self.name is not None else ""
        return f"Message(role={self.role!r}, parts=<{len(self.parts)}: {kinds}, {len(self.text)} characters>{name})"


def _call_id(part: Part) -> str | None:
    if isinstance(part, ToolCall):
        return part.id
    if isinstance(part, Opaque) and part.slot == "tool_calls":
        return cast(str, part.value["id"])
    return None


def _rebuild(role: Role, content: str | tuple[Part, ...], name: str | None, shape: str | None) -> Message:
    return Message(role, content, name, _shape=shape)


def _checked(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    for part in parts:
        if not isinstance(part, PART_TYPES):
            raise MessageError(
                f"part {type(part).__name__!r} is not a message part: use Text, Image, File, ToolCall, ToolResult, "
                "Reasoning or Opaque"
            )
    return parts


def canonical(message: Message) -> bytes:
    """The canonical bytes of a message: tagged, keys sorted, the same for equal messages. Not what is sent.

    Raises ``EncodingError`` for lone surrogates and ``MessageError`` for more than 32 MiB.

    >>> canonical(Message("user", "hi"))
    b'["user",null,"hi"]'
    """
    content: Any = message._content
    if not isinstance(content, str):
        content = [_identity(part) for part in content]
    try:
        encoded = msgspec.json.encode((message.role, message.name, content))
    except UnicodeEncodeError:
        _explain_surrogate(message)
        raise EncodingError("the message holds a lone surrogate, which UTF-8 cannot carry") from None
    except TypeError as error:
        raise MessageError(f"the {message.role} message holds a value of the wrong type: {error}") from None
    if len(encoded) > MAX_MESSAGE_BYTES:
        raise MessageError(
            f"the {message.role} message has {len(encoded):,} bytes, more than {MAX_MESSAGE_BYTES:,}: no provider "
            "takes a request of that size; clip it, or upload it and refer to it by id"
        )
    return encoded


def _identity(part: Part) -> Any:
    if isinstance(part, Opaque):
        return ["opaque", part.dialect, part.slot, canonical_json(msgspec.json.decode(part.json)).decode()]
    if isinstance(part, ToolCall) and part.extra is not None:
        return ["tool_call", part.id, part.name, part.arguments, _identity(part.extra)]
    if isinstance(part, ToolResult) and not isinstance(part.content, str):
        return ["tool_result", part.call_id, [_identity(item) for item in part.content], part.is_error]
    return part


def _explain_surrogate(message: Message) -> None:
    for index, part in enumerate(message.parts):
        for field in part.__struct_fields__:
            value = getattr(part, field)
            if isinstance(value, str):
                check_text(value, f"{message.role} message, parts[{index}].{field}")


def content_hash(data: Iterable[bytes] | bytes) -> str:
    """A content hash as text, tagged with its algorithm: ``b2:`` and 48 hexadecimal digits.

    >>> content_hash(b"x")[:9]
    'b2:6a2e43'
    """
    digest = hashlib.blake2b(digest_size=24)
    for piece in (data,) if isinstance(data, bytes) else data:
        digest.update(len(piece).to_bytes(8, "big"))
        digest.update(piece)
    return f"b2:{digest.hexdigest()}"


class Tool(_Private, frozen=True, gc=False):
    """A tool that the model may call.

    ``parameters`` is the JSON schema as raw bytes, first seen order kept; ``extra`` holds further fields of the
    provider's function object (``strict``, …) and ``opaque`` a provider's own tool kind, both as raw JSON.

    >>> tool = Tool.of({"name": "add", "description": "Add.", "parameters": {"type": "object"}})
    >>> tool.name, tool.parameters
    ('add', b'{"type":"object"}')
    """

    name: str
    description: str | None = None
    parameters: bytes | None = None
    extra: bytes | None = None
    opaque: Opaque | None = None

    @classmethod
    def of(cls, tool: Tool | Mapping[str, Any]) -> Tool:
        """Take in a tool: OpenAI's function tool, Anthropic's, or a provider's own kind.

        Raises ``MessageError`` where no name is found and ``EncodingError`` for values that JSON cannot carry.
        """
        if isinstance(tool, Tool):
            return tool
        if not isinstance(tool, Mapping):
            raise MessageError(f"a tool is a mapping or a Tool, not {type(tool).__name__}")
        kind = tool.get("type")
        if kind == "function" and isinstance(tool.get("function"), Mapping) and set(tool) == {"type", "function"}:
            return _function_tool(tool["function"], "parameters")
        if kind is None or (kind == "custom" and "input_schema" in tool):
            fields = {key: value for key, value in tool.items() if key != "type"}
            return _function_tool(fields, "input_schema" if "input_schema" in tool else "parameters")
        name = tool.get("name") or kind
        return cls(_name(name), opaque=Opaque.of("any", tool, "tools"))

    @property
    def identity(self) -> bytes:
        """Canonical bytes: equal for tools that differ in key order only."""
        schema = None if self.parameters is None else msgspec.json.decode(self.parameters)
        extra = None if self.extra is None else msgspec.json.decode(self.extra)
        opaque = None if self.opaque is None else self.opaque.value
        return canonical_json([self.name, self.description, schema, extra, opaque])


def _function_tool(fields: Mapping[str, Any], schema_key: str) -> Tool:
    extra = {key: value for key, value in fields.items() if key not in ("name", "description", schema_key)}
    schema = fields.get(schema_key)
    name = _name(fields.get("name"))
    return Tool(
        name=name,
        description=fields.get("description"),
        parameters=None if schema is None else _schema(schema, name),
        extra=wire_json(freeze(extra, f"tool {name!r}")) if extra else None,
    )


def _schema(schema: object, name: str) -> bytes:
    if isinstance(schema, bytes | str):
        raw = schema.encode() if isinstance(schema, str) else schema
        try:
            msgspec.json.decode(raw)
        except msgspec.DecodeError as error:
            raise EncodingError(f"the schema of tool {name!r} is not JSON: {error}") from None
        return raw
    return wire_json(freeze(schema, f"tool {name!r}.parameters"))


def _name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise MessageError(f"a tool needs a name, found {name!r}: give a mapping with 'name'")
    return check_text(name, "tool name")
