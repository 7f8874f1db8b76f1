"""A reply on its way out: what every wire format makes a response, or the events of a stream, of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from ..frozen import wire_json
from ..rules import CacheRules
from ..usage import Usage
from .replies import Call

__all__ = ["Answer", "Event", "sse"]


class Event(NamedTuple):
    """A piece of a stream: ``start`` and ``token`` events may be cut off from those of the ``end``, which tell usage."""

    kind: Literal["start", "token", "end"]
    data: bytes


class Answer(msgspec.Struct, frozen=True):
    """What the simulated model answers: a text in ``pieces``, calls, usage, and the provider's diagnostics.

    ``silent`` is a request that fills the cache and says nothing. ``created`` is in seconds.
    """

    id: str
    model: str
    created: int
    body: Mapping[str, Any]
    rules: CacheRules
    pieces: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    usage: Usage = Usage()
    diagnostics: Any = None
    silent: bool = False

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)


def sse(kind: Literal["start", "token", "end"], value: Any, *, name: str | None = None) -> Event:
    r"""A server-sent event that holds JSON.

    >>> sse("token", {"a": 1}).data
    b'data: {"a":1}\n\n'
    """
    lead = b"" if name is None else b"event: " + name.encode() + b"\n"
    return Event(kind, lead + b"data: " + wire_json(value) + b"\n\n")
