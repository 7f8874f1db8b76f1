"""Members of one conversation who share one prefix, as a host hands them over."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest
from anthropic import Anthropic
from openai import OpenAI

from llmbuffer import Session, StableContext, Usage
from llmbuffer.errors import MessageError
from llmbuffer.reconcile import DictHost, Plan, Policy, Router, dynamic_text, persona
from llmbuffer.seam import Seam
from llmbuffer.simulate import ProviderServer
from llmbuffer.tokens import EstimateCounter

Item = dict[str, Any]
RULES = "Answer every question with care, and name your source. " * 150
NAMES = ("ann", "bob", "eve")
moves = pytest.mark.moves_prefix(reason="members leave their own prompts for the shared one, or change them")


def router_of(model: str = "gpt-5.5", dialect: str = "openai", host: Any = None, **policy: Any) -> Router:
    policy.setdefault("team", "shared")
    seconds = itertools.count()
    session = Session(
        StableContext(model), dialect, tokens=EstimateCounter(), clock=lambda: float(next(seconds))
    )
    return Router(session, convert=host, policy=Policy(**policy))


def user(text: str, name: str | None = None) -> Item:
    return {"role": "user", "content": text, **({} if name is None else {"name": name})}


def said(text: str, name: str | None = None) -> Item:
    return {"role": "assistant", "content": text, **({} if name is None else {"name": name})}


def tool(name: str, text: str = "", **properties: Any) -> Item:
    schema = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "description": text or name, "parameters": schema}}


def prompt(name: str) -> str:
    return f"You are {name}. {RULES}"


def asked(router: Router, member: str, messages: list[Item], **given: Any) -> Plan:
    given.setdefault("system", prompt(member))
    plan = router.reconcile(messages=messages, conversation="c", member=member, **given)
    plan.observe(Usage(input_tokens=plan.request.snapshot.tokens))
    return plan


def declared(router: Router, names: tuple[str, ...] = NAMES, **given: Any) -> Router:
    for name in names:
        router.declare(name, system=prompt(name), **given)
    return router


# Personas


@moves
def test_marks_of_a_persona_are_taken_off_where_nothing_is_shared() -> None:
    router = router_of(team="separate")
    system = persona("You are the critic.") + " Be kind."
    assert asked(router, "ann", [user("hi")], system=system).system == "You are the critic. Be kind."
    shown = asked(router, "ann", [user("hi")], system=system, observe=True).system
    assert shown == system


def test_a_marked_persona_is_what_a_member_has_of_its_own() -> None:
    router = router_of()
    systems = {
        name: f"Be kind. {persona(f'You are {name} in {{place}}.')} Be brief.".format(place="Rome")
        for name in NAMES
    }
    for name, system in systems.items():
        router.declare(name, system=system)
    for name, system in systems.items():
        plan = asked(router, name, [user("hi")], system=system)
        assert plan.system == "Be kind. Be brief."
        assert f"You are {name} in Rome." in plan.tail.text


def test_dynamic_text_in_a_persona_goes_to_the_tail_as_well() -> None:
    router = declared(router_of())
    for hour in (10, 11):
        own = persona("You are ann. It is " + dynamic_text("now", f"{hour}:00") + ".")
        plan = asked(router, "ann", [user("hi")], system=f"{own} {RULES}")
        assert plan.system == RULES
        assert f"It is {hour}:00." in plan.tail.text
        assert "\u2063" not in plan.tail.text


@pytest.mark.parametrize("name", ["", 3])
def test_a_name_says_what_it_is(name: Any) -> None:
    with pytest.raises(MessageError, match="give a text"):
        persona("You are it.", name)
    with pytest.raises(MessageError, match="give the name"):
        router_of().declare(name)


# One prefix


def test_declared_members_share_from_the_first_request_on() -> None:
    router, talk = declared(router_of()), [user("Where is it?")]
    plans = []
    for round_ in range(2):
        for name in NAMES:
            plans.append(asked(router, name, list(talk)))
            talk.append(said(f"{name} knows, {round_}", name))
    assert {plan.system for plan in plans} == {RULES}
    assert all(plan.shared and plan.cache_break is None and not plan.changes for plan in plans)
    assert [plan.messages[-1] is talk[index] for index, plan in enumerate(plans)] == [True] * 6
    assert ["You are ann." in plan.tail.text for plan in plans] == [True, False, False] * 2
    assert all(plan.request.snapshot.head.wire == plans[0].request.snapshot.head.wire for plan in plans)
    assert [len(list(session.ledger)) for session in router.sessions] == [2, 2, 2]


@moves
def test_undeclared_members_move_once_and_by_plan() -> None:
    router, talk = router_of(), [user("Where is it?")]
    first = asked(router, "ann", talk)
    assert (first.shared, first.system, first.notes[0]) == (False, prompt("ann"), "team: one member so far")
    talk.append(said("here", "ann"))
    second = asked(router, "bob", talk)
    assert (second.shared, second.changes, second.system) == (True, (), RULES)
    talk.append(said("there", "bob"))
    third = asked(router, "ann", talk)
    assert [change.length for change in third.changes] == [len("You are ann. ")]
    assert third.cache_break is None
    kinds = [entry.kind for entry in router.session("c", "ann").ledger]
    assert kinds == ["request", "moved", "request"]
    assert not asked(router, "ann", talk).changes


def test_what_one_conversation_taught_serves_the_next() -> None:
    router = router_of()
    for name in ("ann", "bob"):
        asked(router, name, [user("hi")])
    plan = router.reconcile(system=prompt("bob"), messages=[user("new")], conversation="d", member="bob")
    assert (plan.shared, plan.system) == (True, RULES)
    router.reset()
    assert not asked(router, "ann", [user("hi")]).shared


def of(user_: str, name: str) -> dict[str, Any]:
    """What a member brings to the conversation of one user."""
    own = tool(f"tool_{name}", f"for {user_}", q={"type": "string"})
    return {"system": f"{prompt(name)}You serve {user_}, card {user_}-card.", "tools": [own]}


@moves
@pytest.mark.parametrize("first", NAMES)
@pytest.mark.parametrize("team", ["shared", "auto"])
def test_text_and_tools_of_another_conversation_never_go_out(team: str, first: str) -> None:
    router, talk = router_of(team=team), [user("hi")]
    names = dict.fromkeys((first, *NAMES))
    for each in ("ALICE", "BOB"):
        plans = []
        for name in (*names, *names):
            plan = router.reconcile(messages=talk, conversation=each, member=name, **of(each, name))
            plan.observe(Usage(input_tokens=plan.request.snapshot.tokens))
            plans.append(plan)
        sent = [f"{plan.request.body} {plan.tail.text} {plan.notes}" for plan in plans]
        assert not [text for text in sent if {"ALICE": "BOB", "BOB": "ALICE"}[each] in text]
        assert all(f"You serve {each}, card {each}-card." in text for text in sent)
        assert [plan.shared for plan in plans] == [False] + [True] * 5
        assert [len(plan.tools) for plan in plans] == [1, 2, 3, 3, 3, 3]


def test_tools_of_another_conversation_that_contradict_these_keep_nobody_apart() -> None:
    router, talk = router_of(), [user("hi")]
    for conversation, kind in (("c", "string"), ("d", "number")):
        tools = [tool("find", conversation, q={"type": kind})]
        for name in NAMES:
            plan = router.reconcile(
                system=prompt(name), tools=tools, messages=talk, conversation=conversation, member=name
            )
            plan.observe(Usage(input_tokens=plan.request.snapshot.tokens))
            assert [each["function"]["description"] for each in plan.tools] == [conversation]
        assert plan.shared


def test_a_member_whose_tools_contradict_those_of_the_others_keeps_its_own_prompt() -> None:
    router, talk = router_of(), [user("hi")]
    kinds = {"ann": "string", "bob": "string"}
    for name, kind in kinds.items():
        router.declare(name, system=prompt(name), tools=[tool("find", q={"type": kind})])
    assert asked(router, "ann", talk, tools=[tool("find", q={"type": "string"})]).shared
    mine = tool("find", q={"type": "number"})
    plan = asked(router, "bob", talk, tools=[mine])
    assert (plan.shared, plan.system, plan.tools) == (False, prompt("bob"), (mine,))


@pytest.mark.parametrize(("conversation", "member"), [(None, "ann"), ("c", None)])
def test_without_names_nothing_is_shared(conversation: str | None, member: str | None) -> None:
    router = declared(router_of())
    plan = router.reconcile(
        system=prompt("ann"), messages=[user("hi")], conversation=conversation, member=member
    )
    assert (plan.shared, plan.system) == (False, prompt("ann"))


def test_one_who_joins_late_shares_what_fits() -> None:
    router, talk = declared(router_of(), ("ann", "bob")), [user("hi")]
    asked(router, "ann", talk)
    late = asked(router, "eve", talk)
    assert (late.shared, late.system) == (True, RULES)
    assert asked(router, "ann", talk).cache_break is None


@moves
def test_a_common_line_that_one_prompt_lacks_is_common_no_more() -> None:
    router, talk = declared(router_of(learn=False)), [user("hi")]
    for name in NAMES:
        asked(router, name, talk)
    shorter = f"You are ann. {RULES[:-55]}"
    plan = asked(router, "ann", talk, system=shorter)
    assert plan.shared
    assert f"{plan.tail.text}{plan.system}".count("Answer every question") == 149
    assert plan.cache_break is not None
    assert plan.cache_break.cause == "system-changed"
    other = asked(router, "bob", talk)
    assert f"{other.tail.text}{other.system}".count("Answer every question") == 150


def test_a_system_message_of_the_hosts_holds_the_common_text() -> None:
    router, head = declared(router_of()), {"role": "system", "content": prompt("ann"), "id": 7}
    plan = asked(router, "ann", [head, user("hi")], system=None)
    assert plan.messages[0] == {**head, "content": RULES}
    assert head["content"] == prompt("ann"), "the host's own object stays as it was"


# Tools


def test_tools_are_those_of_all_and_the_others_are_hidden() -> None:
    router = router_of("gpt-5.6")
    sets = {"ann": [tool("find"), tool("send")], "bob": [tool("send"), tool("look")], "eve": []}
    for name, tools in sets.items():
        router.declare(name, system=prompt(name), tools=tools)
    plans = {name: asked(router, name, [user("hi")], tools=tools or None) for name, tools in sets.items()}
    names = [each["function"]["name"] for each in plans["ann"].tools]
    assert names == ["find", "send", "look"]
    assert all(plan.tools == plans["ann"].tools for plan in plans.values())
    assert [plan.hidden for plan in plans.values()] == [("look",), ("find",), ("find", "send", "look")]
    assert "'look'" in (plans["ann"].refusal("look") or "")
    assert plans["bob"].refusal("look") is None
    choice = plans["bob"].arguments["tool_choice"]
    assert [each["function"]["name"] for each in choice["allowed_tools"]["tools"]] == ["send", "look"]
    assert plans["eve"].arguments["tool_choice"] == "none"


def test_where_choice_moves_the_cache_the_tail_says_it() -> None:
    router = router_of("claude-sonnet-5.5", "anthropic")
    for name, tools in (("ann", [tool("find")]), ("bob", [])):
        router.declare(name, system=prompt(name), tools=tools)
    plan = asked(router, "bob", [user("hi")], tools=[])
    assert "tool_choice" not in plan.arguments
    assert "No tool may be used" in plan.tail.text


def test_tools_of_one_name_become_one() -> None:
    router = router_of()
    mine = {name: [tool("handoff", f"Hand over to all but {name}.", to={"type": "string"})] for name in NAMES}
    for name in NAMES:
        router.declare(name, system=prompt(name), tools=mine[name])
    [one] = asked(router, "ann", [user("hi")], tools=mine["ann"]).tools
    [other] = asked(router, "bob", [user("hi")], tools=mine["bob"]).tools
    assert one is other
    assert one["function"]["description"].count("Hand over") == 3
    assert one["function"]["parameters"]["properties"] == {"to": {"type": "string"}}


class Plain(DictHost):
    """Makes no tools of ours, and knows no speakers."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("from_tool", "speaker"):
            raise AttributeError(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize(
    ("host", "schemas", "why"),
    [
        (Plain(), ({"type": "string"}, {"type": "string"}), "cannot merge"),
        (None, ({"type": "string"}, {"type": "number"}), "cannot be merged"),
    ],
)
def test_tools_that_cannot_be_one_keep_the_members_apart(host: Any, schemas: Any, why: str) -> None:
    router = router_of(host=host)
    for name, schema in zip(NAMES, schemas, strict=False):
        router.declare(name, system=prompt(name), tools=[tool("find", f"for {name}", q=schema)])
    plan = asked(router, "ann", [user("hi")], tools=[tool("find", "for ann", q=schemas[0])])
    assert not plan.shared
    assert why in plan.notes[0]


# How messages are told


def test_where_no_breakpoint_stands_behind_a_reply_it_is_told_by_name() -> None:
    router, talk = declared(router_of("gpt-5.6")), [user("Go."), said("One.", "ann"), said("nobody's")]
    plan = asked(router, "bob", talk)
    assert list(plan.messages) == [user("Go."), user("ann: One."), talk[2]]
    assert plan.messages[2] is talk[2], "who said it is not known"


def test_where_roles_depend_on_who_reads_each_message_is_told_once() -> None:
    router = declared(router_of())
    ann = [user("Go.", "boss")]
    bob = [user("Go.", "boss"), user("One.", "ann")]
    eve = [*bob, user("Two.", "bob")]
    again = [user("Go.", "boss"), said("One."), user("Two.", "bob"), user("Three. ", "eve")]
    plans = [
        asked(router, name, talk) for name, talk in zip((*NAMES, "ann"), (ann, bob, eve, again), strict=True)
    ]
    told = [user("ann: One."), user("bob: Two."), user("eve: Three.")]
    assert [list(plan.messages[1:]) for plan in plans] == [told[:index] for index in range(4)]
    assert plans[3].messages[1] is plans[1].messages[1]
    assert all(plan.cache_break is None for plan in plans)
    nodes = [plan.request.snapshot.tip for plan in plans]
    assert all(
        after.parent and after.parent.wire == before.wire for before, after in itertools.pairwise(nodes)
    )


def test_tool_traffic_goes_out_as_it_is_and_once_for_all() -> None:
    router = declared(router_of())
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    own = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "content": "found", "tool_call_id": "c1"}
    start = [user("Go.", "boss"), user("Hm.", "bob")]
    ann = asked(router, "ann", [*start, own, result])
    assert ann.messages[2] is own
    bob = asked(router, "bob", [start[0], said("Hm."), {**own, "name": "ann"}, {**result, "name": "find"}])
    assert list(bob.messages) == list(ann.messages)
    assert bob.messages[2] is not own, "a copy, since its host may edit its own"


