"""What a script says, in the wire format of OpenAI's Responses API: as one object, and as the events of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.loopback import Said, Usage

PIECE = 3  # characters of text, or of arguments, in an event


def responses_usage(usage: Usage) -> dict[str, Any]:
    fresh, read, written, output = usage
    total = fresh + read + written
    return {
        "input_tokens": total,
        "input_tokens_details": {
            "cached_tokens": read,
            "cache_write_tokens": written,
            "cache_write_tokens_details": {"ttl_30m_tokens": written, "ttl_12h_tokens": 0},
        },
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": total + output,
    }


def message_item(text: str, number: int = 1) -> dict[str, Any]:
    content = [{"type": "output_text", "annotations": [], "logprobs": [], "text": text}]
    return {
        "id": f"msg_{number}",
        "type": "message",
        "status": "completed",
        "content": content,
        "role": "assistant",
    }


def call_item(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {
        "id": f"fc_{call_id}",
        "type": "function_call",
        "status": "completed",
        "arguments": arguments,
        "call_id": call_id,
        "name": name,
    }


def responses_output(said: Said) -> list[dict[str, Any]]:
    output = [] if said.text is None else [message_item(said.text)]
    return [*output, *(call_item(*call) for call in said.calls)]


def responses_whole(said: Said) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": "m",
        "output": responses_output(said),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None if said.usage is None else responses_usage(said.usage),
    }


def responses_events(said: Said) -> Iterator[str]:
    for number, event in enumerate(responses_raw(said)):
        numbered = {**event, "sequence_number": number}
        yield f"event: {event['type']}\ndata: {json.dumps(numbered)}\n\n"


def responses_raw(said: Said) -> Iterator[dict[str, Any]]:
    """The events, without their numbers."""
    whole = responses_whole(said)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(whole["output"]):
        emptied: dict[str, Any] = {"content": []} if item["type"] == "message" else {"arguments": ""}
        started = {**item, **emptied, "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": index, "item": started}
        yield from _message_events(item, index) if item["type"] == "message" else _call_events(item, index)
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    if not said.truncated:
        yield {"type": "response.completed", "response": whole}


def _message_events(item: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
    (part,) = item["content"]
    where = {"item_id": item["id"], "output_index": index, "content_index": 0}
    yield {"type": "response.content_part.added", **where, "part": {**part, "text": ""}}
    for piece in _pieces(part["text"]):
        yield {"type": "response.output_text.delta", **where, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **where, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **where, "part": part}


def _call_events(item: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
    where = {"item_id": item["id"], "output_index": index}
    for piece in _pieces(item["arguments"]):
        yield {"type": "response.function_call_arguments.delta", **where, "delta": piece}
    done = {"name": item["name"], "arguments": item["arguments"]}
    yield {"type": "response.function_call_arguments.done", **where, **done}


def _pieces(text: str) -> list[str]:
    return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
