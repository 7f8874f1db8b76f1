"""``llmbuffer graph``: run, check and show task graphs of files."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ..errors import BudgetError, GraphError, TaskError
from ..graph import GraphEvent, GraphFile, GraphRun, TaskGraph, TaskResult, read_graph
from ..graph.journal import Journal
from ..limits import Budget
from ..store import Store, open_store
from .clients import open_client, told
from .output import complain, console, interrupted, print_json, reporting

__all__ = ["graph"]

graph = typer.Typer(
    help="Task graphs over forks of one session, from YAML or TOML files.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_DEEPEST = 40  # levels up to which a tree is drawn

_File = Annotated[Path, typer.Argument(metavar="FILE", help="A graph file: .yaml, .yml or .toml.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
_Dialect = Annotated[
    str | None, typer.Option(metavar="NAME", help="In place of the file's; see: llmbuffer plugins.")
]
_Model = Annotated[str | None, typer.Option(metavar="NAME", help="In place of the file's.")]
_BaseUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="Default: the SDK's own variable, else the provider.")
]
_Store = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Where results are kept, such as sqlite:///runs.db; needed to resume."),
]
_Resume = Annotated[str | None, typer.Option(metavar="RUN", help="Go on with a run of this store.")]
_Limit = Annotated[int | None, typer.Option(metavar="N", min=1, help="Requests under way at a time.")]
_BudgetUsd = Annotated[
    float | None,
    typer.Option(metavar="USD", min=0, help="What may be spent from now on, in place of the file's."),
]
_BudgetTokens = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="The same in tokens, output included.")
]
_OnFailure = Annotated[
    str | None,
    typer.Option(
        metavar="fail-fast|skip-dependents",
        help="Whether one failed task ends the run, in place of the file's.",
    ),
]


@graph.command()
def run(
    file: _File,
    *,
    base_url: _BaseUrl = None,
    dialect: _Dialect = None,
    model: _Model = None,
    store: _Store = None,
    resume: _Resume = None,
    limit: _Limit = None,
    budget_usd: _BudgetUsd = None,
    budget_tokens: _BudgetTokens = None,
    on_failure: _OnFailure = None,
    as_json: _Json = False,
) -> None:
    """Run a graph: each task as soon as those before it have ended, all of them on one cached prefix.

    The key comes from the environment (OPENAI_API_KEY, ANTHROPIC_API_KEY, DEEPSEEK_API_KEY, GEMINI_API_KEY); servers on this
    machine, such as that of `llmbuffer serve`, need none. With a store, Ctrl-C loses nothing that was finished. Exit code 1:
    some tasks have no result.
    """
    with reporting(), ExitStack() as stack:
        given = read_graph(file)
        opened = None if store is None else stack.enter_context(open_store(store))
        run_id = _run_id(resume, opened)
        options = {
            "store": opened,
            "run_id": run_id,
            "limit": limit or given.limit,
            "on_failure": on_failure or given.on_failure,
            "budget": _budget(given, budget_usd, budget_tokens),
        }
        session = given.session(model, dialect)
        hint = _hint(file, store, run_id)
        ended: str | None = None
        try:
            found = anyio.run(_run, given, session, base_url, options)
        except (BudgetError, TaskError) as error:
            if error.run is None:
                raise
            ended, found = getattr(error, "key", ""), error.run
            complain(_why(error, base_url))
        except BaseException as error:
            if not interrupted(error):
                raise
            complain(f"stopped; {hint}")
            raise typer.Exit(130) from None
        _print(given.graph, found, as_json, ended, base_url)
        if not found.ok:
            complain(hint)
            raise typer.Exit(1)


def _run_id(resume: str | None, store: Store | None) -> str:
    if resume is None:
        return secrets.token_hex(4)
    if store is None:
        raise GraphError("--resume needs the store that holds the run: give --store URL")
    if not Journal(store, resume).known:
        raise GraphError(f"the store holds no run {resume!r}: leave --resume out to begin one")
    return resume


def _budget(given: GraphFile, usd: float | None, tokens: int | None) -> Budget | None:
    usd, tokens = given.usd if usd is None else usd, given.tokens if tokens is None else tokens
    return None if usd is None and tokens is None else Budget(usd=usd, tokens=tokens)


def _hint(file: Path, store: str | None, run_id: str) -> str:
    if store is None:
        return "nothing was kept: with --store sqlite:///runs.db a run can be gone on with"
    return f"go on with: llmbuffer graph run {file} --store {store} --resume {run_id}"


def _why(error: BudgetError | TaskError, base_url: str | None) -> str:
    """The end of a run in a line, with what the provider said."""
    cause = error.__cause__
    if cause is None or isinstance(error, BudgetError):
        return str(error)
    return f"task {error.key!r} failed: {told(cause, base_url)}"


async def _run(given: GraphFile, session: Any, base_url: str | None, options: dict[str, Any]) -> GraphRun:
    own = any(task.retry.times for task in given.graph.tasks)
    async with open_client(session.dialect.name, base_url, retries=0 if own else 2) as client:
        with _watching(len(given.graph)) as watch:
            return await given.graph.run(session, client=client, on_event=watch, **options)


@contextmanager
def _watching(total: int) -> Iterator[Callable[[GraphEvent], object] | None]:
    """A live view on standard error, if that is a terminal: a bar for the whole, and a line for each task under way."""
    err = Console(stderr=True)
    if not err.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as progress:
        whole, lines = progress.add_task("tasks", total=total), dict[str, TaskID]()

        def watch(event: GraphEvent) -> None:
            if event.kind == "started":
                lines[event.key] = progress.add_task(f"  {event.key}", total=None)
                return
            if event.kind == "retrying":
                progress.update(
                    lines[event.key], description=f"  {event.key}, again in {event.seconds:.1f} s"
                )
                return
            if event.key in lines:
                progress.remove_task(lines.pop(event.key))
            progress.update(whole, completed=event.done)

        yield watch


@graph.command()
def check(file: _File, *, as_json: _Json = False) -> None:
    """Check a graph file; nothing is sent. Exit code 2: it cannot be run, and why."""
    with reporting():
        found = read_graph(file).graph
        depth = 1 + max(found.plan().heights.values())
        if as_json:
            print_json({"ok": True, "name": found.name, "tasks": len(found), "depth": depth})
        else:
            typer.echo(
                f"{file}: {len(found):,} tasks, {depth:,} on the longest way from a first to a last one"
            )


@graph.command()
def show(file: _File, *, as_json: _Json = False) -> None:
    """Show in which order the tasks of a file can run, and what each comes after."""
    with reporting():
        found = read_graph(file).graph
        if as_json:
            print_json(
                {
                    "name": found.name,
                    "order": list(found.order()),
                    "tasks": list(map(_described, found.tasks)),
                }
            )
            return
        out = console()
        if max(found.plan().heights.values()) < _DEEPEST:
            out.print(_tree(found))
        out.print(_order(found))


def _described(task: Any) -> dict[str, Any]:
    return {"key": task.key, "after": [key for _, key in task.after], "continues": task.continues}


def _tree(found: TaskGraph) -> Tree:
    """Each task once, below the last of those that it comes after; a tree cannot show that there are several."""
    root = Tree(Text(found.name))
    branches: dict[str, Tree] = {}
    place = {key: number for number, key in enumerate(found.order())}
    for key in found.order():
        above = sorted(found[key].upstream, key=place.__getitem__)
        label = Text(key)
        if len(above) > 1:
            label.append(f"  and after {', '.join(above[:-1])}", style="dim")
        if found[key].continues is not None:
            label.append(f"  continues {found[key].continues}", style="dim")
        branches[key] = (branches[above[-1]] if above else root).add(label)
    return root


def _order(found: TaskGraph) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("order", justify="right")
    table.add_column("task")
    table.add_column("after")
    for number, key in enumerate(found.order(), 1):
        table.add_row(str(number), Text(key), Text(", ".join(found[key].upstream)))
    return table


# What a run came to


def _print(
    found: TaskGraph, results: GraphRun, as_json: bool, complained: str | None, base_url: str | None
) -> None:
    for each in results.tasks.values():
        if each.error is not None and each.key != complained:
            complain(f"{each.key}: {told(each.error, base_url)}")
    if as_json:
        print_json(results.to_json())
        return
    out = console()
    last = [key for key, after in found.plan().dependents.items() if not after and results.tasks[key].ok]
    for key in last:
        out.print(Text(key, style="bold"))
        out.print(str(results[key]), markup=False)
        out.print()
    out.print(_table(results))


def _table(results: GraphRun) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("task", no_wrap=True)
    table.add_column("status")
    for title in ("input", "read", "written", "output", "hit", "USD", "seconds"):
        table.add_column(title, justify="right", no_wrap=True)
    for each in results.tasks.values():
        table.add_row(Text(each.key), _status(each), *_cells(each.usage, each.cost), f"{each.seconds:.1f}")
    table.add_row(
        "all", f"run {results.run_id}", *_cells(results.usage, results.cost), f"{results.seconds:.1f}"
    )
    return table


def _status(each: TaskResult) -> str:
    return each.status if each.because is None else f"{each.status}, after {each.because}"


def _cells(usage: Any, cost: float | None) -> list[str]:
    counts = (usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens, usage.output_tokens)
    return [
        *(f"{count:,}" for count in counts),
        f"{usage.hit_ratio:.3f}",
        "-" if cost is None else f"{cost:.4f}",
    ]
