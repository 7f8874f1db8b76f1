"""The commands, gathered."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from .demo import demo
from .explain import explain
from .fanout import fanout
from .graph import graph
from .lint import lint
from .plugins import plugins
from .replay import replay
from .report import report
from .serve import serve
from .store import store
from .watch import watch

__all__ = ["app"]

app = typer.Typer(
    help="Keeps the prompts of LLM agents cacheable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(demo)
app.command()(explain)
app.command()(replay)
app.command()(report)
app.command()(serve)
app.command()(watch)
app.command()(fanout)
app.command()(lint)
app.command()(plugins)
app.add_typer(graph, name="graph")
app.add_typer(store, name="store")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llmbuffer {metadata.version('llmbuffer')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Keeps the prompts of LLM agents cacheable."""
