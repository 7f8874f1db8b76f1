"""The stretch of old messages that one message is to stand for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import msgspec

from ..messages import Message
from .base import Budget
from .pairs import blocks, first_user, turns

__all__ = ["ALLOWANCE", "Gap", "gap_of"]

ALLOWANCE = 60  # tokens of the line that stands in the gap


class Gap(msgspec.Struct, frozen=True):
    """``dropped`` are the indexes of messages that go, ascending; pinned ones between them stay. ``tokens`` is what they had."""

    dropped: tuple[int, ...]
    tokens: int

    @property
    def start(self) -> int:
        """The first message that changes."""
        return self.dropped[0]

    def filled(self, messages: Sequence[Message], line: Message) -> list[Message]:
        """The messages with ``line`` in place of those that go."""
        gone = set(self.dropped)
        rest = [
            message for index, message in enumerate(messages[self.start :], self.start) if index not in gone
        ]
        return [*messages[: self.start], line, *rest]


def gap_of(
    messages: Sequence[Message], budget: Budget, *, keep_last: int, allowance: int = ALLOWANCE
) -> Gap | None:
    """What has to go so that the rest, and a line of ``allowance`` tokens, are within the budget; ``None`` if nothing helps.

    What stays: the messages up to the first one of a user, pinned ones with all that they answer, the ``keep_last`` newest
    turns, and what is left of ``budget.least`` otherwise. Turns go as a whole, the oldest first.
    """
    at = first_user(messages)
    head = 0 if at is None else at + 1
    starts = [start for start in turns(messages) if start > head]
    # A turn that goes ends where the next one begins.
    ends = starts[: max(0, len(starts) - keep_last + 1)]
    if not ends:
        return None
    sizes = [budget.count(message) for message in messages[: ends[-1]]]
    rest = sum(map(budget.count, messages[ends[-1] :]))
    before = list(accumulate(sizes, initial=0))
    pinned = _pinned(messages[: ends[-1]], budget)
    stays = list(
        accumulate((size if fixed else 0 for size, fixed in zip(sizes, pinned, strict=True)), initial=0)
    )
    total = before[-1] + rest
    chosen = None
    for end in ends:
        gone = before[end] - before[head] - (stays[end] - stays[head])
        left = total - gone + allowance
        if left < budget.least:
            break
        if gone > allowance:
            chosen = end
            if left <= budget:
                break
    if chosen is None:
        return None
    dropped = tuple(index for index in range(head, chosen) if not pinned[index])
    return Gap(dropped, sum(sizes[index] for index in dropped))


def _pinned(messages: Sequence[Message], budget: Budget) -> list[bool]:
    """Which messages stay: with a pinned one, the calls that it answers and all their results."""
    fixed = [budget.pinned(message) for message in messages]
    if not any(fixed):
        return fixed
    starts = blocks(messages)
    for start, end in zip(starts, [*starts[1:], len(messages)], strict=True):
        if any(fixed[start:end]):
            fixed[start:end] = [True] * (end - start)
    return fixed
