"""The anthropic dialect: what goes onto the wire, what is read off it, and what comes back as it was."""

from __future__ import annotations

import json
from typing import Any, Literal

import anthropic.types as sdk
import pytest
from anthropic.types import RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from tests.any_json import ARGUMENTS, JSON, OBJECTS, TEXT
from tests.loopback import Said, anthropic_raw, anthropic_whole, loopback
from tests.scripted_session import client_of

from llmbuffer import (
    File,
    Image,
    LossyError,
    Message,
    Opaque,
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
from llmbuffer.dialects.anthropic import Anthropic
from llmbuffer.dialects.anthropic_blocks import from_message, to_blocks, to_message
from llmbuffer.dialects.anthropic_stream import MessageAccumulator
from llmbuffer.errors import DialectError

DIALECT = Anthropic().bind("claude-sonnet-5.5")
PLAIN = Anthropic().bind("claude-sonnet-4.5")  # takes no instructions between messages
PNG = "data:image/png;base64,iVBORw0KGgo="
THINKING = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}


# Rendering


BLOCKS: list[tuple[Any, dict[str, Any]]] = [
    (Text("hi"), {"type": "text", "text": "hi"}),
    (
        Image(PNG),
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
    ),
    (Image("https://a.b/c.png"), {"type": "image", "source": {"type": "url", "url": "https://a.b/c.png"}}),
    (
        File("data:application/pdf;base64,AA==", name="a.pdf"),
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="},
            "title": "a.pdf",
        },
    ),
    (File("https://a.b/c.pdf"), {"type": "document", "source": {"type": "url", "url": "https://a.b/c.pdf"}}),
    (File(id="file_1"), {"type": "document", "source": {"type": "file", "file_id": "file_1"}}),
    (
        ToolCall("c", "f", '{"b": 1, "a": 1.5}'),
        {"type": "tool_use", "id": "c", "name": "f", "input": {"b": 1, "a": 1.5}},
    ),
    (
        ToolCall("c", "f", "{}", Opaque.of("anthropic", {"caller": {"type": "direct"}}, "tool_call")),
        {"type": "tool_use", "id": "c", "name": "f", "input": {}, "caller": {"type": "direct"}},
    ),
    (ToolResult("c", "42"), {"type": "tool_result", "tool_use_id": "c", "content": "42"}),
    (
        ToolResult(
            "c", (Text("a"), Image("https://a.b/c.png"), Opaque.of("anthropic", {"type": "search_result"}))
        ),
        {
            "type": "tool_result",
            "tool_use_id": "c",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image", "source": {"type": "url", "url": "https://a.b/c.png"}},
                {"type": "search_result"},
            ],
        },
    ),
    (
        ToolResult("c", "no", is_error=True),
        {"type": "tool_result", "tool_use_id": "c", "content": "no", "is_error": True},
    ),
    (Opaque.of("anthropic", THINKING), THINKING),
]


@pytest.mark.parametrize(("part", "block"), BLOCKS, ids=[repr(part)[:40] for part, _ in BLOCKS])
def test_a_part_as_it_is_sent_and_taken_back(part: Any, block: dict[str, Any]) -> None:
    message = Message("assistant" if isinstance(part, ToolCall | Opaque) else "user", [part, Text("then")])
    if isinstance(part, ToolResult):
        message = Message("tool", [part])
    sent = to_blocks(message)[0]
    assert json.dumps(sent) == json.dumps(block)
    assert from_message(to_message(message)) == message


def test_texts_that_say_nothing_are_left_out() -> None:
    assert to_blocks(Message("user", " \n")) == ()
    assert to_blocks(Message("user", [Text(""), Text("a")])) == ({"type": "text", "text": "a"},)
    empty: dict[str, Any] = {"refusal": None, "annotations": []}
    nothing = [Opaque.of("openai", value, f"field:{name}") for name, value in empty.items()]
    assert to_blocks(Message("assistant", [Text("a"), *nothing])) == ({"type": "text", "text": "a"},)
    assert to_blocks(Message("assistant", [ToolCall("c", "f", " ")]))[0]["input"] == {}


