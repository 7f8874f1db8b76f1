"""How large a report becomes, and how long it takes: `python tests/benchmarks/report_size.py`.

Prints bytes a request for pages of 100 to 10,000 requests, and the time for a page as a ratio to that of 100 requests.
"""

from __future__ import annotations

from time import perf_counter

from llmbuffer.breaks import FIXES, CacheBreak
from llmbuffer.prices import price_for
from llmbuffer.report import Bar, Branch, Report, Stretch
from llmbuffer.report.model import priced
from llmbuffer.usage import Usage

SIZES = (100, 1_000, 10_000)
EVERY = 20  # requests from one break to the next


def run(requests: int) -> Report:
    """A run with a break every twentieth request, four stretches a prompt, and a fork for each hundred requests."""
    price = price_for("claude-sonnet-5.5")
    forks = tuple(
        Branch(id=f"f{number}", name=f"worker-{number}", parent="f0" if number else None)
        for number in range(max(1, requests // 100))
    )
    bars = [priced(_bar(number, forks), price) for number in range(1, requests + 1)]
    return Report(title="size", bars=tuple(bars), branches=forks)


def _bar(number: int, forks: tuple[Branch, ...]) -> Bar:
    broken = CacheBreak(
        "tools-reordered", "tools", 5_000, 1.0, 0.01, "tools[3]", fix=FIXES["tools-reordered"]
    )
    return Bar(
        number=number,
        at=1_790_000_000.0 + number,
        branch=forks[number % len(forks)].id,
        model="claude-sonnet-5.5",
        usage=Usage(20_000 + number, 300, 18_000, 1_500),
        stretches=(
            Stretch("tools", "tools", 3_000),
            Stretch("system", "policy", 9_000),
            Stretch("messages", "history", 7_000 + number),
            Stretch("messages", "new", 1_000),
        ),
        cache_break=broken if number % EVERY == 0 else None,
    )


def main() -> None:
    first: float | None = None
    for requests in SIZES:
        made = run(requests)
        begin = perf_counter()
        size = len(made.html().encode())
        seconds = perf_counter() - begin
        first = first or seconds
        print(
            f"{requests:6,} requests: {size:9,} bytes, {size / requests:7.0f} a request, {seconds / first:6.1f} times the time of {SIZES[0]}"
        )


if __name__ == "__main__":
    main()
