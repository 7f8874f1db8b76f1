"""The figures as sheets: titles and rows of text that the terminal and the page show alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from .arms import ARMS, ArmName
from .clock import SECONDS_PER_CALL
from .figures import ArmFigures, Demo, WorkerFigures
from .measured import Sums
from .providers import PROVIDERS

__all__ = [
    "Bar",
    "Sheet",
    "arms_sheet",
    "heading",
    "improvements",
    "notes",
    "turn_bars",
    "what_broke_lines",
    "workers_sheet",
]

_LABELS = {"anthropic": "Anthropic", "openai": "OpenAI"}


class Sheet(NamedTuple):
    """A table: the first column names the row, the others hold figures."""

    title: str
    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Bar(NamedTuple):
    """One turn: its number, its calls, and the tokens that ``default`` and ``buffered`` computed in it."""

    turn: int
    requests: int
    default: int
    buffered: int


def heading(demo: Demo) -> str:
    """What was run, in a line."""
    if demo.measured:
        threads = "1 thread" if demo.threads == 1 else f"{demo.threads} threads"
        return f"llama.cpp on this machine, {threads}, one slot: tokens and times are measured"
    return "No engine: tokens are simulated with the rules of llama.cpp's cache, and there are no times"


def arms_sheet(demo: Demo) -> Sheet:
    """All figures, a column for each arm."""
    arms = [demo.arms[name] for name in ARMS]
    turns = len(arms[0].turns)

    def row(title: str, cell: Callable[[ArmFigures], str]) -> tuple[str, ...]:
        return (title, *map(cell, arms))

    rows = [
        row("model calls", lambda arm: f"{arm.sums.requests:,}"),
        row("prompt tokens", lambda arm: f"{arm.sums.input_tokens:,}"),
        row("read from cache", lambda arm: f"{arm.sums.read_tokens:,}"),
        row("computed", lambda arm: f"{arm.sums.computed_tokens:,}"),
        row("hit ratio", lambda arm: f"{arm.sums.hit_ratio:.3f}"),
        row("prompt s a turn", lambda arm: _seconds(arm.prompt_seconds_per_turn)),
    ]
    rows += [
        (f"$ {_LABELS[name]} *", *(f"{100 * arm.cost_usd[name]:,.2f}" for arm in arms)) for name in PROVIDERS
    ]
    rows.append(row("memory kB", lambda arm: f"{arm.memory_bytes / 1000:,.0f}"))
    return Sheet(f"One session of {turns} turns", ("", *ARMS), tuple(rows))


def turn_bars(demo: Demo) -> list[Bar]:
    """What each turn computed, by default and buffered."""
    pairs = zip(demo.arms["default"].turns, demo.arms["buffered"].turns, strict=True)
    return [
        Bar(number, default.sums.requests, default.sums.computed_tokens, buffered.sums.computed_tokens)
        for number, (default, buffered) in enumerate(pairs, 1)
    ]


def workers_sheet(demo: Demo) -> Sheet:
    """Coordinator and workers, as separate sessions and as forks."""
    default, buffered = demo.workers["default"], demo.workers["buffered"]
    pairs = zip(
        (default.coordinator, *default.workers), (buffered.coordinator, *buffered.workers), strict=True
    )
    rows = [
        (theirs.name, *_cells(demo, theirs.sums, theirs.seconds), *_cells(demo, ours.sums, ours.seconds))
        for theirs, ours in pairs
    ]
    rows.append(("all", *_all_cells(demo, default), *_all_cells(demo, buffered)))
    titles = ("hit", "computed", "s") if demo.measured else ("hit", "computed")
    return Sheet("Coordinator and workers: fresh sessions | forks", ("", *titles, *titles), tuple(rows))


def _cells(demo: Demo, sums: Sums, seconds: float) -> tuple[str, ...]:
    cells = (f"{sums.hit_ratio:.3f}", f"{sums.computed_tokens:,}")
    return (*cells, f"{seconds:.2f}") if demo.measured else cells


def _all_cells(demo: Demo, found: WorkerFigures) -> tuple[str, ...]:
    return _cells(demo, found.sums, found.coordinator.seconds + found.seconds)


def improvements(demo: Demo) -> Iterator[str]:
    """What llmbuffer saves, in sentences."""
    found, gentler = demo.improvement(), demo.improvement("per-turn")
    for key, what in (("computed_tokens", "computed tokens"), ("prompt_seconds", "prompt processing time")):
        if found[key] is not None:
            yield f"{what}: {_saved(found[key])} against default, {_saved(gentler[key])} against per-turn"
    money = ", ".join(f"{_saved(saved)} at {_LABELS[name]}" for name, saved in found["cost_usd"].items())
    yield f"cost of a session: {money} (simulated)"
    if demo.share_of_oracle is not None:
        yield f"hit ratio: {demo.share_of_oracle:.3f} of what is possible without any changing text (oracle)"
    if demo.times_faster is not None:
        yield f"workers: forks are {demo.times_faster:.1f} times faster than separate sessions"


def _saved(part: float | None) -> str:
    return "-" if part is None else f"{-100 * part:+.1f} %"


def what_broke_lines(demo: Demo, arm: ArmName = "default") -> Iterator[str]:
    """Where the requests of an arm parted from the one before, that which cost most first."""
    found = demo.arms[arm]
    if not found.broken:
        yield "nothing"
    for broken in found.broken:
        under = f" under '{broken.heading}'" if broken.heading else ""
        yield (
            f"{broken.requests} of {found.sums.requests} requests: {broken.path} changed at character {broken.offset:,}{under}; "
            f"{broken.computed_tokens:,} tokens were computed for them. Was '{broken.before}', then '{broken.after}'"
        )


def notes(demo: Demo) -> Iterator[str]:
    """What a reader has to know about the figures."""
    models = " and ".join(f"{_LABELS[name]} ({model})" for name, model in PROVIDERS.items())
    ways = sorted(set(demo.counters.values()))
    counted = f"tokens {ways[0]}" if len(ways) == 1 else _counted(demo)
    yield f"* dollars for 100 sessions at {models}: simulated, by their cache rules and list prices; {counted}"
    yield f"the clock goes on {SECONDS_PER_CALL} s with each call; per-turn and buffered show it as of the turn's begin"
    yield "buffered: placement 'turn', changing texts stand behind the user's words until the turn has ended"
    yield "workers run one after the other on the one slot, as fresh sessions and as forks"
    yield f"the run took {demo.seconds:.0f} s"


def _counted(demo: Demo) -> str:
    return "tokens " + ", ".join(f"{_LABELS[name]}: {how}" for name, how in demo.counters.items())


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
