"""The tables of ``llmbuffer replay``."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from ..replay import Figures, ReplayResult

__all__ = ["agreement_table", "figures_table", "heading", "notes"]

_WIDE = 110  # columns from which on all figures have a place


def heading(result: ReplayResult) -> str:
    """What was replayed, in a line."""
    noise = f", noise {'+'.join(result.noise)} (seed {result.seed})" if result.noise else ""
    placement = f", placement {result.placement}" if result.noise and result.layout == "buffered" else ""
    return f"{result.dialect} {result.model}, layout {result.layout}{noise}{placement}, simulated"


def figures_table(result: ReplayResult, width: int) -> Table:
    """A row for each source and one in all; fewer columns where the terminal is narrow."""
    wide, noise = width >= _WIDE, bool(result.noise)
    titles = ["sessions", "requests", "input", "read", "written", "fresh"] if wide else ["requests", "input"]
    titles += ["hit", "ceiling", "of ceiling"] if wide else ["hit", "of ceil."]
    titles += (["of oracle"] if wide else ["of orac."]) if noise else []
    table = Table("source", box=None, pad_edge=False, padding=(0, 1))
    for title in [*titles, "USD"]:
        table.add_column(title, justify="right", no_wrap=True)
    rows = [*result.rows.items(), ("all", result.total)]
    for source, figures in rows:
        table.add_row(source, *_cells(figures, wide, noise), end_section=source == "all")
    return table


def _cells(figures: Figures, wide: bool, noise: bool) -> Iterator[str]:
    counts = (figures.input_tokens, figures.cache_read_tokens, figures.cache_write_tokens, figures.fresh_tokens)
    if wide:
        yield f"{figures.sessions:,}"
    yield f"{figures.requests:,}"
    yield from (f"{count:,}" for count in counts) if wide else (_short(figures.input_tokens),)
    yield f"{figures.hit_ratio:.4f}"
    if wide:
        yield f"{figures.ceiling_ratio:.4f}"
    yield _share(figures.share_of_ceiling)
    if noise:
        yield _share(figures.share_of_oracle)
    yield "-" if figures.cost_usd is None else f"{figures.cost_usd:,.2f}"


def agreement_table(result: ReplayResult, width: int) -> Table:
    """The cache model against what providers reported."""
    wide = width >= _WIDE
    table = Table("reported by provider", box=None, pad_edge=False, padding=(0, 1))
    titles = ["requests", "read", "predicted", "error", "median", "within 2 %"] if wide else ["read", "error", "med.", "in 2 %"]
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for source, figures in [*result.rows.items(), ("all", result.total)]:
        compared = figures.recorded
        if not compared.pairs:
            continue
        error = "-" if compared.relative_error is None else f"{compared.relative_error:+.2%}"
        cells = [error, f"{compared.median_error_tokens:,.0f}", f"{compared.within_2_percent:.1%}"]
        counts = [compared.reported_tokens, compared.predicted_tokens]
        if wide:
            table.add_row(source, f"{len(compared.pairs):,}", *(f"{count:,}" for count in counts), *cells)
        else:
            table.add_row(source, _short(compared.reported_tokens), *cells)
    return table


def notes(result: ReplayResult) -> Iterator[str]:
    """What a reader has to know about the figures."""
    if result.estimated:
        yield f"tokens: estimated with {result.counter}"
    if "clock" in result.noise and result.layout == "buffered":
        yield "clock: as of the turn's begin"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _short(count: int) -> str:
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if count >= 10 * size:
            return f"{count / size:,.1f}{unit}"
    return f"{count:,}"
