"""Recognising a host's list of messages: what is known of it, and what became of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from ..context import StableContext
from ..messages import Message
from ..snapshot import Snapshot
from ..state import State
from .hosts import Leaves
from .instructions import Seen
from .tooling import Toolbox

__all__ = ["Entry", "Line", "Match", "Relation", "matched", "shared_length"]

Relation = Literal["extension", "same", "edited", "truncated", "summarized", "forked", "new"]


class Entry(msgspec.Struct, frozen=True):
    """One object of the host, read once: what it says, and the state of the history behind it.

    ``shown`` stands in its place where it is not handed on as it is; ``known`` tells whether it could be read; ``marks``
    counts the breakpoints that it came with, where they were set aside to compare it.
    """

    leaves: Leaves
    message: Message
    state: State
    shown: Any = None
    known: bool = True
    marks: int = 0


class Line:
    """The messages of one branch of a host's history, as they were handed over last.

    ``seen`` and ``toolbox`` are what its system texts and tools were, ``context`` the last one. ``asked`` are the requests of this branch that were observed, as (messages sent, requests until then); ``sent`` is the
    last of them.
    """

    __slots__ = (
        "asked", "context", "entries", "items", "leaves", "marks", "notes", "seen", "sent", "shown", "toolbox",
        "unknown",
    )  # fmt: skip

    def __init__(self, entries: Sequence[Entry] = (), items: Sequence[Any] = ()) -> None:
        self.asked: list[tuple[int, int]] = []
        self.sent: Snapshot | None = None
        self.context: StableContext | None = None
        self.seen: Seen = ()
        self.toolbox = Toolbox()
        self.notes: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self.entries: list[Entry] = []
        self.leaves: list[Leaves] = []
        self.items: list[Any] = []
        self.shown: dict[int, Any] = {}
        self.unknown: list[int] = []
        self.marks: dict[int, int] = {}
        self.extend(entries, items)

    def __len__(self) -> int:
        return len(self.entries)

    def extend(self, entries: Sequence[Entry], items: Sequence[Any]) -> None:
        """Take in what follows, and the objects as they are now; work is proportional to what follows."""
        start = len(self.entries)
        self.entries += entries
        self.leaves += [entry.leaves for entry in entries]
        self.items[:] = items
        self.shown.update(
            {start + i: entry.shown for i, entry in enumerate(entries) if entry.shown is not None}
        )
        self.unknown += [start + i for i, entry in enumerate(entries) if not entry.known]
        self.marks.update({start + i: entry.marks for i, entry in enumerate(entries) if entry.marks})

    def branch(self, length: int) -> Line:
        """A line that shares the first ``length`` messages, and the requests that were made of them."""
        line = Line(self.entries[:length], self.items[:length])
        line.asked = [asked for asked in self.asked if asked[0] <= length]
        line.marks = {place: marks for place, marks in self.marks.items() if place < length}
        if length:
            line.context, line.seen, line.toolbox = self.context, self.seen, self.toolbox
        return line

    def takes(self, place: int, leaves: Leaves, marks: int) -> None:
        """Take an object for the one at its place: they differ in the breakpoints that they come with."""
        self.leaves[place] = leaves
        self.marks.pop(place, None)
        if marks:
            self.marks[place] = marks

    def objects(self, items: Sequence[Any]) -> list[Any]:
        """The host's own objects, but for those that something else is shown for."""
        out = list(items)
        for index, shown in self.shown.items():
            out[index] = shown
        return out


class Match(msgspec.Struct, frozen=True):
    """How a list of messages relates to a line.

    The first ``same`` are those of the line; ``pairs`` are further ones that are known, as (place now, place before), in
    order. ``at`` is the first place, before, of what is not as it was.
    """

    relation: Relation
    same: int
    pairs: tuple[tuple[int, int], ...] = ()
    at: int = 0

    @property
    def moved(self) -> bool:
        """Whether messages that were there are gone or others."""
        return self.relation in ("edited", "truncated", "summarized")


def shared_length(before: Sequence[Leaves], now: Sequence[Leaves]) -> int:
    """How many messages both lists begin with, one equality a message.

    >>> shared_length([("a",), ("b",)], [("a",), ("c",)])
    1
    """
    most = min(len(before), len(now))
    if before[:most] == now[:most]:
        return most
    return next(index for index in range(most) if before[index] != now[index])


def matched(line: Line, now: Sequence[Leaves], items: Sequence[Any], same: int) -> Match:
    """What became of a line, by what is there now, of which the first ``same`` messages are known."""
    before = line.leaves
    if same == len(before):
        relation: Relation = "same" if same == len(now) else ("extension" if same else "new")
        return Match(relation, same, at=same)
    if same == len(now):
        return Match("forked" if same else "new", same, at=same)
    pairs = _resumed(before, now, same)
    if not pairs:
        in_place = same < len(line.items) and items[same] is line.items[same]
        none: Relation = "edited" if in_place else ("forked" if same else "new")
        return Match(none, same, at=same)
    return Match(_told(_gaps(pairs, same)), same, tuple(pairs), at=same)


def _resumed(before: Sequence[Leaves], now: Sequence[Leaves], same: int) -> list[tuple[int, int]]:
    """The messages behind the first difference that were there before, in order; each is taken as soon as it can be."""
    places: dict[Leaves, list[int]] = {}
    for index in range(len(before) - 1, same - 1, -1):
        places.setdefault(before[index], []).append(index)
    pairs, least = [], same
    for index in range(same, len(now)):
        found = places.get(now[index])
        while found and found[-1] < least:
            found.pop()
        if found:
            least = found.pop() + 1
            pairs.append((index, least - 1))
    return pairs


def _gaps(pairs: Sequence[tuple[int, int]], same: int) -> list[tuple[int, int]]:
    """In front of what is known: how many messages are new, and how many are gone."""
    gaps, here, there = [], same, same
    for now, before in pairs:
        if now > here or before > there:
            gaps.append((now - here, before - there))
        here, there = now + 1, before + 1
    return gaps


def _told(gaps: Sequence[tuple[int, int]]) -> Relation:
    if any(0 < new < gone for new, gone in gaps):
        return "summarized"
    return "edited" if any(new for new, _ in gaps) else "truncated"
