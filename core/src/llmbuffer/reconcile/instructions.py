"""The system text of a host: what of it is stable, what moves to the tail, and what is only reported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..breaks.volatile import volatile_in
from ..context import Segment
from .declared import Change, Moved, take_out
from .learning import Template, learned
from .policy import Policy

__all__ = ["Read", "Seen", "Templates", "read_system", "segments_of", "volatile"]

_TEMPLATES = 64  # of one agent, for the conversations that begin


class Read(NamedTuple):
    """A system text as it goes out: the stable texts, what moved, and which slots are new."""

    stable: tuple[str, ...]
    moved: tuple[Segment, ...]
    changes: tuple[Change, ...] = ()


class Templates:
    """Slots that one agent's conversations taught, for those that begin later; they hold stable text only."""

    def __init__(self) -> None:
        self._known: list[Template] = []

    def find(self, text: str) -> Template | None:
        """The newest template that reads a text."""
        return next((each for each in reversed(self._known) if each.read(text) is not None), None)

    def add(self, template: Template) -> None:
        """Take in a template, in place of the oldest one."""
        if template not in self._known:
            self._known.append(template)
            del self._known[:-_TEMPLATES]


Seen = tuple[tuple[str, Template], ...]  # each text without what was declared, and how it is read


def read_system(
    texts: tuple[str, ...], before: Seen, templates: Templates, policy: Policy
) -> tuple[Read, Seen]:
    """What goes where, and what to compare the next prompt of this conversation with.

    ``before`` is what the last one was. Work is that of comparing the texts, and of comparing sentences where they changed.
    """
    before = before if len(before) == len(texts) else ()
    stable, moved, changes = [], list[Moved](), list[Change]()
    seen: list[tuple[str, Template]] = []
    for index, given in enumerate(texts):
        text, found = take_out(given, policy.declared)
        last = before[index] if before else None
        template, new = _template(last, text, templates, policy)
        slots = template.moved(index, template.read(text) or [])
        if new:
            changes += _changes(index, None if last is None else last[1], slots)
        seen.append((text, template))
        stable.append(template.stable)
        moved += [*found, *slots]
    return Read(tuple(stable), segments_of(moved), tuple(changes)), tuple(seen)


def _template(
    before: tuple[str, Template] | None, text: str, templates: Templates, policy: Policy
) -> tuple[Template, bool]:
    """How a text is read, and whether slots are new in it."""
    if not policy.learn:
        return Template((text,)), False
    if before is None:
        return templates.find(text) or Template((text,)), False
    old, template = before
    if text == old or (template.slots and template.read(text) is not None):
        return template, False
    found = learned(template, old, text, policy)
    if found is None:
        return Template((text,)), False
    templates.add(found)
    return found, True


def _changes(index: int, before: Template | None, slots: Sequence[Moved]) -> list[Change]:
    """The slots that were not there before, by the anchors in front of them."""
    known = set() if before is None else {len("".join(before.anchors[: n + 1])) for n in range(before.slots)}
    new = [slot for slot in slots if slot.offset not in known] or list(slots)
    return [Change(f"system[{index}]", slot.offset, len(slot.text)) for slot in new]


def segments_of(moved: Iterable[Moved]) -> tuple[Segment, ...]:
    """What moved as segments; a name that is taken gets a number."""
    out: dict[str, Segment] = {}
    for each in moved:
        text = each.text.strip("\n")
        if not text.strip():
            continue
        name, number = each.name, 1
        while name in out:
            number += 1
            name = f"{each.name}, {number}"
        out[name] = Segment(name, text, level="turn")
    return tuple(out.values())


def volatile(texts: Iterable[str]) -> tuple[str, ...]:
    """What looks like a clock or a random id; fixed text holds dates too, so this is only told."""
    return tuple(
        f"system[{index}], character {found.start:,}: looks like a {found.kind}; it moves when it is seen to change"
        for index, text in enumerate(texts)
        for found in volatile_in(text)
    )
