"""Lint of prompts: texts and request bodies, in the places that should not change."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..bodies import pieces
from ..breaks.volatile import is_dynamic, volatile_in
from ..errors import MessageError
from ..explaining import wire_of
from .findings import RULES, Finding

__all__ = ["PLACEHOLDER", "lint_body", "lint_text"]

_RULE_OF = {"timestamp": "LB101", "uuid": "LB102", "random-id": "LB103", "counter": "LB104"}
# How Python prints a set of texts, and an object without a repr of its own.
_PRINTED = re.compile(
    r"\{(?:'[^'\n]{1,80}'|\"[^\"\n]{1,80}\")(?:, (?:'[^'\n]{1,80}'|\"[^\"\n]{1,80}\"))+\}|<[\w.]+ object at 0x[0-9a-f]+>"
)
_NAMES = (
    r"(?:(?:current|todays?|now|present)_?)?(?:date|time|datetime|date_time|timestamp)|now|today|"
    r"(?:request|trace|run|turn|step)_?(?:id|number|count)|uuid\d?|nonce"
)
# A place of a template: {name}, {{ name }}, ${name}, {{ now() }}.
PLACEHOLDER = re.compile(
    rf"(?i)(?:\$\{{|\{{\{{?)\s*(?P<name>{_NAMES})(?:\(\))?\s*(?:\|[^{{}}]*|:[^{{}}]*)?\}}\}}?"
)


def lint_text(text: str, *, path: str = "", place: str | None = None) -> list[Finding]:
    """What looks volatile in a text that should be stable: times, ids, counters, printed sets, places of a template.

    ``path`` and ``place`` are named in the findings. Fixed policy text may hold dates, so these are warnings.

    >>> [found.rule for found in lint_text("You are kind. Today is {current_date}. Trace 8f14e45fceea167a5a36dedd.")]
    ['LB008', 'LB103']
    """
    return sorted(_in_text(text, path, place))


def _in_text(text: str, path: str, place: str | None) -> Iterator[Finding]:
    for found in volatile_in(text):
        yield _finding(_RULE_OF[found.kind], text, found.start, path, place)
    for match in _PRINTED.finditer(text):
        yield _finding("LB105", text, match.start(), path, place)
    for match in PLACEHOLDER.finditer(text):
        yield _finding("LB008", text, match.start(), path, place)
    if is_dynamic(text):
        yield _finding("LB106", text, 0, path, place)


def _finding(rule: str, text: str, start: int, path: str, place: str | None) -> Finding:
    title = RULES[rule].title
    if place is not None:
        return Finding(path, 1, 1, rule, f"{title}: {place}, character {start:,}", None, f"{place}:{start}")
    line = text.count("\n", 0, start) + 1
    return Finding(path, line, start - (text.rfind("\n", 0, start) + 1) + 1, rule, title)


def lint_body(body: Mapping[str, Any], *, path: str = "") -> list[Finding]:
    """What looks volatile in the tools and the system text of a request body of any dialect; its messages may change.

    Raises ``MessageError`` for what is no request body.

    >>> body = {"messages": [{"role": "system", "content": "It is 10:30:05."}, {"role": "user", "content": "At 11:00?"}]}
    >>> [(found.rule, found.place) for found in lint_body(body)]
    [('LB101', 'messages[0].content:6')]
    """
    found: list[Finding] = []
    for piece in pieces(body, wire_of(body)):
        if piece.section != "messages":
            found += lint_text(piece.text, path=path, place=piece.path)
    return sorted(found)


def bodies_in(text: str, *, lines: bool) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The request bodies of a JSON file, or of the lines of a log, with their line; others are left out."""
    for number, one in enumerate(text.splitlines() if lines else [text], 1):
        try:
            value = json.loads(one)
        except (ValueError, RecursionError):
            continue
        inner = value.get("body") if isinstance(value, Mapping) else None
        found = inner if isinstance(inner, Mapping) else value
        if isinstance(found, Mapping) and _is_body(found):
            yield number, found


def _is_body(value: Mapping[str, Any]) -> bool:
    try:
        wire_of(value)
    except MessageError:
        return False
    return True
