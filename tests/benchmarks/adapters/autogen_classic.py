"""Classic AutoGen with and without llmbuffer, on real requests to a simulated provider.

    python -m tests.benchmarks.adapters.autogen_classic [--json]

Each scenario is run by AutoGen alone, then buffered (``history="ours"`` where AutoGen trims), then as a team. The short
script has agents with 1,500 characters of instructions, as in the recorded requests; the long one more than 4,000 tokens.
``share`` is what of all characters the best earlier request began with. ``hit`` is the share of the input tokens that the
simulated provider read from its cache, ``oracle`` how many times the uncached input of the best possible layout was sent
(``llmbuffer.testing.oracle``: of all agents together for teams, else of each agent by itself). The last rows are a group chat of 3,000 tokens, and four
forks of it. Simulated; the texts are made, and the model says what it is told to.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from tests.properties.captures import reusable, split, text_of

from llmbuffer import Usage
from llmbuffer.reconcile import Policy
from llmbuffer.simulate import Asked, Call, ProviderServer, Reply
from llmbuffer.testing.oracle import measured, oracle
from llmbuffer.testing.scripts import handbook, schema_of, tools

NAMES = ("planner", "coder", "critic")
KEY = "sk-" + "0" * 48
MODELS = {"gpt-5.5": "openai", "gpt-5.6": "openai", "claude-sonnet-5.5": "anthropic"}
REPLY, TASK = 308, 516  # characters, as in the recorded requests


class Row(NamedTuple):
    """One run: what was sent, and what of it could be, and was, read again."""

    script: str
    scenario: str
    model: str
    mode: str
    requests: int
    share: float
    hit: float
    oracle: float


class Scenario(NamedTuple):
    """A chat to be run: ``run(make)`` with what makes the agents and the group of a mode."""

    name: str
    run: Callable[[Chat], None]
    policy: Policy | None = None
    team: bool = True


def filled(begin: str, characters: int) -> str:
    """A text of so many characters."""
    return (begin + " " + handbook(42))[:characters].ljust(characters, ".")


def says(asked: Asked) -> Any:
    """A reply of 308 characters; the next speaker, in order, where that is asked for; a call where there are tools."""
    messages = asked.body["messages"]
    told = str(messages[-1]["content"]) + str(asked.body.get("system", ""))[-400:]
    if "select the next role" in told:
        return NAMES[asked.number // 2 % 3]
    if asked.body.get("tools") and asked.number == 0:
        return Reply(calls=(Call("look_up", '{"number": "7"}', "call_1"),))
    return filled(f"Reply {asked.number}:", REPLY)


class Chat:
    """Makes what a scenario needs, in one mode."""

    def __init__(
        self, url: str, model: str, mode: str | None, system: int | None, policy: Policy | None
    ) -> None:
        self.mode, self.system, self.policy = mode, system, policy
        entry: dict[str, Any] = {"model": model, "api_key": KEY, "base_url": url, "price": [0, 0]}
        if MODELS[model] == "anthropic":
            entry |= {"api_type": "anthropic", "max_tokens": 500}
        self.llm = {"config_list": [entry], "cache_seed": None}

    def instructions(self, name: str) -> str:
        """What an agent is told: who it is, then what all are told."""
        common = handbook(42) if self.system is None else filled("Work carefully.", self.system)
        return f"You are {name}. {common}"

    def agent(self, name: str) -> Any:
        """An agent with a model."""
        from autogen import ConversableAgent

        from llmbuffer_autogen.classic import BufferedConversableAgent

        kind: Any = ConversableAgent if self.mode is None else BufferedConversableAgent
        more = {} if self.mode is None else {"mode": self.mode, "policy": self.policy}
        return kind(
            name,
            self.instructions(name),
            llm_config=self.llm,
            human_input_mode="NEVER",
            description=f"the {name}",
            **more,
        )

    def group(self, method: str, rounds: int, *, limit: int | None = None) -> None:
        """A group chat of three, run to its end."""
        from autogen import ConversableAgent, GroupChat, GroupChatManager

        from llmbuffer_autogen.classic import BufferedGroupChat

        agents = [
            ConversableAgent(
                name,
                self.instructions(name),
                llm_config=self.llm,
                human_input_mode="NEVER",
                description=f"the {name}",
            )
            for name in NAMES
        ]
        if limit is not None:
            limited(agents, limit)
        more = {} if self.mode is None else {"mode": self.mode, "policy": self.policy}
        kind: Any = GroupChat if self.mode is None else BufferedGroupChat
        group = kind(agents=agents, messages=[], max_round=rounds, speaker_selection_method=method, **more)
        manager = GroupChatManager(groupchat=group, llm_config=self.llm)
        user().initiate_chat(manager, message=filled("Task: build it.", TASK), silent=True)


def user(**given: Any) -> Any:
    """Somebody without a model."""
    from autogen import ConversableAgent

    return ConversableAgent("user", llm_config=False, human_input_mode="NEVER", **given)


def limited(agents: Sequence[Any], most: int) -> None:
    """AutoGen's own trimming."""
    from autogen.agentchat.contrib.capabilities.transform_messages import TransformMessages
    from autogen.agentchat.contrib.capabilities.transforms import MessageHistoryLimiter

    for agent in agents:
        TransformMessages(transforms=[MessageHistoryLimiter(most)], verbose=False).add_to_agent(agent)


