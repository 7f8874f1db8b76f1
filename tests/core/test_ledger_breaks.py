"""The ledger and the record of a break."""

from __future__ import annotations

import pytest

from llmbuffer import Ledger, Lookup, Usage
from llmbuffer.breaks import CacheBreak, diagnose
from llmbuffer.dialects.openai_rules import rules_for
from llmbuffer.ledger import LedgerEntry
from llmbuffer.prices import price_for

RULES = rules_for("gpt-5.6")
PRICE = price_for("gpt-5.6")


def lookup(read: int, warm: int, outcome: str) -> Lookup:
    return Lookup(read, 0, 0, 10_000 - read, warm, outcome)  # type: ignore[arg-type]  # the outcomes are the test's rows


@pytest.mark.parametrize(
    ("outcome", "read", "reported", "cause", "lost"),
    [
        ("expired", 0, 0, "expired", 8_000),
        ("not-yet-visible", 0, 0, "not-yet-visible", 8_000),
        ("lookback-exceeded", 2_000, 2_000, "lookback-exceeded", 6_000),
        ("hit", 8_000, 0, "evicted-or-routed", 8_000),
        ("hit", 8_000, 5_000, "evicted-or-routed", 3_000),
    ],
)
def test_what_a_warm_cache_would_have_read_is_a_break(
    outcome: str, read: int, reported: int, cause: str, lost: int
) -> None:
    found = diagnose(lookup(read, 8_000, outcome), Usage(10_000, 1, reported), RULES, PRICE)
    assert found is not None
    assert (found.cause, found.tokens_lost) == (cause, lost)
    assert found.cost == pytest.approx(lost * 4.0 * 0.9 / 1e6)


@pytest.mark.parametrize(
    ("warm", "reported", "counted_as"),
    [(8_000, 8_000, 10_000), (8_000, 7_700, 10_000), (0, 0, 10_000), (8_000, 9_600, 12_000)],
)
def test_a_hit_within_the_tolerance_of_counting_is_none(warm: int, reported: int, counted_as: int) -> None:
    assert diagnose(lookup(warm, warm, "hit"), Usage(counted_as, 1, reported), RULES, PRICE) is None


def test_a_tokenizer_that_counts_otherwise_is_no_break() -> None:
    # The provider counts 30 % more tokens than we do, and reads the same share of the prompt.
    assert diagnose(lookup(8_000, 8_000, "hit"), Usage(13_000, 1, 10_400), RULES, PRICE) is None
    assert diagnose(lookup(8_000, 8_000, "hit"), Usage(13_000, 1, 8_000), RULES, PRICE) is not None


def test_the_ledger_sums_what_was_reported() -> None:
    ledger = Ledger()
    ledger.add(LedgerEntry(at=0, epoch=0, usage=Usage(1_000, 10, 0, 900), cost=0.5))
    ledger.add(LedgerEntry(at=1, epoch=1, kind="thawed", reason="new tools"))
    ledger.add(LedgerEntry(at=2, epoch=1, usage=Usage(1_000, 10, 900), cost=0.25))
    ledger.add(LedgerEntry(at=3, epoch=1, cache_break=CacheBreak("unreported", "messages", 0, 0.0)))
    assert (ledger.requests, len(ledger), ledger.cost) == (3, 4, 0.75)
    assert ledger.hit_ratio == 0.45
    assert [found.cause for found in ledger.breaks] == ["unreported"]
    assert ledger[-1].forecast.input_tokens == 0


def test_the_ledger_is_shown_as_a_table() -> None:
    ledger = Ledger()
    ledger.add(LedgerEntry(at=0, epoch=0, usage=Usage(1_000, 10, 900)))
    ledger.add(LedgerEntry(at=0, epoch=0, kind="thawed", reason="<b>new</b>"))
    assert "0.900" in ledger.report()
    assert ledger.report().splitlines()[-1] == "1 requests, 1,000 tokens in, hit ratio 0.900"
    assert "&lt;b&gt;new" in ledger._repr_html_()


def test_an_empty_ledger_says_nothing_was_paid() -> None:
    assert (Ledger().requests, Ledger().cost, Ledger().hit_ratio) == (0, None, 0.0)
