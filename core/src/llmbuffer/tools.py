"""Tools: a name, a description, and a schema whose bytes stay as they were first seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .errors import EncodingError, MessageError
from .frozen import canonical_json, check_text, freeze, wire_json
from .parts import Opaque, Private

__all__ = ["Tool"]


class Tool(Private, frozen=True, gc=False):
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
        if (
            kind == "function"
            and isinstance(tool.get("function"), Mapping)
            and set(tool) == {"type", "function"}
        ):
            return _function_tool(tool["function"], "parameters")
        if kind is None or (kind == "custom" and "input_schema" in tool):
            fields = {key: value for key, value in tool.items() if key != "type"}
            return _function_tool(fields, "input_schema" if "input_schema" in tool else "parameters")
        inner = tool.get(kind) if isinstance(kind, str) else None
        name = tool.get("name") or (inner.get("name") if isinstance(inner, Mapping) else None) or kind
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
    schema, description = fields.get(schema_key), fields.get("description")
    name = _name(fields.get("name"))
    if description is not None and not isinstance(description, str):
        raise MessageError(
            f"the description of tool {name!r} is a {type(description).__name__}, not a string"
        )
    return Tool(
        name=name,
        description=None if description is None else check_text(description, f"description of tool {name!r}"),
        parameters=None if schema is None else _schema(schema, name),
        extra=wire_json(freeze(extra, f"tool {name!r}")) if extra else None,
    )


def _schema(schema: object, name: str) -> bytes:
    if isinstance(schema, bytes | str):
        raw = schema.encode() if isinstance(schema, str) else schema
        try:
            freeze(msgspec.json.decode(raw), f"tool {name!r}.parameters")
        except (msgspec.DecodeError, RecursionError) as error:
            raise EncodingError(f"the schema of tool {name!r} is not JSON: {error}") from None
        return raw
    return wire_json(freeze(schema, f"tool {name!r}.parameters"))


def _name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise MessageError(f"a tool needs a name, found {name!r}: give a mapping with 'name'")
    return check_text(name, "tool name")
