"""The history that goes out, where the session keeps its own beside the host's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..messages import Message
from ..state import State
from .policy import Policy
from .recognition import Entry, Line, Match

__all__ = ["Kept", "Own", "Windows", "is_cleared"]

_STANDING = frozenset({"system", "developer"})


class Kept(NamedTuple):
    """An entry of the own history: its number (never used twice), the object that stands for it, and its message."""

    number: int
    item: Any
    message: Message


class Windows:
    """Recognises a host that cuts off the start of its messages to keep a window.

    Declared, a cut at the very start is one (system messages may stand before it). Else it takes a second one in a row, at the
    same place, with new messages behind it: at the start, or behind the first message of a user, where as many messages as the
    time before are left, or gone and no fewer than are new. All else may be a redaction, and what is redacted is gone.
    """

    def __init__(self) -> None:
        self._last: _Shift | None = None

    def shifts(self, match: Match, line: Line, before: int, declared: bool) -> bool:
        """Whether what is gone was cut off by a trimmer. ``line`` holds the messages now, ``before`` counts those then."""
        if match.relation in ("same", "extension") and not _asks(line.entries[match.same :]):
            return False  # within a turn, in which a host that trims turn by turn has nothing to cut
        last, self._last = self._last, None
        shift = _shift(match, line, before)
        if shift is None:
            return False
        standing = [entry.message.role for entry in line.entries[: shift.place] if not _stands(entry)]
        if declared and not standing:
            return True
        if standing in ([], ["user"]) and shift.new:
            self._last = shift
        if self._last is None or last is None or last.place != shift.place:
            return False
        return last.left == shift.left or (last.gone == shift.gone and shift.new <= shift.gone)


class _Shift(NamedTuple):
    """A cut at one place: how many messages are gone, how many are left behind it, and how many are new at the end."""

    place: int
    gone: int
    left: int
    new: int


def _shift(match: Match, line: Line, before: int) -> _Shift | None:
    """The only thing that became of the messages, if it is a cut."""
    if match.relation != "truncated" or not match.pairs:
        return None
    (now, there), count = match.pairs[0], len(match.pairs)
    runs_on = all(pair == (now + step, there + step) for step, pair in enumerate(match.pairs))
    if not runs_on or now != match.same or there + count != before:
        return None
    return _Shift(now, there - now, count, len(line) - now - count)


def _stands(entry: Entry) -> bool:
    return entry.message.role in _STANDING


def _asks(entries: Sequence[Entry]) -> bool:
    """Whether a turn begins with these messages."""
    return any(entry.message.role == "user" and not entry.message.tool_results for entry in entries)


def is_cleared(message: Message, policy: Policy) -> bool:
    """Whether a message says nothing but what the host puts in place of what it clears.

    >>> is_cleared(Message("user", "[cleared]"), Policy(cleared=("[cleared]",)))
    True
    """
    if not policy.cleared:
        return False
    results = message.tool_results
    texts = [result.content for result in results] if results else [message.text]
    return all(isinstance(text, str) and text.strip() in policy.cleared for text in texts)


class Own:
    """An append-only history beside the host's: what it trims and clears stays, what it edits and deletes is followed.

    ``entries`` are what goes out; ``links`` say for each message of the host's which entry it is, by number.
    """

    def __init__(self) -> None:
        self.entries: list[Kept] = []
        self.links: list[int] = []
        self.states: list[State | None] = []
        self._next = self._made = self._beside = 0
        self._trimmed: set[int] = set()

    @property
    def beside(self) -> int:
        """How many entries go out that the host does not send any more."""
        return self._beside

    def begins(self, before: Sequence[Kept]) -> bool:
        """Whether what goes out now begins with what went out before."""
        return len(before) <= len(self.entries) and all(
            one is other or one.number == other.number
            for one, other in zip(before, self.entries, strict=False)
        )

    def take(
        self,
        match: Match,
        line: Line,
        items: Sequence[Any],
        copied: Callable[[Any], Any],
        *,
        trimmed: bool,
        policy: Policy,
    ) -> tuple[list[Kept], list[int], set[int]]:
        """The entries that follow from a match, the links of the host's messages, and what it has trimmed so far.

        ``line`` holds the host's messages as they are now.
        """
        if match.same == len(self.links):
            new = [self._kept(line, items, index, copied) for index in range(match.same, len(line))]
            links = [*self.links, *(entry.number for entry in new)]
            return [*self.entries, *new], links, self._trimmed
        before, places = self.links, dict(match.pairs)
        places.update((index, index) for index in range(match.same))
        links, made = [], dict[int, Kept]()
        for index, entry in enumerate(line.entries):
            if index in places:
                links.append(before[places[index]])
            elif self._stays(index, places, entry.message, policy):
                links.append(before[index])
            else:
                kept = self._kept(line, items, index, copied)
                made[kept.number] = kept
                links.append(kept.number)
        gone = set(before) - set(links)
        if gone and not trimmed and self._summarized(gone):
            return self._anew(line, items, links, made, copied), links, set()  # what tells of it goes as well
        trimmed_now = self._trimmed | (gone if trimmed else set())
        return self._merged(links, made, trimmed_now), links, trimmed_now

    def _kept(self, line: Line, items: Sequence[Any], index: int, copied: Callable[[Any], Any]) -> Kept:
        self._next += 1
        item = copied(line.shown.get(index, items[index]))
        return Kept(self._next, item, line.entries[index].message)

    def _stays(self, index: int, places: dict[int, int], message: Message, policy: Policy) -> bool:
        """Whether the message in the place of one that was there is what the host clears it to."""
        return index < len(self.links) and index not in places.values() and is_cleared(message, policy)

    def _summarized(self, gone: set[int]) -> bool:
        """Whether something that goes is told of by a summary in its place."""
        there = {entry.number for entry in self.entries}
        return not gone <= there

    def _anew(
        self,
        line: Line,
        items: Sequence[Any],
        links: Sequence[int],
        made: dict[int, Kept],
        copied: Callable[[Any], Any],
    ) -> list[Kept]:
        """The host's messages alone."""
        known = {**{entry.number: entry for entry in self.entries}, **made}
        return [
            known.get(number)
            or Kept(number, copied(line.shown.get(index, items[index])), line.entries[index].message)
            for index, number in enumerate(links)
        ]

    def _merged(self, links: Sequence[int], new: dict[int, Kept], trimmed: set[int]) -> list[Kept]:
        """The old entries that stay, in their order, and the new ones where the host has them."""
        wanted, there = set(links), {entry.number: index for index, entry in enumerate(self.entries)}
        out: list[Kept] = []
        at = 0
        for number in links:
            at = self._flush(out, at, there.get(number), wanted, trimmed)
            if number in new:
                out.append(new[number])
            elif number in there:
                out.append(self.entries[there[number]])
                at = there[number] + 1
        self._flush(out, at, len(self.entries), wanted, trimmed)
        return out

    def _flush(self, out: list[Kept], at: int, until: int | None, wanted: set[int], trimmed: set[int]) -> int:
        """Keep what stands before ``until`` and is the session's alone: trimmed by the host, or a summary of ours."""
        stop = len(self.entries) if until is None else until
        while at < stop:
            entry = self.entries[at]
            if entry.number in wanted and until is None:
                break
            if entry.number in trimmed or entry.number < 0:
                out.append(entry)
            at += 1
        return at

    def known_states(self, entries: Sequence[Kept]) -> list[State | None]:
        """The states behind the first entries that are as they were; the last of them is known."""
        same = 0
        for known, entry in zip(self.entries, entries, strict=False):
            if known is not entry and known.number != entry.number:
                break
            same += 1
        while same and self.states[same - 1] is None:
            same -= 1
        return self.states[:same]

    def commit(
        self,
        entries: Sequence[Kept],
        links: Sequence[int],
        trimmed: set[int],
        states: Sequence[State | None],
    ) -> None:
        """Go on with what ``take`` gave."""
        self.entries, self.links, self._trimmed = list(entries), list(links), trimmed
        self.states = list(states)
        self._beside = sum(entry.number in trimmed or entry.number < 0 for entry in entries) if trimmed else 0

    def replace(self, entries: Sequence[Kept], state: State) -> None:
        """Go on with a compacted history; of its states, the last one is known."""
        self.entries = list(entries)
        self.states = [None] * (len(entries) - 1) + [state]

    def numbered(self) -> int:
        """A number for an entry of the session's own making, which the host knows nothing of."""
        self._made -= 1
        return self._made
