"""``fork_team``: teams off one shared session, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_ext.models.replay import ReplayChatCompletionClient
from tests.integrations.agentchat.ac_agents import model_client

from llmbuffer import Session, StableContext, Usage
from llmbuffer.errors import MessageError
from llmbuffer.simulate import ProviderServer, Reply
from llmbuffer.testing.scripts import handbook
from llmbuffer_autogen.agentchat import BufferedChatCompletionClient, fork_team

SERVED = [("openai", "gpt-5.5"), ("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5")]
TASKS = [f"Task {number}: speak of week {number}." for number in range(4)]


def team_of(client: Any, *names: str) -> RoundRobinGroupChat:
    agents = [
        AssistantAgent(name, client, system_message=f"You are {name}.") for name in names or ("ann", "bob")
    ]
    return RoundRobinGroupChat(agents, max_turns=len(agents))


def served(
    drive: Callable[[BufferedChatCompletionClient], Awaitable[Any]],
    replies: Any = lambda asked: "Done.",
    wire: str = "openai",
    model: str = "gpt-5.5",
    **options: Any,
) -> tuple[Any, list[Any]]:
    with ProviderServer(replies=replies, keep_bodies=True) as server:
        url = server.anthropic_url if wire == "anthropic" else server.openai_url
        client = BufferedChatCompletionClient(model_client(url, wire, model), **options)

        async def run() -> Any:
            found = await drive(client)
            await client.close()
            return found

        found = asyncio.run(run())
        return found, sorted(server.requests, key=lambda request: request.number)


@pytest.mark.parametrize(("wire", "model"), SERVED, ids=[model for _, model in SERVED])
def test_one_cold_write_and_everybody_else_reads(wire: str, model: str) -> None:
    session = Session(StableContext(model, handbook(32)), wire)
    found, log = served(
        lambda client: fork_team(team_of, TASKS, client=client), wire=wire, model=model, session=session
    )
    assert [each.ok for each in found] == [True] * 4
    assert [request.usage.cache_read_tokens >= 2_900 for request in log] == [False] + [True] * 7
    assert sum((each.usage for each in found), Usage()) == sum((request.usage for request in log), Usage())


def test_a_team_is_copied_with_what_was_said() -> None:
    async def drive(client: BufferedChatCompletionClient) -> Any:
        team = team_of(client)
        await team.run(task=f"Remember this. {handbook(20)}")
        return await fork_team(team, TASKS), await team.run(task="And you?")

    (found, own), log = served(drive)
    assert [each.task for each in found] == TASKS
    for place, each in enumerate(found):
        told = [str(request.body) for request in log[2:10] if TASKS[place] in str(request.body)]
        assert len(told) == 2
        assert all("Remember this." in body for body in told)
        assert not any(other in body for body in told for other in TASKS if other != TASKS[place])
        assert each.result is not None
        assert [message.source for message in each.result.messages] == ["user", "ann", "bob"]
    assert not any(task in str(log[-1].body) for task in TASKS), "the team itself hears nothing of its forks"
    assert [message.source for message in own.messages] == ["user", "ann", "bob"]


def test_a_fork_that_fails_costs_the_others_nothing() -> None:
    def reply(asked: Any) -> Any:
        return Reply(status=400, message="no") if TASKS[1] in str(asked.body) else "Done."

    found, _ = served(lambda client: fork_team(team_of, TASKS, client=client), reply)
    assert [each.ok for each in found] == [True, False, True, True]
    assert "no" in str(found[1].error)


def test_a_fork_that_cannot_be_made_costs_the_others_nothing() -> None:
    made: list[int] = []

    def team(client: Any) -> Any:
        made.append(1)
        if len(made) == 2:
            raise OSError("no disk")
        return team_of(client)

    found, _ = served(lambda client: fork_team(team, TASKS, client=client))
    assert sorted(type(each.error).__name__ for each in found) == [
        "NoneType",
        "NoneType",
        "NoneType",
        "OSError",
    ]


def test_no_more_teams_run_than_allowed() -> None:
    running: list[int] = [0]
    most: list[int] = []

    async def reply(asked: Any) -> str:
        running[0] += 1
        most.append(running[0])
        await asyncio.sleep(0)
        running[0] -= 1
        return "Done."

    served(lambda client: fork_team(lambda fork: team_of(fork, "ann"), TASKS, client=client, limit=1), reply)
    assert most == [1] * 4


def test_a_function_may_be_awaited() -> None:
    async def team(client: Any) -> Any:
        return team_of(client)

    found, _ = served(lambda client: fork_team(team, TASKS[:1], client=client))
    assert found[0].result.messages[-1].content == "Done."


@pytest.mark.parametrize(
    ("team", "options", "told"),
    [
        (team_of, {}, "needs client="),
        ("a team", {}, "a str is no team"),
        (team_of, {"client": 1, "limit": 0}, "limit is 0"),
    ],
)
def test_what_cannot_be_forked_is_refused(team: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(MessageError, match=told):
        asyncio.run(fork_team(team, TASKS, **options))


def test_a_team_without_a_buffered_client_is_refused() -> None:
    team = team_of(ReplayChatCompletionClient(["One."]))
    with pytest.raises(MessageError, match="no agent of the team"):
        asyncio.run(fork_team(team, TASKS))
