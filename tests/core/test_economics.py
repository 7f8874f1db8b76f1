"""When a compaction pays: the single-step test, the limits, the figures of a decision and the horizon."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from llmbuffer import get_dialect
from llmbuffer.compaction import schedule
from llmbuffer.compaction.economics import Cut, Outlook, Terms, decide, spread, worth_asking
from llmbuffer.compaction.horizon import Horizon
from llmbuffer.errors import CompactionError
from llmbuffer.prices import price_for

tokens = st.integers(1, 60_000)
terms = st.builds(
    Terms,
    read=st.sampled_from((0.025, 0.1, 0.25, 0.5)),
    write=st.sampled_from((1.0, 1.25, 2.0)),
    output=st.sampled_from((4.0, 8.0)),
)


def elide(kept: int, left: int, **more: Any) -> Cut:
    return Cut(action="elide", kept=kept, left=left, **more)


@given(
    terms, tokens, tokens, st.floats(0, 0.99), st.integers(0, 60), st.sampled_from((0, 800)), st.booleans()
)
def test_the_saving_has_the_sign_of_the_single_step_test(
    terms: Terms, head: int, before: int, share: float, remaining: int, making: int, warm: bool
) -> None:
    after = int(before * share)
    prompt, idle = head + before, 0.0 if warm else None
    cut = elide(head, after, making=making)
    found = decide(Outlook(prompt=prompt, cuts=(cut,), terms=terms, remaining=remaining, idle=idle))
    made = making and terms.output * making + prompt * (terms.read if warm else 1)
    if warm:
        needed = (terms.write * after - terms.read * before + made) / (terms.read * (before - after))
        margin = remaining - needed
    else:
        margin = (terms.write + remaining * terms.read) * (before - after) - made
    assume(abs(margin) > 1e-6)
    assert (found.saving > 0) == (margin > 0)
    if warm:
        assert found.break_even == pytest.approx(max(0.0, needed), abs=1e-6)
    if margin < 0:
        assert not found.compact, "necessary, if not sufficient"


@given(
    terms,
    st.integers(0, 3000),
    st.sampled_from((0, 1024, 4096)),
    st.integers(0, 900),
    st.integers(0, 40),
)
def test_requests_in_a_row_cost_what_they_cost_one_by_one(
    terms: Terms, held: int, minimum: int, growth: int, count: int
) -> None:
    priced = Terms(read=terms.read, write=terms.write, minimum=minimum)
    one_by_one = sum(
        priced.prompt(held + growth * index, held + growth * (index + 1)) for index in range(count)
    )
    assert priced.requests(held, growth, count) == pytest.approx(one_by_one)


@pytest.mark.parametrize(
    ("dialect", "model", "long", "expected"),
    [
        ("anthropic", "claude-sonnet-4.5", False, (0.1, 1.25, 5.0, 1024, 1)),
        ("anthropic", "claude-sonnet-4.5", True, (0.1, 2.0, 5.0, 1024, 1)),
        ("openai", "gpt-5.5", False, (0.1, 1.0, 6.0, 1024, 128)),
        ("openai", "gpt-4o", False, (0.5, 1.0, 4.0, 1024, 128)),
        ("openai", "gpt-5.6", False, (0.1, 1.25, 5.0, 1024, 1)),
    ],
)
def test_terms_come_from_the_rules_and_the_prices(
    dialect: str, model: str, long: bool, expected: tuple[float, ...]
) -> None:
    price = price_for(model)
    assert price is not None
    found = Terms.of(get_dialect(dialect).bind(model).rules, price, long=long)
    assert (found.read, found.write, found.output, found.minimum, found.step) == pytest.approx(expected)
    assert found.dollars == pytest.approx(price.input / 1e6)
    without = Terms.of(get_dialect(dialect).bind(model).rules, long=long)
    assert (without.read, without.write) == pytest.approx((found.read, found.write))
    assert without.dollars is None


def test_nothing_is_cut_down_to_the_target() -> None:
    cut = elide(1000, 100)
    found = decide(Outlook(prompt=9_000, cuts=(cut,), remaining=1_000, target=10_000))
    assert (found.compact, found.cut, found.again) == (False, None, 1_000)
    assert decide(Outlook(prompt=10_001, cuts=(cut,), remaining=1_000, target=10_000)).compact


def test_a_cut_goes_down_to_the_target_if_any_can() -> None:
    cheap, deep = elide(16_000, 500), elide(2_000, 9_000)
    found = decide(Outlook(prompt=20_000, cuts=(cheap, deep), remaining=8))
    assert (found.compact, found.cut) == (True, cheap)
    lower = decide(Outlook(prompt=20_000, cuts=(cheap, deep), remaining=60, target=12_000))
    assert (lower.compact, lower.cut) == (True, deep)


def test_a_cut_that_misses_the_target_takes_out_a_fifth_or_has_to_be() -> None:
    small, fifth = elide(2_000, 16_000), elide(2_000, 14_000)
    outlook = Outlook(
        prompt=20_000, cuts=(small,), growth=100, remaining=500, target=12_000, max_tokens=24_000
    )
    refused = decide(outlook)
    assert (refused.compact, refused.cut) == (False, small)
    assert refused.why == "no cut reaches the target of 12000 tokens or takes out 20% of the prompt"
    assert decide(replace(outlook, cuts=(small, fifth))).cut == fifth
    assert decide(replace(outlook, cuts=(small, fifth))).compact
    assert decide(replace(outlook, target=0)).compact, "without a target any cut will do"
    forced = decide(replace(outlook, max_tokens=19_000))
    assert (forced.compact, forced.fits, forced.cut) == (True, True, small)


def test_a_cold_cache_is_the_moment_to_cut() -> None:
    cuts = (elide(2_000, 9_000),)
    figures: dict[str, Any] = {"prompt": 20_000, "cuts": cuts, "remaining": 3, "ttl": 300.0}
    warm, cold, first = (decide(Outlook(**figures, idle=idle)) for idle in (299.0, 300.0, None))
    assert (warm.compact, cold.compact, first.compact) == (False, True, True)
    assert cold.cost_now < 0 < warm.cost_now
    assert (cold.break_even, cold == first) == (0.0, True)


def test_waiting_can_be_better_than_a_cut_that_pays() -> None:
    # What comes next can go into the summary as well, and each one costs a call.
    cut = Cut(action="summary", kept=2_000, left=1_500, making=500)
    outlook = Outlook(prompt=20_000, cuts=(cut,), growth=5_000, protected=500, remaining=5)
    found = decide(outlook)
    assert found.saving > 0
    assert not found.compact
    assert "begins in" in found.why


def test_a_request_that_does_not_fit_gets_the_cheapest_cut_that_does() -> None:
    small, large = elide(90_000, 14_000), elide(4_000, 40_000)
    outlook = Outlook(prompt=110_000, cuts=(small, large), remaining=0, max_tokens=108_000, reserve=4_000)
    found = decide(outlook)
    assert (found.compact, found.forced, found.fits, found.cut) == (True, True, True, small)
    tight = decide(Outlook(prompt=110_000, cuts=(small, large), max_tokens=100_000, reserve=4_000))
    assert (tight.cut, tight.fits) == (large, True)


def test_a_forced_cut_that_soon_overflows_again_is_not_the_cheapest() -> None:
    small, large = elide(90_000, 13_900), elide(4_000, 40_000)
    outlook = Outlook(prompt=110_000, cuts=(small, large), growth=2_000, remaining=30, max_tokens=104_000)
    assert decide(outlook).cut == large
    assert decide(replace(outlook, remaining=0)).cut == small


def test_what_loses_most_is_taken_last() -> None:
    drop = Cut(action="truncate", kept=3_000, left=5_000, last_resort=True)
    clip = elide(3_000, 40_000)
    assert decide(Outlook(prompt=60_000, cuts=(drop,), remaining=99)).compact is False
    assert decide(Outlook(prompt=60_000, cuts=(drop, clip), max_tokens=50_000)).cut == clip
    assert decide(Outlook(prompt=60_000, cuts=(drop, clip), max_tokens=20_000)).cut == drop
    found = decide(Outlook(prompt=60_000, cuts=(drop, clip), max_tokens=7_000))
    assert (found.compact, found.cut, found.fits) == (True, drop, False)


def test_what_no_request_carried_yet_is_not_read_from_the_cache() -> None:
    cut = elide(9_500, 100)
    found = decide(Outlook(prompt=10_000, new=1_000, cuts=(cut,)))
    assert found.cost_now == pytest.approx(600 * 1.25 - 1_000 * 1.25)


def test_without_cuts_there_is_nothing_to_do() -> None:
    assert decide(Outlook(prompt=500)).why == "no cut makes the prompt smaller"
    found = decide(Outlook(prompt=500, cuts=(elide(400, 200),), max_tokens=300))
    assert (found.compact, found.forced, found.fits, found.after) == (False, True, False, 500)


def test_the_figures_of_a_preview() -> None:
    cut = Cut(action="summary", kept=2_000, left=1_000, making=500)
    priced = Terms(read=0.1, write=1.25, output=5.0, dollars=2e-6)
    found = decide(Outlook(prompt=40_000, new=1_000, cuts=(cut,), terms=priced, remaining=20))
    assert (found.before, found.after, found.remaining) == (40_000, 3_000, 20)
    made = 500 * 5 + 40_000 * 0.1
    now = made + 2_000 * 0.1 + 1_000 * 1.25 - (39_000 * 0.1 + 1_000 * 1.25)
    assert found.cost_now == pytest.approx(now)
    assert found.saving == pytest.approx(20 * 37_000 * 0.1 - now)
    assert found.break_even == pytest.approx(now / 3_700)
    assert (found.cost_now_usd, found.saving_usd) == pytest.approx((now * 2e-6, found.saving * 2e-6))
    assert decide(Outlook(prompt=40_000, cuts=(cut,), remaining=20)).saving_usd is None


@given(
    terms,
    st.integers(1, 50_000),
    st.integers(0, 5_000),
    st.integers(0, 5_000),
    st.integers(0, 30),
    st.data(),
)
def test_no_cut_pays_where_it_is_not_worth_asking(
    terms: Terms, older: int, protected: int, new: int, remaining: int, data: st.DataObject
) -> None:
    protected = max(protected, new)
    prompt = older + protected
    removable = data.draw(st.integers(1, older))
    figures: dict[str, Any] = {"prompt": prompt, "new": new, "protected": protected, "terms": terms}
    if not worth_asking(Outlook(**figures, remaining=remaining), removable):
        removed = data.draw(st.integers(1, removable))
        kept = data.draw(st.integers(0, older - removed))
        cut = elide(kept, prompt - removed - kept)
        assert not decide(Outlook(**figures, remaining=remaining, cuts=(cut,))).compact


@given(terms, st.integers(1, 30_000), st.floats(0.3, 0.99), st.integers(0, 30), st.data())
def test_a_no_stands_until_the_prompt_has_grown(
    terms: Terms, older: int, share: float, remaining: int, data: st.DataObject
) -> None:
    figures: dict[str, Any] = {"terms": terms, "remaining": remaining, "growth": 100.0}
    found = decide(Outlook(prompt=5_000 + older, cuts=(elide(5_000, int(older * share)),), **figures))
    if not found.compact and found.again:
        grown = data.draw(st.integers(0, found.again))
        # At worst all that is added can be taken out at once.
        cut = elide(5_000, int(older * share))
        assert not decide(Outlook(prompt=5_000 + older + grown, cuts=(cut,), **figures)).compact


@pytest.mark.parametrize(("cuts", "remaining"), [(32, 100), (5_000, 100), (32, 100_000), (5_000, 100_000)])
def test_the_work_of_a_decision_is_bounded(
    monkeypatch: pytest.MonkeyPatch, cuts: int, remaining: int
) -> None:
    planned: list[int] = []
    unseen = schedule._Course._again

    def again(course: schedule._Course, index: int, later: int) -> float:
        planned.append(later)
        return unseen(course, index, later)

    monkeypatch.setattr(schedule._Course, "_again", again)
    found = tuple(elide(5_000 + index, 300_000 - 2 * index) for index in range(cuts))
    decide(Outlook(prompt=500_000, cuts=found, growth=700, remaining=remaining))
    assert 0 < len(planned) <= 9 * 20 * 19 / 2


@given(st.lists(st.integers(0, 9), min_size=1, max_size=200), st.integers(2, 40))
def test_cut_points_are_few_and_reach_both_ends(steps: list[int], limit: int) -> None:
    points = [sum(steps[: index + 1]) for index in range(len(steps))]
    found = spread(points, limit)
    assert len(found) <= limit
    assert found == sorted(set(found))
    assert points[found[0]] == points[0]
    assert points[found[-1]] == points[-1]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Outlook(prompt=-1), "'prompt' is -1: give a finite number"),
        (lambda: Outlook(prompt=5, growth=math.inf), "'growth' is inf"),
        (lambda: Outlook(prompt=5, new=6), "'new' is 6, more than the prompt of 5"),
        (lambda: Outlook(prompt=5, max_tokens=4, reserve=4), "no room is left for a prompt"),
        (lambda: Terms(read=-0.1), "'read' is -0.1: give a finite number"),
        (lambda: Terms(step=0), "'step' is 0: give 1 or more"),
        (lambda: elide(-1, 4), "has a negative number of tokens"),
        (lambda: elide(1, 4, residue=1.5), "'residue' is 1.5: give a share"),
        (lambda: Horizon(quantile=1.0), "'quantile' is 1.0: give a fraction"),
        (lambda: Horizon.of(-3), "the horizon is -3: give 0 or more requests"),
        (lambda: Horizon.of("long"), "the horizon is 'long': give 'auto'"),  # type: ignore[arg-type]
        (lambda: Horizon().observe(0), "a session of 0 requests: give 1 or more"),
    ],
)
def test_figures_that_make_no_sense_are_refused(make: Any, told: str) -> None:
    with pytest.raises(CompactionError) as caught:
        make()
    assert told in str(caught.value)


def test_the_prior_gives_way_to_what_is_learnt() -> None:
    learnt = Horizon()
    for _ in range(100):
        learnt = learnt.observe(200)
    assert learnt.remaining(0) == 199
    assert learnt.remaining(150) == 49
    assert Horizon().remaining(0) < 40
    assert len(Horizon((1,) * 300).observe(2).finished) == 256


@given(st.lists(st.integers(1, 400), max_size=60), st.integers(0, 2_000))
def test_a_longer_quantile_expects_more_and_a_hint_wins(totals: list[int], seen: int) -> None:
    expected = [Horizon(tuple(totals), quantile).remaining(seen) for quantile in (0.1, 0.35, 0.6, 0.9)]
    assert expected == sorted(expected)
    assert all(value >= 0 for value in expected)
    assert Horizon(tuple(totals), hint=7).remaining(seen) == 7


def test_the_requests_so_far_are_not_the_horizon() -> None:
    horizon = Horizon()
    assert horizon.remaining(300) == horizon.remaining(3_000) < 60
