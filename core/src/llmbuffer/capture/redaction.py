"""Request and response bodies with pseudonyms in place of their texts: the structure stays."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .pseudonyms import Pseudonyms

__all__ = ["redacted", "without_secrets"]

# Their values are words of the API.
_KEPT = frozenset(
    [
        "type",
        "role",
        "model",
        "object",
        "effort",
        "mode",
        "ttl",
        "detail",
        "service_tier",
        "tool_choice",
        "truncation",
        "verbosity",
        "stop_reason",
        "finish_reason",
        "finishReason",
        "status",
        "media_type",
        "mimeType",
        "mime_type",
        "prompt_cache_retention",
        "format",
        "reasoning_effort",
        "thinkingLevel",
        "thinking_level",
        "modalities",
        "responseModalities",
        "response_modalities",
        "responseMimeType",
        "response_mime_type",
        "include",
        "anthropic_version",
        "category",
        "threshold",
        "phase",
        "code",
        "modelVersion",
        "display",
    ]
)
_WORD = re.compile(r"[\w.:/+@;=-]{0,80}")
# Their values are data, and say nothing that is counted in tokens.
_OPAQUE = frozenset(
    [
        "data",
        "url",
        "image_url",
        "file_data",
        "file_id",
        "fileUri",
        "file_uri",
        "uri",
        "encrypted_content",
        "signature",
        "thoughtSignature",
        "thought_signature",
    ]
)
_SCHEMAS = frozenset(
    [
        "parameters",
        "input_schema",
        "inputSchema",
        "schema",
        "parametersJsonSchema",
        "parameters_json_schema",
        "output_schema",
        "responseSchema",
        "response_schema",
        "responseJsonSchema",
        "response_json_schema",
    ]
)
# Objects whose keys are somebody's own words.
_FREE = frozenset(
    [
        "args",
        "response",
        "arguments",
        "input",
        "output",
        "metadata",
        "labels",
        "headers",
        "result",
        "variables",
    ]
)
_NAMED = frozenset(["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"])
_VALUES = frozenset(
    ["enum", "const", "default", "examples", "example", "required", "dependentRequired", "propertyOrdering"]
)
_SECRET = re.compile(r"(?i)authorization|api[-_]?key|access[-_]?token|secret|password|credential")


def redacted(body: Any, names: Pseudonyms) -> Any:
    """A body whose texts, names and data are pseudonyms; types, roles, models, counts and params stay.

    >>> body = {"model": "m", "messages": [{"role": "user", "content": "My number is 7."}], "temperature": 0}
    >>> shown = redacted(body, Pseudonyms(b"0123456789abcdef", count=len))
    >>> shown["model"], shown["messages"][0]["role"], "number" in shown["messages"][0]["content"]
    ('m', 'user', False)
    """
    return _api(body, "", names)


def _api(value: Any, key: str, names: Pseudonyms) -> Any:
    if isinstance(value, str):
        if key in _KEPT and _WORD.fullmatch(value):
            return value
        return names.token(value) if key in _OPAQUE and value else names.text(value)
    if isinstance(value, Mapping):
        return {name: _field(name, item, names) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_api(item, key, names) for item in value]
    return value


def _field(name: str, value: Any, names: Pseudonyms) -> Any:
    if isinstance(value, Mapping) and name in _SCHEMAS:
        return _schema(value, "", names)
    if isinstance(value, Mapping) and name in _FREE:
        return _free(value, names)
    return _api(value, name, names)


def _schema(value: Any, key: str, names: Pseudonyms) -> Any:
    """A JSON schema: its words stay, the names and values that it describes do not."""
    if isinstance(value, Mapping):
        return {name: _keyword(name, item, names) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_schema(item, key, names) for item in value]
    if isinstance(value, str) and not (key == "type" and _WORD.fullmatch(value)):
        return names.text(value)
    return value


def _keyword(name: str, value: Any, names: Pseudonyms) -> Any:
    if isinstance(value, Mapping) and name in _NAMED:
        return {names.text(each): _schema(item, "", names) for each, item in value.items()}
    return _free(value, names) if name in _VALUES else _schema(value, name, names)


def _free(value: Any, names: Pseudonyms) -> Any:
    """Somebody's own words, keys and numbers included."""
    if isinstance(value, Mapping):
        return {names.text(name): _free(item, names) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_free(item, names) for item in value]
    if isinstance(value, str):
        return names.text(value)
    if isinstance(value, bool) or value is None:
        return value
    return type(value)(names.number(repr(value)))


def without_secrets(body: Any) -> Any:
    """A body as it is, but for the values of fields that hold keys and passwords, such as a tool server's headers.

    >>> without_secrets({"tools": [{"type": "mcp", "authorization": "Bearer 1"}]})
    {'tools': [{'type': 'mcp', 'authorization': '[removed]'}]}
    """
    if isinstance(body, Mapping):
        return {
            name: "[removed]" if isinstance(item, str) and _SECRET.search(name) else without_secrets(item)
            for name, item in body.items()
        }
    return [without_secrets(item) for item in body] if isinstance(body, list | tuple) else body