def test_a_host_that_edits_its_own_object_is_followed_by_all() -> None:
    router = declared(router_of())
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    own = {"role": "assistant", "content": None, "tool_calls": [call]}
    start = [user("Go.", "boss"), user("Hm.", "bob")]
    asked(router, "ann", [*start, own, {"role": "tool", "content": "ok", "tool_call_id": "c1"}])
    own["tool_calls"] = [{**call, "function": {"name": "find", "arguments": '{"secret": 1}'}}]
    plan = router.reconcile(
        system=prompt("bob"),
        messages=[
            start[0],
            said("Hm."),
            {"role": "assistant", "content": None, "tool_calls": [call], "name": "ann"},
        ],
        conversation="c",
        member="bob",
    )
    assert "secret" not in str(plan.messages)


def test_what_stands_for_all_readers_is_no_object_that_one_of_them_may_edit() -> None:
    router = declared(router_of())
    mine = user("Go.", "boss")
    asked(router, "ann", [mine, user("Hm.", "bob")])
    yours: Item = {"content": "Go.", "name": "boss", "role": "user"}
    for _ in range(2):
        plan = asked(router, "bob", [yours, said("Hm.")])
        assert plan.messages[0] == user("Go.", "boss")
        assert list(plan.messages[0]) == ["role", "content", "name"]
        mine["content"] = "the secret"


