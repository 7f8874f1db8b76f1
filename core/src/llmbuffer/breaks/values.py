"""Two JSON values: where they part, and whether they say the same in other bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ..rules import MARK_FIELDS
from ..snapshot import shared_length

__all__ = ["Parting", "at", "part", "same_values"]

_STEP = re.compile(r"\[(\d+)\]|\.?([^.\[\]]+)")


class Parting(msgspec.Struct, frozen=True):
    """The first place where two values part: its path, how many characters into a text, and both values as text.

    ``spelling`` tells that the values say the same in other bytes (order of keys, numbers, escapes, spaces in JSON text).
    """

    path: str
    offset: int
    before: str
    after: str
    spelling: bool = False


def at(body: Any, path: str) -> Any:
    """The value at a path such as ``messages[2].content[0]``; ``None`` where there is none.

    >>> at({"messages": [{"content": "hi"}]}, "messages[0].content")
    'hi'
    """
    for index, key in _STEP.findall(path):
        if index and isinstance(body, list | tuple):
            body = body[int(index)] if int(index) < len(body) else None
        elif key and isinstance(body, Mapping):
            body = body.get(key)
        else:
            return None
    return body


def same_values(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal, whatever the order of their keys; ``1`` equals ``1.0``, and no boolean.

    >>> same_values({"a": 1, "b": [2.0]}, {"b": [2], "a": 1}), same_values(1, True)
    (True, False)
    """
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same_values(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same_values, left, right))
    return bool(isinstance(left, bool) == isinstance(right, bool) and left == right)


def part(before: Any, after: Any, path: str) -> Parting:
    """Where two values that differ part, in the order in which ``before`` is written.

    >>> part({"name": "f", "description": "Adds."}, {"name": "f", "description": "Adds two."}, "tools[0]")
    Parting(path='tools[0].description', offset=4, before='Adds.', after='Adds two.', spelling=False)
    """
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return _part_objects(before, after, path)
    if isinstance(before, list | tuple) and isinstance(after, list | tuple):
        return _part_lists(before, after, path)
    if isinstance(before, str) and isinstance(after, str):
        return _part_texts(before, after, path)
    left, right = _text_form(before, path), _text_form(after, path)
    if left is not None and right is not None:
        return _part_texts(left[0], right[0], right[1])
    return Parting(path, 0, _json(before), _json(after), same_values(before, after))


def _text_form(value: Any, path: str) -> tuple[str, str] | None:
    """A text, written as a string or as a text part, and where it stands."""
    if isinstance(value, str):
        return value, path
    if isinstance(value, Mapping) and isinstance(value.get("text"), str):
        return value["text"], f"{path}.text"
    return None


def _part_objects(before: Mapping[str, Any], after: Mapping[str, Any], path: str) -> Parting:
    old = [key for key in before if key not in MARK_FIELDS]
    new = [key for key in after if key not in MARK_FIELDS]
    for key in [*old, *(key for key in new if key not in before)]:
        where = f"{path}.{key}" if path else key
        if key not in before or key not in after:
            return Parting(where, 0, _json(before.get(key)), _json(after.get(key)))
        if not same_values(before[key], after[key]):
            return part(before[key], after[key], where)
    # The same values: in another order here, or spelled in another way further in.
    if old != new:
        first = next(index for index, key in enumerate(old) if new[index] != key)
        return Parting(path, 0, old[first], new[first], spelling=True)
    for key in old:
        if _json(before[key]) != _json(after[key]):
            return part(before[key], after[key], f"{path}.{key}" if path else key)
    return Parting(path, 0, _json(before), _json(after), spelling=True)


def _part_lists(before: Any, after: Any, path: str) -> Parting:
    for index, (old, new) in enumerate(zip(before, after, strict=False)):
        if not same_values(old, new) or _json(old) != _json(new):
            return part(old, new, f"{path}[{index}]")
    shorter = min(len(before), len(after))
    old_rest, new_rest = before[shorter:], after[shorter:]
    where = f"{path}[{shorter}]"
    return Parting(where, 0, _json(old_rest[0]) if old_rest else "", _json(new_rest[0]) if new_rest else "")


def _part_texts(before: str, after: str, path: str) -> Parting:
    return Parting(path, shared_length(before, after), before, after, spelling=_same_json(before, after))


def _same_json(before: str, after: str) -> bool:
    """Whether two texts are objects or lists of the same values."""
    if before[:1].strip() not in ("{", "[") and before.lstrip()[:1] not in ("{", "["):
        return False
    try:
        return same_values(json.loads(before), json.loads(after))
    except (ValueError, RecursionError):
        return False


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
