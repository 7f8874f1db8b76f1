"""A streamed chat completion, put together again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..rules import Event

__all__ = ["ChatAccumulator"]


class ChatAccumulator:
    """Merges the chunks of one streamed completion into the response that was not streamed.

    Pieces of text, and of the arguments of tool calls, are joined in order; usage is taken from whichever chunk
    carries it (OpenAI's comes last, without choices).
    """

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._message: dict[str, Any] = {"role": "assistant", "content": None}
        self._calls: dict[int, dict[str, Any]] = {}
        self._finish: str | None = None
        self._usage: Any = None

    def add(self, chunk: Mapping[str, Any]) -> Iterator[Event]:
        """Take in one chunk; yields its text, if any."""
        self._head.update({key: chunk[key] for key in ("id", "model", "created") if key in chunk})
        if chunk.get("usage") is not None:
            self._usage = chunk["usage"]
        for choice in chunk.get("choices") or ():
            if choice.get("index", 0) != 0:
                continue
            self._finish = choice.get("finish_reason") or self._finish
            yield from self._delta(choice.get("delta") or {})

    def _delta(self, delta: Mapping[str, Any]) -> Iterator[Event]:
        for key, value in delta.items():
            if key == "tool_calls":
                for call in value or ():
                    self._merge_call(call)
            elif key != "role" and value is not None:
                known = self._message.get(key)
                joined = known + value if isinstance(known, str) and isinstance(value, str) else value
                self._message[key] = joined
        if isinstance(delta.get("content"), str) and delta["content"]:
            yield Event("text", text=delta["content"])

    def _merge_call(self, piece: Mapping[str, Any]) -> None:
        call = self._calls.setdefault(
            piece["index"], {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        function = piece.get("function") or {}
        call["id"] = piece.get("id") or call["id"]
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""
        call.update(
            {key: value for key, value in piece.items() if key not in ("index", "id", "type", "function")}
        )

    def response(self) -> dict[str, Any]:
        """The whole response, in the dict form of one that was not streamed."""
        message = dict(self._message)
        if self._calls:
            message["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
        choice = {"index": 0, "message": message, "finish_reason": self._finish}
        usage = {} if self._usage is None else {"usage": self._usage}
        return {**self._head, "object": "chat.completion", "choices": [choice], **usage}
