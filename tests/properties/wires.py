"""Messages as providers write them: hypothesis strategies for every kind that a dialect carries."""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import strategies as st

from llmbuffer import Message, Text
from llmbuffer.dialects.anthropic_blocks import from_message

Wire = dict[str, Any]
TOOLS = [
    {
        "name": "look_up",
        "description": "Look up.",
        "parameters": {"type": "object", "properties": {"q": {}, "a": {}}},
    },
    {"name": "add", "description": "Add numbers.", "parameters": {"type": "object"}},
]
# Few texts, so that two forks often say the same; some that escape oddly, hold breaks, or look like something else.
TEXTS = st.sampled_from(
    ["yes", "no", "why?", "é 漢 🙂", 'a "b" \\ \n c', "<|endoftext|>", "</context>", "x" * 40, " a "]
)
IDS = st.sampled_from(["call_1", "call_2", "call_3", "tooluse-é"])
_DATA_URL = "data:image/png;base64,iVBORw0KGgo="


class Kinds(NamedTuple):
    """The messages of one dialect. ``results`` is what tools return, for ``answers``; replies may await calls."""

    user: st.SearchStrategy[Wire]
    instruction: st.SearchStrategy[Wire]
    reply: st.SearchStrategy[Wire]
    calls: st.SearchStrategy[Wire]
    results: st.SearchStrategy[Any]
    anything: st.SearchStrategy[Wire]


def text_part(text: str) -> Wire:
    return {"type": "text", "text": text}


def message_of(wire: Wire, dialect: str) -> Message:
    """The wire message as an adapter would take it in."""
    if dialect != "anthropic":
        return Message.from_openai(wire)
    if wire["role"] == "system":
        return Message("system", [Text(block["text"]) for block in wire["content"]])
    return from_message(wire)


def calls_of(wire: Wire) -> list[str]:
    """Ids of the calls that await results."""
    blocks = wire.get("tool_calls") or (wire["content"] if isinstance(wire.get("content"), list) else [])
    return [call["id"] for call in blocks if call.get("type") in ("function", "custom", "tool_use")]


def answers(
    dialect: str, results: list[tuple[str, Any]], *, together: bool, saying: str | None
) -> list[Wire]:
    """Tool messages for (id, result) pairs. Anthropic's may stand ``together``, and the user may go on ``saying``."""
    if dialect != "anthropic":
        return [{"role": "tool", "tool_call_id": name, "content": content} for name, content in results]
    blocks = [{"type": "tool_result", "tool_use_id": name, **content} for name, content in results]
    if not together:
        return [{"role": "user", "content": [block]} for block in blocks]
    return [{"role": "user", "content": [*blocks, *([] if saying is None else [text_part(saying)])]}]


# OpenAI

_OPENAI_PARTS = st.sampled_from(
    [
        text_part("yes"),
        text_part("a longer text, " * 3),
        {"type": "image_url", "image_url": {"url": _DATA_URL}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "text", "text": "kept", "new_field": {"z": 1, "a": [2, 0.5, None]}},
    ]
)
_ARGUMENTS = st.sampled_from(
    [
        "",
        "{}",
        '{"b":1,"a":1e2}',
        '{"a":1,"a":2}',
        '{"q": "\\u00e9 漢"}',
        '{"q": "brok',
        "[1]",
        '{ "q" : {"z":1} }',
    ]
)
_FIELDS = st.sampled_from(
    [
        {},
        {},
        {"refusal": None},
        {"annotations": []},
        {"reasoning_content": "first, …"},
        {"x": {"z": 1, "a": [1.5]}},
    ]
)
_CALL_KINDS = st.sampled_from(["function", "function", "custom", "signed"])


def _call(kind: str, call_id: str, arguments: str) -> Wire:
    if kind == "custom":
        return {"id": call_id, "type": "custom", "custom": {"name": "grep", "input": arguments}}
    call = {"id": call_id, "type": "function", "function": {"name": "look_up", "arguments": arguments}}
    return call if kind == "function" else {**call, "extra_content": {"google": {"thought_signature": "s=="}}}


def _openai() -> Kinds:
    content = TEXTS | st.lists(_OPENAI_PARTS, min_size=1, max_size=3)
    named = st.sampled_from([{}, {}, {}, {"name": "ann"}])
    user = st.builds(lambda content, name: {"role": "user", "content": content, **name}, content, named)
    roles = st.sampled_from(["system", "developer"])
    instruction = st.builds(lambda role, text: {"role": role, "content": text}, roles, TEXTS)
    reply = st.builds(lambda text, more: {"role": "assistant", "content": text, **more}, TEXTS, _FIELDS)
    one = st.builds(_call, _CALL_KINDS, IDS, _ARGUMENTS)
    several = st.lists(one, min_size=1, max_size=3, unique_by=lambda call: str(call["id"]))
    calls = st.builds(
        lambda text, calls, more: {"role": "assistant", "content": text, "tool_calls": calls, **more},
        st.none() | TEXTS,
        several,
        _FIELDS,
    )
    results = st.sampled_from(["found", "", "é 漢", [text_part("one"), text_part("two")], "x" * 60])
    return Kinds(user, instruction, reply, calls, results, st.one_of(user, user, instruction, reply, calls))


# Anthropic

_ANTHROPIC_PARTS = st.sampled_from(
    [
        text_part("yes"),
        text_part("a longer text, " * 3),
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
        {"type": "search_result", "title": "t", "source": "s", "content": [text_part("found")]},
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "d"},
            "title": "t",
        },
    ]
)
_BEFORE = st.sampled_from(
    [
        [],
        [{"type": "thinking", "thinking": "first, …", "signature": "c2ln"}],
        [{"type": "redacted_thinking", "data": "eA=="}, text_part("so")],
        [{"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"z": 1, "a": 2}}],
        [text_part("let me see")],
    ]
)
_INPUTS = st.sampled_from(
    [{}, {"q": "é 漢"}, {"z": 1, "a": 2}, {"b": {"z": [1, 0.5, None, True], "a": 1e22}}]
)
_MORE = st.sampled_from([{}, {}, {"caller": {"type": "direct"}}])


def _anthropic() -> Kinds:
    user = st.lists(_ANTHROPIC_PARTS, min_size=1, max_size=3).map(
        lambda parts: {"role": "user", "content": parts}
    )
    instruction = TEXTS.map(lambda text: {"role": "system", "content": [text_part(text)]})
    reply = st.builds(
        lambda before, text: {"role": "assistant", "content": [*before, text_part(text)]}, _BEFORE, TEXTS
    )
    one = st.builds(
        lambda name, value, more: {"type": "tool_use", "id": name, "name": "look_up", "input": value, **more},
        IDS,
        _INPUTS,
        _MORE,
    )
    several = st.lists(one, min_size=1, max_size=3, unique_by=lambda call: str(call["id"]))
    calls = st.builds(
        lambda before, calls: {"role": "assistant", "content": [*before, *calls]}, _BEFORE, several
    )
    results = st.sampled_from(
        [
            {"content": "found"},
            {"content": [text_part("one"), text_part("two")]},
            {"content": "it failed", "is_error": True},
            {"content": [{"type": "image", "source": {"type": "url", "url": "https://example.com/b.png"}}]},
        ]
    )
    return Kinds(user, instruction, reply, calls, results, st.one_of(user, user, instruction, reply, calls))


KINDS = {"openai": _openai(), "anthropic": _anthropic()}
