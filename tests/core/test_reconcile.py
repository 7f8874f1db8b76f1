"""Plans for hosts that own their history: what they name, where dynamic text goes, and what is recorded."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest

from llmbuffer import Image, Message, Session, StableContext, Text, Tool, ToolCall, ToolResult, Usage
from llmbuffer.errors import DialectError, MessageError
from llmbuffer.reconcile import DictHost, Policy, leaves_of
from llmbuffer.store import open_store
from llmbuffer.tokens import EstimateCounter

LONG = "Answer in full sentences and name the page of the manual. " * 120
Item = dict[str, Any]


def session_of(model: str = "gpt-5.5", dialect: str = "openai", **options: Any) -> Session:
    return Session(StableContext(model), dialect, tokens=EstimateCounter(), **options)


def user(text: str) -> Item:
    return {"role": "user", "content": text}


def said(text: str) -> Item:
    return {"role": "assistant", "content": text}


def call(number: int) -> list[Item]:
    asked = {"id": f"c{number}", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [asked]},
        {"role": "tool", "tool_call_id": f"c{number}", "content": f"found {number}"},
    ]


def tool(name: str, **schema: Any) -> Item:
    return {
        "type": "function",
        "function": {"name": name, "description": f"Does {name}.", "parameters": schema},
    }


def usage_for(plan: Any) -> Usage:
    return Usage(input_tokens=plan.request.snapshot.tokens)


# What a plan names


def test_a_plan_names_the_hosts_own_objects_in_their_order() -> None:
    items = [user("one"), said("two"), user("three")]
    tools = [tool("b"), tool("a")]
    plan = session_of().reconcile(tools=tools, system="Be kind.", messages=items)
    assert [one is other for one, other in zip(plan.messages, items, strict=True)] == [True] * 3
    assert [one is other for one, other in zip(plan.tools, tools, strict=True)] == [True] * 2
    assert plan.system == "Be kind."
    assert not plan.tail
    assert items == [user("one"), said("two"), user("three")]


def test_the_system_text_comes_back_in_the_shape_that_was_given() -> None:
    session = session_of()
    assert session.reconcile(messages=[user("a")]).system is None
    assert session.reconcile(system=["one", "", "two"], messages=[user("a")]).system == ("one", "", "two")
    assert session.reconcile(system="", messages=[user("a")]).system == ""


def test_without_tools_and_system_the_session_keeps_its_own() -> None:
    session = Session(StableContext("gpt-5.5", "Be kind.", [tool("a")]), tokens=EstimateCounter())
    body = session.reconcile(messages=[user("hi")]).request.body
    assert body["messages"][0]["content"] == "Be kind."
    assert [each["function"]["name"] for each in body["tools"]] == ["a"]


@pytest.mark.parametrize("copied", [False, True])
def test_each_relation_is_recognised_by_content_and_not_by_identity(copied: bool) -> None:
    history = [user("q1"), said("a1"), user("q2"), said("a2"), user("q3")]
    cases: list[tuple[str, list[Item]]] = [
        ("same", history),
        ("extension", [*history, said("a3"), user("q4")]),
        ("edited", [history[0], said("another"), *history[2:]]),
        ("truncated", history[2:]),
        ("summarized", [user("a summary"), *history[3:]]),
        ("forked", [*history[:3], user("another way")]),
        ("forked", history[:3]),
        ("new", [user("another matter")]),
    ]
    for relation, now in cases:
        session = session_of()
        assert session.reconcile(messages=history).relation == "new"
        handed_over = copy.deepcopy(now) if copied else now
        plan = session.reconcile(messages=handed_over)
        assert (plan.relation, relation) == (relation, relation)
        assert list(plan.messages) == now


@pytest.mark.moves_prefix(reason="the host edits what it sent")
def test_an_object_that_is_edited_in_place_is_seen() -> None:
    session, items = session_of(), [user("my card is 1234"), said("thanks"), user("go on")]
    plan = session.reconcile(messages=items)
    plan.observe(usage_for(plan), Message("assistant", "on it"))
    items[0]["content"] = "[redacted]"
    plan = session.reconcile(messages=items)
    assert plan.relation == "edited"
    assert "1234" not in str(plan.request.body)
    broken = plan.observe(usage_for(plan)).cache_break
    assert broken is not None
    assert (broken.cause, broken.section, broken.path) == ("history-edited", "messages", "messages[0]")
    assert broken.tokens_lost > 0
    assert session.ledger.breaks == (broken,)


def test_numbers_and_truth_values_are_not_the_same() -> None:
    assert leaves_of({"n": 1}) != leaves_of({"n": True}) != leaves_of({"n": 1.0})
    assert leaves_of({"a": "x", "b": "y"}) != leaves_of({"b": "y", "a": "x"})
    assert leaves_of({"a": ["x"]}) != leaves_of({"a": "x"})
    assert leaves_of([]) != leaves_of({})


def test_the_reply_that_was_observed_is_no_new_message_on_the_wire() -> None:
    session, items = session_of(), [user("hi")]
    plan = session.reconcile(messages=items)
    plan.observe(usage_for(plan), Message("assistant", "Hello!"))
    tip = session.tip
    plan = session.reconcile(messages=[*items, said("Hello!"), user("bye")])
    assert plan.relation == "extension"
    assert plan.request.base.tip.parent is tip


def test_a_reply_stands_for_an_edit_in_front_of_it() -> None:
    session = session_of()
    plan = session.reconcile(messages=[user("hi")])
    plan.observe(usage_for(plan), Message("assistant", "Hello!"))
    assert session.reconcile(messages=[user("[gone]"), said("Hello!"), user("bye")]).relation == "edited"


def test_forks_go_back_and_forth_without_converting_anew() -> None:
    class Counting(DictHost):
        conversions = 0

        def to_message(self, item: Any, /) -> Message:
            self.conversions += 1
            return super().to_message(item)

    session, host = session_of(), Counting()
    trunk = [user("q1"), said("a1")]
    left, right = [*trunk, user("left")], [*trunk, user("right")]
    for items in (left, right, left, right, trunk):
        session.reconcile(messages=items, convert=host)
    assert host.conversions == 4


@pytest.mark.parametrize("loaded", [False, True])
def test_what_a_session_held_before_its_host_came_is_recognised(loaded: bool) -> None:
    store = open_store("memory:")
    session, items = session_of(store=store), [user("q")]
    plan = session.reconcile(system="Be kind.", messages=items)
    plan.observe(usage_for(plan), Message("assistant", "a"))
    session.save()
    more = [*items, said("a"), user("b")]
    for relation, messages in (("extension", more), ("same", items), ("forked", [*items, said("c")])):
        known = Session.load(store, session.id, tokens=EstimateCounter()) if loaded else session.fork()
        plan = known.reconcile(system="Be kind.", messages=messages)
        assert plan.relation == relation
        assert plan.observe(usage_for(plan)).cache_break is None


# Breaks


@pytest.mark.moves_prefix(reason="the host changes what it sent")
@pytest.mark.parametrize(
    ("change", "cause", "path"),
    [
        ({"system": LONG + "Be brief."}, "system-changed", "system[0]"),
        ({"tools": [tool("look"), tool("find")]}, "tools-added", "tools[1]"),
        ({"tools": [tool("look", type="object")]}, "tool-schema-changed", "tools[0]"),
        ({"messages": [said("a"), user("b")]}, "history-truncated", "messages[0]"),
        ({"messages": [user("q"), said("x"), user("b")]}, "history-edited", "messages[1]"),
    ],
)
def test_what_the_host_does_to_the_prefix_is_a_break_at_once(change: Item, cause: str, path: str) -> None:
    session = session_of()
    prompt: Item = {"system": LONG, "tools": [tool("look")], "messages": [user("q"), said("a"), user("b")]}
    plan = session.reconcile(**prompt, learn=False)
    plan.observe(usage_for(plan), Message("assistant", "c"))
    plan = session.reconcile(**{**prompt, **change}, learn=False)
    assert plan.cache_break is not None
    assert (plan.cache_break.cause, plan.cache_break.path) == (cause, path)
    assert plan.observe(usage_for(plan)).cache_break == plan.cache_break
    assert plan.cache_break.cost is not None
    plan = session.reconcile(**{**prompt, **change}, learn=False)
    assert plan.cache_break is None


def test_params_that_the_cache_depends_on_are_a_break_at_once() -> None:
    session, items = session_of(), [user("q" * 400)]
    plan = session.reconcile(messages=items, params={"temperature": 0})
    plan.observe(usage_for(plan))
    plan = session.reconcile(messages=items, params={"temperature": 1, "response_format": StrangeHost})
    assert plan.cache_break is not None
    assert (plan.cache_break.cause, plan.cache_break.path) == ("params-changed", "params.response_format")
    assert session.reconcile(messages=items, params={"temperature": 1}).cache_break is not None


def test_a_break_waits_until_it_is_observed() -> None:
    session, items = session_of(), [user("q"), said("a"), user("b")]
    plan = session.reconcile(messages=items)
    plan.observe(usage_for(plan))
    session.reconcile(messages=items[1:])  # the host's call failed
    plan = session.reconcile(messages=items[1:])
    assert (plan.relation, plan.cache_break and plan.cache_break.cause) == ("same", "history-truncated")
    assert plan.observe(usage_for(plan)).cache_break is not None


def test_what_was_never_sent_cannot_be_lost() -> None:
    session, items = session_of(), [user("q"), said("a")]
    plan = session.reconcile(messages=items)
    plan.observe(usage_for(plan))
    session.reconcile(messages=[*items, user("b"), said("c")])  # the host's call failed
    plan = session.reconcile(messages=[*items, user("[gone]"), said("c")])
    assert (plan.relation, plan.cache_break) == ("edited", None)


def test_a_fork_and_a_retry_break_nothing() -> None:
    session, items = session_of(), [user("q"), said("a"), user("b")]
    for messages in (items, items[:1], [*items[:2], user("c")], items):
        plan = session.reconcile(messages=messages)
        assert plan.observe(usage_for(plan), Message("assistant", "d")).cache_break is None
    assert [entry.kind for entry in session.ledger] == ["request"] * 4


# What cannot be read


@dataclass
class Strange:
    said: str


class StrangeHost(DictHost):
    def to_message(self, item: Any, /) -> Message:
        if isinstance(item, Strange):
            raise MessageError("a Strange is no message: tell it otherwise")
        return super().to_message(item)


def test_what_cannot_be_read_is_handed_on_untouched_and_named() -> None:
    strange = Strange("something")
    plan = session_of().reconcile(messages=[user("q"), strange, user("b")], convert=StrangeHost())
    assert plan.messages[1] is strange
    assert plan.unknown == (1,)
    assert plan.request.snapshot.tokens > 3


def test_what_the_dialect_cannot_send_is_no_reason_to_stop() -> None:
    named = {"role": "user", "content": "hi", "name": "Ann"}
    plan = session_of("claude-sonnet-5.5", "anthropic").reconcile(messages=[named])
    assert plan.messages == (named,)
    assert plan.unknown == (0,)


@pytest.mark.parametrize(
    "items", [call(1)[1:], [user("q"), call(1)[0]], [user("q"), call(1)[0], user("never mind")]]
)
def test_calls_and_results_that_the_host_leaves_unpaired_go_through(items: list[Item]) -> None:
    session = session_of()
    plan = session.reconcile(messages=items)
    assert plan.messages == tuple(items)
    seen = plan.observe(usage_for(plan), Message("assistant", "hm"))
    assert seen.usage == usage_for(plan)


def test_a_response_of_another_shape_changes_nothing() -> None:
    session = session_of()
    plan = session.reconcile(messages=[user("q")])
    with pytest.raises(DialectError):
        plan.observe(object())
    assert len(session.ledger) == 0
    assert session.tip.depth == 0
    plan.observe(usage_for(plan), said("a"))
    assert [each.text for each in session.messages] == ["q", "a"]


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(MessageError, match=r"unknown options .'lern'"):
        session_of().reconcile(messages=[], lern=True)
    with pytest.raises(MessageError, match="history is 'mine'"):
        Policy(history="mine")  # type: ignore[arg-type]
    with pytest.raises(MessageError, match="cannot be read"):
        Policy(pinned=("(",))
    with pytest.raises(MessageError, match="finds no text"):
        Policy(declared=(3,))  # type: ignore[arg-type]


# Tools


def test_tools_keep_the_order_and_bytes_first_seen() -> None:
    session = session_of()
    first = [tool("a", type="object", title="A"), tool("b")]
    session.reconcile(tools=first, messages=[user("q")])
    again = [tool("b"), tool("a", title="A", type="object")]
    plan = session.reconcile(tools=again, messages=[user("q")])
    assert [one is other for one, other in zip(plan.tools, first, strict=True)] == [True, True]
    assert plan.hidden == ()


@pytest.mark.parametrize(
    ("dialect", "native"), [("openai", True), ("openai-responses", True), ("anthropic", False)]
)
def test_a_tool_that_is_hidden_for_one_call_stays_in_the_list(dialect: str, native: bool) -> None:
    model = "claude-sonnet-5.5" if dialect == "anthropic" else "gpt-5.6"
    session = session_of(model, dialect)
    session.reconcile(tools=[tool("a"), tool("b")], messages=[user("q")])
    plan = session.reconcile(tools=[tool("b")], messages=[user("q")])
    assert [each["function"]["name"] for each in plan.tools] == ["a", "b"]
    assert plan.hidden == ("a",)
    assert "cannot be used" in str(plan.refusal("a"))
    assert plan.refusal("b") is None
    choice: Any = plan.arguments.get("tool_choice")
    if native:
        assert choice["type"] == "allowed_tools"
        assert "'b'" in str(choice)
        assert "'a'" not in str(choice)
        assert not plan.tail
    else:
        assert choice is None
        assert "only these tools may be used: b" in plan.tail.text


def test_where_the_choice_counts_for_the_cache_the_tail_says_it() -> None:
    session = session_of("gpt-5.5")
    session.reconcile(tools=[tool("a")], messages=[user("q")])
    plan = session.reconcile(tools=[], messages=[user("q")])
    assert len(plan.tools) == 1
    assert "tool_choice" not in plan.arguments
    assert "No tool may be used" in plan.tail.text


def test_all_tools_hidden_is_no_choice_at_all() -> None:
    session = session_of("gpt-5.6")
    session.reconcile(tools=[tool("a")], messages=[user("q")])
    assert session.reconcile(tools=[], messages=[user("q")]).arguments["tool_choice"] == "none"


def test_a_choice_of_the_hosts_own_stays() -> None:
    session = session_of("gpt-5.6")
    session.reconcile(tools=[tool("a"), tool("b")], messages=[user("q")])
    plan = session.reconcile(tools=[tool("b")], messages=[user("q")], params={"tool_choice": "none"})
    assert "tool_choice" not in plan.arguments


def test_tools_that_are_all_others_take_the_place_of_all() -> None:
    session = session_of()
    session.reconcile(tools=[tool("a")], messages=[user("q")])
    plan = session.reconcile(tools=[tool("b")], messages=[user("q")])
    assert [each["function"]["name"] for each in plan.tools] == ["b"]
    assert plan.hidden == ()


# Marks, routing


def test_marks_stand_where_the_session_would_put_them() -> None:
    session = session_of("claude-sonnet-5.5", "anthropic")
    items = [user("q" * 4000), said("a" * 4000), user("b")]
    plan = session.reconcile(tools=[tool("look")], system=["", LONG], messages=items)
    sections = [(mark.section, mark.index) for mark in plan.marks]
    assert sections[-1] == ("messages", 2)
    assert ("system", 1) in sections
    assert len(plan.marks) <= 4
    assert all(mark.part == -1 for mark in plan.marks)


def test_marks_of_the_host_are_counted() -> None:
    marked = {**user("b"), "content": [{"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}]}
    session = session_of("claude-sonnet-5.5", "anthropic")
    own = session.reconcile(tools=[tool("look")], system=LONG, messages=[user("q" * 4000), marked], marked=2)
    assert len(own.marks) <= 4 - 2


def test_routing_is_an_argument() -> None:
    session = session_of("gpt-5.6", routing_key="shop")
    plan = session.reconcile(system=LONG, messages=[user("q")], dynamic={"clock": "12:00"})
    assert plan.arguments["prompt_cache_key"] == "shop"
    assert plan.arguments["prompt_cache_options"] == {"mode": "explicit"}
    assert [(mark.section, mark.kind) for mark in plan.marks][-1] == ("messages", "tail")
    assert session_of("claude-sonnet-5.5", "anthropic").reconcile(messages=[user("q")]).arguments == {}


# Placement of the tail


def test_the_tail_stands_behind_the_users_own_words() -> None:
    plan = session_of().reconcile(messages=[user("q")], dynamic={"clock": "12:00"})
    assert (plan.tail.index, plan.tail.apart, plan.tail.role) == (0, False, "user")
    assert plan.tail.texts == ('<context name="clock">\n12:00\n</context>',)
    parts = plan.request.body["messages"][0]["content"]
    assert [part["text"] for part in parts] == ["q", *plan.tail.texts]


def test_text_that_stays_the_same_in_a_turn_stays_where_it_is() -> None:
    session, items = session_of(), [user("q")]
    session.reconcile(messages=items, dynamic={"user": "Ann"})
    plan = session.reconcile(messages=[*items, *call(1)], dynamic={"user": "Ann"})
    assert (plan.tail.index, plan.tail.apart) == (0, False)


@pytest.mark.parametrize(
    ("model", "dialect", "at_end"),
    [("gpt-5.5", "openai", True), ("claude-haiku-4.5", "anthropic", False), ("tiny", "llamacpp", True)],
)
def test_text_that_changes_within_a_turn_goes_to_the_end_where_it_may(
    model: str, dialect: str, at_end: bool
) -> None:
    session, items = session_of(model, dialect), [user("q")]
    session.reconcile(messages=items, dynamic={"clock": "12:00"})
    items += call(1)
    plan = session.reconcile(messages=items, dynamic={"clock": "12:01"})
    assert plan.tail.index == (2 if at_end else 0)
    assert plan.tail.apart is at_end
    assert "12:01" in plan.tail.text
    role = "user" if dialect == "llamacpp" else "system"
    assert plan.tail.role == (role if at_end else "user")
    assert ("dynamic-in-prefix" in plan.forecast.warnings) is not at_end


def test_a_history_without_a_user_takes_the_tail_at_its_end() -> None:
    plan = session_of("claude-haiku-4.5", "anthropic").reconcile(messages=[said("hm")], dynamic={"a": "b"})
    assert (plan.tail.index, plan.tail.apart, plan.tail.role) == (0, True, "user")
    empty = session_of().reconcile(messages=[], dynamic={"a": "b"})
    assert (empty.tail.index, empty.tail.apart) == (-1, True)


# Other kinds of objects


def test_messages_of_ours_and_pictures_are_taken_as_they_are() -> None:
    items = [
        Message("user", [Text("look"), Image("https://example.com/a.png")]),
        Message("assistant", [ToolCall("c1", "look", "{}")]),
        Message("tool", [ToolResult("c1", "a cat")]),
    ]
    session = session_of()
    session.reconcile(messages=items[:1], tools=[Tool.of(tool("look"))])
    plan = session.reconcile(messages=items, tools=[Tool.of(tool("look"))])
    assert plan.relation == "extension"
    assert all(one is other for one, other in zip(plan.messages, items, strict=True))
    assert plan.unknown == ()


def test_reprs_hold_no_prompt_text() -> None:
    session = session_of()
    plan = session.reconcile(system="hush", messages=[user("hush")], dynamic={"a": "hush"})
    assert "hush" not in f"{plan!r} {plan.tail!r} {plan.marks!r} {plan.request!r}"
