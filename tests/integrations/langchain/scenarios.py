"""What LangChain's users write, on the script of all adapters: run alone, and with the buffered objects swapped in."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pydantic
from langchain.agents import create_agent
from langchain.agents.middleware import (
    ClearToolUsesEdit,
    ContextEditingMiddleware,
    before_model,
    dynamic_prompt,
)
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage, RemoveMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES

from llmbuffer.reconcile import Policy, dynamic_text, persona
from llmbuffer.simulate import Reply
from llmbuffer.testing.scripts import Script, clock, passage, personas, standard_script
from llmbuffer_langchain import BufferedChatModel, BufferedMiddleware

SCRIPT: Script = standard_script(8)
TALK: Script = standard_script(8, with_tools=False)
THREAD: Any = {"configurable": {"thread_id": "one", "session_id": "one"}}
PLACEHOLDER = "[cleared]"


class Ways:
    """How a scenario is run: ``mode`` is ``None`` without llmbuffer; ``marks`` declares dynamic text by ``dynamic_text``."""

    def __init__(self, mode: Any = None, policy: Policy | None = None, *, marks: bool = False) -> None:
        self.mode, self.policy, self.marks = mode, policy, marks and mode is not None
        self.seams: list[Any] = []

    def model(self, model: Any, members: Any = None) -> Any:
        """The model, buffered as asked; ``members`` are those of a team with their system prompts."""
        if self.mode is None:
            return model
        made = BufferedChatModel(model, mode=self.mode, policy=self.policy, members=members)
        self.seams.append(made.seam)
        return made

    def middleware(self, model: Any) -> list[Any]:
        """The middleware to put behind all others."""
        if self.mode is None:
            return []
        made = BufferedMiddleware(mode=self.mode, policy=self.policy)
        made.model(model)
        self.seams.append(made.seam)
        return [made]

    def now(self, name: str, value: str) -> str:
        """A value that changes, as the user of llmbuffer writes it."""
        return dynamic_text(name, value) if self.marks else value


class Scene(NamedTuple):
    """A scenario: ``run`` gives the messages that are kept in the end; ``options`` are what the user declares for it."""

    name: str
    run: Callable[[Any, Ways], Sequence[BaseMessage]]
    replies: Callable[[], list[Any]] = SCRIPT.replies
    policy: Policy | None = None
    marks: bool = False


def _talk(
    agent: Any, turns: Sequence[Any], before: Callable[[int], object] = lambda turn: None
) -> list[BaseMessage]:
    for number, turn in enumerate(turns):
        before(number)
        agent.invoke({"messages": [("user", turn.user)]}, THREAD)
    found: list[BaseMessage] = agent.get_state(THREAD).values["messages"]
    return found


def parallel_tools(model: Any, ways: Ways) -> Sequence[BaseMessage]:
    """An agent with four tools; a third of its turns call two at once."""
    agent = create_agent(
        model,
        list(SCRIPT.tools.values()),
        system_prompt=SCRIPT.system,
        middleware=ways.middleware(model),
        checkpointer=InMemorySaver(),
    )
    return _talk(agent, SCRIPT.turns)


def _dynamic(
    model: Any, ways: Ways, text: Callable[[], str], before: Callable[[int], object]
) -> Sequence[BaseMessage]:
    agent = create_agent(
        model,
        list(SCRIPT.tools.values()),
        middleware=[dynamic_prompt(lambda request: text()), *ways.middleware(model)],
        checkpointer=InMemorySaver(),
    )
    return _talk(agent, SCRIPT.turns, before)


def clock_and_context(model: Any, ways: Ways) -> Sequence[BaseMessage]:
    """The time and what was found for the turn stand in the system prompt, which goes on behind them."""
    now = [0]

    def text() -> str:
        changing = f"The time is {clock(now[0])}.\nNotes:\n{passage(now[0])}"
        return f"{ways.now('context', changing)}\n\n{SCRIPT.system}"

    return _dynamic(model, ways, text, lambda turn: now.__setitem__(0, turn))


def clock_at_each_call(model: Any, ways: Ways) -> Sequence[BaseMessage]:
    """``@dynamic_prompt`` with the time of each call."""
    calls = [0]

    def text() -> str:
        calls[0] += 1
        return f"{SCRIPT.system}\nThe time is {ways.now('now', clock(calls[0]))}.\nNever promise an hour."

    return _dynamic(model, ways, text, lambda turn: None)


class Kept(BaseChatMessageHistory):
    """A history in memory."""

    def __init__(self) -> None:
        self.messages: list[BaseMessage] = []

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        self.messages.extend(messages)

    def clear(self) -> None:
        self.messages.clear()


def message_history(model: Any, ways: Ways) -> Sequence[BaseMessage]:
    """``RunnableWithMessageHistory`` around a chain whose system message has the time and the context in it."""
    from langchain_core.runnables.history import RunnableWithMessageHistory

    changing = "The time is {now}.\nNotes:\n{context}"
    system = f"{ways.now('context', changing)}\n\n{TALK.system}"
    prompt = ChatPromptTemplate.from_messages(
        [("system", system), MessagesPlaceholder("history"), ("human", "{input}")]
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
    for number, turn in enumerate(TALK.turns):
        chain.invoke({"input": turn.user, "now": clock(number), "context": passage(number)}, THREAD)
    return history.messages


def retrieval(model: Any, ways: Ways) -> Sequence[BaseMessage]:
    """A retrieval chain in LCEL: what was found stands in the system message, the history is handed over."""
    system = f"{TALK.system}\n\nAnswer from these notes:\n{ways.now('notes', '{notes}')}"
    prompt = ChatPromptTemplate.from_messages(
        [("system", system), MessagesPlaceholder("history"), ("human", "{input}")]
    )
    chain = prompt | ways.model(model)
    history: list[BaseMessage] = []
    for number, turn in enumerate(TALK.turns):
        asked = {"input": turn.user, "notes": passage(number), "history": history}
        reply = chain.invoke(asked)
        history = [*history, *prompt.invoke(asked).to_messages()[-1:], reply]
    return history


def window_trim(model: Any, ways: Ways) -> Sequence[BaseMessage]:
    """``before_model`` keeps the last messages only."""

    @before_model
    def trim(state: Any, runtime: Any) -> Any:
        messages = state["messages"]
        starts = [index for index, each in enumerate(messages) if each.type == "human"]
        if len(starts) <= 3:
            return None
        return {"messages": [RemoveMessage(REMOVE_ALL_MESSAGES), *messages[starts[-3] :]]}

    agent = create_agent(
        model,
        list(SCRIPT.tools.values()),
        system_prompt=SCRIPT.system,
        middleware=[trim, *ways.middleware(model)],
        checkpointer=InMemorySaver(),
    )
    return _talk(agent, SCRIPT.turns)


def context_editing(model: Any, ways: Ways) -> Sequence[BaseMessage]:
    """``ContextEditingMiddleware`` clears the results of older tool calls."""
    edit = ClearToolUsesEdit(trigger=100, keep=2, placeholder=PLACEHOLDER)
    agent = create_agent(
        model,
        list(SCRIPT.tools.values()),
        system_prompt=SCRIPT.system,
        middleware=[*ways.middleware(model), ContextEditingMiddleware(edits=[edit])],
        checkpointer=InMemorySaver(),
    )
    return _talk(agent, SCRIPT.turns)


class Answer(pydantic.BaseModel):
    """The answer to a customer."""

    city: str
    days: int


def structured(model: Any, ways: Ways) -> Sequence[BaseMessage]:
    """``create_agent(response_format=…)``; the time stands in the system prompt."""
    now = [0]

    def text() -> str:
        return f"The time is {ways.now('now', clock(now[0]))}.\n{SCRIPT.system}"

    agent = create_agent(
        model,
        list(SCRIPT.tools.values()),
        middleware=[dynamic_prompt(lambda request: text()), *ways.middleware(model)],
        response_format=Answer,
        checkpointer=InMemorySaver(),
    )
    return _talk(agent, TALK.turns, lambda turn: now.__setitem__(0, turn))


def _objects() -> list[Any]:
    return [Reply(f'{{"city": "Lyon", "days": {turn}}}') for turn in range(len(TALK.turns))]


OURS = Policy(history="ours", trims=True)
CLEARS = Policy(history="ours", cleared=(PLACEHOLDER,))
SCENES = (
    Scene("parallel tools", parallel_tools),
    Scene("clock and context in the system prompt", clock_and_context, marks=True),
    Scene("dynamic prompt, clock at each call", clock_at_each_call, marks=True),
    Scene("RunnableWithMessageHistory, dynamic system", message_history, TALK.replies, marks=True),
    Scene("retrieval chain", retrieval, TALK.replies, marks=True),
    Scene("structured output", structured, _objects, marks=True),
    Scene("window trim (history='ours')", window_trim, policy=OURS),
    Scene("context editing (history='ours')", context_editing, policy=CLEARS),
)


def group(model: Any, ways: Ways, rounds: int = 3) -> Sequence[BaseMessage]:
    """A graph of three agents with a system prompt each and shared messages; each speaks once a round."""
    prompts = {name: f"{_as_persona(ways, text)}\n\n{TALK.system}" for name, text in personas().items()}
    buffered = ways.model(model, prompts)
    graph: Any = StateGraph(MessagesState)
    last: Any = START
    for name, prompt in prompts.items():
        graph.add_node(name, _speaker(buffered, name, prompt))
        graph.add_edge(last, name)
        last = name
    made = graph.compile(checkpointer=InMemorySaver())
    for turn in TALK.turns[:rounds]:
        made.invoke({"messages": [("user", turn.user)]}, THREAD)
    found: list[BaseMessage] = made.get_state(THREAD).values["messages"]
    return found


def _as_persona(ways: Ways, text: str) -> str:
    return persona(text) if ways.mode == "team" else text


def _speaker(model: Any, name: str, prompt: str) -> Any:
    def speak(state: Any) -> Any:
        reply = model.invoke([("system", prompt), *state["messages"]])
        reply.name = name
        return {"messages": [reply]}

    return speak


def said_in_group(rounds: int = 3) -> list[str]:
    """What the members of ``group`` say, in order."""
    return [f"Remark {number} of the round, to which nobody objects." for number in range(3 * rounds)]
