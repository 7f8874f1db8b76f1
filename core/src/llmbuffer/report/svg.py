"""The pictures of a report: requests as columns, money as lines, forks as a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ..pictures import (
    LEFT,
    PLOT,
    RIGHT,
    Column,
    Mark,
    columns,
    frame,
    label,
    plain,
    rounded_up,
    short_number,
    wrapped,
)
from .model import Bar, Branch, Report, Sums
from .words import anchor, cause_and_price, clock, dollars, heading_of, plural, said

__all__ = ["MONEY", "Point", "fork_tree", "money_lines", "money_points", "nested", "request_columns"]

COLUMNS = 220  # columns at most; with more requests, each stands for several in a row
LABELS = 12  # breaks, the worst ones, that have their cause written above them
TOLD = 100  # breaks that the page tells in full
POINTS = 240
NODES = 120  # forks drawn at most
MONEY = {"cost": "paid", "fresh": "all fresh", "ceiling": "without breaks"}
_STROKES = {"cost": "#0b6bcb", "fresh": "#cf3f2b", "ceiling": "#0f8f7f"}


def request_columns(report: Report, *, links: bool = True) -> str:
    """A column a request, or for several in a row; ``links`` lead to rows of the table and to the breaks."""
    bars = report.bars
    size = -(-len(bars) // COLUMNS) or 1
    told = {bar.number: place for place, bar in enumerate(report.worst)}
    drawn = [_column(bars[at : at + size], links, told) for at in range(0, len(bars), size)]
    per = "Each column is one request" if size == 1 else f"Each column is the mean of {size} requests"
    about = f"{per}, in the order sent: tokens read from the cache, written and fresh. {plural(len(report.breaks), 'break')}"
    return columns(drawn, about)


def _column(bars: Sequence[Bar], links: bool, told: Mapping[int, int]) -> Column:
    sent = [bar for bar in bars if bar.usage is not None]
    count = max(1, len(sent))
    sums = Sums.of(sent).usage
    states = (
        ("read", sums.cache_read_tokens / count),
        ("written", sums.cache_write_tokens / count),
        ("fresh", sums.fresh_tokens / count),
    )
    weights: dict[tuple[str, str], float] = {}
    for bar in sent:
        for each in bar.stretches:
            kind = "new" if each.name.startswith("new") else each.section
            weights[kind, each.name] = weights.get((kind, each.name), 0) + each.tokens / count
    stretches = tuple((kind, name, tokens) for (kind, name), tokens in weights.items())
    first, last = bars[0], bars[-1]
    name = heading_of(first) if first is last else f"Requests {first.number} to {last.number}"
    href = f"#r{first.number}" if links else ""
    return Column(
        f"{name}: {said(bars)}", states, stretches, _mark(bars, links, told), href, str(first.number)
    )


def _mark(bars: Sequence[Bar], links: bool, told: Mapping[int, int]) -> Mark | None:
    """The break of these bars that cost most, else what was planned among them; ``told`` is the place of each by its cost."""
    broken = [bar for bar in bars if bar.alarm is not None]
    if broken:
        worst = max(broken, key=lambda bar: bar.lost)
        assert worst.alarm is not None
        text = cause_and_price(worst.alarm)
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        place = told[worst.number]
        # The page tells the worst ones in full; the others stand in its table alone.
        href = anchor(worst) if place < TOLD else f"#k{worst.number}"
        shown = text if place < LABELS else ""
        return Mark(f"Break at {heading_of(worst).lower()}: {text}{more}", shown, href if links else "")
    planned = next((bar for bar in bars if _is_planned(bar)), None)
    if planned is None:
        return None
    kind = planned.kind if planned.cache_break is None else planned.cache_break.cause
    return Mark(f"Planned: {plain(planned.note or kind)}", kind, planned=True)


def _is_planned(bar: Bar) -> bool:
    return bar.kind in ("thawed", "compacted") or (bar.cache_break is not None and bar.cache_break.planned)


class Point(NamedTuple):
    """Money up to a request: its number, its time, and USD paid, without any cache, without breaks."""

    number: int
    at: float | None
    cost: float
    fresh: float
    ceiling: float


def money_points(report: Report) -> list[Point]:
    """The sums up to each request whose price is known; at most ``POINTS`` of them, the last one included."""
    points: list[Point] = []
    cost = fresh = ceiling = 0.0
    for bar in report.bars:
        if bar.cost is None or bar.usage is None:
            continue
        cost += bar.cost
        fresh += bar.cost if bar.fresh_cost is None else bar.fresh_cost
        ceiling += bar.cost if bar.ceiling_cost is None else bar.ceiling_cost
        points.append(Point(bar.number, bar.at, cost, fresh, ceiling))
    every = -(-len(points) // POINTS) or 1
    kept = points[::every]
    if points and kept[-1] is not points[-1]:
        kept.append(points[-1])
    return kept


def money_lines(points: Sequence[Point]) -> str:
    """Cumulative USD: over time where the times are known, else over the requests."""
    width, head = 908, 14
    timed = _timed(points)
    xs = [float(point.number if not timed else point.at or 0.0) for point in points]
    low, high = min(xs), max(xs)
    spread = (high - low) or 1.0
    top = rounded_up(max(max(point.cost, point.fresh, point.ceiling) for point in points))

    def place(x: float) -> float:
        return LEFT + (width - LEFT - RIGHT) * (x - low) / spread

    drawn = frame(width, head, top, lambda value: f"${short_number(value)}")
    for name, colour in _STROKES.items():
        ends = [
            (place(x), head + PLOT - PLOT * getattr(point, name) / top)
            for x, point in zip(xs, points, strict=True)
        ]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in ends)
        dash = ' stroke-dasharray="6 4"' if name == "ceiling" else ""
        drawn.append(
            f'<path class="lb-{name}" d="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
        )
        drawn += [
            f'<circle class="lb-dot-{name}" cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>'
            for x, y in ends[-1:]
        ]
    drawn += _ticks(low, high, timed, place, head)
    last = points[-1]
    about = f"Money over {'time' if timed else 'the requests'}: {dollars(last.cost)} paid, {dollars(last.fresh)} all fresh, "
    return wrapped(width, head + PLOT + 24, f"{about}{dollars(last.ceiling)} without breaks", drawn)


def _timed(points: Sequence[Point]) -> bool:
    times = [point.at for point in points if point.at is not None]
    return len(times) == len(points) and max(times, default=0.0) > min(times, default=0.0)


def _ticks(low: float, high: float, timed: bool, place: Callable[[float], float], head: int) -> Iterator[str]:
    count = 4
    for step in range(count + 1):
        value = low + (high - low) * step / count
        if not timed and (high - low) < count and step not in (0, count):
            continue
        anchored = "start" if step == 0 else "end" if step == count else "middle"
        text = clock(value - low) if timed else f"{value:.0f}"
        yield label(place(value), head + PLOT + 16, text, anchored)


def nested(branches: Sequence[Branch]) -> Iterator[tuple[int, Branch]]:
    """Each branch once with its depth, parents before their forks. Whatever the parents say, nothing is left out."""
    children: dict[str | None, list[Branch]] = {}
    known = {branch.id for branch in branches}
    for branch in branches:
        parent = branch.parent if branch.parent in known and branch.parent != branch.id else None
        children.setdefault(parent, []).append(branch)
    waiting = [(0, branch) for branch in reversed(children.get(None, []))]
    told: set[str] = set()
    while waiting:
        depth, branch = waiting.pop()
        if branch.id in told:
            continue
        told.add(branch.id)
        yield depth, branch
        waiting += [(depth + 1, child) for child in reversed(children.get(branch.id, []))]
    yield from ((0, branch) for branch in branches if branch.id not in told)  # parents in a circle


def fork_tree(report: Report) -> str:
    """The branches as a tree, each with its tokens read, written and fresh."""
    sums = {branch.id: each for branch, each in report.by_branch()}
    rows = list(nested(report.branches))
    shown = rows[:NODES]
    widest = max((sums[branch.id].usage.input_tokens for _, branch in shown), default=0) or 1
    indents = [min(depth, 6) * 18 for depth, _ in shown]
    names = [plain(branch.name or branch.id, 28) for _, branch in shown]
    start = (
        max((12 + indent + 7.0 * len(name) for indent, name in zip(indents, names, strict=True)), default=40)
        + 12
    )
    drawn: list[str] = []
    places: list[int] = []  # the row of the latest branch of each depth
    for row, (depth, branch) in enumerate(shown):
        del places[min(depth, len(places)) :]
        places.append(row)
        y = 20 + 24 * row
        if depth and len(places) > 1:
            x, above = min(depth - 1, 6) * 18 + 6, 20 + 24 * places[-2] + 6
            drawn.append(
                f'<path class="lb-grid" d="M{x} {above}V{y}h10" fill="none" stroke="currentColor" opacity=".45"/>'
            )
        drawn.append(label(indents[row] + 4, y + 4, names[row]))
        drawn += _share(sums[branch.id], start, y, 300 / widest)
    more = len(rows) - len(shown)
    if more:
        drawn.append(label(4, 24 + 24 * len(shown), f"and {more:,} more: see the table"))
    about = (
        f"{len(rows)} branches: the session and its forks, with the tokens that each read, wrote and computed"
    )
    return wrapped(round(start + 420), 24 * (len(shown) + bool(more)) + 12, about, drawn)


def _share(sums: Sums, x: float, y: float, scale: float) -> Iterator[str]:
    usage = sums.usage
    parts = (
        ("read", usage.cache_read_tokens),
        ("written", usage.cache_write_tokens),
        ("fresh", usage.fresh_tokens),
    )
    fills = {"read": "#0f8f7f", "written": "#d99a00", "fresh": "#cf3f2b"}
    for kind, tokens in parts:
        if tokens:
            wide = max(1.0, tokens * scale)
            yield f'<rect class="lb-{kind}" x="{x:.1f}" y="{y - 7}" width="{wide:.1f}" height="14" fill="{fills[kind]}"/>'
            x += wide
    if usage.input_tokens:
        broken = f", {plural(sums.breaks, 'break')}" if sums.breaks else ""
        yield label(x + 6, y + 4, f"{usage.hit_ratio:.0%} read{broken}")
