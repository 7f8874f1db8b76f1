"""What broke the cache: the first place where a request is not what the one before it was."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import pairwise

import msgspec

from ..bodies import Piece, pieces
from .measured import Sent

__all__ = ["Broken", "what_broke"]

_EXCERPT = 24  # characters before and behind the place
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Broken(msgspec.Struct, frozen=True):
    """A place of the prompt that moved: where it stands, the heading that it stands under, and how often that happened.

    ``offset`` is in characters into the text at ``path``, of the first time; ``before`` and ``after`` are excerpts of it;
    ``computed_tokens`` are those of all requests that parted here.
    """

    path: str
    heading: str
    requests: int
    computed_tokens: int
    offset: int
    before: str
    after: str


def what_broke(sent: Iterable[Sent]) -> list[Broken]:
    """The places where requests parted from the one before them, that which cost most first.

    >>> from .client import Exchange
    >>> def at(time): return json.dumps({"messages": [{"role": "system", "content": f"Be kind. It is {time}."}]}).encode()
    >>> what_broke([Sent(at("9:00"), Exchange(0, 9)), Sent(at("9:01"), Exchange(5, 4))])[0].after
    'Be kind. It is 9:01.'
    """
    found: dict[tuple[str, str], Broken] = {}
    for older, newer in pairwise(sent):
        place = _parted(_pieces(older), _pieces(newer))
        if place is None:
            continue
        path, heading, offset, before, after = place
        first = found.get((path, heading)) or Broken(path, heading, 0, 0, offset, before, after)
        found[path, heading] = msgspec.structs.replace(
            first,
            requests=first.requests + 1,
            computed_tokens=first.computed_tokens + newer.exchange.computed_tokens,
        )
    return sorted(found.values(), key=lambda broken: -broken.computed_tokens)


def _pieces(sent: Sent) -> list[Piece]:
    return pieces(json.loads(sent.body), "openai")


def _parted(older: list[Piece], newer: list[Piece]) -> tuple[str, str, int, str, str] | None:
    """Path, heading, offset and excerpts of the first difference; ``None`` if the newer begins with the older."""
    for was, now in zip(older, newer, strict=False):
        if was.wire != now.wire:
            at = _shared(was.text, now.text)
            return now.path, _heading(now.text, at), at, _excerpt(was.text, at), _excerpt(now.text, at)
    if len(older) > len(newer):
        return older[len(newer)].path, "", 0, _excerpt(older[len(newer)].text, 0), ""
    return None


def _shared(was: str, now: str) -> int:
    pairs = enumerate(zip(was, now, strict=False))
    return next((index for index, (old, new) in pairs if old != new), min(len(was), len(now)))


def _heading(text: str, at: int) -> str:
    above = _HEADING.findall(text, 0, at)
    return str(above[-1]) if above else ""


def _excerpt(text: str, at: int) -> str:
    start, end = max(0, at - _EXCERPT), at + _EXCERPT
    cut = " ".join(text[start:end].split())
    return f"{'…' if start else ''}{cut}{'…' if end < len(text) else ''}"
