"""OpenAI's responses, as the server writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ..usage import Usage
from .answers import Answer, Event, sse

__all__ = ["response_events", "response_usage", "response_whole"]

_ECHOED = ("instructions", "metadata", "temperature", "top_p", "tool_choice", "tools", "parallel_tool_calls")


def response_usage(usage: Usage) -> dict[str, Any]:
    """``input_tokens`` include what was read and written.

    >>> response_usage(Usage(input_tokens=10, cache_read_tokens=4))["input_tokens_details"]["cached_tokens"]
    4
    """
    long = usage.cache_write_long_tokens
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "cache_write_tokens_details": {
                "ttl_30m_tokens": usage.cache_write_tokens - long,
                "ttl_12h_tokens": long,
            },
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def response_whole(answer: Answer) -> dict[str, Any]:
    """The response in one piece."""
    return _response(answer, "completed", _output(answer), response_usage(answer.usage))


def _response(
    answer: Answer, status: str, output: list[dict[str, Any]], usage: dict[str, Any] | None
) -> dict[str, Any]:
    defaults = {"metadata": {}, "tool_choice": "auto", "tools": [], "parallel_tool_calls": True}
    echoed = {key: answer.body[key] for key in _ECHOED if answer.body.get(key) is not None}
    response = {
        "id": answer.id,
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "model": answer.model,
        "output": output,
        "error": None,
        "incomplete_details": None,
        **defaults,
        **echoed,
        "usage": usage,
    }
    options = answer.body.get("prompt_cache_options")
    if isinstance(options, Mapping):
        applied = {"mode": "implicit", "ttl": "30m", **options}
        response["prompt_cache_options"] = {key: value for key, value in applied.items() if key != "prewarm"}
    if answer.diagnostics is not None and status == "completed":
        response["prompt_cache_diagnostics"] = answer.diagnostics
    return response


def _output(answer: Answer) -> list[dict[str, Any]]:
    items = [_message(answer, answer.text, "completed")] if answer.pieces else []
    return items + [
        _call(answer, index, call.arguments, "completed") for index, call in enumerate(answer.calls)
    ]


def _message(answer: Answer, text: str | None, status: str) -> dict[str, Any]:
    content = [] if text is None else [_text(text)]
    return {
        "id": f"msg_{answer.id}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def _text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call(answer: Answer, index: int, arguments: str, status: str) -> dict[str, Any]:
    call = answer.calls[index]
    item = {"id": f"fc_{answer.id}_{index}", "type": "function_call", "call_id": call.id, "name": call.name}
    return {**item, "arguments": arguments, "status": status}


def response_events(answer: Answer) -> Iterator[Event]:
    """The events of a stream; usage comes in ``response.completed``."""
    for number, (kind, name, fields) in enumerate(_raw_events(answer)):
        yield sse(kind, {"type": name, "sequence_number": number, **fields}, name=name)


_Raw = tuple[Literal["start", "token", "end"], str, dict[str, Any]]


def _raw_events(answer: Answer) -> Iterator[_Raw]:
    begun = {"response": _response(answer, "in_progress", [], None)}
    yield "start", "response.created", begun
    yield "start", "response.in_progress", begun
    if answer.pieces:
        yield from _text_events(answer)
    for index in range(len(answer.calls)):
        yield from _call_events(answer, index, index + bool(answer.pieces))
    yield "end", "response.completed", {"response": response_whole(answer)}


def _text_events(answer: Answer) -> Iterator[_Raw]:
    item = {"output_index": 0, "item": _message(answer, None, "in_progress")}
    yield "start", "response.output_item.added", item
    place = {"item_id": f"msg_{answer.id}", "output_index": 0, "content_index": 0}
    yield "start", "response.content_part.added", {**place, "part": _text("")}
    for piece in answer.pieces:
        yield "token", "response.output_text.delta", {**place, "delta": piece, "logprobs": []}
    yield "token", "response.output_text.done", {**place, "text": answer.text, "logprobs": []}
    yield "token", "response.content_part.done", {**place, "part": _text(answer.text)}
    done = {"output_index": 0, "item": _message(answer, answer.text, "completed")}
    yield "token", "response.output_item.done", done


def _call_events(answer: Answer, index: int, output_index: int) -> Iterator[_Raw]:
    arguments = answer.calls[index].arguments
    place = {"output_index": output_index}
    yield "token", "response.output_item.added", {**place, "item": _call(answer, index, "", "in_progress")}
    within = {**place, "item_id": f"fc_{answer.id}_{index}"}
    yield "token", "response.function_call_arguments.delta", {**within, "delta": arguments}
    done = {**within, "arguments": arguments, "name": answer.calls[index].name}
    yield "token", "response.function_call_arguments.done", done
    yield (
        "token",
        "response.output_item.done",
        {**place, "item": _call(answer, index, arguments, "completed")},
    )
