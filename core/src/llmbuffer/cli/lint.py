"""``llmbuffer lint``: what will break a cache, found in source and prompts before it does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import MessageError
from ..lint import RULES, Finding, lint_path
from .output import complain, print_json, reporting

__all__ = ["lint"]

_LEVELS = {"error": "error", "warning": "warning", "note": "notice"}
_Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH...",
        help="Folders (Python files, notebooks and .prompt files in them), or files: Python, notebooks, JSON request bodies, "
        "logs of them (.jsonl), prompts as text.",
    ),
]
_Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Names or patterns to leave out, besides .venv, .git, node_modules and their like.",
    ),
]
_Ignore = Annotated[
    list[str] | None, typer.Option(metavar="RULE", help="Rules not to report, such as LB005.")
]


def lint(
    paths: _Paths,
    *,
    exclude: _Exclude = None,
    ignore: _Ignore = None,
    github: Annotated[bool, typer.Option("--github", help="Annotations for a workflow of GitHub's.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")] = False,
) -> None:
    """Find clocks, random ids, unsorted sets and other passing values that become part of a stable prompt.

    Source is parsed, never imported or run. In it, a comment hides what its line has: # llmbuffer: ignore[LB001]. Exits
    with 1 if anything is found, with 2 for a path that is not there.
    """
    with reporting():
        hidden = _rules(ignore or ())
        found = [
            each
            for path in paths
            for each in lint_path(path, exclude=exclude or ())
            if each.rule not in hidden
        ]
        if as_json:
            print_json({"findings": [_document(each) for each in found], "count": len(found)})
        else:
            _show(found, github)
    if found:
        raise typer.Exit(1)


def _rules(named: Sequence[str]) -> frozenset[str]:
    rules = frozenset(each.strip().upper() for name in named for each in name.split(","))
    unknown = sorted(rules - RULES.keys())
    if unknown:
        raise MessageError(f"--ignore {unknown[0]!r}: no such rule; there are {', '.join(RULES)}")
    return rules


def _document(found: Finding) -> dict[str, Any]:
    return {
        "rule": found.rule,
        "path": found.path,
        "cell": found.cell,
        "line": found.line,
        "column": found.column,
        "place": found.place,
        "severity": found.severity,
        "message": found.message,
        "fix": found.fix,
    }


def _show(found: Sequence[Finding], github: bool) -> None:
    for each in found:
        if github:
            where = f"file={_escaped(each.path)},line={each.line},col={each.column}"
            typer.echo(
                f"::{_LEVELS[each.severity]} {where},title={each.rule}::{_line(each.message)}; {each.fix}"
            )
        else:
            typer.echo(f"{each} ({each.severity})\n    {each.fix}")
    complain("nothing found" if not found else f"{len(found):,} found")


def _line(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escaped(text: str) -> str:
    """What stands between commas and colons has these escaped as well."""
    return _line(text).replace(",", "%2C").replace(":", "%3A")
