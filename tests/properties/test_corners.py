"""What the state machines found once, pinned."""

from __future__ import annotations

import pytest

from llmbuffer import (
    Message,
    PairingError,
    Segment,
    Session,
    StableContext,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from llmbuffer.cache import CacheModel
from llmbuffer.snapshot import MarkAt, Snapshot, relation
from llmbuffer.testing import FakeClock, reply

POLICY = "Answer kindly and briefly. " * 400
CALLS = Message("assistant", [ToolCall("one", "look_up", "{}"), ToolCall("two", "look_up", "{}")])
CASES = [("openai", "gpt-5.5"), ("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5")]


@pytest.fixture(params=CASES, ids=[model for _, model in CASES])
def session(request: pytest.FixtureRequest) -> Session:
    dialect, model = request.param
    return Session(StableContext(model, POLICY), dialect, clock=FakeClock())


def test_a_segment_that_is_kept_long_is_forecast_to_live_long() -> None:
    clock = FakeClock()
    policy = Segment("policy", POLICY, "global", ttl="long")
    session = Session(StableContext("claude-sonnet-5.5", [policy]), "anthropic", clock=clock)
    first = session.request("hello")
    assert [mark.long for mark in first.snapshot.marks] == [True, False]
    reply(first)
    clock.advance(3_000)
    assert session.request("again").forecast.read_tokens > 1_000
    clock.advance(700)
    assert session.request("again").forecast.read_tokens == 0


def test_an_entry_that_is_marked_long_later_is_refreshed_for_long() -> None:
    session = Session(StableContext("claude-sonnet-5.5", POLICY), "anthropic", clock=FakeClock())
    snapshot = session.request("hello").snapshot
    model = CacheModel(session.dialect.rules)

    def marked(long: bool) -> Snapshot:
        return Snapshot(snapshot.head, snapshot.tip, marks=(MarkAt(snapshot.head, in_head=True, long=long),))

    model.commit(marked(False), at=0)
    model.commit(marked(True), at=100)
    model.commit(marked(False), at=3_000)
    assert model.look(marked(False), at=6_500).read_tokens == snapshot.head.end


def test_models_of_one_dialect_have_minimums_of_their_own() -> None:
    context = StableContext("claude-haiku-4.5", "x " * 1_500)  # more than 512 tokens, less than 4,096
    session = Session(context, "anthropic", clock=FakeClock())
    reply(session.request("hello"))
    newer = session.fork(model="claude-sonnet-5.5")
    assert newer.request("hello").forecast.write_tokens > 512
    assert session.request("hello").forecast.write_tokens == 0


@pytest.mark.moves_prefix(reason="another model, while a request is open")
def test_a_reply_that_comes_after_a_change_of_model_goes_on_with_the_old_one() -> None:
    session = Session(StableContext("gpt-5.6", POLICY), clock=FakeClock())
    reply(session.request("hello"))
    open_request = session.request("again")
    session.thaw("another regime")
    session.update(model="gpt-5.5")
    seen = reply(open_request)
    assert seen.forked
    assert seen.session.context.model == "gpt-5.6"
    body = seen.session.request("and now?").body
    assert body["messages"][: len(open_request.body["messages"]) - 1] == open_request.body["messages"][:-1]
    reply(session.request("on the new model"))
    assert session.request("?").body["messages"][0]["role"] == "system"


def test_another_model_in_the_middle_of_a_turn_keeps_its_dynamic_text() -> None:
    session = Session(StableContext("gpt-5.6", POLICY), clock=FakeClock())
    session.request("what time is it?", {"clock": "12:00"}).observe(Usage(10), CALLS)
    session.append([Message("tool", [ToolResult(call, "x")]) for call in ("one", "two")])
    fork = session.fork(model="gpt-5.5")
    assert [segment.content for segment in fork.request().dynamic] == ["12:00"]


def test_what_a_turn_began_with_is_kept_when_no_reply_came(session: Session) -> None:
    session.request("what time is it?", {"clock": "12:00"}).observe(Usage(2_500))
    assert [segment.content for segment in session.request().dynamic] == ["12:00"]


@pytest.mark.parametrize(
    ("dialect", "model", "params"),
    [
        ("anthropic", "claude-sonnet-5.5", {"tool_choice": {"type": "any"}}),
        ("openai", "gpt-5.6", {"reasoning_effort": "high"}),
    ],
)
def test_params_of_the_first_request_that_the_cache_depends_on_are_seen(
    dialect: str, model: str, params: dict[str, object]
) -> None:
    session = Session(StableContext(model, POLICY), dialect, clock=FakeClock())
    first = session.request("hello " * 200, params=params)
    assert relation(first.snapshot, session.request("hello " * 200).snapshot) == "divergent"
    assert relation(first.snapshot, session.request("hello " * 200, params=params).snapshot) == "same"
    reply(first)
    lost = first.snapshot.tokens - session.request("again").forecast.read_tokens
    assert lost >= 200


@pytest.mark.parametrize(
    "message",
    [
        Message("user", [ToolResult("one", "x"), Text("and then?")]),
        Message("tool", [ToolResult("one", "x"), ToolResult("one", "y")]),
        Message("developer", "be brief"),
        Message("tool", [ToolResult("three", "x")]),
    ],
    ids=["one is answered, and more is said", "one is answered twice", "an instruction", "nobody asked"],
)
def test_calls_are_answered_before_anything_else_is_said(session: Session, message: Message) -> None:
    session.append([Message("user", "look it up"), CALLS])
    tip = session.tip
    with pytest.raises(PairingError):
        session.append(message)
    assert session.tip is tip
    session.append([Message("tool", [ToolResult(call, "x")]) for call in ("two", "one")])
    session.request()
