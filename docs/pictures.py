"""The pictures of docs/explanation: `python docs/pictures.py` draws them anew, from the library's own arithmetic."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from llmbuffer import get_dialect
from llmbuffer.compaction import Cut, Decision, Outlook, Terms, decide
from llmbuffer.layout import cheapest_placement
from llmbuffer.pictures import rounded_up

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT, LEFT, RIGHT, TOP, FOOT = 640, 320, 62, 150, 20, 44  # pixels
COLOURS = ("#0f8f7f", "#cf3f2b", "#5b5f97")
STYLE = (
    "text{fill:#1f2430}.line{stroke:#1f2430}"
    "@media(prefers-color-scheme:dark){text{fill:#e8e8f0}.line{stroke:#e8e8f0}}"
)

Series = Sequence[tuple[float, float]]


def placements() -> dict[str, Series]:
    """Input tokens that a turn costs because of its dynamic text, by the number of requests in the turn.

    1,000 tokens of dynamic text, 800 tokens of tool traffic between two requests, 40 requests still to come, under the
    rules of claude-sonnet-5.5; ``tail`` as if text might stand behind a tool result there.
    """
    rules = get_dialect("anthropic").bind("claude-sonnet-5.5").rules
    found: dict[str, list[tuple[float, float]]] = {"turn": [], "tail": [], "sticky": []}
    for calls in range(1, 13):
        _, note = cheapest_placement(
            rules, dynamic=1_000, calls=calls, after=800.0 * (calls - 1), expected=40, tail_allowed=True
        )
        for name, cost in re.findall(r"(turn|tail|sticky) (\d+)\b", note.partition("tokens: ")[2]):
            found[name].append((calls, float(cost)))
    return dict(found)


def cut() -> tuple[dict[str, Series], Decision]:
    """What all requests cost from now on, with a cut now and without one, by the number that follow the next one."""
    outlook, chosen, terms = _outlook(20), _CUT, _TERMS
    held, prompt = outlook.prompt - outlook.new, outlook.prompt

    def left(count: int) -> float:
        return terms.prompt(held, prompt) + terms.requests(prompt, outlook.growth, count)

    def made(count: int) -> float:
        making = terms.output * chosen.making + terms.read * prompt
        now = making + terms.prompt(chosen.kept, chosen.tokens)
        return now + terms.requests(chosen.tokens, outlook.growth, count)

    counts = range(31)
    lines: dict[str, Series] = {
        "with a cut now": [(count, made(count)) for count in counts],
        "without": [(count, left(count)) for count in counts],
    }
    return lines, decide(outlook)


_CUT = Cut(action="summary", kept=8_000, left=6_000, making=1_200)
_TERMS = Terms(read=0.1, write=1.25, output=5.0)


def _outlook(remaining: int) -> Outlook:
    return Outlook(
        prompt=60_000,
        new=1_000,
        cuts=(_CUT,),
        growth=1_500,
        remaining=remaining,
        terms=_TERMS,
        target=30_000,
        max_tokens=400_000,
    )


def chart(
    lines: dict[str, Series], *, across: str, up: str, about: str, mark: tuple[float, str] | None
) -> str:
    """Lines over a plane, each with its name at its end; ``mark`` is a place on the x axis and what it says."""
    right = max(x for series in lines.values() for x, _ in series)
    left = min(x for series in lines.values() for x, _ in series)
    top = rounded_up(max(y for series in lines.values() for _, y in series) * 1.02)

    def place(x: float, y: float) -> tuple[float, float]:
        wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - FOOT
        return LEFT + wide * (x - left) / (right - left), TOP + tall * (1 - y / top)

    drawn = [*_axes(left, right, top, place, across, up)]
    if mark is not None:
        x, _ = place(mark[0], 0)
        drawn.append(
            f'<path class="line" d="M{x:.1f} {TOP}V{HEIGHT - FOOT}" stroke-dasharray="4 4" opacity=".6"/>'
        )
        drawn.append(_text(x + 6, TOP + 10, mark[1]))
    ends = _apart([place(*series[-1])[1] for series in lines.values()])
    for (name, series), colour, y in zip(lines.items(), COLOURS, ends, strict=False):
        way = "L".join(f"{x:.1f} {height:.1f}" for x, height in (place(*point) for point in series))
        drawn.append(f'<path d="M{way}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        drawn.append(_text(WIDTH - RIGHT + 8, y + 4, name))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(about)}" width="{WIDTH}" '
        f'height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="12">\n'
        f"<style>{STYLE}</style>\n" + "\n".join(drawn) + "\n</svg>\n"
    )


def _axes(
    left: float,
    right: float,
    top: float,
    place: Callable[[float, float], tuple[float, float]],
    across: str,
    up: str,
) -> list[str]:
    out = []
    for quarter in range(5):
        _, y = place(left, top * quarter / 4)
        out.append(f'<path class="line" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" opacity=".18"/>')
        out.append(_text(LEFT - 6, y + 4, f"{top * quarter / 4:,.0f}", "end"))
    for share in range(5):
        value = round(left + (right - left) * share / 4)
        x, _ = place(value, 0)
        out.append(_text(x, HEIGHT - FOOT + 16, f"{value}", "middle"))
    out.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, across, "middle"))
    out.append(_text(LEFT, TOP - 8, up))
    return out


def _apart(heights: Sequence[float]) -> list[float]:
    """The same heights, moved until the texts at them do not lie on each other."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    moved, least = list(heights), float(TOP)
    for index in order:
        moved[index] = least = max(heights[index], least)
        least += 15
    return moved


def _text(x: float, y: float, said: str, anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(said)}</text>'


def pictures() -> dict[str, str]:
    """Every picture by its path below docs/."""
    lines, decision = cut()
    even = decision.break_even
    return {
        "explanation/placement.svg": chart(
            placements(),
            across="requests in the turn",
            up="input tokens that dynamic text costs in one turn",
            about="Cost of dynamic text by requests in a turn, for the placements turn, tail and sticky",
            mark=None,
        ),
        "explanation/compaction.svg": chart(
            lines,
            across="requests after the next one",
            up="input tokens paid from now on",
            about=f"Cost of a session with and without a cut: the lines meet after {even:.1f} requests",
            mark=(even, f"paid after {even:.1f}"),
        ),
    }


if __name__ == "__main__":
    for path, picture in pictures().items():
        (HERE / path).write_text(picture, encoding="utf-8")
        sys.stdout.write(f"{path}: {len(picture)} bytes\n")
