"""``BufferedChatCompletionClient`` at the wire: what it sends, what it tells, and what it leaves alone."""

from __future__ import annotations

import asyncio
import copy
import importlib
import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.teams import RoundRobinGroupChat, SelectorGroupChat
from autogen_core import FunctionCall, Image
from autogen_core.models import (
    AssistantMessage,
    ChatCompletionClient,
    CreateResult,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    SystemMessage,
    UserMessage,
)
from autogen_core.tools import FunctionTool
from autogen_ext.models.cache import ChatCompletionCache
from autogen_ext.models.replay import ReplayChatCompletionClient
from pydantic import BaseModel
from tests.integrations.agentchat.ac_agents import model_client

from llmbuffer import Session, StableContext, Usage
from llmbuffer.errors import MessageError
from llmbuffer.reconcile import Policy, dynamic_text, persona
from llmbuffer.simulate import Call, ProviderServer, Reply
from llmbuffer.testing.scripts import handbook
from llmbuffer_autogen.agentchat import BufferedChatCompletionClient

NAMES = ("planner", "coder", "critic")


def asked(*texts: str) -> list[Any]:
    """A prompt of a system message and what the user says."""
    return [SystemMessage(content="Be kind."), *(UserMessage(content=text, source="user") for text in texts)]


def served(
    replies: Any,
    drive: Callable[[Any], Awaitable[object]],
    wire: str = "openai",
    model: str = "gpt-5.5",
    **options: Any,
) -> tuple[list[Any], Any]:
    """The requests of a buffered client that ``drive`` used, and the client."""
    with ProviderServer(replies=replies, keep_bodies=True) as server:
        url = server.anthropic_url if wire == "anthropic" else server.openai_url
        client = BufferedChatCompletionClient(model_client(url, wire, model), **options)

        async def run() -> None:
            await drive(client)
            await client.close()

        asyncio.run(run())
        log = sorted(server.requests, key=lambda request: request.number)
    return log, client


def contents(body: Any) -> list[str]:
    return [str(message["content"]) for message in body["messages"]]


# --- the selector


def chosen(asked: Any) -> str:
    """Who speaks next, by turns, where that is asked; else a remark."""
    told = str(asked.body["messages"])
    if "Only return the role" not in told:
        return f"A remark of {len(asked.body['messages'])}. "
    said = [name for name in NAMES if f"{name}: A remark" in told]
    return NAMES[len(said) % 3]


def discussing(turns: int = 3, **options: Any) -> Callable[[Any], Awaitable[object]]:
    async def drive(client: Any) -> None:
        agents = [
            AssistantAgent(name, client, system_message=f"{handbook(20)}\n{name}", description=f"{name} here")
            for name in NAMES
        ]
        team = SelectorGroupChat(agents, client, max_turns=turns, **options)
        await team.run(task="Build it.")

    return drive


def test_the_candidates_stand_behind_the_history() -> None:
    log, _ = served(chosen, discussing())
    selections = [request.body for request in log[::2]]
    for body in selections:
        *before, last = contents(body)
        assert "to play" not in "".join(before)
        assert last.rstrip().endswith("to play. Only return the role.\n</context>")
        assert "planner: planner here" in before[0] or "planner: planner here" in last
    kept = [text.partition("\n\n<context")[0] for text in contents(selections[0])]
    assert contents(selections[1])[: len(kept)] == kept


def test_a_selector_that_asks_again_goes_on() -> None:
    replies = ["nobody", "coder", "One.", "planner", "Two."]
    log, _ = served(replies, discussing(2))
    again = log[1].body["messages"]
    assert [message["role"] for message in again[-2:]] == ["assistant", "user"]
    assert again[-2]["content"] == "nobody"
    assert again[-1]["content"].startswith("No valid name was mentioned.")
    assert again[-1]["content"].endswith("Only return the role.\n</context>")