def test_results_stand_first_in_their_message() -> None:
    blocks = to_blocks(Message("user", [Text("and?"), ToolResult("c", "a"), ToolResult("d", "b")]))
    assert [block["type"] for block in blocks] == ["tool_result", "tool_result", "text"]


LOSSY = {
    "a name": Message("user", "hi", name="Ann"),
    "a name and parts": Message("user", [Text("a"), Text("b")], name="Ann"),
    "unsigned reasoning": Message("assistant", [Reasoning("hm")]),
    "another provider's part": Message("user", [Opaque.of("openai", {"type": "input_audio"})]),
    "another provider's field": Message("assistant", [Text("a"), Opaque.of("openai", "no", "field:refusal")]),
    "another provider's extra": Message(
        "assistant", [ToolCall("c", "f", "{}", Opaque.of("openai", {}, "tool_call"))]
    ),
    "a part that is no object": Message("user", [Opaque.of("anthropic", [1])]),
    "an image detail": Message("user", [Image(PNG, "high")]),
    "an image that is no address": Message("user", [Image("picture.png")]),
    "a data url that is not base64": Message("user", [Image("data:text/plain,hi")]),
    "a file without anything": Message("user", [File(name="a")]),
    "a file with two sources": Message("user", [File("https://a.b/c", "file_1")]),
    "a file that is bare base64": Message("user", [File("JVBERi0xLjQ=")]),
    "broken arguments": Message("assistant", [ToolCall("c", "f", '{"a": ')]),
    "arguments that are a list": Message("assistant", [ToolCall("c", "f", "[1]")]),
    "arguments with a key twice": Message("assistant", [ToolCall("c", "f", '{"a": 1, "a": 2}')]),
    "arguments that are not finite": Message("assistant", [ToolCall("c", "f", '{"a": 1e999}')]),
    "arguments with a lone surrogate": Message("assistant", [ToolCall("c", "f", '{"a": "\\ud800"}')]),
    "arguments that are too deep": Message("assistant", [ToolCall("c", "f", '{"a":' * 5000)]),
}


@pytest.mark.parametrize("what", LOSSY)
def test_what_has_no_place_is_refused(what: str) -> None:
    with pytest.raises(LossyError):
        DIALECT.render_message(LOSSY[what], "user")
    with pytest.raises(LossyError):
        to_message(LOSSY[what])


@pytest.mark.parametrize(
    "message",
    [
        Message("user", ""),
        Message("user", [Text(""), Text("a")]),
        Message("user", [Image(PNG, "auto")]),
        Message("user", [Text("a"), ToolResult("c", "b")]),
        Message("assistant", [ToolCall("c", "f", '{"a":1e2}')]),
        Message("assistant", [ToolCall("c", "f", "")]),
        Message("system", "be kind"),
    ],
)
def test_what_would_not_come_back_equal_is_refused_by_the_strict_way(message: Message) -> None:
    DIALECT.render_message(message, "user")
    with pytest.raises(LossyError):
        to_message(message)


def test_instructions_between_messages_go_where_the_model_takes_them() -> None:
    def roles(model: str) -> list[tuple[str, str]]:
        session = Session(StableContext(model, "be kind"), "anthropic")
        session.append([{"role": "user", "content": "hi"}, {"role": "system", "content": "be brief"}])
        body = session.request(None).body
        return [(message["role"], message["content"][-1]["text"]) for message in body["messages"]]

    assert roles("claude-sonnet-5.5") == [("user", "hi"), ("system", "be brief")]
    assert roles("claude-sonnet-4.5") == [("user", "<system>\nbe brief\n</system>")]
    after_reply = DIALECT.render_message(Message("developer", "be brief"), "assistant")
    assert after_reply.role == "user"
    assert after_reply.blocks[0]["text"] == "<system>\nbe brief\n</system>"
    with pytest.raises(LossyError, match="text only"):
        DIALECT.render_message(Message("system", [Image(PNG)]), "user")


