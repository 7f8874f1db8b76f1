"""Files and folders: which are looked at, and how each is read."""

from __future__ import annotations

import fnmatch
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..errors import EncodingError, MessageError
from .findings import Finding
from .prompts import bodies_in, lint_body, lint_text
from .source import lint_source

__all__ = ["EXCLUDED", "LARGEST", "lint_path"]

# Folders that are never entered, unless they are named themselves.
EXCLUDED = (
    *(".git", ".hg", ".svn", ".venv", "venv", ".tox", ".nox", "node_modules", "__pycache__", "site-packages"),
    *(
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        ".eggs",
        "*.egg-info",
        "build",
        "dist",
        ".ipynb_checkpoints",
    ),
)
LARGEST = 16 * 2**20  # bytes of a file
_IN_FOLDERS = frozenset({".py", ".ipynb", ".prompt"})


def lint_path(path: str | Path, *, exclude: Sequence[str] = ()) -> Iterator[Finding]:
    """The findings in a file, or in all Python files, notebooks and ``.prompt`` files below a folder, file by file.

    A file that is named may be anything: Python, a notebook, a JSON request body, a log of them (``.jsonl``), or a prompt
    as text. ``exclude`` are names or patterns of files and folders to leave out, besides ``EXCLUDED``; links to folders are
    not followed. A file that cannot be read is a finding (``LB901``); what is not there at all raises ``OSError``.

    >>> list(lint_path(os.devnull))
    []
    """
    path = Path(path)
    if not path.is_dir():
        path.stat()
        yield from lint_file(path)
        return
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(
            name for name in folders if not _excluded(Path(folder, name), (*EXCLUDED, *exclude))
        )
        for name in sorted(files):
            file = Path(folder, name)
            if file.suffix in _IN_FOLDERS and not _excluded(file, exclude):
                yield from lint_file(file)


def _excluded(path: Path, patterns: Sequence[str]) -> bool:
    shown = path.as_posix()
    return any(
        fnmatch.fnmatch(path.name, each)
        or fnmatch.fnmatch(shown, each)
        or fnmatch.fnmatch(shown, f"*/{each}")
        for each in (pattern.rstrip("/") for pattern in patterns)
    )


def lint_file(path: Path) -> list[Finding]:
    """The findings in one file."""
    name = path.as_posix()
    try:
        if path.stat().st_size > LARGEST:
            return [Finding(name, 1, 1, "LB901", f"is larger than {LARGEST:,} bytes")]
        text = _text(path.read_bytes())
    except OSError as error:
        return [Finding(name, 1, 1, "LB901", f"cannot be read: {error.strerror}")]
    except (UnicodeDecodeError, LookupError, SyntaxError):
        return [
            Finding(name, 1, 1, "LB901", "cannot be read: it is not in the encoding that it names, or UTF-8")
        ]
    if path.suffix == ".py":
        return lint_source(text, path=name)
    if path.suffix == ".ipynb":
        return _notebook(text, name)
    if path.suffix in (".json", ".jsonl"):
        return _bodies(text, name, lines=path.suffix == ".jsonl")
    return lint_text(text, path=name)


_CODING = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")


def _text(raw: bytes) -> str:
    head = raw.split(b"\n", 2)[:2]
    named = next((match[1].decode("ascii") for match in map(_CODING.match, head) if match), "utf-8-sig")
    return raw.decode("utf-8-sig" if named.lower() in ("utf-8", "utf8") else named)


def _bodies(text: str, name: str, *, lines: bool) -> list[Finding]:
    """Each finding once, in the first line of a log that has it."""
    known: set[tuple[str, str | None]] = set()
    out: list[Finding] = []
    for number, body in bodies_in(text, lines=lines):
        try:
            found = lint_body(body, path=name)
        except (MessageError, EncodingError):
            continue
        for each in found:
            if (each.rule, each.place) not in known:
                known.add((each.rule, each.place))
                out.append(msgspec.structs.replace(each, line=number))
    return out


def _notebook(text: str, name: str) -> list[Finding]:
    """The code cells as one program; findings name the cell and the line in it. Magic lines are left out."""
    try:
        cells = json.loads(text)["cells"]
        sources = [
            (number, _source(cell)) for number, cell in enumerate(cells, 1) if cell.get("cell_type") == "code"
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [Finding(name, 1, 1, "LB902", "is no notebook")]
    places: list[tuple[int, int]] = []
    program: list[str] = []
    for number, source in sources:
        lines = _without_magics(source)
        if lint_source("\n".join(lines), path=name)[:1] and _broken("\n".join(lines)):
            lines = ["pass" for _ in lines]  # one broken cell is no reason to leave the others out
        places += [(number, line) for line in range(1, len(lines) + 1)]
        program += lines
    return [_placed(found, places) for found in lint_source("\n".join(program), path=name)]


def _broken(source: str) -> bool:
    return any(each.rule == "LB902" for each in lint_source(source))


def _placed(found: Finding, places: list[tuple[int, int]]) -> Finding:
    cell, line = places[min(found.line, len(places)) - 1] if places else (1, 1)
    return msgspec.structs.replace(found, cell=cell, line=line)


def _source(cell: Any) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def _without_magics(source: str) -> list[str]:
    lines = source.splitlines()
    if lines and lines[0].startswith("%%") and not lines[0].startswith(("%%time", "%%capture")):
        return ["pass" for _ in lines]
    return [
        line[: len(line) - len(line.lstrip())] + "pass" if line.lstrip().startswith(("%", "!", "?")) else line
        for line in lines
    ]
