"""Dynamic text that somebody declared: marks around it in a prompt, patterns, and callables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import msgspec

from ..errors import MessageError
from .policy import Declared

__all__ = [
    "Change",
    "Moved",
    "dynamic_text",
    "persona",
    "sentence_around",
    "take_out",
    "take_persona",
    "unmarked",
]

# Characters of the block of invisible operators: no framework trims them, no template language knows them, and a model
# that sees them by mistake sees nothing. Four of them spell the name, the fifth stands between the pieces.
_DIGITS = "\u2060\u2061\u2062\u2064"
_EDGE = "\u2063"
_MARKED = re.compile(f"{_EDGE}([{_DIGITS}]*){_EDGE}(.*?){_EDGE}\\1{_EDGE}{_EDGE}", re.DOTALL)
_PERSONA = "\x00"  # before the name, which tells it from dynamic text
_ENDS = (".", "!", "?", '"', ")", "\u3002")
_SPACES = re.compile(r"[ \t\n]+")
_BORDER = re.compile(r"\n+|[.!?][\"')\]]*[ \t]+")


class Change(msgspec.Struct, frozen=True):
    """A planned change of the prefix: a slot that moved to the tail. ``offset`` and ``length`` in characters.

    >>> Change("system[0]", 1868, 20).reason
    'system[0], character 1,868: 20 characters move to the tail'
    """

    path: str
    offset: int
    length: int

    @property
    def reason(self) -> str:
        """What the ledger says."""
        return f"{self.path}, character {self.offset:,}: {self.length:,} characters move to the tail"


class Moved(NamedTuple):
    """A text that goes to the tail: its name, and where it stood, in characters of what was left before it."""

    name: str
    text: str
    offset: int


def dynamic_text(name: str, value: object) -> str:
    """The value between marks that nobody sees, so that an adapter can tell it from the rest of a prompt.

    The marks survive ``str.format``, templates and trimming. ``value`` may be a placeholder that is filled in later.
    Raises ``MessageError`` for a name that is no text.

    >>> text = dynamic_text("now", "{now}").format(now="12:00")
    >>> take_out("It is " + text + ". Be kind.", ())
    ('Be kind.', [Moved(name='now', text='It is 12:00. ', offset=0)])
    >>> unmarked(text)
    '12:00'
    """
    if not isinstance(name, str) or not name:
        raise MessageError(f"the name of dynamic text is {name!r}: give a text that tells what it is")
    return _between(name, value)


def persona(text: object, name: str = "persona") -> str:
    """A member's own instructions between marks that nobody sees: what sets it apart from the others of its team.

    Where members share one prefix, they stand at the end of the prompt, with the sentence around them; else they stay where
    they are. The marks survive what those of ``dynamic_text`` do, and are taken off in every mode but ``observe``, where an
    adapter takes them off by ``unmarked`` before it hands over the prompt. Raises ``MessageError`` for a name that is no text.

    >>> prompt = persona("You are the critic.") + " Be kind."
    >>> take_out(prompt, ())
    ('You are the critic. Be kind.', [])
    >>> take_persona(prompt)
    ('Be kind.', 'You are the critic. ')
    """
    if not isinstance(name, str) or not name:
        raise MessageError(f"the name of a persona is {name!r}: give a text that tells what it is")
    return _between(_PERSONA + name, text)


def _between(name: str, value: object) -> str:
    spelled = "".join(_DIGITS[byte >> shift & 3] for byte in name.encode() for shift in (6, 4, 2, 0))
    return f"{_EDGE}{spelled}{_EDGE}{value}{_EDGE}{spelled}{_EDGE}{_EDGE}"


def _name(spelled: str) -> str:
    digits = [_DIGITS.index(each) for each in spelled]
    groups = [digits[start : start + 4] for start in range(0, len(digits) - 3, 4)]
    return bytes(a << 6 | b << 4 | c << 2 | d for a, b, c, d in groups).decode(errors="replace")


def is_marked(text: str) -> bool:
    """Whether there may be marks in a text."""
    return _EDGE in text


def unmarked(text: str) -> str:
    """The text without marks, all values in their places."""
    while _EDGE in text:
        plain = _MARKED.sub(lambda match: match[2], text)
        if plain == text:
            break
        text = plain
    return text


def sentence_around(text: str, start: int, end: int) -> tuple[int, int]:
    """The stretch widened to whole sentences or lines, by what stands outside of it alone.

    >>> text = "Be kind. It is 12:00 now. Be brief."
    >>> text[slice(*sentence_around(text, 15, 20))]
    'It is 12:00 now. '
    """
    left = 0
    for border in _BORDER.finditer(text, 0, start):
        left = border.end()
    right = _BORDER.search(text, end)
    return left, len(text) if right is None else right.end()


def sentences(text: str) -> list[str]:
    r"""The sentences and lines of a text, each with the space behind it; joined, they are the text.

    >>> sentences("One. Two\nThree")
    ['One. ', 'Two\n', 'Three']
    """
    borders = [0, *(border.end() for border in _BORDER.finditer(text)), len(text)]
    return [text[one:two] for one, two in pairwise(borders) if two > one]


def begins_sentence(text: str, place: int) -> bool:
    """Whether a sentence or line begins at ``place``.

    >>> begins_sentence("One. Two", 5), begins_sentence("One two", 4)
    (True, False)
    """
    before = place - 1
    while before >= 0 and text[before] in " \t":
        before -= 1
    while before >= 0 and before < place - 1 and text[before] in "\"')]":
        before -= 1
    return before < 0 or text[before] == "\n" or (before < place - 1 and text[before] in ".!?")


def take_out(text: str, declared: Iterable[Declared]) -> tuple[str, list[Moved]]:
    """The text without what was declared dynamic, and what was taken out, in order."""
    out: list[Moved] = []
    if _EDGE in text:
        text, out = _cut(text, _marked(text))
        text = unmarked(text)
    for each in declared:
        text, more = _cut(text, _found(text, each))
        out += more
    return text, [moved._replace(text=unmarked(moved.text)) for moved in out]


def take_persona(text: str) -> tuple[str, str]:
    """The text without the members' own instructions, and those; marks of dynamic text stay in both."""
    if _EDGE not in text:
        return text, ""
    text, found = _cut(text, _personas(text))
    return text, _MARKED.sub(_bare, "".join(each.text for each in found))


