"""What a notebook shows: the pictures and the sums, without a script and without colours of their own for text."""

from __future__ import annotations

from ..pictures import safe
from .model import Report
from .svg import fork_tree, money_lines, money_points, request_columns
from .words import dollars, heading_of, plural

__all__ = ["fragment"]

_BREAKS = 10


def fragment(report: Report) -> str:
    """The report as a piece of HTML.

    >>> from llmbuffer.report import Report
    >>> "0 requests" in fragment(Report(title="empty"))
    True
    """
    sums = report.sums
    share = "" if sums.share_of_ceiling is None else f" ({sums.share_of_ceiling:.1%} of what could be read)"
    parts = [
        (
            f"<p><b><bdi>{safe(report.title)}</bdi></b>: {sums.requests:,} requests, {sums.usage.input_tokens:,} tokens in, "
            f"{sums.hit_ratio:.1%} read{share}, {plural(sums.breaks, 'break')}, {dollars(sums.cost)}</p>"
        )
    ]
    if report.bars:
        parts.append(_scrolled(request_columns(report, links=False)))
        parts.append("<p><small>From the bottom: read (green), written (yellow), fresh (red).</small></p>")
    told = [
        f"<li><bdi>{safe(heading_of(bar))}</bdi>: {safe(bar.alarm.sentence, 600)}</li>"
        for bar in report.worst[:_BREAKS]
        if bar.alarm is not None
    ]
    if told:
        parts.append(f"<ul>{''.join(told)}</ul>")
    points = money_points(report)
    if len(points) > 1:
        parts.append(_scrolled(money_lines(points)))
    if len(report.branches) > 1:
        parts.append(_scrolled(fork_tree(report)))
    return "".join(parts)


def _scrolled(picture: str) -> str:
    return f'<div style="overflow-x:auto">{picture}</div>'
