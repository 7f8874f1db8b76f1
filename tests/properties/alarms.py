"""False alarms on clean recordings, and warnings before what is not: `python -m tests.properties.alarms [FILE …]`.

Every call of every recording goes through a session to a cache model that stands in for the provider (simulated), and its
body to a `BreakDetector`. A recorded program that rewrote its history, and a pause longer than the cache lives, are breaks of
the recording's own; every other alarm is a false one. The second table injects faults and asks who warned before the call.
Without files it takes the recording that ships with llmbuffer. Exits with 1 on a false alarm or a fault without a warning.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

import msgspec
from tests.properties import faults

from llmbuffer import Compaction, ElideToolResults, Message, Session, StableContext, Truncator
from llmbuffer.breaks import CacheBreak
from llmbuffer.cache import CacheModel
from llmbuffer.compaction.base import Hook
from llmbuffer.errors import LLMBufferError
from llmbuffer.explaining import BreakDetector, explain
from llmbuffer.plugins import get_dialect
from llmbuffer.replay import read_recordings, sample_recordings
from llmbuffer.replay.layouts import fitted, takes_names
from llmbuffer.replay.noise import Noise
from llmbuffer.replay.recordings import Call, Recording
from llmbuffer.rules import Dialect
from llmbuffer.tokens import EstimateCounter

MODELS = {
    "openai": "gpt-5.5",
    "openai-responses": "gpt-5.6",
    "anthropic": "claude-sonnet-5.5",
    "gemini": "gemini-3.1-pro",
    "deepseek": "deepseek-v4-pro",
}
LONG = 20  # calls from which on a recording is replayed with compactions and thaws as well


class Memo:
    """A counter that remembers what it counted."""

    name = "estimate"
    estimated = True

    def __init__(self) -> None:
        self._count, self._known = EstimateCounter().count, dict[str, int]()

    def count(self, text: str) -> int:
        known = self._known.get(text)
        if known is None:
            known = self._known[text] = self._count(text)
        return known


class Clock:
    """The time that a replay says it is."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Found(NamedTuple):
    """What one replay came to; ``declared`` breaks are the recording's own, or planned."""

    requests: int = 0
    declared: int = 0
    expired: int = 0
    planned: int = 0
    false: tuple[str, ...] = ()

    def __add__(self, other: tuple[Any, ...]) -> Found:
        return Found(*(one + two for one, two in zip(self, other, strict=True)))


def times(recording: Recording) -> list[float]:
    """Seconds since the first call as recorded; one later than the last where nothing was."""
    now, found = 0.0, []
    start = next((call.at for call in recording.calls if call.at is not None), 0.0)
    for call in recording.calls:
        now = now + 1.0 if call.at is None else max(now, call.at - start)
        found.append(now)
    return found


class Thread:
    """One agent of a recording in a session of its own; a prompt that the program rewrote begins another one."""

    def __init__(self, run: Run, agent: int) -> None:
        self.run, self.agent = run, run.recording.agents[agent]
        self.sent: list[Message] = []
        self.reply: Message | None = None
        self.last: float | None = None
        self.session = self._new()

    def _new(self) -> Session:
        run = self.run
        context = StableContext(run.model, self.agent.system, self.agent.tools)
        return Session(
            context,
            run.dialect,
            tokens=run.counter,
            clock=run.clock,
            compaction=run.compaction,
            session_id="s",
        )

    def ask(self, call: Call, dynamic: dict[str, str] | None) -> tuple[Any, bool]:
        """The request of a call, and whether the recorded program rewrote what it had sent."""
        rewritten = call.keep < len(self.sent)
        new = [fitted(message, self.run.names) for message in call.new]
        if rewritten:
            self.session = self._new()
            self.session.append([*self.sent[: call.keep], *new])
        else:
            answered = bool(new) and new[0] == self.reply
            if (
                not answered and self.reply is not None
            ):  # the program left the reply out, or put it another way
                rewritten, self.session = True, self._new()
                self.session.append([*self.sent, *new])
            else:
                self.session.append(new[1:] if answered else new)
        self.sent[call.keep :] = new
        return self.session.request(None, dynamic), rewritten


