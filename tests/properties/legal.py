"""Which bodies a provider would refuse."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

__all__ = ["illegal"]

MARKABLE = {
    *("text", "image", "document", "search_result", "tool_use", "tool_result"),
    *("image_url", "file", "input_audio"),
}


def illegal(body: dict[str, Any], dialect: str) -> str | None:
    """Why the provider would refuse the body; ``None`` if it would not."""
    return _illegal_anthropic(body) if dialect == "anthropic" else _illegal_openai(body)


def _illegal_anthropic(body: dict[str, Any]) -> str | None:
    messages = body["messages"]
    roles = [message["role"] for message in messages]
    if roles[0] != "user":
        return f"begins with {roles[0]}"
    for index, (one, two) in enumerate(pairwise(roles)):
        if one == two or (two == "system" and one != "user"):
            return f"{two} follows {one} at {index + 1}"
    for index, message in enumerate(messages):
        kinds = [block["type"] for block in message["content"]]
        if not kinds or any(
            block["type"] == "text" and not block["text"].strip() for block in message["content"]
        ):
            return f"message {index} is empty or holds an empty text"
        results = kinds.count("tool_result")
        if kinds[:results] != ["tool_result"] * results:
            return f"message {index} says something before its tool results"
        called = [b["id"] for b in messages[index - 1]["content"] if b["type"] == "tool_use"] if index else []
        answered = [b["tool_use_id"] for b in message["content"] if b["type"] == "tool_result"]
        if sorted(called) != sorted(answered):
            return f"message {index} answers {answered}, called were {called}"
    marked = [block for block in _blocks(body) if "cache_control" in block]
    return _illegal_marks(marked, 4) or _ttl_order([block["cache_control"] for block in marked])


def _blocks(body: dict[str, Any]) -> list[dict[str, Any]]:
    parts = [part for message in body["messages"] for part in message["content"]]
    return [*body.get("tools", ()), *body.get("system", ()), *parts]


def _illegal_marks(marked: list[dict[str, Any]], slots: int) -> str | None:
    if len(marked) > slots:
        return f"{len(marked)} marks, {slots} are allowed"
    odd = [block["type"] for block in marked if block.get("type", "text") not in MARKABLE]
    return f"marks on {odd}" if odd else None


def _ttl_order(marks: list[dict[str, Any]]) -> str | None:
    long = ["ttl" in mark for mark in marks]
    return None if long == sorted(long, reverse=True) else "a long mark behind a short one"


def _illegal_openai(body: dict[str, Any]) -> str | None:
    waiting: list[str] = []
    for index, message in enumerate(body["messages"]):
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                return f"message {index} answers {message['tool_call_id']}, open are {waiting}"
            waiting.remove(message["tool_call_id"])
        elif waiting:
            return f"message {index} comes before the answers to {waiting}"
        waiting += [call["id"] for call in message.get("tool_calls", ())]
        if message["role"] in ("user", "system", "developer") and not message.get("content"):
            return f"message {index} has no content"
    if waiting:
        return f"{waiting} were not answered"
    parts = [
        (m["role"], part)
        for m in body["messages"]
        for part in m.get("content") or ()
        if isinstance(part, dict)
    ]
    marked = [(role, part) for role, part in parts if "prompt_cache_breakpoint" in part]
    if body["model"] == "gpt-5.5":
        return "fields that the model refuses" if marked or "prompt_cache_options" in body else None
    if any(role in ("assistant", "tool") for role, _ in marked):
        return "a mark on what the model wrote or a tool returned"
    return _illegal_marks([part for _, part in marked], 4 if "prompt_cache_options" in body else 3)
