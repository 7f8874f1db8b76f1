"""Forks of workflows, teams, and the package itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from importlib import metadata
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.workflow import StartEvent, StopEvent, Workflow, step
from llama_index.llms.openai import OpenAI
from tests.benchmarks.adapters.llamaindex import run
from tests.benchmarks.adapters.llamaindex_scenarios import RECORDED, SCENARIOS

import llmbuffer_llamaindex
from llmbuffer import Message, Session, StableContext
from llmbuffer.errors import MessageError
from llmbuffer.plugins import get_adapter
from llmbuffer.simulate import ProviderServer, Reply
from llmbuffer.testing.scripts import handbook
from llmbuffer_llamaindex import BufferedLLM, BufferedMemory, fork_workflow, framework

MODEL = "gpt-5.6-sol"


def llm_of(server: ProviderServer, **options: Any) -> Any:
    return BufferedLLM(OpenAI(MODEL, api_base=server.openai_url, api_key="k", max_retries=0), **options)


async def together(forks: list[Any], **said: Any) -> list[Any]:
    runs = (fork.run(user_msg=f"Task {number}", **said) for number, fork in enumerate(forks))
    return list(await asyncio.gather(*runs, return_exceptions=True))


def grounded() -> Session:
    """A session of some 3,000 tokens, with a question about them."""
    session = Session(StableContext(MODEL, handbook(32)))
    session.append([Message("user", "Read the handbook."), Message("assistant", "I have.")])
    return session


@pytest.mark.parametrize("kind", ["agent", "workflow"])
def test_one_writes_and_four_read(kind: str) -> None:
    with ProviderServer(keep_bodies=True) as server:
        agent = FunctionAgent(name="clerk", description="answers", llm=llm_of(server))
        flow: Any = agent if kind == "agent" else AgentWorkflow(agents=[agent], root_agent="clerk")
        forks = fork_workflow(flow, ["a", "b", "c", "d", "e"], session=grounded())
        asyncio.run(together(forks))
        log = sorted(server.requests, key=lambda each: each.number)
        bodies = [request.body for request in log if request.body]
    reads = [request.usage.cache_read_tokens for request in log]
    assert log[0].usage.input_tokens > 3_000
    assert reads[0] == 0
    assert min(reads[1:]) > 3_000
    for body in bodies:
        assert [message["role"] for message in body["messages"]] == ["developer", "user", "assistant", "user"]
    one = forks[0] if kind == "agent" else forks[0].agents["clerk"]
    seam = one.llm.seam
    assert sorted(key[0] for key in seam.accounts) == ["a", "b", "c", "d", "e"]
    assert {key[1] for key in seam.accounts} == ({None} if kind == "agent" else {"clerk"})


def test_without_waiting_each_writes() -> None:
    with ProviderServer(latency=(0.2, 0.0)) as server:
        forks = fork_workflow(FunctionAgent(llm=llm_of(server)), 3, session=grounded(), warm=False)
        asyncio.run(together(forks))
        assert [request.usage.cache_read_tokens for request in server.requests] == [0, 0, 0]


def test_if_the_first_fails_the_next_one_goes_first() -> None:
    with ProviderServer(replies=[Reply(status=400, message="no"), "One.", "Two."]) as server:
        forks = fork_workflow(FunctionAgent(llm=llm_of(server)), 3, session=grounded())
        said = asyncio.run(together(forks))
        read = [each.usage.cache_read_tokens for each in server.requests if each.status == 200]
    assert sorted(isinstance(each, Exception) for each in said) == [False, False, True]
    assert sorted(each > 3_000 for each in read) == [False, True]


class Asking(Workflow):
    """A workflow of one's own, with an LLM and a memory."""

    def __init__(self, llm: Any, memory: Any) -> None:
        super().__init__()
        self.llms, self.memory = {"main": [llm]}, memory

    @step
    async def ask(self, event: StartEvent) -> StopEvent:
        """One call."""
        self.memory.put(ChatMessage(event.user_msg, role="user"))
        response = await self.llms["main"][0].achat(self.memory.get())
        self.memory.put(response.message)
        return StopEvent(result=str(response.message.content))


def test_a_workflow_of_ones_own_is_forked_with_its_memory() -> None:
    with ProviderServer(keep_bodies=True) as server:
        memory = BufferedMemory.from_defaults(tokenizer_fn=str.split)
        memory.put_messages([ChatMessage("Read.", role="user"), ChatMessage("I have.", role="assistant")])
        forks = fork_workflow(Asking(llm_of(server), memory), ["a", "b"])
        asyncio.run(together(forks))
        told = sorted(
            (request.body or {})["messages"][-1]["content"][0]["text"] for request in server.requests
        )
    assert told == ["Task 0", "Task 1"]
    assert [len(fork.memory.get_all()) for fork in forks] == [4, 4]
    assert len(memory.get_all()) == 2


def test_what_cannot_be_forked_is_refused() -> None:
    plain = FunctionAgent(llm=OpenAI("gpt-5.5", api_key="k"))
    with pytest.raises(MessageError, match="this FunctionAgent holds no BufferedLLM"):
        fork_workflow(plain, 2)
    with pytest.raises(MessageError, match="give each its own"):
        fork_workflow(plain, ["a", "a"])


def test_agents_are_known_by_their_names() -> None:
    scenario = next(each for each in SCENARIOS if "AgentWorkflow" in each.name)
    bodies, _, seam = run(scenario, RECORDED, "buffered", "gpt-4o")
    assert sorted({member for _, member in seam.accounts}) == ["coder", "critic", "planner"]
    assert len({str(body["tools"]) for body in bodies}) == 1, "one list of tools for all"
    assert len({body["messages"][0]["content"] for body in bodies}) == 1, "one system text for all"
    assert "You are critic." in str(bodies[2]["messages"][-1])


# --- the package


def test_importing_it_loads_no_framework() -> None:
    code = (
        "import sys, llmbuffer_llamaindex, llmbuffer_llamaindex.plugin; "
        "print([name for name in sys.modules if name.startswith('llama_index')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_all_names_are_there() -> None:
    assert all(getattr(llmbuffer_llamaindex, name) for name in llmbuffer_llamaindex.__all__)
    with pytest.raises(AttributeError, match="no attribute 'BufferedThing'"):
        _ = llmbuffer_llamaindex.BufferedThing


@pytest.mark.parametrize("found", [None, "0.10.68"])
def test_a_missing_or_old_framework_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, found: str | None
) -> None:
    def version(name: str) -> str:
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(framework, "version", version)
    with pytest.raises(ImportError, match=r"pip install 'llmbuffer\[llamaindex\]>=1'") as raised:
        framework.check()
    assert (found or "not here") in str(raised.value)


def test_it_is_found_as_a_plugin() -> None:
    assert get_adapter("llamaindex") is llmbuffer_llamaindex
    assert set(llmbuffer_llamaindex.__all__) <= set(dir(llmbuffer_llamaindex))


def test_the_examples_in_docstrings_hold() -> None:
    import doctest
    from importlib import import_module
    from pkgutil import iter_modules

    names = [f"llmbuffer_llamaindex.{found.name}" for found in iter_modules(llmbuffer_llamaindex.__path__)]
    found = [doctest.testmod(import_module(name)) for name in names]
    assert sum(each.attempted for each in found) > 15
    assert [name for name, each in zip(names, found, strict=True) if each.failed] == []
