"""Whether a reply is whole: how each provider says why it stopped, and what counts as an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .dialects.gemini_stream import response_fields

__all__ = ["is_complete"]

# The reasons of a model that said all it wanted to, or that calls tools: OpenAI's and DeepSeek's, Anthropic's, Gemini's.
_WHOLE = frozenset(
    {"stop", "tool_calls", "function_call", "end_turn", "stop_sequence", "tool_use", "STOP", "completed"}
)


def is_complete(response: Any) -> bool:
    """Whether a response holds a whole reply: not cut off by a limit, not filtered, and no refusal.

    Knows the shapes of OpenAI (chat and Responses), Anthropic and Gemini, as SDK objects or in dict form; a response that
    says nothing about why it stopped is taken for whole. Raises ``DialectError`` for what is no response.

    >>> is_complete({"choices": [{"finish_reason": "length", "message": {"content": "To be"}}]})
    False
    >>> is_complete({"stop_reason": "end_turn", "content": []})
    True
    """
    fields = response_fields(response)
    reasons = [
        fields.get("stop_reason"),
        fields.get("status"),
        _first(fields, "choices").get("finish_reason"),
    ]
    reasons.append(_first(fields, "candidates").get("finishReason"))
    if any(reason is not None and reason not in _WHOLE for reason in reasons):
        return False
    message = _first(fields, "choices").get("message")
    refused = isinstance(message, Mapping) and bool(message.get("refusal"))
    return not refused and not any(map(_refuses, _listed(fields, "output")))


def _refuses(item: Any) -> bool:
    """Whether an output item of the Responses API holds a refusal."""
    content = item.get("content") if isinstance(item, Mapping) else None
    return any(isinstance(part, Mapping) and part.get("type") == "refusal" for part in content or ())


def _listed(fields: Mapping[str, Any], name: str) -> list[Any]:
    value = fields.get(name)
    return list(value) if isinstance(value, list | tuple) else []


def _first(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = _listed(fields, name)[:1]
    return found[0] if found and isinstance(found[0], Mapping) else {}
