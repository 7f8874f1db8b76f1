"""Advice on the order of segments and on pauses."""

from __future__ import annotations

from itertools import permutations, product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuffer import Price, Segment, StableContext, get_dialect
from llmbuffer.advice import advise_idle, advise_order
from llmbuffer.errors import LedgerError

CLAUDE = get_dialect("anthropic").bind("claude-opus-4.5").rules
PREFIX = get_dialect("openai").bind("gpt-5.5").rules
ENGINE = get_dialect("llamacpp").rules


def history(rates: list[float], lengths: list[int], steps: int, seed: int) -> list[list[Segment]]:
    """Segments of so many tokens, each of which changes at a rate of its own."""
    draw, version = Random(seed), [0] * len(rates)
    seen = []
    for _ in range(steps):
        version = [each + (draw.random() < rate) for each, rate in zip(version, rates, strict=True)]
        names = zip("abcdefgh", version, lengths, strict=False)
        seen.append([Segment(name, f"{number:04}" * length) for name, number, length in names])
    return seen


def rebilled(order: tuple[str, ...], changes: dict[str, float], tokens: dict[str, int]) -> float:
    """Expected tokens behind the first change, by all cases of what changes."""
    whole = 0.0
    for case in product((False, True), repeat=len(order)):
        chance = 1.0
        for name, changed in zip(order, case, strict=True):
            chance *= changes[name] if changed else 1 - changes[name]
        first = case.index(True) if True in case else len(case)
        whole += chance * sum(tokens[name] for name in order[first:])
    return whole


@given(
    rates=st.lists(st.floats(0, 1), min_size=2, max_size=4),
    lengths=st.lists(st.integers(1, 50), min_size=4, max_size=4),
    seed=st.integers(0, 1000),
)
def test_no_other_order_of_one_level_bills_less_again(
    rates: list[float], lengths: list[int], seed: int
) -> None:
    seen = history(rates, lengths, 12, seed)
    advice = advise_order(seen)
    changes, tokens = dict(advice.changes), dict(zip("abcd", lengths, strict=True))
    costs = {order: rebilled(order, changes, tokens) for order in permutations(advice.current)}
    assert costs[advice.order] == pytest.approx(min(costs.values()))
    assert advice.rebilled == pytest.approx(costs[advice.order])
    assert advice.rebilled_now == pytest.approx(costs[advice.current])
    assert advice.rebilled <= advice.rebilled_now + 1e-9


def test_levels_come_first() -> None:
    seen = [
        StableContext(
            "gpt-5.5",
            [Segment("date", f"Day {day}.", level="global"), Segment("user", "Ada. " * 100, level="user")],
        )
        for day in range(5)
    ]
    advice = advise_order(seen)
    assert advice.order == ("date", "user")
    assert not advice.better
    assert advice.sentence == "the order of the segments costs least as it is"


def test_a_segment_that_comes_and_goes_changes() -> None:
    policy, hint = Segment("policy", "Be kind. " * 50), Segment("hint", "Be brief. " * 50)
    advice = advise_order([[hint, policy], [policy], [hint, policy], [policy]])
    assert advice.changes == {"policy": 0.0, "hint": 1.0}
    assert advice.order == ("policy", "hint")


def test_dynamic_text_has_no_part_in_it_and_a_counter_may_be_given() -> None:
    seen = [[Segment("b", time), Segment("a", "x" * 9), Segment("now", time, level="turn")] for time in "123"]
    advice = advise_order(seen, count=len)
    assert advice.order == ("a", "b")
    assert (advice.rebilled, advice.rebilled_now) == (1.0, 10.0)
    assert "a, b" in advice.sentence


@pytest.mark.parametrize("seen", [[], [[Segment("a", "x")]]])
def test_one_context_shows_no_change(seen: list[list[Segment]]) -> None:
    with pytest.raises(LedgerError, match=f"{len(seen)} contexts"):
        advise_order(seen)


def simulated(gaps: list[float], policy: str, prefix: int, most: float) -> float:
    """The cost of the prefix under a policy, request by request, in tokens at input price."""
    ttl = 3_600.0 if policy == "long" else 300.0
    write = {"long": 2.0, "let-expire": 1.0}.get(policy, 1.25)
    paid = write * prefix
    for gap in gaps:
        left, pings = gap, 0
        while policy == "keep-alive" and 300.0 < gap <= most and left > 300.0:
            pings, left = pings + 1, left - 270.0
        alive = left <= ttl and policy != "let-expire"
        paid += (pings * 0.1 + (0.1 if alive else write)) * prefix
    return paid


@given(st.lists(st.floats(0, 20_000), min_size=1, max_size=30))
def test_the_costs_of_pauses_are_those_of_a_simulation(gaps: list[float]) -> None:
    advice = advise_idle(gaps, CLAUDE, prefix_tokens=5_000)
    for policy, cost in advice.costs.items():
        assert cost == pytest.approx(simulated(gaps, policy, 5_000, advice.break_even)), policy
    assert advice.costs[advice.policy] == min(advice.costs.values())


def test_reading_pays_up_to_the_break_even() -> None:
    at = advise_idle([1.0], CLAUDE).break_even
    assert (
        at == 300 + 11 * 270
    )  # (1.25 - 0.1) / 0.1 = 11.5 reads cost as much as writing in place of one more
    within, beyond = advise_idle([at], CLAUDE), advise_idle([at + 1], CLAUDE)
    assert within.costs["keep-alive"] < within.costs["short"]
    assert within.pings == 11
    assert beyond.costs["keep-alive"] == beyond.costs["short"]
    assert beyond.pings == 0


@pytest.mark.parametrize(
    ("rules", "gap", "policy"),
    [
        (CLAUDE, 60.0, "short"),
        (CLAUDE, 1_200.0, "long"),
        (CLAUDE, 86_400.0, "let-expire"),
        (PREFIX, 60.0, "short"),
        (PREFIX, 600.0, "keep-alive"),
        (PREFIX, 86_400.0, "let-expire"),
        (ENGINE, 86_400.0, "short"),
    ],
)
def test_the_cheapest_policy(rules: object, gap: float, policy: str) -> None:
    assert advise_idle([gap] * 20, rules).policy == policy  # type: ignore[arg-type]  # rows of rules


def test_a_price_takes_the_place_of_the_rules() -> None:
    price = Price(input=10, output=50, cache_read=1, cache_write=12.5, cache_write_long=20)
    advice = advise_idle([60.0] * 9, CLAUDE, price, 100_000)
    assert advice.in_usd
    assert advice.costs["short"] == pytest.approx(1.25 + 9 * 0.1)
    assert "USD" in advice.sentence


def test_a_prefix_below_the_minimum_is_not_worth_a_thought() -> None:
    assert advise_idle([60.0], CLAUDE, prefix_tokens=4_095).policy == "let-expire"
    assert advise_idle([60.0], CLAUDE, prefix_tokens=4_096).policy == "short"


@pytest.mark.parametrize("gaps", [[], [-1.0], [float("nan")], [float("inf")]])
def test_gaps_that_are_none(gaps: list[float]) -> None:
    with pytest.raises(LedgerError, match="seconds between requests"):
        advise_idle(gaps, CLAUDE)