def with_a_tool(chat: Chat) -> None:
    """Two agents: one calls a tool, the other runs it and asks on."""
    agent = chat.agent("assistant")
    person = user(default_auto_reply="And then?", max_consecutive_auto_reply=4)
    agent.update_tool_signature(schema_of(tools()["look_up"]), is_remove=False)
    person.register_function({"look_up": tools()["look_up"]})
    person.initiate_chat(agent, message="Where is parcel 7?", max_turns=4, silent=True)


SCENARIOS = (
    Scenario("round robin, 3 agents", lambda chat: chat.group("round_robin", 7)),
    Scenario("auto speaker, 3 agents", lambda chat: chat.group("auto", 7)),
    Scenario("two agents, one tool", with_a_tool, team=False),
    Scenario(
        "history limiter (3), 3 agents",
        lambda chat: chat.group("round_robin", 8, limit=3),
        Policy(history="ours", trims=True),
    ),
)


# --- runs


def ran(scenario: Scenario, model: str, mode: str | None, system: int | None) -> tuple[list[Any], Usage]:
    """The bodies of one run, in order, and what the provider says of it."""
    with ProviderServer(replies=says, keep_bodies=True) as server, quiet(), older_anthropic():
        url = server.anthropic_url if MODELS[model] == "anthropic" else server.openai_url
        scenario.run(Chat(url, model, mode, system, scenario.policy))
        failed = [request.error for request in server.requests if request.status != 200]
        assert not failed, failed
        found = sorted(server.requests, key=lambda request: request.number)
        return [request.body for request in found], server.usage()


def rows(script: str, scenario: Scenario, model: str, system: int | None) -> Iterator[Row]:
    """One scenario in its modes."""
    alone, _ = ran(scenario, model, None, system)
    modes: tuple[str | None, ...] = (None, "buffer", "team") if scenario.team else (None, "buffer")
    for mode in modes:
        bodies, usage = ran(scenario, model, mode, system)
        known = best_known(scenario, model, system) or alone
        best = lowest(known) if mode == "team" else sum(map(lowest, by_agent(known)))
        share = reusable([text_of(*split(prompt_of(body))) for body in bodies])
        times = measured(bodies).uncached / best
        yield Row(script, scenario.name, model, mode or "default", len(bodies), share, usage.hit_ratio, times)


def lowest(bodies: Sequence[Any]) -> int:
    """The uncached tokens that no layout of these requests can do without."""
    return oracle(bodies, team=True, rounded=True).uncached


def by_agent(bodies: Sequence[Any]) -> list[list[Any]]:
    """The requests of each agent: of those that begin alike."""
    found: dict[str, list[Any]] = {}
    for body in bodies:
        found.setdefault(prompt_of(body)["messages"][0]["content"][:60], []).append(body)
    return list(found.values())


def best_known(scenario: Scenario, model: str, system: int | None) -> list[Any] | None:
    """Where AutoGen trims and the session does not, the oracle keeps what the model is told then: all of it."""
    if scenario.policy is None or scenario.policy.history != "ours":
        return None
    whole = Scenario(scenario.name, lambda chat: chat.group("round_robin", 8))
    return ran(whole, model, None, system)[0]


