"""``llmbuffer report``: a run or a log as one HTML page, and its sums."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..demo.page import check_target, write_page
from ..pictures import plain
from ..report import Report, read_report
from ..report.model import Sums
from ..report.words import dollars
from .output import complain, console, print_json, reporting

__all__ = ["report"]

_SHOWN = 20  # branches and breaks that the terminal shows

_Run = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="A request log (.jsonl) of llmbuffer.capture or `llmbuffer serve --log`, or what fanout, graph run or replay "
        "print with --json.",
    ),
]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Write the page there; a file of that name is replaced."
    ),
]
_Text = Annotated[
    bool,
    typer.Option("--show-text", help="Show the text around each place that changed; else no prompt text."),
]


def report(
    run: _Run,
    *,
    output: _Output = None,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Default: the name of the file.")] = None,
    dialect: Annotated[str | None, typer.Option(metavar="NAME", help="Recognised if not given.")] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Whose prices and rules count, if not the recorded model's."),
    ] = None,
    show_text: _Text = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Show a run: what each request read from the cache, what broke, and what it cost.

    With -o as one HTML page that needs no network: a picture of the requests with their breaks, the money, the forks, and a
    table behind each. Prints the sums. Exit code 2: nothing was found in the file.
    """
    with reporting():
        if output is not None:
            check_target(output)
        found = read_report(run, dialect=dialect, model=model, title=title)
        if as_json:
            print_json(found.to_json(show_text=show_text))
        else:
            _print(found)
        if output is not None:
            write_page(output, found.html(show_text=show_text))
            complain(f"the report is in {output}")


def _print(found: Report) -> None:
    out = console()
    out.print(Text(f"{plain(found.title)}: {found.source}"))
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("", no_wrap=True)
    for title in ("requests", "input", "read", "written", "fresh", "output", "hit", "USD", "breaks", "lost"):
        table.add_column(title, justify="right", no_wrap=True)
    branches = list(found.by_branch())
    for branch, sums in branches[:_SHOWN] if len(branches) > 1 else []:
        table.add_row(Text(plain(branch.name or branch.id, 40)), *_cells(sums))
    table.add_row("all", *_cells(found.sums))
    out.print(table)
    broken = found.worst
    for bar in broken[:_SHOWN]:
        assert bar.alarm is not None, "report.breaks are the bars with an alarm"
        out.print(Text(f"{bar.number}: {plain(bar.alarm.sentence, 400)}"), soft_wrap=True)
    left_out = (("branches", len(branches)), ("breaks", len(broken)))
    for what, count in left_out:
        if count > _SHOWN:
            complain(f"{count - _SHOWN:,} more {what}: give --json or -o FILE")
    if found.skipped:
        complain(f"{found.skipped:,} lines are no requests and were left out")


def _cells(sums: Sums) -> list[str]:
    usage = sums.usage
    counts = (
        *(sums.requests, usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens),
        *(usage.fresh_tokens, usage.output_tokens),
    )
    money = dollars(sums.cost).lstrip("$")
    return [
        *(f"{count:,}" for count in counts),
        f"{usage.hit_ratio:.3f}",
        money,
        f"{sums.breaks}",
        f"{sums.lost:,}",
    ]
