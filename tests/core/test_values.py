"""Values: equal by content, frozen all the way down, faithful to the byte."""

from __future__ import annotations

import copy
import inspect
import json
import math
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuffer import (
    LLMBufferError,
    Message,
    MessageError,
    Opaque,
    Segment,
    StableContext,
    Text,
    Tool,
    ToolCall,
    Usage,
)
from llmbuffer import errors as tree
from llmbuffer.context import dynamic_segments
from llmbuffer.errors import EncodingError
from llmbuffer.frozen import FrozenDict, FrozenList, canonical_json, freeze, wire_json
from llmbuffer.messages import canonical

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_freezing_keeps_value_and_order(value: Any) -> None:
    frozen = freeze(value)
    assert frozen == value
    assert json.dumps(frozen) == json.dumps(value)
    assert copy.deepcopy(frozen) == value
    assert msgspec.json.encode(frozen) == msgspec.json.encode(value)


@given(st.dictionaries(st.text(max_size=4), JSON, min_size=2, max_size=5))
def test_identity_sorts_keys_and_wire_never_does(value: dict[str, Any]) -> None:
    turned = dict(reversed(list(value.items())))
    assert canonical_json(value) == canonical_json(turned)
    assert wire_json(value) != wire_json(turned)


@pytest.mark.parametrize(
    "bad", [math.nan, math.inf, -math.inf, {1: 2}, {"a": {3}}, b"x", "\ud800", {"\udfff": 1}, object()]
)
def test_what_json_cannot_carry_is_refused_with_its_path(bad: object) -> None:
    with pytest.raises(EncodingError, match="params"):
        freeze({"outer": [bad]}, "params")


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(EncodingError, match="contains itself"):
        freeze(loop)


@pytest.mark.parametrize("name", ["append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse"])
def test_lists_refuse_every_change(name: str) -> None:
    with pytest.raises(TypeError, match="read-only"):
        getattr(FrozenList([1]), name)()


@pytest.mark.parametrize("name", ["update", "pop", "popitem", "setdefault", "clear", "__ior__"])
def test_dicts_refuse_every_change(name: str) -> None:
    with pytest.raises(TypeError, match="read-only"):
        getattr(FrozenDict(a=1), name)({})


def test_messages_are_frozen_and_equal_by_content() -> None:
    one, two = Message("user", "hi"), Message("user", [Text("hi")])
    assert one == two
    assert hash(one) == hash(two)
    assert one != Message("user", "hi", name="Ann")
    assert one != Message("assistant", "hi")
    with pytest.raises(AttributeError, match="frozen"):
        one.role = "tool"
    with pytest.raises(AttributeError, match="frozen"):
        one.extra = 1


def test_opaque_json_in_another_order_is_the_same_content_and_other_bytes() -> None:
    one = Message("user", [Opaque("openai", b'{"type":"x","a":1}')])
    two = Message("user", [Opaque("openai", b'{"a":1,"type":"x"}')])
    assert canonical(one) == canonical(two)
    assert one == two
    assert one.to_openai() == two.to_openai()
    assert list(one.to_openai()["content"][0]) != list(two.to_openai()["content"][0])


@pytest.mark.parametrize(
    "arguments", ['{"b": 1, "a": 1e2}', '{"é": "\\u00e9"}', '{"a": 1, "a": 2}', '{"broken": ', "", "[]"]
)
def test_tool_arguments_stay_the_string_the_model_wrote(arguments: str) -> None:
    wire = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}],
    }
    message = Message.from_openai(wire)
    assert message.tool_calls == (ToolCall("c", "f", arguments),)
    assert message.to_openai() == wire


def test_tools_keep_the_bytes_of_their_schema_and_are_equal_whatever_its_order() -> None:
    one = Tool.of({"name": "f", "parameters": '{"type": "object",  "a": 1.0}'})
    assert one.parameters == b'{"type": "object",  "a": 1.0}'
    two = Tool.of({"name": "f", "input_schema": {"a": 1.0, "type": "object"}})
    assert one.identity == two.identity


@pytest.mark.parametrize("tool", [{}, {"name": ""}, {"name": 3}, "f", {"name": "f", "parameters": "{"}])
def test_a_tool_that_is_none_is_refused(tool: Any) -> None:
    with pytest.raises(MessageError):
        Tool.of(tool)


def test_a_providers_own_tool_stays_as_it_is() -> None:
    own = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    opaque = Tool.of(own).opaque
    assert opaque is not None
    assert opaque.value == own


