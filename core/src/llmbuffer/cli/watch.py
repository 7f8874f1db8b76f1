"""``llmbuffer watch``: a live table of a request log."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..errors import ReportError
from ..pictures import plain
from ..report.following import Follower
from ..report.lines import LineReader
from ..report.model import Bar, Sums
from ..report.words import day, dollars
from ..usage import Usage
from .output import complain, console, reporting

__all__ = ["watch"]

_EVERY = 0.25  # seconds between two looks at the file
_BROKEN = 5  # latest breaks below the table

_Log = Annotated[
    Path, typer.Argument(metavar="LOG", help="A request log of llmbuffer.capture or `llmbuffer serve --log`.")
]
_Rows = Annotated[
    int, typer.Option("--rows", "-n", metavar="N", min=1, help="Requests in the table, the latest.")
]
_Once = Annotated[bool, typer.Option("--once", help="Show what is there, and end.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON line a request on standard output.")]


def watch(
    log: _Log,
    *,
    rows: _Rows = 20,
    once: _Once = False,
    dialect: Annotated[str | None, typer.Option(metavar="NAME", help="Recognised if not given.")] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Whose prices and rules count, if not the recorded model's."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Follow a request log: what each request read from the cache, and what broke, as it happens.

    The log may grow, be rotated or be written anew; a last line without its end waits for the rest. Ctrl-C ends it (exit
    code 130). Shows no prompt text.
    """
    with reporting(), Follower(log) as follower:
        if once and not log.exists():
            raise ReportError(
                f"there is no log {str(log)!r}: give the file that --log or a Recorder writes to"
            )
        if not log.exists():
            complain(f"waiting for {str(log)!r}, which is not there yet")
        seen = _Seen(follower, LineReader(dialect=dialect, model=model), rows)
        if as_json:
            _lines(seen, once)
        elif once:
            for _ in seen.new():
                pass
            console().print(seen.table())
            seen.complain()
        else:
            _live(seen)


def _lines(seen: _Seen, once: bool) -> None:
    """A JSON line for each request, as it comes."""
    while True:
        for bar in seen.new():
            typer.echo(json.dumps(_document(bar), allow_nan=False))
        if once:
            seen.complain()
            return
        time.sleep(_EVERY)


def _live(seen: _Seen) -> None:
    out = console()
    try:
        with Live(seen.table(), console=out, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                changed = sum(1 for _ in seen.new())
                if changed:
                    live.update(seen.table(out.height), refresh=out.is_terminal)
                time.sleep(_EVERY)
    except KeyboardInterrupt:
        seen.complain()
        raise


class _Seen:
    """The latest requests of a log, and the sums over all."""

    def __init__(self, follower: Follower, reader: LineReader, rows: int) -> None:
        self._follower, self._reader = follower, reader
        self._latest: deque[Bar] = deque(maxlen=rows)
        self._broken: deque[Bar] = deque(maxlen=_BROKEN)
        self._usage, self._requests, self._breaks, self._lost = Usage(), 0, 0, 0
        self._cost: float | None = 0.0
        self._skipped = 0

    def new(self) -> Iterator[Bar]:
        """The requests since the last look."""
        for line in self._follower.lines():
            if not line.strip():
                continue
            try:
                bar = self._reader.read(line)
            except ReportError:
                self._skipped += 1
                continue
            self._take(bar)
            yield bar

    def _take(self, bar: Bar) -> None:
        self._latest.append(bar)
        self._requests += 1
        if bar.usage is not None:
            self._usage += bar.usage
            self._cost = None if self._cost is None or bar.cost is None else self._cost + bar.cost
        if bar.alarm is not None:
            self._broken.append(bar)
            self._breaks += 1
            self._lost += bar.lost

    def complain(self) -> None:
        """Tell of lines that are no requests."""
        count = self._skipped + self._follower.dropped
        if count:
            complain(f"{count:,} lines are no requests and were left out")

    def table(self, height: int | None = None) -> RenderableType:
        """The latest requests, as many as ``height`` lines hold, with the sums and the latest breaks."""
        table = Table(box=None, pad_edge=False, padding=(0, 1))
        for title, kind in _COLUMNS:
            table.add_column(title, justify=kind, no_wrap=title != "note")  # type: ignore[arg-type]  # left or right
        room = len(self._latest) if height is None else max(1, height - 3 - len(self._broken))
        for bar in list(self._latest)[-room:]:
            table.add_row(*_row(bar))
        counts = (self._usage.input_tokens, self._usage.cache_read_tokens, self._usage.cache_write_tokens)
        sums = [
            *(f"{count:,}" for count in (*counts, self._usage.fresh_tokens)),
            f"{self._usage.hit_ratio:.3f}",
        ]
        note = f"{self._breaks:,} breaks, {self._lost:,} tokens billed again"
        table.add_row(
            f"{self._requests:,}", "", "all", "", *sums, dollars(self._cost).lstrip("$"), note, style="bold"
        )
        told = [bar for bar in self._broken if bar.alarm is not None]
        lines = [
            Text(f"{bar.number}: {plain(bar.alarm.sentence, 300)}", style="red", no_wrap=height is not None)
            for bar in told
            if bar.alarm
        ]
        return Group(table, *lines)


_COLUMNS = (
    *(
        ("", "right"),
        ("at (UTC)", "left"),
        ("from", "left"),
        ("model", "left"),
        ("input", "right"),
        ("read", "right"),
    ),
    *(("written", "right"), ("fresh", "right"), ("hit", "right"), ("USD", "right"), ("note", "left")),
)


def _row(bar: Bar) -> list[RenderableType]:
    usage = bar.usage
    counts: list[str] = ["-"] * 5
    if usage is not None:
        tokens = (usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens, usage.fresh_tokens)
        counts = [*(f"{count:,}" for count in tokens), f"{usage.hit_ratio:.3f}"]
    broken = bar.alarm
    note = (
        Text(plain(bar.note, 60))
        if broken is None
        else Text(f"{broken.cause}: {broken.tokens_lost:,} lost", style="red")
    )
    who = Text(plain(bar.name or bar.branch, 24))
    money = dollars(bar.cost).lstrip("$")
    return [f"{bar.number}", day(bar.at)[-8:], who, Text(plain(bar.model, 28)), *counts, money, note]


def _document(bar: Bar) -> dict[str, Any]:
    """A request under the names that every command uses."""
    broken = bar.alarm
    told = None
    if broken is not None:
        told = {
            "cause": broken.cause,
            "section": broken.section,
            "path": broken.path,
            "tokens_lost": broken.tokens_lost,
            "cost_usd": broken.cost,
            "fix": broken.fix,
            "sentence": broken.sentence,
        }
    head = {
        "number": bar.number,
        "at": bar.at,
        "from": bar.name or bar.branch,
        "model": bar.model,
        "note": bar.note,
    }
    return {**head, **Sums.of([bar]).to_json(), "break": told}
