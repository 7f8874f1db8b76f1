"""The ledger and the record of a break."""

from __future__ import annotations

import pytest

from llmbuffer import Ledger, Message, Price, Session, StableContext, Usage
from llmbuffer.breaks import CacheBreak, diagnose
from llmbuffer.cache import Lookup
from llmbuffer.dialects.openai_rules import rules_for
from llmbuffer.ledger import LedgerEntry
from llmbuffer.prices import price_for
from llmbuffer.tokens import EstimateCounter

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


def test_costs_are_split_by_what_was_paid_for() -> None:
    price = Price(input=10, output=50, cache_read=1, cache_write=12.5, cache_write_long=20)
    context = StableContext("my-model", "Be kind.")
    session = Session(context, prices={"my-model": price}, tokens=EstimateCounter())
    usages = [Usage(100_000, 1_000, 0, 80_000, 30_000), Usage(110_000, 2_000, 80_000, 10_000)]
    seen = [session.request("Hello").observe(usage, Message("assistant", "Hi!")) for usage in usages]
    first, second = (each.cost_parts for each in seen)
    assert first is not None
    assert second is not None
    assert first.written == pytest.approx(0.05 * 12.5 + 0.03 * 20)
    assert (first.read, first.fresh, first.output) == pytest.approx((0.0, 0.2, 0.05))
    assert (second.read, second.written, second.fresh, second.output) == pytest.approx(
        (0.08, 0.125, 0.2, 0.1)
    )
    assert [each.cost for each in seen] == [first.total, second.total]
    assert [entry.cost_parts for entry in session.ledger] == [first, second]
    assert session.ledger.cost_parts == first + second
    assert session.ledger.cost == pytest.approx((first + second).total)
    shown = session.ledger.report().splitlines()
    assert shown[-1].endswith(", 1.9800 USD (read 0.0800, written 1.3500, fresh 0.4000, output 0.1500)")
    assert [line.split(" | ")[6].strip() for line in shown[:-1]] == [
        "USD",
        f"{first.total:.4f}",
        f"{second.total:.4f}",
    ]


def test_a_session_without_a_price_has_no_cost() -> None:
    session = Session(StableContext("my-model", "Be kind."), tokens=EstimateCounter())
    seen = session.request("Hello").observe(Usage(100, 1), Message("assistant", "Hi!"))
    assert (seen.cost, seen.cost_parts, session.ledger.cost, session.ledger.cost_parts) == (None,) * 4
    assert "USD" not in session.ledger.report().splitlines()[-1]


def test_a_fork_pays_for_itself() -> None:
    session = Session(StableContext("gpt-5.5", "Be kind."), tokens=EstimateCounter())
    session.request("Hello").observe(Usage(1_000, 10), Message("assistant", "Hi!"))
    fork = session.fork()
    fork.request("And now?").observe(Usage(2_000, 10, 1_024), Message("assistant", "Now."))
    own, other = session.ledger.cost_parts, fork.ledger.cost_parts
    assert own is not None
    assert other is not None
    assert own.read == 0 < other.read
    assert other.read == pytest.approx(1_024 * 0.5 / 1e6)


def test_an_empty_ledger_says_nothing_was_paid() -> None:
    assert (Ledger().requests, Ledger().cost, Ledger().hit_ratio) == (0, None, 0.0)
    assert Ledger().cost_parts is None
