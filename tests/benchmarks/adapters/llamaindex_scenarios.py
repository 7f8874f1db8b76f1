"""What the LlamaIndex figures are measured on: chat engines and agents, driven as their users drive them.

Each scenario is a function ``(llm, arm)`` that runs some turns on an LLM; ``arm`` tells the ``default`` run from the ``buffered`` one where
the latter swaps in a memory. ``Scene`` holds what is said: system text, questions, and what a retriever finds.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine, SimpleChatEngine
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import (
    BaseMemoryBlock,
    ChatMemoryBuffer,
    ChatSummaryMemoryBuffer,
    InsertMethod,
    Memory,
)
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import FunctionTool

from llmbuffer.simulate import Asked, Call, Reply
from llmbuffer.testing.scripts import handbook, passage

__all__ = ["RECORDED", "SCENARIOS", "STANDARD", "Answers", "Scene", "words"]


def words(text: str) -> list[str]:
    """Tokens for memory limits: words, so that no tokenizer has to be fetched."""
    return text.split()


class Scene(NamedTuple):
    """What is said in a scenario: ``system`` text, a ``question`` and a ``passage`` by turn, what a ``reply`` says by number."""

    system: str
    question: Callable[[int], str]
    long_question: Callable[[int], str]
    passage: Callable[[str], str]
    reply: Callable[[int], str]
    found: str


# As long as in the recorded requests, so that the figures can be compared.
RECORDED = Scene(
    system="You are a support assistant. " + "Rule: cite the source of each claim. " * 40,
    question=lambda turn: f"question {turn}",
    long_question=lambda turn: f"question {turn} " + "word " * 60,
    passage=lambda query: f"chunk for {query} " * 20,
    reply=lambda number: f"reply {number} " + "text " * 60,
    found="found " * 40,
)


def _turn_of(query: str) -> int:
    return int((re.findall(r"\d+", query) or ["0"])[0])


# With more than 4,000 tokens of system text.
STANDARD = Scene(
    system=handbook(),
    question=lambda turn: (
        f"Question {turn}: my parcel {7000 + turn} did not come. What can you tell me about it?"
    ),
    long_question=lambda turn: (
        f"Question {turn}: " + "what became of the parcel, the letter and the box? " * 8
    ),
    passage=lambda query: passage(_turn_of(query)),
    reply=lambda number: f"Reply {number}: " + "it was scanned at the depot, and a driver has it now. " * 6,
    found="scanned at the depot of Lyon " * 10,
)


class Answers:
    """What the simulated model says: replies by number, and a tool call first in each turn of an agent."""

    def __init__(
        self, scene: Scene, *, calls: bool = False, handoffs: Sequence[str] = (), react: bool = False
    ) -> None:
        self._scene, self._calls, self._react = scene, calls, react
        self._handoffs = list(handoffs)
        self._number = 0

    def __call__(self, asked: Asked) -> Reply:
        self._number += 1
        number, last = (
            self._number,
            asked.body["messages"][-2:],
        )  # dynamic text may stand behind a tool's result
        if self._handoffs:
            name = self._handoffs.pop(0)
            if name:
                arguments = json.dumps({"to_agent": name, "reason": "next"})
                return Reply(calls=(Call("handoff", arguments, id=f"call_{number}"),))
        elif self._calls and not _answers_a_tool(last):
            return Reply(calls=(Call("lookup", '{"q": "a"}', id=f"call_{number}"),))
        elif self._react and "Observation: " not in json.dumps(last[-1]):
            return Reply("Thought: need a tool\nAction: lookup\nAction Input: {'q': 'a'}")
        elif self._react:
            return Reply("Thought: I can answer without using any more tools.\nAnswer: done")
        return Reply(self._scene.reply(number))


def _answers_a_tool(messages: Any) -> bool:
    told = json.dumps(messages)
    return '"role": "tool"' in told or '"tool_result"' in told


class Retriever(BaseRetriever):
    """Finds one passage for a query, by its text alone."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self._scene = scene

    def _retrieve(self, query: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text=self._scene.passage(query.query_str), id_="n"), score=1.0)]


class Facts(BaseMemoryBlock[str]):
    """A memory block that says something else each time it is asked."""

    number: int = 0

    async def _aget(self, messages: Any = None, **_: Any) -> str:
        self.number += 1
        return f"fact version {self.number}"

    async def _aput(self, messages: list[ChatMessage]) -> None:
        return None


def lookup_tool(scene: Scene) -> FunctionTool:
    def lookup(q: str) -> str:
        """look up a thing"""
        return scene.found

    return FunctionTool.from_defaults(lookup)


def simple_chat(llm: Any, scene: Scene, turns: int) -> list[str]:
    engine = SimpleChatEngine.from_defaults(llm=llm, system_prompt=scene.system, memory=_buffer(10**6))
    return [str(engine.chat(scene.question(turn))) for turn in range(turns)]


def context_chat(llm: Any, scene: Scene, turns: int) -> list[str]:
    engine = ContextChatEngine.from_defaults(
        retriever=Retriever(scene), llm=llm, memory=_buffer(10**6), system_prompt=scene.system
    )
    return [str(engine.chat(scene.question(turn))) for turn in range(turns)]


def condense_plus_context(llm: Any, scene: Scene, turns: int) -> list[str]:
    engine = CondensePlusContextChatEngine.from_defaults(
        retriever=Retriever(scene), llm=llm, memory=_buffer(10**6), system_prompt=scene.system
    )
    return [str(engine.chat(scene.question(turn))) for turn in range(turns)]


