"""A streamed response of OpenAI's Responses API, as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import DialectError
from ..rules import Event
from .base import mapping_field

__all__ = ["ResponseAccumulator", "refusal"]

_ENDS = frozenset({"response.completed", "response.incomplete"})
_FAILURES = frozenset({"response.failed", "response.cancelled"})


class ResponseAccumulator:
    """Takes in the events of one streamed response. The last of them holds the whole; servers that leave its output
    empty have sent the items before, one by one.
    """

    def __init__(self) -> None:
        self._items: list[tuple[int, Any]] = []
        self._response: Mapping[str, Any] | None = None

    def add(self, event: Mapping[str, Any]) -> Iterator[Event]:
        """Take in one event; yields its text, if any. Raises ``DialectError`` if the provider failed."""
        kind = event.get("type")
        if kind == "response.output_text.delta" and isinstance(event.get("delta"), str) and event["delta"]:
            yield Event("text", text=event["delta"])
        elif kind == "response.output_item.done":
            index = event.get("output_index")
            place = index if isinstance(index, int) else len(self._items)
            self._items.append((place, event.get("item")))
        elif kind in _ENDS:
            self._response = mapping_field(event, "response")
        elif kind in _FAILURES:
            raise refusal(mapping_field(event, "response"))
        elif kind == "error":
            raise refusal({"error": event.get("error") or event})

    def response(self) -> dict[str, Any]:
        """The whole response, in its dict form.

        Raises ``DialectError`` if the stream broke off: half a reply is not to be taken for a whole one.
        """
        if self._response is None:
            raise DialectError(
                "the stream ended before the reply did (no response.completed): send the request again"
            )
        if self._response.get("output") or not self._items:
            return dict(self._response)
        items = [item for _, item in sorted(self._items, key=lambda placed: placed[0])]
        return {**self._response, "output": items}


def refusal(response: Mapping[str, Any]) -> DialectError:
    """The error for a response that the provider could not finish.

    >>> refusal({"status": "failed", "error": {"code": "server_error", "message": "Try again."}})
    DialectError("the provider failed to respond ('server_error'): Try again.")
    """
    error = response.get("error")
    error = error if isinstance(error, Mapping) else {}
    code = error.get("code") or response.get("status")
    return DialectError(
        f"the provider failed to respond ({code!r}): {error.get('message') or 'it gave no reason'}"
    )
