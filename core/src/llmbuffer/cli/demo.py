"""``llmbuffer demo``: one agent session on a real engine, as programs send it by default and through llmbuffer."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..demo.arms import ArmName
from ..demo.display import show
from ..demo.engines import ENGINES, missing
from ..demo.page import check_target, page, picture, write_page
from ..demo.run import calls_of, run_demo
from ..errors import LLMBufferError
from .output import complain, console, print_json, reporting

__all__ = ["demo"]

_Engine = Annotated[
    str,
    typer.Option(
        metavar="|".join(ENGINES),
        help="llama.cpp on this machine, or a model of its cache; auto takes the engine where it is installed.",
    ),
]
_Threads = Annotated[int, typer.Option(metavar="N", min=1, help="Threads of the engine.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write the report as an HTML page, too; as FILE.svg, its picture.",
    ),
]


def demo(
    *, engine: _Engine = "auto", threads: _Threads = 1, as_json: _Json = False, output: _Output = None
) -> None:
    """Run an agent session on a real engine: how many prompt tokens it computes by default, and how few with llmbuffer.

    Ten turns of a support agent with tools, a clock and retrieved documents, then a coordinator with three workers. The
    engine runs on this machine; nothing is downloaded, and nothing but the loopback interface is used. Takes a minute.
    """
    with reporting(), _terminable():
        if engine not in ENGINES:
            raise LLMBufferError(f"unknown engine {engine!r}: use one of {', '.join(ENGINES)}")
        if output is not None:
            check_target(output)
        if engine == "auto" and (lacking := missing()):
            complain(
                f"the engine is not installed ({', '.join(lacking)} missing: install the extra 'demo'); what follows is simulated"
            )
        with _progress() as watch:
            found = run_demo(engine=engine, threads=threads, watch=watch)
        if as_json:
            print_json(found.to_json())
        else:
            show(found, console())
        if output is not None:
            write_page(output, picture(found) if output.suffix == ".svg" else page(found))
            complain(f"the report is in {output}")


@contextmanager
def _progress() -> Iterator[Callable[[ArmName], object] | None]:
    """What is told of each model call: a bar on standard error, if that is a terminal."""
    err = Console(stderr=True)
    if not err.is_terminal:
        yield None
        return
    from ..demo.script import script

    columns = (TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("starting", total=calls_of(script()))
        yield lambda arm: progress.update(task, description=arm, advance=1)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does: servers are ended, folders go."""

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
