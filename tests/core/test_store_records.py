"""What is written of a message: all that makes its bytes, under every dialect."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuffer import Message, Opaque, StableContext, Text, Tool, ToolCall
from llmbuffer.errors import CorruptStoreError, LossyError
from llmbuffer.messages import Role
from llmbuffer.plugins import get_dialect
from llmbuffer.store.records import (
    SessionRecord,
    decode,
    decode_context,
    decode_message,
    encode_context,
    encode_message,
)
from llmbuffer.testing.dialect.cases import CALL_NAMES, MESSAGES
from llmbuffer.testing.stores import DIALECTS

SHAPES: tuple[dict[str, object], ...] = (
    {"role": "assistant", "content": None},
    {"role": "assistant"},
    {"role": "assistant", "content": ""},
    {"role": "assistant", "content": []},
    {"role": "user", "content": "hi"},
    {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    {"role": "assistant", "content": None, "tool_calls": [], "refusal": None},
    {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "x"}]},
)


@pytest.mark.parametrize(("dialect", "model"), DIALECTS)
def test_a_message_renders_to_the_same_bytes(dialect: str, model: str) -> None:
    renders = get_dialect(dialect).bind(model).answering(CALL_NAMES)
    rendered = 0
    for message in MESSAGES:
        found = decode_message(encode_message(message))
        assert (found, found._shape) == (message, message._shape)
        try:
            wanted = renders.render_message(message, None)
        except LossyError:
            continue
        assert msgspec.json.encode(renders.render_message(found, None).blocks) == msgspec.json.encode(
            wanted.blocks
        )
        rendered += 1
    assert rendered > 40


@pytest.mark.parametrize("wire", SHAPES)
def test_empty_and_short_content_comes_back_as_it_was_written(wire: dict[str, object]) -> None:
    try:
        message = Message.from_openai(wire)
    except ValueError:
        pytest.skip("refused before any store sees it")
    assert decode_message(encode_message(message)).to_openai() == message.to_openai()


def read_session(body: bytes) -> SessionRecord:
    return decode(body, SessionRecord)


texts = st.text(st.characters(exclude_categories=["Cs"]))
parts = st.one_of(
    texts.map(Text),
    st.builds(ToolCall, texts, texts, texts),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=8,
    ).map(lambda value: Opaque.of("any", value)),
)


@given(
    role=st.sampled_from(["user", "assistant"]),
    said=texts | st.lists(parts, max_size=4),
    name=st.none() | texts,
)
def test_any_message_comes_back(role: Role, said: str | list[object], name: str | None) -> None:
    message = Message(role, said, name)  # type: ignore[arg-type]
    found = decode_message(encode_message(message))
    assert found._content == message._content
    assert (found.role, found.name) == (role, name)
    assert encode_message(found) == encode_message(message)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(params=st.dictionaries(texts.map("p{}".format), json_values, max_size=3), schema=json_values)
def test_any_context_comes_back(params: dict[str, object], schema: object) -> None:
    tool = Tool.of({"name": "f", "parameters": {"type": "object", "x": schema}, "strict": True})
    context = StableContext("gpt-5.5", "Be kind.", [tool], params)
    found = decode_context(encode_context(context))
    assert found == context
    assert found.tools == context.tools
    assert encode_context(found) == encode_context(context)
    assert repr(found.params) == repr(context.params)


@given(st.binary(max_size=60), st.sampled_from([decode_message, decode_context, read_session]))
def test_other_bytes_are_refused(body: bytes, read: Callable[[bytes], object]) -> None:
    try:
        found = read(body)
    except CorruptStoreError as error:
        assert "verify()" in str(error)  # noqa: PT017 - some bytes are a message
    else:
        assert found is not None
