"""The tables of a report: what stands behind each picture, as columns and rows of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..pictures import plain
from .model import Bar, Report, Sums
from .svg import Point, nested
from .words import clock, day, dollars

__all__ = ["Table", "branch_table", "break_table", "money_table", "request_table"]

_WIDE = 200  # characters of a cell


class Table(NamedTuple):
    """A table: its id, its caption, its columns as (title, class) and its rows. ``ids`` name the rows, ``row`` begins them.

    Classes: ``n`` for numbers, ``t`` for names, ``t w`` for sentences.
    """

    id: str
    caption: str
    columns: tuple[tuple[str, str], ...]
    rows: list[list[str]]
    ids: list[str]
    row: str


_COUNTS = (
    *(
        ("input", "n"),
        ("read", "n"),
        ("written", "n"),
        ("fresh", "n"),
        ("output", "n"),
        ("read / input", "n"),
    ),
    ("paid", "n"),
)


def _counts(sums: Sums, known: bool = True) -> list[str]:
    usage = sums.usage
    if not known:
        return ["-"] * 7
    tokens = (
        usage.input_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.fresh_tokens,
        usage.output_tokens,
    )
    return [*(f"{count:,}" for count in tokens), f"{usage.hit_ratio:.3f}", dollars(sums.cost)]


def request_table(report: Report) -> Table:
    """Every request: who sent it, what it used, what broke."""
    names = {branch.id: branch.name or branch.id for branch in report.branches}
    start = min((bar.at for bar in report.bars if bar.at is not None), default=None)
    columns = (
        ("", "n"),
        ("at (UTC)", "t"),
        ("from", "t"),
        ("model", "t"),
        *_COUNTS,
        ("sections", "t"),
        ("note", "t w"),
    )
    rows = [
        [
            f"{bar.number}",
            _when(bar, start),
            plain(bar.name or names.get(bar.branch, bar.branch), 40),
            plain(bar.model, 40),
            *_counts(Sums.of([bar]), bar.usage is not None),
            _stretches(bar),
            _said(bar),
        ]
        for bar in report.bars
    ]
    ids = [f"{bar.number}" for bar in report.bars]
    kind = "row" if report.bars and report.bars[0].kind in ("task", "worker", "source") else "request"
    return Table("requests", f"Every {kind}", columns, rows, ids, "r")


def _when(bar: Bar, start: float | None) -> str:
    if bar.at is None or start is None:
        return ""
    # Clocks of simulations and tests start at 0: no date.
    return day(bar.at) if start > 1e8 else f"{bar.at - start:.1f} s"


def _stretches(bar: Bar) -> str:
    shown = [f"{plain(each.name, 24)} {each.tokens:,}" for each in bar.stretches[:8]]
    more = len(bar.stretches) - len(shown)
    return " · ".join([*shown, *([f"{more} more"] if more > 0 else [])])


def _said(bar: Bar) -> str:
    found = bar.cache_break
    if found is None:
        return plain(bar.note, _WIDE)
    return plain(": ".join(filter(None, (found.cause, found.path, bar.note))), _WIDE)


def break_table(report: Report) -> Table:
    """Every break: where, why, what it cost, what to do."""
    columns = (
        *(
            ("request", "n"),
            ("cause", "t"),
            ("place", "t"),
            ("character", "n"),
            ("tokens lost", "n"),
            ("cost", "n"),
        ),
        ("to do", "t w"),
    )
    rows, ids = [], []
    for bar in report.breaks:
        found = bar.alarm
        assert found is not None, "report.breaks are the bars with an alarm"
        place = plain(found.path or found.section, 60)
        counts = [f"{found.offset:,}", f"{found.tokens_lost:,}", dollars(found.cost)]
        rows.append([f"{bar.number}", found.cause, place, *counts, plain(found.fix, _WIDE)])
        ids.append(f"{bar.number}")
    return Table("broken", "Every break", columns, rows, ids, "k")


def money_table(points: Sequence[Point]) -> Table:
    """The sums at each point of the picture."""
    columns = (
        ("up to request", "n"),
        ("after", "t"),
        ("paid", "n"),
        ("all fresh", "n"),
        ("without breaks", "n"),
    )
    start = points[0].at if points else None
    rows = [
        [f"{point.number}", _after(point, start), *map(dollars, (point.cost, point.fresh, point.ceiling))]
        for point in points
    ]
    return Table("money", "Sums so far", columns, rows, [f"{point.number}" for point in points], "m")


def _after(point: Point, start: float | None) -> str:
    return "" if point.at is None or start is None else clock(max(0.0, point.at - start))


def branch_table(report: Report) -> Table:
    """Every session, fork, agent or worker."""
    columns = (
        ("name", "t"),
        ("forked from", "t"),
        ("requests", "n"),
        *_COUNTS,
        ("breaks", "n"),
        ("lost", "n"),
    )
    names = {branch.id: branch.name or branch.id for branch in report.branches}
    sums = {branch.id: each for branch, each in report.by_branch()}
    rows = [
        [
            plain(branch.name or branch.id, 40),
            plain(names.get(branch.parent or "", branch.parent or ""), 40)
            if branch.parent is not None
            else "",
            f"{sums[branch.id].requests:,}",
            *_counts(sums[branch.id]),
            f"{sums[branch.id].breaks}",
            f"{sums[branch.id].lost:,}",
        ]
        for _, branch in nested(report.branches)
    ]
    return Table("forks", "Every branch", columns, rows, [str(number) for number in range(len(rows))], "f")
