"""Anthropic's messages, as the server writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

from ..usage import Usage
from .answers import Answer, Event, sse

__all__ = ["message_events", "message_usage", "message_whole"]


def message_usage(usage: Usage) -> dict[str, Any]:
    """``input_tokens`` exclude what was read and written.

    >>> message_usage(Usage(input_tokens=10, cache_read_tokens=4, cache_write_tokens=5))["input_tokens"]
    1
    """
    long = usage.cache_write_long_tokens
    return {
        "input_tokens": usage.fresh_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_tokens - long,
            "ephemeral_1h_input_tokens": long,
        },
        "output_tokens": usage.output_tokens,
        "service_tier": "standard",
    }


def message_whole(answer: Answer) -> dict[str, Any]:
    """The message in one piece."""
    content: list[dict[str, Any]] = [{"type": "text", "text": answer.text}] if answer.pieces else []
    content += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call.arguments)}
        for call in answer.calls
    ]
    whole = {**_head(answer), "content": content, "stop_reason": _stop(answer), "stop_sequence": None}
    return {**whole, "usage": message_usage(answer.usage)}


def _head(answer: Answer) -> dict[str, Any]:
    head = {"id": answer.id, "type": "message", "role": "assistant", "model": answer.model}
    return {**head, "diagnostics": answer.diagnostics}


def _input(arguments: str) -> Any:
    """Arguments that are no JSON object come as text under one key: the page on fine-grained tool streaming."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": arguments}


def _stop(answer: Answer) -> str:
    if answer.silent:
        return "max_tokens"
    return "tool_use" if answer.calls else "end_turn"


def message_events(answer: Answer) -> Iterator[Event]:
    """The events of a stream: usage of the prompt at the start, and all of it, cumulative, at the end."""
    usage = message_usage(answer.usage)
    start = {**_head(answer), "content": [], "stop_reason": None, "stop_sequence": None}
    begun = {**usage, "output_tokens": min(1, answer.usage.output_tokens)}
    yield _event("start", "message_start", message={**start, "usage": begun})
    yield _event("start", "ping")
    if answer.pieces:
        yield _event("start", "content_block_start", index=0, content_block={"type": "text", "text": ""})
        for piece in answer.pieces:
            yield _event("token", "content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
        yield _event("token", "content_block_stop", index=0)
    for index, call in enumerate(answer.calls, int(bool(answer.pieces))):
        block: dict[str, Any] = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        yield _event("token", "content_block_start", index=index, content_block=block)
        for part in ("", call.arguments):
            delta = {"type": "input_json_delta", "partial_json": part}
            yield _event("token", "content_block_delta", index=index, delta=delta)
        yield _event("token", "content_block_stop", index=index)
    # The fields that types/message_delta_usage.py has.
    cumulative = {key: value for key, value in usage.items() if key not in ("cache_creation", "service_tier")}
    ending: dict[str, Any] = {"stop_reason": _stop(answer), "stop_sequence": None}
    yield _event("end", "message_delta", delta=ending, usage=cumulative)
    yield _event("end", "message_stop")


def _event(kind: Literal["start", "token", "end"], name: str, **fields: Any) -> Event:
    return sse(kind, {"type": name, **fields}, name=name)
