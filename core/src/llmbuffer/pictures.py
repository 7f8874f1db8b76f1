"""Columns of tokens as SVG, and text made safe to show: what reports and notebooks are drawn with."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Column", "Mark", "columns", "frame", "label", "plain", "rounded_up", "safe", "short_number"]

# Controls, characters that turn the direction of what follows, and halves of a pair.
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
LEFT, RIGHT, FOOT, PLOT, ROW = 52, 16, 24, 220, 15  # pixels around the plot, its height, and a row of labels
_FILLS = {
    "read": "#0f8f7f",
    "written": "#d99a00",
    "fresh": "#cf3f2b",
    "tools": "#5b5f97",
    "system": "#8d86c9",
    "messages": "#b9b4e0",
    "new": "#dedcf3",
}
_TOPS = (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10)
_CHAR = 6.4  # pixels of a character at 11 px, on the wide side


class Mark(NamedTuple):
    """A sign above a column: what it says in full, its ``label``, where a click goes, and whether it was planned."""

    title: str
    label: str = ""
    href: str = ""
    planned: bool = False


class Column(NamedTuple):
    """One column: ``title`` in full, ``states`` (read, written, fresh) and ``stretches`` (class, name) with their tokens.

    Both are drawn from the bottom up, in prompt order.
    """

    title: str
    states: tuple[tuple[str, float], ...]
    stretches: tuple[tuple[str, str, float], ...] = ()
    mark: Mark | None = None
    href: str = ""
    label: str = ""

    @property
    def height(self) -> float:
        """Its tokens."""
        return sum(tokens for _, tokens in self.states)


def plain(text: object, limit: int = 80) -> str:
    """A text that can be shown: controls, marks of direction and half pairs become U+FFFD, and no more than ``limit`` characters.

    >>> plain("worker" + chr(0x202E) + "gpj.exe", 10)
    'worker\ufffdgp…'
    """
    shown = _UNSHOWN.sub("\ufffd", str(text))
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def safe(text: object, limit: int = 80) -> str:
    """``plain`` text with everything escaped that HTML has a meaning for.

    >>> safe("</script>")
    '&lt;/script&gt;'
    """
    return escape(plain(text, limit))


def short_number(value: float) -> str:
    """A number for an axis.

    >>> [short_number(value) for value in (0, 950, 12_000, 2_500_000)]
    ['0', '950', '12k', '2.5M']
    """
    for bound, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= bound:
            return f"{value / bound:.3g}{unit}"
    return f"{value:.3g}"


def rounded_up(value: float) -> float:
    """The next number whose quarters are short to write: the top of an axis.

    >>> rounded_up(17_300), rounded_up(0.0031)
    (20000.0, 0.004)
    """
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(round(step * power, 12) for step in _TOPS if step * power >= value)


def columns(drawn: Sequence[Column], about: str) -> str:
    """The columns as an SVG of its own size in pixels; ``about`` is what a screen reader says of the whole.

    >>> picture = columns([Column("request 1", (("read", 80), ("fresh", 20)))], "One request")
    >>> picture.count("<rect"), 'role="img"' in picture
    (2, True)
    """
    step = max(4.0, min(44.0, 840 / max(1, len(drawn))))
    labels = _labels(drawn, step)
    head = 10 + ROW * (1 + max((row for row, _, _, _ in labels), default=0))
    width = _width(drawn, step)
    top = rounded_up(max((each.height for each in drawn), default=1))
    scale = PLOT / top
    body = [_column(each, LEFT + step * index, step, head, scale) for index, each in enumerate(drawn)]
    marks = [_mark(each, LEFT + step * (index + 0.5), head, scale) for index, each in enumerate(drawn)]
    texts = [
        f'<text class="lb-cause" x="{x:.0f}" y="{10 + ROW * row}" font-size="11" fill="currentColor">{safe(text, 60)}</text>'
        for row, x, _, text in labels
    ]
    axis = [*frame(width, head, top, short_number), *_numbers(drawn, step, head)]
    return wrapped(width, head + PLOT + FOOT, about, [*axis, *body, *texts, *marks])


def _width(drawn: Sequence[Column], step: float) -> int:
    return round(max(320, LEFT + step * len(drawn) + RIGHT))


def wrapped(width: int, height: int, about: str, inner: Iterable[str]) -> str:
    """An SVG element around its drawings. Links inside are told one by one; without any, it is one picture."""
    drawn = "\n".join(filter(None, inner))
    role = "group" if "<a " in drawn else "img"
    return (
        f'<svg class="lb" role="{role}" aria-label="{safe(about, 400)}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif">\n'
        f"{drawn}\n</svg>"
    )


def frame(width: int, head: int, top: float, spell: Callable[[float], str] = short_number) -> list[str]:
    """Four lines across the plot and what they stand for."""
    out = []
    for quarter in range(5):
        y = head + PLOT - PLOT * quarter / 4
        out.append(
            f'<path class="lb-grid" d="M{LEFT} {y:.1f}H{width - RIGHT}" stroke="currentColor" opacity=".18"/>'
        )
        out.append(label(LEFT - 6, y + 4, spell(top * quarter / 4), "end"))
    return out


def label(x: float, y: float, text: str, anchor: str = "start") -> str:
    """A small text."""
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="11" text-anchor="{anchor}" fill="currentColor">{safe(text)}</text>'


def _numbers(drawn: Sequence[Column], step: float, head: int) -> list[str]:
    """The label of every so many columns, below the plot."""
    every = max(1, math.ceil(48 / step))
    return [
        label(LEFT + step * (index + 0.5), head + PLOT + 16, plain(each.label, 12), "middle")
        for index, each in enumerate(drawn)
        if each.label and index % every == 0
    ]


def _column(each: Column, x: float, step: float, head: int, scale: float) -> str:
    gap = min(4.0, step * 0.15)
    stripe = (step - gap) * 0.32 if each.stretches else 0.0
    drawn = _stack(
        ((kind, tokens, "") for kind, tokens in each.states), x + stripe, step - gap - stripe, head, scale
    )
    drawn += _stack(((kind, tokens, name) for kind, name, tokens in each.stretches), x, stripe, head, scale)
    tag, link = ("a", f' href="{escape(each.href)}"') if each.href else ("g", "")
    target = f'<path d="M{x:.1f} {head}h{step:.1f}v{PLOT}h-{step:.1f}z" fill="transparent"/>'
    return (
        f'<{tag} class="lb-bar"{link}><title>{safe(each.title, 400)}</title>{target}{"".join(drawn)}</{tag}>'
    )


def _stack(
    parts: Iterable[tuple[str, float, str]], x: float, width: float, head: int, scale: float
) -> list[str]:
    out, y = [], float(head + PLOT)
    for kind, tokens, name in parts:
        tall = tokens * scale
        if tall <= 0:
            continue
        y -= tall
        inner = f"<title>{safe(name)}: {tokens:,.0f} tokens</title>" if name else ""
        fill = _FILLS.get(kind, "#888888")
        box = (
            f'class="lb-{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{tall:.1f}" fill="{fill}"'
        )
        out.append(
            f'<rect {box} stroke="#ffffff" stroke-width=".5">{inner}</rect>' if inner else f"<rect {box}/>"
        )
    return out


def _mark(each: Column, x: float, head: int, scale: float) -> str:
    if each.mark is None:
        return ""
    y = head + PLOT - each.height * scale - 9
    kind = "lb-planned" if each.mark.planned else "lb-break"
    fill = "none" if each.mark.planned else "#cc2a45"
    shape = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="14" fill="transparent"/>'
        f'<path class="{kind}" d="M{x:.1f} {y - 7:.1f}l6.5 12h-13z" fill="{fill}" stroke="#cc2a45"/>'
    )
    said = safe(each.mark.title, 400)
    if not each.mark.href:
        return f"<g><title>{said}</title>{shape}</g>"
    return f'<a class="lb-mark" href="{escape(each.mark.href)}" aria-label="{said}"><title>{said}</title>{shape}</a>'


def _labels(drawn: Sequence[Column], step: float) -> list[tuple[int, float, float, str]]:
    """Labels of marks as (row, x, end, text), at most three rows of them; what finds no room is told by the mark alone."""
    ends = [0.0, 0.0, 0.0]
    out = []
    width = _width(drawn, step)
    for index, each in enumerate(drawn):
        if each.mark is None or not each.mark.label:
            continue
        x = max(0.0, min(LEFT + step * index, width - _CHAR * min(60, len(each.mark.label))))
        row = next((row for row, end in enumerate(ends) if end + 8 < x), None)
        if row is not None:
            ends[row] = x + _CHAR * min(60, len(each.mark.label))
            out.append((row, x, ends[row], each.mark.label))
    return out
