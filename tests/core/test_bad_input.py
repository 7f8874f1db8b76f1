"""Bad input: a clear error from the tree in ``errors.py``, or a documented fallback; and the session as it was."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from llmbuffer import (
    File,
    FrozenError,
    Image,
    LLMBufferError,
    LossyError,
    Message,
    MessageError,
    Opaque,
    PairingError,
    Segment,
    Session,
    StableContext,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)
from llmbuffer.errors import DialectError, EncodingError, LoopError, PlacementError, UnknownDialectError
from llmbuffer.tokens import EstimateCounter

MODELS = {"gpt-5.5": "openai", "gpt-5.6": "openai", "claude-sonnet-5.5": "anthropic"}
LONE = "caf\ud800"
HUGE = "x" * (50 * 2**20)
SPACES = " " * 2**20
ASK: dict[str, Any] = {"role": "user", "content": "hi"}
Bad = tuple[Callable[[Session], Any], type[LLMBufferError]]


def calls(*each: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(each)}


def call(arguments: Any = "{}", name: Any = "f", call_id: Any = "c") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = {"a": value}
    return value


def itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.fixture(params=MODELS)
def session(request: pytest.FixtureRequest) -> Session:
    """A session with a turn behind it and one under way."""
    context = StableContext(
        request.param, "You are kind.", tools=[{"name": "f", "parameters": {"type": "object"}}]
    )
    session = Session(context, MODELS[request.param], tokens=EstimateCounter())
    session.request("one", dynamic={"clock": "12:00"}).observe(
        Usage(input_tokens=50), Message("assistant", "1")
    )
    session.request("two").observe(
        Usage(input_tokens=60), Message("assistant", [ToolCall("open", "f", "{}")])
    )
    session.append(Message("tool", [ToolResult("open", "done")]))
    return session


def state_of(session: Session) -> tuple[Any, ...]:
    bodies = [
        session.request(text, dynamic=dynamic).body for text, dynamic in [(None, None), ("probe", {"a": "b"})]
    ]
    return (
        json.dumps(bodies),
        session.tip,
        session.messages,
        session.context,
        len(session.ledger),
        session.epoch,
    )


# What is appended or asked


def appends(*messages: Any) -> Callable[[Session], Any]:
    return lambda session: session.append(list(messages))


def asks(user: Any = "hi", **options: Any) -> Callable[[Session], Any]:
    return lambda session: session.request(user, **options).body


APPENDED: dict[str, Bad] = {
    "unknown role": (appends({"role": "alien", "content": "x"}), MessageError),
    "no role": (appends({"content": "x"}), MessageError),
    "a role that is no string": (appends({"role": ["user"], "content": "x"}), MessageError),
    "no message": (lambda session: session.append(5), MessageError),  # type: ignore[arg-type]  # what the test is about
    "nothing": (lambda session: session.append(None), MessageError),  # type: ignore[arg-type]  # what the test is about
    "bare text": (lambda session: session.append("hi"), MessageError),  # type: ignore[arg-type]  # what the test is about
    "a good message and a bad one": (appends(ASK, {"role": "alien"}), MessageError),
    "content that is a number": (appends({"role": "user", "content": 5}), MessageError),
    "a result without its call": (appends({"role": "tool", "tool_call_id": "none", "content": "x"}), PairingError),
    "a result of a call that was answered": (appends(Message("tool", [ToolResult("open", "again")])), PairingError),
    "a result without an id": (appends({"role": "tool", "content": "x"}), PairingError),
    "a tool message without a result": (appends(Message("tool", "x")), PairingError),
    "a call that nobody answers": (appends(calls(call()), ASK), PairingError),
    "an instruction between call and result": (appends(calls(call()), {"role": "system", "content": "x"}), PairingError),
    "the same result twice": (
        appends(calls(call()), *[{"role": "tool", "tool_call_id": "c", "content": "x"}] * 2),
        PairingError,
    ),
    "arguments that are an object": (appends(calls(call({"a": 1}))), MessageError),
    "a call without an id": (appends(calls({"type": "function", "function": {"name": "f", "arguments": ""}})), MessageError),
    "calls that are no list": (appends({"role": "assistant", "content": "x", "tool_calls": 0}), MessageError),
    "a surrogate in the text": (appends({"role": "user", "content": LONE}), EncodingError),
    "a surrogate in a Message": (appends(Message("user", LONE)), EncodingError),
    "a surrogate in a part": (appends({"role": "user", "content": [{"type": "text", "text": LONE}]}), EncodingError),
    "a surrogate in strange content": (appends({"role": "user", "content": [{"type": "x", LONE: 1}]}), EncodingError),
    "a surrogate in an image": (appends(Message("user", [Image(LONE)])), MessageError),
    "a surrogate in a file": (appends(Message("user", [File(id=LONE)])), MessageError),
    "a surrogate in a name": (appends({"role": "user", "content": "x", "name": LONE}), MessageError),
    "a surrogate in a field": (appends({"role": "user", "content": "x", LONE: 1}), EncodingError),
    "a surrogate in arguments": (appends(calls(call(LONE))), EncodingError),
    "a surrogate in a called name": (appends(calls(call(name=LONE))), EncodingError),
    "a surrogate in a call's id": (appends(calls(call(call_id=LONE))), EncodingError),
    "a surrogate in a result": (
        appends(calls(call()), {"role": "tool", "tool_call_id": "c", "content": LONE}),
        EncodingError,
    ),
    "a surrogate in a result's part": (
        appends(Message("assistant", [ToolCall("c", "f", "{}")]), Message("tool", [ToolResult("c", (Text(LONE),))])),
        EncodingError,
    ),
    "NaN in strange content": (appends({"role": "user", "content": [{"type": "x", "n": math.nan}]}), EncodingError),
    "infinity in a field": (appends({"role": "user", "content": "x", "n": -math.inf}), EncodingError),
    "an object in a field": (appends({"role": "user", "content": "x", "n": object()}), EncodingError),
    "content that is too deep": (appends({"role": "user", "content": [{"type": "x", "n": deep(400)}]}), EncodingError),
    "content that contains itself": (appends({"role": "user", "content": [{"type": "x", "n": itself()}]}), EncodingError),
    "50 MB": (appends({"role": "user", "content": HUGE}), MessageError),
    "50 MB in a part": (appends(Message("user", [Text("a"), Text(HUGE)])), MessageError),
    "50 MB from a tool": (appends(calls(call()), {"role": "tool", "tool_call_id": "c", "content": HUGE}), MessageError),
    "a part of another provider": (appends(Message("user", [Opaque.of("gemini", {"a": 1})])), LossyError),
}  # fmt: skip

ASKED: dict[str, Bad] = {
    "a number": (asks(5), MessageError),
    "bytes": (asks(b"hi"), MessageError),
    "a list of numbers": (asks([5]), MessageError),
    "an unknown role": (asks({"role": "alien", "content": "x"}), MessageError),
    "a surrogate": (asks(LONE), EncodingError),
    "50 MB": (asks(HUGE), MessageError),
    "dynamic text that is a string": (asks(dynamic="12:00"), MessageError),
    "dynamic text that is a number": (asks(dynamic=5), MessageError),
    "dynamic text that is a list of strings": (asks(dynamic=["12:00"]), MessageError),
    "dynamic text of a number": (asks(dynamic={"clock": 5}), MessageError),
    "dynamic text without a name": (asks(dynamic={5: "12:00"}), MessageError),
    "two dynamic segments of one name": (asks(dynamic=[Segment("a", "1", "turn"), Segment("a", "2", "turn")]), MessageError),
    "a surrogate in dynamic text": (asks(dynamic={"clock": LONE}), EncodingError),
    "a surrogate in a dynamic name": (asks(dynamic={LONE: "12:00"}), EncodingError),
    "50 MB of dynamic text": (lambda session: session.request("hi", dynamic={"a": HUGE}), MessageError),
    "params that are a list": (asks(params=[1]), MessageError),
    "params that are a number": (asks(params=5), MessageError),
    "params with NaN": (asks(params={"temperature": math.nan}), EncodingError),
    "params with infinity": (asks(params={"logit_bias": {"a": math.inf}}), EncodingError),
    "params with a set": (asks(params={"stop": {"a"}}), EncodingError),
    "params with bytes": (asks(params={"stop": b"a"}), EncodingError),
    "params with a surrogate": (asks(params={"user": LONE}), EncodingError),
    "params with a number for a name": (asks(params={5: 1}), EncodingError),
    "params that are too deep": (asks(params={"a": deep(400)}), EncodingError),
    "params that hold the messages": (asks(params={"messages": []}), MessageError),
    "params that hold the model": (asks(params={"model": "other"}), MessageError),
}  # fmt: skip

SEGMENTS: Any = [Segment("a", "1"), Segment("a", "2")]
CHANGED: dict[str, Bad] = {
    "a frozen system text": (lambda session: session.update(system="other"), FrozenError),
    "a frozen model": (lambda session: session.update(model="gpt-4o"), FrozenError),
    "frozen tools": (lambda session: session.update(tools=[]), FrozenError),
    "a fork with a system text of numbers": (lambda session: session.fork(system=[5]), MessageError),  # type: ignore[list-item]  # what the test is about
    "a fork with a number as system text": (lambda session: session.fork(system=5), MessageError),  # type: ignore[arg-type]  # what the test is about
    "a fork with two segments of one name": (lambda session: session.fork(system=SEGMENTS), MessageError),
    "a fork with tools that are none": (lambda session: session.fork(tools=[5]), MessageError),  # type: ignore[list-item]  # what the test is about
    "a fork with NaN": (lambda session: session.fork(params={"a": math.nan}), EncodingError),
    "a fork with a task that is none": (lambda session: session.fork(task=5), MessageError),  # type: ignore[arg-type]  # what the test is about
    "a fork with a surrogate": (lambda session: session.fork(task=LONE), EncodingError),
    "conversing without a client": (lambda session: session.respond("hi"), LoopError),
}  # fmt: skip


@pytest.mark.parametrize("what", APPENDED)
def test_what_cannot_be_appended_changes_nothing(session: Session, what: str) -> None:
    assert_refused(session, *APPENDED[what])


@pytest.mark.parametrize("what", ASKED)
def test_what_cannot_be_asked_changes_nothing(session: Session, what: str) -> None:
    assert_refused(session, *ASKED[what])


@pytest.mark.parametrize("what", CHANGED)
def test_what_cannot_be_changed_changes_nothing(session: Session, what: str) -> None:
    assert_refused(session, *CHANGED[what])


def assert_refused(session: Session, act: Callable[[Session], Any], error: type[LLMBufferError]) -> None:
    before = state_of(session)
    with pytest.raises(error) as caught:
        act(session)
    assert type(caught.value).__module__ == "llmbuffer.errors"
    assert len(str(caught.value)) > 20
    assert state_of(session) == before
    session.request("still there?").observe(Usage(input_tokens=70), Message("assistant", "yes"))
    assert [message.text for message in session.messages[-2:]] == ["still there?", "yes"]


# What comes back


RESPONSES: dict[str, Any] = {
    "nothing": None,
    "a number": 5,
    "text": "hello",
    "an empty object": {},
    "an error": {"error": {"message": "no"}},
    "strange choices": {"choices": "abc", "content": 5},
    "usage that is text": {"choices": [{"message": {"content": "x"}}], "content": "x", "usage": "x"},
    "usage that is negative": {
        "choices": [{"message": {"content": "x"}}],
        "content": "x",
        "usage": {"prompt_tokens": -1, "input_tokens": -1},
    },
    "a surrogate": {"choices": [{"message": {"content": LONE}}], "content": LONE},
    "calls without ids": {
        "choices": [{"message": {"content": "x", "tool_calls": [{"type": "function"}]}}],
        "content": [{"type": "tool_use", "input": {"a": math.nan}}],
    },
}


@pytest.mark.parametrize("what", RESPONSES)
def test_a_response_that_cannot_be_read_changes_nothing(session: Session, what: str) -> None:
    request = session.request("hi")
    assert_refused(session, lambda _: request.observe(RESPONSES[what]), LLMBufferError)


REPLIES: list[Any] = [
    Message("assistant", LONE),
    Message("assistant", HUGE),
    {"role": "alien"},
    Message("user", "the user's own"),
    Message("tool", [ToolResult("call_1", "a result")]),
    {"role": "system", "content": "be kind"},
    "a text",
]


@pytest.mark.parametrize("reply", REPLIES)
def test_a_reply_that_cannot_be_kept_changes_nothing(session: Session, reply: Any) -> None:
    request = session.request("hi")
    assert_refused(session, lambda _: request.observe(Usage(input_tokens=5), reply), MessageError)


# What cannot begin


MADE: dict[str, tuple[Callable[[], Any], type[LLMBufferError]]] = {
    "an unknown dialect": (lambda: Session(StableContext("m"), "nope"), UnknownDialectError),
    "a dialect that is none": (lambda: Session(StableContext("m"), 5), DialectError),  # type: ignore[arg-type]  # what the test is about
    "a context that is none": (lambda: Session("gpt-5.5"), MessageError),  # type: ignore[arg-type]  # what the test is about
    "an unknown placement": (lambda: Session(StableContext("m"), placement="above"), PlacementError),  # type: ignore[arg-type]  # what the test is about
    "a routing key that is a number": (lambda: Session(StableContext("m"), routing_key=5), MessageError),  # type: ignore[arg-type]  # what the test is about
    "a surrogate in the routing key": (lambda: Session(StableContext("m"), routing_key=LONE), EncodingError),
    "an id that is a number": (lambda: Session(StableContext("m"), session_id=5), MessageError),  # type: ignore[arg-type]  # what the test is about
    "a routing key of a fork that is a number": (lambda: Session(StableContext("m")).fork(routing_key=5), MessageError),  # type: ignore[arg-type]  # what the test is about
    "fewer requests than none": (lambda: Session(StableContext("m"), expected_requests=-5), MessageError),
    "requests that are not a number": (lambda: Session(StableContext("m"), expected_requests=math.nan), MessageError),  # type: ignore[arg-type]  # what the test is about
    "a surrogate in the id": (lambda: Session(StableContext("m"), session_id=LONE), EncodingError),
    "no model": (lambda: StableContext(""), MessageError),
    "a model that is none": (lambda: StableContext(5), MessageError),  # type: ignore[arg-type]  # what the test is about
    "a surrogate in the model": (lambda: StableContext(LONE), EncodingError),
    "a surrogate in the system text": (lambda: StableContext("m", LONE), EncodingError),
    "a system text that is a number": (lambda: StableContext("m", 5), MessageError),  # type: ignore[arg-type]  # what the test is about
    "a system text that is a mapping": (lambda: StableContext("m", {"a": "b"}), MessageError),  # type: ignore[arg-type]  # what the test is about
    "two segments of one name": (lambda: StableContext("m", SEGMENTS), MessageError),
    "an unknown level": (lambda: Segment("a", "b", level="galaxy"), MessageError),  # type: ignore[arg-type]  # what the test is about
    "an unknown ttl": (lambda: Segment("a", "b", ttl="1h"), MessageError),  # type: ignore[arg-type]  # what the test is about
    "a segment of bytes": (lambda: Segment("a", b"b"), MessageError),  # type: ignore[arg-type]  # what the test is about
    "a segment of 50 MB": (lambda: Segment("a", HUGE), MessageError),
    "params that are a list": (lambda: StableContext("m", params=[1]), MessageError),  # type: ignore[arg-type]  # what the test is about
    "params with NaN": (lambda: StableContext("m", params={"a": [math.nan]}), EncodingError),
    "params with infinity": (lambda: StableContext("m", params={"a": math.inf}), EncodingError),
    "params that hold the tools": (lambda: StableContext("m", params={"tools": []}), MessageError),
    "tools that are a number": (lambda: StableContext("m", tools=5), MessageError),  # type: ignore[arg-type]  # what the test is about
    "tools that are one tool": (lambda: StableContext("m", tools={"name": "f"}), MessageError),  # type: ignore[dict-item]  # what the test is about
    "two tools of one name": (lambda: StableContext("m", tools=[{"name": "f"}, {"name": "f"}]), MessageError),
    "a tool without a name": (lambda: Tool.of({"description": "F."}), MessageError),
    "a tool whose name is a number": (lambda: Tool.of({"name": 5}), MessageError),
    "a surrogate in a tool's name": (lambda: Tool.of({"name": LONE}), EncodingError),
    "a surrogate in a tool's description": (lambda: Tool.of({"name": "f", "description": LONE}), EncodingError),
    "a description that is a number": (lambda: Tool.of({"name": "f", "description": 5}), MessageError),
    "NaN in a schema": (lambda: Tool.of({"name": "f", "parameters": {"maximum": math.nan}}), EncodingError),
    "NaN in a raw schema": (lambda: Tool.of({"name": "f", "parameters": '{"maximum": NaN}'}), EncodingError),
    "a raw schema that is no JSON": (lambda: Tool.of({"name": "f", "parameters": "{"}), EncodingError),
    "a schema that is too deep": (lambda: Tool.of({"name": "f", "parameters": deep(400)}), EncodingError),
    "a raw schema that is too deep": (lambda: Tool.of({"name": "f", "parameters": "[" * 9999}), EncodingError),
    "infinity beside the schema": (lambda: Tool.of({"name": "f", "x": math.inf}), EncodingError),
    "parts that are none": (lambda: Message("user", None), MessageError),  # type: ignore[arg-type]  # what the test is about
    "parts that are numbers": (lambda: Message("user", [5]), MessageError),  # type: ignore[list-item]  # what the test is about
    "a name that is a number": (lambda: Message("user", "x", 5), MessageError),  # type: ignore[arg-type]  # what the test is about
    "a text of a number": (lambda: Message("user", [Text(5)]), MessageError),  # type: ignore[arg-type]  # what the test is about
    "an image of nothing": (lambda: Message("user", [Image(None)]), MessageError),  # type: ignore[arg-type]  # what the test is about
    "arguments that are an object": (lambda: Message("assistant", [ToolCall("c", "f", {})]), MessageError),  # type: ignore[arg-type]  # what the test is about
    "a result of nothing": (lambda: Message("tool", [ToolResult("c", None)]), MessageError),  # type: ignore[arg-type]  # what the test is about
    "a result that can be changed": (lambda: Message("tool", [ToolResult("c", [Text("a")])]), MessageError),  # type: ignore[arg-type]  # what the test is about
    "a result that holds a call": (
        lambda: Message("tool", [ToolResult("c", (ToolCall("c", "f", ""),))]),  # type: ignore[arg-type]  # what the test is about
        MessageError,
    ),
    "an opaque part of NaN": (lambda: Opaque.of("openai", {"a": math.nan}), EncodingError),
}  # fmt: skip


@pytest.mark.parametrize("what", MADE)
def test_what_makes_no_sense_is_refused_with_a_reason(what: str) -> None:
    make, error = MADE[what]
    with pytest.raises(error) as caught:
        make()
    assert type(caught.value).__module__ == "llmbuffer.errors"
    assert len(str(caught.value)) > 20


def test_the_error_of_an_unknown_dialect_lists_those_that_are_known() -> None:
    with pytest.raises(UnknownDialectError, match=r"\['anthropic', .*'openai'.*\]"):
        Session(StableContext("m"), "nope")


# Documented fallbacks


NON_JSON = ['{"a": ', "[1]", "", "none", '{"a": NaN}', '{"a": 1, "a": 2}']


@pytest.mark.parametrize("arguments", NON_JSON)
def test_arguments_that_are_no_json_stay_as_they_are_or_are_refused(session: Session, arguments: str) -> None:
    """OpenAI's wire keeps the string; Anthropic's holds objects only, and takes an empty string for an empty one."""
    if session.dialect.name == "anthropic" and arguments:
        assert_refused(session, appends(calls(call(arguments))), LossyError)
        return
    session.append([ASK, calls(call(arguments)), {"role": "tool", "tool_call_id": "c", "content": "no JSON"}])
    sent = json.dumps(session.request(None).body)
    assert json.dumps(arguments) in sent or '"input": {}' in sent


def test_a_megabyte_of_spaces_is_text_like_any_other(session: Session) -> None:
    request = session.request(f"so:{SPACES}", dynamic={"padding": SPACES})
    request.observe(Usage(input_tokens=900_000), Message("assistant", SPACES + "ok"))
    assert session.messages[-1].text.endswith("ok")
    assert session.request("next").forecast.input_tokens > 0


def test_nothing_but_spaces_is_text_where_the_provider_takes_it(session: Session) -> None:
    if session.dialect.name == "anthropic":
        assert_refused(session, asks(SPACES), MessageError)
    else:
        assert SPACES in json.dumps(session.request(SPACES).body)


@pytest.mark.parametrize("model", MODELS)
def test_spaces_and_special_tokens_are_counted_by_the_models_own_counter(model: str) -> None:
    session = Session(
        StableContext(model, SPACES, tools=[{"name": "f", "description": "<|endoftext|>"}]), MODELS[model]
    )
    session.append([{"role": "user", "content": SPACES}, {"role": "assistant", "content": "<|endoftext|>"}])
    assert session.request("<|im_start|>system", dynamic={"x": SPACES}).forecast.input_tokens > 1_000


@pytest.mark.parametrize(
    "text", ["<|endoftext|>", "<|im_start|>", "\0", "\u2028", "\U0001f600", "</context>", "\\ud800"]
)
def test_text_that_looks_like_something_else_arrives_as_it_is(session: Session, text: str) -> None:
    body = session.request(f"say {text}", dynamic={"note": text}).body
    content = body["messages"][-1]["content"]
    assert [part["text"] for part in content[-2:]] == [
        f"say {text}",
        f'<context name="note">\n{text}\n</context>',
    ]
    assert json.loads(json.dumps(body)) == body


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_a_model_without_rules_works_and_says_so(dialect: str) -> None:
    session = Session(StableContext("house-model-7b", "kind " * 2000), dialect, tokens=EstimateCounter())
    request = session.request("hi", dynamic={"clock": "12:00"})
    assert "unsupported-model" in request.forecast.warnings
    assert request.forecast.cost is None
    request.observe(Usage(input_tokens=2_050), Message("assistant", "ok"))
    assert session.ledger.cost is None


def test_the_provider_sees_no_empty_texts_where_it_refuses_them() -> None:
    system = [Segment("a", ""), Segment("b", "long " * 3000)]
    session = Session(StableContext("claude-sonnet-5.5", system), "anthropic", tokens=EstimateCounter())
    assert len(session.request("hi").body["system"]) == 1
    with pytest.raises(MessageError, match="empty"):
        session.request(" ", dynamic={"a": "b"})

    session.append([Message("user", "hi"), Message("assistant", ""), Message("user", "")])
    assert shape_of(session) == [("user", ["hi", "dynamic"])]
    session.append([Message("assistant", "yes?"), Message("user", "")])
    assert shape_of(session) == [("user", ["hi"]), ("assistant", ["yes?"]), ("user", ["dynamic"])]


def shape_of(session: Session) -> list[tuple[str, list[str]]]:
    """Roles and texts of the next request, with dynamic text."""
    messages = session.request(None, dynamic={"a": "b"}).body["messages"]
    return [
        (
            message["role"],
            ["dynamic" if "context" in part["text"] else part["text"] for part in message["content"]],
        )
        for message in messages
    ]


@pytest.mark.parametrize("model", ["gpt-5.5", "gpt-5.6"])
@pytest.mark.parametrize("user", [[], {"role": "user", "content": None}, {"role": "user"}])
def test_a_message_without_content_still_takes_dynamic_text(model: str, user: Any) -> None:
    session = Session(StableContext(model), tokens=EstimateCounter())
    body = session.request(user, dynamic={"a": "b"}).body
    assert [part["text"] for part in body["messages"][-1]["content"]] == ['<context name="a">\nb\n</context>']
