"""What users of LangChain write: the same answers with llmbuffer, nothing changed in observe mode, and what is read."""

from __future__ import annotations

from typing import Any

import pytest
from tests.benchmarks.adapters.langchain import MODELS, run
from tests.integrations.langchain.recorded import CAPTURES, SCENARIOS, bodies_of, matches, prompt_of
from tests.integrations.langchain.scenarios import SCENES, Scene, Ways, group, said_in_group

from llmbuffer.testing.oracle import oracle

GROUP = Scene("three agents", lambda model, ways: group(model, ways, 2), lambda: said_in_group(2))
# Where more is resent than the bound: see the page on LangChain.
RESENT = "dynamic prompt, clock at each call"


@pytest.mark.parametrize(("wire", "model"), MODELS, ids=[name for _, name in MODELS])
@pytest.mark.parametrize("scene", SCENES, ids=[scene.name for scene in SCENES])
def test_the_state_is_the_same_and_little_is_paid_twice(scene: Scene, wire: str, model: str) -> None:
    alone = run(scene, wire, model, Ways())
    buffered = run(scene, wire, model, Ways("buffer", scene.policy, marks=scene.marks))
    assert buffered.kept == alone.kept
    best = oracle(alone.bodies, rounded=True)
    most = 1.15 if scene.name == RESENT and model != "gpt-5.5" else 1.05
    assert buffered.input - buffered.read <= most * best.uncached


MOVES = pytest.mark.moves_prefix(reason="what changes is observed where it stands")
LEARNS = pytest.mark.moves_prefix(reason="text that was seen to change moves once")
MOVING = {
    "agent_context_editing", "agent_dynamic_prompt", "agent_summarization", "agent_wrap_model_call_tail",
    "before_model_window_trim", "rwmh_dynamic_system",
}  # fmt: skip


@pytest.mark.parametrize(
    "scene",
    [
        pytest.param(
            scene, id=scene.name, marks=[] if scene.name in ("parallel tools", "three agents") else [MOVES]
        )
        for scene in [*SCENES, GROUP]
    ],
)
def test_observe_changes_no_byte(scene: Scene) -> None:
    for wire, model in MODELS:
        alone, observed = (run(scene, wire, model, Ways(mode)) for mode in (None, "observe"))
        assert observed.bodies == alone.bodies
        assert [list(body) for body in observed.bodies] == [list(body) for body in alone.bodies], (
            "nor their order"
        )
        assert observed.kept == alone.kept


def test_a_team_shares_its_prefix_and_says_the_same() -> None:
    for wire, model in MODELS:
        alone, team = (run(GROUP, wire, model, Ways(mode)) for mode in (None, "team"))
        assert team.kept == alone.kept
        assert team.read / team.input > 0.75
        assert alone.read / alone.input < 0.5


@pytest.mark.skipif(not CAPTURES.is_file(), reason="the recorded requests are not there: ../shared/captures")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[MOVES] if name in MOVING else []) for name in sorted(SCENARIOS)]
)
def test_a_recorded_scenario_is_observed_byte_for_byte(name: str) -> None:
    alone, observed = (bodies_of(name, Ways(mode)) for mode in (None, "observe"))
    assert [prompt_of(body) for body in observed] == [prompt_of(body) for body in alone]
    assert matches(name, observed), "LangChain sends what was recorded"


LEAST: dict[str, Any] = {
    "agent_dynamic_prompt": 0.76,
    "before_model_window_trim": 0.74,
    "agent_context_editing": 0.78,
    "langgraph_3_agents_shared_messages": 0.75,
}


@pytest.mark.skipif(not CAPTURES.is_file(), reason="the recorded requests are not there: ../shared/captures")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[LEARNS] if name == "agent_dynamic_prompt" else []) for name in sorted(LEAST)],
)
def test_more_of_a_recorded_scenario_could_be_read(name: str) -> None:
    from tests.properties.captures import reusable, split, text_of

    scenario = SCENARIOS[name]
    ways = Ways("team" if scenario.team else "buffer", scenario.policy, marks=scenario.marks)
    assert reusable([text_of(*split(dict(body))) for body in bodies_of(name, ways)]) >= LEAST[name]
