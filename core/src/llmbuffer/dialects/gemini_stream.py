"""Responses of Gemini: the fields that the server sent, and a streamed reply, put together again."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from ..errors import DialectError
from ..rules import Event
from .base import as_dict, mapping_field

__all__ = ["ReplyAccumulator", "response_fields"]

# What the SDK's response objects hold besides the server's fields.
_ADDED = frozenset({"sdkHttpResponse", "parsed", "automaticFunctionCallingHistory"})
_JOINED = frozenset({"text", "thought"})


def response_fields(response: Any) -> Mapping[str, Any]:
    """A response as the server sent it, of the SDK's object or of its dict form.

    The SDK decodes signatures and data, and its own JSON writes them in another base64 alphabet than the server's: here
    they are written in the standard one.

    >>> response_fields({"candidates": []})
    {'candidates': []}
    """
    dump = getattr(response, "model_dump", None)
    if isinstance(response, Mapping) or dump is None:
        return as_dict(response)
    fields = dump(mode="python", by_alias=True, exclude_unset=True, warnings=False)
    return {key: _plain(value) for key, value in fields.items() if key not in _ADDED and value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


class ReplyAccumulator:
    """Merges the chunks of one stream into the response that was not streamed.

    Pieces of a text are joined. A part with a signature stays a part of its own, even with an empty text: Google's guide
    on thought signatures forbids to merge one with a part without. Calls come whole. Of usage, the last count of each
    kind is kept.
    """

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._candidate: dict[str, Any] = {}
        self._content: dict[str, Any] = {"role": "model"}
        self._parts: list[dict[str, Any]] = []
        self._usage: dict[str, Any] = {}

    def add(self, chunk: Mapping[str, Any]) -> Iterator[Event]:
        """Take in one chunk; yields its text, if any, without thoughts."""
        self._usage.update(mapping_field(chunk, "usageMetadata"))
        kept = {key: value for key, value in chunk.items() if key not in ("candidates", "usageMetadata")}
        self._head.update(kept)
        for candidate in chunk.get("candidates") or ():
            if candidate.get("index") in (None, 0):
                yield from self._take(candidate)

    def _take(self, candidate: Mapping[str, Any]) -> Iterator[Event]:
        fields = {key: value for key, value in candidate.items() if key != "content" and value is not None}
        self._candidate.update(fields)
        content = mapping_field(candidate, "content")
        self._content.update({key: value for key, value in content.items() if key != "parts"})
        for part in content.get("parts") or ():
            self._append(dict(part))
            if part.get("text") and not part.get("thought"):
                yield Event("text", text=part["text"])

    def _append(self, part: dict[str, Any]) -> None:
        call = part.get("functionCall")
        if isinstance(call, Mapping) and (call.get("partialArgs") or call.get("willContinue")):
            raise DialectError(
                "the stream sends the arguments of a call in pieces: leave streamFunctionCallArguments out of the tool config"
            )
        last = self._parts[-1] if self._parts else {}
        if part == {"text": ""}:  # the last chunk brings one with the reason to finish
            return
        if "text" in part and part.keys() <= _JOINED and part.keys() == last.keys():
            last["text"] += part["text"]
        else:
            self._parts.append(part)

    def response(self) -> dict[str, Any]:
        """The whole response, in the dict form of one that was not streamed.

        Raises ``DialectError`` if the stream broke off: half a reply is not to be taken for a whole one. A prompt that
        was blocked is a whole response without candidates.
        """
        usage = {"usageMetadata": self._usage} if self._usage else {}
        if not self._candidate and mapping_field(self._head, "promptFeedback"):
            return {**self._head, **usage}
        if self._candidate.get("finishReason") is None:
            raise DialectError(
                "the stream ended before the reply did (no finishReason): send the request again"
            )
        content = {**self._content, "parts": self._parts}
        return {"candidates": [{"content": content, **self._candidate}], **self._head, **usage}
