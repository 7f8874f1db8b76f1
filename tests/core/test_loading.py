"""A history that is loaded at once equals one that was appended message by message."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbuffer import Message, Session, StableContext, ToolCall, ToolResult, get_dialect
from llmbuffer.chain import walk
from llmbuffer.errors import PairingError
from llmbuffer.messages import Image, Text, text_message
from llmbuffer.rebuilding import loaded
from llmbuffer.rules import Dialect
from llmbuffer.snapshot import message_tokens
from llmbuffer.state import Anchor, State, attach, link
from llmbuffer.store import new_key, open_store
from llmbuffer.tokens import EstimateCounter

COUNTER = EstimateCounter()
MODELS = (
    ("openai", "gpt-5.5"),
    ("openai", "gpt-5.6"),
    ("openai-responses", "gpt-5.6"),
    ("anthropic", "claude-sonnet-5.5"),
    ("gemini", "gemini-3.1-pro"),
    ("deepseek", "deepseek-v4-pro"),
    ("llamacpp", "a-model"),
)
DIALECTS = [get_dialect(name).bind(model) for name, model in MODELS]
texts = st.text(st.characters(codec="utf-8"), max_size=20)


@st.composite
def histories(draw: st.DrawFn) -> list[Message]:
    """Texts, parts, calls with their results, one after the other; the last calls may wait for their results."""
    said: list[Message] = []
    for number in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(["user", "named", "assistant", "parts", "empty", "calls"]))
        if kind == "calls":
            ids = [f"call_{number}_{each}" for each in range(draw(st.integers(1, 3)))]
            said.append(Message("assistant", [*_text(draw), *(ToolCall(each, "look", "{}") for each in ids)]))
            said += [Message("tool", [ToolResult(each, draw(texts))]) for each in ids]
        elif kind == "parts":
            image = Image(url="https://example.org/a.png")
            said.append(Message("user", [Text(draw(texts) or "x"), image]))
        elif kind == "empty":
            said.append(Message("user", ()))
        else:
            name = "ann" if kind == "named" else None
            said.append(Message("assistant" if kind == "assistant" else "user", draw(texts), name))
    if draw(st.booleans()):
        said.append(Message("assistant", [ToolCall("open", "look", "{}")]))
    return said


def _text(draw: st.DrawFn) -> list[Text]:
    return [Text("Let me see.")] if draw(st.booleans()) else []


def appended(messages: list[Message], dialect: Dialect) -> State:
    state = State.empty()
    for message in messages:
        state = attach(state, link(state, message, dialect, COUNTER), dialect)
    return state


def place(anchor: Anchor | None) -> Any:
    return None if anchor is None else (anchor.place, anchor.node.depth, anchor.node.digest)


def told(state: State, dialect: Dialect) -> dict[str, Any]:
    """All fields of a state, as what can be compared."""
    wires: list[Any] = []
    state.rendered.extend(wires, dialect)  # type: ignore[arg-type]  # a plain list is enough to look at
    fields: dict[str, Any] = {name: getattr(state, name) for name in state.__struct_fields__}
    turn = state.turn
    fields |= {
        "tip": [
            (node.digest, node.wire, node.end, node.position, node.depth, node.jump.depth, node.message)
            for node in walk(state.tip)
        ],
        "rendered": (wires, len(state.rendered), state.rendered.role),
        "anchor": place(state.anchor),
        "turn": None if turn is None else (place(turn.user), turn.segments, turn.inserted),
        "previous_tail": place(state.previous_tail),
    }
    return fields


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: f"{each.name}-{each.rules.name}")
@settings(max_examples=60)
@given(messages=histories(), counted=st.booleans())
def test_every_field_and_every_byte_is_equal(
    dialect: Dialect, messages: list[Message], counted: bool
) -> None:
    said = [(each, message_tokens(each, COUNTER.count) if counted else None) for each in messages]
    try:
        expected = told(appended(messages, dialect), dialect)
    except ValueError as refused:  # this dialect has no place for some content
        with pytest.raises(type(refused)):
            loaded(said, dialect, lambda message: message_tokens(message, COUNTER.count))
        return
    state = loaded(said, dialect, lambda message: message_tokens(message, COUNTER.count))
    assert told(state, dialect) == expected


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: f"{each.name}-{each.rules.name}")
def test_it_goes_on_like_one_that_was_appended(dialect: Dialect) -> None:
    messages = [Message("user", "Hello"), Message("assistant", "Hi!"), Message("user", "And now?")]
    further = [Message("assistant", [ToolCall("c", "look", "{}")]), Message("tool", [ToolResult("c", "42")])]
    state = loaded([(each, 3) for each in messages], dialect, lambda _: 0)
    for message in further:
        state = attach(state, link(state, message, dialect, COUNTER), dialect)
    other = appended([*messages, *further], dialect)
    assert state.tip.digest == other.tip.digest
    assert (state.tip.wire, state.tip.depth) == (other.tip.wire, other.tip.depth)


def test_results_without_calls_are_refused() -> None:
    said = [(Message("user", "Hello"), 1), (Message("tool", [ToolResult("c", "42")]), 1)]
    with pytest.raises(PairingError, match="which nobody awaits"):
        loaded(said, DIALECTS[0], lambda _: 0)
    calls = [(Message("assistant", [ToolCall("c", "look", "{}")]), 1), (Message("user", "Well?"), 1)]
    with pytest.raises(PairingError, match="were answered"):
        loaded(calls, DIALECTS[0], lambda _: 0)


def test_a_digest_that_nobody_asked_for_is_made_when_it_is() -> None:
    dialect = DIALECTS[0]
    messages = [Message("user" if number % 2 == 0 else "assistant", str(number)) for number in range(2_000)]
    state = loaded([(each, 1) for each in messages], dialect, lambda _: 0)
    request = Session(StableContext("gpt-5.5"), "openai", tokens=COUNTER)
    request._state = state
    assert request.request("And now?", {"clock": "12:00"}).body["messages"][0]["content"] == "0"
    assert state.tip._digest is None
    assert state.tip.digest == appended(messages, dialect).tip.digest
    assert all(node._digest is not None for node in walk(state.tip))


def test_a_message_of_one_text_is_a_message_like_any_other() -> None:
    quick, plain = text_message("user", "hi", "ann", "parts"), Message("user", "hi", "ann", _shape="parts")
    assert quick == plain
    assert (quick.role, quick.name, quick._shape, quick.parts) == (
        plain.role,
        plain.name,
        "parts",
        plain.parts,
    )


@pytest.mark.parametrize("key", [None, new_key()], ids=["plain", "sealed"])
@pytest.mark.parametrize(("dialect", "model"), MODELS)
def test_a_loaded_session_sends_what_the_saved_one_would(dialect: str, model: str, key: str | None) -> None:
    messages = [Message("user", "Hello"), Message("assistant", [ToolCall("c", "look", "{}")])]
    messages += [Message("tool", [ToolResult("c", "42")]), Message("assistant", "It is 42.")]
    with open_store("memory:", key=key) as store:
        session = Session(StableContext(model), dialect, store=store, session_id="s", tokens=COUNTER)
        session.append(messages)
        session.save()
        later = Session.load(store, "s", tokens=COUNTER)
        assert later.request("And now?").body == session.request("And now?").body
        assert later.tip.digest == session.tip.digest
