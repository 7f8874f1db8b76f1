"""CrewAI agents as the contract wants them made and driven: conversations by ``agent.kickoff`` with a list."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from crewai import LLM
from crewai import Agent as CrewAgent
from crewai.tools import tool
from pydantic import create_model

from llmbuffer import Message
from llmbuffer.testing.adapters import AdapterExamples, Agent, Setup
from llmbuffer_crewai import AgentFactory, BufferedLLM
from llmbuffer_crewai.hosting import CrewHost

PROVIDERS = {"openai": "openai", "openai-responses": "openai", "anthropic": "anthropic"}


def make_llm(url: str, setup: Setup) -> Any:
    """An LLM of CrewAI's for a setup, without retries."""
    options: dict[str, Any] = {"api": "responses"} if setup.wire == "openai-responses" else {}
    model = f"{PROVIDERS[setup.wire]}/{setup.model}"
    return LLM(model=model, base_url=url, api_key="any", max_retries=0, stream=setup.stream, **options)


def close_clients(llm: Any) -> None:
    """Close the SDK's clients of an LLM."""
    client, waiting = getattr(llm, "_client", None), getattr(llm, "_async_client", None)
    if client is not None:
        client.close()
    if waiting is not None:
        asyncio.run(waiting.close())


class CrewAIAgent(Agent):
    """One agent, and the conversations that its user keeps."""

    def __init__(self, url: str, setup: Setup) -> None:
        self._setup = setup
        llm = make_llm(url, setup)
        if setup.mode is not None:
            llm = BufferedLLM(llm, mode=setup.mode, policy=setup.policy, session=setup.session)
            self.seam = llm.seam
        self._tools = {name: tool(name)(function) for name, function in setup.tools.items()}
        self._agent = CrewAgent(
            role="Clerk",
            goal="Answer.",
            backstory=setup.instructions(),
            llm=llm,
            tools=list(self._tools.values()),
        )
        self._said: dict[str, list[dict[str, Any]]] = {}

    def _asks(self, text: str, conversation: str) -> list[dict[str, Any]]:
        self._agent.backstory = self._setup.instructions()
        return [*self._said.get(conversation, []), {"role": "user", "content": text}]

    def _keep(self, asked: list[dict[str, Any]], answer: str, conversation: str) -> str:
        self._said[conversation] = [*asked, {"role": "assistant", "content": answer}]
        return answer

    def say(self, text: str, *, conversation: str = "one") -> str:
        """One turn."""
        asked = self._asks(text, conversation)
        return self._keep(asked, self._agent.kickoff(asked).raw, conversation)

    async def asay(self, text: str, *, conversation: str = "one") -> str:
        """One turn, awaited."""
        asked = self._asks(text, conversation)
        output = await self._agent.kickoff_async(asked)
        return self._keep(asked, output.raw, conversation)

    def history(self, *, conversation: str = "one") -> list[Message]:
        """What the user keeps and hands over."""
        host = CrewHost()
        return [host.to_message(item) for item in self._said.get(conversation, [])]

    def offer(self, names: Sequence[str]) -> None:
        """From now on, these tools."""
        self._agent.tools = [self._tools[name] for name in names]

    def redact(self, text: str, *, conversation: str = "one") -> None:
        """Take a text out of the history."""
        self._said[conversation] = [
            {**item, "content": item["content"].replace(text, "(redacted)")}
            for item in self._said[conversation]
        ]

    def close(self) -> None:
        """Close the clients that CrewAI leaves open."""
        llm = self._agent.llm
        close_clients(getattr(llm, "inner", llm))

    def structured(self, text: str, fields: Mapping[str, type]) -> Mapping[str, Any]:
        """An object of these fields."""
        shape: Any = {name: (kind, ...) for name, kind in fields.items()}
        wanted: Any = create_model("Answer", **shape)
        output = self._agent.kickoff(text, response_format=wanted)
        assert output.pydantic is not None, "the agent gives an object"
        found: dict[str, Any] = output.pydantic.model_dump()
        return found


class CrewAIExamples(AdapterExamples):
    """How the contract drives CrewAI."""

    capabilities = frozenset(
        {
            "tools",
            "parallel-tools",
            "hides",
            "async",
            "stream",
            "dynamic",
            "edits",
            "conversations",
            "structured",
            "fan-out",
        }
    )
    served = (("openai", "gpt-5.5"), ("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-4-5"))
    marked = ("openai", "gpt-5.6")
    scaffolding = (r"\nCurrent Task: ", r"\n\nProvide your complete response:")

    def host(self) -> CrewHost:
        """The adapter's host."""
        return CrewHost()

    def agent(self, url: str, setup: Setup) -> Agent:
        """An agent."""
        return CrewAIAgent(url, setup)

    def unreadable(self) -> Any:
        """A message with a part of a kind that nobody knows."""
        return {"role": "user", "content": [{"type": "hologram", "data": "abc"}]}

    def fan_out(self, url: str, setup: Setup, tasks: Sequence[str]) -> list[Any]:
        """A crew for each task."""
        assert setup.session is not None, "forks need a session"
        session = setup.session.fork(system=setup.instructions())
        factory = AgentFactory(session, llm=make_llm(url, setup))
        clerk = factory.agent("Clerk", "Answer.")
        factory.crew(tasks=[factory.task("{task}", "An answer.", clerk)])
        results = factory.fork_crew([{"task": task} for task in tasks])
        return [result.text if result.ok else result.error for result in results]


def awaited(coroutine: Any) -> Any:
    """Run it in a loop of its own."""
    return asyncio.run(coroutine)
