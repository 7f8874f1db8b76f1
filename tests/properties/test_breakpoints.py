"""The planner of breakpoints is within 2 % of the best static choice on every one of 300 random workloads."""

from __future__ import annotations

import pytest
from tests.properties.breakpoints import compare


@pytest.mark.parametrize("model", ["claude-sonnet-4.5", "gpt-5.6"])
def test_the_planner_is_close_to_the_best_static_choice(model: str) -> None:
    found = [compare(seed, model) for seed in range(300)]
    assert len({outcome.best for outcome in found}) > 10  # the workloads differ in what is best for them
    assert [outcome for outcome in found if outcome.excess > 0.02] == []