def test_a_conversation_that_the_assistant_opens_gets_a_line_before_it() -> None:
    session = Session(StableContext("claude-sonnet-5.5"), "anthropic")
    session.append([Message("assistant", "Welcome!"), Message("user", "hi")])
    messages = session.request(None).body["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]


def test_consecutive_messages_of_a_role_share_one() -> None:
    session = Session(StableContext("claude-sonnet-5.5", tools=[{"name": "f"}]), "anthropic")
    session.append(
        [
            Message("user", "a"),
            Message("user", "b"),
            Message("assistant", [ToolCall("c", "f", "{}"), ToolCall("d", "f", "{}")]),
        ]
    )
    session.append(
        [
            Message("tool", [ToolResult("c", "1")]),
            Message("tool", [ToolResult("d", "2")]),
            Message("user", "go on"),
        ]
    )
    session.append([Message("assistant", ""), Message("user", "hello?")])
    messages = session.request("still there?").body["messages"]
    assert [(message["role"], [block["type"] for block in message["content"]]) for message in messages] == [
        ("user", ["text", "text"]),
        ("assistant", ["tool_use", "tool_use"]),
        ("user", ["tool_result", "tool_result", "text", "text", "text"]),
    ]


TOOLS: list[tuple[Any, dict[str, Any]]] = [
    (
        {"name": "f", "description": "F.", "parameters": {"type": "object", "a": 1}, "strict": True},
        {"name": "f", "description": "F.", "input_schema": {"type": "object", "a": 1}, "strict": True},
    ),
    ({"type": "function", "function": {"name": "f"}}, {"name": "f", "input_schema": {"type": "object"}}),
    (
        {"type": "custom", "name": "f", "input_schema": {"type": "object"}},
        {"name": "f", "input_schema": {"type": "object"}},
    ),
    (
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
    ),
]


@pytest.mark.parametrize(("tool", "wire"), TOOLS)
def test_a_tool_as_it_is_sent(tool: Any, wire: dict[str, Any]) -> None:
    assert json.dumps(DIALECT.render_tool(Tool.of(tool))) == json.dumps(wire)


def test_the_body_has_what_the_api_requires() -> None:
    system = [Segment("a", "one", level="global"), Segment("b", " \n"), Segment("c", "two")]
    session = Session(StableContext("claude-sonnet-5.5", system), "anthropic")
    body = session.request("hi").body
    assert body["max_tokens"] == 4096
    assert body["system"] == [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert session.request("hi", params={"max_tokens": 9}).body["max_tokens"] == 9
    assert "tools" not in body
    assert "prompt_cache_key" not in body


# Marks


def marks_of(body: Any) -> int:
    return json.dumps(body).count('"cache_control"')


def long_session(model: str, *, tools: Any = ({"name": "f"},), words: int = 700, **options: Any) -> Session:
    levels: list[Literal["global", "tenant", "user", "session"]] = ["global", "tenant", "user", "session"]
    system = [Segment(level, f"{level} rule. " * words, level=level) for level in levels]
    session = Session(StableContext(model, system, tools=tools), "anthropic", **options)
    for number in range(30):
        session.append(
            [{"role": "user", "content": f"question {number}?"}, {"role": "assistant", "content": "yes"}]
        )
    return session


@pytest.mark.parametrize(
    "model", ["claude-sonnet-5.5", "claude-opus-4.5", "claude-haiku-4-5-20251001", "claude-next"]
)
@pytest.mark.parametrize("dynamic", [{}, {"clock": "12:00"}])
def test_marks_never_exceed_four(model: str, dynamic: dict[str, str]) -> None:
    session = long_session(model)
    for each in (session, session.fork(task="go on"), session.fork().fork()):
        body = each.request("hi" if each is session else None, dynamic=dynamic).body
        assert 1 <= marks_of(body) <= 4
        for message in body["messages"]:
            assert "cache_control" not in message
            assert all(block["type"] == "text" for block in message["content"] if "cache_control" in block)


@pytest.mark.parametrize(
    ("model", "marked"), [("claude-sonnet-5.5", True), ("claude-sonnet-4.5", False), ("claude-next", False)]
)
def test_nothing_below_the_minimum_is_marked(model: str, marked: bool) -> None:
    session = Session(
        StableContext(model, "rule. " * 400), "anthropic"
    )  # some 800 tokens: minima are 512, 1,024, 4,096
    assert (marks_of(session.request("hi").body) > 0) is marked


def test_thinking_and_strange_blocks_are_never_marked() -> None:
    session = long_session("claude-sonnet-5.5")
    session.append([Message("user", "hi"), Message("assistant", [Opaque.of("anthropic", THINKING)])])
    session.append(Message("user", [Text("see"), Opaque.of("anthropic", {"type": "strange"})]))
    for message in session.request(None).body["messages"]:
        for block in message["content"]:
            assert "cache_control" not in block or block["type"] == "text"


OWN = {"type": "text", "text": "mine", "cache_control": {"type": "ephemeral", "ttl": "1h"}}


def test_marks_of_the_users_own_count_and_stay() -> None:
    session = long_session("claude-sonnet-5.5")
    for _ in range(2):
        session.append([Message("user", [Opaque.of("anthropic", OWN)]), Message("assistant", "ok")])
    body = session.request("hi", dynamic={"clock": "12:00"}).body
    assert 2 <= marks_of(body) <= 4
    assert sum(block == OWN for message in body["messages"] for block in message["content"]) == 2
    session.update(params={"cache_control": {"type": "ephemeral"}})
    assert marks_of(session.request("hi").body) <= 4


def test_marks_on_tools_count_and_stay() -> None:
    tools = [
        {"name": "f", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}},
        {
            "type": "web_search_20250305",
            "name": "web_search",
            "cache_control": {"type": "ephemeral", "ttl": "1h"},
        },
    ]
    body = long_session("claude-sonnet-5.5", tools=tools).request("hi", dynamic={"clock": "12:00"}).body
    assert [tool["cache_control"] for tool in body["tools"]] == [tool["cache_control"] for tool in tools]
    assert marks_of(body) <= 4


def test_long_entries_come_before_short_ones() -> None:
    system = [
        Segment("a", "one " * 900, level="global"),
        Segment("b", "two " * 900, level="tenant", ttl="long"),
    ]
    body = (
        Session(StableContext("claude-sonnet-5.5", system, tools=[{"name": "f"}]), "anthropic")
        .request("hi")
        .body
    )
    marks = [
        block["cache_control"].get("ttl")
        for block in [*body["tools"], *body["system"]]
        if "cache_control" in block
    ]
    assert marks
    assert marks == sorted(marks, key=lambda ttl: ttl != "1h")


# Reading


USAGES: list[tuple[Any, Usage | None]] = [
    (None, None),
    ({}, None),
    ({"input_tokens": 10, "output_tokens": 2}, Usage(input_tokens=10, output_tokens=2)),
    (
        {
            "input_tokens": 10,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 50,
            "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30},
            "output_tokens": 3,
        },
        Usage(
            input_tokens=160,
            output_tokens=3,
            cache_read_tokens=100,
            cache_write_tokens=50,
            cache_write_long_tokens=30,
        ),
    ),
    (
        {"input_tokens": 10, "cache_read_input_tokens": None, "cache_creation": None, "output_tokens": 3},
        Usage(input_tokens=10, output_tokens=3),
    ),
    (
        {
            "input_tokens": 1,
            "cache_creation_input_tokens": 5,
            "cache_creation": {"ephemeral_1h_input_tokens": 9},
        },
        Usage(input_tokens=6, cache_write_tokens=5, cache_write_long_tokens=5),
    ),
]


@pytest.mark.parametrize(("reported", "usage"), USAGES)
def test_usage_is_read(reported: Any, usage: Usage | None) -> None:
    assert DIALECT.read_usage({"content": [], "usage": reported}) == usage


@pytest.mark.parametrize(
    "response",
    [
        {"usage": 3},
        {"usage": {"input_tokens": "3"}},
        {"usage": {"cache_creation": 3, "input_tokens": 1}},
        "x",
        None,
    ],
)
def test_usage_that_makes_no_sense_is_refused(response: Any) -> None:
    with pytest.raises(DialectError):
        DIALECT.read_usage(response)


SERVER_BLOCKS: list[dict[str, Any]] = [
    THINKING,
    {"type": "redacted_thinking", "data": "c2VjcmV0"},
    {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "tea"}},
    {
        "type": "web_search_tool_result",
        "tool_use_id": "s1",
        "content": [{"type": "web_search_result", "title": "t", "url": "u", "encrypted_content": "e", "page_age": None}],
    },
    {
        "type": "text",
        "text": "cited",
        "citations": [
            {"type": "char_location", "cited_text": "c", "document_index": 0, "document_title": None, "start_char_index": 0, "end_char_index": 1}
        ],
    },
    {"type": "tool_use", "id": "c1", "name": "f", "input": {"b": 1, "a": [1.5, None]}, "caller": {"type": "direct"}},
    {"type": "from_the_future", "payload": {"é": [1, 2]}},
]  # fmt: skip


