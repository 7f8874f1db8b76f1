"""Messages as providers write them: hypothesis strategies for every kind that a dialect carries."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from llmbuffer import Message
from llmbuffer.dialects.anthropic_blocks import from_message

Wire = dict[str, Any]
TOOLS = [
    {"name": "look_up", "description": "Look up.", "parameters": {"type": "object", "properties": {"q": {}, "a": {}}}},
    {"name": "add", "description": "Add numbers.", "parameters": {"type": "object"}},
]
# Few texts, so that two forks often say the same; some that escape oddly, hold breaks, or look like something else.
TEXTS = st.sampled_from(["yes", "no", "why?", "é 漢 🙂", 'a "b" \\ \n c', "<|endoftext|>", "</context>", "x" * 40, " a "])
IDS = st.integers(0, 10**6).map("call_{}".format)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([0.5, 1e-7, 1e22]) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("zab"), inner, max_size=3),
    max_leaves=5,
)
DATA_URL = "data:image/png;base64,iVBORw0KGgo="


def text_part(text: str) -> Wire:
    return {"type": "text", "text": text}


def message_of(wire: Wire, dialect: str) -> Message:
    """The wire message as an adapter would take it in."""
    if dialect != "anthropic":
        return Message.from_openai(wire)
    if wire["role"] == "system":
        return Message("system", [part for block in wire["content"] for part in Message("user", block["text"]).parts])
    return from_message(wire)


# OpenAI

_OPENAI_PARTS = st.one_of(
    TEXTS.map(text_part),
    st.sampled_from([None, "low"]).map(
        lambda detail: {"type": "image_url", "image_url": {"url": DATA_URL, **({"detail": detail} if detail else {})}}
    ),
    st.just({"type": "file", "file": {"file_id": "file-1"}}),
    st.just({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
    st.just({"type": "text", "text": "kept", "new_field": {"z": 1, "a": 2}}),
)
_ARGUMENTS = st.one_of(
    VALUES.map(lambda value: '{"q": ' + repr(value).replace("'", '"') + "}"),
    st.sampled_from(["", "{}", '{"b":1,"a":1e2}', '{"a":1,"a":2}', '{"q": "\\u00e9', "[1]"]),
)
_FIELDS = st.sampled_from(
    [{}, {"refusal": None}, {"annotations": []}, {"reasoning_content": "first, …"}, {"x": {"z": 1, "a": [1.5]}}]
)


def _function_call(call_id: str, arguments: str) -> Wire:
    return {"id": call_id, "type": "function", "function": {"name": "look_up", "arguments": arguments}}


def _custom_call(call_id: str, text: str) -> Wire:
    return {"id": call_id, "type": "custom", "custom": {"name": "grep", "input": text}}


def _signed_call(call_id: str, arguments: str) -> Wire:
    return {**_function_call(call_id, arguments), "extra_content": {"google": {"thought_signature": "s=="}}}


def openai_user() -> st.SearchStrategy[Wire]:
    content = TEXTS | st.lists(_OPENAI_PARTS, min_size=1, max_size=3)
    named = st.sampled_from([{}, {}, {"name": "ann"}])
    return st.builds(lambda content, name: {"role": "user", "content": content, **name}, content, named)


def openai_instruction() -> st.SearchStrategy[Wire]:
    role = st.sampled_from(["system", "developer"])
    return st.builds(lambda role, text: {"role": role, "content": text}, role, TEXTS)


def openai_reply() -> st.SearchStrategy[Wire]:
    return st.builds(lambda text, more: {"role": "assistant", "content": text, **more}, TEXTS, _FIELDS)


def openai_calls() -> st.SearchStrategy[Wire]:
    """One to three parallel calls, with text or without."""
    one = st.one_of(
        st.builds(_function_call, IDS, _ARGUMENTS),
        st.builds(_custom_call, IDS, TEXTS),
        st.builds(_signed_call, IDS, _ARGUMENTS),
    )
    calls = st.lists(one, min_size=1, max_size=3, unique_by=lambda call: str(call["id"]))
    return st.builds(
        lambda content, calls, more: {"role": "assistant", "content": content, "tool_calls": calls, **more},
        st.none() | TEXTS,
        calls,
        _FIELDS,
    )


def openai_results(call_ids: list[str]) -> st.SearchStrategy[list[Wire]]:
    """A tool message for each call, in any order."""
    content = TEXTS | st.just("") | st.lists(TEXTS.map(text_part), min_size=1, max_size=2)
    one = [
        st.builds(lambda content, name=name: {"role": "tool", "tool_call_id": name, "content": content}, content)
        for name in call_ids
    ]
    return st.tuples(*one).map(list).flatmap(st.permutations)


# Anthropic

_SOURCES = st.sampled_from(
    [
        {"type": "url", "url": "https://example.com/a.png"},
        {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
    ]
)
_ANTHROPIC_PARTS = st.one_of(
    TEXTS.map(text_part),
    _SOURCES.map(lambda source: {"type": "image", "source": source}),
    st.just({"type": "search_result", "title": "t", "source": "s", "content": [{"type": "text", "text": "found"}]}),
    st.just({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}, "title": "t"}),
)
_THINKING = st.just({"type": "thinking", "thinking": "first, …", "signature": "c2ln"})
_SERVER_CALL = st.just({"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"z": 1, "a": 2}})


def anthropic_user() -> st.SearchStrategy[Wire]:
    parts = st.lists(_ANTHROPIC_PARTS, min_size=1, max_size=3)
    return parts.map(lambda parts: {"role": "user", "content": parts})


def anthropic_instruction() -> st.SearchStrategy[Wire]:
    return TEXTS.map(lambda text: {"role": "system", "content": [text_part(text)]})


def anthropic_reply() -> st.SearchStrategy[Wire]:
    before = st.lists(st.one_of(_THINKING, _SERVER_CALL), max_size=1)
    return st.builds(
        lambda before, text: {"role": "assistant", "content": [*before, text_part(text)]}, before, TEXTS
    )


def anthropic_calls() -> st.SearchStrategy[Wire]:
    inputs = st.dictionaries(st.sampled_from("zab"), VALUES, max_size=3)
    more = st.sampled_from([{}, {}, {"caller": {"type": "direct"}}])
    one = st.builds(
        lambda name, value, more: {"type": "tool_use", "id": name, "name": "look_up", "input": value, **more},
        IDS,
        inputs,
        more,
    )
    calls = st.lists(one, min_size=1, max_size=3, unique_by=lambda call: str(call["id"]))
    before = st.lists(_THINKING | TEXTS.map(text_part), max_size=2)
    return st.builds(lambda before, calls: {"role": "assistant", "content": [*before, *calls]}, before, calls)


def anthropic_results(call_ids: list[str]) -> st.SearchStrategy[list[Wire]]:
    """One message with all results, or one for each."""
    content = TEXTS | st.lists(TEXTS.map(text_part), min_size=1, max_size=2)
    failed = st.sampled_from([{}, {}, {"is_error": True}])
    one = [
        st.builds(
            lambda content, failed, name=name: {"type": "tool_result", "tool_use_id": name, "content": content, **failed},
            content,
            failed,
        )
        for name in call_ids
    ]
    blocks = st.tuples(*one).map(list).flatmap(st.permutations)
    apart = blocks.map(lambda blocks: [{"role": "user", "content": [block]} for block in blocks])
    return st.one_of(blocks.map(lambda blocks: [{"role": "user", "content": blocks}]), apart)


KINDS = {
    "openai": (openai_user, openai_instruction, openai_reply, openai_calls, openai_results),
    "anthropic": (anthropic_user, anthropic_instruction, anthropic_reply, anthropic_calls, anthropic_results),
}


def calls_of(wire: Wire) -> list[str]:
    """Ids of the calls that await results."""
    blocks = wire.get("tool_calls") or (wire["content"] if isinstance(wire.get("content"), list) else [])
    return [call["id"] for call in blocks if call.get("type") in ("function", "custom", "tool_use")]
