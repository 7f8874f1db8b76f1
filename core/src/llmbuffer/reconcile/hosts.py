"""What an adapter tells about its framework's own objects."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from ..errors import LLMBufferError
from ..frozen import freeze
from ..messages import Message
from ..parts import Text
from ..tools import Tool

__all__ = ["DictHost", "Host", "leaves_of", "plain_message"]

Leaves = tuple[Any, ...]
_FLAT = frozenset({str, type(None)})
Strip = Callable[[str], str]


class Host(Protocol):
    """How the core reads the objects of a framework; ``DictHost`` is a ready-made one to start from.

    ``to_message`` and ``leaves`` are all that is needed. Without ``to_tool``, tools are mappings; without ``stripped``,
    marked text stays as it is; without ``from_message``, what a compaction writes anew cannot be handed over, so that
    nothing is compacted; without ``copied``, ``copy.deepcopy`` keeps what ``history="ours"`` has to keep.

    For members who share one prefix: ``speaker(item) -> str | None`` names who said a message, by the name of the member; an
    assistant's message without one is the calling member's own. Without it nothing is retold, and neither where all members
    are handed the same objects; ``by_reader``, a flag, says whether roles depend on who reads, where that is known: else it is
    found out when the first message of another member comes as a user's. ``from_tool(tool)`` is a ``Tool`` of ours as the host's kind of object, for tools of one name
    that are merged; without it members whose tools differ so keep a prompt each.
    """

    def to_message(self, item: Any, /) -> Message:
        """The object as a ``Message``; called once for each object that is new."""
        ...

    def leaves(self, item: Any, /) -> Leaves:
        """The types and leaf values of an object, hashable: equal for objects that say the same on the wire."""
        ...


class DictHost:
    """Messages as mappings in OpenAI's chat format, or as ``Message`` objects.

    >>> host = DictHost()
    >>> host.leaves({"role": "user", "content": "hi"})
    ('role', 'content', 'user', 'hi')
    >>> host.to_message({"role": "user", "content": "hi"}).text
    'hi'
    """

    def to_message(self, item: Any, /) -> Message:
        """See ``Host``."""
        return item if isinstance(item, Message) else Message.from_openai(item)

    def leaves(self, item: Any, /) -> Leaves:
        """See ``Host``."""
        if type(item) is dict:
            flat = (*item, *item.values())
            if _FLAT.issuperset(
                map(type, flat)
            ):  # what most messages are: asked for each of them at each request
                return flat
        return leaves_of(item)

    def to_tool(self, item: Any, /) -> Tool:
        """A tool: a mapping in OpenAI's or Anthropic's shape, or a ``Tool``."""
        return Tool.of(item)

    def from_tool(self, tool: Tool, /) -> Any:
        """A tool of ours as a mapping in OpenAI's shape."""
        fields: dict[str, Any] = {"name": tool.name}
        if tool.description is not None:
            fields["description"] = tool.description
        if tool.parameters is not None:
            fields["parameters"] = msgspec.json.decode(tool.parameters)
        extra = {} if tool.extra is None else msgspec.json.decode(tool.extra)
        return {"type": "function", "function": {**fields, **extra}}

    def speaker(self, item: Any, /) -> str | None:
        """Who said a message: its ``name``."""
        name = item.name if isinstance(item, Message) else item.get("name") if type(item) is dict else None
        return name if isinstance(name, str) and name else None

    def stripped(self, item: Any, strip: Strip, /) -> Any:
        """A copy of the object whose texts went through ``strip``."""
        if isinstance(item, Message):
            parts = [Text(strip(part.text)) if isinstance(part, Text) else part for part in item.parts]
            return Message(item.role, parts, item.name)
        return _stripped(item, strip)

    def from_message(self, message: Message, /) -> Any:
        """A message of ours as the host's kind of object."""
        return message.to_openai()

    def copied(self, item: Any, /) -> Any:
        """A copy that stays as it is, whatever the host does to its own object."""
        return copy.deepcopy(item)


def leaves_of(value: Any) -> Leaves:
    """Types and leaf values of mappings, lists, messages and objects with ``model_dump``, keys in their order.

    >>> leaves_of({"n": 1}) == leaves_of({"n": True}), leaves_of({"a": "x"}) == leaves_of({"a": "x"})
    (False, True)
    """
    if type(value) is dict:
        return (*value, *map(_leaf, value.values()))
    found = _leaf(value)
    return found if isinstance(found, tuple) else (found,)


def _leaf(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, Mapping):
        return ("{", *value, *map(_leaf, value.values()))
    if isinstance(value, list | tuple):
        return ("[", *map(_leaf, value))
    if isinstance(value, Message):
        return (Message, value)
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return (type(value), _leaf(dump()))
    return (type(value), value if isinstance(value, bool | int | float | bytes) else repr(value))


def _stripped(value: Any, strip: Strip) -> Any:
    if isinstance(value, str):
        return strip(value)
    if isinstance(value, Mapping):
        return {key: _stripped(each, strip) for key, each in value.items()}
    return [_stripped(each, strip) for each in value] if isinstance(value, list | tuple) else value


def plain_message(leaves: Leaves) -> Message:
    """What stands in the accounts for an object that cannot be read: its texts, so that its length is about right.

    >>> plain_message(("role", "strange", ("[", "some text"))).text
    'role strange some text'
    """
    texts: list[str] = []
    _collect(leaves, texts)
    told = " ".join(texts).encode(errors="replace").decode()
    return Message("user", told or "(nothing)")


def _collect(leaves: Any, texts: list[str]) -> None:
    for each in leaves:
        if isinstance(each, str) and each not in ("[", "{"):
            texts.append(each)
        elif isinstance(each, tuple):
            _collect(each, texts)


def readable(host: Host, item: Any, leaves: Leaves) -> tuple[Message, bool]:
    """The object as a message, and whether it could be read; what cannot is handed on untouched all the same."""
    try:
        return host.to_message(item), True
    except LLMBufferError:
        return plain_message(leaves), False


def frozen_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The params that JSON can carry; the others are the host's own business, and no provider sees them."""
    return {name: _frozen(name, value) for name, value in params.items()}


def _frozen(name: str, value: Any) -> Any:
    try:
        return freeze(value, name)
    except LLMBufferError:
        return repr(type(value))
