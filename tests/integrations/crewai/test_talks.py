"""Conversations of one agent, summaries, forks, and the package itself."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from crewai import Agent
from tests.benchmarks.adapters.crewai import Script, buffered_crew, search_recipes
from tests.integrations.crewai.kitchen import ANTHROPIC, MARKED, PLAIN, bodies, kitchen, shared, tools

import llmbuffer_crewai
from llmbuffer.simulate import Asked, Call, Reply
from llmbuffer.testing import assert_prefix_stable
from llmbuffer_crewai import AgentFactory, BufferedLLM
from llmbuffer_crewai.forking import Gate

MODELS = (ANTHROPIC, MARKED, PLAIN)


def looks_once(asked: Asked) -> Reply:
    """One call of a tool for each question, then an answer that says which."""
    said = json.dumps(asked.body["messages"])
    turn = said.count("Question")
    if said.rpartition("Question")[2].count(_RESULT) == 0:
        return Reply("", calls=(Call("search_recipes", json.dumps({"flour": f"f{turn}", "minutes": turn})),))
    return Reply(f"Answer {turn}.")


_RESULT = "wants patience and a warm place"


def talk(agent: Any, turns: int) -> list[dict[str, str]]:
    """A conversation whose history its user keeps."""
    said: list[dict[str, str]] = []
    for turn in range(turns):
        said.append({"role": "user", "content": f"Question {turn}"})
        said.append({"role": "assistant", "content": agent.kickoff(list(said)).raw})
    return said


@pytest.mark.parametrize("model", MODELS)
def test_a_conversation_stays_as_it_was_sent(model: str) -> None:
    with kitchen(model, looks_once) as (server, llm):
        wrapped = BufferedLLM(llm, session=shared(model))
        said = talk(
            Agent(role="Baker", goal="Bake", backstory="Kind.", llm=wrapped, tools=[search_recipes]), 3
        )
        found = bodies(server)
        assert [each["content"] for each in said[1::2]] == ["Answer 1.", "Answer 2.", "Answer 3."]
        assert len(found) == 6
        assert wrapped.seam.breaks == ()
        assert len(wrapped.seam.sessions) == 1
    assert_prefix_stable(found)
    assert json.dumps(found[-1]).count("Current Task: Question") == 3


def test_tool_calls_of_earlier_turns_may_be_left_out() -> None:
    with kitchen(PLAIN, looks_once) as (server, llm):
        wrapped = BufferedLLM(llm, session=shared(PLAIN), whole_turns=False)
        talk(Agent(role="Baker", goal="Bake", backstory="Kind.", llm=wrapped, tools=[search_recipes]), 2)
        last = bodies(server)[2]
    assert json.dumps(last).count("Current Task: Question") == 2
    assert _RESULT not in json.dumps(last)


# Summaries


def long_task(asked: Asked) -> Reply:
    """Looks up four recipes, and answers once there is a summary."""
    said = json.dumps(asked.body["messages"])
    if "outgrow the context window" in said:
        return Reply("<summary>four looked up</summary>")
    if "<summary>" in said:
        return Reply("Rye.")
    used = said.count(_RESULT) // 14
    return Reply("", calls=(Call("search_recipes", json.dumps({"flour": f"f{used}", "minutes": used})),))


def too_long(asked: Asked) -> Reply:
    """The same from a provider that refuses the fourth prompt."""
    said = json.dumps(asked.body["messages"])
    refused = said.count(_RESULT) // 14 == 3 and "outgrow" not in said
    return Reply(status=400, message="maximum context length exceeded") if refused else long_task(asked)


@pytest.mark.parametrize(("script", "window"), [(long_task, 3_400), (too_long, 100_000)])
def test_a_summary_reads_the_cache_and_keeps_the_task(
    script: Any, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kitchen(PLAIN, script) as (server, llm):
        monkeypatch.setitem(llm.__dict__, "get_context_window_size", lambda: window)
        made = AgentFactory(shared(PLAIN), llm=llm)
        monkeypatch.setitem(made.llm.inner.__dict__, "get_context_window_size", lambda: window)
        baker = made.agent("Baker", "Bake", tools=[search_recipes])
        output = made.crew(tasks=[made.task("Find the oldest bread.", "Bread", baker)]).kickoff()
        found = [each for each in server.requests if each.status == 200]
        asks = next(
            n for n, each in enumerate(found) if "outgrow" in json.dumps((each.body or {})["messages"])
        )
        assert output.raw == "Rye."
        assert made.llm.seam.breaks == ()
        assert found[asks].usage.hit_ratio > 0.8
        told = json.dumps((found[asks + 1].body or {})["messages"])
        assert "Find the oldest bread." in told
        assert "four looked up" in told
        assert {tuple(tools(each.body or {})) for each in found} == {("search_recipes",)}


# Forks


@pytest.mark.parametrize("model", MODELS)
def test_one_crew_writes_what_all_share_and_results_come_in_order(model: str) -> None:
    with kitchen(model, Script(1)) as (server, llm):
        made = AgentFactory(shared(model), llm=llm)
        buffered_crew(made)
        inputs = [{"reader": f"reader {number}"} for number in range(8)]
        results = made.fork_crew(inputs)
        assert results.ok
        assert [each.inputs for each in results] == inputs
        assert [each.account.requests for each in results] == [8] * 8
        assert sum(each.usage.cache_read_tokens < 1_500 for each in server.requests) == 1
        assert results.account.usage.hit_ratio > 0.8
        assert all(each.text for each in results)


def test_a_crew_that_fails_costs_no_other_its_result() -> None:
    def script(asked: Asked) -> Reply:
        if "bread 0" in json.dumps(asked.body) or "bread 3" in json.dumps(asked.body):
            return Reply(status=400, message="no flour")
        return Reply("Baked.")

    with kitchen(MARKED, script) as (server, llm):
        made = AgentFactory(shared(MARKED), llm=llm)
        baker = made.agent("Baker", "Bake")
        made.crew(tasks=[made.task("Bake {bread}.", "Bread", baker)])
        results = made.fork_crew([{"bread": f"bread {number}"} for number in range(5)], limit=3)
        assert [each.ok for each in results] == [False, True, True, False, True]
        assert "no flour" in str(results[0].error)
        assert results[4].text == "Baked."
        assert not results.ok
        answered = [each for each in server.requests if each.status == 200]
        assert sum(each.usage.cache_read_tokens == 0 for each in answered) == 1
        assert repr(results[0]).startswith("CrewResult(error=")


def test_a_gate_lets_the_next_one_lead_where_the_first_fails() -> None:
    gate = Gate(patience=5.0)
    with pytest.raises(ValueError, match="gone"), gate.held():
        raise ValueError("gone")
    with gate.held():
        assert not gate._open
    assert gate._open
    with Gate(patience=0.0).held():
        pass


# The package


def test_importing_the_package_imports_no_framework() -> None:
    source = (
        "import sys, llmbuffer_crewai, llmbuffer_crewai.plugin\n"
        "print(sorted(name for name in ('crewai', 'pydantic', 'openai') if name in sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_crewai_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbuffer.frameworks._version", lambda name: "0.80.0")
    monkeypatch.delitem(vars(llmbuffer_crewai), "AgentFactory", raising=False)
    with pytest.raises(
        ImportError, match=r"crewai 0\.80\.0 is installed.*pip install 'llmbuffer\[crewai\]>=1'"
    ):
        llmbuffer_crewai.AgentFactory  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'CrewFactory'"):
        llmbuffer_crewai.CrewFactory  # noqa: B018
    assert set(llmbuffer_crewai.__all__) <= set(dir(llmbuffer_crewai))
