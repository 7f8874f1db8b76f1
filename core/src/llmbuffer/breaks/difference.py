"""Where two prompts part, and why: pieces compared in the order in which the provider renders them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ..bodies import Piece
from ..rules import CacheRules, Section
from .record import Cause
from .values import Parting, at, part, same_values, shared_length
from .volatile import is_dynamic, volatile_at

__all__ = ["Difference", "differ"]

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
    only the messages depend on. A body that ends within the other has no difference: all of it can be read.
    """
    found = list(
        _differences(
            _Side(before, pieces[0], rules), _Side(after, pieces[1], rules), rules, params, message_params
        )
    )
    if not found:
        return None
    return msgspec.structs.replace(found[0], also=tuple((each.cause, each.path) for each in found[1:]))


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
    return reader(left, right, same, before, after)


# Tools


def _tools(
    left: Sequence[Piece],
    right: Sequence[Piece],
    same: int,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> Difference:
    old, new = _by_name(left, before), _by_name(right, after)
    if Counter(piece.wire for piece in left) == Counter(piece.wire for piece in right):
        return Difference(
            "tools-reordered",
            "tools",
            right[same].path,
            0,
            _name(left[same], before),
            _name(right[same], after),
            same,
        )
    added, removed = [name for name in new if name not in old], [name for name in old if name not in new]
    here_new = _name(right[same], after) if same < len(right) else None
    here_old = _name(left[same], before) if same < len(left) else None
    if here_new is not None and here_new in added:
        return Difference("tools-added", "tools", right[same].path, 0, "", here_new, same)
    if here_old is not None and here_old in removed:
        return Difference("tools-removed", "tools", left[same].path, 0, here_old, "", same)
    if here_old is None or here_new is None:  # one of two tools of one name
        cause: Cause = "tools-added" if here_old is None else "tools-removed"
        path = right[same].path if here_old is None else left[same].path
        return Difference(cause, "tools", path, 0, here_old or "", here_new or "", same)
    if here_old == here_new:
        return _changed("tools", "tool-schema-changed", left[same], right[same], same, before, after)
    return Difference("tools-reordered", "tools", right[same].path, 0, here_old, here_new, same)


def _by_name(found: Sequence[Piece], body: Mapping[str, Any]) -> dict[str, Piece]:
    return {_name(piece, body): piece for piece in found}


def _name(piece: Piece, body: Mapping[str, Any]) -> str:
    tool = at(body, piece.path)
    tool = tool if isinstance(tool, Mapping) else {}
    inner = tool.get("function", tool)
    inner = inner if isinstance(inner, Mapping) else tool
    return str(inner.get("name") or tool.get("type") or "")


# System text


def _system(
    left: Sequence[Piece],
    right: Sequence[Piece],
    same: int,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> Difference:
    if same == len(left):
        cause: Cause = "dynamic-in-prefix" if is_dynamic(right[same].text) else "system-changed"
        return Difference(cause, "system", right[same].path, 0, "", right[same].text, same)
    if same == len(right):
        cause = "dynamic-in-prefix" if is_dynamic(left[same].text) else "system-changed"
        return Difference(cause, "system", left[same].path, 0, left[same].text, "", same)
    return _changed("system", "system-changed", left[same], right[same], same, before, after)


# Messages


def _messages(
    left: Sequence[Piece],
    right: Sequence[Piece],
    same: int,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> Difference:
    old, new = [piece.wire for piece in left], [piece.wire for piece in right]
    inserted = _resumes(old, same, new, same + 1)
    dropped = _resumes(new, same, old, same + 1)
    if dropped is not None and (inserted is None or dropped <= inserted):
        cause: Cause = "dynamic-in-prefix" if all(map(_framed, left[same:dropped])) else "history-truncated"
        return Difference(cause, "messages", left[same].path, 0, left[same].text, "", same)
    if inserted is not None:
        cause = "dynamic-in-prefix" if all(map(_framed, right[same:inserted])) else "history-edited"
        return Difference(cause, "messages", right[same].path, 0, "", right[same].text, same)
    if same + 1 < len(right) and _replaced_run(old, new, same):
        return Difference(
            "history-truncated", "messages", left[same].path, 0, left[same].text, right[same].text, same
        )
    return _changed("messages", "history-edited", left[same], right[same], same, before, after)


def _framed(piece: Piece) -> bool:
    return is_dynamic(piece.text)


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


# Values


def _changed(
    section: Section,
    cause: Cause,
    left: Piece,
    right: Piece,
    index: int,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> Difference:
    """Why one piece is another one now."""
    parting = part(at(before, left.path), at(after, right.path), right.path)
    if left.role != right.role:
        return Difference(cause, section, _message_of(right.path), 0, left.role, right.role, index)
    if left.kind in _IMAGES or right.kind in _IMAGES:
        return _parted("image-changed", section, parting, index)
    if parting.spelling:
        return _parted("serialization-changed", section, parting, index)
    if volatile_at(parting.before, parting.after, parting.offset) is not None:
        return _parted("volatile-in-prefix", section, parting, index)
    if is_dynamic(parting.before, parting.offset) and is_dynamic(parting.after, parting.offset):
        return _parted("dynamic-in-prefix", section, parting, index)
    return _parted(cause, section, parting, index)


def _message_of(path: str) -> str:
    return path.partition("].")[0] + "]" if "]." in path else path
