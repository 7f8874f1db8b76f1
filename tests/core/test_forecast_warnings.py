"""What a session warns of before a request is paid for, and what it says afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from llmbuffer import (
    CacheBreak,
    Message,
    Opaque,
    Segment,
    Session,
    StableContext,
    ToolCall,
    ToolResult,
    Usage,
)
from llmbuffer.dialects.anthropic import Anthropic
from llmbuffer.dialects.anthropic_rules import rules_for
from llmbuffer.rules import Diagnosis
from llmbuffer.scanning import volatile_details
from llmbuffer.state import State
from llmbuffer.tokens import EstimateCounter

LONG = "Be kind and answer in full sentences. " * 300  # about 2,900 tokens
REPLY = Message("assistant", "Hi!")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def session_of(
    system: str | Sequence[Segment] = LONG,
    model: str = "claude-sonnet-5.5",
    dialect: Any = "anthropic",
    *,
    tools: Sequence[Any] = (),
    params: dict[str, Any] | None = None,
    **more: Any,
) -> Session:
    context = StableContext(model, system, tools, params)
    return Session(context, dialect, tokens=EstimateCounter(), **more)


def served(session: Session, user: str | None = "Hello", *, read: float | None = None, **more: Any) -> Any:
    """Send a request to a provider that reads what was foretold, or this part of the prompt."""
    request = session.request(user, **more)
    told = request.forecast
    reads = told.read_tokens if read is None else round(told.input_tokens * read)
    writes = told.write_tokens if read is None else 0
    return request.observe(Usage(told.input_tokens, 5, reads, writes), REPLY)


def warnings(session: Session, user: str | None = "Hello", **more: Any) -> tuple[str, ...]:
    return session.request(user, **more).forecast.warnings


def tool(name: str, description: str = "Looks up.", **more: Any) -> dict[str, Any]:
    return {"name": name, "description": description, "input_schema": {"type": "object"}, **more}


def marked(text: str, ttl: str | None = None) -> Message:
    mark = {"type": "ephemeral"} if ttl is None else {"type": "ephemeral", "ttl": ttl}
    return Message("user", [Opaque.of("anthropic", {"type": "text", "text": text, "cache_control": mark})])


# Before


def test_a_clean_session_warns_of_nothing_but_being_new() -> None:
    session = session_of()
    assert warnings(session) == ("cold",)
    served(session)
    assert warnings(session, "And now?") == ()


def test_a_short_prompt_is_below_the_minimum() -> None:
    assert warnings(session_of("Be kind.")) == ("below-minimum",)


def test_what_was_sent_too_long_ago_has_expired() -> None:
    clock = Clock()
    session = session_of(clock=clock)
    served(session)
    clock.now = 299.0
    assert "expired" not in warnings(session)
    clock.now = 301.0
    assert warnings(session) == ("expired",)


@pytest.mark.parametrize(
    ("said", "kind", "offset"),
    [
        ("It is 2026-11-22 10:30:05.", "timestamp", 6),
        ("Session 0b2f6a1e-9c43-4b7e-8a57-2d1f3c4b5a69.", "uuid", 8),
        ("Trace 8f14e45fceea167a5a36dedd4bea2543.", "random-id", 6),
        ("Tags: {'red', 'blue', 'green'}.", "unordered", 6),
        ("This is run 4711.", "counter", 8),
    ],
)
def test_volatile_text_in_a_stable_segment_is_told_with_its_place(said: str, kind: str, offset: int) -> None:
    policy = Segment("policy", LONG, level="global")
    session = session_of([policy, Segment("state", said, level="session")])
    found = session.request("Hello").forecast
    assert "volatile-in-prefix" in found.warnings
    [detail] = found.details
    assert (detail.section, detail.name, detail.kind, detail.offset) == ("system", "state", kind, offset)
    assert detail.path == "content"
    shown = repr(found) + detail.sentence
    assert not any(secret in shown for secret in ("2026", "0b2f", "8f14", "'blue'", "4711"))


@pytest.mark.parametrize(
    "said",
    [
        "Step 1: greet. Step 2: ask.",
        "Refund after 30 days, 12.50 USD, version 1.2.3.",
        "Give JSON: {'a': 1, 'b': 2}, or a set {'a', 'b'}.",
    ],
)
def test_fixed_text_is_not_called_volatile(said: str) -> None:
    assert warnings(session_of([Segment("policy", LONG), Segment("rules", said)])) == ("cold",)


def test_volatile_text_in_a_tool_is_told_and_a_date_as_an_example_is_not() -> None:
    stamped = tool("look_up", "Looks up. Generated at 2026-11-22 10:30:05.")
    found = session_of(tools=[stamped]).request("Hello").forecast
    assert [(each.section, each.name, each.path) for each in found.details] == [
        ("tools", "look_up", "description")
    ]
    assert warnings(session_of(tools=[tool("look_up", "A day such as 2024-05-20.")])) == ("cold",)


def test_dynamic_text_may_be_volatile() -> None:
    assert warnings(session_of(), dynamic={"clock": "2026-11-22 10:30:05"}) == ("cold",)


def test_a_context_is_looked_through_once() -> None:
    context = StableContext("gpt-5.5", "It is 10:30:05. " + LONG)
    assert volatile_details(context) is volatile_details(StableContext("gpt-5.5", "It is 10:30:05. " + LONG))


def test_without_a_slot_for_the_last_tail_the_look_back_ends_before_it() -> None:
    bounded = [tool(f"f{index}", cache_control={"type": "ephemeral"}) for index in range(3)]
    session = session_of(tools=bounded)
    served(session)
    for index in range(15):
        session.append(Message("user", f"Note {index}."))
        session.append(Message("assistant", f"Noted {index}."))
    assert "lookback-exceeded" in warnings(session)
    free = session_of(tools=[tool("f")])
    served(free)
    free.append([Message("assistant", "Noted."), *(Message("user", "a"), Message("assistant", "b")) * 15])
    assert warnings(free) == ()


def test_more_breakpoints_than_the_provider_takes() -> None:
    session = session_of()
    for index in range(4):
        session.append([marked(f"Part {index}."), REPLY])
    assert "too-many-breakpoints" not in warnings(session)
    session.append([marked("One more."), REPLY])
    assert "too-many-breakpoints" in warnings(session)


def test_breakpoints_in_tools_and_params_count() -> None:
    bounded = [tool(f"f{index}", cache_control={"type": "ephemeral"}) for index in range(4)]
    assert "too-many-breakpoints" not in warnings(session_of(tools=bounded))
    automatic = {"cache_control": {"type": "ephemeral"}}
    assert "too-many-breakpoints" in warnings(session_of(tools=bounded, params=automatic))


def test_a_long_segment_that_no_breakpoint_is_left_for() -> None:
    system = [Segment("policy", LONG, level="global", ttl="long")]
    bounded = [tool(f"f{index}", cache_control={"type": "ephemeral", "ttl": "1h"}) for index in range(4)]
    assert "too-many-breakpoints" in warnings(session_of(system, tools=bounded))
    assert "too-many-breakpoints" not in warnings(session_of(system, tools=bounded[:1]))


def test_a_long_breakpoint_behind_a_short_one() -> None:
    session = session_of()
    session.append([marked("First."), REPLY, marked("Second.", "1h"), REPLY])
    assert "ttl-order" in warnings(session)
    ordered = session_of([Segment("policy", LONG, ttl="long")])
    ordered.append([marked("First.", "1h"), REPLY, marked("Second."), REPLY])
    assert "ttl-order" not in warnings(ordered)


def test_params_of_one_request_that_the_cache_depends_on() -> None:
    session = session_of(model="gpt-5.5", dialect="openai")
    asked = session.request("Hello", params={"reasoning_effort": "high"}).forecast
    assert "params-changed" in asked.warnings
    assert [each.name for each in asked.details] == ["reasoning_effort"]
    assert "params-changed" not in warnings(session, params={"temperature": 0})


def test_going_back_to_the_params_of_the_context_is_told_before_and_after() -> None:
    session = session_of(model="gpt-5.5", dialect="openai")
    assert served(session, params={"reasoning_effort": "high"}).cache_break is None
    assert "params-changed" in warnings(session, "And now?")
    broken = served(session, "And now?").cache_break
    assert broken is not None
    assert (broken.cause, broken.path, broken.confidence) == ("params-changed", "reasoning_effort", 1.0)
    assert broken.tokens_lost > 2_500
    assert served(session, "Go on").cache_break is None


def test_a_model_without_rules() -> None:
    assert "unsupported-model" in warnings(session_of(model="my-model", dialect="openai"))


def test_a_fork_is_told_that_its_sibling_still_writes() -> None:
    clock = Clock()
    session = session_of(clock=clock)
    one, other = session.fork("one"), session.fork("other")
    first = one.request("Hello")
    assert warnings(other) == ("cold",)
    assert first.body  # it is about to be sent
    assert warnings(other) == ("cold", "siblings-cold")
    assert "siblings-cold" not in warnings(one, "Something else")
    first.begun()
    assert warnings(other) == ()


def test_a_request_that_nobody_sent_is_forgotten() -> None:
    clock = Clock()
    session = session_of(clock=clock)
    lost = session.fork().request("Hello")
    assert lost.body
    clock.now = 121.0
    assert "siblings-cold" not in warnings(session)


def unmarkable() -> Anthropic:
    return Anthropic(rules=replace(rules_for("claude-sonnet-5.5"), markable=frozenset()))


def test_a_prompt_that_no_breakpoint_can_stand_in() -> None:
    session = session_of(dialect=unmarkable())
    assert "breakpoint-missing" in warnings(session)
    assert served(session, read=0.0).cache_break is None
    broken = served(session, "And now?", read=0.0).cache_break
    assert broken is not None
    assert (broken.cause, broken.confidence) == ("breakpoint-missing", 1.0)
    assert served(session, "Still?", read=0.0).cache_break is None, "one fault, one alarm"


def test_what_a_host_did_to_the_prefix_is_told() -> None:
    request = session_of().request("Hello")
    request.moved = CacheBreak("history-edited", "messages", 100, 1.0)
    assert "history-edited" in request.forecast.warnings


# Afterwards


def test_usage_that_is_not_reported_is_one_fault() -> None:
    session = session_of()
    found = [session.request("Hello").observe(usage=None, message=REPLY).cache_break for _ in range(4)]
    assert [each.cause if each else None for each in found] == [None, "unreported", None, None]
    assert served(session).cache_break is None
    assert session.request("Hello").observe(usage=None, message=REPLY).cache_break is not None


def test_a_prompt_that_the_provider_finds_too_short_is_one_fault() -> None:
    session = session_of()
    found = [served(session, f"Question {index}", read=0.0).cache_break for index in range(4)]
    assert [each.cause if each else None for each in found] == [None, "below-minimum", None, None]


def test_two_evictions_are_two_faults() -> None:
    session = session_of()
    served(session)
    found = [
        served(session, str(index), read=read).cache_break for index, read in enumerate((0.0, 0.0, None))
    ]
    assert [each.cause if each else None for each in found] == [
        "evicted-or-routed",
        "evicted-or-routed",
        None,
    ]


def test_a_part_that_was_not_served_is_a_break() -> None:
    session = session_of()
    served(session)
    seen = served(session, "And now?", read=0.4)
    assert seen.cache_break is not None
    assert seen.cache_break.tokens_lost == pytest.approx(0.6 * seen.usage.input_tokens, rel=0.05)


@pytest.mark.parametrize(
    ("cause", "section"),
    [("tool-schema-changed", "tools"), ("system-changed", "system"), ("expired", "messages")],
)
def test_the_provider_s_own_diagnosis_makes_a_loss_certain(cause: str, section: str) -> None:
    session = session_of()
    served(session)
    request = session.request("And now?")
    told = Diagnosis("whatever it calls it", cause)
    answer = replace(request.answer(Usage(3_000, 5, 0, 3_000), REPLY), diagnosis=told)
    seen = session.commit(request, answer)
    assert seen.cache_break is not None
    assert (seen.cache_break.cause, seen.cache_break.section) == (cause, section)
    assert seen.cache_break.confidence == 1.0


def test_a_diagnosis_without_a_loss_is_no_break() -> None:
    session = session_of()
    served(session)
    request = session.request("And now?")
    told = request.forecast
    answer = request.answer(Usage(told.input_tokens, 5, told.read_tokens), REPLY)
    assert session.commit(request, replace(answer, diagnosis=Diagnosis("x", "expired"))).cache_break is None


@pytest.mark.moves_prefix(reason="a thaw is a planned change of the prefix")
def test_a_thaw_is_recorded_with_what_it_bills_again_and_no_alarm() -> None:
    session = session_of()
    served(session)
    session.thaw("a new policy")
    session.update(system="You are brief. " + LONG)
    assert served(session, "And now?").cache_break is None
    assert served(session, "Go on").cache_break is None
    assert session.ledger.breaks == ()
    [planned] = session.ledger.planned
    assert (planned.cause, planned.planned) == ("thawed", True)
    assert planned.tokens_lost > 2_500
    assert planned.cost is not None


@pytest.mark.moves_prefix(reason="a thaw is a planned change of the prefix")
def test_a_thaw_for_a_model_with_other_rules_is_recorded_as_well() -> None:
    session = session_of(model="gpt-5.5", dialect="openai")
    served(session)
    session.thaw("a better model")
    session.update(model="gpt-5.6")
    assert served(session, "And now?").cache_break is None
    [planned] = session.ledger.planned
    assert planned.cause == "thawed"
    assert planned.tokens_lost > 2_500


@pytest.mark.moves_prefix(reason="the fork has a system text of its own")
def test_a_fork_with_another_prompt_is_no_break() -> None:
    session = session_of(model="gpt-5.5", dialect="openai")
    served(session)
    fork = session.fork("other", system="You are brief. " + LONG)
    assert served(fork, "And now?").cache_break is None
    assert fork.ledger.planned == ()


# Learning


@pytest.mark.parametrize("gap", [400.0, 3_000.0])
def test_a_read_after_a_longer_pause_lengthens_the_lifetime(gap: float) -> None:
    clock = Clock()
    session = session_of(clock=clock)
    served(session)
    clock.now += gap
    assert "expired" in warnings(session)
    assert served(session, "Still there?", read=0.99).cache_break is None
    assert session.family.lifetime(session.dialect) == gap
    clock.now += gap - 1
    assert warnings(session, "And now?") == ()


def test_a_miss_after_a_shorter_pause_shortens_it() -> None:
    clock = Clock()
    session = session_of(clock=clock)
    served(session)
    clock.now += 200.0
    assert served(session, "Still there?", read=0.0).cache_break is not None
    assert session.family.lifetime(session.dialect) == 200.0
    clock.now += 250.0
    assert warnings(session, "And now?") == ("expired",)


def test_an_eviction_at_once_teaches_nothing() -> None:
    clock = Clock()
    session = session_of(clock=clock)
    served(session)
    clock.now += 10.0
    served(session, "Still there?", read=0.0)
    assert session.family.lifetime(session.dialect) == 300.0


def test_what_lives_long_says_nothing_of_the_short_lifetime() -> None:
    clock = Clock()
    session = session_of([Segment("policy", LONG, ttl="long")], clock=clock)
    served(session)
    clock.now += 5_000.0
    served(session, "Still there?", read=0.99)
    assert session.family.lifetime(session.dialect) == 300.0


def test_tool_traffic_warns_of_nothing() -> None:
    session = session_of(tools=[tool("f")])
    request = session.request("Hello", dynamic={"clock": "10:30"})
    told = request.forecast
    reply = Message("assistant", [ToolCall("call_1", "f", "{}")])
    request.observe(Usage(told.input_tokens, 5, 0, told.write_tokens), reply)
    session.append(Message("tool", [ToolResult("call_1", "found")]))
    assert warnings(session, None) == ()
    assert isinstance(session._state, State)
