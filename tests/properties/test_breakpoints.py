"""The planner of breakpoints is within 2 % of the best static choice on every one of 300 random workloads."""

from __future__ import annotations

import pytest
from tests.properties.breakpoints import MEAN_MIXED, MODELS, WORST_PLAIN, compare, summary


@pytest.mark.parametrize("model", MODELS)
def test_the_planner_is_close_to_the_best_static_choice(model: str) -> None:
    found = [compare(seed, model) for seed in range(300)]
    assert len({outcome.best for outcome in found}) > 10  # the workloads differ in what is best for them
    assert [outcome for outcome in found if outcome.excess > WORST_PLAIN] == []


@pytest.mark.parametrize("model", MODELS)
def test_with_tools_dynamic_text_and_expiry_it_is_so_on_average(model: str) -> None:
    found = summary([compare(seed, model, "mixed") for seed in range(100)])
    assert found["mean_excess"] < MEAN_MIXED
