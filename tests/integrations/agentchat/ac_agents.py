"""Agents of agentchat for the tests: each with an event loop of its own, since every call is a coroutine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import pytest
from anthropic import AsyncAnthropic
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core.models import ChatCompletionClient
from autogen_core.tools import FunctionTool, StaticWorkbench
from autogen_ext.models.anthropic import BaseAnthropicChatCompletionClient
from autogen_ext.models.openai import OpenAIChatCompletionClient
from pydantic import create_model

from llmbuffer import Message
from llmbuffer.reconcile import persona
from llmbuffer.seam import Seam
from llmbuffer.testing.adapters import Agent, Group, Setup
from llmbuffer_autogen.agentchat import BufferedChatCompletionClient, ModelHost, fork_team

INFO = {
    "vision": True,
    "function_calling": True,
    "json_output": True,
    "structured_output": True,
    "multiple_system_messages": True,
}
T = TypeVar("T")


def model_client(url: str, wire: str = "openai", model: str = "gpt-5.5") -> ChatCompletionClient:
    """The framework's own client for a simulated provider."""
    if wire == "anthropic":
        info = {**INFO, "family": "claude-4-sonnet", "multiple_system_messages": False}
        sdk: Any = AsyncAnthropic(base_url=url, api_key="k", max_retries=0)
        sdk.messages.create = _without_temperature(sdk.messages.create)
        return BaseAnthropicChatCompletionClient(sdk, create_args={"model": model}, model_info=info)
    return OpenAIChatCompletionClient(
        model=model, base_url=url, api_key="k", max_retries=0, model_info={**INFO, "family": "gpt-5"}
    )


def _without_temperature(create: Any) -> Any:
    """What autogen-ext 0.7.5 calls: it always passes a temperature, which the SDK takes no more from version 2 on."""

    def called(**arguments: Any) -> Any:
        del arguments["temperature"]
        return create(**arguments)

    return called


def buffered(inner: ChatCompletionClient, setup: Setup) -> Any:
    """The client as the setup says."""
    if setup.mode is None:
        return inner
    return BufferedChatCompletionClient(inner, mode=setup.mode, policy=setup.policy, session=setup.session)


class Loop:
    """An event loop that lives as long as an agent."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def close(self) -> None:
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


class Bench(StaticWorkbench):
    """Tools of which some are shown; all of them could be run."""

    shown: frozenset[str] | None = None
    order: tuple[str, ...] = ()

    async def list_tools(self) -> list[Any]:
        found = await super().list_tools()
        if self.shown is None:
            return found
        return sorted(
            (tool for tool in found if tool["name"] in self.shown),
            key=lambda tool: self.order.index(tool["name"]),
        )


class ChatAgent(Agent):
    """One assistant for each conversation, all of them through one model client."""

    def __init__(self, url: str, setup: Setup, states: Mapping[str, Any] | None = None) -> None:
        self._setup, self._loop = setup, Loop()
        self._inner = model_client(url, setup.wire, setup.model)
        self.client = buffered(self._inner, setup)
        self.seam: Seam | None = getattr(self.client, "seam", None)
        self._bench = Bench(
            [FunctionTool(each, description=each.__doc__ or "") for each in setup.tools.values()]
        )
        self._agents: dict[str, AssistantAgent] = {}
        self._states = dict(states or {})

    def _made(self, conversation: str) -> AssistantAgent:
        client = self.client if self.seam is None else self.client.named(conversation=conversation)
        return AssistantAgent(
            "assistant",
            client,
            system_message=self._setup.instructions(),
            workbench=self._bench if self._setup.tools else None,
            model_client_stream=self._setup.stream,
            max_tool_iterations=8,
        )

    async def _agent(self, conversation: str) -> AssistantAgent:
        """The agent; with instructions of now, where they change, by the state of the one before."""
        agent = self._agents.get(conversation)
        state = self._states.pop(conversation, None)
        if agent is not None and self._setup.dynamic:
            state = await agent.save_state()
            agent = None
        if agent is None:
            agent = self._agents[conversation] = self._made(conversation)
        if state is not None:
            await agent.load_state(state)
        return agent

    async def asay(self, text: str, *, conversation: str = "one") -> str:
        agent = await self._agent(conversation)
        said = ""
        if self._setup.stream:
            async for event in agent.run_stream(task=text):
                said = event.messages[-1].to_text() if hasattr(event, "messages") else said
            return said
        return (await agent.run(task=text)).messages[-1].to_text()

    async def aclose(self) -> None:
        await self._inner.close()

    def say(self, text: str, *, conversation: str = "one") -> str:
        return self._loop.run(self.asay(text, conversation=conversation))

    def history(self, *, conversation: str = "one") -> list[Message]:
        found = self._loop.run(self._agents[conversation].model_context.get_messages())
        return [ModelHost().to_message(item) for item in found]

    def offer(self, names: Sequence[str]) -> None:
        self._bench.shown, self._bench.order = frozenset(names), tuple(names)

    def redact(self, text: str, *, conversation: str = "one") -> None:
        async def edited() -> None:
            agent = self._agents[conversation]
            state = json.loads(json.dumps(await agent.save_state()).replace(text, "(redacted)"))
            await agent.load_state(state)

        self._loop.run(edited())

    def structured(self, text: str, fields: Mapping[str, type]) -> Mapping[str, Any]:
        if self._setup.wire == "anthropic":
            pytest.skip("the framework's client for Anthropic knows no structured output")
        shape: Any = {name: (each, ...) for name, each in fields.items()}
        kind = create_model("Answer", **shape)
        agent = AssistantAgent(
            "assistant", self.client, system_message=self._setup.instructions(), output_content_type=kind
        )
        result = self._loop.run(agent.run(task=text))
        return result.messages[-1].content.model_dump()

    def saved(self) -> Any:
        return {name: self._loop.run(agent.save_state()) for name, agent in self._agents.items()}

    def close(self) -> None:
        self._loop.run(self._inner.close())
        self._loop.close()


class ChatGroup(Group):
    """A round robin of assistants, each speaking once in a round."""

    def __init__(self, url: str, setup: Setup, personas: Mapping[str, str]) -> None:
        self._loop = Loop()
        self._inner = model_client(url, setup.wire, setup.model)
        self.client = buffered(self._inner, setup)
        self.seam = getattr(self.client, "seam", None)
        mark = persona if setup.mode == "team" else str
        prompts = {name: f"{setup.instructions()}\n\n{mark(text)}" for name, text in personas.items()}
        if setup.mode == "team":
            for name, text in prompts.items():
                self.client.declare(name, system=text)
        agents = [AssistantAgent(name, self.client, system_message=text) for name, text in prompts.items()]
        self.team = RoundRobinGroupChat(agents, max_turns=len(agents))

    def discuss(self, text: str) -> list[tuple[str, str]]:
        result = self._loop.run(self.team.run(task=text))
        return [(each.source, each.to_text()) for each in result.messages[1:]]

    def close(self) -> None:
        self._loop.run(self._inner.close())
        self._loop.close()


def forked(url: str, setup: Setup, tasks: Sequence[str]) -> list[Any]:
    """Each task by a fork of a team of one."""

    def team(client: Any) -> RoundRobinGroupChat:
        agent = AssistantAgent("assistant", client, system_message=setup.instructions())
        return RoundRobinGroupChat([agent], max_turns=1)

    async def run() -> list[Any]:
        inner = model_client(url, setup.wire, setup.model)
        found = await fork_team(team, tasks, client=buffered(inner, setup))
        await inner.close()
        return [each.error if each.result is None else each.result.messages[-1].to_text() for each in found]

    return asyncio.run(run())
