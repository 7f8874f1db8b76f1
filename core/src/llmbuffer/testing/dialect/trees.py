"""Request bodies as JSON trees: whether one begins with another, what they hold, and who can change them.

Nothing here knows a provider. A prompt is a tree whose lists may grow at their ends, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...frozen import wire_json

__all__ = ["as_parts", "containers", "growth_fault", "leaves", "marks_in", "without_fields", "without_text"]

Path = tuple[str | int, ...]


def leaves(value: Any) -> Iterator[Any]:
    """All scalars of a JSON value, depth first.

    >>> list(leaves({"a": [1, "x"], "b": None}))
    [1, 'x', None]
    """
    if isinstance(value, Mapping):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def containers(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """All objects and lists of a JSON value with their paths, the outermost first.

    >>> [path for path, _ in containers({"a": [{}]})]
    [(), ('a',), ('a', 0)]
    """
    if isinstance(value, Mapping):
        yield path, value
        for key, item in value.items():
            yield from containers(item, (*path, key))
    elif isinstance(value, list | tuple):
        yield path, value
        for index, item in enumerate(value):
            yield from containers(item, (*path, index))


def marks_in(body: Any, fields: frozenset[str]) -> list[tuple[Path, Mapping[str, Any]]]:
    """The objects that carry a breakpoint, in the order of the body, with their paths.

    >>> marks_in({"system": [{"text": "a", "mark": {}}, {"text": "b", "mark": None}]}, frozenset({"mark"}))
    [(('system', 0), {'text': 'a', 'mark': {}})]
    """
    return [
        (path, item)
        for path, item in containers(body)
        if isinstance(item, Mapping) and any(item.get(field) is not None for field in fields)
    ]


def without_fields(value: Any, fields: frozenset[str]) -> Any:
    """The value without these fields, wherever they stand.

    >>> without_fields([{"text": "a", "mark": {}}], frozenset({"mark"}))
    [{'text': 'a'}]
    """
    if isinstance(value, Mapping):
        return {key: without_fields(item, fields) for key, item in value.items() if key not in fields}
    if isinstance(value, list | tuple):
        return [without_fields(item, fields) for item in value]
    return value


def as_parts(value: Any, field: str) -> Any:
    """The value with a text part in a list wherever ``field`` is a string: for a cache, both say the same.

    >>> as_parts([{"role": "user", "content": "hi"}], "content")
    [{'role': 'user', 'content': [{'type': 'text', 'text': 'hi'}]}]
    """
    if isinstance(value, Mapping):
        return {
            key: [{"type": "text", "text": item}]
            if key == field and isinstance(item, str)
            else as_parts(item, field)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [as_parts(item, field) for item in value]
    return value


def without_text(value: Any, text: str) -> Any:
    """The value without the items of its lists that say ``text``, and without messages that held nothing else.

    >>> without_text([{"parts": [{"text": "a"}, {"text": "now"}]}, {"parts": [{"text": "now"}]}], "now")
    [{'parts': [{'text': 'a'}]}]
    """
    if isinstance(value, Mapping):
        return {key: without_text(item, text) for key, item in value.items()}
    if isinstance(value, list | tuple):
        kept = [(item, without_text(item, text)) for item in value if not _says(item, text)]
        return [new for old, new in kept if _emptied(old) or not _emptied(new)]
    return value


def _says(item: Any, text: str) -> bool:
    here = item.values() if isinstance(item, Mapping) else (item,)
    return any(isinstance(each, str) and text in each for each in here)


def _emptied(item: Any) -> bool:
    """Whether a message holds a list, and all its lists are empty."""
    lists = [each for each in item.values() if isinstance(each, list)] if isinstance(item, Mapping) else []
    return bool(lists) and not any(lists)


def growth_fault(before: Any, after: Any, path: str = "body") -> str | None:
    """Where ``after`` is not ``before`` with more at the ends of its lists; ``None`` if it is.

    The last item of a list may grow itself, since some dialects let messages of one role join.

    >>> growth_fault({"m": [{"c": ["a"]}]}, {"m": [{"c": ["a", "b"]}, {"c": ["d"]}]})
    >>> growth_fault({"m": ["a", "b"]}, {"m": ["a", "x", "b"]}, "")
    '.m[1]: was "b", now "x"'
    """
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        if list(before) != list(after):
            return f"{path}: had the fields {list(before)}, now {list(after)}"
        faults = (growth_fault(before[key], after[key], f"{path}.{key}") for key in before)
        return next((fault for fault in faults if fault is not None), None)
    if isinstance(before, Sequence) and isinstance(after, Sequence) and not isinstance(before, str):
        return _list_fault(before, after, path)
    return None if wire_json(before) == wire_json(after) else _told(before, after, path)


def _list_fault(before: Sequence[Any], after: Sequence[Any], path: str) -> str | None:
    if len(after) < len(before):
        return f"{path}: had {len(before)} items, now {len(after)}"
    for index, (old, new) in enumerate(zip(before, after, strict=False)):
        if wire_json(old) != wire_json(new):
            last = index == len(before) - 1
            here = f"{path}[{index}]"
            return growth_fault(old, new, here) if last else _told(old, new, here)
    return None


def _told(before: Any, after: Any, path: str) -> str:
    was, now = wire_json(before).decode(), wire_json(after).decode()
    same = next(
        (at for at, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), min(len(was), len(now))
    )
    start = max(0, same - 40)
    return f"{path}: was {was[start : same + 40]}, now {now[start : same + 40]}"
