"""The figures as one HTML page that needs nothing else: no network, no script."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from html import escape
from pathlib import Path

from ..errors import LLMBufferError
from .figures import Demo
from .sheets import (
    Bar,
    Sheet,
    arms_sheet,
    heading,
    improvements,
    notes,
    turn_bars,
    what_broke_lines,
    workers_sheet,
)

__all__ = ["check_target", "page", "picture", "write_page"]

_COLOURS = """\
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #ffffff; --line: #d5d5d5; --ours: #1a7f37; --theirs: #cf222e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #161616; --line: #3d3d3d; --ours: #4cc36b; --theirs: #ff7b72; }
}
svg { background: var(--paper); height: auto; max-width: 100%; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
.theirs { fill: var(--theirs); }
.ours { fill: var(--ours); }
"""
_STYLE = """\
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem;
  padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .75rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; }
.note { font-size: .875rem; opacity: .8; }
"""


def page(demo: Demo) -> str:
    """The page as HTML."""
    found = list(improvements(demo))
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><title>llmbuffer demo</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>\n{_COLOURS}{_STYLE}</style></head><body>",
        f"<h1>llmbuffer demo</h1><p>{escape(heading(demo))}.</p>",
        _list(found),
        _table(arms_sheet(demo)),
        "<h2>Prompt tokens computed in each turn</h2>",
        _picture(turn_bars(demo)),
        '<p class="note">Above: default. Below: buffered.</p>',
        _table(workers_sheet(demo)),
        "<h2>What broke in default</h2>",
        _list(what_broke_lines(demo)),
        *(f'<p class="note">{escape(note)}</p>' for note in notes(demo)),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _table(sheet: Sheet) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in sheet.titles)
    rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in sheet.rows)
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<h2>{escape(sheet.title)}</h2>\n<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n'
        "</tbody></table></div>"
    )


def _list(lines: Iterable[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{escape(line)}</li>" for line in lines) + "\n</ul>"


def picture(demo: Demo) -> str:
    """The bars of the turns alone, as an SVG file."""
    return _picture(turn_bars(demo), _COLOURS)


def _picture(bars: list[Bar], style: str = "") -> str:
    """Two bars for each turn, drawn to one scale."""
    longest = max(bar.default for bar in bars) or 1
    height, left, width = 44, 60, 560
    drawn: list[str] = []
    for index, bar in enumerate(bars):
        top = index * height + 4
        drawn.append(f'<text x="0" y="{top + 20}">turn {bar.turn}</text>')
        for row, (count, kind) in enumerate(((bar.default, "theirs"), (bar.buffered, "ours"))):
            length, y = max(1, round(width * count / longest)), top + 18 * row
            drawn.append(f'<rect class="{kind}" x="{left}" y="{y}" width="{length}" height="16"/>')
            drawn.append(f'<text x="{left + length + 6}" y="{y + 13}">{count:,}</text>')
    whole = f"{left + width + 80} {len(bars) * height + 8}"
    styled = f"<style>\n{style}</style>\n" if style else ""
    alone = ' xmlns="http://www.w3.org/2000/svg"' if style else ""
    return (
        f'<svg{alone} viewBox="0 0 {whole}" role="img" aria-label="Prompt tokens computed in each turn">\n'
        f"<title>Each turn: above default, below buffered</title>\n{styled}" + "\n".join(drawn) + "\n</svg>\n"
    )


def check_target(path: Path) -> None:
    """Refuse what cannot be written to, before a run that takes a minute. Raises ``LLMBufferError``."""
    if path.is_dir():
        raise LLMBufferError(f"{str(path)!r} is a directory: give the name of a file, such as report.html")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise LLMBufferError(f"{str(folder)!r} is no directory: make it, or write the report elsewhere")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise LLMBufferError(
            f"{str(path)!r} cannot be written: check its permissions, or write the report elsewhere"
        )


def write_page(path: Path, text: str) -> None:
    """Write the whole file or none: what stood there before stays until the new one is complete.

    A device or a pipe is written to as it is. Raises ``LLMBufferError`` that says why it was not written.
    """
    target = path.resolve()
    try:
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8")
        else:
            _replace(target, text)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else (error.strerror or str(error))
        raise LLMBufferError(f"the report {str(path)!r} was not written: {why}") from None


def _replace(target: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
        Path(name).chmod(mode)
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current
