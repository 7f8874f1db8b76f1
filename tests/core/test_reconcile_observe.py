"""A prompt that goes out as the host gave it, and what is told of it."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties.hosts import Counting, ScriptedHost, usage_of

from llmbuffer import Message, Session, StableContext, Usage
from llmbuffer.breaks import CacheBreak
from llmbuffer.explaining import explain
from llmbuffer.reconcile import DictHost, Plan, Policy, Router, dynamic_text, persona
from llmbuffer.tokens import EstimateCounter

moves = pytest.mark.moves_prefix(reason="the hosts move what they sent, and that is to be told")
Item = dict[str, Any]
RULES = "Answer every question with care, and name your source. " * 150
TOOLS: list[Item] = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("find", "send", "look", "save")
]


def session_of(model: str = "gpt-5.5", dialect: str = "openai", **context: Any) -> Session:
    return Session(StableContext(model, **context), dialect, tokens=EstimateCounter())


def user(text: str) -> Item:
    return {"role": "user", "content": text}


def said(text: str) -> Item:
    return {"role": "assistant", "content": text}


# The plan


@settings(deadline=None)
@given(seed=st.integers(0, 2**16), length=st.integers(1, 9), leading=st.booleans(), as_list=st.booleans())
@moves
def test_the_plan_is_what_the_host_gave(seed: int, length: int, leading: bool, as_list: bool) -> None:
    random, host, session = Random(seed), ScriptedHost(seed), session_of(system="not sent", tools=TOOLS[:1])
    for step in range(length):
        host.act(random.choice(["append", "call", "edit", "delete", "trim", "line", "copies", "retry"]))
        tools = random.sample(TOOLS, random.randint(0, 4)) if random.random() < 0.8 else None
        text = host.system + dynamic_text("now", f"12:0{step}") + persona("You are it.")
        head: Item = {"role": "system", "content": text}
        messages = [head, *host.hand_over()] if leading else host.hand_over()
        system: Any = None if leading else [text] if as_list else text
        before = copy.deepcopy((tools, system, messages))
        plan = session.reconcile(
            tools=tools,
            system=system,
            messages=messages,
            dynamic={"clock": "12:00"},
            observe=True,
            history="ours",
        )
        assert list(map(id, plan.messages)) == list(map(id, messages))
        assert list(map(id, plan.tools)) == list(map(id, tools or []))
        assert plan.system is system
        assert (tools, system, messages) == before
        assert not plan.tail
        assert (plan.marks, plan.arguments, plan.hidden, plan.kept, plan.changes) == ((), {}, (), 0, ())
        plan.observe(usage_of(plan))


@moves
def test_nothing_is_learned_and_the_order_of_tools_is_the_hosts() -> None:
    router = Router(session_of(), policy=Policy(observe=True))
    for hour in (10, 11, 12):
        system = f"{RULES}\nIt is {hour}:00.\nBe kind."
        plan = router.reconcile(system=system, messages=[user("hi")], conversation="a")
        plan.observe(usage_of(plan))
        assert plan.system == system
    assert [entry.kind for entry in plan.session.ledger] == ["request"] * 3


def test_no_key_is_needed_and_nothing_is_read_that_cannot_be() -> None:
    odd = [object(), {"type": "function", "function": {"name": "find"}}, TOOLS[0]]
    plan = session_of().reconcile(tools=odd, messages=[{"odd": 1}, user("hi")], observe=True, history="ours")
    assert plan.tools == tuple(odd)
    assert plan.unknown == (0,)
    assert len(plan.request.context.tools) == 3


def test_the_session_s_own_prompt_is_not_taken_for_sent() -> None:
    session = session_of(system=RULES, tools=TOOLS, params={"temperature": 0})
    plan = session.reconcile(messages=[user("hi")], observe=True)
    assert plan.request.context.segments == ()
    assert plan.request.context.tools == ()
    assert not plan.request.context.params


def test_work_is_what_is_new() -> None:
    session, convert = session_of(), Counting()
    messages = [user("a"), said("b"), user("c")]
    for _ in range(5):
        before = convert.conversions
        session.reconcile(system=RULES, messages=messages, convert=convert, observe=True)
        assert convert.conversions - before in (len(messages), 2)
        messages += [said(f"d{len(messages)}"), user("e")]
    assert convert.conversions == len(messages) - 2


# What is told


def changed(random: Random, host: ScriptedHost, tools: list[Item], params: Item) -> str:
    """One change of a kind, and its name."""
    kind = random.choice(["append", "reorder", "add", "remove", "system", "edit", "delete", "params", "same"])
    if kind == "reorder" and len(tools) > 1:
        tools.append(tools.pop(0))
    elif kind == "add" and len(tools) < len(TOOLS):
        tools.insert(0, next(tool for tool in TOOLS if tool not in tools))
    elif kind == "remove" and tools:
        tools.pop(random.randrange(len(tools)))
    elif kind == "system":
        host.lines[random.randrange(len(host.lines))] = host.text("line")
    elif kind == "params":
        params["reasoning_effort"] = "low" if params.get("reasoning_effort") != "low" else "high"
    elif kind in ("edit", "delete") and len(host.messages) > 2:
        host.act(kind)
    elif kind == "append":
        host.act("append")
    else:
        return "same"
    return kind


@moves
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**16), steps=st.integers(2, 12))
def test_breaks_are_those_of_the_bodies(seed: int, steps: int) -> None:
    random, host, session = Random(seed), ScriptedHost(seed), session_of()
    tools: list[Item] = list(TOOLS[:2])
    params: Item = {}
    before: Item | None = None
    for _ in range(steps):
        kind = changed(random, host, tools, params)
        system = f"{RULES}\n{host.system}"
        messages = host.hand_over()
        plan = session.reconcile(
            tools=list(tools), system=system, messages=messages, params=dict(params), observe=True
        )
        head: Item = {"role": "system", "content": system}
        body = copy.deepcopy({"model": "gpt-5.5", **params, "tools": tools, "messages": [head, *messages]})
        found = None if before is None else explain(before, body)
        assert cause_of(plan.cache_break) == cause_of(found), kind
        seen = plan.observe(usage_of(plan))
        assert cause_of(seen.cache_break) in (cause_of(found), "evicted-or-routed")
        before = body


def cause_of(found: CacheBreak | None) -> str | None:
    return None if found is None else found.cause


@settings(deadline=None)
@given(seed=st.integers(0, 2**16), turns=st.integers(2, 8), model=st.sampled_from(["gpt-5.5", "gpt-5.6"]))
def test_an_append_only_host_gets_no_alarm(seed: int, turns: int, model: str) -> None:
    session, host = session_of(model), ScriptedHost(seed)
    for _ in range(turns):
        plan = session.reconcile(tools=TOOLS, system=RULES, messages=host.hand_over(), observe=True)
        assert plan.cache_break is None
        assert served(plan).cache_break is None
        host.act("append")


def served(plan: Plan) -> Any:
    """What comes of usage as the provider's cache would report it."""
    forecast = plan.forecast
    return plan.observe(
        Usage(
            input_tokens=plan.request.snapshot.tokens,
            cache_read_tokens=forecast.read_tokens,
            cache_write_tokens=forecast.write_tokens,
        )
    )


