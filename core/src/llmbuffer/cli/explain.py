"""``llmbuffer explain``: why one recorded request could not read what the one before it had left in the cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.table import Table

from ..breaks import CacheBreak
from ..errors import MessageError
from ..explaining import explain as explained
from .output import console, print_json, reporting

__all__ = ["explain"]

_FILE = typer.Argument(
    help="A JSON file with a request body, or FILE.jsonl:LINE of a log (lines count from 1)."
)


def explain(
    before: Annotated[str, _FILE],
    after: Annotated[str, _FILE],
    dialect: Annotated[
        str | None, typer.Option(help="Recognised by the shape of the bodies if not given.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Read from the first body if not given.")] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.0, help="Seconds between both, to tell whether the cache had expired."),
    ] = None,
    show_text: Annotated[bool, typer.Option(help="Show the text around the place that changed.")] = False,
    exit_code: Annotated[bool, typer.Option(help="Exit with 1 if there is a break, for scripts.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")] = False,
) -> None:
    """Say what moved between two requests, and what it cost: the cause, the place, the tokens and what to do.

    Both are request bodies as an SDK sends them, of any provider: two JSON files, or lines of a request log that
    llmbuffer.capture wrote. Prompt text is shown only when asked for.
    """
    with reporting():
        bodies = _comparable(_read(before), _read(after))
        found = explained(*bodies, dialect=dialect, model=model, seconds=seconds)
        if as_json:
            print_json(
                {
                    "break": None
                    if found is None
                    else {**found.to_json(show_text=show_text), "measured": False}
                }
            )
        else:
            _show(found, show_text)
    if exit_code and found is not None:
        raise typer.Exit(1)


class _Read(NamedTuple):
    """A request body, and which run's pseudonyms stand in it: ``None`` where it is not redacted."""

    body: Any
    salt: str | None = None


def _comparable(before: _Read, after: _Read) -> tuple[Any, Any]:
    """Both bodies. Raises ``MessageError`` where pseudonyms of two runs stand in them, which differ for equal text."""
    if before.salt != after.salt and before.salt is not None and after.salt is not None:
        raise MessageError(
            f"they were redacted with different keys: found salts {before.salt!r} and {after.salt!r}; compare lines of one "
            "run, or record with Recorder(log, key=…), the same key in each"
        )
    return before.body, after.body


def _read(named: str) -> _Read:
    """The request body in a file, or in a line of a log, where it stands in the field ``body``."""
    path, line = Path(named), None
    if not path.exists():
        stem, colon, number = named.rpartition(":")
        if colon and number.isdigit():
            path, line = Path(stem), int(number)
    text = path.read_text(encoding="utf-8")
    if line is not None:
        lines = text.splitlines()
        if not 1 <= line <= len(lines):
            raise MessageError(f"{path}: found {len(lines)} lines, and line {line} was asked for")
        text = lines[line - 1]
    try:
        value = json.loads(text)
    except ValueError as error:
        raise MessageError(f"{named}: no JSON: {error}; give FILE.jsonl:LINE for a line of a log") from None
    if not isinstance(value, dict) or "body" not in value:
        return _Read(value)
    if not isinstance(value["body"], dict):
        raise MessageError(
            f"{named}: this line holds no body, as those of `llmbuffer serve` do not: record with llmbuffer.capture"
        )
    return _Read(value["body"], value.get("salt"))


def _show(found: CacheBreak | None, show_text: bool) -> None:
    out = console()
    if found is None:
        out.print(
            "No break: the second request begins with all that the first one left in the cache.",
            soft_wrap=True,
        )
        return
    out.print(found.sentence, markup=False, soft_wrap=True)
    table = Table(show_header=False)
    rows = [
        ("cause", found.cause),
        ("section", found.section),
        ("path", found.path),
        ("character", f"{found.offset:,}"),
        ("token of the prompt", f"{found.offset_tokens:,}"),
        ("tokens lost (simulated)", f"{found.tokens_lost:,}"),
        ("cost", "" if found.cost is None else f"{found.cost:.6f} USD"),
        *(("also", f"{cause} {path}") for cause, path in found.also),
    ]
    if show_text:
        rows += [("before", repr(found.before)), ("after", repr(found.after))]
    for name, value in rows:
        table.add_row(name, value)
    out.print(table, markup=False)
