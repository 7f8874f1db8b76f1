"""Messages: frozen values that are equal by content.

Nothing a provider or a framework put into a message is lost: what has no neutral part travels as an ``Opaque``
part and comes back as it was. Arguments of a tool call stay the string that the model wrote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NoReturn, cast, get_args

import msgspec

from .errors import EncodingError, MessageError
from .frozen import canonical_json, check_text
from .parts import PART_TYPES, File, Image, Opaque, Part, Reasoning, Text, ToolCall, ToolResult, wrong_field
from .tools import Tool

__all__ = [
    "File",
    "Image",
    "Message",
    "Opaque",
    "Part",
    "Reasoning",
    "Role",
    "Text",
    "Tool",
    "ToolCall",
    "ToolResult",
]

Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: frozenset[str] = frozenset(get_args(Role))
MAX_MESSAGE_BYTES = 32 * 2**20  # Anthropic refuses requests over 32 MB; OpenAI's limit is higher


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
    # How OpenAI's `content` was written ("null", "parts", …): for to_openai(), not identity.
    _shape: str | None

    def __init__(
        self,
        role: Role,
        parts: str | Sequence[Part] = (),
        name: str | None = None,
        *,
        _shape: str | None = None,
    ) -> None:
        if not isinstance(role, str) or role not in ROLES:
            raise MessageError(f"unknown role {role!r}: use one of {', '.join(sorted(ROLES))}")
        content = parts if isinstance(parts, str) else _checked(parts)
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
        return tuple(each for each in map(_call_id, self._content) if each is not None)

    @property
    def tool_results(self) -> tuple[ToolResult, ...]:
        """The tool results in this message, in order."""
        if isinstance(self._content, str):
            return ()
        return tuple(part for part in self._content if isinstance(part, ToolResult))

    @classmethod
    def of(cls, value: object) -> Message:
        """What a user says, as a message: a string, a ``Message``, a mapping or parts in OpenAI's format, or parts.

        >>> Message.of("hi") == Message.of({"role": "user", "content": "hi"})
        True
        """
        if isinstance(value, Message):
            return value
        if isinstance(value, Mapping):
            return cls.from_openai(value)
        if isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
            return cls.from_openai({"role": "user", "content": value})
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
            return cls("user", value)
        raise MessageError(
            f"a {type(value).__name__} is no message: give a string, a Message, or a list of parts"
        )

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


_SETTERS = tuple(Message.__dict__[name].__set__ for name in ("role", "name", "_content", "_shape"))


def text_message(role: str, text: str, name: str | None, shape: str | None) -> Message:
    """A message of one text, from values that were those of a message before: they are not checked again."""
    message = Message.__new__(Message)
    put_role, put_name, put_content, put_shape = _SETTERS
    put_role(message, role)
    put_name(message, name)
    put_content(message, text)
    put_shape(message, shape)
    return message


def _checked(parts: Sequence[Part]) -> tuple[Part, ...]:
    if not isinstance(parts, Iterable):
        raise MessageError(f"the parts are a {type(parts).__name__}: give a string or a list of parts")
    found = tuple(parts)
    for part in found:
        if not isinstance(part, PART_TYPES):
            raise MessageError(
                f"part {type(part).__name__!r} is not a message part: use Text, Image, File, ToolCall, ToolResult, "
                "Reasoning or Opaque"
            )
        wrong = wrong_field(part)
        if wrong is not None:
            raise MessageError(f"{wrong} of a {type(part).__name__} part has the wrong type: see its class")
    return found


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
    'b2:43c7ef'
    """
    digest = hashlib.blake2b(digest_size=24)
    for piece in (data,) if isinstance(data, bytes) else data:
        digest.update(len(piece).to_bytes(8, "big"))
        digest.update(piece)
    return f"b2:{digest.hexdigest()}"
