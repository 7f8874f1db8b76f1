"""The system text of a host: what of it is stable, what moves to the tail, and what is only reported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..breaks.volatile import volatile_in
from ..context import Segment
from .declared import Moved, take_out
from .learning import Template, learned
from .plan import Change
from .policy import Policy

__all__ = ["Instructions", "Read", "Templates"]

_TEMPLATES = 64  # of one agent, for the conversations that begin


class Read(NamedTuple):
    """A system text as it goes out: the stable texts, what moved, which slots are new, and what looks volatile."""

    stable: tuple[str, ...]
    moved: tuple[Segment, ...]
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()


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


class Instructions:
    """The system texts of one conversation, and the slots that were learned of them."""

    def __init__(self, templates: Templates) -> None:
        self._shared = templates
        self._seen: list[tuple[str, Template]] = []  # each text without what was declared, and how it is read
        self._given: tuple[tuple[str, ...], Policy] | None = None
        self._read: Read = Read((), ())

    def read(self, texts: tuple[str, ...], policy: Policy) -> Read:
        """What goes where; work is that of comparing the texts with those before, unless they changed."""
        if self._given is not None and self._given[0] == texts and self._given[1] is policy:
            return self._read._replace(changes=())
        if self._given is not None and len(self._given[0]) != len(texts):
            self._seen = []
        stable, moved, changes = [], list[Moved](), list[Change]()
        seen: list[tuple[str, Template]] = []
        for index, given in enumerate(texts):
            text, found = take_out(given, policy.declared)
            before = self._seen[index] if index < len(self._seen) else None
            template, new = self._template(before, text, policy)
            slots = template.moved(index, template.read(text) or [])
            if new:
                changes += _changes(index, None if before is None else before[1], slots)
            seen.append((text, template))
            stable.append(template.stable)
            moved += [*found, *slots]
        self._seen, self._given = seen, (texts, policy)
        self._read = Read(tuple(stable), _segments(moved), tuple(changes), _volatile(stable))
        return self._read

    def _template(
        self, before: tuple[str, Template] | None, text: str, policy: Policy
    ) -> tuple[Template, bool]:
        """How a text is read, and whether slots are new in it."""
        plain = Template((text,))
        if not policy.learn:
            return plain, False
        if before is None:
            return self._shared.find(text) or plain, False
        old, template = before
        if template.slots and template.read(text) is not None:
            return template, False
        if text == old:
            return template, False
        found = learned(template, old, text, policy)
        if found is None:
            return plain, False
        self._shared.add(found)
        return found, True


def _changes(index: int, before: Template | None, slots: Sequence[Moved]) -> list[Change]:
    """The slots that were not there before, by the anchors in front of them."""
    known = set() if before is None else {len("".join(before.anchors[: n + 1])) for n in range(before.slots)}
    new = [slot for slot in slots if slot.offset not in known] or list(slots)
    return [Change(f"system[{index}]", slot.offset, len(slot.text)) for slot in new]


def _segments(moved: Iterable[Moved]) -> tuple[Segment, ...]:
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


def _volatile(texts: Iterable[str]) -> tuple[str, ...]:
    """What looks like a clock or a random id; fixed text holds dates too, so this is only told."""
    return tuple(
        f"system[{index}], character {found.start:,}: looks like a {found.kind}; it moves when it is seen to change"
        for index, text in enumerate(texts)
        for found in volatile_in(text)
    )
