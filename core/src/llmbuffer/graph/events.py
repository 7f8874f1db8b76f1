"""What a run tells while it is under way."""

from __future__ import annotations

from typing import Literal

import msgspec

from ..usage import Usage

__all__ = ["GraphEvent", "Kind"]

Kind = Literal["started", "retrying", "finished", "kept", "failed", "skipped", "cancelled"]


class GraphEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a task; no prompt text and no result.

    ``at`` are seconds since the run began; ``done`` of ``total`` tasks need nothing more; ``seconds`` is what the task took
    (of ``retrying``: what is waited before the next attempt), ``attempt`` counts from 1; ``usage`` and ``cost`` (USD, or
    ``None``) are those of the task; ``error`` is what it failed with. ``kept`` are results of an earlier run.

    >>> GraphEvent(kind="started", key="facts", at=0.0, done=0, total=2).error is None
    True
    """

    kind: Kind
    key: str
    at: float
    done: int
    total: int
    attempt: int = 1
    seconds: float = 0.0
    usage: Usage | None = None
    cost: float | None = None
    error: BaseException | None = None