class Run:
    """One recording through sessions, a cache model and a detector."""

    def __init__(
        self, recording: Recording, dialect: Dialect, model: str, counter: Memo, *, mode: str, seed: int
    ) -> None:
        self.recording, self.dialect, self.model, self.counter = recording, dialect, model, counter
        self.names, self.clock, self.mode = takes_names(dialect), Clock(), mode
        self.compaction = None
        if mode == "planned":
            hooks: list[Hook] = [ElideToolResults(keep_last=2), Truncator()]
            largest = max(each.reported.input if each.reported else 0 for each in recording.calls) or 40_000
            self.compaction = Compaction(max(8_000, largest // 2), 0.4, hooks)
        kinds = ("clock", "retrieval") if mode != "recorded pace" else ()
        self.noise = Noise(recording, kinds, seed, counter.count)
        # One provider for all agents, as far as they share prefixes.
        self.cache = CacheModel(dialect.rules, count=counter.count)
        self.detector = BreakDetector(dialect=dialect, model=model, counter=counter)
        self.threads: dict[int, Thread] = {}

    def found(self) -> tuple[Found, Found]:
        """What sessions alarmed, and what the detector did."""
        sessions, detector = Found(), Found()
        recorded = times(self.recording)
        for index, call in enumerate(self.recording.calls):
            self.clock.now = recorded[index] if self.mode == "recorded pace" else float(index)
            one, other = self._call(index, call)
            sessions, detector = sessions + one, detector + other
        return sessions, detector

    def _call(self, index: int, call: Call) -> tuple[Found, Found]:
        thread = self.threads.setdefault(call.agent, Thread(self, call.agent))
        texts = self.noise.at(index, self.clock.now) if call.begins_turn else {}
        if self.mode == "planned" and index and index % 15 == 0:
            thread.session.thaw("more rules")
            rules = "\n".join(segment.content for segment in thread.session.context.segments)
            thread.session.update(system=f"{rules}\nRule {index}.")
        before = thread.session.epoch
        request, rewritten = thread.ask(call, texts or None)
        body = request.body
        lookup = self.cache.commit(request.snapshot, self.clock.now)
        usage = lookup.usage(50)
        seen = request.observe(usage, fitted(call.reply, self.names))
        if self.dialect.rules.stores_output:
            after = msgspec.structs.replace(request.snapshot, tip=seen.session.tip, marks=())
            self.cache.commit_output(after, self.clock.now)
        # A reply that cannot be told from what was sent: its session goes on in the next call.
        thread.reply, thread.session = fitted(call.reply, self.names), seen.session
        moved = seen.session.epoch > before or seen.session.ledger[-1].planned is not None
        idle = thread.last is not None and self.clock.now - thread.last > self.dialect.rules.ttl
        told = self.detector.see(
            body,
            at=self.clock.now,
            usage=usage,
            agent=str(call.agent),
            planned="compacted" if moved else None,
        )
        thread.last = self.clock.now
        planned = int(seen.session.ledger[-1].planned is not None)
        return (
            verdict(index, seen.cache_break, rewritten=False, idle=idle, planned=planned),
            verdict(
                index, told, rewritten=rewritten, idle=idle, planned=int(told is not None and told.planned)
            ),
        )


def verdict(index: int, found: CacheBreak | None, *, rewritten: bool, idle: bool, planned: int) -> Found:
    """An alarm by what it was for."""
    if found is None or found.planned:
        return Found(1, planned=planned)
    if found.cause == "expired" and idle:
        return Found(1, expired=1, planned=planned)
    if rewritten:
        return Found(1, declared=1, planned=planned)
    return Found(1, planned=planned, false=(f"call {index}: {found.cause} at {found.path}",))


MODES = ("steady", "recorded pace", "planned")


def alarms(
    recordings: Sequence[Recording], dialects: Iterable[str], seed: int = 0
) -> Iterator[tuple[str, str, Found, Found, int]]:
    """For each dialect and mode: what sessions and detectors said, and how many recordings the dialect could carry."""
    for name in dialects:
        model = MODELS[name]
        dialect = get_dialect(name).bind(model)
        for mode in MODES:
            sessions, detector, carried = Found(), Found(), 0
            for recording in recordings:
                if mode == "planned" and len(recording.calls) < LONG:
                    continue
                try:
                    one, other = Run(recording, dialect, model, Memo(), mode=mode, seed=seed).found()
                except LLMBufferError:  # content that this dialect has no place for
                    continue
                where = tuple(f"{recording.id} {each}" for each in one.false)
                there = tuple(f"{recording.id} {each}" for each in other.false)
                sessions, carried = sessions + one._replace(false=where), carried + 1
                detector = detector + other._replace(false=there)
            yield name, mode, sessions, detector, carried


# Before paying

# What two bodies cannot show: whether the time is over when the second one is sent is told by the clock alone.
CLOCKED = frozenset({"expired"})


def warned(recordings: Sequence[Recording], number: int, seed: int) -> tuple[Counter[str], Counter[str]]:
    """Faults by cause, and those of which `explain` warned from both bodies and the clock alone, without any usage."""
    random, injected, told = Random(seed), Counter[str](), Counter[str]()
    stream = faults.cases(recordings, random)
    while injected.total() < number:
        case, inject = next(stream), faults.FAULTS[injected.total() % len(faults.FAULTS)]
        fault = inject(case, random)
        if fault is None:
            fault = random.choice(faults.FAULTS)(case, random)
        if fault is None:
            continue
        injected[fault.cause] += 1
        found = explain(
            fault.before,
            fault.after,
            dialect=case.dialect,
            model=case.model,
            seconds=fault.seconds if fault.cause in CLOCKED else None,
            counter=faults.COUNTER,
        )
        told[fault.cause] += found is not None or not _long_enough(case, fault)
    return injected, told


def _long_enough(case: faults.Case, fault: faults.Fault) -> bool:
    """Whether the first request left anything in the cache that the fault could lose."""
    clean, _ = faults.served(case, fault.before, fault.clean, 0.0)
    return clean > 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--dialects", default=",".join(MODELS))
    parser.add_argument("--faults", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    recordings = [each for file in given.files for each in read_recordings(file)] or list(sample_recordings())
    wrong: list[str] = []
    print("alarms on recordings (simulated provider); a detector reads the bodies alone")
    print(
        f"{'dialect':17}{'replay':15}{'recordings':>10}{'requests':>9} | {'false':>5}{'expired':>8}{'planned':>8}",
        end="",
    )
    print(f" | {'detector: false':>15}{'rewritten':>10}{'expired':>8}{'planned':>8}")
    for name, mode, one, other, carried in alarms(recordings, given.dialects.split(","), given.seed):
        left = f"{name:17}{mode:15}{carried:10}{one.requests:9,} | {len(one.false):5}{one.expired:8}{one.planned:8}"
        print(
            f"{left} | {len(other.false):15}{other.declared:10}{other.expired:8}{other.planned:8}", flush=True
        )
        wrong += [f"session, {name}, {mode}: {each}" for each in one.false]
        wrong += [f"detector, {name}, {mode}: {each}" for each in other.false]
    injected, told = warned(recordings, given.faults, given.seed)
    print(
        f"\nfaults that explain warned of before the call, from both bodies and the clock\n{'cause':24}{'faults':>8}{'warned':>8}"
    )
    for cause in sorted(injected):
        print(f"{cause:24}{injected[cause]:8}{told[cause]:8}")
    print(f"{'all':24}{injected.total():8}{told.total():8}")
    for each in wrong[:40]:
        print("false alarm:", each)
    return int(bool(wrong) or told.total() < injected.total())


if __name__ == "__main__":
    sys.exit(main())
