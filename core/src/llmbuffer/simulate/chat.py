"""OpenAI's chat completions, as the server writes them; also for DeepSeek and the engines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ..usage import Usage
from .answers import Answer, Event, sse

__all__ = ["chat_events", "chat_usage", "chat_whole"]


def chat_usage(usage: Usage, rules: str) -> dict[str, Any]:
    """``prompt_tokens`` include what was read and written; DeepSeek has field names of its own.

    >>> chat_usage(Usage(input_tokens=10, cache_read_tokens=4), "openai")["prompt_tokens_details"]
    {'cached_tokens': 4, 'cache_write_tokens': 0}
    """
    out: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    if rules.startswith("deepseek"):
        out["prompt_cache_hit_tokens"] = usage.cache_read_tokens
        out["prompt_cache_miss_tokens"] = usage.input_tokens - usage.cache_read_tokens
    return out


def chat_whole(answer: Answer) -> dict[str, Any]:
    """The completion in one piece."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None, "refusal": None}
    if answer.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.calls
        ]
    return {
        "id": answer.id,
        "object": "chat.completion",
        "created": answer.created,
        "model": answer.model,
        "choices": [{"index": 0, "message": message, "finish_reason": _finish(answer), "logprobs": None}],
        "usage": chat_usage(answer.usage, answer.rules.name),
    }


def chat_events(answer: Answer) -> Iterator[Event]:
    """The chunks of a stream; usage in a last one without choices, and only if asked for."""
    options = answer.body.get("stream_options")
    asked = isinstance(options, Mapping) and options.get("include_usage") is True
    head = {
        "id": answer.id,
        "object": "chat.completion.chunk",
        "created": answer.created,
        "model": answer.model,
    }

    def chunk(
        kind: Literal["start", "token", "end"], delta: dict[str, Any], finish: str | None = None
    ) -> Event:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        usage = (
            {"usage": None} if asked else {}
        )  # null in all chunks but the last: types/chat/chat_completion_chunk.py
        return sse(kind, {**head, "choices": [choice], **usage})

    yield chunk("start", {"role": "assistant", "content": "", "refusal": None})
    for piece in answer.pieces:
        yield chunk("token", {"content": piece})
    for index, call in enumerate(answer.calls):
        function = {"name": call.name, "arguments": ""}
        yield chunk(
            "token",
            {"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": function}]},
        )
        yield chunk("token", {"tool_calls": [{"index": index, "function": {"arguments": call.arguments}}]})
    yield chunk("end", {}, _finish(answer))
    if asked:
        yield sse("end", {**head, "choices": [], "usage": chat_usage(answer.usage, answer.rules.name)})
    yield Event("end", b"data: [DONE]\n\n")


def _finish(answer: Answer) -> str:
    return "tool_calls" if answer.calls else "stop"
