"""Read-only JSON: what a request body is made of, and the two ways to write JSON down.

A session shares its rendered messages with every request body and every fork. ``FrozenDict`` and ``FrozenList``
are real ``dict`` and ``list`` objects for every reader (``json``, the SDKs, pydantic), and refuse every writer.
``copy.deepcopy`` gives plain, mutable containers back.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from math import isfinite
from typing import Any, NoReturn, overload

from .errors import EncodingError

__all__ = ["FrozenDict", "FrozenList", "canonical_json", "freeze", "thawed", "wire_json"]

MAX_DEPTH = 128


def _refuse(self: object, *_: object, **__: object) -> NoReturn:
    raise TypeError(
        f"{type(self).__name__} is read-only, because requests and forks share it: "
        "take copy.deepcopy(body) and change the copy"
    )


class FrozenDict(dict[str, Any]):
    """A ``dict`` that refuses every change; equal to a plain ``dict`` of the same items.

    >>> body = FrozenDict(role="user", content="hi")
    >>> body == {"role": "user", "content": "hi"}
    True
    >>> body["role"] = "system"
    Traceback (most recent call last):
    TypeError: FrozenDict is read-only, because requests and forks share it: take copy.deepcopy(body) and change the copy
    """

    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __copy__(self) -> dict[str, Any]:
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return {key: copy.deepcopy(value, memo) for key, value in self.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return (FrozenDict, (dict(self),))


class FrozenList(list[Any]):
    """A ``list`` that refuses every change; equal to a plain ``list`` of the same items.

    >>> FrozenList([1, 2]) == [1, 2]
    True
    """

    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __copy__(self) -> list[Any]:
        return list(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        return [copy.deepcopy(value, memo) for value in self]

    def __reduce__(self) -> tuple[Any, ...]:
        return (FrozenList, (list(self),))


@overload
def freeze(value: Mapping[str, Any], path: str = ...) -> FrozenDict: ...
@overload
def freeze(value: object, path: str = ...) -> Any: ...
def freeze(value: object, path: str = "value") -> Any:
    """Copy a JSON value into read-only containers, key order kept.

    Raises ``EncodingError``, naming the path, for NaN and infinities, keys that are not strings, lone surrogates,
    more than 128 levels (copies and encoders of JSON recurse, and would fail later), and objects that JSON does not know
    (msgspec would quietly write NaN as ``null`` and bytes as base64).

    >>> freeze({"b": 1, "a": [True, None]})
    {'b': 1, 'a': [True, None]}
    >>> freeze({"temperature": float("nan")}, "params")
    Traceback (most recent call last):
    llmbuffer.errors.EncodingError: params.temperature: nan has no JSON form; give a finite number
    """
    return _freeze(value, path, MAX_DEPTH)


def _freeze(value: object, path: str, depth: int) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return check_text(value, path)
    if isinstance(value, float):
        if not isfinite(value):
            raise EncodingError(f"{path}: {value!r} has no JSON form; give a finite number")
        return value
    if depth == 0:
        raise EncodingError(
            f"{path[:60]}…: nested more than {MAX_DEPTH} levels deep, or contains itself; flatten it"
        )
    if isinstance(value, Mapping):
        return FrozenDict(
            {_key(key, path): _freeze(item, f"{path}.{key}", depth - 1) for key, item in value.items()}
        )
    if isinstance(value, list | tuple):
        return FrozenList([_freeze(item, f"{path}[{index}]", depth - 1) for index, item in enumerate(value)])
    raise EncodingError(f"{path}: a {type(value).__name__} has no JSON form; give str, number, list or dict")


def _key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise EncodingError(f"{path}: the key {key!r} is a {type(key).__name__}; JSON keys are strings")
    return check_text(key, path)


def check_text(text: str, path: str) -> str:
    """Return ``text``; raise ``EncodingError`` if it holds a lone surrogate, which UTF-8 cannot carry."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise EncodingError(
                f"{path}: lone surrogate {text[error.start]!r} at character {error.start}, which UTF-8 cannot "
                "carry; decode the source with errors='replace'"
            ) from None
    return text


def thawed(value: Any) -> Any:
    """A plain, mutable deep copy of a JSON value."""
    return copy.deepcopy(value)


def wire_json(value: object) -> bytes:
    """JSON in the order given: the bytes that caches compare.

    >>> wire_json({"b": 1, "a": 2})
    b'{"b":1,"a":2}'
    """
    return _dump(value, sort_keys=False)


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys: the identity of a value. Never used for what is sent.

    >>> canonical_json({"b": 1, "a": 2})
    b'{"a":2,"b":1}'
    """
    return _dump(value, sort_keys=True)


def _dump(value: object, *, sort_keys: bool) -> bytes:
    try:
        text = json.dumps(
            value, sort_keys=sort_keys, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return text.encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise EncodingError(
            f"value has no faithful JSON form: {error}; see llmbuffer.frozen.freeze"
        ) from None
