"""The tables of ``llmbuffer replay``."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from ..replay import Agreement, Figures, ReplayResult

__all__ = ["agreement_table", "figures_table", "heading", "notes", "retention_table"]

_WIDE = 132  # columns from which on all figures have a place


def heading(result: ReplayResult) -> str:
    """What was replayed, in a line."""
    noise = f", noise {'+'.join(result.noise)} (seed {result.seed})" if result.noise else ""
    placement = f", placement {result.placement}" if result.noise and result.layout == "buffered" else ""
    small = f", compaction {result.compaction}, window {result.window:,}" if result.compaction else ""
    return f"{result.dialect} {result.model}, layout {result.layout}{noise}{placement}{small}, simulated"


def figures_table(result: ReplayResult, width: int) -> Table:
    """A row for each source and one in all; fewer columns where the terminal is narrow."""
    wide, noise = width >= _WIDE, bool(result.noise)
    if wide:
        titles = ["sessions", "requests", "input", "read", "written", "fresh", "hit", "ceiling", "of ceiling"]
    else:
        titles = ["calls", "input", "hit", "/ceil."]
    if noise:
        titles.append("of oracle" if wide else "/orac.")
    table = _table("source", [*titles, "USD"], wide)
    for source, figures in [*result.rows.items(), ("all", result.total)]:
        table.add_row(source, *(_all_cells if wide else _few_cells)(figures, noise))
    return table


def _table(first: str, titles: list[str], wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=not wide)
    table.add_column(first, no_wrap=True)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _all_cells(figures: Figures, noise: bool) -> list[str]:
    counts = (
        figures.input_tokens,
        figures.cache_read_tokens,
        figures.cache_write_tokens,
        figures.fresh_tokens,
    )
    cells = [f"{count:,}" for count in (figures.sessions, figures.requests, *counts)]
    cells += [f"{figures.hit_ratio:.4f}", f"{figures.ceiling_ratio:.4f}", _share(figures.share_of_ceiling)]
    return [*cells, *_oracle_and_cost(figures, noise)]


def _few_cells(figures: Figures, noise: bool) -> list[str]:
    cells = [f"{figures.requests:,}", _short(figures.input_tokens), f"{figures.hit_ratio:.3f}"]
    return [*cells, _share(figures.share_of_ceiling, 3), *_oracle_and_cost(figures, noise, 3)]


def _oracle_and_cost(figures: Figures, noise: bool, digits: int = 4) -> list[str]:
    cost = "-" if figures.cost_usd is None else f"{figures.cost_usd:,.2f}"
    return [_share(figures.share_of_oracle, digits), cost] if noise else [cost]


def agreement_table(result: ReplayResult, width: int) -> Table:
    """The cache model against what providers reported, for the sources where they did."""
    wide = width >= _WIDE
    if wide:
        titles = ["requests", "read", "predicted", "error", "median error", "within 2 % of input"]
    else:
        titles = ["read", "error", "median", "in 2 %"]
    table = _table("as reported", titles, wide)
    for source, figures in [*result.rows.items(), ("all", result.total)]:
        compared = figures.recorded
        if compared.pairs:
            table.add_row(source, *_compared(compared, wide))
    return table


def retention_table(result: ReplayResult) -> Table:
    """How often something was left out, how much stayed, and what summaries read from the cache."""
    table = _table(
        "compaction", ["times", "kept at end", "on average", "summaries", "read", "over window"], False
    )
    for source, figures in [*result.rows.items(), ("all", result.total)]:
        told = figures.retention
        if told is not None:
            cells = (f"{told.compactions:,}", _share(told.retained_end, 3), _share(told.retained_mean, 3))
            rest = (f"{told.summary_requests:,}", _share(told.summary_read_share, 3), f"{told.over_window:,}")
            table.add_row(source, *cells, *rest)
    return table


def _compared(compared: Agreement, wide: bool) -> list[str]:
    error = "-" if compared.relative_error is None else f"{compared.relative_error:+.2%}"
    cells = [error, f"{compared.median_error_tokens:,.0f}", f"{compared.within_2_percent:.1%}"]
    if not wide:
        return [_short(compared.reported_tokens), *cells]
    counts = (len(compared.pairs), compared.reported_tokens, compared.predicted_tokens)
    return [*(f"{count:,}" for count in counts), *cells]


def notes(result: ReplayResult) -> Iterator[str]:
    """What a reader has to know about the figures."""
    if result.estimated:
        lacks_file = result.dialect == "openai" and result.counter != "o200k_base"
        hint = (
            "; for exact counts set TIKTOKEN_CACHE_DIR, or install llama-index-core, which carries the files"
        )
        yield f"tokens: estimated with {result.counter}{hint if lacks_file else ''}"
    if result.total.shared_sessions is not None:
        yield f"one transcript for all agents: {result.total.shared_sessions:,} of {result.total.sessions:,} recordings"
    if result.total.recorded.pairs:
        yield _left_over(result.total.recorded)
    if "clock" in result.noise and result.layout == "buffered":
        yield "clock: as of the turn's begin"


def _left_over(compared: Agreement) -> str:
    left = compared.left_over
    return (
        f"as reported, beyond 2 %: the provider read less than predicted in {left['read_less']:,} calls, nothing at all in "
        f"{left['read_nothing']:,}; more in {left['read_more']:,}, from what others had sent. "
        f"{left['expired_agreed']:,} of {left['expired']:,} predicted expiries were misses"
    )


def _share(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _short(count: int) -> str:
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if count >= 10 * size:
            return f"{count / size:,.1f}{unit}"
    return f"{count:,}"
