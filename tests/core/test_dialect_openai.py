"""The openai dialect: what goes onto the wire, what is read off it, and what comes back as it was."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tests.any_json import JSON, TEXT
from tests.loopback import Said, loopback, openai_chunks, openai_whole
from tests.scripted_session import client_of

from llmbuffer import (
    File,
    Image,
    LossyError,
    Message,
    MessageError,
    Opaque,
    PairingError,
    Reasoning,
    Segment,
    Session,
    StableContext,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)
from llmbuffer.dialects.openai_chat import OpenAIChat
from llmbuffer.dialects.openai_stream import ChatAccumulator
from llmbuffer.errors import DialectError
from llmbuffer.rules import CacheRules

OLD, NEW = OpenAIChat().bind("gpt-5.5"), OpenAIChat().bind("gpt-5.6")
MARK = "prompt_cache_breakpoint"
PNG = "data:image/png;base64,iVBORw0KGgo="


def wire_of(message: Message, dialect: OpenAIChat = OLD) -> Any:
    (wire,) = dialect.render_message(message, None).blocks
    return wire


# Rendering


WIRES: list[tuple[Message, dict[str, Any]]] = [
    (Message("user", "hi"), {"role": "user", "content": "hi"}),
    (Message("user", "hi", name="Ann"), {"role": "user", "content": "hi", "name": "Ann"}),
    (Message("system", "be kind"), {"role": "system", "content": "be kind"}),
    (Message("developer", "be kind"), {"role": "system", "content": "be kind"}),
    (Message("assistant", "ho"), {"role": "assistant", "content": "ho"}),
    (
        Message("user", [Text("see"), Image(PNG, "low")]),
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "see"},
                {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
            ],
        },
    ),
    (
        Message("user", [File("data:application/pdf;base64,AA==", name="a.pdf"), File(id="file-1")]),
        {
            "role": "user",
            "content": [
                {
                    "type": "file",
                    "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"},
                },
                {"type": "file", "file": {"file_id": "file-1"}},
            ],
        },
    ),
    (
        Message(
            "user",
            [Opaque.of("openai", {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}})],
        ),
        {
            "role": "user",
            "content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}],
        },
    ),
    (
        Message("assistant", [Text("let me see"), ToolCall("c1", "f", '{"a": 1e2}')]),
        {
            "role": "assistant",
            "content": "let me see",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1e2}'}}
            ],
        },
    ),
    (
        Message(
            "assistant",
            [ToolCall("c1", "f", "", Opaque.of("openai", {"extra_content": {"s": 1}}, "tool_call"))],
        ),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "f", "arguments": ""},
                    "extra_content": {"s": 1},
                }
            ],
        },
    ),
    (
        Message("assistant", [Reasoning("hm"), Text("yes")]),
        {"role": "assistant", "content": "yes", "reasoning_content": "hm"},
    ),
    (
        Message("assistant", [Opaque.of("openai", "no", "field:refusal")]),
        {"role": "assistant", "content": None, "refusal": "no"},
    ),
    (Message("tool", [ToolResult("c1", "42")]), {"role": "tool", "tool_call_id": "c1", "content": "42"}),
    (
        Message("tool", [ToolResult("c1", "out of ink", is_error=True)]),
        {"role": "tool", "tool_call_id": "c1", "content": "out of ink"},
    ),
    (
        Message("tool", [ToolResult("c1", (Text("a"), Text("b")))]),
        {
            "role": "tool",
            "tool_call_id": "c1",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
    ),
]


@pytest.mark.parametrize(("message", "wire"), WIRES, ids=[repr(message) for message, _ in WIRES])
def test_a_message_as_it_is_sent(message: Message, wire: dict[str, Any]) -> None:
    assert json.dumps(wire_of(message)) == json.dumps(_in_wire_order(wire))
    marked = wire_of(message, NEW)
    if message.role in ("assistant", "tool"):
        assert marked == wire
    else:
        assert isinstance(marked["content"], list)
        assert marked["role"] == ("user" if message.role == "user" else "developer")


def _in_wire_order(wire: dict[str, Any]) -> dict[str, Any]:
    order = ["role", "tool_call_id", "content", "name", "tool_calls"]
    return {
        key: wire[key]
        for key in [*filter(wire.__contains__, order), *(key for key in wire if key not in order)]
    }


def test_a_tool_message_with_several_results_is_one_wire_message_each() -> None:
    message = Message("tool", [ToolResult("c1", "a"), ToolResult("c2", "b")])
    assert [block["tool_call_id"] for block in OLD.render_message(message, None).blocks] == ["c1", "c2"]


LOSSY = {
    "another provider's part": Message("user", [Opaque.of("anthropic", {"type": "thinking"})]),
    "another provider's extra": Message(
        "assistant", [ToolCall("c", "f", "", Opaque.of("anthropic", {}, "tool_call"))]
    ),
    "a result outside of tool messages": Message("user", [ToolResult("c", "x")]),
    "text beside a result": Message("tool", [ToolResult("c", "x"), Text("y")]),
    "two results and more": Message("tool", [ToolResult("c", "x"), ToolResult("d", "x"), Text("y")]),
    "two reasonings": Message("assistant", [Reasoning("a"), Reasoning("b")]),
    "a slot that the wire does not have": Message("user", [Opaque.of("openai", {}, "elsewhere")]),
    "an opaque part beside a result": Message(
        "tool", [ToolResult("c", "x"), Opaque.of("openai", {"type": "x"})]
    ),
}


@pytest.mark.parametrize("what", LOSSY)
def test_what_has_no_place_is_refused(what: str) -> None:
    for dialect in (OLD, NEW):
        with pytest.raises(LossyError):
            dialect.render_message(LOSSY[what], None)
    with pytest.raises(LossyError):
        LOSSY[what].to_openai()


@pytest.mark.parametrize(
    "message",
    [
        Message("tool", [ToolResult("c1", "out of ink", is_error=True)]),
        Message("assistant", [ToolCall("c", "f", ""), Text("afterwards")]),
        Message("assistant", [Text("late"), Reasoning("hm")]),
        Message("user", [File()]),
    ],
)
def test_what_would_not_come_back_equal_is_refused_by_the_strict_way(message: Message) -> None:
    OLD.render_message(message, None)
    with pytest.raises(LossyError):
        message.to_openai()


TOOLS: list[tuple[Any, dict[str, Any]]] = [
    (
        {"name": "f", "description": "F.", "parameters": {"type": "object", "a": 1}, "strict": True},
        {
            "type": "function",
            "function": {
                "name": "f",
                "description": "F.",
                "parameters": {"type": "object", "a": 1},
                "strict": True,
            },
        },
    ),
    ({"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "f"}}),
    (
        {"name": "f", "input_schema": {"type": "object"}},
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
    ),
    (
        {"type": "custom", "custom": {"name": "sh", "format": {"type": "text"}}},
        {"type": "custom", "custom": {"name": "sh", "format": {"type": "text"}}},
    ),
]


@pytest.mark.parametrize(("tool", "wire"), TOOLS)
def test_a_tool_as_it_is_sent(tool: Any, wire: dict[str, Any]) -> None:
    assert json.dumps(OLD.render_tool(Tool.of(tool))) == json.dumps(wire)


def test_two_tools_of_a_providers_own_kind_keep_their_names() -> None:
    own = [{"type": "custom", "custom": {"name": name}} for name in ("sh", "sql")]
    assert [tool.name for tool in StableContext("m", tools=own).tools] == ["sh", "sql"]


def test_system_text_leads_the_messages() -> None:
    texts = [Segment("a", "one", level="global"), Segment("b", " "), Segment("c", "two")]
    old = Session(StableContext("gpt-5.5", texts)).request("hi").body["messages"][0]
    new = Session(StableContext("gpt-5.6", texts)).request("hi").body["messages"][0]
    assert old == {"role": "system", "content": "one\n\ntwo"}
    assert new == {
        "role": "developer",
        "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
    }
    assert Session(StableContext("gpt-5.5")).request("hi").body["messages"] == [
        {"role": "user", "content": "hi"}
    ]


# Marks


def marks_of(body: Any) -> int:
    return json.dumps(body).count(f'"{MARK}"')


def long_session(model: str, **options: Any) -> Session:
    levels: list[Literal["global", "tenant", "user"]] = ["global", "tenant", "user"]
    system = [Segment(level, f"{level} rule. " * 700, level=level) for level in levels]
    session = Session(StableContext(model, system, tools=[{"name": "f"}]), **options)
    for number in range(4):
        session.append(
            [{"role": "user", "content": f"question {number} " * 300}, {"role": "assistant", "content": "a"}]
        )
    return session


@pytest.mark.parametrize(
    "model", ["gpt-4o", "gpt-4.1-mini", "gpt-35-turbo", "gpt-5", "gpt-5.5", "o3", "deepseek-chat", "my-model"]
)
def test_models_that_do_not_know_marks_never_get_any(model: str) -> None:
    body = long_session(model).request("hi", dynamic={"clock": "12:00"}).body
    assert marks_of(body) == 0
    assert "prompt_cache_options" not in body
    assert ("prompt_cache_key" in body) == (model not in ("gpt-35-turbo", "deepseek-chat", "my-model"))


@pytest.mark.parametrize("model", ["gpt-5.6", "gpt-5.6-sol", "gpt-6", "gpt-6.1-mini"])
@pytest.mark.parametrize("dynamic", [{}, {"clock": "12:00"}])
def test_marks_never_exceed_the_slots(model: str, dynamic: dict[str, str]) -> None:
    session = long_session(model)
    for each in (session, session.fork(task="go on"), session.fork().fork()):
        body = each.request("hi" if each is session else None, dynamic=dynamic).body
        explicit = body.get("prompt_cache_options") == {"mode": "explicit"}
        assert 1 <= marks_of(body) <= 3 + explicit
        assert all(MARK not in message for message in body["messages"])


def test_marks_stand_on_parts_that_take_them() -> None:
    session = long_session("gpt-5.6")
    session.append(Message("user", [Text("see"), Opaque.of("openai", {"type": "strange"})]))
    for message in session.request(None).body["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else []:
            assert MARK not in part or (part["type"] == "text" and message["role"] in ("user", "developer"))


def test_nothing_below_the_minimum_is_marked() -> None:
    body = Session(StableContext("gpt-5.6", "short", tools=[{"name": "f"}])).request("hi").body
    assert marks_of(body) == 0


def test_marks_of_the_users_own_count_and_stay() -> None:
    own = {"type": "text", "text": "mine", MARK: {"mode": "explicit", "ttl": "12h"}}
    session = long_session("gpt-5.6")
    session.append([{"role": "user", "content": [own]}, {"role": "assistant", "content": "ok"}] * 2)
    body = session.request("hi", dynamic={"clock": "12:00"}).body
    explicit = body.get("prompt_cache_options") == {"mode": "explicit"}
    assert marks_of(body) <= 3 + explicit
    assert [
        part
        for message in body["messages"]
        if isinstance(message["content"], list)
        for part in message["content"]
    ].count(own) == 2


def test_options_of_the_users_own_are_merged() -> None:
    session = long_session("gpt-5.6")
    session.update(params={"prompt_cache_options": {"ttl": "30m"}})
    assert session.request("hi").body["prompt_cache_options"] == {"mode": "explicit", "ttl": "30m"}


def test_an_endpoint_of_ones_own_has_rules_of_its_own() -> None:
    rules = CacheRules(
        name="mine", match="entries", slots=1, markable=frozenset({"text"}), content_parts="always"
    )
    dialect = OpenAIChat(rules)
    assert dialect.bind("gpt-5.6") is dialect
    session = Session(StableContext("gpt-5.6", "x " * 50), dialect)
    assert marks_of(session.request("hi").body) == 1


def test_routing_keys_are_never_longer_than_the_api_takes() -> None:
    keys = {}
    for key in ("short", "x" * 64, "x" * 65, "x" * 66):
        keys[key] = Session(StableContext("gpt-5.5"), routing_key=key).request("hi").body["prompt_cache_key"]
    assert keys["short"] == "short"
    assert max(map(len, keys.values())) <= 64
    assert len(set(keys.values())) == 4


# Arguments for the SDK


def test_fields_that_the_sdk_lacks_go_into_extra_body() -> None:
    body = {
        "model": "m",
        "messages": [],
        "seed": 1,
        "id_slot": 1,
        "timeout": 3,
        "extra_query": 1,
    }
    kwargs = OLD.kwargs(body)
    assert kwargs.keys() == {"model", "messages", "seed", "extra_body"}
    assert kwargs["extra_body"] == {"id_slot": 1, "timeout": 3, "extra_query": 1}
    assert "extra_body" not in OLD.kwargs({"model": "m", "messages": []})


# Reading


USAGES: list[tuple[Any, Usage | None]] = [
    (None, None),
    ({}, None),
    ({"prompt_tokens": 10, "completion_tokens": 2}, Usage(input_tokens=10, output_tokens=2)),
    (
        {
            "prompt_tokens": 100,
            "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 30},
        },
        Usage(input_tokens=100, output_tokens=2, cache_read_tokens=64, cache_write_tokens=30),
    ),
    ({"prompt_tokens": 10, "completion_tokens": None, "prompt_tokens_details": None}, Usage(input_tokens=10)),
    (
        {"prompt_tokens": 100, "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36},
        Usage(input_tokens=100, cache_read_tokens=64),
    ),
    (
        {"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 90, "cache_write_tokens": 90}},
        Usage(input_tokens=100, cache_read_tokens=90, cache_write_tokens=10),
    ),
    (
        {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 64}},
        Usage(input_tokens=10, cache_read_tokens=10),
    ),
]


@pytest.mark.parametrize(("reported", "usage"), USAGES)
def test_usage_is_read(reported: Any, usage: Usage | None) -> None:
    assert OLD.read_usage({"choices": [], "usage": reported}) == usage
    whole = openai_whole(Said("hi"))
    assert OLD.read_usage(ChatCompletion.model_validate(whole)) == Usage(
        input_tokens=2400, output_tokens=7, cache_read_tokens=2000, cache_write_tokens=300
    )


@pytest.mark.parametrize(
    "response",
    [
        {"usage": 3},
        {"usage": {"prompt_tokens": "3"}},
        {"usage": {"prompt_tokens": -1}},
        {"usage": {"prompt_tokens": True}},
        {"usage": {"prompt_tokens": 3, "prompt_tokens_details": 4}},
        "text",
        None,
        object(),
    ],
)
def test_usage_that_makes_no_sense_is_refused(response: Any) -> None:
    with pytest.raises(DialectError):
        OLD.read_usage(response)


def reply(message: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def test_a_reply_is_read_from_objects_and_from_dicts() -> None:
    said = Said("hm", calls=(("c1", "f", '{"b": 1, "a": 1e2, "é": "\\u00e9"}'),))
    message = Message("assistant", [Text("hm"), ToolCall("c1", "f", said.calls[0][2])])
    assert OLD.read_message(openai_whole(said)) == message
    assert OLD.read_message(ChatCompletion.model_validate(openai_whole(said))) == message


def test_fields_that_say_nothing_are_left_out_and_others_are_kept() -> None:
    spoken: dict[str, Any] = {
        "role": "assistant",
        "content": "hi",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "tool_calls": [],
    }
    assert OLD.read_message(reply(spoken)) == Message("assistant", "hi")
    extra = OLD.read_message(reply({**spoken, "annotations": [{"type": "url_citation"}], "own": {"x": 1}}))
    assert wire_of(extra)["annotations"] == [{"type": "url_citation"}]
    assert wire_of(extra)["own"] == {"x": 1}
    thought = OLD.read_message(reply({"content": "yes", "reasoning_content": "hm"}))
    assert thought == Message("assistant", [Reasoning("hm"), Text("yes")])


def test_what_the_sdk_s_own_helpers_add_is_not_sent_back() -> None:
    schema = {
        "type": "object",
        "properties": {"q": {"type": "string"}},
        "required": ["q"],
        "additionalProperties": False,
    }
    said = Said("hm", calls=(("c1", "f", '{"q": "x"}'),))
    context = StableContext("gpt-5.5", tools=[{"name": "f", "parameters": schema, "strict": True}])
    kwargs = Session(context).request("hi").kwargs
    with loopback([said, said, said]) as server, client_of("gpt-5.5", server) as client:
        with client.chat.completions.stream(**kwargs, stream_options={"include_usage": True}) as events:
            streamed = events.get_final_completion()
        parsed = client.chat.completions.parse(**kwargs)
        plain = client.chat.completions.create(**kwargs)
    expected = OLD.read_message(openai_whole(said))
    for response in (streamed, parsed, plain, parsed.model_dump(), plain.model_dump(), plain.to_dict()):
        assert OLD.read_message(response) == expected
        assert OLD.read_usage(response) == OLD.read_usage(openai_whole(said))


def test_a_server_that_departs_from_the_sdk_s_types_is_read_without_a_warning() -> None:
    parts = [{"type": "text", "text": "hi"}]
    odd = ChatCompletion.construct(**reply({"role": "assistant", "content": parts}), id=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert OLD.read_message(odd) == Message("assistant", "hi")


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"choices": []},
        {"choices": None},
        {"choices": "abc"},
        {"choices": [3]},
        {"choices": [{"text": "old"}]},
        reply("hi"),
        reply(None),
    ],
)
def test_what_is_no_reply_is_refused(response: Any) -> None:
    with pytest.raises(DialectError):
        OLD.read_message(response)


@pytest.mark.parametrize(
    "message",
    [
        {"content": 3},
        {"content": "x", "tool_calls": 3},
        {"content": "x", "tool_calls": [3]},
        {"content": "x", "tool_calls": [{"type": "function"}]},
        {
            "content": "x",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": {}}}],
        },
        {"content": "\ud800"},
        {"content": "x", "tool_call_id": "c"},
    ],
)
def test_a_reply_that_cannot_be_sent_back_is_refused(message: Mapping[str, Any]) -> None:
    with pytest.raises(MessageError):
        OLD.read_message(reply(message))


# Streams


def joined(*chunks: dict[str, Any]) -> dict[str, Any]:
    whole = ChatAccumulator()
    for chunk in chunks:
        list(whole.add(chunk))
    return whole.response()


def delta(piece: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": piece, "finish_reason": finish}]}


END = delta({}, "stop")


@given(
    text=st.none() | st.text(st.characters(codec="utf-8"), max_size=20),
    calls=st.lists(
        st.tuples(st.text("abc", min_size=1), st.sampled_from(["f", "g"]), st.text('{}"a1é\\u ', max_size=9)),
        max_size=3,
    ),
    usage=st.none() | st.just((1, 2, 3, 4)),
)
def test_a_streamed_reply_is_the_whole_one(
    text: str | None, calls: list[tuple[str, str, str]], usage: Any
) -> None:
    numbered = tuple((f"{index}{call_id}", name, rest) for index, (call_id, name, rest) in enumerate(calls))
    said = Said(text or None, numbered, usage)
    for chunks in (openai_chunks(said), (from_sdk(chunk) for chunk in openai_chunks(said))):
        response = joined(*chunks)
        assert OLD.read_message(response) == OLD.read_message(openai_whole(said))
        assert OLD.read_usage(response) == OLD.read_usage(openai_whole(said))


def from_sdk(chunk: dict[str, Any]) -> dict[str, Any]:
    return ChatCompletionChunk.model_validate(chunk).model_dump(exclude_unset=True)


def test_pieces_of_fields_that_are_not_known_are_joined_too() -> None:
    message = joined(
        delta(
            {
                "role": "assistant",
                "refusal": "I ",
                "reasoning_content": "h",
                "audio": {"id": "a1", "data": "AA"},
            }
        ),
        delta(
            {
                "refusal": "cannot",
                "reasoning_content": "m",
                "audio": {"id": "a1", "data": "BB", "transcript": "t"},
            }
        ),
        delta({"details": [{"index": 0, "type": "t", "text": "x"}], "list": [1], "audio": {"expires_at": 9}}),
        delta({"details": [{"index": 0, "type": "t", "text": "y"}, {"index": 1, "text": "z"}], "list": [2]}),
        END,
    )["choices"][0]["message"]
    assert message["refusal"] == "I cannot"
    assert message["reasoning_content"] == "hm"
    assert message["audio"] == {"id": "a1", "data": "AABB", "transcript": "t", "expires_at": 9}
    assert message["details"] == [{"index": 0, "type": "t", "text": "xy"}, {"index": 1, "text": "z"}]
    assert message["list"] == [1, 2]


def call(
    index: int | None, call_id: str | None, name: str | None, arguments: str, **more: Any
) -> dict[str, Any]:
    return delta(
        {
            "tool_calls": [
                {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}, **more}
            ]
        }
    )


STREAMS = {
    "as OpenAI": [
        call(0, "a", "f", ""),
        call(0, None, None, "1"),
        call(1, "b", "g", ""),
        call(1, None, None, "2"),
    ],
    "interleaved": [
        call(0, "a", "f", ""),
        call(1, "b", "g", ""),
        call(0, None, None, "1"),
        call(1, None, None, "2"),
    ],
    "without an index": [call(None, "a", "f", "1"), call(None, "b", "g", "2")],
    "without an index, in pieces": [
        call(None, "a", "f", ""),
        call(None, None, None, "1"),
        call(None, "b", "g", "2"),
    ],
    "all of index 0": [call(0, "a", "f", "1"), call(0, "b", "g", "2")],
    "id and name in every piece": [call(0, "a", "f", ""), call(0, "a", "f", "1"), call(1, "b", "g", "2")],
    "the second first": [call(1, "a", "f", "1"), call(0, "b", "g", "2")],
}


@pytest.mark.parametrize("how", STREAMS)
def test_calls_are_put_together_however_servers_stream_them(how: str) -> None:
    calls = joined(*STREAMS[how], END)["choices"][0]["message"]["tool_calls"]
    assert calls == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "1"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "2"}},
    ]


def test_calls_of_other_kinds_and_with_more_fields_are_put_together() -> None:
    first = {"index": 0, "id": "c", "type": "custom", "custom": {"name": "sh", "input": ""}}
    second = {
        "index": 1,
        "id": "d",
        "type": "function",
        "function": {"name": "f", "arguments": ""},
        "extra": {"s": "x"},
    }
    pieces = [{"index": 0, "custom": {"input": "ls"}}, {"index": 0, "custom": {"input": " -l"}}]
    calls = joined(*(delta({"tool_calls": [piece]}) for piece in [first, second, *pieces]), END)
    assert calls["choices"][0]["message"]["tool_calls"] == [
        {"id": "c", "type": "custom", "custom": {"name": "sh", "input": "ls -l"}},
        {"id": "d", "type": "function", "function": {"name": "f", "arguments": ""}, "extra": {"s": "x"}},
    ]


def test_usage_is_taken_from_whichever_chunk_has_it_and_other_choices_are_left_alone() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "other"}, "finish_reason": "length"}]}
    response = joined(
        {"id": "x", "choices": [], "usage": {"prompt_tokens": 3}},
        other,
        delta({"content": "a"}),
        {**END, "usage": None},
    )
    assert response["usage"] == {"prompt_tokens": 3}
    assert response["id"] == "x"
    assert response["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
    ]


def test_half_a_stream_is_refused() -> None:
    with pytest.raises(DialectError, match="finish_reason"):
        joined(delta({"content": "a"}))


# Round trips


FIELD = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(
    lambda name: (
        name not in ("role", "content", "name", "tool_calls", "tool_call_id", "id", "type", "function")
    )
)
UNKNOWN = st.dictionaries(FIELD, JSON, max_size=2)
ARGUMENTS = TEXT | st.sampled_from(
    [
        '{"b": 1, "a": 2}',
        '{"x": 1e2}',
        '{"s": "\\u00e9"}',
        '{"a": 1, "a": 2}',
        '{"a": ',
        "[]",
        "",
        "null",
        '{"a":1}\n',
    ]
)
ITEMS = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, TEXT),
    st.builds(lambda text, more: {"type": "text", "text": text, **more}, TEXT, UNKNOWN),
    st.builds(lambda url, more: {"type": "image_url", "image_url": {"url": url, **more}}, TEXT, UNKNOWN),
    st.builds(lambda url, detail: {"type": "image_url", "image_url": {"url": url, "detail": detail}}, TEXT, TEXT | st.none()),
    st.builds(lambda file: {"type": "file", "file": file}, st.dictionaries(st.sampled_from(["file_data", "file_id", "filename"]), TEXT | st.none())),
    st.builds(lambda kind, more: {**more, "type": kind}, st.sampled_from(["input_audio", "refusal", "strange", "text", "file"]), UNKNOWN),
    UNKNOWN,
)  # fmt: skip
CONTENT = st.none() | TEXT | st.lists(ITEMS, max_size=3)
CALLS = st.one_of(
    st.builds(lambda call_id, name, arguments: {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}, TEXT, TEXT, ARGUMENTS),
    st.builds(lambda call_id, arguments, more: {"id": call_id, "type": "function", "function": {"name": "f", "arguments": arguments}, **more}, TEXT, ARGUMENTS, UNKNOWN),
    st.builds(lambda call_id, arguments, more: {"id": call_id, "type": "function", "function": {"name": "f", "arguments": arguments, **more}}, TEXT, ARGUMENTS, UNKNOWN),
    st.builds(lambda call_id, kind, more: {**more, "id": call_id, "type": kind}, TEXT, st.sampled_from(["custom", "x"]), UNKNOWN),
)  # fmt: skip


@st.composite
def openai_messages(draw: st.DrawFn) -> dict[str, Any]:
    role = draw(st.sampled_from(["system", "developer", "user", "assistant", "tool"]))
    message: dict[str, Any] = {"role": role, **draw(UNKNOWN)}
    if draw(st.booleans()):
        message["content"] = draw(CONTENT)
    if draw(st.booleans()):
        message["name"] = draw(TEXT | st.none())
    if role == "tool":
        message["tool_call_id"] = draw(TEXT)
    elif role == "assistant" and draw(st.booleans()):
        message["tool_calls"] = draw(st.none() | st.lists(CALLS, max_size=3))
    if draw(st.booleans()):
        message["reasoning_content"] = draw(TEXT | st.none() | JSON)
    return message


@given(openai_messages())
def test_what_came_in_goes_out_as_it_was(wire: dict[str, Any]) -> None:
    message = Message.from_openai(wire)
    assert message.to_openai() == wire
    assert Message.from_openai(message.to_openai()) == message


@given(openai_messages())
def test_a_session_sends_what_came_in(wire: dict[str, Any]) -> None:
    """On the older models, whose wire is the plain format: all content and every field, in the dialect's own shape."""
    sent = wire_of(Message.from_openai(wire))
    assert sent.keys() == wire.keys()
    for key in wire.keys() - {"role", "content"}:
        assert sent[key] == wire[key]
    content, own = wire.get("content"), sent.get("content")
    assert content in (own, [{"type": "text", "text": own}])


