"""The figures in a terminal, from 60 columns on."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .figures import Demo
from .sheets import (
    Sheet,
    arms_sheet,
    heading,
    improvements,
    notes,
    turn_bars,
    what_broke_lines,
    workers_sheet,
)

__all__ = ["show"]

_LONGEST = 40  # characters of a bar


def show(demo: Demo, out: Console) -> None:
    """Print everything that the demo found."""
    out.print(Text(heading(demo)))
    _table(arms_sheet(demo), out)
    _turns(demo, out)
    _table(workers_sheet(demo), out)
    _list("What broke in default", what_broke_lines(demo), out)
    _list("What llmbuffer saves", improvements(demo), out)
    out.print()
    for note in notes(demo):
        out.print(Text(note, style="dim"))


def _table(sheet: Sheet, out: Console) -> None:
    out.print()
    out.print(Text(sheet.title, style="bold"))
    table = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=True)
    table.add_column(sheet.titles[0], no_wrap=True)
    for title in sheet.titles[1:]:
        table.add_column(
            title, justify="right", no_wrap=True, style="bold green" if title == "buffered" else ""
        )
    for row in sheet.rows:
        table.add_row(*row)
    out.print(table)


def _turns(demo: Demo, out: Console) -> None:
    bars = turn_bars(demo)
    longest = max(bar.default for bar in bars) or 1
    room = min(_LONGEST, (out.width - 32) // 2)
    block = "█" if out.encoding.lower().startswith("utf") else "#"
    out.print()
    out.print(Text("Prompt tokens computed in each turn", style="bold"))
    table = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for title in ("turn", "calls", "default"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, width=room, style="red")
    table.add_column("buffered", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, width=room, style="green")
    for bar in bars:
        drawn = [block * max(1, round(room * count / longest)) for count in (bar.default, bar.buffered)]
        counts = (
            str(bar.turn),
            str(bar.requests),
            f"{bar.default:,}",
            drawn[0],
            f"{bar.buffered:,}",
            drawn[1],
        )
        table.add_row(*counts)
    out.print(table)


def _list(title: str, lines: Iterable[str], out: Console) -> None:
    out.print()
    out.print(Text(title, style="bold"))
    for line in lines:
        out.print(Padding(Text(f"- {line}"), (0, 0, 0, 1)))
