"""One arm on its way through the script, call by call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec

from .arms import Arm, ArmName, new_arm
from .client import Exchange, ScriptedClient
from .clock import DemoClock
from .engines import Fresh

if TYPE_CHECKING:
    from .script import Script

__all__ = ["Sent", "Stretch", "Sums", "Watch", "run_session", "run_workers"]

# Called after each model call with the name of the arm.
Watch = Callable[[ArmName], object]


class Sums(msgspec.Struct, frozen=True):
    """Sums over calls: tokens of the prompts, those read from the cache, and milliseconds of prompt processing.

    >>> Sums.of([Exchange(0, 100), Exchange(100, 100)]).hit_ratio
    0.3333333333333333
    """

    requests: int
    input_tokens: int
    read_tokens: int
    output_tokens: int
    prompt_ms: float | None

    @classmethod
    def of(cls, exchanges: Iterable[Exchange]) -> Sums:
        """The sums of these calls; no time unless each of them was timed."""
        calls = list(exchanges)
        times = [call.prompt_ms for call in calls if call.prompt_ms is not None]
        return cls(
            requests=len(calls),
            input_tokens=sum(call.input_tokens for call in calls),
            read_tokens=sum(call.read_tokens for call in calls),
            output_tokens=sum(call.output_tokens for call in calls),
            prompt_ms=sum(times) if calls and len(times) == len(calls) else None,
        )

    @property
    def computed_tokens(self) -> int:
        """Tokens that the engine had to compute."""
        return self.input_tokens - self.read_tokens

    @property
    def hit_ratio(self) -> float:
        """The part of all prompt tokens that was read from the cache."""
        return self.read_tokens / self.input_tokens if self.input_tokens else 0.0

    @property
    def prompt_seconds(self) -> float | None:
        """Seconds of prompt processing; ``None`` where nothing was measured."""
        return None if self.prompt_ms is None else self.prompt_ms / 1000


class Sent(msgspec.Struct, frozen=True):
    """What one call sent (JSON bytes), and what it came to."""

    body: bytes
    exchange: Exchange


class Stretch(msgspec.Struct, frozen=True):
    """A stretch of an arm's calls: a turn, or what one worker did. ``seconds`` is wall time, with all that is around it."""

    name: str
    sent: tuple[Sent, ...]
    seconds: float

    @property
    def sums(self) -> Sums:
        """What the calls came to."""
        return Sums.of(call.exchange for call in self.sent)


def run_session(name: ArmName, script: Script, fresh: Fresh, watch: Watch) -> list[Stretch]:
    """Run the turns of the session on a fresh engine; a stretch for each."""
    with _running(name, script, fresh, watch) as (arm, calls):
        return [
            _stretch(f"turn {number}", calls, partial(arm.run, turn))
            for number, turn in enumerate(script.turns, 1)
        ]


def run_workers(name: ArmName, script: Script, fresh: Fresh, watch: Watch) -> list[Stretch]:
    """Run the coordinator and, one after the other, its workers on a fresh engine; a stretch for each."""
    with _running(name, script, fresh, watch) as (arm, calls):
        last = script.coordinator[-1]

        def coordinate() -> None:
            for turn in script.coordinator:
                arm.run(turn)

        found = [_stretch("coordinator", calls, coordinate)]
        found += (_stretch(each.name, calls, partial(arm.work, each, last)) for each in script.workers)
        return found


@contextmanager
def _running(name: ArmName, script: Script, fresh: Fresh, watch: Watch) -> Iterator[tuple[Arm, list[Sent]]]:
    clock = DemoClock()
    calls: list[Sent] = []

    def keep(body: bytes, exchange: Exchange) -> None:
        calls.append(Sent(body, exchange))
        watch(name)

    with fresh(clock) as engine:
        yield new_arm(name, script, ScriptedClient(engine, keep), clock), calls


def _stretch(name: str, calls: list[Sent], work: Callable[[], object]) -> Stretch:
    before, start = len(calls), perf_counter()
    work()
    return Stretch(name, tuple(calls[before:]), perf_counter() - start)