def over_the_limit(llm: Any, scene: Scene, turns: int) -> list[str]:
    limit = len(words(scene.system)) + 5 * len(words(scene.long_question(0) + scene.reply(1))) // 2
    engine = SimpleChatEngine(llm=llm, memory=_buffer(limit), prefix_messages=_prefix(scene))
    return [str(engine.chat(scene.long_question(turn))) for turn in range(turns)]


def summaries(llm: Any, scene: Scene, turns: int) -> list[str]:
    limit = 3 * len(words(scene.long_question(0) + scene.reply(1))) // 2
    memory = ChatSummaryMemoryBuffer.from_defaults(llm=llm, token_limit=limit, tokenizer_fn=words)
    engine = SimpleChatEngine(llm=llm, memory=memory, prefix_messages=_prefix(scene))
    return [str(engine.chat(scene.long_question(turn))) for turn in range(turns)]


def function_agent(llm: Any, scene: Scene, turns: int, **options: Any) -> list[str]:
    agent = FunctionAgent(
        llm=llm, tools=[lookup_tool(scene)], system_prompt=scene.system, streaming=True, **options
    )
    return asyncio.run(_talk(agent, _buffer(10**6), scene, turns))


def initial_state(llm: Any, scene: Scene, turns: int) -> list[str]:
    return function_agent(llm, scene, turns, initial_state={"count": 0})


def memory_block(llm: Any, scene: Scene, turns: int, method: InsertMethod = InsertMethod.SYSTEM) -> list[str]:
    agent = FunctionAgent(llm=llm, tools=[lookup_tool(scene)], system_prompt=scene.system)
    memory = Memory.from_defaults(
        session_id="one",
        token_limit=10**6,
        memory_blocks=[Facts(name="facts")],
        insert_method=method,
        tokenizer_fn=words,
    )
    return asyncio.run(_talk(agent, memory, scene, turns))


def memory_block_user(llm: Any, scene: Scene, turns: int) -> list[str]:
    return memory_block(llm, scene, turns, InsertMethod.USER)


def react_agent(llm: Any, scene: Scene, turns: int) -> list[str]:
    agent = ReActAgent(llm=llm, tools=[lookup_tool(scene)], system_prompt=scene.system)
    return asyncio.run(_talk(agent, _buffer(10**6), scene, turns))


def workflow(llm: Any, scene: Scene, turns: int) -> list[str]:
    """Three agents that hand over in each turn; their system prompts begin with who they are."""
    agents = [
        FunctionAgent(
            name=name,
            description=f"{name} agent",
            llm=llm,
            tools=[lookup_tool(scene)] if name == "coder" else [],
            system_prompt=f"You are {name}. {scene.system}",
            can_handoff_to=[other for other in NAMES if other != name],
        )
        for name in NAMES
    ]
    flow = AgentWorkflow(agents=agents, root_agent=NAMES[0])
    if hasattr(llm, "declare"):
        llm.declare(flow)

    async def run() -> list[str]:
        from llama_index.core.workflow import Context

        memory, context, out = _buffer(10**6), Context(flow), []
        for turn in range(turns):
            said = f"task {turn} " + "spec " * 60
            out.append(str(await flow.run(user_msg=said, memory=memory, ctx=context)))
        return out

    return asyncio.run(run())


NAMES = ("planner", "coder", "critic")


def _prefix(scene: Scene) -> list[ChatMessage]:
    return [ChatMessage(scene.system, role="system")]


def _buffer(limit: int) -> ChatMemoryBuffer:
    return ChatMemoryBuffer.from_defaults(token_limit=limit, tokenizer_fn=words)


async def _talk(agent: Any, memory: Any, scene: Scene, turns: int) -> list[str]:
    return [str(await agent.run(user_msg=scene.question(turn), memory=memory)) for turn in range(turns)]


class Scenario(NamedTuple):
    """One scenario: what runs, for how many turns, what the model says, and how the adapter is set up."""

    name: str
    run: Callable[[Any, Scene, int], list[str]]
    turns: int
    answers: Mapping[str, Any] = MappingProxyType({})
    options: Mapping[str, Any] = MappingProxyType({})
    bound: bool = False
    recorded: str | None = None


def _handoffs() -> Iterator[str]:
    yield from ("coder", "critic", "", "planner", "coder", "")


SCENARIOS = (
    Scenario("SimpleChatEngine", simple_chat, 3, recorded="simple_chat_engine"),
    Scenario("ContextChatEngine, 3 turns", context_chat, 3, recorded="context_chat_engine"),
    Scenario("ContextChatEngine, 5 turns", context_chat, 5),
    Scenario("CondensePlusContextChatEngine", condense_plus_context, 3, recorded="condense_plus_context"),
    Scenario(
        "ChatMemoryBuffer over its limit", over_the_limit, 5, options={"ours": True}, bound=True,
        recorded="chat_memory_buffer_trim",
    ),
    Scenario("ChatSummaryMemoryBuffer", summaries, 5, recorded="chat_summary_memory_buffer"),
    Scenario("FunctionAgent", function_agent, 3, {"calls": True}, recorded="function_agent_memory"),
    Scenario("FunctionAgent, initial_state", initial_state, 3, {"calls": True}, recorded="function_agent_initial_state"),
    Scenario("memory block, SYSTEM", memory_block, 3, {"calls": True}, recorded="memory_block_system"),
    Scenario("memory block, USER", memory_block_user, 3, {"calls": True}, recorded="memory_block_user"),
    Scenario("ReActAgent", react_agent, 2, {"react": True}, recorded="react_agent"),
    Scenario(
        "AgentWorkflow, 3 agents", workflow, 2, {"handoffs": list(_handoffs())}, {"mode": "team"},
        recorded="agent_workflow_3_agents_handoff",
    ),
)  # fmt: skip
