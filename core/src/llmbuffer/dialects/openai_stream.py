"""A streamed chat completion, put together again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import DialectError
from ..rules import Event

__all__ = ["ChatAccumulator"]

_WHOLE = frozenset({"id", "type", "index", "format"})  # sent in one piece, though perhaps more than once


class ChatAccumulator:
    """Merges the chunks of one streamed completion into the response that was not streamed.

    Pieces of text, and of the arguments of tool calls, are joined in order; so are the pieces of fields that are not known
    here. Usage is taken from whichever chunk carries it (OpenAI's comes last, without choices).
    """

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._message: dict[str, Any] = {"role": "assistant", "content": None}
        self._calls: list[dict[str, Any]] = []
        self._places: dict[Any, int] = {}  # index in the stream -> place among the calls
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
                for piece in value or ():
                    self._merge_call(piece)
            elif key != "role":
                self._message[key] = merged(self._message.get(key), value)
        if isinstance(delta.get("content"), str) and delta["content"]:
            yield Event("text", text=delta["content"])

    def _merge_call(self, piece: Mapping[str, Any]) -> None:
        place = self._place(piece)
        call = self._calls[place]
        rest = {key: value for key, value in piece.items() if key not in ("index", "function")}
        function = dict(piece.get("function") or {})
        if function.get("name") == (call.get("function") or {}).get("name"):
            function.pop("name", None)  # some servers repeat it in every piece
        self._calls[place] = merged(call, {**rest, "function": function} if function else rest)

    def _place(self, piece: Mapping[str, Any]) -> int:
        """Which call a piece belongs to, also where servers leave out the index or send 0 for every call."""
        index = piece.get("index")
        place = self._places.get(index, -1) if index is not None else len(self._calls) - 1
        known = self._calls[place].get("id") if place >= 0 else None
        named = (piece.get("function") or {}).get("name")
        begins = bool(known and named and piece.get("id") and piece["id"] != known)
        if place < 0 or begins:
            self._calls.append({})
            place = len(self._calls) - 1
        self._places[index] = place
        return place

    def response(self) -> dict[str, Any]:
        """The whole response, in the dict form of one that was not streamed.

        Raises ``DialectError`` if the stream broke off: half a reply is not to be taken for a whole one.
        """
        if self._finish is None:
            raise DialectError(
                "the stream ended before the reply did (no finish_reason): send the request again"
            )
        message = dict(self._message)
        if self._calls:
            message["tool_calls"] = [_whole_call(call) for call in self._calls]
        choice = {"index": 0, "message": message, "finish_reason": self._finish}
        usage = {} if self._usage is None else {"usage": self._usage}
        return {**self._head, "object": "chat.completion", "choices": [choice], **usage}


def _whole_call(call: Mapping[str, Any]) -> dict[str, Any]:
    kind = call.get("type") or "function"
    inner = (
        {"function": {"name": "", "arguments": "", **call.get("function", {})}} if kind == "function" else {}
    )
    return {"id": "", **call, "type": kind, **inner}


def merged(known: Any, new: Any) -> Any:
    """A field so far and its next piece: texts are joined, lists grow, objects are merged field by field.

    >>> merged({"text": "Hel", "type": "x"}, {"text": "lo", "type": "x"})
    {'text': 'Hello', 'type': 'x'}
    """
    if new is None or known is None:
        return known if new is None else new
    if isinstance(known, str) and isinstance(new, str):
        return known + new
    if isinstance(known, Mapping) and isinstance(new, Mapping):
        pieces = {
            key: value if key in _WHOLE and value else merged(known.get(key), value)
            for key, value in new.items()
        }
        return {**known, **pieces}
    if isinstance(known, list) and isinstance(new, list):
        return _merged_lists(known, new)
    return new


def _merged_lists(known: list[Any], new: list[Any]) -> list[Any]:
    """Items that carry an index are merged with the one of the same index, others are appended."""
    out = list(known)
    for item in new:
        index = item.get("index") if isinstance(item, Mapping) else None
        same = [place for place, other in enumerate(out) if index is not None and _index(other) == index]
        if same:
            out[same[0]] = merged(out[same[0]], item)
        else:
            out.append(item)
    return out


def _index(item: Any) -> Any:
    return item.get("index") if isinstance(item, Mapping) else None
