"""One list of tools out of several: tools of one name become one entry, or say why they cannot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ..tools import Tool

__all__ = ["merged"]


def merged(lists: Iterable[Iterable[Tool]]) -> tuple[tuple[Tool, ...], str]:
    """The tools of all lists in the order first seen, and why they cannot stand in one list (``""`` if they can).

    Tools of one name and different schemas become one entry that takes what either takes: the properties of both, of
    which those are required that both require. That fails where they disagree about a property, where they are
    ``strict``, so that every property has to be required, or where one of them is a provider's own kind; then the first
    one stands in the list, and the reason names the tool.

    >>> one = Tool.of({"name": "find", "parameters": {"type": "object", "properties": {"q": {}}, "required": ["q"]}})
    >>> two = Tool.of({"name": "find", "parameters": {"type": "object", "properties": {"q": {}, "n": {}}}})
    >>> tools, reason = merged([[one], [two]])
    >>> tools[0].parameters, reason
    (b'{"type":"object","properties":{"q":{},"n":{}},"required":[]}', '')
    """
    found: dict[str, Tool] = {}
    reason = ""
    for tool in (tool for tools in lists for tool in tools):
        known = found.get(tool.name)
        if known is None or known.identity == tool.identity:
            found.setdefault(tool.name, tool)
            continue
        both = _both(known, tool)
        if both is None:
            reason = reason or f"the tool {tool.name!r} has schemas that cannot be merged"
        else:
            found[tool.name] = both
    return tuple(found.values()), reason


def _both(one: Tool, two: Tool) -> Tool | None:
    if one.opaque is not None or two.opaque is not None or one.extra != two.extra:
        return None
    parameters = one.parameters if one.parameters is not None else two.parameters
    ours, theirs = _decoded(one.parameters), _decoded(two.parameters)
    if ours != theirs:
        schema = None if _decoded(one.extra).get("strict") else _schema(ours, theirs)
        if schema is None:
            return None
        parameters = msgspec.json.encode(schema)
    texts = dict.fromkeys(text for text in (one.description, two.description) if text)
    return Tool(one.name, description="\n".join(texts) or None, parameters=parameters, extra=one.extra)


def _decoded(raw: bytes | None) -> Any:
    return {} if raw is None else msgspec.json.decode(raw)


def _schema(one: Any, two: Any) -> dict[str, Any] | None:
    """Both schemas of an object as one; ``None`` where they say different things about the same thing."""
    if not isinstance(one, Mapping) or not isinstance(two, Mapping):
        return None
    apart = ("properties", "required")
    if any(one.get(key) != two.get(key) for key in {*one, *two} - {*apart} if key in one and key in two):
        return None
    ours, theirs = one.get("properties", {}), two.get("properties", {})
    if any(ours[key] != theirs[key] for key in ours if key in theirs):
        return None
    both = {key: value for key, value in {**one, **two}.items() if key not in apart}
    both.setdefault("type", "object")  # providers refuse a schema without it
    required = [key for key in one.get("required", []) if key in two.get("required", [])]
    return {**both, "properties": {**ours, **theirs}, "required": required}
