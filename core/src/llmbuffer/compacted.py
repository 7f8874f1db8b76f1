"""What a compaction did, or would do."""

from __future__ import annotations

import math

import msgspec

from .state import State

__all__ = ["Compacted", "Preview"]


class Preview(msgspec.Struct, frozen=True):
    """What a compaction before the next request would come to; nothing was changed for it.

    ``before`` and ``after`` are tokens of the next prompt, tools and system text among them; ``actions`` the hooks that made
    the difference. ``cost_now`` is what the next request costs more because of it, and ``saving`` what is saved over the
    ``remaining`` requests that are expected, that one included: in USD, ``None`` without a price, and less than 0 where it
    is the other way round. ``break_even`` is the number of requests after the next one from which on it has paid, infinite
    if never. ``compact`` tells whether it would be done, and ``why``.

    >>> Preview(before=9000, after=4000, actions=("ElideToolResults",), break_even=3.0).removed
    5000
    """

    before: int
    after: int
    actions: tuple[str, ...] = ()
    cost_now: float | None = None
    saving: float | None = None
    break_even: float = math.inf
    remaining: int = 0
    compact: bool = False
    forced: bool = False
    why: str = ""

    @property
    def removed(self) -> int:
        """Tokens that would go."""
        return self.before - self.after


class Compacted(msgspec.Struct, frozen=True):
    """A compaction that was made: the ``state`` that the session goes on with, and what it came to.

    ``asked`` tells that the user asked for it.
    """

    state: State
    preview: Preview
    asked: bool = False

    @property
    def reason(self) -> str:
        """What was done and why, for the ledger."""
        told = self.preview
        return f"{'+'.join(told.actions)}: {told.before:,} to {told.after:,} tokens; {told.why}"
