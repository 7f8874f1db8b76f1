"""What came back, read while it passes: usage, and the reply put together."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ..bodies import Wire
from ..dialects.anthropic_stream import MessageAccumulator
from ..dialects.gemini_stream import ReplyAccumulator
from ..dialects.openai_stream import ChatAccumulator
from ..dialects.responses_stream import ResponseAccumulator
from ..errors import LLMBufferError

__all__ = ["LONGEST", "ReplyReader"]

LONGEST = 64 * 2**20  # bytes of a reply that are kept until it ends
_ACCUMULATORS: dict[str, Callable[[], Any]] = {
    "openai": ChatAccumulator,
    "openai-responses": ResponseAccumulator,
    "anthropic": MessageAccumulator,
    "gemini": ReplyAccumulator,
}


class ReplyReader:
    r"""Reads a copy of the reply's bytes. ``decode`` undoes its content encoding, if it has one.

    ``reply`` is the response in the dict form of one that was not streamed, ``None`` where it broke off or is no JSON;
    ``usage`` the provider's own object of counts, merged from every event that carries it. A reply of more than
    ``LONGEST`` bytes is not read.

    >>> reader = ReplyReader("anthropic", events=True)
    >>> reader.feed(b'data: {"type": "message_delta", "usage": {"output_tokens": 7}}\n\n')
    >>> reader.finish()
    >>> reader.usage
    {'output_tokens': 7}
    """

    def __init__(self, wire: Wire, *, events: bool, decode: Callable[[bytes], bytes] | None = None) -> None:
        self._events, self._decode = events, decode
        self._kept = bytearray()
        self._data: list[bytes] = []
        self._merged = _ACCUMULATORS[wire]()
        self._whole = True
        self._too_long = False
        self._ended = False
        self.reply: dict[str, Any] | None = None
        self.usage: dict[str, Any] = {}

    def feed(self, chunk: bytes) -> None:
        """Take in a piece of the reply, as it came over the wire."""
        if self._too_long:
            return
        self._kept += chunk
        if self._events and self._decode is None:
            self._read_lines()
        if len(self._kept) > LONGEST:
            self._too_long, self._kept = True, bytearray()

    def finish(self) -> None:
        """The reply has ended, or broke off: read what is left of it."""
        if self._too_long:
            return
        if self._decode is not None:
            self._kept = bytearray(self._decode(bytes(self._kept)))
        if self._events:
            self._kept += b"\n\n"
            self._read_lines()
            self._put_together()
        else:
            self._read_whole()

    def complete(self, *, to_the_end: bool) -> bool:
        """Whether the reply was finished; ``to_the_end`` says whether all that came was read.

        SDKs stop reading at the last event, and servers that fail may end a stream in good order before it.
        """
        if self._events and self._whole:
            return self.reply is not None or self._ended
        return to_the_end or self.reply is not None

    def _read_lines(self) -> None:
        *lines, rest = self._kept.split(b"\n")
        self._kept = rest
        for line in (each.rstrip(b"\r") for each in lines):
            if line.startswith(b"data:"):
                self._data.append(bytes(line[5:].removeprefix(b" ")))
            elif not line and self._data:
                event, self._data = b"\n".join(self._data), []
                if event.strip() == b"[DONE]":
                    self._ended = True
                else:
                    self._take(_parsed(event))

    def _take(self, event: Any) -> None:
        if not isinstance(event, dict):
            return
        for holder in (event, event.get("message"), event.get("response")):
            if isinstance(holder, Mapping):
                _merge(self.usage, holder.get("usage"))
                _merge(self.usage, holder.get("usageMetadata"))
        try:
            for _ in self._merged.add(event):
                pass
        except (LLMBufferError, LookupError, TypeError, ValueError, AttributeError):
            self._whole = False  # a shape that is not known: the counts are kept, the reply is not

    def _put_together(self) -> None:
        try:
            self.reply = dict(self._merged.response()) if self._whole else None
        except (LLMBufferError, LookupError, TypeError, ValueError, AttributeError):
            self.reply = None

    def _read_whole(self) -> None:
        found = _parsed(bytes(self._kept))
        if isinstance(found, list):  # a stream of Gemini's that was not asked for as events
            for event in found:
                self._take(event)
            self._put_together()
        elif isinstance(found, dict):
            self.reply = found
            _merge(self.usage, found.get("usage"))
            _merge(self.usage, found.get("usageMetadata"))


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _merge(known: dict[str, Any], new: Any) -> None:
    """Counts in a stream are cumulative, and events may leave some out: what comes later counts where it says something."""
    if not isinstance(new, Mapping):
        return
    for key, value in new.items():
        if isinstance(value, Mapping):
            inner = known.get(key)
            known[key] = dict(inner) if isinstance(inner, Mapping) else {}
            _merge(known[key], value)
        elif value is not None:
            known[key] = value
