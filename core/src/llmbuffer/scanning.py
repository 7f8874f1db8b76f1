"""Volatile text in what is stable: clocks, random ids and unordered sets in segments and tools."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from threading import Lock

from .breaks.volatile import volatile_in
from .context import StableContext
from .forecast import Detail
from .tools import Tool

__all__ = ["volatile_details"]

_MOST = 16  # that are told of one context
_REMEMBERED = 1024  # contexts whose findings are kept; the one used longest ago goes first
_DAY_AND_TIME = (
    15  # characters: 2026-11-22 10:30; a tool's description shows dates alone as examples of its arguments
)
# Numbered steps are fixed text in many prompts; what counts up with each run has more digits or another name.
_STEPS = re.compile(r"(?i)(?:step|turn|attempt|iteration)|\D*\d$")
_ITEM = r"(?:'[^'\n]{0,80}'|\"[^\"\n]{0,80}\"|-?\d+(?:\.\d+)?)"
_SET = re.compile(rf"\{{{_ITEM}(?:, {_ITEM})+\}}")  # how Python shows a set; a mapping has colons

_known: OrderedDict[str, tuple[Detail, ...]] = OrderedDict()
_lock = Lock()


def volatile_details(context: StableContext) -> tuple[Detail, ...]:
    """What looks volatile in stable segments and tools, in prompt order, 16 findings at most. Looked for once a context.

    A recognised date may be fixed policy text: it is worth a warning, never a change. Of a tool, a date or an hour alone is
    left out, and so are numbered steps.

    >>> from llmbuffer import Segment
    >>> context = StableContext("gpt-5.5", [Segment("policy", "It is 2026-11-22 10:30:05.")])
    >>> [(found.name, found.kind, found.offset) for found in volatile_details(context)]
    [('policy', 'timestamp', 6)]
    """
    key = context.fingerprint
    with _lock:
        found = _known.get(key)
        if found is not None:
            _known.move_to_end(key)
            return found
    found = tuple(each for each, _ in zip(_scan(context), range(_MOST), strict=False))
    with _lock:
        _known[key] = found
        while len(_known) > _REMEMBERED:
            _known.popitem(last=False)
    return found


def _scan(context: StableContext) -> Iterator[Detail]:
    for tool in context.tools:
        for path, text in _texts(tool):
            for kind, start, end in _found(text):
                if kind in ("uuid", "random-id") or end - start >= _DAY_AND_TIME:
                    yield Detail("volatile-in-prefix", "tools", tool.name, kind, path, start, end - start)
    for segment in context.segments:
        for kind, start, end in _found(segment.content):
            yield Detail("volatile-in-prefix", "system", segment.name, kind, "content", start, end - start)


def _texts(tool: Tool) -> Iterator[tuple[str, str]]:
    if tool.description:
        yield "description", tool.description
    if tool.parameters:
        yield "parameters", tool.parameters.decode()
    if tool.opaque is not None:
        yield "definition", tool.opaque.json.decode()


def _found(text: str) -> Iterator[tuple[str, int, int]]:
    sets = [("unordered", each.start(), each.end()) for each in _SET.finditer(text) if _shuffled(each[0])]
    clocks = [
        (each.kind, each.start, each.end)
        for each in volatile_in(text)
        if each.kind != "counter" or not _STEPS.match(text[each.start : each.end])
    ]
    yield from sorted([*sets, *clocks], key=lambda each: each[1])


def _shuffled(shown: str) -> bool:
    items = re.findall(_ITEM, shown[1:-1])
    return items != sorted(items)