def prompt_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """A body with its system text among the messages and without breakpoints."""
    system = body.get("system")
    texts = [system] if isinstance(system, str) else [part["text"] for part in system or ()]
    told = [{"role": "system", "content": text} for text in texts]
    found = json.loads(json.dumps([*told, *body["messages"]]))
    return {"tools": body.get("tools", []), "messages": [flat(each) for each in found]}


def flat(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    for part in content:
        for name in ("cache_control", "prompt_cache_breakpoint"):
            part.pop(name, None)
    if message["role"] == "system":
        return {**message, "content": "".join(part["text"] for part in content)}
    return message


def forks(model: str) -> list[dict[str, Any]]:
    """A group of some 3,000 tokens, and four forks of it side by side."""
    from autogen import ConversableAgent, GroupChatManager

    from llmbuffer_autogen.classic import BufferedGroupChat, fork_group_chat

    with ProviderServer(replies=says) as server, quiet(), older_anthropic():
        url = server.anthropic_url if MODELS[model] == "anthropic" else server.openai_url
        chat = Chat(url, model, None, None, None)
        helper = ConversableAgent("helper", handbook(30), llm_config=chat.llm, human_input_mode="NEVER")
        group = BufferedGroupChat(
            agents=[user(), helper], messages=[], max_round=2, speaker_selection_method="round_robin"
        )
        manager = GroupChatManager(groupchat=group, llm_config=False)
        group.agents[0].initiate_chat(manager, message="Read it, please.", silent=True)
        made = fork_group_chat(group, [f"Task {number}: look into week {number}." for number in range(4)])
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda fork: fork.start(silent=True), made))
        found = sorted(server.requests, key=lambda request: request.number)
        return [
            {
                "model": model,
                "request": "the group" if not number else f"fork {number}",
                "outcome": request.outcome,
                **request.usage.figures(),
            }
            for number, request in enumerate(found)
        ]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """AutoGen prints what is said."""
    logging.getLogger("ag2").propagate = False
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def older_anthropic() -> Iterator[None]:
    """AutoGen's client for Anthropic was made for SDKs before 1, whose ``create`` took a temperature."""
    from inspect import signature

    try:
        from anthropic.resources.messages import Messages
    except ImportError:
        yield
        return
    create: Any = Messages.create
    if "temperature" not in signature(create).parameters:
        Messages.create = _tolerant(create)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Messages.create = create  # type: ignore[method-assign]  # as it was


def _tolerant(create: Any) -> Any:
    def tolerant(self: Any, *, temperature: Any = None, **given: Any) -> Any:
        return create(self, **given)

    return tolerant


def main() -> None:
    parser = argparse.ArgumentParser(description="Classic AutoGen with and without llmbuffer.")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with quiet():
        import autogen  # noqa: F401 - it warns when it is imported
    found = [row for each in SCENARIOS for row in rows("short", each, "gpt-5.5", 1_513)]
    found += [row for model in MODELS for each in SCENARIOS for row in rows("long", each, model, None)]
    forked = [row for model in MODELS for row in forks(model)]
    if arguments.json:
        print(json.dumps({"scenarios": [row._asdict() for row in found], "forks": forked}))
        return
    print(
        f"{'script':6} {'scenario':30} {'model':18} {'mode':8} {'requests':>8} {'share':>7} {'hit':>7} {'oracle':>7}"
    )
    for row in found:
        print(
            f"{row.script:6} {row.scenario:30} {row.model:18} {row.mode:8} {row.requests:8} {row.share:7.1%} "
            f"{row.hit:7.1%} {row.oracle:6.2f}x"
        )
    print(f"\n{'forks of one group':18} {'request':10} {'outcome':8} {'input':>7} {'read':>7} {'written':>8}")
    for each in forked:
        print(
            f"{each['model']:18} {each['request']:10} {each['outcome']:8} {each['input_tokens']:7} "
            f"{each['cache_read_tokens']:7} {each['cache_write_tokens']:8}"
        )


if __name__ == "__main__":
    main()