def test_a_prompt_of_ones_own_is_declared() -> None:
    own = "Choose one of {participants}, by these roles:\n{roles}\nSo far:\n{history}\nAnswer with a name."
    log, _ = served(
        ["coder", "One.", "planner", "Two."], discussing(2, selector_prompt=own), selector_prompt=own
    )
    first = contents(log[0].body)
    assert "['planner', 'coder', 'critic']" in first[-1]
    assert "Choose one of" not in first[0]
    assert "Build it." in first[1]


def test_prompts_that_are_none_of_the_selectors_stay() -> None:
    log, _ = served(["ok"], lambda client: client.create(asked("Read the above conversation. {history}")))
    assert contents(log[0].body) == ["Be kind.", "Read the above conversation. {history}"]


# --- tools


def looked_up(runs: list[str], **options: Any) -> Callable[[Any], Awaitable[object]]:
    def lookup(q: str) -> str:
        """Look something up."""
        runs.append(q)
        return f"Found {q}."

    async def drive(client: Any) -> None:
        agent = AssistantAgent(
            "clerk", client, tools=[lookup], system_message=handbook(20), reflect_on_tool_use=True, **options
        )
        for number in range(2):
            result = await agent.run(task=f"Question {number}")
            assert result.messages[-1].to_text() == f"Answer {number}."

    return drive


CALLS = [
    step
    for number in range(2)
    for step in (Reply(calls=(Call("lookup", '{"q": "a"}', f"call_{number}"),)), f"Answer {number}.")
]


def test_the_reflection_keeps_its_tools_and_may_not_use_them() -> None:
    runs: list[str] = []
    log, client = served(CALLS, looked_up(runs), model="gpt-5.6")
    bodies = [request.body for request in log]
    assert [body["tools"] for body in bodies] == [bodies[0]["tools"]] * 4
    assert [body["tool_choice"] for body in bodies] == ["auto", "none"] * 2
    assert runs == ["a", "a"]
    assert [request.usage.cache_read_tokens > 1_024 for request in log] == [False, True, True, True]
    assert client.breaks == ()


def test_where_a_changed_choice_loses_the_cache_a_text_says_so() -> None:
    log, client = served(CALLS, looked_up([]), "anthropic", "claude-sonnet-5.5")
    bodies = [request.body for request in log]
    assert [body["tool_choice"] for body in bodies] == [{"type": "auto"}] * 4
    assert [message["role"] for message in bodies[1]["messages"]] == ["user", "assistant", "user", "system"]
    assert "No tool may be used" in str(bodies[1]["messages"][-1])
    assert [request.usage.cache_read_tokens > 1_024 for request in log] == [False, True, True, True]
    assert client.breaks == ()


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_may_not_be_made_is_refused(stream: bool) -> None:
    runs: list[str] = []
    again = Reply("Once more.", calls=(Call("lookup", '{"q": "b"}', "call_9"),))
    log, client = served(
        [*CALLS[:1], again, *CALLS[1:]], looked_up(runs, model_client_stream=stream), model="gpt-5.6"
    )
    assert runs == ["a", "a"]
    told = log[2].body["messages"]
    assert [message["role"] for message in told[-2:]] == ["assistant", "tool"]
    assert "cannot be used now" in told[-1]["content"]
    assert client.usage == sum((request.usage for request in log), Usage())
    assert client.account().requests == len(log) == 5


def test_a_choice_stays_where_no_tools_are_known() -> None:
    call = FunctionCall(id="call_0", name="lookup", arguments='{"q": "a"}')
    result = FunctionExecutionResult(content="found", name="lookup", call_id="call_0")
    said = [
        *asked("Question"),
        AssistantMessage(content=[call], source="clerk"),
        FunctionExecutionResultMessage(content=[result]),
    ]

    async def drive(client: Any) -> None:
        await client.model_client.create(asked("Hello"), tools=[FunctionTool(lambda_tool([]), "Look it up.")])
        await client.create(said, tool_choice="none")

    log, _ = served(["Hi.", "Found."], drive, "anthropic", "claude-sonnet-5.5")
    assert log[1].body["tool_choice"] == {"type": "none"}


