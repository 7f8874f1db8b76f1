"""Teams say and do what they do without llmbuffer: speakers, tools, handoffs, ends, and the bytes in observe mode."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import TaskResult
from autogen_agentchat.conditions import HandoffTermination, MaxMessageTermination, TextMentionTermination
from autogen_agentchat.teams import (
    DiGraphBuilder,
    GraphFlow,
    MagenticOneGroupChat,
    RoundRobinGroupChat,
    SelectorGroupChat,
    Swarm,
)
from tests.integrations.agentchat.ac_agents import model_client

from llmbuffer.simulate import Call, ProviderServer, Reply
from llmbuffer.testing.adapter.stage import changed, texts_of
from llmbuffer.testing.scripts import handbook
from llmbuffer_autogen.agentchat import BufferedChatCompletionClient, persona

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
NAMES = ("planner", "coder", "critic")
HANDBOOK = handbook(14)
Runs = list[str]
Scene = Callable[[Any, Runs], Awaitable[list[TaskResult]]]


def prompt(name: str) -> str:
    return f"{HANDBOOK}\n{persona(f'You are the {name}.')}"


def agents(client: Any, **options: Any) -> list[AssistantAgent]:
    return [AssistantAgent(name, client, system_message=prompt(name), **options) for name in NAMES]


def tools(runs: Runs) -> list[Any]:
    def look_up(number: str) -> str:
        """Look up a parcel."""
        runs.append(number)
        return f"Parcel {number} is in Lyon."

    return [look_up]


async def round_robin(client: Any, runs: Runs) -> list[TaskResult]:
    team = RoundRobinGroupChat(
        agents(client, tools=tools(runs), reflect_on_tool_use=True),
        termination_condition=TextMentionTermination("APPROVED") | MaxMessageTermination(40),
    )
    return [await team.run(task="Build it."), await team.run(task="Once more.")]


ROUND_ROBIN = [
    "A plan.", Reply(calls=(Call("look_up", '{"number": "7"}', "c1"),)), "It is in Lyon.", "APPROVED",
    "Another plan.", "Done.", "APPROVED",
]  # fmt: skip


async def limited(client: Any, runs: Runs) -> list[TaskResult]:
    return [await RoundRobinGroupChat(agents(client), max_turns=4).run(task="Build it.")]


async def selector(client: Any, runs: Runs) -> list[TaskResult]:
    team = SelectorGroupChat(agents(client), client, max_turns=4)
    return [await team.run(task="Build it.")]


SELECTOR = ["planner", "A plan. ", "coder", "The code.", "critic", "Too long.", "coder", "Shorter."]


async def swarm(client: Any, runs: Runs) -> list[TaskResult]:
    members = [
        AssistantAgent(
            name,
            client,
            system_message=prompt(name),
            tools=tools(runs) if name == "coder" else None,
            handoffs=[*(other for other in NAMES if other != name), "user"],
        )
        for name in NAMES
    ]
    return [
        await Swarm(members, termination_condition=HandoffTermination("user")).run(task="Where is parcel 7?")
    ]


SWARM = [
    Reply(calls=(Call("transfer_to_coder", "{}", "h1"),)),
    Reply(calls=(Call("look_up", '{"number": "7"}', "c1"),)),
    Reply(calls=(Call("transfer_to_critic", "{}", "h2"),)),
    "It is in Lyon, I think.",
    Reply(calls=(Call("transfer_to_user", "{}", "h3"),)),
]


async def graph(client: Any, runs: Runs) -> list[TaskResult]:
    members = agents(client)
    flow = DiGraphBuilder()
    for member in members:
        flow.add_node(member)
    flow.add_edge(members[0], members[1]).add_edge(members[1], members[2])
    return [await GraphFlow(members, graph=flow.build()).run(task="Build it.")]


async def magentic(client: Any, runs: Runs) -> list[TaskResult]:
    members = [
        AssistantAgent(name, client, system_message=prompt(name), description=f"{name} here")
        for name in NAMES
    ]
    return [await MagenticOneGroupChat(members, client, max_turns=6).run(task="Where is parcel 7?")]


def _ledger(speaker: str, *, done: bool) -> str:
    def said(answer: object) -> str:
        value = str(answer).lower() if isinstance(answer, bool) else f'"{answer}"'
        return f'{{"reason": "so", "answer": {value}}}'

    fields = {
        "is_request_satisfied": said(done),
        "is_in_loop": said(answer=False),
        "is_progress_being_made": said(answer=True),
        "next_speaker": said(speaker),
        "instruction_or_question": said("Go on."),
    }
    return "{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}"


MAGENTIC = [
    "Facts.", "A plan.", _ledger("coder", done=False), "The code.", _ledger("critic", done=False), "Well.",
    _ledger("critic", done=True), "In Lyon.",
]  # fmt: skip
SCENES: dict[str, tuple[Scene, list[Any]]] = {
    "round robin": (round_robin, ROUND_ROBIN),
    "limited": (limited, ["One.", "Two.", "Three.", "Four."]),
    "selector": (selector, SELECTOR),
    "swarm": (swarm, SWARM),
    "graph": (graph, ["One.", "Two.", "Three."]),
    "magentic": (magentic, MAGENTIC),
}
SERVED = [("openai", "gpt-5.5"), ("anthropic", "claude-sonnet-5.5")]


def played(
    name: str, mode: Any, wire: str = "openai", model: str = "gpt-5.5"
) -> tuple[list[Any], Runs, list[Any], Any]:
    """What was said, which tools ran, the bodies, and the client."""
    scene, replies = SCENES[name]
    with ProviderServer(replies=list(replies), keep_bodies=True) as server:
        url = server.anthropic_url if wire == "anthropic" else server.openai_url
        inner = model_client(url, wire, model)
        client: Any = inner if mode is None else BufferedChatCompletionClient(inner, mode=mode)
        runs: Runs = []

        async def run() -> list[TaskResult]:
            found = await scene(client, runs)
            await inner.close()
            return found

        results = asyncio.run(run())
        log = sorted(server.requests, key=lambda request: request.number)
    assert [request.status for request in log] == [200] * len(log)
    said = [
        (message.source, type(message).__name__, message.to_text())
        for result in results
        for message in result.messages
    ]
    ends = [result.stop_reason for result in results]
    return [*said, ends], runs, [request.body for request in log], client


FOUND = pytest.mark.moves_prefix(reason="a team's prefix is found when its second member speaks")
ANEW = pytest.mark.moves_prefix(reason="the orchestrator begins its prompts anew")
GIVEN = pytest.mark.moves_prefix(reason="in observe mode the framework's own prompts go out")


def _cases() -> Iterator[Any]:
    for name in SCENES:
        for mode in ("buffer", "team"):
            found = mode == "team" and name in ("round robin", "limited", "selector")
            marks = [FOUND] if found else [ANEW] if name == "magentic" else []
            yield pytest.param(name, mode, id=f"{name}-{mode}", marks=marks)


@pytest.mark.parametrize(("name", "mode"), list(_cases()))
@pytest.mark.parametrize(("wire", "model"), SERVED, ids=[wire for wire, _ in SERVED])
def test_transcripts_tools_and_ends_are_the_same(name: str, mode: str, wire: str, model: str) -> None:
    if (name, wire) == ("magentic", "anthropic"):
        wire, model = (
            "openai",
            "gpt-5.6",
        )  # it asks for a schema, which the framework's client for Anthropic refuses
    alone = played(name, None, wire, model)
    buffered = played(name, mode, wire, model)
    assert buffered[0] == alone[0]
    assert buffered[1] == alone[1]
    assert len(buffered[2]) == len(alone[2])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[GIVEN] if name in ("round robin", "selector", "magentic") else [])
        for name in SCENES
    ],
)
def test_observe_mode_changes_no_byte(name: str) -> None:
    alone, observed = played(name, None), played(name, "observe")
    bare = [_bare(body) for body in alone[2]]
    assert changed(bare, observed[2]) == []
    assert observed[0] == alone[0]


def _bare(value: Any) -> Any:
    """Without the marks of personas, which only llmbuffer takes off."""
    from llmbuffer.reconcile import unmarked

    if isinstance(value, str):
        return unmarked(value)
    if isinstance(value, dict):
        return {key: _bare(each) for key, each in value.items()}
    return [_bare(each) for each in value] if isinstance(value, list) else value


@pytest.mark.moves_prefix(reason="a team's prefix is found when its second member speaks")
@pytest.mark.parametrize("name", ["limited", "selector"])
def test_every_speaker_stays_named(name: str) -> None:
    said, _, bodies, _ = played(name, "team")
    told = "\n".join(texts_of(bodies[-1]))
    spoken = [each for each in said[1:-1] if each[0] != "user"]
    for speaker, _, text in spoken[:-1]:
        assert f"{speaker}: {text}".rstrip() in told


def test_a_members_persona_stands_at_the_end_of_its_own_prompts_alone() -> None:
    with ProviderServer(replies=["One.", "Two.", "Three.", "Four."], keep_bodies=True) as server:
        inner = model_client(server.openai_url)
        client = BufferedChatCompletionClient(inner, mode="team")
        for name in NAMES:
            client.declare(name, system=prompt(name))

        async def run() -> None:
            await limited(client, [])
            await inner.close()

        asyncio.run(run())
        bodies = [
            request.body or {} for request in sorted(server.requests, key=lambda request: request.number)
        ]
    systems = {body["messages"][0]["content"] for body in bodies}
    assert len(systems) == 1, "all members begin with one system text"
    for number, body in enumerate(bodies):
        last = body["messages"][-1]["content"]
        assert [f"You are the {name}." in last for name in NAMES] == [
            name == NAMES[number % 3] for name in NAMES
        ]
