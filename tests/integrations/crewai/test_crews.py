"""Crews off one session: what goes over the wire, and what stays as CrewAI has it."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import pytest
from crewai import Agent, Crew, Process, Task
from crewai.events import LLMCallCompletedEvent, crewai_event_bus
from crewai.flow.flow import Flow, listen, start
from crewai.llms.providers.openai.completion import OpenAICompletion
from tests.benchmarks.adapters.crewai import (
    AGENTS,
    INPUTS,
    Script,
    buffered_crew,
    default_crew,
    print_page,
    search_recipes,
)
from tests.integrations.crewai.kitchen import (
    ANTHROPIC,
    BRIEF,
    MARKED,
    PLAIN,
    bodies,
    kitchen,
    marks,
    shared,
    system,
    tools,
)

from llmbuffer import Usage
from llmbuffer.errors import MessageError
from llmbuffer.simulate import Asked, Call, Reply
from llmbuffer.testing import assert_prefix_stable
from llmbuffer_crewai import AgentFactory, BufferedLLM

MODELS = (ANTHROPIC, MARKED, PLAIN)


def sent(model: str, layout: str | None, loops: int = 1, **options: Any) -> tuple[list[Any], str, Any]:
    """The bodies of the crew's run, its answer, and the factory; without a layout, CrewAI alone."""
    with kitchen(model, Script(loops)) as (server, llm):
        if layout is None:
            return bodies_of(server, default_crew(llm, BRIEF)), "", None
        made = AgentFactory(shared(model), llm=llm, layout=layout, **options)
        output = buffered_crew(made).kickoff(inputs=INPUTS)
        return bodies(server), output.raw, made


def bodies_of(server: Any, crew: Any) -> list[Any]:
    crew.kickoff(inputs=INPUTS)
    return bodies(server)


@pytest.mark.parametrize("model", MODELS)
def test_all_agents_of_a_union_begin_alike(model: str) -> None:
    found, _, made = sent(model, "union")
    assert made.choice.layout == "union"
    assert len(found) == 8
    assert len({json.dumps(body["tools"][:-1]) for body in found}) == 1
    assert {tuple(tools(body)) for body in found} == {
        tuple(tool.name for *_, owned in AGENTS for tool in owned)
    }
    roles = []
    for body in found:
        text = system(body)
        assert text.startswith(BRIEF)
        assert text.count(BRIEF) == 1
        roles.append(text[len(BRIEF) :].split("You are ")[1].partition(".")[0])
        assert marks(body) <= 4
    assert roles == ["Baker", "Baker", "Buyer", "Buyer", "Writer", "Writer", "Baker", "Baker"]


def test_the_layout_of_crewai_is_sent_byte_for_byte() -> None:
    alone, _, _ = sent(PLAIN, None)
    found, _, _ = sent(PLAIN, "crewai")
    assert [{**body, "prompt_cache_key": ""} for body in alone] == [
        {**body, "prompt_cache_key": ""} for body in found
    ]


@pytest.mark.parametrize("model", MODELS)
def test_a_crew_that_is_observed_sends_what_it_sends_alone(model: str) -> None:
    alone, _, _ = sent(model, None)
    observed, _, made = sent(model, "auto", mode="observe")
    assert alone == observed
    assert made.account().requests == len(observed)
    assert made.account().usage.input_tokens > 0


@pytest.mark.parametrize("layout", ["auto", "own", "union", "crewai"])
def test_the_answers_are_those_of_crewai_alone(layout: str) -> None:
    with kitchen(MARKED, Script(2)) as (_, llm):
        alone = default_crew(llm, BRIEF).kickoff(inputs=INPUTS)
    with kitchen(MARKED, Script(2)) as (_, llm):
        made = AgentFactory(shared(MARKED), llm=llm, layout=layout)
        found = buffered_crew(made).kickoff(inputs=INPUTS)
    assert [each.raw for each in found.tasks_output] == [each.raw for each in alone.tasks_output]


@pytest.mark.parametrize("model", MODELS)
def test_a_task_only_grows(model: str) -> None:
    found, _, _ = sent(model, "auto", loops=4)
    assert_prefix_stable(found[:5])
    assert_prefix_stable(found[5:10])