# Breakpoints of the host


def marked(text: str, role: str = "user") -> Item:
    return {
        "role": role,
        "content": [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}],
    }


def plain(text: str, role: str = "user") -> Item:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def test_a_breakpoint_that_moves_with_the_end_is_no_edit() -> None:
    session = session_of("claude-sonnet-5.5", "anthropic")
    turns = [plain("one"), said("1"), plain("two"), said("2"), plain("three")]
    for length in (1, 3, 5):
        messages = [*turns[: length - 1], marked(("one", "two", "three")[length // 2])]
        plan = session.reconcile(system=RULES, messages=messages, observe=True)
        assert plan.relation == ("new" if length == 1 else "extension")
        assert plan.cache_break is None
        assert [mark.node.depth for mark in plan.request.snapshot.marks] == [length]
        if length > 1:
            assert plan.forecast.read_tokens > 1024
        assert "breakpoint-missing" not in plan.forecast.warnings
        assert served(plan).cache_break is None


def test_without_breakpoints_that_is_what_is_told() -> None:
    session = session_of("claude-sonnet-5.5", "anthropic")
    plan = session.reconcile(system=RULES, messages=[plain("one")], observe=True)
    assert plan.request.snapshot.marks == ()
    assert "breakpoint-missing" in plan.forecast.warnings


@pytest.mark.parametrize(
    ("marked", "params", "places"),
    [
        (1, {}, ["end"]),
        (2, {}, ["system", "end"]),
        (3, {}, ["tools", "system", "end"]),
        (0, {"cache_control": {"type": "ephemeral"}}, ["end"]),
    ],
)
def test_breakpoints_that_the_host_sets_besides(marked: int, params: Item, places: list[str]) -> None:
    session = session_of("claude-sonnet-5.5", "anthropic")
    plan = session.reconcile(
        system=RULES, tools=TOOLS, messages=[plain("one")], observe=True, marked=marked, params=params
    )
    snapshot = plan.request.snapshot
    names = {snapshot.tip: "end", snapshot.head: "system"}
    assert [names.get(mark.node, "tools") for mark in snapshot.marks] == places


@pytest.mark.parametrize(("options", "count"), [({}, 1), ({"prompt_cache_options": {"mode": "explicit"}}, 0)])
def test_the_providers_own_breakpoint_is_there_unless_the_host_turns_it_off(
    options: Item, count: int
) -> None:
    plan = session_of("gpt-5.6").reconcile(system=RULES, messages=[user("hi")], params=options, observe=True)
    assert len(plan.request.snapshot.marks) == count


@moves
def test_what_was_observed_is_in_the_ledger() -> None:
    router = Router(session_of(), convert=DictHost(), policy=Policy(observe=True))
    messages = [user("hi")]
    plan = router.reconcile(system=RULES, messages=messages, conversation="a")
    seen = plan.observe(Usage(input_tokens=2000, output_tokens=5), Message("assistant", "Hello"))
    assert seen.cost is not None
    messages += [said("Hello"), user("more")]
    messages[0]["content"] = "[redacted]"
    later = router.reconcile(system=RULES, messages=messages, conversation="a")
    assert later.cache_break is not None
    assert later.cache_break.cause == "history-edited"
    later.observe(Usage(input_tokens=2010))
    assert [entry.cache_break is not None for entry in later.session.ledger] == [False, True]
