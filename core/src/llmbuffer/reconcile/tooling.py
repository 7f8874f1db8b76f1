"""The tools of a host: in the order and with the bytes first seen, whatever it hides for one call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from ..context import Segment
from ..errors import LLMBufferError
from ..rules import Dialect
from ..tools import Tool
from .hosts import Host, Leaves, plain_message

__all__ = ["Offer", "Toolbox", "read_tools", "restriction"]


class Offer(msgspec.Struct, frozen=True):
    """The tools of one request: the host's objects as they go out, the same as ``Tool``, and the names that it hid."""

    items: tuple[Any, ...] = ()
    tools: tuple[Tool, ...] = ()
    hidden: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()


class Toolbox:
    """The tools that a host has offered, by name, in the order first seen."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[Any, Tool]] = {}
        self._leaves: list[Leaves] | None = None
        self._offer = Offer()

    def offer(self, items: Sequence[Any], host: Host) -> Offer:
        """What goes out for what the host hands over. Equal tools stay as first seen; one that changed takes its place.

        Tools that are all others than before take the place of all.
        """
        leaves = [host.leaves(item) for item in items]
        if leaves == self._leaves:
            return self._offer
        now = dict(read_tools(items, host))
        if now and self._first and not now.keys() & self._first.keys():
            self._first = {}
        for name, (item, tool) in now.items():
            first = self._first.get(name)
            if first is None or first[1].identity != tool.identity:
                self._first[name] = (item, tool)
        hidden = tuple(name for name in self._first if name not in now)
        self._leaves = leaves
        self._offer = Offer(
            tuple(item for item, _ in self._first.values()),
            tuple(tool for _, tool in self._first.values()),
            hidden,
            tuple(name for name in self._first if name in now),
        )
        return self._offer

    def as_given(self, items: Sequence[Any], host: Host) -> Offer:
        """The tools as they are. One that cannot be read, or has the name of another, counts by its length."""
        leaves = [host.leaves(item) for item in items]
        if leaves != self._leaves or tuple(map(id, items)) != tuple(map(id, self._offer.items)):
            self._leaves, self._offer = leaves, _as_given(items, host)
        return self._offer


def read_tools(items: Iterable[Any], host: Host) -> Iterator[tuple[str, tuple[Any, Tool]]]:
    """The tools by name, each with the host's object. One that cannot be read counts by its length."""
    for index, item in enumerate(items):
        tool = _read(item, index, host)
        yield tool.name, (item, tool)


def _read(item: Any, index: int, host: Host) -> Tool:
    try:
        found: Tool = getattr(host, "to_tool", Tool.of)(item)
    except LLMBufferError:
        return Tool(f"tool {index + 1}", description=plain_message(host.leaves(item)).text)
    return found


def _as_given(items: Sequence[Any], host: Host) -> Offer:
    found: dict[str, Tool] = {}
    for index, item in enumerate(items):
        tool = _read(item, index, host)
        name, number = tool.name, 1
        while name in found:
            number += 1
            name = f"{tool.name}, {number}"
        found[name] = tool if name == tool.name else replace(tool, name=name)
    return Offer(tuple(items), tuple(found.values()), (), tuple(found))


def restriction(
    offer: Offer, dialect: Dialect, params: Mapping[str, Any]
) -> tuple[dict[str, Any], Segment | None]:
    """How the model is kept from hidden tools: arguments of the request, or a text at the tail.

    Arguments only where they leave the cache as it is: OpenAI's ``allowed_tools``, on models whose cache does not depend
    on ``tool_choice``. A choice that the host made itself stays.
    """
    if not offer.hidden:
        return {}, None
    rules, choice = dialect.rules, params.get("tool_choice", "auto")
    counts = "tool_choice" in rules.frozen_params or "tool_choice" in rules.message_params
    if dialect.name in ("openai", "openai-responses") and not counts:
        if choice not in ("auto", "required", None):
            return {}, None
        return {"tool_choice": _allowed(offer.allowed, dialect.name, choice or "auto")}, None
    told = (
        "No tool may be used for this reply."
        if not offer.allowed
        else f"For this reply, only these tools may be used: {', '.join(offer.allowed)}."
    )
    return {}, Segment("tools", told, level="turn")


def _allowed(names: Sequence[str], dialect: str, mode: str) -> Any:
    if not names:
        return "none"
    if dialect == "openai":
        tools: list[dict[str, Any]] = [{"type": "function", "function": {"name": name}} for name in names]
        return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}
    return {
        "type": "allowed_tools",
        "mode": mode,
        "tools": [{"type": "function", "name": name} for name in names],
    }
