"""What a fan-out tells while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import msgspec

__all__ = ["FanOutEvent", "OnEvent"]

Kind = Literal[
    "started", "leading", "waiting", "text", "tool_result", "observed", "retrying", "finished", "done"
]


class FanOutEvent(msgspec.Struct, frozen=True):
    """One thing that happened to the worker ``name``, whose task stands at ``index`` (from 0).

    ``started``; ``leading`` (it goes first to warm the cache); ``waiting`` (it is held until the one that goes first is
    answered); ``text`` (a piece of a streamed reply); ``tool_result``, ``observed``, ``retrying``, ``finished`` with the
    ``ToolResult``, the ``Observation``, the ``RetryWait`` or the ``Result`` as ``value``. The last event of
    ``fan_out_events`` is ``done``: it belongs to no worker (index -1), and its value are the ``Results``.

    >>> FanOutEvent("text", "worker-1", 0, text="Hel")
    FanOutEvent('text', 'worker-1')
    """

    kind: Kind
    name: str
    index: int
    text: str = ""
    value: Any = None

    def __repr__(self) -> str:
        return f"FanOutEvent({self.kind!r}, {self.name!r})"


OnEvent: TypeAlias = Callable[[FanOutEvent], object]
