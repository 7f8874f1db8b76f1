"""Gemini's responses, as the server writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..usage import Usage
from .answers import Answer, Event, sse

__all__ = ["generate_events", "generate_usage", "generate_whole"]


def generate_usage(usage: Usage) -> dict[str, Any]:
    """``promptTokenCount`` includes what was read; nothing is said where nothing was.

    >>> generate_usage(Usage(input_tokens=10, cache_read_tokens=4))["cachedContentTokenCount"]
    4
    """
    out: dict[str, Any] = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": usage.output_tokens,
        "totalTokenCount": usage.input_tokens + usage.output_tokens,
    }
    if usage.cache_read_tokens:
        out["cachedContentTokenCount"] = usage.cache_read_tokens
        out["cacheTokensDetails"] = [{"modality": "TEXT", "tokenCount": usage.cache_read_tokens}]
    return out


def generate_whole(answer: Answer) -> dict[str, Any]:
    """The response in one piece."""
    parts = [{"text": answer.text}] if answer.pieces else []
    return _response(answer, [*parts, *_calls(answer)], finished=True)


def _calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {"functionCall": {"id": call.id, "name": call.name, "args": _args(call.arguments)}}
        for call in answer.calls
    ]


def _args(arguments: str) -> Any:
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {}


def _response(answer: Answer, parts: list[dict[str, Any]], *, finished: bool) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if finished:
        candidate["finishReason"] = "STOP"
    return {
        "candidates": [candidate],
        "usageMetadata": generate_usage(answer.usage),
        "modelVersion": answer.model,
        "responseId": answer.id,
    }


def generate_events(answer: Answer) -> Iterator[Event]:
    """The events of a stream, each a response of its own; the last one says that it is finished."""
    for piece in answer.pieces:
        yield sse("token", _response(answer, [{"text": piece}], finished=False))
    for call in _calls(answer):
        yield sse("token", _response(answer, [call], finished=False))
    yield sse("end", _response(answer, [{"text": ""}], finished=True))