def test_blocks_without_a_neutral_part_come_back_as_they_came() -> None:
    whole = {**anthropic_whole(Said("hi")), "content": [*SERVER_BLOCKS, {"type": "text", "text": "hi"}]}
    for response in (
        whole,
        sdk.Message.construct(**whole),
        TypeAdapter(sdk.Message).validate_json(json.dumps({**whole, "content": whole["content"][:6]})),
    ):
        message = DIALECT.read_message(response)
        blocks = [json.loads(json.dumps(block)) for block in to_blocks(message)]
        assert blocks == whole["content"][: len(blocks)]
        assert [call.name for call in message.tool_calls] == ["f"]
        assert json.loads(message.tool_calls[0].arguments) == {"b": 1, "a": [1.5, None]}
        assert list(json.loads(message.tool_calls[0].arguments)) == ["b", "a"]


def test_what_the_sdk_s_own_helpers_return_is_read_alike() -> None:
    said = Said("hm", calls=(("c1", "f", '{"q": "x", "a": 1}'),))
    kwargs = (
        Session(StableContext("claude-sonnet-5.5", tools=[{"name": "f"}]), "anthropic").request("hi").kwargs
    )
    with loopback([said, said]) as server, client_of("claude-sonnet-5.5", server) as client:
        with client.messages.stream(**kwargs) as events:
            streamed = events.get_final_message()
        plain = client.messages.create(**kwargs)
    expected = DIALECT.read_message(anthropic_whole(said))
    for response in (streamed, plain, streamed.model_dump(), plain.model_dump(), plain.to_dict()):
        assert DIALECT.read_message(response) == expected
        assert DIALECT.read_usage(response) == DIALECT.read_usage(anthropic_whole(said))


