"""Teams: what each member reads under either layout, what is told to whom, and which layout is taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fanning import RULES, client_of
from tests.fanning import run as with_async_client

from llmbuffer import (
    Message,
    MessageError,
    Opaque,
    PairingError,
    Reasoning,
    Segment,
    Session,
    StableContext,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from llmbuffer.compaction import Compaction, Truncator
from llmbuffer.simulate import Asked, Call, ProviderServer, Reply
from llmbuffer.team import Member, Said, Team, split_common
from llmbuffer.team.telling import heard, told
from llmbuffer.tokens import EstimateCounter

COMMON = "Look before you promise, and say plainly what you did. " * 500  # about 6,500 tokens
MODELS = {
    "anthropic": "claude-sonnet-5.5",
    "openai": "gpt-5.6",
    "openai-prefix": "gpt-5.5",
    "openai-responses": "gpt-5.6",
    "gemini": "gemini-2.5-pro",
    "deepseek": "deepseek-v4-pro",
}
LAYOUTS: list[tuple[Any, Any]] = [("separate", "auto"), ("shared", "turn"), ("shared", "sticky")]
FIND = {"name": "find", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}}
PAY = {"name": "pay", "parameters": {"type": "object", "properties": {"sum": {"type": "integer"}}}}


def members(**tools: Any) -> list[Member]:
    names = {"ann": "You plan.", "bob": "You build.", "cyd": "You judge."}
    return [Member(name, persona, tools=tools.get(name, ())) for name, persona in names.items()]


def session_of(dialect: str = "openai-prefix", system: str = COMMON, **options: Any) -> Session:
    name = "openai" if dialect == "openai-prefix" else dialect
    return Session(StableContext(MODELS[dialect], system), name, tokens=EstimateCounter(), **options)


def team_of(layout: Any = "shared", roles: Any = "auto", **tools: Any) -> Team:
    return Team(session_of(), members(**tools), layout, roles=roles)


def say(team: Team, name: str, *texts: str) -> None:
    for text in texts:
        team.request(name).observe(Usage(), Message("assistant", text))


def texts_of(body: Any) -> list[str]:
    """The text parts of all messages of a chat body, system text left out."""
    messages = [message for message in body["messages"] if message["role"] != "system"]
    return [
        part
        for message in messages
        for part in (
            [message["content"]]
            if isinstance(message["content"], str)
            else [each["text"] for each in message["content"] or []]
        )
    ]


def calling(name: str, arguments: str = "{}", call_id: str = "c1") -> Message:
    return Message("assistant", [ToolCall(call_id, name, arguments)])


# What is told, and what is heard


def test_a_told_turn_names_who_spoke_and_what_its_tools_answered() -> None:
    turn = (
        Message("assistant", [Reasoning("hm"), Text("Let me look."), ToolCall("c1", "find", '{"q":"tea"}')]),
        Message("tool", [ToolResult("c1", "2 found"), ToolResult("c2", "no such shelf", is_error=True)]),
        Message("assistant", "ann: Two."),
    )
    assert [message.text for message in told(Said("ann", turn))] == [
        'ann: Let me look.ann called find({"q":"tea"})',
        "find answered ann: 2 founda tool failed for ann: no such shelf",
        "ann: Two.",
    ]
    assert {message.role for message in told(Said("ann", turn))} == {"user"}


def test_others_hear_what_a_member_said_and_itself_everything() -> None:
    turn = (
        calling("find"),
        Message("tool", [ToolResult("c1", "2 found")]),
        Message("assistant", "Two."),
    )
    assert heard(Said("ann", turn), "ann") == list(turn)
    assert heard(Said("ann", turn), "bob") == [Message("user", "ann: Two.")]


def test_what_nobody_in_particular_said_is_told_as_it_is_but_for_its_name() -> None:
    said = (
        Message("user", "Hello"),
        Message("user", "Hi", name="guest"),
        Message("assistant", "Yes?"),
    )
    expected = [Message("user", "Hello"), Message("user", "guest: Hi"), Message("assistant", "Yes?")]
    assert told(Said(None, said)) == heard(Said(None, said), "ann") == expected


def test_a_signature_is_not_told_and_a_providers_own_content_is_told_as_json() -> None:
    thought = Opaque.of("anthropic", {"type": "thinking", "thinking": "hm", "signature": "s"})
    found = Opaque.of("anthropic", {"type": "web_search_tool_result", "content": "news"})
    [message] = told(Said("ann", (Message("assistant", [thought, found]),)))
    assert message.text == 'ann: {"type":"web_search_tool_result","content":"news"}'


# Members


@given(st.text(max_size=30), st.text(max_size=30), st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_a_split_prompt_is_the_prompt(prefix: str, suffix: str, own: list[str]) -> None:
    prompts = [prefix + each + suffix for each in own]
    first, last, left = split_common(prompts)
    assert [first + each + last for each in left] == prompts


def test_the_common_text_is_cut_where_sentences_end() -> None:
    prompts = [
        "Be kind. You are Ann, a cook. Cite all claims.",
        "Be kind. You are Al, a cook. Cite all claims.",
    ]
    assert split_common(prompts) == (
        "Be kind. ",
        "Cite all claims.",
        ["You are Ann, a cook. ", "You are Al, a cook. "],
    )


def test_whole_prompts_are_shared_as_far_as_they_are_common() -> None:
    prompts = {name: f"You are {name}.\n{COMMON}" for name in ("ann", "bob")}
    team = Team(
        session_of(system=""),
        [Member(name, system=text) for name, text in prompts.items()],
        "shared",
        roles="turn",
    )
    body = team.request("bob", "Hello").body
    assert COMMON.strip() in body["messages"][0]["content"]
    assert "You are bob." in texts_of(body)[-1]
    assert "You are ann." not in json.dumps(body)
    apart = Team(session_of(system=""), team.members, "separate")
    assert apart.request("bob", "Hello").body["messages"][0]["content"] == prompts["bob"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Member(""),
        lambda: Member("a:b"),
        lambda: Member("ann", "x", system="y"),
        lambda: Member("ann", tools=3),  # type: ignore[arg-type]
        lambda: Member("ann", 3),  # type: ignore[arg-type]
        lambda: Team(session_of(), []),
        lambda: Team(session_of(), [Member("ann"), Member("ann")]),
        lambda: Team(session_of(), ["ann"]),  # type: ignore[list-item]
        lambda: Team(None, [Member("ann")]),  # type: ignore[arg-type]
        lambda: Team(session_of(), [Member("ann")], "both"),  # type: ignore[arg-type]
        lambda: Team(session_of(), [Member("ann")], roles="never"),  # type: ignore[arg-type]
        lambda: Team(session_of(), [Member("ann")], expected_turns=0),
        lambda: team_of().request("dan"),
        lambda: team_of().append(3),  # type: ignore[arg-type]
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(MessageError):
        make()


def test_no_prompt_text_shows() -> None:
    team = team_of()
    say(team, "ann", "a secret")
    shown = repr((team, team.members, team.request("bob"), team.ledger, team.history[0].messages))
    assert "secret" not in shown
    assert "You plan" not in shown


# Layouts


@pytest.mark.parametrize(("layout", "roles"), LAYOUTS)
@pytest.mark.parametrize("dialect", MODELS)
def test_a_team_converses_through_real_clients_as_forecast(dialect: str, layout: Any, roles: Any) -> None:
    with ProviderServer(rules=RULES) as server, client_of(dialect, server) as client:
        team = Team(session_of(dialect, client=client), members(), layout, roles=roles)
        team.append("Build a shed.")
        for turn in range(9):
            assert team.respond(["ann", "bob", "cyd"][turn % 3]).text
        assert server.requests
    assert [said.speaker for said in team.history] == [None, *["ann", "bob", "cyd"] * 3]
    for ledger in team.ledger.values():
        assert ledger.requests == 3
        assert ledger.breaks == ()
    assert team.ledger.usage.cache_read_tokens > 0


@pytest.mark.parametrize("dialect", MODELS)
def test_a_shared_transcript_reads_what_separate_prompts_write_again(dialect: str) -> None:
    usage: dict[str, Usage] = {}
    for layout, roles in LAYOUTS:
        with ProviderServer(rules=RULES) as server, client_of(dialect, server) as client:
            team = Team(session_of(dialect, client=client), members(), layout, roles=roles)
            team.append("Build a shed. " * 1000)
            for turn in range(6):
                team.respond(["ann", "bob", "cyd"][turn % 3])
            usage[f"{layout} {roles}"] = team.ledger.usage
    apart = usage.pop("separate auto")
    for together in usage.values():
        assert together.hit_ratio > apart.hit_ratio + 0.03
        assert (
            together.fresh_tokens + together.cache_write_tokens
            < apart.fresh_tokens + apart.cache_write_tokens
        )


@pytest.mark.parametrize("roles", ["turn", "sticky"])
def test_a_shared_prompt_goes_on_from_the_last_one_whoever_speaks(roles: Any) -> None:
    team = team_of("shared", roles)
    team.append("Build a shed.")
    last = [""]
    for turn in range(7):
        request = team.request(["ann", "bob", "cyd"][turn % 3])
        now = texts_of(request.body)
        assert now[: len(last) - 1] == last[:-1]  # all but the role, which is the last
        assert now[-1].startswith('<context name="role">')
        last = now
        request.observe(Usage(), Message("assistant", f"Said {turn}."))


def test_a_role_that_ends_the_prompt_is_read_by_its_member_alone() -> None:
    team = team_of("shared", "turn")
    team.append("Build a shed.")
    say(team, "ann", "A plan.")
    text = "".join(texts_of(team.request("bob").body))
    assert "You build." in text
    assert "You plan." not in text


def test_a_role_that_stays_is_told_once() -> None:
    team = team_of("shared", "sticky")
    for _ in range(3):
        say(team, "ann", "A plan.")
        say(team, "bob", "A shed.")
    text = "".join(texts_of(team.request("ann").body))
    assert [text.count(role) for role in ("You plan.", "You build.", "You judge.")] == [1, 1, 0]


def test_a_separate_prompt_is_the_members_own() -> None:
    team = team_of("separate")
    team.append("Build a shed.")
    say(team, "ann", "A plan.")
    say(team, "bob", "A shed.")
    body = team.request("ann").body
    assert [message["role"] for message in body["messages"][-3:]] == ["user", "assistant", "user"]
    assert texts_of(body) == ["You plan.", "Build a shed.", "A plan.", "bob: A shed."][1:]
    assert "You plan." in json.dumps(body)


@pytest.mark.parametrize(("layout", "roles"), LAYOUTS)
def test_a_request_changes_nothing(layout: Any, roles: Any) -> None:
    team = team_of(layout, roles)
    team.append("Build a shed.")
    one, other = team.request("ann", "And soon."), team.request("ann", "And soon.")
    assert json.dumps(one.body) == json.dumps(other.body)
    assert one.key == other.key
    assert len(team.history) == 1


@pytest.mark.parametrize(("layout", "roles"), LAYOUTS)
def test_what_a_user_says_to_one_is_said_to_all_once_it_is_answered(layout: Any, roles: Any) -> None:
    team = team_of(layout, roles)
    request = team.request("ann", "A shed, please.")
    assert not team.history
    request.observe(Usage(), Message("assistant", "A plan."))
    assert [said.speaker for said in team.history] == [None, "ann"]
    heard_by_bob = texts_of(team.request("bob").body)
    assert heard_by_bob.index("A shed, please.") < heard_by_bob.index("ann: A plan.")
    assert texts_of(team.request("ann", "Go on.").body).count("A shed, please.") == 1


@pytest.mark.parametrize(("layout", "roles"), LAYOUTS)
def test_nobody_answers_itself_without_a_cue(layout: Any, roles: Any) -> None:
    team = team_of(layout, roles)
    asked = [text for text in texts_of(team.request("ann").body) if not text.startswith("<context")]
    assert asked == (
        ["ann, it is your turn."]
        if roles != "sticky"
        else ["The role of ann, and of nobody else:\nYou plan."]
    )
    say(team, "ann", "One.", "Two.")
    assert team.request("ann").body["messages"][-1]["role"] == "user"
    assert [said.speaker for said in team.history] == ["ann", "ann"]


@pytest.mark.parametrize(("layout", "roles"), LAYOUTS)
def test_requests_of_several_members_may_be_open_at_once(layout: Any, roles: Any) -> None:
    team = team_of(layout, roles)
    team.append("Build a shed.")
    asked = {name: team.request(name) for name in team.names}
    for name in ("cyd", "ann", "bob"):
        asked[name].observe(Usage(), Message("assistant", f"{name} is done."))
    assert [said.speaker for said in team.history] == [None, "cyd", "ann", "bob"]
    for name in team.names:
        text = "\n".join(texts_of(team.request(name, "Go on.").body))
        assert all(text.count(f"{other} is done.") == 1 for other in team.names)


def test_a_request_that_is_answered_twice_is_told_twice() -> None:
    team = team_of("separate")
    request = team.request("ann", "Hello")
    request.observe(Usage(), Message("assistant", "One."))
    request.observe(Usage(), Message("assistant", "Two."))
    assert [message.text for said in team.history for message in said.messages if said.speaker] == [
        "One.",
        "Two.",
    ]


@pytest.mark.parametrize(("layout", "roles"), LAYOUTS)
def test_dynamic_text_stands_before_the_role_and_goes(layout: Any, roles: Any) -> None:
    team = team_of(layout, roles)
    request = team.request("ann", "Hello", {"clock": "12:00"})
    tail = [part for part in texts_of(request.body) if part.startswith("<context")]
    names = ["clock"] if layout == "separate" else ["clock", "role"]
    assert [part.split('"')[1] for part in tail] == names
    request.observe(Usage(), Message("assistant", "Hi."))
    assert "12:00" not in json.dumps(team.request("bob").body)


def test_a_dynamic_segment_of_the_session_is_everybodys() -> None:
    context = StableContext("gpt-5.5", [Segment("policy", "Be kind."), Segment("date", "May", level="turn")])
    team = Team(Session(context), members(), "shared", roles="turn")
    assert [segment.name for segment in team.request("ann", "Hello").dynamic] == ["date", "role"]


def test_what_a_model_writes_before_its_words_is_not_doubled() -> None:
    team = team_of("shared", "turn")
    say(team, "ann", "ann: A plan.")
    assert "ann: A plan." in texts_of(team.request("bob").body)


def test_a_team_goes_on_from_what_the_session_holds() -> None:
    session = session_of()
    session.append([Message("user", "Hello"), Message("assistant", "Hi.")])
    for layout, roles in LAYOUTS:
        team = Team(session, members(), layout, roles=roles)
        assert texts_of(team.request("ann", "Go on.").body)[:2] == ["Hello", "Hi."] or layout == "separate"
        say(team, "ann", "A plan.")
    assert len(session.messages) == 2


def test_messages_with_a_members_name_are_its_own() -> None:
    team = team_of("separate")
    team.append(
        [
            Message("user", "Build."),
            Message("user", "A plan.", name="ann"),
            Message("assistant", [ToolCall("c1", "find", "{}")], name="bob"),
            Message("tool", [ToolResult("c1", "wood")]),
            Message("assistant", "Hm.", name="bob"),
        ]
    )
    assert [said.speaker for said in team.history] == [None, "ann", "bob", "bob"]
    assert texts_of(team.request("ann").body) == ["Build.", "A plan.", "bob: Hm."]


# Tools


@pytest.mark.parametrize(("layout", "roles"), LAYOUTS[1:])
def test_a_call_of_a_tool_that_is_not_ones_own_is_never_executed(layout: Any, roles: Any) -> None:
    ran: list[str] = []

    def find(q: str) -> str:
        ran.append("find")
        return f"2 found for {q}"

    def pay(**_: Any) -> str:
        ran.append("pay")
        return "paid"

    tools: dict[str, Callable[..., Any]] = {"find": find, "pay": pay}
    replies = [Reply(calls=(Call("pay", '{"sum": 1}'), Call("find", '{"q": "tea"}'))), Reply("Two.")]
    with ProviderServer(replies=replies) as server, client_of("openai", server) as client:
        team = Team(session_of("openai", client=client), members(ann=[FIND], bob=[PAY]), layout, roles=roles)
        assert team.respond("ann", "Tea?", tools=tools).text == "Two."
        results = [m for m in team.history[1].messages for _ in m.tool_results]
        assert len(server.requests) == 2
    assert ran == ["find"]
    failed = {
        result.is_error
        for message in results
        for result in message.tool_results
        if "pay" in str(result.content)
    }
    assert failed == {True}
    assert "ann may not use the tool 'pay', nothing was run: its tools are find" in "\n".join(
        texts_of(team.request("bob").body)
    )


def test_a_request_of_ones_own_is_refused_the_same_and_goes_on() -> None:
    team = team_of("shared", "turn", ann=[FIND], bob=[PAY])
    reply = Message("assistant", [ToolCall("c1", "pay", '{"sum":1}'), ToolCall("c2", "find", '{"q":"tea"}')])
    team.request("ann", "Tea?").observe(Usage(), reply)
    with pytest.raises(PairingError):
        team.request("ann")
    team.append(Message("tool", [ToolResult("c2", "2 found")]))
    team.request("ann").observe(Usage(), Message("assistant", "Two."))
    assert [said.speaker for said in team.history] == [None, "ann"]
    results = [result for message in team.history[1].messages for result in message.tool_results]
    assert [(result.call_id, result.is_error) for result in results] == [("c1", True), ("c2", False)]


def test_the_union_of_the_tools_stands_in_one_order_and_the_role_says_whose_they_are() -> None:
    team = team_of("shared", "turn", ann=[FIND], bob=[PAY, FIND])
    asked = {name: team.request(name, "Hello").body for name in team.names}
    assert len({json.dumps(body["tools"]) for body in asked.values()}) == 1
    assert [tool["function"]["name"] for tool in asked["ann"]["tools"]] == ["find", "pay"]
    assert "only: find." in texts_of(asked["ann"])[-1]
    assert "only" not in texts_of(asked["bob"])[-1]
    assert "You may use no tools." in texts_of(asked["cyd"])[-1]
    assert "tools" not in team_of("separate", ann=[FIND]).request("bob", "Hello").body


def test_tools_of_one_name_are_merged_or_keep_the_team_separate() -> None:
    wider = {"name": "find", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}}}
    other = {"name": "find", "parameters": {"type": "object", "properties": {"q": {"type": "integer"}}}}
    [tool] = team_of("shared", "turn", ann=[FIND], bob=[wider]).request("ann", "x").body["tools"]
    assert set(tool["function"]["parameters"]["properties"]) == {"q", "n"}
    team = team_of("auto", ann=[FIND], bob=[other])
    assert (team.layout, team.reason) == (
        "separate",
        "separate: the tool 'find' has schemas that cannot be merged",
    )
    assert team.request("bob", "x").body["tools"][0]["function"]["parameters"] == other["parameters"]
    with pytest.raises(MessageError, match="'find' has schemas that cannot be merged; rename one"):
        team_of("shared", ann=[FIND], bob=[other])


def test_a_merged_schema_is_one_that_providers_take() -> None:
    bare = [{"name": "t", "description": text} for text in ("One.", "Two.")]
    [tool] = team_of("shared", "turn", ann=[bare[0]], bob=[bare[1]]).request("ann", "x").body["tools"]
    assert tool["function"] == {"name": "t", "description": "One.\nTwo."}
    untyped = {"name": "t", "parameters": {"properties": {"q": {"type": "string"}}}}
    [tool] = team_of("shared", "turn", ann=[bare[0]], bob=[untyped]).request("ann", "x").body["tools"]
    assert tool["function"]["parameters"]["type"] == "object"


def test_strict_tools_are_merged_only_if_their_parameters_are_the_same() -> None:
    def strict(text: str, *names: str) -> dict[str, Any]:
        properties = {name: {"type": "string"} for name in names}
        schema = {"type": "object", "properties": properties, "required": [*names]}
        return {"name": "t", "description": text, "strict": True, "parameters": schema}

    first = strict("One.", "q")
    team = team_of("shared", "turn", ann=[first], bob=[strict("Two.", "q")])
    [tool] = team.request("ann", "x").body["tools"]
    assert tool["function"] == {**first, "description": "One.\nTwo."}
    with pytest.raises(MessageError, match="'t' has schemas that cannot be merged; rename one"):
        team_of("shared", ann=[first], bob=[strict("Two.", "q", "n")])


# What fails


@pytest.mark.parametrize(("layout", "roles"), LAYOUTS)
def test_a_provider_that_fails_leaves_the_transcript_as_it_was(layout: Any, roles: Any) -> None:
    replies = [Reply(status=500, message="no"), Reply("A plan.")]
    with ProviderServer(replies=replies) as server, client_of("openai", server) as client:
        team = Team(session_of("openai", client=client), members(), layout, roles=roles)
        with pytest.raises(Exception, match="500"):
            team.respond("ann", "Hello")
        assert not team.history
        assert team.respond("ann", "Hello").text == "A plan."
        assert len(server.requests) == 2
    assert [said.speaker for said in team.history] == [None, "ann"]


@pytest.mark.parametrize(("layout", "roles"), LAYOUTS)
def test_an_interrupted_turn_goes_on_where_it_was_and_runs_no_tool_twice(layout: Any, roles: Any) -> None:
    ran: list[str] = []

    def find(q: str) -> str:
        ran.append(q)
        return "2 found"

    replies = [Reply(calls=(Call("find", '{"q": "tea"}'),)), Reply(status=500, message="no"), Reply("Two.")]
    with ProviderServer(replies=replies) as server, client_of("openai", server) as client:
        team = Team(session_of("openai", client=client), members(ann=[FIND]), layout, roles=roles)
        tools: dict[str, Callable[..., Any]] = {"find": find}
        with pytest.raises(Exception, match="500"):
            team.respond("ann", "Tea?", tools=tools)
        assert not team.history
        with pytest.raises(MessageError, match="open"):
            team.thaw("now")
        assert team.respond("ann", tools=tools).text == "Two."
        assert len(server.requests) == 3
    assert ran == ["tea"]
    assert [said.speaker for said in team.history] == [None, "ann"]
    assert len(team.history[1].messages) == 3
    assert team.ledger["ann"].requests == 2


@pytest.mark.parametrize(("layout", "roles"), LAYOUTS)
def test_an_asynchronous_client_and_tools(layout: Any, roles: Any) -> None:
    async def find(q: str) -> str:
        return f"all about {q}"

    replies = [Reply(calls=(Call("find", '{"q": "tea"}'),)), Reply("Brew it.")]
    with ProviderServer(replies=replies) as server:
        team = Team(session_of("anthropic"), members(ann=[FIND]), layout, roles=roles)

        async def work(client: Any) -> Message:
            return await team.arespond("ann", "Tea?", tools={"find": find}, client=client)

        assert with_async_client("anthropic", server, work).text == "Brew it."
        assert len(server.requests) == 2
    assert team.history[1].messages[1].tool_results[0].content == "all about tea"


def test_threads_may_share_a_team() -> None:
    team = team_of("shared", "sticky")
    team.append("Build a shed.")

    def work(name: str) -> None:
        for turn in range(20):
            team.request(name).observe(Usage(), Message("assistant", f"{name} {turn}"))

    threads = [Thread(target=work, args=(name,)) for name in team.names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = [(each.speaker, each.messages[0].text) for each in team.history[1:]]
    for name in team.names:
        assert [text for speaker, text in said if speaker == name] == [f"{name} {turn}" for turn in range(20)]
    transcript = [message.text for message in team.sessions["team"].messages]
    assert [text for text in transcript if text.split()[-1].isdigit()] == [
        f"{who}: {text}" for who, text in said
    ]


# Forks, epochs, choice


@pytest.mark.parametrize(("layout", "roles"), LAYOUTS)
def test_a_fork_goes_on_apart(layout: Any, roles: Any) -> None:
    team = team_of(layout, roles)
    team.append("Build a shed.")
    say(team, "ann", "A plan.")
    fork = team.fork()
    assert json.dumps(fork.request("bob").body) == json.dumps(team.request("bob").body)
    say(fork, "bob", "Not this.")
    say(team, "bob", "A shed.")
    assert "Not this." not in json.dumps(team.request("ann").body)
    assert "A shed." not in json.dumps(fork.request("ann").body)
    assert (fork.ledger.requests, team.ledger.requests) == (1, 2)


def test_auto_takes_the_cheaper_layout_and_says_why() -> None:
    alike = Team(session_of(), members())
    assert alike.layout == "shared"
    assert alike.choice.costs["separate"] > min(alike.choice.costs.values())
    assert alike.reason.startswith("shared, roles ")
    assert "USD" in alike.reason
    own = [Member(name, f"You are {name}. " * 2000) for name in ("ann", "bob", "cyd")]
    apart = Team(session_of(system="Be kind."), own, turn_tokens=50)
    assert apart.layout == "separate"
    assert apart.choice.costs["separate"] == min(apart.choice.costs.values())


def test_a_rehearsal_is_not_heard_of() -> None:
    session = session_of()
    team = Team(session, members())
    assert team.layout == "shared"
    assert not session.family.knows(session.dialect)
    assert (team.ledger.requests, session.ledger.requests, team.history) == (0, 0, ())
    assert team.request("ann", "Hello").forecast.read_tokens == 0


def test_an_unpriced_model_is_weighed_by_its_rules() -> None:
    session = Session(StableContext("some-model", COMMON), "vllm", tokens=EstimateCounter())
    team = Team(session, members())
    assert team.layout == "shared"
    assert "input tokens" in team.reason


def test_a_layout_holds_until_it_is_thawed() -> None:
    team = Team(session_of(), members(), "separate")
    team.append("Build a shed.")
    say(team, "ann", "A plan.")
    before = json.dumps(team.request("bob").body)
    assert json.dumps(team.request("bob").body) == before
    team.thaw("it grows long", layout="shared")
    assert (team.layout, team.epoch) == ("shared", 1)
    assert "ann: A plan." in texts_of(team.request("bob").body)
    assert [entry.kind for entry in team.ledger["bob"]] == ["thawed"]
    assert [said.speaker for said in team.history] == [None, "ann"]


def test_a_session_that_compacts_keeps_its_team_separate() -> None:
    compaction = Compaction(max_tokens=50_000, hooks=[Truncator(keep_last=2)])
    session = session_of(compaction=compaction)
    team = Team(session, members())
    assert (team.layout, "compacts" in team.reason) == ("separate", True)
    with pytest.raises(MessageError, match="compacts its history"):
        Team(session, members(), "shared")


def test_asynchronous_requests_of_all_members_at_once() -> None:
    with ProviderServer() as server:
        team = Team(session_of("anthropic"), members(), "shared", roles="turn")
        team.append("Build a shed.")

        async def work(client: Any) -> None:
            async with anyio.create_task_group() as group:
                for name in team.names:
                    group.start_soon(partial(team.arespond, name, client=client))

        with_async_client("anthropic", server, work)
        assert len(server.requests) == 3
    assert sorted(str(said.speaker) for said in team.history[1:]) == ["ann", "bob", "cyd"]


def test_replies_may_depend_on_who_is_asked() -> None:
    def reply(asked: Asked) -> Reply:
        last = texts_of(asked.body)[-1]
        return Reply("A plan." if "You plan." in last else "A shed.")

    with ProviderServer(replies=reply) as server, client_of("openai", server) as client:
        team = Team(session_of("openai", client=client), members(), "shared", roles="turn")
        assert team.respond("ann", "Build.").text == "A plan."
        assert team.respond("bob").text == "A shed."
        assert len(server.requests) == 2