def test_without_speakers_nothing_is_retold() -> None:
    router = declared(router_of(host=Plain()))
    talk = [user("Go."), said("One."), user("More."), said("Two.")]
    for name in NAMES:
        plan = asked(router, name, talk)
        assert plan.shared
        assert all(one is other for one, other in zip(plan.messages, talk, strict=True))


@moves
def test_what_the_host_deletes_is_gone_for_every_member() -> None:
    router = declared(router_of())
    talk = [user("Go.", "boss"), user("the secret", "bob"), user("Fine.", "eve")]
    asked(router, "ann", talk)
    del talk[1]
    for name in ("ann", "eve"):
        items = talk if name == "ann" else [talk[0], said("Fine.")]
        plan = asked(router, name, items)
        assert "secret" not in str(plan.messages) + str(plan.request.body)
    assert router.session("c", "ann").ledger[-1].cache_break is not None


# Who shares


SELECTOR = "You are in a role play. Choose who speaks next, and say nothing but a name."


def test_one_with_another_prompt_reads_behind_the_common_text_and_is_told_so() -> None:
    router = declared(router_of())
    router.declare("selector", system=SELECTOR)
    asked(router, "ann", [user("hi")])
    plan = asked(router, "selector", [user("hi")], system=SELECTOR)
    assert (plan.shared, plan.system) == (True, RULES)
    assert "are for ann, bob, eve alone; those of selector:\n" + SELECTOR in plan.tail.text