@pytest.mark.parametrize("response", [{}, {"content": None}, {"content": 3}, {"content": [3]}, "x", None])
def test_what_is_no_reply_is_refused(response: Any) -> None:
    with pytest.raises(DialectError):
        DIALECT.read_message(response)


def test_an_empty_reply_is_a_reply() -> None:
    assert DIALECT.read_message({"content": []}).parts == ()
    assert DIALECT.read_message({"content": "hi"}) == Message("assistant", "hi")


@pytest.mark.parametrize(
    "block",
    [
        {"type": "text"},
        {"type": "tool_use", "input": {}},
        {"type": "tool_use", "id": "c", "name": "f", "input": "{}"},
        {"type": "image", "source": "x"},
        {"type": "image", "source": {"type": "url", "url": "data:image/png;base64,AA=="}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": 3}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}},
        {"type": "document", "source": {"type": "url", "url": "https://a.b"}, "title": None},
        {"type": "tool_result", "tool_use_id": "c", "content": "x", "cache_control": {"type": "ephemeral"}},
        {"no": "type"},
    ],
)
def test_blocks_of_an_unexpected_shape_stay_as_they_are(block: dict[str, Any]) -> None:
    message = from_message({"role": "user", "content": [block]})
    assert isinstance(message.parts[0], Opaque)
    assert to_message(message)["content"] == [block]


def test_a_result_without_content_is_a_result() -> None:
    message = from_message({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c"}]})
    assert message == Message("tool", [ToolResult("c", ())])


def test_roles_that_the_format_does_not_know_are_refused() -> None:
    with pytest.raises(DialectError, match="unknown role"):
        from_message({"role": "robot", "content": "hi"})


# Streams


EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def joined(*events: dict[str, Any]) -> dict[str, Any]:
    whole = MessageAccumulator()
    for event in events:
        list(whole.add(event))
    return whole.response()


@given(
    text=st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    inputs=st.lists(
        st.dictionaries(st.text("abé", max_size=3), st.integers() | st.floats(-9, 9) | st.text(max_size=3)),
        max_size=3,
    ),
)
def test_a_streamed_reply_is_the_whole_one(text: str | None, inputs: list[dict[str, Any]]) -> None:
    said = Said(text, tuple((f"c{index}", "f", json.dumps(each)) for index, each in enumerate(inputs)))
    raw = list(anthropic_raw(said))
    typed = [
        EVENTS.validate_python(event).model_dump(exclude_unset=True)
        for event in raw
        if event["type"] != "ping"
    ]
    for events in (raw, typed):
        response = joined(*events)
        assert DIALECT.read_message(response) == DIALECT.read_message(anthropic_whole(said))
        assert DIALECT.read_usage(response) == DIALECT.read_usage(anthropic_whole(said))


def test_usage_is_merged_from_every_event_and_counts_never_shrink() -> None:
    start = {
        "type": "message_start",
        "message": {
            "role": "assistant",
            "usage": {"input_tokens": 9, "cache_read_input_tokens": 5, "output_tokens": 1},
        },
    }
    first = {
        "type": "message_delta",
        "delta": {},
        "usage": {"output_tokens": 4, "cache_creation_input_tokens": 3},
    }
    last = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"input_tokens": 0, "cache_read_input_tokens": None, "output_tokens": 7},
    }
    assert DIALECT.read_usage(joined(start, first, last)) == Usage(
        input_tokens=17, output_tokens=7, cache_read_tokens=5, cache_write_tokens=3
    )


START = {"type": "message_start", "message": {"role": "assistant"}}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}


