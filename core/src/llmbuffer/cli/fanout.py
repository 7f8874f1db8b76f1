"""``llmbuffer fanout``: many tasks on one cached prefix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import anyio
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..context import StableContext
from ..errors import LoopError
from ..fanout import Budget, FanOutEvent, Results, Task, afan_out
from ..fanout.files import read_tasks
from ..plugins import get_dialect
from ..session import Session
from ..usage import Usage
from .clients import open_client, told, unreachable
from .output import complain, console, print_json, reporting

__all__ = ["fanout"]

_SHOWN = 10  # tasks without an answer that are named on standard error

_Base = Annotated[
    Path | None,
    typer.Option("--base", metavar="FILE", help="The system prompt that all tasks share, as text."),
]
_Dialect = Annotated[str, typer.Option(metavar="NAME", help="See: llmbuffer plugins.")]
_BaseUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="Default: the SDK's own variable, else the provider.")
]
_Warm = Annotated[
    str,
    typer.Option(
        metavar="auto|always|never",
        help="Whether one request goes first and the others are held until it begins to be answered.",
    ),
]
_Keys = Annotated[
    str,
    typer.Option(
        metavar="auto|shared|sharded|each", help="Which routing keys the tasks send, where there are some."
    ),
]
_BudgetUsd = Annotated[
    float | None,
    typer.Option(metavar="USD", min=0, help="Requests that no longer fit by their forecast are not sent."),
]
_BudgetTokens = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="The same in tokens, output included.")
]
_Neutral = Annotated[
    bool, typer.Option("--neutral", help="Set each task free from the role that the base prompt gives.")
]


def fanout(
    tasks: Annotated[
        Path, typer.Argument(metavar="TASKS", help="One a line, or .json, .jsonl, .yaml, .toml.")
    ],
    *,
    base: _Base = None,
    dialect: _Dialect = "openai",
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the dialect's.")] = None,
    base_url: _BaseUrl = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Tasks at a time.")] = 8,
    warm: _Warm = "auto",
    key_policy: _Keys = "auto",
    neutral: _Neutral = False,
    max_tokens: Annotated[int | None, typer.Option(metavar="N", min=1, help="Of each reply.")] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="For each task.")] = None,
    retries: Annotated[int, typer.Option(metavar="N", min=0, help="For each request, by the SDK.")] = 2,
    budget_usd: _BudgetUsd = None,
    budget_tokens: _BudgetTokens = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Answer many tasks that share one prompt, so that it is written to the provider's cache once and read by the others.

    The key comes from the environment (OPENAI_API_KEY, ANTHROPIC_API_KEY, DEEPSEEK_API_KEY, GEMINI_API_KEY); servers on this
    machine, such as that of `llmbuffer serve`, need none. Exit code 1: some tasks have no answer.
    """
    with reporting():
        given = read_tasks(tasks)
        named = get_dialect(dialect)
        params = {} if max_tokens is None else {"max_tokens": max_tokens}
        system = "" if base is None else base.read_text(encoding="utf-8")
        session = Session(StableContext(model or named.default_model, system, params=params), named)
        options = {
            "limit": limit,
            "warm": warm,
            "key_policy": key_policy,
            "neutral": neutral,
            "timeout": timeout,
            "budget": Budget(tokens=budget_tokens, usd=budget_usd),
        }
        results = anyio.run(_answered, session, given, base_url, retries, options)
        _print(session, results, as_json, base_url)
        if not results.ok:
            raise typer.Exit(1)


async def _answered(
    session: Session, tasks: tuple[Task, ...], base_url: str | None, retries: int, options: dict[str, Any]
) -> Results:
    async with open_client(session.dialect.name, base_url, retries=retries) as client:
        with _watching(len(tasks), base_url) as watch:
            return await afan_out(session, tasks, client=client, on_event=watch, **cast(Any, options))


@contextmanager
def _watching(number: int, base_url: str | None) -> Iterator[Any]:
    """A progress bar on standard error, and an end to what cannot succeed: the first task says so for all."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    err = Console(stderr=True)
    answered = False
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        bar = progress.add_task("tasks", total=number)

        def watch(event: FanOutEvent) -> None:
            nonlocal answered
            if event.kind == "leading":
                progress.update(bar, description=f"{event.name} warms the cache")
            if event.kind == "observed":
                answered = True
                progress.update(bar, description="tasks")
            if event.kind != "finished":
                return
            progress.advance(bar)
            if event.value.error is not None and not answered:
                why = unreachable(event.value.error, base_url)
                if why is not None:
                    raise LoopError(why)

        yield watch


# Printing


def _print(session: Session, results: Results, as_json: bool, base_url: str | None) -> None:
    for each in results.errors[:_SHOWN]:
        complain(f"{each.name}: {told(each.error, base_url)}")
    if len(results.errors) > _SHOWN:
        complain(f"{len(results.errors) - _SHOWN:,} more have no answer; --json lists them all")
    if as_json:
        print_json(_document(session, results, base_url))
        return
    out = console()
    for each in results:
        if each.ok:
            out.print(f"[bold]{each.name}[/bold]", markup=True)
            out.print(each.text, markup=False)
            out.print()
    out.print(_table(results))


def _table(results: Results) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("task", no_wrap=True)
    for title in ("requests", "input", "read", "written", "output", "hit", "USD", "seconds", "first"):
        table.add_column(title, justify="right", no_wrap=True)
    for each in results:
        cells = _cells(len(each.observations), each.usage, each.cost)
        table.add_row(each.name, *cells, f"{each.seconds:.1f}", "yes" if each.led else "")
    requests = sum(len(each.observations) for each in results)
    table.add_row("all", *_cells(requests, results.usage, results.cost), "", "")
    return table


def _cells(requests: int, usage: Usage, cost: float | None) -> list[str]:
    counts = (usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens, usage.output_tokens)
    paid = "-" if cost is None else f"{cost:.4f}"
    return [f"{requests:,}", *(f"{count:,}" for count in counts), f"{usage.hit_ratio:.3f}", paid]


def _document(session: Session, results: Results, base_url: str | None) -> dict[str, Any]:
    workers = [
        {
            "name": each.name,
            "ok": each.ok,
            "text": each.text if each.ok else None,
            "error": None if each.ok else told(each.error, base_url),
            **_figures(len(each.observations), each.usage, each.cost),
            "seconds": each.seconds,
            "led": each.led,
            "key": each.key,
        }
        for each in results
    ]
    requests = sum(len(each.observations) for each in results)
    total = _figures(requests, results.usage, results.cost)
    head = {"dialect": session.dialect.name, "model": session.context.model, "ok": results.ok}
    return {**head, "total": total, "workers": workers}


def _figures(requests: int, usage: Usage, cost: float | None) -> dict[str, Any]:
    return {"requests": requests, **usage.figures(), "cost_usd": cost}
