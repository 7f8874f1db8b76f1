"""Fakes that go through the same doors as the real things: a clock, and a provider that answers."""

from __future__ import annotations

from ..messages import Message
from ..observing import Observation
from ..request import Request
from ..usage import Usage

__all__ = ["FakeClock", "reply"]


class FakeClock:
    """A clock for ``Session(clock=…)`` that stands still until it is moved; in seconds.

    >>> clock = FakeClock(100.0)
    >>> clock.advance(5)
    >>> clock()
    105.0
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The time, in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass; raises ``ValueError`` for a negative time, since clocks do not run back."""
        if seconds < 0:
            raise ValueError(f"cannot advance by {seconds!r} seconds: time only passes")
        self.now += seconds


def reply(request: Request, answer: str | Message = "OK.", *, output_tokens: int = 1) -> Observation:
    """Answer a request as a provider would whose cache works as the forecast says, and observe the answer.

    >>> from llmbuffer import Session, StableContext
    >>> session = Session(StableContext("gpt-5.5", "You are kind."))
    >>> reply(session.request("Hello"), "Hi!").message
    Message(role='assistant', parts=<1: text, 3 characters>)
    """
    told = request.forecast
    usage = Usage(
        input_tokens=told.input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=told.read_tokens,
        cache_write_tokens=told.write_tokens,
    )
    return request.observe(usage, answer if isinstance(answer, Message) else Message("assistant", answer))