@pytest.mark.parametrize("model", [ANTHROPIC, MARKED])
def test_each_request_of_a_long_task_reads_all_of_the_one_before_it(model: str) -> None:
    with kitchen(model, Script(5)) as (server, llm):
        made = AgentFactory(shared(model), llm=llm)
        buffered_crew(made).kickoff(inputs=INPUTS)
        used = [each.usage for each in server.requests[:6]]
        found = bodies(server)[:6]
    assert [each.cache_read_tokens for each in used[1:]] == [each.input_tokens for each in used[:-1]]
    assert all(marks(body) <= 4 for body in found)


def test_inputs_move_nothing_in_front_of_them() -> None:
    with kitchen(MARKED, lambda asked: Reply("A walk.")) as (server, llm):
        made = AgentFactory(shared(MARKED), llm=llm)
        agent = made.agent("Guide of {city}", "Show {city}", "You live in {city}.", tools=[search_recipes])
        crew = made.crew(tasks=[made.task("Walk.", "A walk.", agent)])
        crew.kickoff(inputs={"city": "Bonn"})
        crew.kickoff(inputs={"city": "Lyon"})
        first, second = bodies(server)
        assert "Lyon" in system(second)
        assert system(second).startswith(BRIEF)
        assert first["messages"][0]["content"][0] == second["messages"][0]["content"][0]
        assert server.requests[1].usage.cache_read_tokens > 1_800
        assert made.llm.seam.breaks == ()


def test_what_a_backstory_repeats_of_the_brief_is_told_once() -> None:
    with kitchen(PLAIN, Script(0)) as (server, llm):
        wrapped = BufferedLLM(llm, session=shared(PLAIN))
        agent = Agent(role="Baker", goal="Bake", backstory=f"{BRIEF} You like rye.", llm=wrapped)
        Crew(
            agents=[agent], tasks=[Task(description="Bake.", expected_output="Bread", agent=agent)]
        ).kickoff()
        [body] = bodies(server)
    assert system(body).count(BRIEF) == 1
    assert "You like rye." in system(body)


# Tools that are not an agent's