def test_a_model_that_insists_gets_no_tool() -> None:
    runs: list[str] = []
    calls = [Reply("I must.", calls=(Call("lookup", '{"q": "a"}', f"call_{number}"),)) for number in range(5)]

    async def drive(client: Any) -> None:
        agent = AssistantAgent(
            "clerk", client, tools=[lambda_tool(runs)], system_message="Be kind.", reflect_on_tool_use=True
        )
        result = await agent.run(task="Question")
        assert result.messages[-1].to_text() == "I must."

    log, _ = served(calls, drive, model="gpt-5.6")
    assert (len(log), runs) == (5, ["a"])


def lambda_tool(runs: list[str]) -> Any:
    def lookup(q: str) -> str:
        """Look something up."""
        runs.append(q)
        return "found"

    return lookup


# --- usage


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("wire", "model"), [("openai", "gpt-5.5"), ("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5")]
)
@pytest.mark.parametrize("mode", ["observe", "buffer", "team"])
def test_each_agents_usage_is_what_the_server_said(mode: Any, wire: str, model: str, stream: bool) -> None:
    async def drive(client: Any) -> None:
        agents = [
            AssistantAgent(name, client, system_message=f"{name}. {handbook(20)}", model_client_stream=stream)
            for name in NAMES
        ]
        if mode == "team":
            for name in NAMES:
                client.declare(name, system=f"{name}. {handbook(20)}")
        team = RoundRobinGroupChat(agents, max_turns=3)
        for task in ("Build it.", "Again."):
            await team.run(task=task)

    log, client = served(lambda _: "A remark.", drive, wire, model, mode=mode)
    by_name = {
        name: sum((request.usage for request in log[place::3]), Usage()) for place, name in enumerate(NAMES)
    }
    assert {name: account.usage for name, account in client.members.items()} == by_name
    assert client.usage == sum((request.usage for request in log), Usage())
    assert client.usage.cache_read_tokens > 0 or (mode, wire) == ("observe", "anthropic")
    [conversation] = {where for where, _ in client.seam.accounts}
    assert client.account(conversation=conversation, member="coder").usage == by_name["coder"]


def test_a_stream_is_a_stream() -> None:
    pieces: list[Any] = []

    async def drive(client: Any) -> None:
        pieces.extend([piece async for piece in client.create_stream(asked("Hello"))])

    log, client = served(["One two three four."], drive)
    assert "".join(pieces[:-1]) == pieces[-1].content == "One two three four."
    assert len(pieces) > 2
    assert log[0].stream
    assert pieces[-1].usage.prompt_tokens == client.usage.input_tokens > 0


def test_usage_of_streams_need_not_be_asked_for() -> None:
    async def drive(client: Any) -> None:
        async for _ in client.create_stream(asked("Hello")):
            pass

    log, client = served(["One."], drive, stream_usage=False)
    assert "stream_options" not in log[0].body
    assert client.account().requests == 1
    assert client.usage == Usage()


def test_a_stream_that_is_left_early_enters_nothing() -> None:
    async def drive(client: Any) -> None:
        stream = client.create_stream(asked("Hello"))
        assert await anext(stream)
        await stream.aclose()
        assert (await client.create(asked("Hello"))).content == "Two."

    _, client = served(["One two three.", "Two."], drive)
    assert client.account().requests == 1


def test_what_the_inner_client_counts_stays_its_own() -> None:
    async def drive(client: Any) -> None:
        await client.create(asked("Hello"))
        inner = client.model_client
        assert client.actual_usage() == inner.actual_usage() == client.total_usage()
        assert client.actual_usage().prompt_tokens == client.usage.input_tokens
        assert client.model_info is inner.model_info

    served(["One."], drive)
    inner = ReplayChatCompletionClient(["One."])
    client = BufferedChatCompletionClient(inner)
    assert client.count_tokens(asked("Hello")) == inner.count_tokens(asked("Hello")) > 0
    assert client.remaining_tokens(asked("Hello")) == inner.remaining_tokens(asked("Hello"))


# --- other clients and objects