def block_of(start: dict[str, Any], *deltas: dict[str, Any]) -> dict[str, Any]:
    pieces = [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]
    (block,) = joined(
        START, {"type": "content_block_start", "index": 0, "content_block": start}, *pieces, END
    )["content"]
    return block  # type: ignore[no-any-return]  # one JSON object


def test_all_kinds_of_pieces_are_joined() -> None:
    thinking = block_of(
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "h"},
        {"type": "thinking_delta", "thinking": "m"},
        {"type": "signature_delta", "signature": "c2ln"},
    )
    assert thinking == THINKING
    cited = block_of(
        {"type": "text", "text": "", "citations": None},
        {"type": "text_delta", "text": "so"},
        {"type": "citations_delta", "citation": {"a": 1}},
        {"type": "citations_delta", "citation": {"b": 2}},
    )
    assert cited == {"type": "text", "text": "so", "citations": [{"a": 1}, {"b": 2}]}
    future = block_of(
        {"type": "compaction", "content": None},
        {"type": "compaction_delta", "content": "sum", "size": 1},
        {"type": "compaction_delta", "content": "mary", "size": 2},
    )
    assert future == {"type": "compaction", "content": "summary", "size": 2}


@pytest.mark.parametrize("text", ['{"a": ', "[1]", "3", '{"a": "\\ud800"}', '{"a": NaN}'])
def test_input_that_is_no_object_becomes_one_that_says_so(text: str) -> None:
    pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", text[:2], text[2:])]
    block = block_of({"type": "tool_use", "id": "c", "name": "f", "input": {}}, *pieces)
    assert block["input"] == {"INVALID_JSON": text}
    message = DIALECT.read_message({"content": [block]})
    assert to_blocks(message)[0]["input"] == {"INVALID_JSON": text}