def test_auto_keeps_one_apart_whose_prompt_costs_more_than_it_saves() -> None:
    router = declared(router_of(team="auto"))
    long = "Choose who speaks next. " * 300
    router.declare("selector", system=long)
    assert asked(router, "ann", [user("hi")]).shared
    plan = asked(router, "selector", [user("hi")], system=long)
    assert (plan.shared, plan.system) == (False, long)


@pytest.mark.parametrize(
    ("model", "own", "shares"),
    [
        ("gpt-5.5", 10, True),
        ("gpt-5.5", 300, False),
        ("claude-sonnet-5.5", 10, True),
        ("deepseek-v4-pro", 300, False),
    ],
)
def test_auto_takes_what_is_cheaper_and_says_why(model: str, own: int, shares: bool) -> None:
    dialect = {"g": "openai", "c": "anthropic", "d": "deepseek"}[model[0]]
    router = router_of(model, dialect, team="auto")
    systems = {name: f"You are {name}. " + f"{name} is thorough. " * own + RULES for name in NAMES}
    for name, system in systems.items():
        router.declare(name, system=system)
    plan = asked(router, "ann", [user("hi")], system=systems["ann"])
    assert plan.shared == shares
    assert "cost of the input" in plan.notes[0]
    assert "thorough" not in plan.notes[0]


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5.5", "gpt-5.6", "claude-sonnet-5.5", "deepseek-v4-pro"])
@pytest.mark.parametrize("own", [5, 60, 300])
def test_auto_is_never_dearer_on_turns_as_expected(model: str, own: int) -> None:
    dialect = {"g": "openai", "c": "anthropic", "d": "deepseek"}[model[0]]
    systems = {name: f"You are {name}. " + f"{name} is thorough. " * own + RULES for name in NAMES}
    spent = {}
    for team in ("separate", "auto"):
        router = router_of(model, dialect, team=team)
        for name in NAMES:
            router.declare(name, system=systems[name])
        talk, spent[team] = [user("Go.")], 0.0
        for turn in range(18):
            name = NAMES[turn % 3]
            plan = router.reconcile(system=systems[name], messages=list(talk), conversation="c", member=name)
            forecast = plan.forecast
            assert forecast.cost is not None
            spent[team] += forecast.cost
            plan.observe(
                Usage(
                    input_tokens=plan.request.snapshot.tokens,
                    cache_read_tokens=forecast.read_tokens,
                    cache_write_tokens=forecast.write_tokens,
                )
            )
            talk.append(said(f"{turn} " + "word " * 480, name))
    assert spent["auto"] <= spent["separate"] * 1.01


