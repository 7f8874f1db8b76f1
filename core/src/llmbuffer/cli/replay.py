"""``llmbuffer replay``: recorded sessions through a dialect and its cache model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ..errors import ReplayError
from ..replay import (
    COMPACTIONS,
    LAYOUTS,
    NOISE,
    PACES,
    PLACEMENTS,
    Recording,
    ReplayResult,
    Skipped,
    read_recordings,
    sample_recordings,
)
from ..replay import replay as replayed
from .output import complain, console, print_json, reporting
from .tables import agreement_table, figures_table, heading, notes, retention_table

__all__ = ["replay"]

_SHOWN = 10  # skipped lines that are named on standard error


_Layout = Annotated[
    str,
    typer.Option(
        metavar="|".join(LAYOUTS),
        help="The prompt as recorded, with the provider's automatic caching; the same with noise in the system prompt, "
        "as programs write it by default; or through sessions that keep the prefix. For recorded teams: a prompt for each "
        "agent, one transcript that all continue, or the cheaper of the two.",
    ),
]
_Noise = Annotated[
    str,
    typer.Option(
        metavar=",".join(NOISE),
        help="Changing text to add: a clock line at each call, a passage of 300 to 800 tokens at each user turn. "
        "Buffered, both are dynamic content as of the turn's begin, kept for the calls of the turn.",
    ),
]
_Placement = Annotated[
    str, typer.Option(metavar="|".join(PLACEMENTS), help="Of dynamic content, layout buffered.")
]
_Pace = Annotated[
    str,
    typer.Option(
        metavar="|".join(PACES),
        help="One second from call to call, or the recorded times where known, so that entries expire.",
    ),
]
_Compaction = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(COMPACTIONS),
        help="Replay whole histories and keep each prompt inside the window: as a session with a Compaction does (auto), "
        "as recorded, or in ways that others go. Default: the calls as recorded.",
    ),
]
_Window = Annotated[
    int | None, typer.Option(metavar="TOKENS", help="For --compaction. Default: 150,000.", min=1)
]
_RecordedUsage = Annotated[
    bool, typer.Option(help="Compare the cache model with reads that providers reported.")
]
_Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def replay(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="Recordings, .jsonl or .jsonl.gz.")
    ] = None,
    *,
    sample: Annotated[
        bool, typer.Option("--sample", help="Replay the session that ships with llmbuffer.")
    ] = False,
    dialect: Annotated[str, typer.Option(metavar="NAME", help="See: llmbuffer plugins.")] = "openai",
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the dialect's.")] = None,
    layout: _Layout = "buffered",
    noise: _Noise = "",
    seed: Annotated[int, typer.Option(metavar="N", help="Draws the passages.")] = 0,
    placement: _Placement = "turn",
    pace: _Pace = "steady",
    compaction: _Compaction = None,
    window: _Window = None,
    recorded_usage: _RecordedUsage = True,
    as_json: _Json = False,
) -> None:
    """Replay recorded sessions, call by call, through a dialect and the model of its cache.

    Tokens read, written and fresh are simulated. The ceiling is the longest common prefix of each prompt with anything
    sent earlier in its session. Exit code 1: lines were skipped, or nothing was replayed.
    """
    with reporting():
        skipped: list[Skipped] = []
        result = replayed(
            _recordings(_checked(files or [], sample), skipped, Console(stderr=True)),
            dialect=dialect,
            model=model,
            layout=cast(Any, layout),
            noise=[name.strip() for name in noise.split(",") if name.strip()],
            seed=seed,
            placement=cast(Any, placement),
            pace=cast(Any, pace),
            recorded_usage=recorded_usage,
            compaction=cast(Any, compaction),
            window=window,
            skipped=skipped,
        )
        _print(result, as_json)
        if skipped or not result.total.requests:
            raise typer.Exit(1)


def _checked(files: list[Path], sample: bool) -> list[Path]:
    if not files and not sample:
        raise ReplayError("nothing to replay: give a FILE, or --sample")
    if files and sample:
        raise ReplayError("--sample takes no FILE")
    for file in files:
        if file.is_dir():
            raise ReplayError(f"{file} is a directory: give .jsonl or .jsonl.gz files")
        if not file.exists():
            raise ReplayError(f"{file}: no such file")
    return files


def _recordings(files: list[Path], skipped: list[Skipped], err: Console) -> Iterator[Recording]:
    """The recordings of the files, or the sample; with a progress bar if ``err`` is a terminal."""
    if not files:
        yield from sample_recordings()
    elif not err.is_terminal:
        for file in files:
            yield from read_recordings(file, skipped=skipped)
    else:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, console=err, transient=True) as progress:
            for file in files:
                task = progress.add_task(file.name, total=file.stat().st_size or None)
                watch = partial(_advance, progress=progress, task=task)
                yield from read_recordings(file, skipped=skipped, watch=watch)


def _advance(read: int, *, progress: Progress, task: TaskID) -> None:
    progress.update(task, completed=read)


def _print(result: ReplayResult, as_json: bool) -> None:
    _complain(result.skipped)
    if not result.total.requests:
        complain("nothing was replayed: no recording has a model call")
    if as_json:
        print_json(result.to_json())
        return
    out = console()
    out.print(heading(result))
    out.print(figures_table(result, out.width))
    if result.compaction is not None:
        out.print(retention_table(result))
    if result.total.recorded.pairs:
        out.print(agreement_table(result, out.width))
    for note in notes(result):
        out.print(note)


def _complain(skipped: Iterable[Skipped]) -> None:
    lines = list(skipped)
    for line in lines[:_SHOWN]:
        complain(f"skipped {line}")
    if len(lines) > _SHOWN:
        complain(f"skipped {len(lines) - _SHOWN:,} more; --json lists them all")
