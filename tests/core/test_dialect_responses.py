"""The openai-responses dialect: items on the wire, what is read off it, and what comes back as it was."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response
from tests.any_json import JSON, TEXT
from tests.loopback import FORMATS, Format, Said, loopback
from tests.responses_wire import call_item, message_item, responses_raw, responses_whole
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
    get_dialect,
)
from llmbuffer.dialects.openai_items import NAME, to_items
from llmbuffer.dialects.openai_output import from_items, from_output, to_input
from llmbuffer.dialects.openai_responses import OpenAIResponses
from llmbuffer.dialects.responses_stream import ResponseAccumulator
from llmbuffer.errors import DialectError
from llmbuffer.frozen import FrozenDict, FrozenList
from llmbuffer.rules import CacheRules, Diagnosis, Draft

OLD, NEW = OpenAIResponses().bind("gpt-5.5"), OpenAIResponses().bind("gpt-5.6")
MARK = "prompt_cache_breakpoint"
PNG = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,AA=="


def own(value: Any, slot: str = "item") -> Opaque:
    return Opaque.of(NAME, value, slot)


def said_text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def said_message(*texts: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [said_text(text) for text in texts]}


# Rendering


SHELL = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c1", "name": "sh", "input": "ls"}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA=="}
WIRES: list[tuple[Message, list[dict[str, Any]]]] = [
    (Message("user", "hi"), [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]),
    (Message("system", "be"), [{"role": "system", "content": [{"type": "input_text", "text": "be"}]}]),
    (Message("assistant", "ho"), [said_message("ho")]),
    (
        Message("user", [Text("see"), Image(PNG, "low"), Image("https://example.com/a.png")]),
        [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "see"},
                    {"type": "input_image", "image_url": PNG, "detail": "low"},
                    {"type": "input_image", "image_url": "https://example.com/a.png"},
                ],
            }
        ],
    ),
    (
        Message("user", [File(PDF, name="a.pdf"), File(id="file-1"), File("https://example.com/b.pdf")]),
        [
            {
                "role": "user",
                "content": [
                    {"type": "input_file", "file_data": PDF, "filename": "a.pdf"},
                    {"type": "input_file", "file_id": "file-1"},
                    {"type": "input_file", "file_url": "https://example.com/b.pdf"},
                ],
            }
        ],
    ),
    (
        Message("user", [own({"type": "input_image", "file_id": "file-2", "detail": "auto"}, "content")]),
        [{"role": "user", "content": [{"type": "input_image", "file_id": "file-2", "detail": "auto"}]}],
    ),
    (
        Message("assistant", [Text("let me see"), ToolCall("c1", "f", '{"a": 1e2}'), Text("now")]),
        [
            said_message("let me see"),
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1e2}'},
            said_message("now"),
        ],
    ),
    (
        Message("assistant", [ToolCall("c1", "f", "", own({"namespace": "n"}, "tool_call"))]),
        [{"type": "function_call", "call_id": "c1", "name": "f", "arguments": "", "namespace": "n"}],
    ),
    (Message("assistant", [own(REASONING), Text("yes")]), [REASONING, said_message("yes")]),
    (
        Message("assistant", [Opaque.of("openai", "I cannot", "field:refusal")]),
        [
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "refusal", "refusal": "I cannot"}],
            }
        ],
    ),
    (
        Message("assistant", [own({"id": "custom_tool_call:c1", "type": "custom_tool_call", "custom_tool_call": SHELL}, "tool_calls")]),
        [SHELL],
    ),
    (
        Message("tool", [ToolResult("c1", "42")]),
        [{"type": "function_call_output", "call_id": "c1", "output": "42"}],
    ),
    (
        Message("tool", [ToolResult("c1", (Text("a"), Image(PNG))), ToolResult("c2", "b")]),
        [
            {
                "type": "function_call_output",
                "call_id": "c1",
                "output": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": PNG}],
            },
            {"type": "function_call_output", "call_id": "c2", "output": "b"},
        ],
    ),
    (
        Message("tool", [ToolResult("custom_tool_call:c1", "files")]),
        [{"type": "custom_tool_call_output", "call_id": "c1", "output": "files"}],
    ),
    (
        Message(
            "tool",
            [
                ToolResult(
                    "computer_call:c1",
                    (own({"type": "computer_call_output", "call_id": "c1", "output": {"file_id": "f"}}),),
                )
            ],
        ),
        [{"type": "computer_call_output", "call_id": "c1", "output": {"file_id": "f"}}],
    ),
    (
        Message("developer", [own({"type": "mcp_approval_response", "approval_request_id": "m", "approve": True})]),
        [{"type": "mcp_approval_response", "approval_request_id": "m", "approve": True}],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("message", "wire"), WIRES, ids=[repr(message) for message, _ in WIRES])
def test_a_message_as_it_is_sent(message: Message, wire: list[dict[str, Any]]) -> None:
    rendered = OLD.render_message(message, None)
    assert json.dumps(rendered.blocks) == json.dumps(wire)
    assert rendered.mark_at == -1
    if message.role not in ("system", "developer"):
        assert NEW.render_message(message, None).blocks == rendered.blocks


@pytest.mark.parametrize(("message", "wire"), WIRES, ids=[repr(message) for message, _ in WIRES])
def test_a_message_comes_back_from_its_items(message: Message, wire: list[dict[str, Any]]) -> None:
    items = to_items(message)
    if message.role != "developer":  # an item alone does not tell who gave it
        assert from_items(json.loads(json.dumps(items))) == message
        assert to_input(message) == list(items)


def test_instructions_have_the_role_that_the_model_knows() -> None:
    for role in ("system", "developer"):
        (old,) = OLD.render_message(Message(role, "be kind"), None).blocks
        (new,) = NEW.render_message(Message(role, "be kind"), None).blocks
        assert (old["role"], new["role"]) == ("system", "developer")


OWN_ANSWERS: list[tuple[ToolResult, dict[str, Any]]] = [
    (
        ToolResult("local_shell_call:c", "out"),
        {"type": "local_shell_call_output", "id": "c", "output": "out"},
    ),
    (
        ToolResult("apply_patch_call:c", "no such file", is_error=True),
        {"type": "apply_patch_call_output", "call_id": "c", "status": "failed", "output": "no such file"},
    ),
    (
        ToolResult("shell_call:c", "out"),
        {
            "type": "shell_call_output",
            "call_id": "c",
            "output": [{"stdout": "out", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
        },
    ),
    (
        ToolResult("computer_call:c", (Image(PNG),)),
        {
            "type": "computer_call_output",
            "call_id": "c",
            "output": {"type": "computer_screenshot", "image_url": PNG},
        },
    ),
]


@pytest.mark.parametrize(("result", "wire"), OWN_ANSWERS)
def test_calls_of_openais_own_kinds_are_answered_in_their_own_way(
    result: ToolResult, wire: dict[str, Any]
) -> None:
    assert to_items(Message("tool", [result])) == (wire,)


CHAT_PARTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"type": "text", "text": "a", MARK: {"mode": "explicit"}},
        {"type": "input_text", "text": "a", MARK: {"mode": "explicit"}},
    ),
    (
        {"type": "image_url", "image_url": {"url": PNG, "detail": None}, MARK: {"mode": "explicit"}},
        {"type": "input_image", "image_url": PNG, "detail": None, MARK: {"mode": "explicit"}},
    ),
    (
        {"type": "file", "file": {"file_id": "f"}, MARK: {"mode": "explicit"}},
        {"type": "input_file", "file_id": "f", MARK: {"mode": "explicit"}},
    ),
    ({"type": "input_text", "text": "a"}, {"type": "input_text", "text": "a"}),
]


@pytest.mark.parametrize(("part", "wire"), CHAT_PARTS)
def test_parts_in_the_shape_of_chat_are_translated(part: dict[str, Any], wire: dict[str, Any]) -> None:
    (item,) = to_items(Message.of({"role": "user", "content": [part]}))
    assert item["content"] == [wire]


def test_fields_of_chat_that_say_nothing_are_left_out() -> None:
    message = Message.from_openai({"role": "assistant", "content": "hi", "refusal": None, "annotations": []})
    assert to_items(message) == (said_message("hi"),)


def test_a_message_without_parts_is_not_sent() -> None:
    session = Session(StableContext("gpt-5.5"), "openai-responses")
    session.append([Message("user", "a"), Message("assistant", []), Message("user", "b")])
    assert [item["role"] for item in session.request("c").body["input"]] == ["user", "user", "user"]
    with pytest.raises(MessageError, match="empty"):
        session.request(Message("user", []))


LOSSY = {
    "another provider's part": Message("user", [Opaque.of("anthropic", {"type": "thinking"})]),
    "another provider's extra": Message(
        "assistant", [ToolCall("c", "f", "", Opaque.of("anthropic", {}, "tool_call"))]
    ),
    "a field of chat": Message("assistant", [Text("x"), Opaque.of("openai", {"id": "a"}, "field:audio")]),
    "a part of chat that has no counterpart": Message(
        "user", [Opaque.of("openai", {"type": "input_audio", "input_audio": {}})]
    ),
    "a call of chat": Message(
        "assistant", [Opaque.of("openai", {"id": "c", "type": "custom"}, "tool_calls")]
    ),
    "a name": Message("user", "hi", name="Ann"),
    "unsigned reasoning": Message("assistant", [Reasoning("hm"), Text("yes")]),
    "an image of the assistant": Message("assistant", [Image(PNG)]),
    "an empty file": Message("user", [File(name="a.pdf")]),
    "text beside a result": Message("tool", [ToolResult("c", "x"), Text("y")]),
    "a call with the id of another kind": Message("assistant", [ToolCall("shell_call:c", "f", "")]),
    "an answer without an item": Message("tool", [ToolResult("tool_search_call:c", "x")]),
    "a picture for a shell": Message("tool", [ToolResult("shell_call:c", (Image(PNG),))]),
    "a slot that the wire does not have": Message("user", [own({}, "elsewhere")]),
    "a part that is no object": Message("user", [own("x", "content")]),
    "a call that holds no item": Message("assistant", [own({"id": "c", "type": "shell_call"}, "tool_calls")]),
    "a message without its text": Message(
        "assistant", [own({**said_message(), "content": [{**said_text(""), "text": None}]}, "message")]
    ),
}


@pytest.mark.parametrize("what", LOSSY)
def test_what_has_no_place_is_refused(what: str) -> None:
    for dialect in (OLD, NEW):
        with pytest.raises(LossyError):
            dialect.render_message(LOSSY[what], None)
    with pytest.raises(LossyError):
        to_input(LOSSY[what])


@pytest.mark.parametrize(
    "message",
    [
        Message("tool", [ToolResult("c1", "out of ink", is_error=True)]),
        Message("tool", [ToolResult("c1", "x")], name="f"),
        Message("user", []),
        Message("tool", [ToolResult("shell_call:c", "out")]),
    ],
)
def test_what_would_not_come_back_equal_is_refused_by_the_strict_way(message: Message) -> None:
    to_items(message)
    with pytest.raises(LossyError, match="not come back equal"):
        to_input(message)


def test_dynamic_text_needs_words_of_the_user_to_stand_behind() -> None:
    item = own({"type": "item_reference", "id": "x"})
    assert len(OLD.render_message(Message("user", [item, Text("hi")]), None).blocks) == 2
    with pytest.raises(LossyError, match="'item_reference': put the user's words last"):
        OLD.render_message(Message("user", [Text("hi"), item]), None)


TOOLS: list[tuple[Any, dict[str, Any]]] = [
    (
        {"name": "f", "description": "F.", "parameters": {"type": "object", "a": 1}, "strict": True},
        {
            "type": "function",
            "name": "f",
            "description": "F.",
            "parameters": {"type": "object", "a": 1},
            "strict": True,
        },
    ),
    ({"type": "function", "function": {"name": "f"}}, {"type": "function", "name": "f", "strict": False}),
    ({"name": "f", "input_schema": {}}, {"type": "function", "name": "f", "parameters": {}, "strict": False}),
    (
        {"type": "function", "name": "f", "strict": None, "defer_loading": True},
        {"type": "function", "name": "f", "strict": None, "defer_loading": True},
    ),
    ({"type": "web_search"}, {"type": "web_search"}),
    (
        {"type": "custom", "custom": {"name": "sh", "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "x"}}}},
        {"type": "custom", "name": "sh", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
    ),
    ({"type": "custom", "name": "sh"}, {"type": "custom", "name": "sh"}),
]  # fmt: skip


@pytest.mark.parametrize(("tool", "wire"), TOOLS)
def test_a_tool_as_it_is_sent(tool: Any, wire: dict[str, Any]) -> None:
    assert json.dumps(OLD.render_tool(Tool.of(tool))) == json.dumps(wire)


def test_system_text_leads_the_input() -> None:
    texts = [Segment("a", "one", level="global"), Segment("b", " "), Segment("c", "two")]
    old = Session(StableContext("gpt-5.5", texts), "openai-responses").request("hi").body["input"][0]
    new = Session(StableContext("gpt-5.6", texts), "openai-responses").request("hi").body["input"][0]
    assert old == {"role": "system", "content": [{"type": "input_text", "text": "one\n\ntwo"}]}
    assert new == {
        "role": "developer",
        "content": [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}],
    }


# Marks, routing, options


def marks_of(body: Any) -> int:
    return json.dumps(body).count(f'"{MARK}"')


def long_session(model: str, **options: Any) -> Session:
    levels: list[Literal["global", "tenant", "user"]] = ["global", "tenant", "user"]
    system = [Segment(level, f"{level} rule. " * 700, level=level) for level in levels]
    session = Session(StableContext(model, system, tools=[{"name": "f"}]), "openai-responses", **options)
    for number in range(4):
        session.append([Message("user", f"question {number} " * 300), Message("assistant", "a")])
    return session


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-35-turbo", "gpt-5", "gpt-5.5", "o3", "my-model"])
def test_models_that_do_not_know_marks_never_get_any(model: str) -> None:
    session = long_session(model)
    body = session.request("hi", dynamic={"clock": "12:00"}).body
    assert marks_of(body) == 0
    assert "prompt_cache_options" not in body
    assert ("prompt_cache_key" in body) == (model not in ("gpt-35-turbo", "my-model"))
    assert session.dialect.prewarm(body) is None
    assert session.dialect.read_id({"id": "resp_1"}) is None
    draft = Draft(
        model=model,
        tools=FrozenList(),
        system=FrozenList(),
        messages=FrozenList(),
        params={},
        diagnostics=True,
        compare_with="resp_1",
    )
    assert session.dialect.assemble(draft).keys() == {"model", "input"}


@pytest.mark.parametrize("model", ["gpt-5.6", "gpt-5.6-sol", "gpt-6", "gpt-6.1-mini"])
@pytest.mark.parametrize("dynamic", [{}, {"clock": "12:00"}])
def test_marks_stand_on_input_parts_and_never_exceed_the_slots(model: str, dynamic: dict[str, str]) -> None:
    session = long_session(model)
    session.append(
        [
            Message("user", [Text("see " * 900), Image(PNG)]),
            Message("assistant", [Text("hm"), ToolCall("c", "f", "{}")]),
            Message("tool", [ToolResult("c", (Text("42"),))]),
            Message("assistant", "seen"),
        ]
    )
    for each in (session, session.fork(task="go on"), session.fork().fork()):
        body = each.request("hi" if each is session else None, dynamic=dynamic).body
        explicit = body.get("prompt_cache_options") == {"mode": "explicit"}
        assert 1 <= marks_of(body) <= 3 + explicit
        marked = [
            (item["role"], part["type"])
            for item in body["input"]
            for part in item.get("content", ())
            if MARK in part
        ]
        assert len(marked) == marks_of(body)
        assert {kind for _, kind in marked} <= {"input_text", "input_image", "input_file"}
        assert {role for role, _ in marked} <= {"user", "developer"}


@pytest.mark.parametrize(
    ("message", "at"),
    [
        (Message("user", "hi"), 0),
        (Message("user", [Text("a"), Image(PNG)]), 1),
        (Message("user", [Text("a"), own({"type": "strange"}, "content")]), 0),
        (Message("developer", "hi"), 0),
        (Message("assistant", "hi"), -1),
        (Message("assistant", [Text("hi"), ToolCall("c", "f", "")]), -1),
        (Message("assistant", [own(REASONING)]), -1),
        (Message("tool", [ToolResult("c", (Text("x"),))]), -1),
    ],
)
def test_where_a_message_may_be_marked(message: Message, at: int) -> None:
    assert NEW.render_message(message, None).mark_at == at


def test_long_lifetimes_are_twelve_hours() -> None:
    part = FrozenDict(type="input_text", text="x")
    assert NEW.rules.ttl_long == 12 * 3600
    assert NEW.mark_part(part, long=True)[MARK] == {"mode": "explicit", "ttl": "12h"}
    assert NEW.mark_part(part, long=False)[MARK] == {"mode": "explicit"}
    mine = FrozenDict(part, **{MARK: {"mode": "explicit", "ttl": "30m"}})
    assert NEW.mark_part(mine, long=True) == mine


def test_options_of_the_users_own_are_merged() -> None:
    session = long_session("gpt-5.6")
    session.update(params={"prompt_cache_options": {"ttl": "12h"}})
    body = session.request("hi").body
    assert body["prompt_cache_options"] == {"mode": "explicit", "ttl": "12h"}
    warm = session.dialect.prewarm(body)
    assert warm is not None
    assert warm["prompt_cache_options"] == {"mode": "explicit", "ttl": "12h", "prewarm": True}
    assert {**warm, "prompt_cache_options": None} == {**body, "prompt_cache_options": None}


@pytest.mark.parametrize("compare_with", [None, "resp_1"])
@pytest.mark.parametrize("diagnostics", [False, True])
@pytest.mark.parametrize("implicit", [False, True])
def test_diagnostics_are_asked_for(compare_with: str | None, diagnostics: bool, implicit: bool) -> None:
    draft = Draft(
        model="gpt-5.6",
        tools=FrozenList(),
        system=FrozenList(),
        messages=FrozenList(),
        params={},
        implicit=implicit,
        diagnostics=diagnostics,
        compare_with=compare_with,
    )
    options = NEW.assemble(draft).get("prompt_cache_options", {})
    assert options.get("comparison_response_id") == (compare_with if diagnostics else None)
    assert options.get("mode") == (None if implicit else "explicit")


DIAGNOSES: list[tuple[Any, Diagnosis | None]] = [
    (None, None),
    ({"type": "cache_hit"}, None),
    ({"type": "comparison_response_not_found"}, None),
    ({"type": "unavailable"}, None),
    (
        {"type": "cache_miss", "reason": "tools_changed", "cache_missed_tokens": 1200},
        Diagnosis("tools_changed", "tool-schema-changed", 1200),
    ),
    (
        {"type": "cache_miss", "reason": "verbosity_changed", "cache_missed_tokens": 0},
        Diagnosis("verbosity_changed", "params-changed", 0),
    ),
    ({"type": "cache_miss", "reason": "input_changed"}, Diagnosis("input_changed", "history-edited")),
    ({"type": "cache_miss", "reason": "moon_phase"}, Diagnosis("moon_phase")),
]


@pytest.mark.parametrize(("reported", "diagnosis"), DIAGNOSES)
def test_the_providers_diagnosis_is_read(reported: Any, diagnosis: Diagnosis | None) -> None:
    whole = {**responses_whole(Said("hi")), "prompt_cache_diagnostics": reported}
    assert NEW.read_diagnosis(whole) == diagnosis
    assert NEW.read_diagnosis(Response.construct(**whole)) == diagnosis
    assert NEW.read_id(whole) == "resp_1"


def test_every_reason_that_the_sdk_knows_stands_for_a_cause() -> None:
    from typing import get_args

    from openai.types.responses import response

    Miss: Any = getattr(response, "PromptCacheDiagnosticsCacheMiss", None)  # noqa: N806 - a class
    if Miss is None:
        pytest.skip("this openai knows no cache diagnostics yet: version 3 does")
    for reason in get_args(Miss.model_fields["reason"].annotation):
        found = NEW.read_diagnosis({"prompt_cache_diagnostics": {"type": "cache_miss", "reason": reason}})
        assert found is not None
        assert found.cause is not None


def test_routing_keys_are_never_longer_than_the_api_takes() -> None:
    keys = {
        key: Session(StableContext("gpt-5.5"), "openai-responses", routing_key=key)
        .request("hi")
        .body["prompt_cache_key"]
        for key in ("short", "x" * 64, "x" * 65, "x" * 66)
    }
    assert keys["short"] == "short"
    assert max(map(len, keys.values())) <= 64
    assert len(set(keys.values())) == 4


def test_what_is_frozen_has_the_names_of_this_api() -> None:
    assert {"reasoning", "text", "service_tier", "instructions"} <= NEW.rules.frozen_params
    assert "reasoning_effort" not in NEW.rules.frozen_params
    assert "tool_choice" not in NEW.rules.frozen_params
    assert OpenAIResponses().bind("my-model").rules.routing_field is None


def test_an_endpoint_of_ones_own_has_rules_of_its_own() -> None:
    rules = CacheRules(name="mine", match="entries", slots=1, markable=frozenset({"input_text"}))
    dialect = OpenAIResponses(rules)
    assert dialect.bind("gpt-5.6") is dialect
    assert marks_of(Session(StableContext("gpt-5.6", "x " * 50), dialect).request("hi").body) == 1


def test_fields_that_the_sdk_lacks_go_into_extra_body() -> None:
    body = {"model": "m", "input": [], "prompt_cache_options": {}, "id_slot": 1, "timeout": 3}
    kwargs = OLD.kwargs(body)
    assert kwargs.keys() == {"model", "input", "prompt_cache_options", "extra_body"}
    assert kwargs["extra_body"] == {"id_slot": 1, "timeout": 3}


def test_without_the_sdk_the_known_fields_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "openai")
    assert OLD.kwargs({"model": "m", "input": [], "id_slot": 1}) == {
        "model": "m",
        "input": [],
        "extra_body": {"id_slot": 1},
    }


# Reading


USAGES: list[tuple[Any, Usage | None]] = [
    (None, None),
    ({}, None),
    ({"input_tokens": 10, "output_tokens": 2}, Usage(input_tokens=10, output_tokens=2)),
    (
        {
            "input_tokens": 100,
            "output_tokens": 2,
            "input_tokens_details": {
                "cached_tokens": 64,
                "cache_write_tokens": 30,
                "cache_write_tokens_details": {"ttl_30m_tokens": 10, "ttl_12h_tokens": 20},
            },
        },
        Usage(100, 2, 64, 30, 20),
    ),
    ({"input_tokens": 10, "output_tokens": None, "input_tokens_details": None}, Usage(input_tokens=10)),
    (
        {
            "input_tokens": 10,
            "input_tokens_details": {"cached_tokens": None, "cache_write_tokens_details": None},
        },
        Usage(input_tokens=10),
    ),
    (
        {
            "input_tokens": 100,
            "input_tokens_details": {
                "cached_tokens": 90,
                "cache_write_tokens": 90,
                "cache_write_tokens_details": {"ttl_12h_tokens": 90},
            },
        },
        Usage(100, 0, 90, 10, 10),
    ),
    ({"input_tokens": 10, "input_tokens_details": {"cached_tokens": 64}}, Usage(10, 0, 10)),
]


@pytest.mark.parametrize(("reported", "usage"), USAGES)
def test_usage_is_read(reported: Any, usage: Usage | None) -> None:
    whole = {**responses_whole(Said("hi")), "usage": reported}
    assert OLD.read_usage(whole) == usage
    assert OLD.read_usage(Response.construct(**whole)) == usage


@pytest.mark.parametrize(
    "response",
    [{"usage": 3}, {"usage": {"input_tokens": "3"}}, {"usage": {"input_tokens": 3, "input_tokens_details": 4}}, "text", None],
)  # fmt: skip
def test_usage_that_makes_no_sense_is_refused(response: Any) -> None:
    with pytest.raises(DialectError):
        OLD.read_usage(response)


def replied(*items: Any, **fields: Any) -> dict[str, Any]:
    return {**responses_whole(Said()), "output": list(items), **fields}


def test_a_reply_is_read_from_objects_and_from_dicts() -> None:
    said = Said("hm", calls=(("c1", "f", '{"b": 1, "a": 1e2, "é": "\\u00e9"}'),))
    message = Message("assistant", [Text("hm"), ToolCall("c1", "f", said.calls[0][2])])
    whole = responses_whole(said)
    parsed = Response.model_validate(whole)
    for response in (whole, parsed, parsed.model_dump(), parsed.to_dict()):
        assert OLD.read_message(response) == message


REPLIES: dict[str, list[dict[str, Any]]] = {
    "reasoning, words and a call": [
        {**REASONING, "status": "completed"},
        message_item("let me see"),
        call_item("c1", "f", "{}"),
    ],
    "a phase": [{**message_item("hm"), "phase": "commentary"}, {**message_item("yes", 2), "phase": "final_answer"}],
    "citations": [
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}},
        {
            **message_item("see there"),
            "content": [
                {
                    "type": "output_text",
                    "annotations": [{"type": "url_citation", "url": "https://example.com", "start_index": 0}],
                    "logprobs": [],
                    "text": "see there",
                }
            ],
        },
    ],
    "half a reply": [{**message_item("I was abo"), "status": "incomplete"}],
    "two messages": [
        {"type": "message", "role": "assistant", "content": [said_text("one")]},
        {"type": "message", "role": "assistant", "content": [said_text("two"), said_text("three")]},
    ],
    "a refusal": [{"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
    "a call in a namespace": [{**call_item("c1", "f", "{}"), "namespace": "n", "caller": {"type": "direct"}}],
    "calls of other kinds": [
        SHELL,
        {"type": "shell_call", "id": "sh_1", "call_id": "c2", "action": {"commands": ["ls"]}, "status": "completed"},
        {"type": "shell_call", "id": "sh_2", "call_id": "c3", "action": {"commands": ["ls"]}, "status": "completed"},
        {"type": "shell_call_output", "id": "sho", "call_id": "c3", "output": []},
        {"type": "tool_search_call", "id": "ts_1", "call_id": "c4", "execution": "client", "arguments": {}},
        {"type": "tool_search_call", "id": "ts_2", "call_id": "c5", "execution": "server", "arguments": {}},
    ],
    "what nobody knows yet": [{"type": "daydream", "id": "d_1", "content": [{"text": "sheep"}]}],
    "a message of no parts": [{"type": "message", "role": "assistant", "content": [3]}],
    "a message that is none": [{"type": "message", "role": "critic", "content": "hm"}, message_item("x")],
    "nothing": [],
}  # fmt: skip


def without_id(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: field for key, field in item.items() if key not in ("id", "status")}


@pytest.mark.parametrize("what", REPLIES)
def test_a_reply_goes_back_as_it_came(what: str) -> None:
    message = OLD.read_message(replied(*REPLIES[what]))
    sent = json.loads(json.dumps(to_items(message)))
    expected = [dict(item) for item in REPLIES[what]]
    if what in ("a call in a namespace", "a phase"):  # nothing refers to their ids
        expected = [without_id(item) for item in expected]
    assert sent == expected
    assert OLD.read_message(Response.construct(**replied(*REPLIES[what]))) == message
    again = OLD.read_message(replied(*sent))
    assert to_items(again) == to_items(message)


def test_words_with_citations_are_still_words() -> None:
    assert OLD.read_message(replied(*REPLIES["citations"])).text == "see there"
    assert OLD.read_message(replied(*REPLIES["a phase"])).text == "hmyes"


def test_calls_that_the_program_answers_are_open() -> None:
    message = OLD.read_message(replied(*REPLIES["calls of other kinds"], call_item("c9", "f", "{}")))
    assert message.call_ids == (
        "custom_tool_call:c1",
        "shell_call:c2",
        "tool_search_call:c4",
        "c9",
    )


def test_nothing_that_says_nothing_makes_two_replies_differ() -> None:
    one, two = message_item("hi", 1), {**message_item("hi", 2), "phase": None}
    assert OLD.read_message(replied(one)) == OLD.read_message(replied(two)) == Message("assistant", "hi")


def test_what_the_sdk_s_own_helpers_add_is_not_sent_back() -> None:
    schema = {
        "type": "object",
        "properties": {"q": {"type": "string"}},
        "required": ["q"],
        "additionalProperties": False,
    }
    said = Said("hm", calls=(("c1", "f", '{"q": "x"}'),))
    context = StableContext("gpt-5.5", tools=[{"name": "f", "parameters": schema, "strict": True}])
    kwargs = Session(context, "openai-responses").request("hi").kwargs
    with loopback([said, said]) as server, client_of("gpt-5.5", server) as client:
        parsed = client.responses.parse(**kwargs)
        with client.responses.stream(**kwargs) as events:
            streamed = events.get_final_response()
    for response in (parsed, streamed, parsed.model_dump(), streamed.to_dict()):
        assert OLD.read_message(response) == OLD.read_message(responses_whole(said))


@pytest.mark.parametrize(
    ("response", "words"),
    [
        ({}, "no output"),
        ({"output": None}, "NoneType"),
        ({"output": "hi"}, "str"),
        ({"output": [3]}, "list"),
        (replied(status="queued", background=True), "'queued': leave 'background' out"),
        (replied(status="cancelled"), "'cancelled'"),
        (replied(status="failed", error={"code": "server_error", "message": "Try again."}), "Try again"),
    ],
)
def test_what_is_no_reply_is_refused(response: Any, words: str) -> None:
    with pytest.raises(DialectError, match=words):
        OLD.read_message(response)


@pytest.mark.parametrize(
    ("item", "error"),
    [
        ({"type": "function_call", "name": "f", "arguments": ""}, MessageError),
        ({"type": "function_call", "call_id": "c", "arguments": ""}, MessageError),
        ({"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}, MessageError),
        (said_message("\ud800"), MessageError),
    ],
)
def test_a_reply_that_cannot_be_sent_back_is_refused(item: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        OLD.read_message(replied(item))


def test_items_that_are_no_message_are_refused() -> None:
    with pytest.raises(PairingError):
        from_items([{"type": "function_call_output", "output": "x"}])
    with pytest.raises(MessageError):
        from_items([{"type": "function_call_output", "call_id": "c", "output": ["x"]}])
    with pytest.raises(MessageError):
        from_items([{"role": "critic", "content": "x"}])


def test_an_incomplete_reply_is_a_reply() -> None:
    whole = replied(
        message_item("so fa"), status="incomplete", incomplete_details={"reason": "max_output_tokens"}
    )
    assert OLD.read_message(whole) == Message("assistant", "so fa")


# Streams


def joined(*events: Mapping[str, Any]) -> dict[str, Any]:
    whole = ResponseAccumulator()
    for event in events:
        list(whole.add(event))
    return whole.response()


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
    said = Said(text, numbered, usage)
    whole = ResponseAccumulator()
    texts = [event.text for each in responses_raw(said) for event in whole.add(each)]
    assert "".join(texts) == (text or "")
    assert whole.response() == responses_whole(said)


def test_items_that_the_last_event_leaves_out_were_sent_before() -> None:
    said = Said("hm", calls=(("c1", "f", "{}"),))
    events = list(responses_raw(said))
    bare = {"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "output": []}}
    for indexed in (True, False):
        dropped = () if indexed else ("output_index",)
        done = [{key: field for key, field in each.items() if key not in dropped} for each in events[:-1]]
        assert OLD.read_message(joined(*done, bare)) == OLD.read_message(responses_whole(said))
    late = [each for each in events[:-1] if each["type"] == "response.output_item.done"]
    assert joined(*reversed(late), bare)["output"] == responses_whole(said)["output"]


def test_an_incomplete_stream_is_whole_and_a_failed_one_is_not() -> None:
    partly = replied(message_item("so fa"), status="incomplete")
    assert joined({"type": "response.incomplete", "response": partly}) == partly
    error = {"code": "server_error", "message": "Try again."}
    with pytest.raises(DialectError, match=r"'server_error'.*Try again"):
        joined({"type": "response.failed", "response": {"status": "failed", "error": error}})
    with pytest.raises(DialectError, match="Try again"):
        joined({"type": "error", **error})


def test_half_a_stream_is_refused() -> None:
    said = Said("hello", truncated=True)
    with pytest.raises(DialectError, match=r"response\.completed"):
        joined(*responses_raw(said))
    with loopback([said, Said("hello")]) as server, client_of("gpt-5.5", server) as client:
        session = Session(StableContext("gpt-5.5"), "openai-responses", client=client)
        with pytest.raises(DialectError, match="ended before the reply did"):
            list(session.stream("hi"))
        assert session.messages == ()
        assert [event.text for event in session.stream("hi")][:2] == ["hel", "lo"]


# Sessions, with the real SDK


CALLS = [
    Said("Let me look.", calls=(("c1", "search", '{"query": "teapots é"}'), ("c2", "read", "{}"))),
    Said(calls=(("c3", "search", '{"query": "cups"}'),)),
    Said("A teapot."),
    Said("Another."),
]
EXECUTORS: dict[str, Callable[..., Any]] = {"search": lambda query: {"hits": [query]}, "read": lambda: [Text("a"), Text("b")]}  # fmt: skip


def talking(model: str, client: Any) -> Session:
    tools = [{"name": name, "parameters": {"type": "object", "properties": {}}} for name in EXECUTORS]
    context = StableContext(model, "Answer kindly. " * 800, tools=tools, params={"store": False})
    return Session(context, "openai-responses", client=client)


def kinds_of(body: Any) -> list[str]:
    return [item.get("type", item.get("role")) for item in body["input"]]


def check_talk(bodies: list[dict[str, Any]], session: Session) -> None:
    assert [message.role for message in session.messages] == [
        *("user", "assistant", "tool", "tool", "assistant", "tool", "assistant"),
        *("user", "assistant"),
    ]
    assert kinds_of(bodies[2])[2:] == [
        *("message", "function_call", "function_call", "function_call_output", "function_call_output"),
        *("function_call", "function_call_output"),
    ]
    assert bodies[2]["input"][3]["arguments"] == '{"query": "teapots é"}'
    assert bodies[1]["input"][-1]["output"] == [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]  # fmt: skip
    for before, after in pairwise(bodies):
        bare, longer = without_marks(before), without_marks(after)
        assert longer["tools"] == bare["tools"]
        assert longer["input"][: len(bare["input"])] == bare["input"]
    assert all(body["store"] is False for body in bodies)


def without_marks(body: dict[str, Any]) -> Any:
    return json.loads(
        json.dumps(body), object_hook=lambda found: {k: v for k, v in found.items() if k != MARK}
    )


@pytest.mark.parametrize("model", ["gpt-5.5", "gpt-5.6"])
def test_a_conversation_with_tools(model: str) -> None:
    usages = []
    with loopback(CALLS) as server, client_of("gpt-5.5", server) as client:
        session = talking(model, client)
        for question in ("Which one?", "And?"):
            session.respond(question, tools=EXECUTORS, on_observe=lambda seen: usages.append(seen.usage))
        check_talk(server.requests, session)
    assert usages == [Usage(2400, 7, 2000, 300)] * 4
    assert set(server.paths) == {"/v1/responses"}


@pytest.mark.parametrize("model", ["gpt-5.5", "gpt-5.6"])
def test_a_conversation_with_tools_asynchronously(model: str) -> None:
    async def talk(client: Any) -> Session:
        async with client:
            session = talking(model, client)
            for question in ("Which one?", "And?"):
                await session.arespond(question, tools=EXECUTORS)
            return session

    with loopback(CALLS) as server, client_of("gpt-5.5", server, asynchronous=True) as client:
        session = asyncio.run(talk(client))
        check_talk(server.requests, session)


def test_a_conversation_with_tools_streamed() -> None:
    async def talk(client: Any) -> tuple[Session, list[Any]]:
        async with client:
            session = talking("gpt-5.6", client)
            return session, [
                event
                for question in ("Which one?", "And?")
                async for event in session.astream(question, tools=EXECUTORS)
            ]

    with loopback(CALLS) as server, client_of("gpt-5.5", server) as client:
        session = talking("gpt-5.6", client)
        events = [
            event
            for question in ("Which one?", "And?")
            for event in session.stream(question, tools=EXECUTORS)
        ]
        check_talk(server.requests, session)
    with loopback(CALLS) as server, client_of("gpt-5.5", server, asynchronous=True) as client:
        asession, aevents = asyncio.run(talk(client))
        check_talk(server.requests, asession)
    assert [event.kind for event in events] == [event.kind for event in aevents]
    assert "".join(event.text for event in events) == "Let me look.A teapot.Another."
    assert sum(event.kind == "tool_call" for event in events) == 3


def test_the_sdk_sends_what_the_session_made() -> None:
    with loopback([Said("hi")]) as server, client_of("gpt-5.5", server) as client:
        session = long_session("gpt-5.6", client=client)
        request = session.request(Message("user", [Text("see"), Image(PNG)]), dynamic={"clock": "12:00"})
        warm = session.dialect.prewarm(request.body)
        assert warm is not None
        client.responses.create(**session.dialect.kwargs(warm))
        assert server.requests == [json.loads(json.dumps(warm))]
        assert server.requests[0]["prompt_cache_options"]["prewarm"] is True


def test_dynamic_text_stands_behind_the_users_words_while_the_turn_lasts() -> None:
    with loopback(CALLS) as server, client_of("gpt-5.5", server) as client:
        session = talking("gpt-5.6", client)
        session.respond("Which one?", dynamic={"clock": "12:00"}, tools=EXECUTORS)
        session.respond("And?", dynamic={"clock": "12:01"}, tools=EXECUTORS)
        bodies = server.requests
    for number, body in enumerate(bodies):
        (holder,) = [item for item in body["input"] if "<context" in json.dumps(item)]
        words, clock = holder["content"]
        assert (holder["role"], words["text"]) == ("user", "Which one?" if number < 3 else "And?")
        assert clock == {
            "type": "input_text",
            "text": f'<context name="clock">\n12:0{number // 3}\n</context>',
        }


def test_dynamic_text_gets_a_message_of_its_own_where_no_user_spoke() -> None:
    session = Session(StableContext("gpt-5.5"), "openai-responses")
    session.append(Message("assistant", [own(REASONING), Text("Hello.")]))
    last = session.request(None, dynamic={"clock": "12:00"}).body["input"][-1]
    assert last == {
        "role": "user",
        "content": [{"type": "input_text", "text": '<context name="clock">\n12:00\n</context>'}],
    }


def test_a_custom_tool_is_run_and_answered_in_its_own_way() -> None:
    session = Session(StableContext("gpt-5.5", tools=[{"type": "custom", "name": "sh"}]), "openai-responses")
    script = iter([replied(REASONING, SHELL), replied(message_item("done"))])
    bodies: list[Any] = []

    class Responses:
        def create(self, **body: Any) -> Any:
            bodies.append(body)
            return next(script)

    class Client:
        responses = Responses()

    reply = session.respond("list", tools={"sh": lambda input: f"ran {input}"}, client=Client())  # noqa: A006 - the wire's name
    assert reply.text == "done"
    assert bodies[1]["input"][1:] == [
        REASONING,
        SHELL,
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "ran ls"},
    ]


def rich_events(said: Said) -> Iterator[str]:
    whole = rich_whole(said)
    for index, item in enumerate(whole["output"]):
        event = {"type": "response.output_item.done", "output_index": index, "item": item}
        yield f"data: {json.dumps(event)}\n\n"
    yield f"data: {json.dumps({'type': 'response.completed', 'response': {**whole, 'output': []}})}\n\n"


def rich_whole(said: Said) -> dict[str, Any]:
    """A reply of all that there is, if it calls something; else what was said."""
    return replied(*RICH) if said.calls else responses_whole(said)


RICH = [*REPLIES["reasoning, words and a call"], *REPLIES["citations"], *REPLIES["what nobody knows yet"]]


@pytest.mark.parametrize("streamed", [False, True])
def test_reasoning_and_server_tools_go_back_through_the_sdk(
    streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "/v1/responses", Format(rich_whole, rich_events))
    script = [Said(calls=(("c1", "f", "{}"),)), Said("done")]
    with loopback(script) as server, client_of("gpt-5.5", server) as client:
        context = StableContext("gpt-5.6", tools=[{"name": "f"}], params={"store": False})
        session = Session(context, "openai-responses", client=client)
        if streamed:
            texts = [event.value for event in session.stream("hi", tools={"f": lambda: "42"})]
            assert texts[-1].text == "done"
        else:
            assert session.respond("hi", tools={"f": lambda: "42"}).text == "done"
        answer = {"type": "function_call_output", "call_id": "c1", "output": "42"}
        assert server.requests[1]["input"][1:] == [*RICH, answer]


def test_a_call_that_text_cannot_answer_stays_open_and_says_how() -> None:
    search = {"type": "tool_search_call", "call_id": "c4", "execution": "client", "arguments": {"q": "x"}}
    found = {"type": "tool_search_output", "call_id": "c4", "execution": "client", "tools": []}
    session = Session(StableContext("gpt-5.5"), "openai-responses")
    session.request("hi").observe(replied(search))
    with pytest.raises(LossyError, match=r"'tool_search_output', …\}, 'item'"):
        session.append(Message("tool", [ToolResult("tool_search_call:c4", "none")]))
    with pytest.raises(PairingError):
        session.append(Message("user", "well?"))
    session.append(Message("tool", [ToolResult("tool_search_call:c4", (own(found),))]))
    assert session.request("well?").body["input"][1:3] == [search, found]


def test_a_clients_own_sdk_is_asked_for() -> None:
    with pytest.raises(DialectError, match="'responses'"):
        OLD.send(object(), {})
    assert get_dialect("openai-responses").name == "openai-responses"


# Any messages


PARTS = st.one_of(
    st.builds(Text, TEXT),
    st.builds(Image, TEXT, st.none() | TEXT),
    st.builds(File, st.none() | TEXT | st.just("https://e.org/a"), st.none() | TEXT, st.none() | TEXT),
    st.builds(Reasoning, TEXT),
    st.builds(ToolCall, TEXT, TEXT, TEXT),
    st.builds(ToolResult, TEXT | st.just("custom_tool_call:c"), TEXT, st.booleans()),
    st.builds(ToolResult, TEXT, st.lists(st.builds(Text, TEXT) | st.builds(Image, TEXT), max_size=2).map(tuple)),
    st.builds(lambda value, kind, slot: own({**value, "type": kind}, slot), st.dictionaries(TEXT, JSON, max_size=2), st.sampled_from(["reasoning", "strange", "output_text", "input_text"]), st.sampled_from(["content", "item", "message", "odd"])),
    st.builds(lambda value: Opaque.of("anthropic", value), st.dictionaries(TEXT, JSON, max_size=2)),
)  # fmt: skip
MESSAGES = st.builds(
    Message,
    st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
    st.lists(PARTS, max_size=3),
    st.none() | TEXT,
)


@given(MESSAGES)
def test_a_message_comes_back_equal_or_is_refused(message: Message) -> None:
    try:
        wire = to_input(message)
    except LossyError:
        return
    assert from_items(json.loads(json.dumps(wire))) == message


FIELDS = st.dictionaries(
    st.sampled_from(["id", "status", "phase", "x", "annotations", "logprobs"]), JSON, max_size=3
)
CONTENT = st.one_of(
    st.builds(lambda text, more: {"type": "output_text", "text": text, **more}, TEXT, FIELDS),
    st.builds(said_text, TEXT),
    st.builds(lambda kind, more: {"type": kind, **more}, st.sampled_from(["refusal", "output_text", "strange"]), FIELDS),
    st.builds(lambda text: {"type": "refusal", "refusal": text}, TEXT),
)  # fmt: skip
ITEMS = st.one_of(
    st.builds(lambda content, more: {"type": "message", **more, "role": "assistant", "content": content}, st.lists(CONTENT, max_size=3), FIELDS),
    st.builds(lambda content: {"type": "message", "role": "assistant", "content": content}, st.lists(CONTENT, max_size=3)),
    st.builds(lambda call_id, arguments, more: {"type": "function_call", **more, "call_id": call_id, "name": "f", "arguments": arguments}, TEXT, TEXT, FIELDS),
    st.builds(lambda kind, more: {"type": kind, **more}, st.sampled_from(["reasoning", "web_search_call", "mcp_call", "shell_call_output"]), FIELDS),
    st.builds(lambda kind, call_id, more: {"type": kind, "call_id": call_id, **more}, st.sampled_from(["custom_tool_call", "shell_call", "computer_call"]), TEXT, FIELDS),
)  # fmt: skip


@given(st.lists(ITEMS, max_size=4))
def test_any_reply_goes_back_with_all_that_it_said(output: list[dict[str, Any]]) -> None:
    """But for fields that are null, empty lists beside a text, and ids that nothing refers to; and it stays so."""
    sent = json.loads(json.dumps(to_items(Message("assistant", from_output(output)))))
    bound = not all(
        item["type"] in ("message", "function_call") and item.get("status") in (None, "completed")
        for item in output
    )
    assert [telling(item, bound) for item in sent] == [telling(item, bound) for item in output]
    assert to_items(Message("assistant", from_output(sent))) == tuple(sent)


def telling(item: dict[str, Any], bound: bool) -> dict[str, Any]:
    kept = {key: field for key, field in item.items() if field is not None}
    if not bound:
        kept = without_id(kept)
    if item["type"] == "message":
        kept["content"] = [telling_part(part) for part in item["content"]]
    return kept


def telling_part(part: dict[str, Any]) -> dict[str, Any]:
    return {
        key: field
        for key, field in part.items()
        if field is not None and not (key in ("annotations", "logprobs") and not field)
    }


SAYABLE = st.one_of(
    st.builds(lambda text: Message("user", text), TEXT),
    st.builds(lambda text: Message("user", [Text(text), Image(PNG)]), TEXT),
    st.builds(lambda text: Message("developer", text), TEXT),
    st.builds(lambda output: Message("assistant", from_output(output)), st.lists(ITEMS, max_size=3)).filter(
        lambda message: not message.call_ids
    ),
)


@given(st.lists(SAYABLE, min_size=1, max_size=6), st.sampled_from(["gpt-5.5", "gpt-5.6"]))
def test_what_was_sent_begins_what_is_sent_later(messages: list[Message], model: str) -> None:
    session = Session(StableContext(model, "Be kind."), "openai-responses")
    sent: list[bytes] = []
    for message in messages:
        session.append(message)
        body = without_marks(session.request(None).body)
        items = [json.dumps(item).encode() for item in body["input"]]
        assert items[: len(sent)] == sent
        sent = items
