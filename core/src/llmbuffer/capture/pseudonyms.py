"""Pseudonyms for texts: what stands in a log in place of prompt text.

A pseudonym is a keyed digest, written in common words. It is about as long as the text and takes about as many tokens, so
that cache models and ``explain`` work on it. Whoever does not have the key can neither read nor guess the text.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from hashlib import blake2b
from threading import Lock

from ..breaks.volatile import volatile_in

__all__ = ["PIECE", "Pseudonyms"]

PIECE = 64  # characters: two texts that share so many from the start share their pseudonyms' start
_DIGEST = 8  # a space and seven letters, 33 bits, behind the last piece
_CACHED = 16_000_000  # characters of pseudonyms that are kept
_LONGEST_JSON = 1_000_000  # characters of a text that is looked at as JSON
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Each is one token behind a space in the common encodings, by length from 2 to 9 letters. None of them makes a text look
# volatile or dynamic.
_WORDS = tuple(
    tuple(f" {word}" for word in line.split())
    for line in (
        "of to in is it as at be by or we he my up us an",
        "the and for are but not you all can her was one our out day get",
        "that with have this will your from they know want been good much some very when",
        "about other which their there first would these place right small water where after every sound",
        "people should before little around animal mother answer school father better garden number always letter second",
        "through another country picture between example evening morning problem weather nothing program history teacher subject brother",
        "together children mountain question sentence complete computer industry language building hospital business research possible practice favorite",
        "important different something sometimes following beautiful community education knowledge president professor available character operation political statement",
    )
)
# What frames text that is looked up anew stays, or nobody could tell it from other text: see `breaks.volatile.is_dynamic`.
_TAG = re.compile(
    r"(</?(?:context|memory|retrieved|documents?|search_results|environment_details|system-reminder)\b)[^>]*(>)"
)
_LINE = re.compile(r"(?im)^.{0,40}\b(current (?:date|time|state|location))\b.*$")
_HEADING = re.compile(
    r"Context information is below|(?i:here are the relevant documents|retrieved (?:context|documents|passages)|"
    r"knowledge base results)"
)
_EPOCH = re.compile(r"1[5-9]\d{8}")
_JSON_PIECES = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?')


class Pseudonyms:
    """Pseudonyms under one ``key`` (16 to 64 bytes). Threads may share it.

    ``count`` gives the tokens of a text. Equal texts have equal pseudonyms, different ones differ, and texts that share
    their first characters share their pseudonyms' first ones, to within 64. Clocks, ids and counters become others of
    their kind, at the same place; JSON keeps its structure and the order of its keys; the words that frame looked-up text
    (``<context>``, ``current time``) stay. A pseudonym is at most 8 characters longer than its text.

    >>> names = Pseudonyms(b"0123456789abcdef", count=lambda text: len(text) // 4)
    >>> names.text("Be kind.") == names.text("Be kind."), "kind" in names.text("Be kind. " * 40)
    (True, False)
    """

    def __init__(self, key: bytes, count: Callable[[str], int]) -> None:
        self._key, self._count = key, count
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._kept = 0
        self._lock = Lock()

    @property
    def id(self) -> str:
        """Names the key without telling it: pseudonyms of one id can be compared."""
        return blake2b(b"id", key=self._key, digest_size=6).hexdigest()

    def text(self, text: str) -> str:
        """The pseudonym of a text; of an empty one, the empty text."""
        if not text:
            return text
        digest = self._digest(b"text", text)
        with self._lock:
            known = self._known.get(digest)
            if known is not None:
                self._known.move_to_end(digest)
                return known
        made = self._json(text) if _is_json(text) else self._plain(text, digest)
        with self._lock:
            if digest not in self._known:
                self._known[digest] = made
                self._kept += len(made)
            while self._kept > _CACHED and len(self._known) > 1:
                self._kept -= len(self._known.popitem(last=False)[1])
        return made

    def token(self, value: str) -> str:
        """A short name for data that is no text, such as a picture."""
        return _letters(self._digest(b"token", value), 20)

    def number(self, written: str) -> str:
        """A number of the same form with other digits; a sign, a point and an exponent stay where they are."""
        digits, sign, exponent = written.partition("e" if "e" in written else "E")
        made = self._swapped_digits(digits)
        place = next(place for place, char in enumerate(digits) if char.isdigit())
        if made[place] == "0" and digits[place : place + 2] not in ("0", "0."):
            made = made[:place] + "1" + made[place + 1 :]  # no number begins with a zero
        return made + sign + exponent

    def _digest(self, kind: bytes, text: str) -> bytes:
        return blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, person=kind).digest()

    def _plain(self, text: str, digest: bytes) -> str:
        out, at = [], 0
        for start, end, volatile in _stretches(text):
            out.append(self._run(text[at:start], ends=True))
            stretch = text[start:end]
            out.append(self._disguised(stretch) if volatile else stretch)
            at = end
        rest = len(text) - at
        last = at + rest - rest % PIECE
        out.append(self._run(text[at:last], ends=False))
        out.append(self._filled(text[last:], len(text) - last - _DIGEST, _DIGEST // 2))
        name = _letters(digest, _DIGEST - 1)
        joined = "".join(out)
        return f"{joined} {name}" if joined else name

    def _run(self, text: str, *, ends: bool) -> str:
        """The pieces of a stretch; the signs at its ends stay where something that has to be recognised follows."""
        pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
        made = "".join(self._filled(piece, len(piece), 0) for piece in pieces)
        if made and not _is_wordlike(text[0]):
            made = text[0] + made[1:]
        if made and ends:
            made = made[:-1] + (" " if _is_wordlike(text[-1]) else text[-1])
        return made

    def _filled(self, piece: str, length: int, fewer: int) -> str:
        """Words that stand for a piece, of so many characters, in as many tokens as it has, ``fewer`` less."""
        if length <= 0:
            return ""
        digest = self._digest(b"piece", piece)
        tokens = max(1, self._count(piece) - fewer)
        if (
            3 * tokens > length
        ):  # more tokens than words have room for: single digits take two characters and two tokens
            words = max(0, length - tokens) // 2
            pairs = (length - 3 * words) // 2
            made = "".join(_WORDS[0][byte % 16] for byte in digest[:words])
            made += "".join(f" {byte % 10}" for byte in digest[words : words + pairs])
            return made.ljust(length)[:length]
        units = max(tokens, -(-length // 10))
        size, longer = divmod(length, units)
        sizes = (size + (number < longer) for number in range(units))
        return "".join(_WORDS[each - 3][digest[number % 64] % 16] for number, each in enumerate(sizes))

    def _disguised(self, text: str) -> str:
        """Another stretch of the same kind: digits give way to digits, those of an id its letters to letters."""
        digest = self._digest(b"volatile", text)
        spared = 2 if text.startswith("0x") or _EPOCH.match(text) else 0
        is_id = _is_id(text)
        return "".join(
            char if place < spared else _swapped(char, digest[place % 64] + place, is_id)
            for place, char in enumerate(text)
        )

    def _swapped_digits(self, text: str) -> str:
        digest = self._digest(b"number", text)
        return "".join(_swapped(char, digest[place % 64], False) for place, char in enumerate(text))

    def _json(self, text: str) -> str:
        """JSON with other strings and numbers; its keys stay in order, its spaces and signs where they are."""

        def swap(match: re.Match[str]) -> str:
            found = match[0]
            return json.dumps(self.text(json.loads(found))) if found.startswith('"') else self.number(found)

        return _JSON_PIECES.sub(swap, text)


def _stretches(text: str) -> Iterator[tuple[int, int, bool]]:
    """What is to be recognised in a text: (start, end, whether it is volatile), in order."""
    found = [(each.start, each.end, True) for each in volatile_in(text)]
    for match in _TAG.finditer(text):
        found += [(*match.span(1), False), (*match.span(2), False)]
    for match in _LINE.finditer(text):
        found += [(max(0, match.start() - 1), match.start(), False), (*match.span(1), False)]
        found.append((match.end(), min(len(text), match.end() + 1), False))
    found += [(*match.span(), False) for match in _HEADING.finditer(text)]
    at = 0
    for start, end, volatile in sorted(found):
        if start >= at and end > start:
            yield start, end, volatile
            at = end


def _is_json(text: str) -> bool:
    if text[0] not in "{[" or len(text) > _LONGEST_JSON:
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_wordlike(char: str) -> bool:
    return char.isalnum() or char == "_"


def _is_id(text: str) -> bool:
    """Whether the letters of a volatile stretch are random, too; those of dates and of ``turn 3`` are not."""
    return not re.search(r"[\s:/,.]", text) and any(char.isalpha() for char in text) and len(text) >= 11


def _swapped(char: str, number: int, letters: bool) -> str:
    if char in "0123456789":
        return str(number % 10)
    if letters and char in "abcdef":
        return "abcdef"[number % 6]
    if letters and char in "ABCDEF":
        return "ABCDEF"[number % 6]
    if letters and "a" <= char <= "z":
        return _LETTERS[number % 26]
    if letters and "A" <= char <= "Z":
        return _LETTERS[number % 26].upper()
    return char


def _letters(digest: bytes, length: int) -> str:
    number = int.from_bytes(digest, "big")
    out = []
    for _ in range(length):
        number, place = divmod(number, 26)
        out.append(_LETTERS[place])
    return "".join(out)