def test_a_call_without_input_has_an_empty_one() -> None:
    start = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    assert block_of(start, {"type": "input_json_delta", "partial_json": ""})["input"] == {}


def test_half_a_stream_is_refused() -> None:
    with pytest.raises(DialectError, match="stop_reason"):
        joined(START)
    with pytest.raises(DialectError, match="never began"):
        joined(
            START, {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "x"}}
        )


# Round trips


URLS = (
    st.sampled_from(
        [PNG, "https://a.b/c", "data:text/plain,x", "data:;base64,", "data:a;base64;base64,AA,BB"]
    )
    | TEXT
)
CONTENT = st.one_of(
    st.builds(Text, TEXT),
    st.builds(Image, URLS, st.none() | TEXT),
    st.builds(File, st.none() | URLS, st.none() | TEXT, st.none() | TEXT),
    st.builds(
        lambda value: Opaque.of("anthropic", value),
        OBJECTS | st.builds(lambda more: {**more, "type": "x"}, OBJECTS),
    ),
)
PARTS = st.one_of(
    CONTENT,
    st.builds(Reasoning, TEXT),
    st.builds(ToolCall, TEXT, TEXT, ARGUMENTS),
    st.builds(
        ToolCall, TEXT, TEXT, ARGUMENTS, OBJECTS.map(lambda value: Opaque.of("anthropic", value, "tool_call"))
    ),
    st.builds(ToolResult, TEXT, TEXT, st.booleans()),
    st.builds(ToolResult, TEXT, st.lists(CONTENT, max_size=2).map(tuple)),
    st.builds(
        lambda value, slot: Opaque.of("openai", value, slot),
        JSON,
        st.sampled_from(["content", "field:refusal"]),
    ),
)
MESSAGES = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.lists(PARTS, max_size=3),
    st.none() | TEXT,
)


@given(MESSAGES)
def test_a_message_comes_back_equal_or_is_refused(message: Message) -> None:
    try:
        wire = to_message(message)
    except LossyError:
        return
    assert from_message(json.loads(json.dumps(wire))) == message


WIRE_BLOCKS = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, TEXT),
    st.builds(lambda text, more: {**more, "type": "text", "text": text}, TEXT, OBJECTS),
    st.builds(lambda source: {"type": "image", "source": source}, OBJECTS | st.builds(lambda url: {"type": "url", "url": url}, URLS)),
    st.builds(lambda kind, data: {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}, TEXT, TEXT),
    st.builds(lambda url, more: {**more, "type": "document", "source": {"type": "url", "url": url}}, URLS, OBJECTS),
    st.builds(lambda title: {"type": "document", "source": {"type": "file", "file_id": "f"}, "title": title}, JSON),
    st.builds(lambda call_id, value: {"type": "tool_use", "id": call_id, "name": "f", "input": value}, TEXT, OBJECTS | JSON),
    st.builds(lambda value, more: {**more, "type": "tool_use", "id": "c", "name": "f", "input": value}, OBJECTS, OBJECTS),
    st.builds(lambda content: {"type": "tool_result", "tool_use_id": "c", "content": content}, TEXT),
    st.builds(lambda more: {**more, "type": "tool_result"}, OBJECTS),
    st.builds(lambda kind, more: {**more, "type": kind}, TEXT, OBJECTS),
    OBJECTS,
)  # fmt: skip


@given(st.sampled_from(["user", "assistant"]), st.lists(WIRE_BLOCKS, max_size=3))
def test_what_came_in_goes_out_as_it_was(role: str, content: list[dict[str, Any]]) -> None:
    """All but texts that say nothing, which the API refuses, and the place of results, which it wants first."""
    blocks = [
        block for block in content if not (block.keys() == {"type", "text"} and not block["text"].strip())
    ]
    blocks = sorted(blocks, key=lambda block: block.get("type") != "tool_result")
    message = from_message({"role": role, "content": content})
    assert [json.loads(json.dumps(block)) for block in to_blocks(message)] == blocks
