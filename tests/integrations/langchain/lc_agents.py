"""Agents and chains of LangChain in front of a simulated provider, as its users write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pydantic
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, dynamic_prompt
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, BaseMessage, FunctionMessage
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from llmbuffer import Message
from llmbuffer.reconcile import persona
from llmbuffer.testing import AdapterExamples, Agent, Group, Setup
from llmbuffer_langchain import BufferedChatModel, BufferedMiddleware, LangChainHost, fork_runnable

KEY: Any = "any"


def model_at(url: str, wire: str, model: str, **options: Any) -> Any:
    """A chat model whose requests go to ``url`` in the format ``wire``, without retries."""
    if wire == "anthropic":
        return ChatAnthropic(model_name=model, api_key=KEY, base_url=url, max_retries=0, **options)
    responses = wire == "openai-responses"
    return ChatOpenAI(
        model=model, api_key=KEY, base_url=url, max_retries=0, use_responses_api=responses, **options
    )


class Offering(AgentMiddleware):
    """Offers some of the agent's tools, in an order of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.tools: list[Any] = []
        self.names: Sequence[str] | None = None

    def _offered(self, request: Any) -> Any:
        if self.names is None:
            return request
        known = {tool.name: tool for tool in request.tools}
        return request.override(tools=[known[name] for name in self.names])

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        return handler(self._offered(request))

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        return await handler(self._offered(request))


class LangChainAgent(Agent):
    """``create_agent`` with a checkpointer, a thread for each conversation."""

    def __init__(self, url: str, setup: Setup, saver: Any = None) -> None:
        self.setup, self.saver = setup, InMemorySaver() if saver is None else saver
        self.model = model_at(url, setup.wire, setup.model, **({"streaming": True} if setup.stream else {}))
        self.offering = Offering()
        self.middleware: list[Any] = [self.offering]
        self.buffering: BufferedMiddleware | None = None
        if setup.dynamic:
            self.middleware.insert(0, dynamic_prompt(lambda request: setup.instructions()))
        if setup.mode is not None:
            self.buffering = BufferedMiddleware(mode=setup.mode, policy=setup.policy, session=setup.session)
            self.buffering.model(self.model)
            self.seam = self.buffering.seam
            self.middleware.append(self.buffering)
        self.graph = self.made()

    def made(self, **options: Any) -> Any:
        system = None if self.setup.dynamic else self.setup.instructions()
        return create_agent(
            self.model,
            list(self.setup.tools.values()),
            system_prompt=system,
            middleware=self.middleware,
            checkpointer=self.saver,
            **options,
        )

    def say(self, text: str, *, conversation: str = "one") -> str:
        config = {"configurable": {"thread_id": conversation}}
        state = self.graph.invoke({"messages": [("user", text)]}, config)
        return str(state["messages"][-1].text)

    async def asay(self, text: str, *, conversation: str = "one") -> str:
        config = {"configurable": {"thread_id": conversation}}
        state = await self.graph.ainvoke({"messages": [("user", text)]}, config)
        return str(state["messages"][-1].text)

    def kept(self, conversation: str = "one") -> list[BaseMessage]:
        values = self.graph.get_state({"configurable": {"thread_id": conversation}}).values
        found: list[BaseMessage] = values.get("messages", [])
        return found

    def history(self, *, conversation: str = "one") -> list[Message]:
        host = LangChainHost()
        return [host.to_message(message) for message in self.kept(conversation)]

    def offer(self, names: Sequence[str]) -> None:
        self.offering.names = names

    def redact(self, text: str, *, conversation: str = "one") -> None:
        config = {"configurable": {"thread_id": conversation}}
        for message in self.kept(conversation):
            if text in message.text:
                shown = message.model_copy(update={"content": message.text.replace(text, "(redacted)")})
                self.graph.update_state(config, {"messages": [shown]}, as_node="model")

    def structured(self, text: str, fields: Mapping[str, type]) -> Mapping[str, Any]:
        made: Any = {name: (kind, ...) for name, kind in fields.items()}
        graph = self.made(response_format=pydantic.create_model("Answer", **made))
        config = {"configurable": {"thread_id": "structured"}}
        state = graph.invoke({"messages": [("user", text)]}, config)
        found: Mapping[str, Any] = state["structured_response"].model_dump()
        return found

    def saved(self) -> Any:
        return self.saver


class LangGraphGroup(Group):
    """A graph of agents with shared messages: each speaks once a round."""

    def __init__(self, url: str, setup: Setup, personas: Mapping[str, str]) -> None:
        model = model_at(url, setup.wire, setup.model)
        team = setup.mode == "team"
        prompts = {
            name: f"{setup.instructions()}\n\n{persona(text) if team else text}"
            for name, text in personas.items()
        }
        if setup.mode is not None:
            model = BufferedChatModel(
                model, mode=setup.mode, policy=setup.policy, session=setup.session, members=prompts
            )
            self.seam = model.seam
        graph: Any = StateGraph(MessagesState)
        last: Any = START
        for name, prompt in prompts.items():
            graph.add_node(name, _speaker(model, name, prompt))
            graph.add_edge(last, name)
            last = name
        self.graph = graph.compile(checkpointer=InMemorySaver())

    def discuss(self, text: str) -> list[tuple[str, str]]:
        config = {"configurable": {"thread_id": "group"}}
        state = self.graph.invoke({"messages": [("user", text)]}, config)
        messages = state["messages"]
        last = max(index for index, message in enumerate(messages) if message.type == "human")
        return [(message.name, message.text) for message in messages[last + 1 :]]


def _speaker(model: Any, name: str, prompt: str) -> Any:
    def speak(state: Any) -> Any:
        reply = model.invoke([("system", prompt), *state["messages"]])
        return {"messages": [AIMessage(reply.content, name=name)]}

    return speak


class LangChainExamples(AdapterExamples):
    """What the contract needs to know about this adapter."""

    capabilities = frozenset(
        {
            "tools", "parallel-tools", "hides", "async", "stream", "dynamic", "edits", "conversations", "structured",
            "persistence", "fan-out", "team",
        }
    )  # fmt: skip
    served = (
        ("openai", "gpt-5.5"),
        ("openai", "gpt-5.6"),
        ("openai-responses", "gpt-5.5"),
        ("anthropic", "claude-sonnet-5.5"),
    )
    marked = ("anthropic", "claude-sonnet-5.5")

    def host(self) -> Any:
        return LangChainHost()

    def agent(self, url: str, setup: Setup) -> LangChainAgent:
        return LangChainAgent(url, setup)

    def restored(self, url: str, setup: Setup, saved: Any) -> LangChainAgent:
        return LangChainAgent(url, setup, saved)

    def group(self, url: str, setup: Setup, personas: Mapping[str, str]) -> LangGraphGroup:
        return LangGraphGroup(url, setup, personas)

    def unreadable(self) -> Any:
        return FunctionMessage("It is in Lyon.", name="look_up")

    def fan_out(self, url: str, setup: Setup, tasks: Sequence[str]) -> list[Any]:
        agent = LangChainAgent(url, setup)
        forks = fork_runnable(agent.graph, len(tasks))

        def run(fork: Any, task: str) -> Any:
            try:
                return fork.invoke({"messages": [("user", task)]})["messages"][-1].text
            except Exception as error:  # noqa: BLE001  # what came of a task that failed is its error
                return error

        with ThreadPoolExecutor(len(tasks)) as pool:
            return list(pool.map(run, forks, tasks))