def test_the_fingerprint_ignores_key_order_and_sees_everything_else() -> None:
    def context(**changes: Any) -> str:
        fields = {"model": "m", "system": "s", "params": {"a": 1, "b": 2}, "tools": [{"name": "f"}]}
        return StableContext(**{**fields, **changes}).fingerprint

    assert context() == context(params={"b": 2, "a": 1})
    others = [
        context(model="n"),
        context(system="t"),
        context(params={"a": 1}),
        context(tools=[{"name": "g"}]),
    ]
    assert len({context(), *others}) == 5
    assert context().startswith("b2:")


def test_contexts_refuse_what_shares_a_name() -> None:
    with pytest.raises(MessageError, match="share the names"):
        StableContext("m", [Segment("a", "1"), Segment("a", "2")])
    with pytest.raises(MessageError, match="share the names"):
        StableContext("m", tools=[{"name": "f"}, {"name": "f"}])
    with pytest.raises(AttributeError, match="frozen"):
        StableContext("m").model = "n"


def test_dynamic_content_is_named_and_empty_texts_are_left_out() -> None:
    assert [segment.name for segment in dynamic_segments({"a": "1", "b": ""})] == ["a"]
    bad: Any
    for bad in ("text", [1], [Segment("a", "1"), Segment("a", "2")]):
        with pytest.raises(MessageError):
            dynamic_segments(bad)


@given(st.lists(st.tuples(*[st.integers(0, 10**9)] * 5), max_size=5))
def test_usage_adds_up(counts: list[tuple[int, ...]]) -> None:
    usages = [
        Usage(read + write + long + fresh, out, read, write + long, long)
        for read, write, long, fresh, out in counts
    ]
    total = sum(usages, Usage())
    assert total.input_tokens == total.cache_read_tokens + total.cache_write_tokens + total.fresh_tokens
    assert total.output_tokens == sum(usage.output_tokens for usage in usages)
    assert 0 <= total.hit_ratio <= 1


@pytest.mark.parametrize("counts", [(1, 0, 2), (5, -1), (5, 0, 3, 3), (5, 0, 0, 1, 2)])
def test_usage_that_contradicts_itself_is_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(MessageError):
        Usage(*counts)


@pytest.mark.parametrize("field", Usage.__struct_fields__)
@pytest.mark.parametrize(
    ("count", "found"),
    [
        (-5, "-5"),
        (5.5, "5.5"),
        (math.nan, "nan"),
        (5.0, "5.0"),
        ("five", "a str"),
        (None, "a NoneType"),
        (True, "a bool"),
    ],
)
def test_what_is_no_token_count_is_refused_by_the_name_of_its_field(
    field: str, count: Any, found: str
) -> None:
    with pytest.raises(MessageError, match=f"^{field} is {found}: give a token count"):
        Usage(**{field: count})


CONTEXT = StableContext(
    "gpt-5.5",
    [Segment("policy", "Be kind.", level="global", pinned=True), Segment("now", "12:00", level="turn")],
    tools=[
        {"name": "track", "input_schema": {"type": "object", "properties": {"number": {"type": "string"}}}}
    ],
    params={"temperature": 0, "stop": ["a", {"b": 1}]},
)


@pytest.mark.parametrize(
    "value",
    [
        CONTEXT,
        CONTEXT.tools[0],
        Message("user", "Hello"),
        Usage(5, 1),
        ToolCall("c", "track", "{}"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_go_through_copies_and_pickles(value: Any) -> None:
    """As executors in other processes need it."""
    for twin in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert type(twin) is type(value)
        assert twin == value


def test_a_pickled_context_keeps_its_fingerprint_and_what_is_dynamic() -> None:
    twin = pickle.loads(pickle.dumps(CONTEXT))
    assert (twin.fingerprint, twin.dynamic) == (CONTEXT.fingerprint, CONTEXT.dynamic)
    assert copy.deepcopy(CONTEXT) is CONTEXT


@pytest.mark.parametrize("name", tree.__all__)
def test_errors_go_through_pickles(name: str) -> None:
    """With their attributes: a pool of processes hands them on."""
    kind: type[LLMBufferError] = getattr(tree, name)
    makers = [
        vars(each)["__init__"] for each in kind.__mro__ if inspect.isfunction(vars(each).get("__init__"))
    ]
    wanted = inspect.signature(makers[0]).parameters.values() if makers else ()
    given = {
        each.name: "what" for each in wanted if each.kind is each.KEYWORD_ONLY and each.default is each.empty
    }
    error = kind("it failed", **given)
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is kind
    assert (str(twin), twin.args, vars(twin)) == ("it failed", error.args, vars(error))