@moves
def test_a_session_with_a_past_is_no_prompt_that_moves() -> None:
    router = router_of()
    router._origin.request("Hello").observe(Usage(input_tokens=5))
    later = Router(router._origin, policy=Policy(team="shared"))
    plan = asked(declared(later), "ann", [user("Hello"), said("Hi."), user("go on")])
    assert (plan.shared, plan.changes) == (True, ())


def test_what_is_known_of_members_is_bounded() -> None:
    router = declared(router_of(), ("ann", "bob"))
    for number in range(1100):
        name = f"m{number}"
        router.reconcile(
            system=prompt(name), messages=[user("hi")], conversation=f"c{number // 2}", member=name
        )
    assert len(router._company.parts) == 1024 + 2
    assert asked(router, "ann", [user("hi")]).shared


@pytest.mark.parametrize(("model", "dialect"), [("claude-sonnet-5.5", "anthropic"), ("gpt-5.6", "openai")])
def test_who_speaks_may_change_in_the_midst_of_tool_calls(model: str, dialect: str) -> None:
    router, talk = declared(router_of(model, dialect)), [user("Go.")]
    for turn in range(6):
        plan = asked(router, NAMES[turn % 3], list(talk))
        assert f"Speak as {NAMES[turn % 3]} now" in plan.tail.text
        assert str(plan.request.body).count("Speak as") == 1
        assert plan.cache_break is None
        assert all(one is other for one, other in zip(plan.messages, talk, strict=True))
        call = {"id": f"c{turn}", "type": "function", "function": {"name": "find", "arguments": "{}"}}
        talk.append({"role": "assistant", "content": None, "tool_calls": [call]})
        talk.append({"role": "tool", "content": "found", "tool_call_id": f"c{turn}"})


