"""The page: one HTML file without network, with a content security policy that allows its own style and script alone."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from html import escape
from importlib import resources

from ..breaks import CacheBreak
from ..pictures import plain, safe
from .model import Bar, Report, Sums
from .svg import COLUMNS, MONEY, TOLD, fork_tree, money_lines, money_points, request_columns
from .tables import Table, branch_table, break_table, money_table, request_table
from .words import cause_and_price, dollars, heading_of

__all__ = ["page"]

ROWS = 200  # rows of a table in the page itself; further ones are made by the script when they are asked for


def page(report: Report, *, show_text: bool = False) -> str:
    """The report as HTML: pictures, a table behind each, what broke and what to do.

    At most 400 kB and 450 bytes a request, a break or a fork, with names of usual length. ``show_text`` adds the excerpts
    around each break, the only prompt text there is.
    """
    style, script = _asset("page.css"), _asset("page.js")
    sections = [*_requests(report), *_broken(report, show_text), *_money(report), *_forks(report)]
    tables = [part for part in sections if isinstance(part, Table)]
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{safe(report.title)} · llmbuffer report</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(style, script)}">',
        f"<style>{style}</style></head><body>",
        *_head(report),
        "<main>",
        *(_table(part) if isinstance(part, Table) else part for part in sections),
        "</main>",
        _foot(report),
        f'<script type="application/json" id="rows">{_rows(tables)}</script>',
        f"<script>{script}</script>",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


@cache
def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'; "
        "form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


def _head(report: Report) -> Iterator[str]:
    told = {True: "measured", False: "simulated", None: "as reported"}[report.measured]
    source = f"{safe(report.source, 200)}; " if report.source else ""
    yield f'<header><div><h1><bdi>{safe(report.title)}</bdi></h1><p class="soft">{source}figures {told}</p></div>'
    yield '<button id="theme" type="button" hidden>Dark colours</button></header>'
    yield '<dl class="tiles">'
    for name, value, more in _tiles(report.sums):
        small = f"<small>{escape(more)}</small>" if more else ""
        yield f"<div><dt>{name}</dt><dd>{escape(value)}{small}</dd></div>"
    yield "</dl>"


def _tiles(sums: Sums) -> Iterator[tuple[str, str, str]]:
    usage, share = sums.usage, sums.share_of_ceiling
    yield "Requests", f"{sums.requests:,}", f"{usage.input_tokens:,} tokens in"
    ceiling = "" if share is None else f"{share:.1%} of what could be read"
    yield "Read from cache", f"{usage.hit_ratio:.1%}", ceiling
    yield "Breaks", f"{sums.breaks:,}", f"{sums.lost:,} tokens billed again"
    if sums.cost is not None:
        saved = "" if not sums.fresh_cost else f"{1 - sums.cost / sums.fresh_cost:.1%} less than all fresh"
        yield "Paid", dollars(sums.cost), saved
        if sums.ceiling_cost is not None:
            yield (
                "Breaks cost",
                dollars(sums.cost - sums.ceiling_cost),
                f"{dollars(sums.ceiling_cost)} without",
            )


def _requests(report: Report) -> Iterator[str | Table]:
    size = -(-len(report.bars) // COLUMNS) or 1
    yield '<section aria-labelledby="h-requests"><h2 id="h-requests">Requests</h2>'
    if not report.bars:
        yield "<p>Nothing was sent.</p></section>"
        return
    each = "One column a request" if size == 1 else f"Each column is the mean of {size} requests"
    staged = any(bar.stretches for bar in report.bars)
    left = " The narrow part on the left shows the sections of the prompt." if staged else ""
    yield f'<p class="soft">{each}, tokens from the beginning of the prompt upwards.{left} Click a column for its row.</p>'
    yield _legend(staged)
    yield _scrolled(request_columns(report), "Picture of the requests")
    yield request_table(report)
    yield "</section>"


def _legend(staged: bool) -> str:
    kinds = [("read", "read"), ("written", "written"), ("fresh", "fresh")]
    if staged:
        kinds += [("tools", "tools"), ("system", "system"), ("messages", "history"), ("new", "new")]
    return _keys(kinds) + ""


def _keys(kinds: list[tuple[str, str]]) -> str:
    items = (
        f'<li><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="lb-{kind}" width="10" height="10"/></svg>{name}</li>'
        for kind, name in kinds
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _scrolled(inner: str, about: str) -> str:
    return f'<div class="wide" tabindex="0" role="group" aria-label="{about}">{inner}</div>'


def _broken(report: Report, show_text: bool) -> Iterator[str | Table]:
    yield '<section aria-labelledby="h-broken"><h2 id="h-broken">What broke</h2>'
    found = report.worst
    if not found:
        yield "<p>Nothing: no request lost what a warm cache would have served.</p></section>"
        return
    for bar in found[:TOLD]:
        assert bar.alarm is not None, "report.breaks are the bars with an alarm"
        yield _break(bar, bar.alarm, show_text)
    if len(found) > TOLD:
        yield f"<p>The {TOLD} that cost most; all {len(found):,} are in the table.</p>"
    yield break_table(report)
    yield "</section>"


def _break(bar: Bar, found: CacheBreak, show_text: bool) -> str:
    where = ": ".join(filter(None, (found.section, found.path)))
    rows = [
        ("cause", escape(found.cause)),
        (
            "where",
            f"<bdi>{safe(where, 160)}</bdi>, character {found.offset:,}, token {found.offset_tokens:,} of the prompt",
        ),
        (
            "lost",
            f"{found.tokens_lost:,} tokens billed again, {dollars(found.cost)}; confidence {found.confidence:.0%}",
        ),
        ("to do", safe(found.fix, 300)),
    ]
    rows += [("also", f"{escape(cause)} <bdi>{safe(path)}</bdi>") for cause, path in found.also[:5]]
    if show_text and (found.before or found.after):
        rows += [
            ("before", f"<code><bdi>{safe(found.before, 400)}</bdi></code>"),
            ("after", f"<code><bdi>{safe(found.after, 400)}</bdi></code>"),
        ]
    told = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
    return (
        f'<details class="break" id="b{bar.number}"><summary><b><bdi>{safe(heading_of(bar))}</bdi></b>: '
        f"{escape(cause_and_price(found))}</summary><p>{safe(found.sentence, 600)}.</p><dl>{told}</dl>"
        f'<p><a href="#r{bar.number}">its row in the table</a></p></details>'
    )


def _money(report: Report) -> Iterator[str | Table]:
    points = money_points(report)
    if not points:
        return
    yield '<section aria-labelledby="h-money"><h2 id="h-money">Money</h2>'
    last = points[-1]
    yield (
        f"<p>{dollars(last.cost)} paid; {dollars(last.fresh)} with every token fresh; {dollars(last.ceiling)} without breaks.</p>"
    )
    unpriced = sum(bar.requests for bar in report.bars if bar.usage is not None and bar.cost is None)
    if unpriced:
        yield f'<p class="soft">{unpriced:,} requests of models without a known price are left out.</p>'
    yield _keys(
        [("cost", MONEY["cost"]), ("fresh", MONEY["fresh"]), ("ceiling", f"{MONEY['ceiling']} (dashed)")]
    )
    yield _scrolled(money_lines(points), "Picture of the money")
    yield money_table(points)
    yield "</section>"


def _forks(report: Report) -> Iterator[str | Table]:
    if len(report.branches) < 2:
        return
    yield '<section aria-labelledby="h-forks"><h2 id="h-forks">Sessions and forks</h2>'
    yield _keys([("read", "read"), ("written", "written"), ("fresh", "fresh")])
    yield _scrolled(fork_tree(report), "Picture of the forks")
    yield branch_table(report)
    yield "</section>"


def _foot(report: Report) -> str:
    notes = [
        *report.notes,
        *([f"{report.skipped:,} lines could not be read and are left out."] if report.skipped else []),
        "Without breaks: what would have been paid had every break been a hit. Prices are list prices, or your own.",
    ]
    return "<footer>" + "".join(f"<p>{safe(note, 400)}</p>" for note in notes) + "</footer>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col" class="{kind}">{escape(title)}</th>' for title, kind in table.columns)
    rows = "\n".join(_row(table, index) for index in range(min(ROWS, len(table.rows))))
    more = len(table.rows) - ROWS
    note = (
        f'<p class="without-script">{more:,} more rows are shown by the script of this page.</p>'
        if more > 0
        else ""
    )
    return (
        f"<details><summary>Table: {escape(table.caption)} ({len(table.rows):,})</summary>{note}"
        f'<div class="wide" tabindex="0" role="group" aria-label="{escape(table.caption)}">'
        f'<table id="{table.id}" data-row="{table.row}"><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div></details>'
    )


def _row(table: Table, index: int) -> str:
    cells = (
        f'<td class="{kind}">{_cell(text, kind)}</td>'
        for text, (_, kind) in zip(table.rows[index], table.columns, strict=True)
    )
    return f'<tr id="{table.row}{table.ids[index]}">{"".join(cells)}</tr>'


def _cell(text: str, kind: str) -> str:
    shown = escape(plain(text, 300))
    return shown if kind == "n" else f"<bdi>{shown}</bdi>"


def _rows(tables: list[Table]) -> str:
    """The rows of long tables as JSON that cannot end its element, whatever names hold."""
    long = {
        table.id: {
            "row": table.row,
            "kinds": [kind for _, kind in table.columns],
            "ids": table.ids,
            "rows": table.rows,
        }
        for table in tables
        if len(table.rows) > ROWS
    }
    text = json.dumps(long, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
