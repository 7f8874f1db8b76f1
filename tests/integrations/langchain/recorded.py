"""The scenarios whose requests were recorded in `../shared/captures`, run again with the framework that is installed.

Their texts are read from the recording, so nothing runs where it is absent. `matches` tells whether LangChain alone still
sends what was recorded.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ClearToolUsesEdit,
    ContextEditingMiddleware,
    SummarizationMiddleware,
    before_model,
    dynamic_prompt,
)
from langchain_anthropic.middleware import AnthropicPromptCachingMiddleware
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from tests.integrations.langchain.lc_agents import model_at
from tests.integrations.langchain.scenarios import Kept, Ways

from llmbuffer.dialects.openai_chat import OpenAIChat
from llmbuffer.reconcile import Policy, persona
from llmbuffer.simulate import Asked, Call, ProviderServer, Reply

CAPTURES = Path(__file__).resolve().parents[4] / "shared" / "captures" / "langchain.jsonl.gz"
PROMPT = ("tools", "system", "messages", "input", "instructions")
Body = Mapping[str, Any]


@cache
def recording() -> dict[str, list[Body]]:
    """The bodies of each scenario, in order."""
    found: dict[str, list[Body]] = {}
    with gzip.open(CAPTURES, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            found.setdefault(row["scenario"], []).append(row["body"])
    return found


def _users(scenario: str) -> list[str]:
    """What the user says in a scenario, each text once, in order."""
    texts: list[str] = []
    for body in recording()[scenario]:
        messages = body.get("messages") or body["input"]
        texts += [
            each["content"]
            for each in messages
            if each.get("role") == "user" and each["content"] not in texts
        ]
    return texts


def system() -> str:
    """The system text that all scenarios share."""
    text: str = recording()["agent_default"][0]["messages"][0]["content"]
    return text


def lookup_order(order_id: str) -> str:
    """Look up an order by its id."""
    told: str = recording()["agent_default"][1]["messages"][-1]["content"]
    return told.replace("order 1:", f"order {order_id}:", 1)


def refund(order_id: str, amount: float) -> str:
    """Refund an order."""
    return f"refunded {amount} for {order_id}"


def _thread(name: str = "one") -> Any:
    return {"configurable": {"thread_id": name, "session_id": name}}


def _agent(
    model: Any, ways: Ways, *middleware: Any, inner: Sequence[Any] = (), tools: Any = None, **options: Any
) -> Any:
    return create_agent(
        model,
        [lookup_order, refund] if tools is None else tools,
        middleware=[*middleware, *ways.middleware(model), *inner],
        checkpointer=InMemorySaver(),
        **options,
    )


def _say(agent: Any, texts: Sequence[str]) -> None:
    for text in texts:
        agent.invoke({"messages": [("user", text)]}, _thread())


QUESTIONS = "agent_default"


def agent_default(model: Any, ways: Ways) -> None:
    _say(_agent(model, ways, system_prompt=system()), _users(QUESTIONS))


def agent_dynamic_prompt(model: Any, ways: Ways) -> None:
    calls = [-1]

    def prompt(request: Any) -> str:
        calls[0] += 1
        return f"{system()}\nCurrent time: {ways.now('now', f'10:{calls[0]:02}')}"

    _say(_agent(model, ways, dynamic_prompt(prompt)), _users(QUESTIONS))


def agent_context_editing(model: Any, ways: Ways) -> None:
    edit = ContextEditingMiddleware(edits=[ClearToolUsesEdit(trigger=50, keep=1, placeholder="[cleared]")])
    _say(_agent(model, ways, inner=[edit], system_prompt=system()), _users(QUESTIONS))


def agent_summarization(model: Any, ways: Ways) -> None:
    summarizing = SummarizationMiddleware(model, trigger=("messages", 6), keep=("messages", 3))
    _say(_agent(model, ways, summarizing, system_prompt=system()), _users(QUESTIONS))


class _Tail(AgentMiddleware):
    """A user's own middleware that appends a message to each request."""

    def __init__(self, text: str, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.tools: list[Any] = []
        self._text, self._settings = text, dict(settings)

    def _with_tail(self, request: Any) -> Any:
        messages = [*request.messages, HumanMessage(self._text)]
        return request.override(messages=messages, model_settings=self._settings)

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        return handler(self._with_tail(request))

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        return await handler(self._with_tail(request))


def agent_wrap_model_call_tail(model: Any, ways: Ways) -> None:
    tail = _Tail("[dynamic tail] now=10:00", {"prompt_cache_key": "k1"})
    _say(_agent(model, ways, tail, system_prompt=system()), _users(QUESTIONS))


def async_stream_agent(model: Any, ways: Ways) -> None:
    agent = _agent(model, ways, _Tail("TAIL", {}), tools=[lookup_order], system_prompt=system())

    async def run() -> None:
        asked = {"messages": [("user", "q0")]}
        async for _ in agent.astream(asked, _thread(), stream_mode="messages"):
            pass

    asyncio.run(run())


def _with_history(model: Any, ways: Ways, text: str, values: Callable[[int], dict[str, str]]) -> None:
    from langchain_core.runnables.history import RunnableWithMessageHistory

    prompt = ChatPromptTemplate.from_messages(
        [("system", text), MessagesPlaceholder("history"), ("human", "{input}")]
    )
    history = Kept()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chain = RunnableWithMessageHistory(
            prompt | ways.model(model),
            lambda session_id: history,
            input_messages_key="input",
            history_messages_key="history",
        )
    for number, said in enumerate(_users("rwmh_stable_system")):
        chain.invoke({"input": said, **values(number)}, _thread())


def rwmh_stable_system(model: Any, ways: Ways) -> None:
    _with_history(model, ways, system(), lambda number: {})


def rwmh_dynamic_system(model: Any, ways: Ways) -> None:
    changing = ways.now("context", "Now: {now}\nContext: {context}")
    _with_history(
        model,
        ways,
        f"{system()}\n{changing}",
        lambda number: {"now": f"2026-11-21T10:{number:02}:00", "context": f"doc chunk {number} " * 30},
    )


def stream_and_callbacks(model: Any, ways: Ways) -> None:
    buffered, asked = ways.model(model), [SystemMessage(system()), HumanMessage("hi")]
    for _ in buffered.stream(asked, stream_usage=True):
        pass
    buffered.invoke(asked)


def langgraph_3_agents_shared_messages(model: Any, ways: Ways) -> None:
    roles = {name: f"You are {name}. " for name in ("planner", "coder", "critic")}
    if ways.mode == "team":
        roles = {name: persona(role) for name, role in roles.items()}
    prompts = {name: f"{role}{system()}" for name, role in roles.items()}
    buffered, last = ways.model(model, prompts), START
    graph: Any = StateGraph(MessagesState)

    def speaker(name: str) -> Any:
        def speak(state: Any) -> Any:
            reply = buffered.invoke([SystemMessage(prompts[name]), *state["messages"]])
            return {"messages": [AIMessage(reply.content, name=name)]}

        return speak

    for name in prompts:
        graph.add_node(name, speaker(name))
        graph.add_edge(last, name)
        last = name
    _say(graph.compile(checkpointer=InMemorySaver()), _users("langgraph_3_agents_shared_messages"))


def checkpoint_fork(model: Any, ways: Ways) -> None:
    agent = _agent(model, ways, tools=[lookup_order], system_prompt=system())
    _say(agent, ["q0", "q1", "q2"])
    earlier = [
        state for state in agent.get_state_history(_thread()) if len(state.values.get("messages", ())) == 4
    ]
    agent.invoke({"messages": [("user", "forked q")]}, earlier[0].config)


def before_model_window_trim(model: Any, ways: Ways) -> None:
    @before_model
    def trim(state: Any, runtime: Any) -> Any:
        messages = state["messages"]
        if len(messages) <= 3:
            return None
        return {"messages": [RemoveMessage(REMOVE_ALL_MESSAGES), *messages[-3:]]}

    agent = _agent(model, ways, trim, tools=[], system_prompt=system())
    _say(agent, _users("before_model_window_trim"))


def anthropic_prompt_caching_middleware(model: Any, ways: Ways) -> None:
    marking = AnthropicPromptCachingMiddleware(ttl="1h")
    _say(_agent(model, ways, marking, tools=[lookup_order], system_prompt=system()), ["q0", "q1"])


def openai_explicit_breakpoint(model: Any, ways: Ways) -> None:
    block = {"type": "text", "text": system(), "prompt_cache_breakpoint": {"mode": "explicit"}}
    asked = [SystemMessage([block]), HumanMessage("hi")]
    options: Any = {"prompt_cache_options": {"mode": "explicit", "ttl": "30m"}}
    ways.model(model).invoke(asked, prompt_cache_key="k", **options)
    ways.model(model.model_copy(update={"use_responses_api": True})).invoke(asked, prompt_cache_key="k")


class Recorded(NamedTuple):
    """One scenario, and what its user declares where prompts are buffered."""

    run: Callable[[Any, Ways], None]
    policy: Policy | None = None
    marks: bool = False
    wire: str = "openai"
    team: bool = False
    rules: Any = None


SCENARIOS = {
    each.run.__name__: each
    for each in (
        Recorded(rwmh_stable_system),
        Recorded(rwmh_dynamic_system, marks=True),
        Recorded(agent_default),
        Recorded(agent_dynamic_prompt),
        Recorded(agent_summarization),
        Recorded(agent_context_editing, Policy(history="ours", cleared=("[cleared]",))),
        Recorded(agent_wrap_model_call_tail),
        Recorded(stream_and_callbacks),
        Recorded(langgraph_3_agents_shared_messages, team=True),
        Recorded(checkpoint_fork),
        Recorded(before_model_window_trim, Policy(history="ours", trims=True)),
        Recorded(anthropic_prompt_caching_middleware, wire="anthropic"),
        Recorded(openai_explicit_breakpoint, rules={"gpt-4o": OpenAIChat().bind("gpt-5.6").rules}),
        Recorded(async_stream_agent),
    )
}
SCENARIOS["agent_responses_api"] = Recorded(agent_default, wire="openai-responses")


def _replies() -> Callable[[Asked], Reply]:
    """`reply N` to the N-th request; to a question about an order, a call that looks it up."""
    count = [0]

    def answer(asked: Asked) -> Reply:
        count[0] += 1
        last = (asked.body.get("messages") or asked.body["input"])[-1]
        if last.get("content", "") == "[dynamic tail] now=10:00":
            last = asked.body["messages"][-2]
        if asked.body.get("tools") and str(last.get("content", "")).startswith("question"):
            arguments = json.dumps({"order_id": str(count[0])})
            return Reply("", calls=(Call("lookup_order", arguments, f"call_{count[0]}"),))
        return Reply(f"reply {count[0]}")

    return answer


def bodies_of(name: str, ways: Ways) -> list[Body]:
    """What a scenario sends."""
    found = SCENARIOS[name]
    with ProviderServer(replies=_replies(), keep_bodies=True, rules=found.rules) as server:
        anthropic = found.wire == "anthropic"
        model = "claude-sonnet-4-5" if anthropic else "gpt-4o"
        found.run(model_at(server.anthropic_url if anthropic else server.openai_url, found.wire, model), ways)
        return [request.body or {} for request in server.requests]


def prompt_of(body: Body) -> str:
    """Tools, system text and messages as they were sent; the simulated provider's own ids do not count."""
    told = {key: body[key] for key in PROMPT if key in body}
    for item in told.get("input", ()):
        if isinstance(item, dict) and "id" in item:
            item.pop("id")
    return json.dumps(told)


def matches(name: str, bodies: Sequence[Body]) -> bool:
    """Whether these are the prompts that were recorded."""
    return [prompt_of(body) for body in bodies] == [prompt_of(body) for body in recording()[name]]
