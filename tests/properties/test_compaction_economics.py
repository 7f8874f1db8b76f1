"""The planner of compactions against exhaustive search, on few sessions; `python -m tests.properties.compaction` takes many."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.properties.compaction import BOUND, WAYS, compare, mean, never, run
from tests.properties.cutting import (
    RULES,
    Option,
    Rule,
    Session,
    State,
    beginning,
    best,
    fits,
    generated,
    options,
    price,
)
from tests.properties.horizon import measured, sessions

from llmbuffer.compaction.economics import Terms
from llmbuffer.compaction.horizon import Horizon

TRACES = Path(__file__).resolve().parents[3] / "shared" / "traces"
SESSIONS = 5


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_planner_is_close_to_the_cheapest_schedule(way: str, rule: Rule) -> None:
    found = [compare(seed, rule, way, steady=True) for seed in range(SESSIONS)]
    assert mean([one for one in found if one is not None], "known") <= BOUND


@pytest.mark.parametrize("way", WAYS)
def test_the_planner_is_as_good_as_a_search_that_knows_as_much(way: str) -> None:
    found = [one for seed in range(SESSIONS) if (one := compare(seed, RULES[0], way, steady=False))]
    assert mean(found, "expected") <= BOUND
    assert mean(found, "rarely") <= mean(found, "known") + BOUND


@dataclass
class Everything:
    """Every schedule there is, one after the other: what the search of ``cutting.best`` must agree with."""

    session: Session
    lowest: float = float("inf")

    def go(self, request: int, state: State, spent: float) -> None:
        if request == self.session.requests:
            self.lowest = min(self.lowest, spent)
            return
        found: list[Option] = list(options(self.session, request, state))
        for option in found:
            if fits(self.session, option):
                warm = self.session.warm or request > 0
                cost = price(self.session, option, found[0].kept + found[0].left, warm=warm)
                self.go(request + 1, option.state, spent + cost)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(8))
def test_the_reference_is_the_cheapest_of_all_schedules(way: str, seed: int) -> None:
    kind, making = WAYS[way]
    session = generated(random.Random(seed), RULES[seed], kind, making=making)
    session = session._replace(blocks=session.blocks[: session.start + 5])
    everything = Everything(session)
    everything.go(0, beginning(session), 0.0)
    lowest, cuts = best(session)
    assert lowest == pytest.approx(everything.lowest)
    assert lowest <= run(session, never)[0]
    assert len(cuts) == (5 if lowest < float("inf") else 0)


@given(st.sampled_from(RULES), st.integers(0, 20_000), st.integers(0, 5_000))
def test_both_price_a_prompt_alike(rule: Rule, kept: int, left: int) -> None:
    session = Session(rule, "elide", 0, (), 0, 0.0)
    terms = Terms(read=rule.read, write=rule.write, output=rule.output, minimum=rule.minimum, step=rule.step)
    expected = price(session, Option(None, kept, left, 0, ()), 0, warm=True)
    assert terms.prompt(kept, kept + left) == pytest.approx(expected)


def test_a_horizon_holds_as_often_as_it_says_on_recorded_sessions() -> None:
    path = TRACES / "blocks_claudecode_weka.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no recordings at {path}")
    found = list(sessions(path))
    for quantile in (0.25, 0.5):
        held, _ = measured(found, quantile)
        assert held == pytest.approx(1 - quantile, abs=0.05)
    lengths = sorted(count for _, count, _, _ in found)
    alive = [length - 41 for length in lengths if length > 40]
    assert Horizon(tuple(lengths)).remaining(40) == pytest.approx(alive[int(0.35 * len(alive))], abs=3)
