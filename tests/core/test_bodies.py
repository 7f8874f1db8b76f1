"""Request bodies taken apart: what a provider renders, in its order, without breakpoints."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuffer.bodies import WIRES, Piece, Wire, pieces, read_prompt
from llmbuffer.errors import MessageError
from llmbuffer.plugins import get_dialect
from llmbuffer.rules import CacheRules
from llmbuffer.snapshot import IMAGE_TOKENS, Snapshot, relation

PIXEL = "data:image/png;base64,aGk="
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}

BODIES: dict[Wire, dict[str, Any]] = {
    "openai": {
        "model": "gpt-5.6",
        "tools": [TOOL],
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image_url", "image_url": {"url": PIXEL}},
                ],
            },
            {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None, "annotations": []},
            {"role": "tool", "tool_call_id": "c1", "content": "done"},
        ],
    },
    "openai-responses": {
        "model": "gpt-5.6",
        "tools": [{"type": "function", "name": "f", "parameters": {}}],
        "instructions": "Be kind.",
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Look"},
                    {"type": "input_image", "image_url": PIXEL},
                ],
            },
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'},
            {"type": "function_call_output", "call_id": "c1", "output": "done"},
        ],
    },
    "anthropic": {
        "model": "claude-sonnet-5.5",
        "max_tokens": 1,
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "system": "Be kind.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "done"}],
            },
        ],
    },
    "gemini": {
        "model": "gemini-2.5-pro",
        "tools": [{"functionDeclarations": [{"name": "f"}]}],
        "systemInstruction": {"parts": [{"text": "Be kind."}]},
        "contents": [
            {
                "role": "user",
                "parts": [{"text": "Look"}, {"inlineData": {"mimeType": "image/png", "data": "aGk="}}],
            },
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": 1}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"r": "done"}}}]},
        ],
    },
}
PATHS = {
    "openai": "tools[0] messages[0].content[0] messages[1].content[0] messages[1].content[1] messages[2].tool_calls[0] "
    "messages[3].content",
    "openai-responses": "tools[0] instructions input[0].content[0] input[0].content[1] input[1] input[2]",
    "anthropic": "tools[0] system messages[0].content[0] messages[0].content[1] messages[1].content[0] "
    "messages[2].content[0]",
    "gemini": "tools[0].functionDeclarations[0] systemInstruction.parts[0] contents[0].parts[0] contents[0].parts[1] "
    "contents[1].parts[0] contents[2].parts[0]",
}
MESSAGES = {"openai": "messages", "openai-responses": "input", "anthropic": "messages", "gemini": "contents"}


def snapshot(wire: Wire, body: dict[str, Any], rules: CacheRules | None = None) -> Snapshot:
    return read_prompt(body, wire, rules or get_dialect(wire).bind(body["model"]).rules, len)


@pytest.mark.parametrize("wire", WIRES)
def test_pieces_stand_in_the_order_of_the_prompt(wire: Wire) -> None:
    found = pieces(BODIES[wire], wire)
    assert " ".join(piece.path for piece in found) == PATHS[wire]
    assert [piece.section for piece in found] == ["tools", "system", *["messages"] * 4]
    assert [piece.images for piece in found] == [0, 0, 0, 1, 0, 0]
    assert [piece.text for piece in found[1:3]] == ["Be kind.", "Look"]
    assert found[4].text == 'f{"a": 1}'
    assert "done" in found[5].text


@pytest.mark.parametrize("wire", WIRES)
def test_tokens_are_those_of_the_text_with_framing_and_pictures(wire: Wire) -> None:
    found = pieces(BODIES[wire], wire)
    texts = sum(len(piece.text) for piece in found)
    assert snapshot(wire, BODIES[wire]).tokens == texts + 2 + 4 * 4 + IMAGE_TOKENS


def marked(wire: Wire, body: dict[str, Any]) -> dict[str, Any]:
    """The same prompt with a breakpoint on its first picture."""
    field = "cache_control" if wire == "anthropic" else "prompt_cache_breakpoint"
    control = (
        {"type": "ephemeral", "ttl": "1h"} if wire == "anthropic" else {"mode": "explicit", "ttl": "12h"}
    )
    out = deepcopy(body)
    message = next(item for item in out[MESSAGES[wire]] if item.get("role") == "user")
    message["content"][1][field] = control
    return out


@pytest.mark.parametrize("wire", ["openai", "openai-responses", "anthropic"])
def test_a_breakpoint_is_no_part_of_the_bytes(wire: Wire) -> None:
    plain, with_mark = pieces(BODIES[wire], wire), pieces(marked(wire, BODIES[wire]), wire)
    assert [piece.wire for piece in plain] == [piece.wire for piece in with_mark]
    assert [piece.mark for piece in plain] == [None] * 6
    assert [piece.mark for piece in with_mark] == [None, None, None, "long", None, None]
    (first, *_) = snapshot(wire, marked(wire, BODIES[wire])).marks
    assert first.long
    assert first.node.depth == 2


@pytest.mark.parametrize(
    ("wire", "part"), [("openai", "text"), ("anthropic", "text"), ("openai-responses", "input_text")]
)
def test_a_string_counts_as_one_text_part(wire: Wire, part: str) -> None:
    key = MESSAGES[wire]
    string = {"model": "m", key: [{"role": "user", "content": "hi"}]}
    listed = {"model": "m", key: [{"role": "user", "content": [{"text": "hi", "type": part}]}]}
    assert [piece.wire for piece in pieces(string, wire)] == [piece.wire for piece in pieces(listed, wire)]


def test_messages_of_one_role_are_one_turn_to_anthropic_and_two_to_openai() -> None:
    apart = {
        "model": "m",
        "messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    }
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    joined = {"model": "m", "messages": [{"role": "user", "content": parts}]}
    assert snapshot("anthropic", apart).tip.wire == snapshot("anthropic", joined).tip.wire
    assert snapshot("openai", apart).tip.wire != snapshot("openai", joined).tip.wire


def test_a_run_of_collapsed_blocks_is_one_position() -> None:
    rules = CacheRules(name="r", match="lookback", collapsed=frozenset({"tool_use", "tool_result"}))
    uses = [{"type": "tool_use", "id": str(n), "name": "f", "input": {}} for n in range(3)]
    results = [{"type": "tool_result", "tool_use_id": str(n), "content": "x"} for n in range(3)]
    body = {
        "model": "m",
        "messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": uses},
            {"role": "user", "content": results},
        ],
    }
    assert snapshot("anthropic", body, rules).tip.position == 3
    assert snapshot("anthropic", body, CacheRules(name="r", match="lookback")).tip.position == 7


@pytest.mark.parametrize(
    ("options", "explicit", "depths"),
    [
        # openai 3.54.0, types/chat/completion_create_params.py: implicit keeps the latest 3 besides its own, explicit 4.
        ({}, 5, [3, 4, 5, 6]),
        ({"mode": "explicit"}, 5, [2, 3, 4, 5]),
        ({"mode": "explicit"}, 0, []),
        ({}, 0, [6]),
    ],
)
def test_openai_writes_so_many_breakpoints(options: dict[str, str], explicit: int, depths: list[int]) -> None:
    def part(number: int) -> dict[str, Any]:
        mark = {"prompt_cache_breakpoint": {"mode": "explicit"}} if number < explicit else {}
        return {"type": "text", "text": f"part {number}", **mark}

    body = {
        "model": "gpt-5.6",
        "messages": [{"role": "user", "content": [part(number) for number in range(6)]}],
        "prompt_cache_options": options,
    }
    assert [mark.node.depth for mark in snapshot("openai", body).marks] == depths


def test_the_ttl_of_the_options_holds_for_every_breakpoint() -> None:
    part = {"type": "input_text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}}
    body = {
        "model": "gpt-5.6",
        "input": [{"role": "user", "content": [part, {"type": "input_text", "text": "y"}]}],
        "prompt_cache_options": {"ttl": "12h"},
    }
    assert [mark.long for mark in snapshot("openai-responses", body).marks] == [True, True]


def test_anthropics_automatic_mark_is_on_the_last_block_that_takes_one() -> None:
    body = {
        "model": "claude-sonnet-5.5",
        "cache_control": {"type": "ephemeral"},
        "messages": [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "so"},
                    {"type": "thinking", "thinking": "…", "signature": "s"},
                ],
            },
        ],
    }
    (mark,) = snapshot("anthropic", body).marks
    assert (mark.node.depth, mark.long) == (2, False)


def test_what_follows_frozen_params_is_another_prompt() -> None:
    body = BODIES["anthropic"]
    before = snapshot("anthropic", body)
    assert relation(before, snapshot("anthropic", {**body, "temperature": 0.5})) == "same"
    assert snapshot("anthropic", {**body, "tool_choice": {"type": "any"}}).head.wire == before.head.wire
    assert snapshot("anthropic", {**body, "tool_choice": {"type": "any"}}).message_seed != before.message_seed
    assert snapshot("anthropic", {**body, "thinking": {"type": "adaptive"}}).head.wire != before.head.wire
    gemini = BODIES["gemini"]
    warm = {**gemini, "generationConfig": {"temperature": 1}}
    assert snapshot("gemini", warm).head.wire == snapshot("gemini", gemini).head.wire
    thinking = {**gemini, "generationConfig": {"thinkingConfig": {"thinkingBudget": 1}}}
    assert snapshot("gemini", thinking).head.wire != snapshot("gemini", gemini).head.wire


@pytest.mark.parametrize(
    ("wire", "body", "place"),
    [
        ("openai", {"messages": {}}, "messages: found a dict"),
        ("openai", {"messages": ["hi"]}, r"messages\[0\]: found a str"),
        ("openai", {"messages": [{"content": "hi"}]}, r"messages\[0\].role: found None"),
        (
            "anthropic",
            {"messages": [{"role": "user", "content": [1]}]},
            r"messages\[0\].content\[0\]: found a int",
        ),
        ("anthropic", {"tools": [[]], "messages": []}, r"tools\[0\]: found a list"),
        ("gemini", {"contents": [{"parts": [None]}]}, r"contents\[0\].parts\[0\]: found a NoneType"),
        ("openai-responses", {"input": 1}, "input: found a int"),
        ("cohere", {}, "unknown wire format 'cohere'"),
    ],
)
def test_what_has_no_place_is_named(wire: Any, body: dict[str, Any], place: str) -> None:
    with pytest.raises(MessageError, match=place):
        pieces(body, wire)


@pytest.mark.parametrize("wire", WIRES)
def test_a_longer_conversation_begins_with_the_shorter_one(wire: Wire) -> None:
    key, body = MESSAGES[wire], BODIES[wire]
    more = (
        {"role": "user", "content": "and?"}
        if wire != "gemini"
        else {"role": "user", "parts": [{"text": "and?"}]}
    )
    longer = {**body, key: [*body[key], more]}
    assert relation(snapshot(wire, body), snapshot(wire, longer)) == "extension"
    changed = {**longer, key: [more, *longer[key][1:]]}
    assert relation(snapshot(wire, longer), snapshot(wire, changed)) == "divergent"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)
WORDS = st.sampled_from(
    ["type", "text", "role", "content", "user", "tool_use", "tool_result", "image", "parts", "input"]
)
NESTED = st.recursive(
    JSON | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=16,
)
ANY_BODY = st.dictionaries(
    st.sampled_from(
        ["model", "messages", "tools", "system", "input", "contents", "cache_control", "instructions"]
    ),
    NESTED,
    max_size=5,
)


@given(wire=st.sampled_from(WIRES), body=ANY_BODY)
def test_any_body_is_read_or_refused(wire: Wire, body: dict[str, Any]) -> None:
    try:
        found = pieces(body, wire)
    except MessageError:
        return
    assert all(isinstance(piece, Piece) for piece in found)
    rules = get_dialect(wire).rules
    assert read_prompt(body, wire, rules, len).tokens == sum(piece.tokens(len) for piece in found)
