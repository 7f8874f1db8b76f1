"""What became of the tasks."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import msgspec

from ..messages import Message
from ..observing import Observation
from ..usage import Usage

if TYPE_CHECKING:
    from ..session import Session

__all__ = ["Result", "Results"]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker came to: its last ``message``, or the ``error`` that ended it; the other one is ``None``.

    ``usage`` sums all its requests (also those of a worker that failed later), ``cost`` in USD (``None`` where a price or a
    report is missing), ``observations`` has one for each. ``session`` is its fork, which holds the whole exchange, and
    ``seconds`` what passed by the session's clock, the time that it was held included. ``key`` is the routing key that it
    sent, ``led`` whether it went first to warm the cache, ``attempts`` how many requests were sent, failed ones included.

    >>> from llmbuffer import Session, StableContext
    >>> session = Session(StableContext("gpt-5.5"))
    >>> Result(name="a", message=Message("assistant", "Done."), session=session).text
    'Done.'
    """

    name: str
    session: Session
    message: Message | None = None
    error: BaseException | None = None
    usage: Usage = Usage()
    cost: float | None = 0.0
    observations: tuple[Observation, ...] = ()
    seconds: float = 0.0
    key: str | None = None
    led: bool = False
    attempts: int = 0

    @property
    def ok(self) -> bool:
        """Whether the worker ended with a message."""
        return self.error is None

    @property
    def text(self) -> str:
        """The text of the message; empty where there is none."""
        return "" if self.message is None else self.message.text

    def __repr__(self) -> str:
        end = "ok" if self.ok else f"error={type(self.error).__name__}"
        return f"Result({self.name!r}, {end}, requests={len(self.observations)}, usage={self.usage})"


class Results(tuple[Result, ...]):
    """The results in the order of the tasks, and their sums.

    >>> Results().usage.input_tokens, Results().ok
    (0, True)
    """

    __slots__ = ()

    @property
    def usage(self) -> Usage:
        """The sum over all workers."""
        return reduce(add, (each.usage for each in self), Usage())

    @property
    def cost(self) -> float | None:
        """The sum in USD; ``None`` if that of any worker is unknown."""
        costs = [each.cost for each in self]
        return None if None in costs else sum(cost for cost in costs if cost is not None)

    @property
    def hit_ratio(self) -> float:
        """``cache_read_tokens / input_tokens`` over all requests."""
        return self.usage.hit_ratio

    @property
    def ok(self) -> bool:
        """Whether every worker ended with a message."""
        return all(each.ok for each in self)

    @property
    def errors(self) -> tuple[Result, ...]:
        """The results of the workers that failed."""
        return tuple(each for each in self if not each.ok)


def summed(observations: list[Observation]) -> tuple[Usage, float | None]:
    """Usage and cost of these requests; a cost that nobody knows makes the sum unknown."""
    usage = reduce(add, (each.usage for each in observations if each.usage is not None), Usage())
    costs = [each.cost for each in observations]
    return usage, None if None in costs else sum(cost for cost in costs if cost is not None)
