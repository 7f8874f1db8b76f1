"""Strategies that the tests of several dialects draw from: texts, JSON values, and the arguments that models write."""

from __future__ import annotations

import json

from hypothesis import strategies as st

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
OBJECTS = st.dictionaries(TEXT, JSON, max_size=3)
ARGUMENTS = st.one_of(
    TEXT,
    OBJECTS.map(lambda value: json.dumps(value, ensure_ascii=False)),
    st.sampled_from(
        ['{"x": 1e2}', '{"s": "\\u00e9"}', '{"a": 1, "a": 2}', '{"a": ', "[]", "", "null", '{"a":1}\n']
    ),
)