PARTS = st.one_of(
    st.builds(Text, TEXT),
    st.builds(Image, TEXT, st.none() | TEXT),
    st.builds(File, st.none() | TEXT, st.none() | TEXT, st.none() | TEXT),
    st.builds(Reasoning, TEXT),
    st.builds(ToolCall, TEXT, TEXT, ARGUMENTS),
    st.builds(ToolResult, TEXT, TEXT, st.booleans()),
    st.builds(ToolResult, TEXT, st.lists(st.builds(Text, TEXT) | st.builds(Image, TEXT), max_size=2).map(tuple)),
    st.builds(lambda value, slot: Opaque.of("openai", value, slot), UNKNOWN, st.sampled_from(["content", "field:own", "odd"])),
    st.builds(lambda value: Opaque.of("anthropic", value), UNKNOWN),
)  # fmt: skip
MESSAGES = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.lists(PARTS, max_size=3),
    st.none() | TEXT,
)


@given(MESSAGES)
def test_a_message_comes_back_equal_or_is_refused(message: Message) -> None:
    try:
        wire = message.to_openai()
    except LossyError:
        return
    assert Message.from_openai(wire) == message
    assert json.loads(json.dumps(wire)) == wire


REFUSED: list[tuple[Any, type[MessageError]]] = [
    ("hi", MessageError),
    (None, MessageError),
    ({}, MessageError),
    ({"role": "alien", "content": "x"}, MessageError),
    ({"role": ["user"], "content": "x"}, MessageError),
    ({"role": "user", "content": 3}, MessageError),
    ({"role": "user", "content": ["bare"]}, MessageError),
    ({"role": "user", "content": [3]}, MessageError),
    ({"role": "user", "content": "x", "name": 3}, MessageError),
    ({"role": "user", "content": "x", 3: 4}, MessageError),
    ({"role": "user", "content": "x", "tool_call_id": "c"}, PairingError),
    ({"role": "tool", "content": "x"}, PairingError),
    ({"role": "tool", "content": "x", "tool_call_id": 3}, PairingError),
    ({"role": "tool", "content": "x", "tool_call_id": "c", "tool_calls": [{"id": "d"}]}, PairingError),
    ({"role": "assistant", "content": "x", "tool_calls": 0}, MessageError),
    ({"role": "assistant", "content": "x", "tool_calls": "abc"}, MessageError),
    ({"role": "assistant", "content": "x", "tool_calls": [{"type": "function", 3: 4}]}, MessageError),
]


@pytest.mark.parametrize(("wire", "error"), REFUSED)
def test_what_is_no_message_is_refused(wire: Any, error: type[MessageError]) -> None:
    with pytest.raises(error):
        Message.from_openai(wire)
