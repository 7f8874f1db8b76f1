"""A streamed message, put together again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ..errors import DialectError
from ..rules import Event
from .base import INVALID_JSON, mapping_field

__all__ = ["MessageAccumulator"]


class MessageAccumulator:
    """Merges streamed events into the message that was not streamed; usage is merged from every event that carries it.

    Counts in a stream are cumulative, so the largest of each is kept. Input of a tool that is not a complete JSON object
    becomes ``{"INVALID_JSON": text}``, which is how Anthropic wants it back; it is never executed.
    """

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._json: dict[int, str] = {}
        self._usage: dict[str, Any] = {}

    def add(self, event: Mapping[str, Any]) -> Iterator[Event]:
        """Take in one event; yields its text, if any."""
        kind = event.get("type")
        if kind == "message_start":
            self._message = dict(mapping_field(event, "message"))
            self._merge_usage(self._message)
        elif kind == "content_block_start":
            self._blocks[event["index"]] = dict(event["content_block"])
        elif kind == "content_block_delta":
            yield from self._delta(event["index"], mapping_field(event, "delta"))
        elif kind == "message_delta":
            self._message.update(mapping_field(event, "delta"))
            self._merge_usage(event)

    def _merge_usage(self, holder: Mapping[str, Any]) -> None:
        for key, value in mapping_field(holder, "usage").items():
            known = self._usage.get(key)
            if isinstance(known, int) and isinstance(value, int):
                self._usage[key] = max(known, value)
            elif value is not None:
                self._usage[key] = value

    def _delta(self, index: int, delta: Mapping[str, Any]) -> Iterator[Event]:
        if index not in self._blocks:
            raise DialectError(f"the stream continues block {index!r}, which it never began")
        block, kind = self._blocks[index], delta.get("type")
        if kind == "input_json_delta":
            self._json[index] = self._json.get(index, "") + delta["partial_json"]
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
        else:  # text, thinking, signature, and what may come: a field of the delta continues that of the block
            for key, value in delta.items():
                if key != "type":
                    known = block.get(key)
                    joins = isinstance(known, str) and isinstance(value, str)
                    block[key] = known + value if joins else value
        if kind == "text_delta":
            yield Event("text", text=delta["text"])

    def response(self) -> dict[str, Any]:
        """The whole message, in the dict form of one that was not streamed.

        Raises ``DialectError`` if the stream broke off: half a reply is not to be taken for a whole one.
        """
        if self._message.get("stop_reason") is None:
            raise DialectError(
                "the stream ended before the reply did (no stop_reason): send the request again"
            )
        for index, text in self._json.items():
            if text:
                self._blocks[index]["input"] = _input(text)
        content = [self._blocks[index] for index in sorted(self._blocks)]
        return {**self._message, "content": content, "usage": self._usage}


def _input(text: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {INVALID_JSON: text}
