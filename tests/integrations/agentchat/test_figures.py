"""What the benchmark shows is what was promised; on recorded texts where they are there, and on long ones (simulated)."""

from __future__ import annotations

import pytest
from tests.benchmarks.adapters import autogen_agentchat as benchmark
from tests.benchmarks.adapters.agentchat_texts import CAPTURES

MOVES = pytest.mark.moves_prefix(
    reason="a selector's first prompts are sent before its team's prefix is known"
)
FLOORS = {
    ("round_robin_3_agents", "team"): 0.75,
    ("selector_group_chat", "buffer"): 0.44,
    ("selector_group_chat", "team"): 0.75,
    ("assistant_tools_reflect", "buffer"): 0.76,
    ("buffered_context", "buffer"): 0.733,
}


@pytest.mark.moves_prefix(reason="a selector's first prompts are sent before its team's prefix is known")
def test_the_recorded_scenarios_reach_their_floors() -> None:
    if not CAPTURES.is_file():
        pytest.skip("no recorded requests here")
    rows = {(row.scenario, row.mode): row for row in benchmark.captured_rows(None)}
    assert {key: rows[key].hit_ratio >= floor for key, floor in FLOORS.items()} == dict.fromkeys(FLOORS, True)
    defaults = {name: round(row.hit_ratio, 2) for (name, mode), row in rows.items() if mode == "default"}
    assert defaults == {
        "round_robin_3_agents": 0.41,
        "selector_group_chat": 0.29,
        "assistant_tools_reflect": 0.57,
        "buffered_context": 0.61,
    }


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[MOVES] if name.startswith("selector") else [])
        for name in benchmark.SCENARIOS
    ],
)
def test_long_scripts_stay_near_the_oracle(name: str) -> None:
    best = "team" if "team" in benchmark.MODES[name] else "buffer"
    rows = [row for row in benchmark.long_rows(name) if row.mode == best]
    assert len(rows) == len(benchmark.MODELS)
    assert {row.model: row.times for row in rows if row.times is None or row.times > 1.05} == {}


def test_four_teams_share_one_cold_write() -> None:
    forks = list(benchmark.fork_rows())
    assert [(fork["cold"], fork["teams_that_read"]) for fork in forks] == [(1, 4)] * len(benchmark.MODELS)
    assert all(fork["shared_tokens"] >= 2_900 for fork in forks)
