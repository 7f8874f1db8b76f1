"""The contract of all adapters, for LlamaIndex."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import AudioBlock, ChatMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.objects import ObjectRetriever
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.anthropic import Anthropic
from llama_index.llms.openai import OpenAI
from pydantic import create_model
from tests.integrations.promises import agree

from llmbuffer import Message
from llmbuffer.reconcile import Host, persona
from llmbuffer.testing.adapters import CAPABILITIES, AdapterContract, Agent, Group, Setup
from llmbuffer_llamaindex import BufferedLLM, LlamaHost, fork_workflow, plugin

HOST = LlamaHost()


def llm_of(url: str, setup: Setup, **options: Any) -> Any:
    """The framework's LLM; buffered, unless the mode is ``None``."""
    if setup.wire == "anthropic":
        llm: Any = Anthropic(setup.model, base_url=url, api_key="k", max_retries=0)
    else:
        llm = OpenAI(setup.model, api_base=url, api_key="k", max_retries=0)
    if setup.mode is None:
        return llm
    return BufferedLLM(llm, mode=setup.mode, policy=setup.policy, **options)


@asynccontextmanager
async def own_client(*llms: Any) -> AsyncIterator[None]:
    """An asynchronous client belongs to one event loop: a new one for this one, closed at its end."""
    for llm in llms:
        llm._aclient = None if isinstance(llm, OpenAI) else _again(llm._aclient)
    try:
        yield
    finally:
        for llm in llms:
            if llm._aclient is not None:
                await llm._aclient.close()


def _again(client: Any) -> Any:
    return type(client)(api_key=client.api_key, base_url=str(client.base_url), max_retries=0)


class Offered(ObjectRetriever[Any]):
    """Retrieves the tools that are offered for a question; for a tool's name, that tool."""

    def __init__(self, tools: Mapping[str, Any]) -> None:
        self.tools, self.names = tools, list(tools)

    def retrieve(self, str_or_query_bundle: Any) -> list[Any]:
        if str_or_query_bundle in self.tools:
            return [self.tools[str_or_query_bundle]]
        return [self.tools[name] for name in self.names]

    async def aretrieve(self, str_or_query_bundle: Any) -> list[Any]:
        return self.retrieve(str_or_query_bundle)


class Chat(Agent):
    """A ``FunctionAgent`` with a memory for each conversation."""

    def __init__(self, url: str, setup: Setup, saved: str | None = None) -> None:
        self.setup = setup
        self.llm = llm_of(url, setup, session=setup.session)
        self.seam = None if setup.mode is None else self.llm.seam
        tools = {
            name: FunctionTool.from_defaults(function, name=name) for name, function in setup.tools.items()
        }
        self.offered = Offered(tools)
        self.agent = FunctionAgent(
            llm=self.llm,
            tool_retriever=self.offered if tools else None,
            streaming=setup.stream,
            system_prompt=setup.instructions(),
        )
        self.memories: dict[str, ChatMemoryBuffer] = {}
        if saved is not None:
            self.memories["one"] = ChatMemoryBuffer.from_string(saved)

    def memory(self, conversation: str) -> ChatMemoryBuffer:
        return self.memories.setdefault(
            conversation, ChatMemoryBuffer.from_defaults(token_limit=10**6, tokenizer_fn=str.split)
        )

    def say(self, text: str, *, conversation: str = "one") -> str:
        return asyncio.run(self.asay(text, conversation=conversation))

    async def asay(self, text: str, *, conversation: str = "one") -> str:
        self.agent.system_prompt = self.setup.instructions()
        named = nullcontext() if self.seam is None else self.llm.conversation(conversation)
        with named:
            async with own_client(self.llm):
                return str(await self.agent.run(user_msg=text, memory=self.memory(conversation)))

    async def aclose(self) -> None:
        return None

    def history(self, *, conversation: str = "one") -> list[Message]:
        return [HOST.to_message(each) for each in self.memory(conversation).get_all()]

    def offer(self, names: Sequence[str]) -> None:
        self.offered.names = list(names)

    def redact(self, text: str, *, conversation: str = "one") -> None:
        memory = self.memory(conversation)
        memory.set(
            [
                ChatMessage((each.content or "").replace(text, "(redacted)"), role=each.role)
                for each in memory.get_all()
            ]
        )

    def structured(self, text: str, fields: Mapping[str, type]) -> Mapping[str, Any]:
        kind = create_model("Answer", **{name: (each, ...) for name, each in fields.items()})  # type: ignore[call-overload]
        made = self.llm.structured_predict(kind, PromptTemplate("{text}"), text=text)
        return dict(made.model_dump())

    def saved(self) -> str:
        return self.memory("one").to_string()

    def close(self) -> None:
        if self.llm._client is not None:
            self.llm._client.close()


class Round(Group):
    """Agents that share one memory; each speaks once."""

    def __init__(self, url: str, setup: Setup, personas: Mapping[str, str]) -> None:
        self.llm = llm_of(url, setup)
        self.seam = None if setup.mode is None else self.llm.seam
        team = setup.mode == "team"
        self.agents = [
            FunctionAgent(
                name=name,
                description=name,
                llm=self.llm if self.seam is None else self.llm.bound(member=name),
                streaming=False,
                system_prompt=f"{setup.instructions()}\n\n{persona(told) if team else told}",
            )
            for name, told in personas.items()
        ]
        if team:
            self.llm.declare(self.agents)
        self.memory = ChatMemoryBuffer.from_defaults(token_limit=10**6, tokenizer_fn=str.split)

    def discuss(self, text: str) -> list[tuple[str, str]]:
        async def run() -> list[tuple[str, str]]:
            self.memory.put(ChatMessage(text, role="user"))
            out = []
            async with own_client(*(agent.llm for agent in self.agents)):
                for agent in self.agents:
                    said = await agent.run(chat_history=self.memory.get_all(), memory=self.memory)
                    out.append((agent.name, str(said)))
            return out

        return asyncio.run(run())


class TestLlamaIndex(AdapterContract):
    """``FunctionAgent`` with ``BufferedLLM``; models that LlamaIndex knows by name."""

    capabilities = frozenset(CAPABILITIES)
    served = (("openai", "gpt-5.5"), ("openai", "gpt-5.6-sol"), ("anthropic", "claude-sonnet-5-5"))
    marked = ("openai", "gpt-5.6-sol")

    def host(self) -> Host:
        return LlamaHost()

    def agent(self, url: str, setup: Setup) -> Agent:
        return Chat(url, setup)

    def unreadable(self) -> Any:
        return ChatMessage(blocks=[AudioBlock(url="https://example.com/a.mp3")], role="user")

    def restored(self, url: str, setup: Setup, saved: Any) -> Agent:
        return Chat(url, setup, saved)

    def fan_out(self, url: str, setup: Setup, tasks: Sequence[str]) -> list[Any]:
        agent = Chat(url, setup).agent
        forks = fork_workflow(agent, len(tasks), session=setup.session)

        async def run() -> list[Any]:
            async with own_client(*(fork.llm for fork in forks)):
                runs = (fork.run(user_msg=task) for fork, task in zip(forks, tasks, strict=True))
                said = await asyncio.gather(*runs, return_exceptions=True)
            return [each if isinstance(each, BaseException) else str(each) for each in said]

        return asyncio.run(run())

    def group(self, url: str, setup: Setup, personas: Mapping[str, str]) -> Group:
        return Round(url, setup, personas)


def test_the_plugin_says_what_the_contract_tries() -> None:
    agree(plugin.CAPABILITIES, TestLlamaIndex.capabilities)
