"""Text that is another one each time: clocks, random ids, sets without an order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import msgspec

__all__ = ["Kind", "Volatile", "is_dynamic", "volatile_at", "volatile_in"]

Kind = Literal["timestamp", "uuid", "random-id", "counter", "unordered"]

_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}\.?"
_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]{0,6}\.?"
_TIME = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[AaPp][Mm])?(?: ?(?:Z|UTC|GMT|[+-]\d{2}:?\d{2}))?"
_DATE = r"\d{4}[-/.]\d{2}[-/.]\d{2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}"
_NAMED = rf"(?:{_DAY},? )?(?:{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}}|\d{{1,2}}(?:st|nd|rd|th)? {_MONTH},? \d{{4}})"
# Each is anchored at borders that digits and letters make, so that a price or a version is none of them.
_PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("uuid", re.compile(r"(?<![0-9A-Za-z])[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![0-9A-Za-z])")),
    (
        "timestamp",
        re.compile(rf"(?<![0-9A-Za-z.])(?:{_DATE}|{_NAMED})(?:(?:[T ,]|, | at ){_TIME})?(?![0-9A-Za-z])"),
    ),
    ("timestamp", re.compile(rf"(?<![0-9A-Za-z:.]){_TIME}(?![0-9A-Za-z:])")),
    ("timestamp", re.compile(r"(?<![0-9A-Za-z.])1[5-9]\d{8}(?:\d{3})?(?:\.\d+)?(?![0-9A-Za-z])")),  # epoch, s or ms
    ("random-id", re.compile(r"(?<![0-9A-Za-z])(?:0x)?(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{12,}(?![0-9A-Za-z])")),
    ("random-id", re.compile(r"(?<![0-9A-Za-z])[a-z]{2,8}[_-](?=[A-Za-z]*\d)(?=\d*[A-Za-z])[0-9A-Za-z]{8,}(?![0-9A-Za-z])")),
    (
        "counter",
        re.compile(r"(?i)(?<![A-Za-z])(?:request|turn|step|attempt|run|trace|session|iteration|nonce|pid)(?: id| no\.?)?\W{0,3}\d+(?![0-9A-Za-z])"),
    ),
)  # fmt: skip
# How programs frame text that they look up or measure anew: ours, and templates of agent frameworks. A tag frames up to
# its end, a line up to its end, and a heading what stands below it.
_TAG = re.compile(
    r"<(context|memory|retrieved|documents?|search_results|environment_details|system-reminder)\b[^>]*>"
)
_LINE = re.compile(r"(?im)^.{0,40}\bcurrent (?:date|time|state|location)\b.*$")
_HEADING = re.compile(
    r"Context information is below|(?i:here are the relevant documents|retrieved (?:context|documents|passages)|"
    r"knowledge base results)"
)
_BELOW = 8_000  # characters below a heading that may be what was looked up
_ITEMS = re.compile(r"[^\s,;|{}\[\]()]+")


class Volatile(msgspec.Struct, frozen=True):
    """A stretch of a text that is another one each time: its kind, and where it stands, in characters.

    >>> next(volatile_in("It is 2026-11-22 10:30:05 now."))
    Volatile(kind='timestamp', start=6, end=25)
    """

    kind: Kind
    start: int
    end: int


def volatile_in(text: str) -> Iterator[Volatile]:
    """The stretches of a text that look volatile, in order; each character is in one of them at most.

    A recognised date may be fixed policy text: what this finds is worth a warning, never a change.

    >>> [found.kind for found in volatile_in("Trace 8f14e45fceea167a5a36dedd4bea2543, run 12, v1.2.3, 100 USD")]
    ['random-id', 'counter']
    """
    found = [
        Volatile(kind, match.start(), match.end())
        for kind, shape in _PATTERNS
        for match in shape.finditer(text)
    ]
    end = 0
    for each in sorted(found, key=lambda each: (each.start, -each.end)):
        if each.start >= end:
            yield each
            end = each.end


def volatile_at(before: str, after: str, offset: int) -> Kind | None:
    """What kind of volatile text stands in both at their first difference, ``offset``; ``None`` if none does.

    >>> volatile_at("Now: 10:30:05.", "Now: 10:31:00.", 9), volatile_at("Price: 10", "Price: 12", 8)
    ('timestamp', None)
    """
    for kind, shape in _PATTERNS:
        starts = {match.start() for match in _covering(shape, before, offset)}
        if any(match.start() in starts for match in _covering(shape, after, offset)):
            return kind
    return "unordered" if _reordered(before, after, offset) else None


_REACH = 80  # characters: no pattern is longer


def _covering(shape: re.Pattern[str], text: str, offset: int) -> Iterator[re.Match[str]]:
    """The matches that the character at ``offset`` belongs to, or directly follows."""
    for match in shape.finditer(text, max(0, offset - _REACH), offset + _REACH):
        if match.start() <= offset <= match.end():
            yield match


def _reordered(before: str, after: str, offset: int) -> bool:
    """Whether the texts hold the same items in another order, from ``offset`` on."""
    if len(before) != len(after):
        return False
    tail = next(
        (i for i in range(1, len(before) - offset + 1) if before[-i] != after[-i]), len(before) - offset + 1
    )
    left, right = _words(before, offset, len(before) - tail + 1), _words(after, offset, len(after) - tail + 1)
    return len(left) > 1 and left != right and sorted(left) == sorted(right)


def _words(text: str, start: int, end: int) -> list[str]:
    """The items of a stretch, widened to whole items."""
    while start > 0 and _ITEMS.fullmatch(text[start - 1]):
        start -= 1
    while end < len(text) and _ITEMS.fullmatch(text[end]):
        end += 1
    return [word.strip("'\"") for word in _ITEMS.findall(text[start:end])]


def is_dynamic(text: str, offset: int | None = None) -> bool:
    """Whether a text is framed as looked up or measured anew; with ``offset``, whether that character is.

    >>> is_dynamic("<context name='clock'>12:00</context>"), is_dynamic("Be kind.")
    (True, False)
    >>> is_dynamic("<memory>Ann</memory> Be kind.", 9), is_dynamic("<memory>Ann</memory> Be kind.", 22)
    (True, False)
    """
    frames = _frames(text)
    return (
        any(True for _ in frames) if offset is None else any(start <= offset < end for start, end in frames)
    )


def _frames(text: str) -> Iterator[tuple[int, int]]:
    for match in _TAG.finditer(text):
        end = text.find(f"</{match[1]}>", match.end())
        yield match.start(), end if end >= 0 else match.end()
    for match in _LINE.finditer(text):
        yield match.start(), match.end() + 1
    for match in _HEADING.finditer(text):
        yield match.start(), match.end() + _BELOW
