"""Sessions: what a request is, what observing commits, what is frozen."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from llmbuffer import (
    FrozenError,
    LossyError,
    Message,
    MessageError,
    PairingError,
    Segment,
    Session,
    StableContext,
    ToolCall,
    ToolResult,
    Usage,
)
from llmbuffer.dialects.openai_chat import OpenAIChat
from llmbuffer.errors import PlacementError
from llmbuffer.observing import Reused
from llmbuffer.rules import CacheRules

TOOL = {
    "type": "function",
    "function": {"name": "look_up", "description": "Look up.", "parameters": {"type": "object"}},
}
POLICY = "Answer kindly and briefly. " * 300
MODELS = [("openai", "gpt-5.5"), ("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5")]


@pytest.fixture(params=MODELS, ids=[model for _, model in MODELS])
def session(request: pytest.FixtureRequest) -> Session:
    dialect, model = request.param
    return Session(StableContext(model, POLICY, tools=[TOOL]), dialect=dialect)


def observe(session: Session, text: str | None = "hello", reply: str = "hi", **options: Any) -> Session:
    observation = session.request(text, **options).observe(Usage(2_000, 10), Message("assistant", reply))
    return observation.session


def call_tool(session: Session, text: str, **options: Any) -> None:
    reply = Message("assistant", [ToolCall("call_1", "look_up", '{"q": 1}')])
    session.request(text, **options).observe(Usage(2_000, 10), reply)
    session.append(Message("tool", [ToolResult("call_1", "a result")]))


def texts(body: Any) -> str:
    return json.dumps(body["messages"], ensure_ascii=False)


def test_a_request_changes_nothing(session: Session) -> None:
    before = session.tip
    first = session.request("hello", dynamic={"clock": "12:00"})
    second = session.request("hello", dynamic={"clock": "12:00"})
    assert json.dumps(first.body) == json.dumps(second.body)
    assert first.key == second.key
    assert session.tip is before
    assert len(session.ledger) == 0


def test_observing_commits_the_user_text_and_the_reply(session: Session) -> None:
    observe(session, "hello", "hi")
    assert [(message.role, message.text) for message in session.messages] == [
        ("user", "hello"),
        ("assistant", "hi"),
    ]
    assert session.ledger.requests == 1


def test_dynamic_text_stands_behind_the_users_own_and_goes_with_the_turn(session: Session) -> None:
    request = session.request("what time is it?", dynamic={"clock": "12:00"})
    content = request.body["messages"][-1]["content"]
    assert [part["text"] for part in content] == [
        "what time is it?",
        '<context name="clock">\n12:00\n</context>',
    ]
    request.observe(Usage(100), Message("assistant", "noon"))
    assert "12:00" not in texts(session.request("thanks").body)


def test_dynamic_text_is_kept_while_the_turn_lasts(session: Session) -> None:
    call_tool(session, "look it up", dynamic={"clock": "12:00"})
    assert "12:00" in texts(session.request().body)
    assert "12:00" not in texts(session.request(dynamic={}).body)
    changed = session.request(dynamic={"clock": "12:01"})
    assert "12:01" in texts(changed.body)
    assert "12:00" not in texts(changed.body)
    assert "dynamic-in-prefix" in changed.forecast.warnings
    session.request().observe(Usage(100), Message("assistant", "done"))
    assert "12:00" not in texts(session.request("next").body)


def test_clearing_dynamic_text_in_a_turn_keeps_the_turn(session: Session) -> None:
    call_tool(session, "look it up", dynamic={"clock": "12:00"})
    second = Message("assistant", [ToolCall("call_2", "look_up", "{}")])
    session.request(dynamic={}).observe(Usage(100), second)
    session.append(Message("tool", [ToolResult("call_2", "more")]))
    assert "12:00" not in texts(session.request().body)
    assert "13:00" in texts(session.request(dynamic={"clock": "13:00"}).body)


def test_nothing_stands_behind_a_tool_result_unless_the_rules_allow_it(session: Session) -> None:
    call_tool(session, "look it up")
    last = session.request(dynamic={"clock": "12:00"}).body["messages"][-1]
    assert "12:00" not in json.dumps(last)


def test_tail_placement_ends_the_prompt_where_the_rules_allow_it() -> None:
    rules = CacheRules(name="engine", match="prefix", tail_after_tool=True)
    session = Session(
        StableContext("local", POLICY, tools=[TOOL]), dialect=OpenAIChat(rules), placement="tail"
    )
    call_tool(session, "look it up", dynamic={"clock": "12:00"})
    messages = session.request().body["messages"]
    assert messages[-1]["role"] == "user"
    assert "12:00" in json.dumps(messages[-1])
    assert "12:00" not in json.dumps(messages[:-1])


def test_sticky_placement_keeps_the_text_with_its_turn() -> None:
    session = Session(StableContext("gpt-5.5", POLICY), placement="sticky")
    observe(session, "one", dynamic={"clock": "12:00"})
    observe(session, "two", dynamic={"clock": "12:01"})
    body = texts(session.request("three").body)
    assert "clock, turn 1" in body
    assert "12:00" in body
    assert "12:01" in body


def test_auto_placement_says_why() -> None:
    session = Session(StableContext("gpt-5.6", POLICY), placement="auto")
    assert session.request("one", dynamic={"clock": "12:00"}).forecast.notes[0].startswith("placement ")


def test_default_dynamic_segments_come_from_the_context() -> None:
    context = StableContext("gpt-5.5", [Segment("rules", POLICY), Segment("locale", "de", level="turn")])
    session = Session(context)
    assert "locale" in texts(session.request("hello").body)
    assert "locale" not in texts(session.request("hello", dynamic={}).body)


def test_segments_stand_in_the_order_of_their_levels() -> None:
    segments = [
        Segment("user", "U", level="user"),
        Segment("session", "S"),
        Segment("global", "G", level="global"),
    ]
    assert [segment.name for segment in StableContext("m", segments).segments] == [
        "global",
        "user",
        "session",
    ]


def test_the_body_is_read_only_and_deepcopy_is_plain(session: Session) -> None:
    observe(session)
    body = session.request("again").body
    before = json.dumps(body)
    for damage in (
        lambda: body.update(model="x"),
        lambda: body["messages"].append({}),
        lambda: body["messages"][-1].__setitem__("role", "system"),
        body["tools"][0].clear,
    ):
        with pytest.raises(TypeError, match="read-only"):
            damage()
    plain = copy.deepcopy(body)
    plain["messages"][0]["content"] = "changed"
    plain["messages"].append({"role": "user"})
    assert type(plain) is dict
    assert type(plain["messages"]) is list
    assert json.dumps(session.request("again").body) == before


def test_two_requests_from_one_tip_fork_and_say_so(session: Session) -> None:
    first, second = session.request("left"), session.request("right")
    assert not first.observe(Usage(10), Message("assistant", "L")).forked
    observation = second.observe(Usage(10), Message("assistant", "R"))
    assert observation.forked
    assert observation.session is not session
    assert [message.text for message in session.messages] == ["left", "L"]
    assert [message.text for message in observation.session.messages] == ["right", "R"]
    assert "had moved on" in observation.session.ledger[0].reason


def test_a_request_observed_twice_forks(session: Session) -> None:
    request = session.request("hello")
    request.observe(Usage(10), Message("assistant", "one"))
    again = request.observe(Usage(10), Message("assistant", "two"))
    assert again.forked
    assert session.messages[-1].text == "one"


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("model", {"model": "gpt-4o"}),
        ("system", {"system": "Be rude."}),
        ("tools", {"tools": []}),
        ("params.reasoning_effort", {"params": {"reasoning_effort": "high"}}),
    ],
)
def test_what_is_frozen_names_the_field_and_the_price(field: str, change: dict[str, Any]) -> None:
    session = Session(StableContext("gpt-5.5", POLICY, tools=[TOOL]))
    session.update(**change)
    session = Session(StableContext("gpt-5.5", POLICY, tools=[TOOL]))
    observe(session)
    with pytest.raises(FrozenError, match=r"fork.*thaw.*append") as raised:
        session.update(**change)
    assert raised.value.field == field
    assert raised.value.tokens > 1_000
    with pytest.raises(FrozenError):
        session.context = session.context.replace(**change)


def test_params_that_the_cache_ignores_stay_free() -> None:
    session = Session(StableContext("gpt-5.5", POLICY))
    observe(session)
    session.update(params={"temperature": 1})
    assert session.request("x", params={"max_tokens": 5}).body["max_tokens"] == 5
    with pytest.raises(FrozenError, match="reasoning_effort"):
        session.request("x", params={"reasoning_effort": "high"})


@pytest.mark.moves_prefix(reason="a planned change of the tools")
def test_thaw_begins_an_epoch_that_is_recorded() -> None:
    session = Session(StableContext("gpt-5.5", POLICY, tools=[TOOL]))
    observe(session)
    session.thaw(reason="the tools were replaced")
    session.update(tools=[{"name": "other"}])
    observe(session)
    assert session.epoch == 1
    assert [entry.kind for entry in session.ledger] == ["request", "thawed", "request"]
    assert session.ledger.breaks == ()
    with pytest.raises(FrozenError):
        session.update(tools=[])


def test_a_fork_may_change_its_context_and_leaves_the_parent_alone(session: Session) -> None:
    observe(session)
    fork = session.fork("critic", task="Find the error.", system="You are a critic.")
    assert fork.context.segments[0].content == "You are a critic."
    assert fork.messages[-1].text == "Find the error."
    assert session.context.segments[0].content == POLICY
    assert fork.parent_id == session.id
    assert fork.name == "critic"


def test_forks_share_every_byte_and_never_see_each_others_tails(session: Session) -> None:
    observe(session)
    forks = [session.fork(f"worker-{number}") for number in range(3)]
    for number, fork in enumerate(forks):
        observe(fork, f"task {number}", f"result {number}")
    observe(session, "parent goes on")
    for number, fork in enumerate(forks):
        body = texts(fork.request("next").body)
        assert f"task {number}" in body
        assert "parent goes on" not in body
        assert not any(f"task {other}" in body for other in range(3) if other != number)


def test_a_model_of_another_regime_renders_the_history_anew() -> None:
    session = Session(StableContext("gpt-5.5", POLICY))
    observe(session)
    fork = session.fork(model="gpt-5.6")
    assert fork.request("x").body["messages"][1]["content"][0]["text"] == "hello"
    assert session.request("x").body["messages"][1]["content"] == "hello"


def test_appending_is_all_or_nothing(session: Session) -> None:
    observe(session)
    before = session.messages
    with pytest.raises(PairingError, match="'nobody'"):
        session.append([Message("user", "fine"), Message("tool", [ToolResult("nobody", "x")])])
    assert session.messages == before
    observe(session, "still works")


def test_open_calls_must_be_answered_before_anything_else(session: Session) -> None:
    session.request("go").observe(Usage(10), Message("assistant", [ToolCall("c", "look_up", "{}")]))
    with pytest.raises(PairingError, match="await results"):
        session.request()
    with pytest.raises(PairingError, match="before the calls"):
        session.request("never mind")
    with pytest.raises(PairingError):
        session.append(Message("developer", "hurry"))


def test_a_reply_that_cannot_be_taken_in_changes_nothing() -> None:
    session = Session(StableContext("claude-sonnet-5.5", POLICY), dialect="anthropic")
    request = session.request("hello")
    with pytest.raises(LossyError, match="JSON object"):
        request.observe(Usage(10), Message("assistant", [ToolCall("c", "f", "not json")]))
    assert session.messages == ()
    request.observe(Usage(10), Message("assistant", "fine"))
    assert len(session.messages) == 2


def test_observe_needs_a_response(session: Session) -> None:
    with pytest.raises(MessageError, match="needs the response"):
        session.request("hello").observe()


def test_a_reply_is_the_assistants(session: Session) -> None:
    request = session.request("hello")
    with pytest.raises(MessageError, match=r"role 'user'.*session\.append"):
        request.observe(Usage(10), Message("user", "hello again"))
    with pytest.raises(MessageError, match="role 'user'"):
        request.observe(Reused(Message("user", "hello again")))
    assert session.messages == ()


def test_arguments_are_refused_by_their_names() -> None:
    with pytest.raises(MessageError, match=r"^session_id is a int"):
        Session(StableContext("gpt-5.5"), session_id=5)  # type: ignore[arg-type]  # what the test is about
    with pytest.raises(MessageError, match=r"^routing_key is a int"):
        Session(StableContext("gpt-5.5"), routing_key=5)  # type: ignore[arg-type]  # what the test is about
    for requests in (-5, 0.5):
        with pytest.raises(MessageError, match=f"^expected_requests is {requests}: give a whole number"):
            Session(StableContext("gpt-5.5"), expected_requests=requests)  # type: ignore[arg-type]  # what the test is about
    assert Session(StableContext("gpt-5.5"), expected_requests=0).expected_requests == 0


def test_unknown_placement_and_context_are_refused() -> None:
    with pytest.raises(PlacementError, match="'head'"):
        Session(StableContext("gpt-5.5"), placement="head")  # type: ignore[arg-type]  # what the test is about
    with pytest.raises(MessageError, match="StableContext"):
        Session("gpt-5.5")  # type: ignore[arg-type]  # what the test is about


def test_the_key_tells_requests_apart(session: Session) -> None:
    base = session.request("hello", dynamic={"clock": "1"}).key
    assert session.request("hello", dynamic={"clock": "2"}).key.stable == base.stable
    assert session.request("hello", dynamic={"clock": "2"}).key.dynamic != base.dynamic
    assert session.request("hallo", dynamic={"clock": "1"}).key.dynamic != base.dynamic
    assert (
        session.request("hello", dynamic={"clock": "1"}, params={"temperature": 1}).key.dynamic
        != base.dynamic
    )


def test_reprs_tell_no_prompt_text(session: Session) -> None:
    observe(session, "my secret", "your secret", dynamic={"clock": "secret time"})
    request = session.request("another secret", dynamic={"clock": "secret time"})
    shown = [
        session,
        request,
        session.messages,
        session.ledger,
        request.dynamic,
        session.tip,
        request.snapshot,
    ]
    assert "secret" not in " ".join(map(repr, [*shown, session.context, session.messages[0].parts]))


def test_the_forecast_knows_a_warm_prefix_and_its_price(session: Session) -> None:
    first = session.request("hello").forecast
    assert first.read_tokens == 0
    assert "cold" in first.warnings
    observe(session)
    second = session.request("again").forecast
    assert second.hit_ratio > 0.9
    assert second.cost is not None
    assert first.cost is not None
    assert second.cost < first.cost / 2


def test_idle_time_beyond_the_ttl_is_forecast_and_named() -> None:
    now = [0.0]
    session = Session(StableContext("claude-sonnet-5.5", POLICY), dialect="anthropic", clock=lambda: now[0])
    observe(session)
    now[0] = 301.0
    assert "expired" in session.request("again").forecast.warnings
    seen = session.request("again").observe(Usage(2_000, 10), Message("assistant", "hi"))
    assert seen.cache_break is not None
    assert seen.cache_break.cause == "expired"
    assert seen.cache_break.tokens_lost > 1_000
    assert seen.cache_break.fix


def test_a_read_that_did_not_come_is_a_break_and_a_hit_is_none(session: Session) -> None:
    request = session.request("hello")
    tokens = request.snapshot.tokens
    request.observe(Usage(tokens), Message("assistant", "hi"))
    request = session.request("again")
    warm = session.family.look(session.dialect, request.snapshot, session.clock())
    assert request.observe(warm.usage(), Message("assistant", "hi")).cache_break is None
    request = session.request("once more")
    missed = request.observe(Usage(request.snapshot.tokens), Message("assistant", "hi")).cache_break
    assert missed is not None
    assert missed.cause == "evicted-or-routed"


def test_usage_that_is_not_reported_is_said_so(session: Session) -> None:
    observe(session)
    seen = session.request("again").observe(message=Message("assistant", "hi"))
    assert seen.usage is None
    assert seen.cache_break is not None
    assert seen.cache_break.cause == "unreported"


def test_a_turn_that_the_user_interrupts_is_read_up_to_its_own_text() -> None:
    session = Session(StableContext("claude-sonnet-5.5", POLICY, tools=[TOOL]), dialect="anthropic")
    request = session.request("start here " * 1_000, dynamic={"clock": "12:00"})
    first = request.snapshot.tokens
    for number in range(12):  # 24 positions: beyond the look-back
        calls = [ToolCall(f"call_{number}", "look_up", "{}")]
        request.observe(Usage(2_000, 10), Message("assistant", calls))
        session.append(Message("tool", [ToolResult(f"call_{number}", "a result")]))
        request = session.request()
    session.append(Message("user", "stop, something else"))
    forecast = session.request().forecast
    assert forecast.read_tokens > 0.9 * first * session.family.calibration("claude-sonnet-5.5").factor


def test_a_breakpoint_that_one_request_asks_for_takes_a_slot() -> None:
    system = [Segment("policy", POLICY, level="global"), Segment("customer", POLICY, level="user")]
    session = Session(StableContext("claude-sonnet-5.5", system, tools=[TOOL]), dialect="anthropic")
    observe(session, dynamic={"clock": "12:00"})
    full = json.dumps(session.request("again", dynamic={"clock": "12:01"}).body).count("cache_control")
    own = session.request(
        "again", dynamic={"clock": "12:01"}, params={"cache_control": {"type": "ephemeral"}}
    )
    assert full == 4
    assert json.dumps(own.body).count("cache_control") == 4


def test_the_line_before_an_assistant_that_opens_is_a_position_of_its_own() -> None:
    session = Session(StableContext("claude-sonnet-5.5", POLICY), dialect="anthropic")
    session.append(Message("assistant", "How can I help?"))
    assert session.tip.position == len(session.request("hello").body["messages"]) - 1 == 2
