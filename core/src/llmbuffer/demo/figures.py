"""What the demo came to, and the document it makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .arms import ARMS, ArmName
from .broken import Broken
from .measured import Stretch, Sums

__all__ = ["ArmFigures", "Demo", "WorkerFigures", "less", "sums_of"]


def sums_of(stretches: tuple[Stretch, ...]) -> Sums:
    """The sums over all calls of some stretches."""
    return Sums.of(call.exchange for stretch in stretches for call in stretch.sent)


class ArmFigures(msgspec.Struct, frozen=True):
    """One arm over the turns of the session.

    ``cost_usd`` is of one session by provider, simulated; ``memory_bytes`` what one session holds in the end; ``broken``
    where its requests parted from the one before.
    """

    turns: tuple[Stretch, ...]
    cost_usd: Mapping[str, float]
    memory_bytes: int
    broken: tuple[Broken, ...] = ()

    @property
    def sums(self) -> Sums:
        """The sums over all turns."""
        return sums_of(self.turns)

    @property
    def prompt_seconds_per_turn(self) -> float | None:
        """Mean seconds of prompt processing in a turn; ``None`` where nothing was measured."""
        seconds = self.sums.prompt_seconds
        return None if seconds is None else seconds / max(1, len(self.turns))

    def to_json(self, measured: bool) -> dict[str, Any]:
        """The figures by name."""
        return {
            **_sums_json(self.sums),
            "prompt_seconds_per_turn": self.prompt_seconds_per_turn,
            "cost_usd_per_100_sessions": {name: 100 * usd for name, usd in self.cost_usd.items()},
            "memory_bytes_per_session": self.memory_bytes,
            "broken": [msgspec.structs.asdict(broken) for broken in self.broken],
            "measured": measured,
        }


class WorkerFigures(msgspec.Struct, frozen=True):
    """An arm's coordinator and its workers; ``seconds`` is wall time."""

    coordinator: Stretch
    workers: tuple[Stretch, ...]

    @property
    def sums(self) -> Sums:
        """Coordinator and workers together."""
        return sums_of((self.coordinator, *self.workers))

    @property
    def seconds(self) -> float:
        """Wall time of the workers alone."""
        return sum(worker.seconds for worker in self.workers)

    def to_json(self, measured: bool) -> dict[str, Any]:
        """The figures by name; without times where nothing was measured."""
        return {
            **_sums_json(self.sums),
            "seconds": self.seconds if measured else None,
            "coordinator": _stretch_json(self.coordinator, measured),
            "workers": [_stretch_json(worker, measured) for worker in self.workers],
            "measured": measured,
        }


class Demo(msgspec.Struct, frozen=True):
    """All figures of one run. ``engine`` is ``llamacpp`` or ``simulate``; ``seconds`` the wall time of the whole run.

    ``counters`` says what counted the tokens for the cost at each provider.
    """

    engine: str
    arms: Mapping[ArmName, ArmFigures]
    workers: Mapping[ArmName, WorkerFigures]
    counters: Mapping[str, str]
    threads: int = 1
    seconds: float = 0.0

    @property
    def measured(self) -> bool:
        """Whether tokens and times come from a real engine."""
        return self.engine != "simulate"

    @property
    def times_faster(self) -> float | None:
        """Wall time of separate worker sessions over that of forks; ``None`` where nothing was measured."""
        ours = self.workers["buffered"].seconds
        return self.workers["default"].seconds / ours if self.measured and ours else None

    def improvement(self, over: ArmName = "default") -> dict[str, Any]:
        """What ``buffered`` saves against another arm: fractions of 1, of tokens computed, prompt time and cost."""
        ours, theirs = self.arms["buffered"], self.arms[over]
        return {
            "computed_tokens": less(ours.sums.computed_tokens, theirs.sums.computed_tokens),
            "prompt_seconds": less(ours.sums.prompt_ms, theirs.sums.prompt_ms),
            "cost_usd": {name: less(usd, theirs.cost_usd[name]) for name, usd in ours.cost_usd.items()},
            "hit_ratio": ours.sums.hit_ratio - theirs.sums.hit_ratio,
        }

    @property
    def share_of_oracle(self) -> float | None:
        """The hit ratio of ``buffered`` over that of ``oracle``."""
        best = self.arms["oracle"].sums.hit_ratio
        return self.arms["buffered"].sums.hit_ratio / best if best else None

    def to_json(self) -> dict[str, Any]:
        """The document that ``llmbuffer demo --json`` prints."""
        document: dict[str, Any] = {"engine": self.engine, "measured": self.measured}
        for name in ARMS:
            document[_key(name)] = self.arms[name].to_json(self.measured)
        document["improvement"] = {
            **self.improvement(),
            "against_per_turn": self.improvement("per-turn"),
            "share_of_oracle": self.share_of_oracle,
        }
        document["turns"] = [self._turn_json(index) for index in range(len(self.arms["default"].turns))]
        workers: dict[str, Any] = {
            _key(name): found.to_json(self.measured) for name, found in self.workers.items()
        }
        document["workers"] = {**workers, "times_faster": self.times_faster}
        return document

    def _turn_json(self, index: int) -> dict[str, Any]:
        turns = {_key(name): _sums_json(arm.turns[index].sums) for name, arm in self.arms.items()}
        return {"turn": index + 1, **turns}


def less(ours: float | None, theirs: float | None) -> float | None:
    """How much less the one is than the other, a fraction of 1.

    >>> less(25, 100)
    0.75
    """
    return None if ours is None or not theirs else 1 - ours / theirs


def _key(name: ArmName) -> str:
    return name.replace("-", "_")


def _sums_json(sums: Sums) -> dict[str, Any]:
    return {
        "requests": sums.requests,
        "input_tokens": sums.input_tokens,
        "cache_read_tokens": sums.read_tokens,
        "computed_tokens": sums.computed_tokens,
        "fresh_tokens": sums.computed_tokens,
        "cache_write_tokens": 0,
        "output_tokens": sums.output_tokens,
        "hit_ratio": sums.hit_ratio,
        "prompt_seconds": sums.prompt_seconds,
    }


def _stretch_json(stretch: Stretch, measured: bool) -> dict[str, Any]:
    return {
        "name": stretch.name,
        **_sums_json(stretch.sums),
        "seconds": stretch.seconds if measured else None,
    }
