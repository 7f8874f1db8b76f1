"""Two hashes that are never mixed: what a message says, and the bytes that are sent."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmbuffer import Message, Opaque, Segment, Session, StableContext, Text, Tool
from llmbuffer.snapshot import relation
from llmbuffer.testing import FakeClock, reply

KEYS = st.sampled_from(["a", "b", "c", "é"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.5, "", "x", "é"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
CASES = st.sampled_from([("openai", "gpt-5.5"), ("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5")])
OBJECTS = st.dictionaries(KEYS, VALUES, min_size=2, max_size=4)


def turned(value: Any) -> Any:
    """The same JSON value with the keys of every object in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(item) for item in value] if isinstance(value, list) else value


def session_of(case: tuple[str, str]) -> Session:
    dialect, model = case
    policy = Segment("policy", "Answer kindly and briefly. " * 400, "global")
    return Session(StableContext(model, [policy]), dialect, clock=FakeClock())


def opaque(value: Any, dialect: str) -> Message:
    part = {"type": "document", "source": {"type": "content", "content": []}, "context": value}
    return Message("user", [Text("see this"), Opaque.of(dialect, part)])


@given(CASES, OBJECTS)
def test_keys_in_another_order_say_the_same_in_other_bytes(
    case: tuple[str, str], value: dict[str, Any]
) -> None:
    one, two = session_of(case), session_of(case)
    one.append(opaque(value, case[0]))
    two.append(opaque(turned(value), case[0]))
    assert one.messages == two.messages
    assert one.tip.digest == two.tip.digest
    assert one.tip.wire != two.tip.wire
    left, right = one.request(), two.request()
    assert left.key == right.key
    assert relation(left.snapshot, right.snapshot) == "divergent"
    assert json.dumps(left.body["messages"]) != json.dumps(right.body["messages"])
    assert left.body["messages"] == right.body["messages"]


@given(CASES, OBJECTS)
def test_a_cache_serves_bytes_not_meaning(case: tuple[str, str], value: dict[str, Any]) -> None:
    parent = session_of(case)
    same, other = parent.fork(), parent.fork()
    long = Message("user", "the same for all " * 200)
    for session, said in ((parent, value), (same, value), (other, turned(value))):
        session.append([opaque(said, case[0]), long])
    written = reply(parent.request())
    assert written.usage is not None
    assert same.request().forecast.read_tokens >= written.usage.input_tokens - 128
    assert other.request().forecast.read_tokens < written.usage.input_tokens - 500


@given(OBJECTS)
def test_a_schema_in_another_order_is_the_same_context_in_other_bytes(value: dict[str, Any]) -> None:
    def context(schema: dict[str, Any]) -> StableContext:
        tool = {"name": "look_up", "parameters": {"type": "object", "properties": schema}}
        return StableContext("gpt-5.6", "Be kind.", tools=[tool])

    one, two = Session(context(value), clock=FakeClock()), Session(context(turned(value)), clock=FakeClock())
    assert one.context.fingerprint == two.context.fingerprint
    left, right = one.request("hi"), two.request("hi")
    assert left.key == right.key
    assert relation(left.snapshot, right.snapshot) == "divergent"
    assert left.body["tools"] == right.body["tools"]
    assert json.dumps(left.body["tools"]) != json.dumps(right.body["tools"])


@given(VALUES)
def test_content_comes_back_byte_for_byte(value: Any) -> None:
    part = {"type": "new_kind", "value": value}
    raw = json.dumps(part, ensure_ascii=False, separators=(",", ":"))
    assert Opaque.of("any", part).json.decode() == raw
    assert json.dumps(Opaque.of("any", part).value, ensure_ascii=False, separators=(",", ":")) == raw
    tool = Tool.of({"name": "t", "parameters": {"x": value}})
    assert tool.parameters is not None
    assert tool.parameters.decode() == json.dumps({"x": value}, ensure_ascii=False, separators=(",", ":"))
