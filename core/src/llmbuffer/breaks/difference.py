"""Where two prompts part, and why: pieces compared in the order in which the provider renders them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from ..bodies import Piece
from ..bodies.formats import further_fields
from ..bodies.piece import unmarked
from ..frozen import wire_json
from ..rules import CacheRules, Section
from ..snapshot import shared_length
from .record import Cause
from .values import Parting, at, part, same_values
from .volatile import is_dynamic, volatile_at

__all__ = ["Difference", "cut", "differ"]

_IMAGES = frozenset({"image", "image_url", "input_image"})


class Difference(msgspec.Struct, frozen=True):
    """The first place where ``after`` leaves what ``before`` said, in prompt order.

    ``path`` is a place in the body of ``after`` (of ``before`` for what was taken away), ``offset`` counts characters into
    its value; ``index`` counts the pieces that both share. ``before`` and ``after`` are the differing values as text.
    """

    cause: Cause
    section: Section
    path: str
    offset: int = 0
    before: str = ""
    after: str = ""
    index: int = 0
    also: tuple[tuple[Cause, str], ...] = ()


class _Side:
    """One body, in pieces by section."""

    def __init__(self, body: Mapping[str, Any], found: Sequence[Piece], rules: CacheRules) -> None:
        self.body = body
        self.sections: dict[Section, list[Piece]] = {name: [] for name in rules.section_order}
        for piece in found:
            self.sections.setdefault(piece.section, []).append(piece)


def differ(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    pieces: tuple[Sequence[Piece], Sequence[Piece]],
    rules: CacheRules,
    params: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {}),
    message_params: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {}),
) -> Difference | None:
    """The first difference of two bodies of one wire format, or ``None`` if ``after`` begins with all of ``before``.

    ``pieces`` are those of both bodies; ``params`` the cache-relevant parameters of both, ``message_params`` those that
    only the messages depend on. A body that ends within the other has no difference: see ``cut``.
    """
    found = list(
        _differences(
            _Side(before, pieces[0], rules), _Side(after, pieces[1], rules), rules, params, message_params
        )
    )
    if not found:
        return None
    return msgspec.structs.replace(found[0], also=tuple((each.cause, each.path) for each in found[1:]))


def cut(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    pieces: tuple[Sequence[Piece], Sequence[Piece]],
    rules: CacheRules,
) -> Difference | None:
    """What was taken off the end of ``before``, for two bodies without a difference; ``None`` if ``after`` has all of it.

    Caches that match the longest prefix read all of ``after`` nevertheless; those that read whole entries only may not.
    """
    sides = _Side(before, pieces[0], rules), _Side(after, pieces[1], rules)
    left, right = (side.sections["messages"] for side in sides)
    if len(right) >= len(left):
        return None
    looked_up = all(is_dynamic(piece.text) for piece in left[len(right) :])
    at_hand = _Parted("messages", left, right, len(right), before, after)
    found = at_hand.gone("dynamic-in-prefix" if looked_up else "history-truncated", left[len(right)].text)
    order = rules.section_order
    ahead = sum(len(sides[0].sections[name]) for name in order[: order.index("messages")])
    return msgspec.structs.replace(found, index=ahead + found.index)


def _differences(
    before: _Side,
    after: _Side,
    rules: CacheRules,
    params: tuple[Mapping[str, Any], Mapping[str, Any]],
    message_params: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> Iterator[Difference]:
    first = rules.section_order[0]
    if before.body.get("model") != after.body.get("model"):
        old, new = str(before.body.get("model", "")), str(after.body.get("model", ""))
        yield Difference("model-changed", first, "model", shared_length(old, new), old, new)
    yield from _params(params, first, 0)
    index = 0
    for section in rules.section_order:
        if section == "messages":
            yield from _params(message_params, section, index)
        left, right = before.sections[section], after.sections[section]
        found = _in_section(section, left, right, before.body, after.body)
        if found is not None:
            yield msgspec.structs.replace(found, index=index + found.index)
        index += len(left)


def _params(
    both: tuple[Mapping[str, Any], Mapping[str, Any]], section: Section, index: int
) -> Iterator[Difference]:
    before, after = both
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if not same_values(old, new):
            yield _parted("params-changed", section, part(old, new, name), index)


def _parted(cause: Cause, section: Section, parting: Parting, index: int) -> Difference:
    return Difference(cause, section, parting.path, parting.offset, parting.before, parting.after, index)


def _in_section(
    section: Section,
    left: Sequence[Piece],
    right: Sequence[Piece],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> Difference | None:
    same = next(
        (
            number
            for number, pair in enumerate(zip(left, right, strict=False))
            if pair[0].wire != pair[1].wire
        ),
        min(len(left), len(right)),
    )
    if same == len(left) == len(right) or (section == "messages" and same in (len(left), len(right))):
        return None
    reader = {"tools": _tools, "system": _system, "messages": _messages}[section]
    return reader(_Parted(section, left, right, same, before, after))


class _Parted(NamedTuple):
    """A section of two bodies whose pieces agree up to ``same``."""

    section: Section
    left: Sequence[Piece]
    right: Sequence[Piece]
    same: int
    before: Mapping[str, Any]
    after: Mapping[str, Any]

    @property
    def old(self) -> Piece | None:
        return self.left[self.same] if self.same < len(self.left) else None

    @property
    def new(self) -> Piece | None:
        return self.right[self.same] if self.same < len(self.right) else None

    def gone(self, cause: Cause, before: str, after: str = "") -> Difference:
        """What stood here is gone."""
        return Difference(cause, self.section, self.left[self.same].path, 0, before, after, self.same)

    def came(self, cause: Cause, before: str, after: str) -> Difference:
        """Something else stands here."""
        return Difference(cause, self.section, self.right[self.same].path, 0, before, after, self.same)

    def changed(self, cause: Cause) -> Difference:
        """Why one piece is another one now."""
        left, right = self.left[self.same], self.right[self.same]
        if left.role != right.role:
            path = _message_of(right.path)
            return Difference(cause, self.section, path, 0, left.role, right.role, self.same)
        parting = self._parting(left, right)
        if left.kind in _IMAGES or right.kind in _IMAGES:
            cause = "image-changed"
        elif parting.spelling:
            cause = "serialization-changed"
        elif volatile_at(parting.before, parting.after, parting.offset) is not None:
            cause = "volatile-in-prefix"
        elif is_dynamic(parting.before, parting.offset) and is_dynamic(parting.after, parting.offset):
            cause = "dynamic-in-prefix"
        return _parted(cause, self.section, parting, self.same)

    def _parting(self, left: Piece, right: Piece) -> Parting:
        """Where two pieces part: in what they say, else in a field of their message, which its first piece carries."""
        one, two = at(self.before, left.path), at(self.after, right.path)
        path, place = _message_of(right.path), right.path.partition("[")[0]
        old, new = at(self.before, _message_of(left.path)), at(self.after, path)
        if _say_the_same(one, two) and isinstance(old, Mapping) and isinstance(new, Mapping):
            fields, others = further_fields(old, place), further_fields(new, place)
            if wire_json(fields) != wire_json(others):
                return part(fields, others, path)
        return part(one, two, right.path)


def _say_the_same(one: Any, two: Any) -> bool:
    """Whether two parts are the same but for their breakpoints."""
    both = [
        unmarked(each) if isinstance(each, Mapping) else {"type": "text", "text": each} for each in (one, two)
    ]
    return wire_json(both[0]) == wire_json(both[1])


def _message_of(path: str) -> str:
    return path.partition("].")[0] + "]" if "]." in path else path


# Tools


def _tools(at_hand: _Parted) -> Difference:
    old_names = [_name(piece, at_hand.before) for piece in at_hand.left]
    new_names = [_name(piece, at_hand.after) for piece in at_hand.right]
    old = None if at_hand.old is None else old_names[at_hand.same]
    new = None if at_hand.new is None else new_names[at_hand.same]
    if Counter(piece.wire for piece in at_hand.left) == Counter(piece.wire for piece in at_hand.right):
        return at_hand.came("tools-reordered", old or "", new or "")
    if new is not None and (old is None or new not in old_names):
        return at_hand.came("tools-added", "", new)
    if old is not None and (new is None or old not in new_names):
        return at_hand.gone("tools-removed", old)
    if old == new:
        return at_hand.changed("tool-schema-changed")
    return at_hand.came("tools-reordered", old or "", new or "")


def _name(piece: Piece, body: Mapping[str, Any]) -> str:
    tool = at(body, piece.path)
    tool = tool if isinstance(tool, Mapping) else {}
    inner = tool.get("function", tool)
    inner = inner if isinstance(inner, Mapping) else tool
    return str(inner.get("name") or tool.get("type") or "")


# System text


def _system(at_hand: _Parted) -> Difference:
    old, new = at_hand.old, at_hand.new
    if old is None and new is not None:
        return at_hand.came(_cause(new, "system-changed"), "", new.text)
    if new is None and old is not None:
        return at_hand.gone(_cause(old, "system-changed"), old.text)
    return at_hand.changed("system-changed")


def _cause(piece: Piece, otherwise: Cause) -> Cause:
    return "dynamic-in-prefix" if is_dynamic(piece.text) else otherwise


# Messages


def _messages(at_hand: _Parted) -> Difference:
    left, right, same = at_hand.left, at_hand.right, at_hand.same
    old, new = [piece.wire for piece in left], [piece.wire for piece in right]
    inserted = _resumes(old, same, new, same + 1)
    dropped = _resumes(new, same, old, same + 1)
    if dropped is not None and (inserted is None or dropped <= inserted):
        looked_up = all(is_dynamic(piece.text) for piece in left[same:dropped])
        return at_hand.gone("dynamic-in-prefix" if looked_up else "history-truncated", left[same].text)
    if inserted is not None:
        looked_up = all(is_dynamic(piece.text) for piece in right[same:inserted])
        return at_hand.came("dynamic-in-prefix" if looked_up else "history-edited", "", right[same].text)
    if same + 1 < len(right) and _replaced_run(old, new, same):
        return at_hand.gone("history-truncated", left[same].text, right[same].text)
    return at_hand.changed("history-edited")


_SURE = 3  # pieces that must agree, where there are so many, before two stretches count as the same


def _resumes(one: Sequence[bytes], start: int, other: Sequence[bytes], search: int) -> int | None:
    """Where ``one[start:]`` goes on in ``other``, at ``search`` or later."""
    for place in range(search, len(other)):
        if other[place] == one[start]:
            run = min(_SURE, len(one) - start, len(other) - place)
            if list(one[start : start + run]) == list(other[place : place + run]):
                return place
    return None


def _replaced_run(old: Sequence[bytes], new: Sequence[bytes], same: int) -> bool:
    """Whether more than one piece gave way to a single one, behind which the history goes on."""
    place = _resumes(new, same + 1, old, same + 1)
    return place is not None and place > same + 1