class Fresh(ReplayChatCompletionClient):
    """Replies that say of themselves that they were not cached."""

    async def create(self, *args: Any, **kwargs: Any) -> CreateResult:
        return (await super().create(*args, **kwargs)).model_copy(update={"cached": False})


def test_a_client_without_a_known_sdk_works_all_the_same() -> None:
    client = BufferedChatCompletionClient(Fresh(["One.", "Two."]))
    results = [asyncio.run(client.create(asked("Hello"))) for _ in range(2)]
    assert [result.content for result in results] == ["One.", "Two."]
    assert client.usage.input_tokens == sum(result.usage.prompt_tokens for result in results)


@pytest.mark.parametrize("inside", [False, True])
def test_the_frameworks_own_cache_of_replies_goes_with_it(inside: bool) -> None:
    with ProviderServer(replies=["One.", "Two."], keep_bodies=True) as server:
        inner = model_client(server.openai_url)
        client: Any = BufferedChatCompletionClient(ChatCompletionCache(inner) if inside else inner)
        seen = client
        client = client if inside else ChatCompletionCache(client)

        async def run() -> list[CreateResult]:
            found = [await client.create(asked("Hello")) for _ in range(2)]
            await inner.close()
            return found

        first, second = asyncio.run(run())
    assert (first.content, second.content, second.cached) == ("One.", "One.", True)
    assert len(server.requests) == 1
    assert seen.usage == server.requests[0].usage


def test_pictures_go_through() -> None:
    pictures: Any = importlib.import_module("PIL.Image")  # it comes with the framework, and without types

    kept = io.BytesIO()
    pictures.new("RGB", (2, 2), "red").save(kept, "PNG")
    picture = Image(pictures.open(kept))
    said = [UserMessage(content=["Look:", picture], source="user")]
    log, client = served(["Red."], lambda client: client.create(said))
    assert [part["type"] for part in log[0].body["messages"][0]["content"]] == ["text", "image_url"]
    assert client.account().requests == 1


class Parcel(BaseModel):
    """Where a parcel is."""

    city: str


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.parametrize("kind", [True, Parcel])
def test_asking_for_json_is_left_alone(kind: Any) -> None:
    bodies = []
    for mode in ("observe", "buffer"):
        log, _ = served(
            ['{"city": "Lyon"}'],
            lambda client: client.create(asked("Where, as JSON?"), json_output=kind),
            mode=mode,
        )
        bodies.append(log[0].body)
    assert bodies[0]["response_format"] == bodies[1]["response_format"]
    assert bodies[0]["messages"] == bodies[1]["messages"]


def test_what_the_user_sets_stays() -> None:
    log, _ = served(
        ["One."],
        lambda client: client.create(asked("Hello"), extra_create_args={"prompt_cache_key": "mine"}),
    )
    assert log[0].body["prompt_cache_key"] == "mine"


# --- sessions


@pytest.mark.parametrize("mode", ["observe", "buffer", "team"])
def test_marks_never_reach_the_wire(mode: Any) -> None:
    system = f"It is {dynamic_text('now', '12:00')}. {persona('You are Ann.')} Be kind."
    said = [SystemMessage(content=system), UserMessage(content="Hello", source="user")]
    log, _ = served(["One."], lambda client: client.create(said), mode=mode)
    told = "".join(contents(log[0].body))
    assert "\u2063" not in told
    assert all(text in told for text in ("12:00", "You are Ann.", "Be kind."))
    if mode == "observe":
        assert contents(log[0].body) == ["It is 12:00. You are Ann. Be kind.", "Hello"]


def test_solo_conversations_are_told_apart_by_how_they_begin() -> None:
    async def drive(client: Any) -> None:
        one, two = asked("One"), asked("Two")
        for _ in range(2):
            for prompt in (one, two):
                reply = await client.create(prompt)
                prompt += [UserMessage(content=f"And {reply.content}", source="user")]

    _, client = served(lambda _: "so?", drive)
    assert len(client.seam.sessions) == 2
    assert client.breaks == ()