def test_forgetting_a_member_leaves_the_others_as_they_are() -> None:
    router, talk = declared(router_of()), [user("hi")]
    for name in NAMES:
        asked(router, name, talk)
    assert router.forget("c", "bob")
    assert asked(router, "ann", talk).cache_break is None
    assert asked(router, "bob", talk).shared
    assert router.forget("c")
    assert len(router) == 0


def test_members_may_speak_at_once() -> None:
    router, talk = declared(router_of()), [user("hi")]
    failures: list[BaseException] = []

    def speak(name: str) -> None:
        try:
            for _ in range(20):
                assert asked(router, name, talk).system == RULES
        except BaseException as error:  # noqa: BLE001 - told in the main thread
            failures.append(error)

    threads = [threading.Thread(target=speak, args=(name,)) for name in NAMES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_accounts_are_by_member() -> None:
    session = Session(StableContext("gpt-5.5"), tokens=EstimateCounter())
    seam = Seam(session=session, mode="team", policy=Policy(team="shared"))
    for name in NAMES:
        seam.declare(name, system=prompt(name))
    for count, name in enumerate(NAMES, 1):
        for _ in range(count):
            call = seam.call(system=prompt(name), messages=[user("hi")], conversation="c", member=name)
            call.observe(usage=Usage(input_tokens=100))
    assert [seam.account(member=name).requests for name in NAMES] == [1, 2, 3]
    assert seam.account(conversation="c").usage.input_tokens == 600


# On the wire


def test_openai_reads_what_another_member_wrote() -> None:
    with (
        ProviderServer() as server,
        OpenAI(base_url=server.openai_url, api_key="none", max_retries=0) as client,
    ):
        router, talk = declared(router_of("gpt-5.5")), [user("Where is it?", "boss")]
        found = []
        for turn in range(6):
            name = NAMES[turn % 3]
            plan = router.reconcile(
                system=prompt(name), messages=_read_by(talk, name), conversation="c", member=name
            )
            forecast = plan.forecast
            response = client.chat.completions.create(**plan.request.kwargs)
            seen = plan.observe(response)
            assert seen.usage is not None
            assert seen.cache_break is None
            found.append((seen.usage.cache_read_tokens > 0, forecast.read_tokens > 0))
            talk.append(said(response.choices[0].message.content or "", name))
        assert found == [(False, False)] + [(True, True)] * 5


def test_anthropic_reads_what_another_member_wrote() -> None:
    with (
        ProviderServer() as server,
        Anthropic(base_url=server.anthropic_url, api_key="none", max_retries=0) as client,
    ):
        router, talk = declared(router_of("claude-sonnet-5.5", "anthropic")), [user("Where is it?", "boss")]
        read = []
        for turn in range(6):
            name = NAMES[turn % 3]
            plan = router.reconcile(
                system=prompt(name), messages=_read_by(talk, name), conversation="c", member=name
            )
            response = client.messages.create(**plan.request.kwargs)
            seen = plan.observe(response)
            assert seen.usage is not None
            assert seen.cache_break is None
            read.append(seen.usage.cache_read_tokens / seen.usage.input_tokens)
            talk.append(said(f"{turn}: " + "word " * 50, name))
        assert read[0] == 0
        assert min(read[1:]) > 0.9


def _read_by(talk: list[Item], member: str) -> list[Item]:
    """The conversation as AutoGen hands it over: others as users with a name."""
    return [
        said(each["content"]) if each["name"] == member else user(each["content"], each["name"])
        for each in talk
    ]