class Foreign:
    """Calls a tool once that the agent does not own, then answers."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, asked: Asked) -> Reply:
        text = json.dumps(asked.body)
        if "cannot be used now" in text or "Tool not found" in text:
            return Reply("Baker: done without it.")
        return Reply("", calls=(Call(self.name, '{"title": "a", "text": "b"}'),))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("owned", [(), (search_recipes,)])
def test_a_foreign_tool_is_never_run_and_answered_with_an_error(
    model: str, owned: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(print_page, "func", lambda **given: ran.append("print_page"))
    with kitchen(model, Foreign("print_page")) as (server, llm):
        made = AgentFactory(shared(model), llm=llm, layout="union")
        baker, writer = (
            made.agent("Baker", "Bake", tools=owned),
            made.agent("Writer", "Write", tools=[print_page]),
        )
        tasks = [made.task("Bake.", "Bread", baker)]
        output = made.crew([baker, writer], tasks).kickoff()
        asked, told = bodies(server)
    assert output.raw == "Baker: done without it."
    assert ran == []
    assert "print_page" in tools(asked)
    assert tools(asked) == tools(told)
    assert json.dumps(told).count("cannot be used now") == 1
    assert_prefix_stable([asked, told])


def test_what_was_refused_stays_in_the_prompts_of_the_task() -> None:
    def script(asked: Asked) -> Reply:
        said = json.dumps(asked.body)
        if "cannot be used now" not in said:
            return Reply("", calls=(Call("print_page", "{}"),))
        if "emmer" not in said:
            return Reply("", calls=(Call("search_recipes", '{"flour": "emmer", "minutes": 1}'),))
        return Reply("Baker: done.")

    with kitchen(PLAIN, script) as (server, llm):
        made = AgentFactory(shared(PLAIN), llm=llm, layout="union")
        baker = made.agent("Baker", "Bake", tools=[search_recipes])
        writer = made.agent("Writer", "Write", tools=[print_page])
        made.crew([baker, writer], [made.task("Bake.", "Bread", baker)]).kickoff()
        found = bodies(server)
    assert len(found) == 3
    assert_prefix_stable(found)


def test_a_model_that_calls_nothing_but_foreign_tools_is_an_error() -> None:
    with kitchen(PLAIN, lambda asked: Reply("", calls=(Call("nothing", "{}"),))) as (server, llm):
        wrapped = BufferedLLM(llm, session=shared(PLAIN))
        with pytest.raises(MessageError, match=r"4 times in a row \(\['nothing'\]\)"):
            wrapped.call("Hello")
        assert len(server.requests) == 4


# Copies


def test_copies_of_a_crew_share_no_session() -> None:
    with kitchen(MARKED, Script(1)) as (server, llm):
        made = AgentFactory(shared(MARKED), llm=llm)
        crew = buffered_crew(made)
        crew.kickoff_for_each(inputs=[INPUTS, INPUTS, INPUTS])
        assert len(server.requests) == 24
        assert len(made.llm.seam.sessions) == 12
        assert [each.ledger.requests for each in made.llm.seam.sessions] == [2] * 12
        assert made.llm.seam.breaks == ()
        assert made.account(agent="Baker").requests == 12
        assert made.account().usage == sum((each.usage for each in server.requests), Usage())


def test_a_second_kickoff_of_a_crew_is_no_break() -> None:
    with kitchen(PLAIN, Script(1)) as (_, llm):
        made = AgentFactory(shared(PLAIN), llm=llm)
        crew = buffered_crew(made)
        for _ in range(2):
            crew.kickoff(inputs=INPUTS)
        assert made.llm.seam.breaks == ()
        assert len(made.llm.seam.sessions) == 8


def test_an_llm_and_a_crew_can_be_copied() -> None:
    with kitchen(PLAIN, Script(0)) as (_, llm):
        wrapped = BufferedLLM(llm)
        for twin in (copy.copy(wrapped), copy.deepcopy(wrapped), wrapped.model_copy()):
            assert isinstance(twin, BufferedLLM)
            assert twin is not wrapped
            assert twin.seam is wrapped.seam


def test_usage_is_told_by_agent_and_task_as_by_the_event_bus() -> None:
    told: list[int] = []
    with kitchen(PLAIN, Script(1)) as (server, llm), crewai_event_bus.scoped_handlers():

        @crewai_event_bus.on(LLMCallCompletedEvent)
        def _(source: Any, event: Any) -> None:
            told.append(event.usage["prompt_tokens"])

        made = AgentFactory(shared(PLAIN), llm=llm)
        agents = [made.agent(role, goal, story, tools=owned) for role, goal, story, owned in AGENTS]
        tasks = [made.task("Do it.", "It.", agent, name=f"task {agent.role}") for agent in agents]
        made.crew(agents, tasks).kickoff(inputs=INPUTS)
        crewai_event_bus.flush()
        by_task = [made.account(task=f"task {role}").usage for role, *_ in AGENTS]
        by_agent = [made.account(agent=role).usage for role, *_ in AGENTS]
        assert by_task == by_agent
        assert all(each.input_tokens > 2_000 for each in by_task)
        assert sum(by_task, Usage()) == sum((each.usage for each in server.requests), Usage())
        assert sum(told) == sum(each.input_tokens for each in by_task)


# Other ways through CrewAI


def test_a_flow_calls_the_llm_and_kicks_off_a_crew() -> None:
    with kitchen(PLAIN, lambda asked: Reply("Rye.")) as (server, llm):
        made = AgentFactory(shared(PLAIN), llm=llm)

        class Steps(Flow):
            @start()
            def choose(self) -> Any:
                return made.llm.call("Which flour?")

            @listen(choose)
            def bake(self, flour: str) -> Any:
                baker = made.agent("Baker", "Bake")
                return made.crew(tasks=[made.task(f"Bake with {flour}", "Bread", baker)]).kickoff().raw

        assert Steps().kickoff() == "Rye."
        first, second = bodies(server)
    assert system(first) == BRIEF
    assert system(second).startswith(BRIEF)
    assert "Bake with Rye." in json.dumps(second)


def test_a_hierarchical_crew_has_a_manager_off_the_same_session() -> None:
    def script(asked: Asked) -> Reply:
        text = json.dumps(asked.body)
        if "You are Crew Manager" not in text:
            return Reply("Baker: it is baked.")
        if '"role": "tool"' in text:
            return Reply("It is all done.")
        given = {"task": "Bake.", "context": "Rye.", "coworker": "Baker"}
        return Reply("", calls=(Call("delegate_work_to_coworker", json.dumps(given)),))

    with kitchen(PLAIN, script) as (server, llm):
        made = AgentFactory(shared(PLAIN), llm=llm)
        baker = made.agent("Baker", "Bake", tools=[search_recipes])
        crew = made.crew([baker], [made.task("Bake.", "Bread")], process=Process.hierarchical)
        assert crew.kickoff().raw == "It is all done."
        found = bodies(server)
    assert [system(body).startswith(BRIEF) for body in found] == [True] * 3
    assert "it is baked" in json.dumps(found[2])
    assert made.account(agent="Baker").requests == 1
    assert made.account(agent="Crew Manager").requests == 2


class Textual(OpenAICompletion):
    """A model without native tool calls."""

    def supports_function_calling(self) -> bool:
        """No."""
        return False


def test_agents_without_native_tool_calls_share_the_brief() -> None:
    def script(asked: Asked) -> Reply:
        if "Observation:" in json.dumps(asked.body["messages"][2:]):
            return Reply("Thought: I know\nFinal Answer: Rye.")
        return Reply('Thought: look\nAction: search_recipes\nAction Input: {"flour": "rye", "minutes": 9}')

    with kitchen(PLAIN, script) as (server, llm):
        text = Textual(model=PLAIN, base_url=llm.base_url, api_key="any")
        made = AgentFactory(shared(PLAIN), llm=text)
        bakers = [made.agent(role, "Bake", tools=[search_recipes]) for role in ("Baker", "Helper")]
        output = made.crew(
            tasks=[made.task(f"Bake {n}.", "Bread", each) for n, each in enumerate(bakers)]
        ).kickoff()
        found = bodies(server)
    assert output.raw == "Rye."
    assert len(found) == 4
    assert all("tools" not in body for body in found)
    assert_prefix_stable(found[:2])
    assert [system(body).startswith(BRIEF) and "search_recipes" in system(body) for body in found] == [
        True
    ] * 4
    assert server.requests[2].usage.cache_read_tokens > 1_800


@pytest.mark.parametrize("model", [ANTHROPIC, PLAIN])
def test_streams_and_awaited_crews_send_the_same(model: str) -> None:
    found = []
    for stream in (False, True):
        with kitchen(model, Script(1), stream=stream) as (server, llm):
            made = AgentFactory(shared(model), llm=llm)
            crew = buffered_crew(made)
            output = asyncio.run(crew.kickoff_async(inputs=INPUTS)) if stream else crew.kickoff(inputs=INPUTS)
            plain = [{k: v for k, v in body.items() if not k.startswith("stream")} for body in bodies(server)]
            found.append((output.raw, [{**body, "prompt_cache_key": ""} for body in plain]))
            assert made.account().usage == sum((each.usage for each in server.requests), Usage())
    assert found[0] == found[1]


def test_the_last_word_of_an_agent_is_asked_for_with_its_tools_in_the_prompt() -> None:
    def script(asked: Asked) -> Reply:
        if "No tool may be used" in json.dumps(asked.body["messages"][-1]):
            return Reply("That is all.")
        return Reply(
            "", calls=(Call("search_recipes", json.dumps({"flour": str(asked.number), "minutes": 1})),)
        )

    with kitchen(PLAIN, script) as (server, llm):
        made = AgentFactory(shared(PLAIN), llm=llm)
        baker = made.agent("Baker", "Bake", tools=[search_recipes], max_iter=2)
        output = made.crew(tasks=[made.task("Bake.", "Bread", baker)]).kickoff()
        found = bodies(server)
    assert output.raw == "That is all."
    assert {tuple(tools(body)) for body in found} == {("search_recipes",)}
    assert_prefix_stable(found)


# What is refused


def test_a_session_of_another_dialect_is_refused() -> None:
    with kitchen(PLAIN, Script(0)) as (_, llm):
        with pytest.raises(MessageError, match="make the session with dialect='openai'"):
            AgentFactory(shared(PLAIN, "anthropic"), llm=llm)
        with pytest.raises(MessageError, match="is a str: give an LLM"):
            BufferedLLM("gpt-5.5")
        with pytest.raises(MessageError, match="BufferedLLM already"):
            BufferedLLM(BufferedLLM(llm))
        with pytest.raises(MessageError, match="layout is 'best'"):
            AgentFactory(shared(PLAIN), llm=llm, layout="best")
        with pytest.raises(MessageError, match="numbers of tool calls"):
            AgentFactory(shared(PLAIN), llm=llm, loops=())
        with pytest.raises(MessageError, match="no crew to fork"):
            AgentFactory(shared(PLAIN), llm=llm).fork_crew([{}])


def test_a_repr_tells_no_prompt() -> None:
    with kitchen(PLAIN, Script(0)) as (_, llm):
        made = AgentFactory(shared(PLAIN), llm=llm)
        crew = buffered_crew(made)
        crew.kickoff(inputs=INPUTS)
        assert "bakery" not in f"{made!r} {made.llm!r} {made.llm} {made.choice!r}"
        assert made.llm.api == "completions"  # a field of the LLM inside