def test_ones_own_history_needs_a_name() -> None:
    client = BufferedChatCompletionClient(
        ReplayChatCompletionClient(["One."]), policy=Policy(history="ours", trims=True)
    )
    with pytest.raises(MessageError, match="needs a key"):
        asyncio.run(client.create(asked("Hello")))
    named = BufferedChatCompletionClient(Fresh(["One."]), policy=client.seam.policy).named(
        conversation="one", member="ann"
    )
    assert asyncio.run(named.create(asked("Hello"))).content == "One."
    assert list(named.members) == ["ann"]


def shared() -> Session:
    session = Session(StableContext("gpt-5.5", "You work for Acme."))
    session.append({"role": "user", "content": "We open at 9."})
    return session


def test_a_shared_session_stands_in_front() -> None:
    log, _ = served(["One."], lambda client: client.create(asked("Hello")), session=shared())
    assert contents(log[0].body) == ["You work for Acme.", "Be kind.", "We open at 9.", "Hello"]


def test_a_shared_session_is_told_once() -> None:
    whole = [
        SystemMessage(content="You work for Acme. Be kind."),
        UserMessage(content="We open at 9.", source="user"),
        UserMessage(content="Hello", source="user"),
    ]
    log, _ = served(["One."], lambda client: client.create(whole), session=shared())
    assert contents(log[0].body) == ["You work for Acme. Be kind.", "We open at 9.", "Hello"]


def test_a_deep_copy_asks_by_a_client_of_its_own_and_counts_with_the_first() -> None:
    copies: list[Any] = []

    async def drive(client: Any) -> None:
        copies.append(copy.deepcopy(client))
        for each in (client, *copies):
            await each.create(asked("Hello"))
        await copies[0].close()

    log, client = served(["One.", "Two."], drive)
    assert copies[0].model_client is not client.model_client
    assert copies[0].seam is client.seam
    assert client.seam.account().requests == len(log) == 2
    assert len({request.body["prompt_cache_key"] for request in log}) == 1


# --- as a component


def test_it_is_dumped_and_loaded() -> None:
    client = BufferedChatCompletionClient(
        model_client("http://127.0.0.1:9/v1"),
        mode="team",
        policy=Policy(learn=False, pinned=("Refunds",)),
        conversation="one",
        stream_usage=False,
    )
    config = client.dump_component()
    assert config.provider == "llmbuffer_autogen.agentchat.BufferedChatCompletionClient"
    again = ChatCompletionClient.load_component(config)
    assert isinstance(again, BufferedChatCompletionClient)
    assert type(again.model_client) is type(client.model_client)
    assert again.dump_component() == config
    assert (again.seam.mode, again.seam.policy.learn, again.seam.policy.pinned) == (
        "team",
        False,
        ("Refunds",),
    )
    team = RoundRobinGroupChat([AssistantAgent("ann", client)], max_turns=1)
    assert RoundRobinGroupChat.load_component(team.dump_component()).dump_component() == team.dump_component()


def test_a_callable_cannot_be_dumped() -> None:
    policy = Policy(declared=(lambda text: [],))
    client = BufferedChatCompletionClient(ReplayChatCompletionClient([]), policy=policy)
    with pytest.raises(MessageError, match="cannot be dumped"):
        client.dump_component()


def test_what_is_no_model_client_is_refused() -> None:
    with pytest.raises(MessageError, match="a str is no model client"):
        BufferedChatCompletionClient("gpt-5.5")


@pytest.mark.parametrize(
    "template", ["{participants}", "{history} {history}", "{history} {more}", "{history", "{history}"]
)
def test_templates_that_are_no_selectors_are_refused(template: str) -> None:
    with pytest.raises(MessageError, match="the selector's prompt"):
        BufferedChatCompletionClient(ReplayChatCompletionClient([]), selector_prompt=template)


def test_the_repr_shows_no_text() -> None:
    client = BufferedChatCompletionClient(ReplayChatCompletionClient(["One."]))
    asyncio.run(client.create(asked("a secret")))
    assert "secret" not in repr(client)
    assert "ReplayChatCompletionClient" in repr(client)