def _bare(match: re.Match[str]) -> str:
    """What stands between marks, if those are of a persona."""
    return match[2] if _name(match[1]).startswith(_PERSONA) else match[0]


def _personas(text: str) -> Iterator[tuple[str, int, int]]:
    for match in _MARKED.finditer(text):
        if _name(match[1]).startswith(_PERSONA):
            left, right = sentence_around(text, match.start(), match.end())
            if match[2].rstrip().endswith(_ENDS):  # whole sentences: what follows is another one
                spaces = _SPACES.match(text, match.end())
                right = match.end() if spaces is None else spaces.end()
            yield ("persona", left, right)


def _marked(text: str) -> Iterator[tuple[str, int, int]]:
    for match in _MARKED.finditer(text):
        name = _name(match[1])
        if not name.startswith(_PERSONA):
            yield (name, *sentence_around(text, match.start(), match.end()))


def _found(text: str, declared: Declared) -> Iterator[tuple[str, int, int]]:
    if isinstance(declared, str | re.Pattern):
        for match in re.finditer(declared, text):
            yield (match.lastgroup or "text", *match.span(match.lastgroup or 0))
    else:
        yield from declared(text)


def _cut(text: str, spans: Iterable[tuple[str, int, int]]) -> tuple[str, list[Moved]]:
    """Take stretches out; those that overlap go as one, by the name of the first."""
    merged: list[tuple[str, int, int]] = []
    for name, start, end in sorted(spans, key=lambda span: span[1:]):
        if merged and start < merged[-1][2]:
            merged[-1] = (merged[-1][0], merged[-1][1], max(merged[-1][2], end))
        elif 0 <= start < end <= len(text):
            merged.append((name, start, end))
    kept, out, at, length = [], [], 0, 0
    for name, start, end in merged:
        kept.append(text[at:start])
        length += start - at
        out.append(Moved(name, text[start:end], length))
        at = end
    return "".join([*kept, text[at:]]), out
