"""Slots: text of a system prompt that was seen to change between two stable anchors."""

from __future__ import annotations

from difflib import SequenceMatcher

import msgspec

from .declared import Moved, begins_sentence, sentences
from .policy import Policy

__all__ = ["Template", "learned"]

_MOST = 2_000  # sentences between the first and the last change that are compared one by one; above, they are one slot
_LEAST = 0.2  # of the shorter text has to stay the same, else it is another prompt


class Template(msgspec.Struct, frozen=True):
    """A system text as stable ``anchors`` with a slot between each two; the first and the last may be empty.

    >>> template = Template(("Be kind. ", ""))
    >>> template.read("Be kind. It is 12:00.")
    ['It is 12:00.']
    >>> template.read("Be rude. It is 12:00.") is None
    True
    """

    anchors: tuple[str, ...]

    @property
    def stable(self) -> str:
        """The text without its slots."""
        return "".join(self.anchors)

    @property
    def slots(self) -> int:
        """How many slots there are."""
        return len(self.anchors) - 1

    def read(self, text: str) -> list[str] | None:
        """What stands in the slots; ``None`` if the anchors are not all there in their order.

        Anchors and slots, put together again, are the text: nothing is told twice, and nothing is left out.
        """
        first, last = self.anchors[0], self.anchors[-1]
        if len(self.anchors) == 1:
            return [] if text == first else None
        end = len(text) - len(last)
        if not text.startswith(first) or not text.endswith(last) or end < len(first):
            return None
        found, at = [], len(first)
        for anchor in self.anchors[1:-1]:
            place = text.find(anchor, at, end)
            while place > at and not begins_sentence(text, place):
                place = text.find(anchor, place + 1, end)
            if place < 0:
                return None
            found.append(text[at:place])
            at = place + len(anchor)
        if at < end < len(text) and not begins_sentence(text, end):
            return None
        return [*found, text[at:end]]

    def moved(self, index: int, texts: list[str]) -> list[Moved]:
        """The slots of the system text number ``index`` as what goes to the tail."""
        out, offset = [], 0
        for number, (anchor, text) in enumerate(zip(self.anchors, texts, strict=False), 1):
            offset += len(anchor)
            out.append(Moved(f"system-{index + 1}.{number}", text, offset))
        return out


def learned(template: Template, before: str, now: str, policy: Policy) -> Template | None:
    """The template with slots where the two texts differ; ``None`` if there is no slot to be learned.

    What grew at the end is no slot, and neither is what a pinned pattern finds something in: there the text of ``now`` is
    an anchor. Raises nothing; work is that of comparing the sentences between the first and the last change.

    >>> one, two = "Be kind. It is 12:00. Be brief.", "Be kind. It is 12:01. Be brief."
    >>> learned(Template((one,)), one, two, Policy()).anchors
    ('Be kind. ', 'Be brief.')
    >>> learned(Template((one,)), one, one + " Be glad.", Policy()) is None
    True
    """
    if not template.slots and now.startswith(before):
        return None
    old, new = _units(template, before), sentences(now)
    runs = _stable_runs([text if anchored else None for text, anchored in old], new)
    anchors, slots = _read_off(new, runs, [text for text, _ in old], policy)
    found = Template(tuple(anchors))
    kept = len(found.stable)
    if not slots or kept < _LEAST * min(len(before), len(now)) or not kept:
        return None
    return found


def _units(template: Template, text: str) -> list[tuple[str, bool]]:
    """The sentences of a text, each with whether it stands in an anchor."""
    slots = template.read(text) or []
    out: list[tuple[str, bool]] = []
    for number, anchor in enumerate(template.anchors):
        out += [(each, True) for each in sentences(anchor)]
        if number < len(slots):
            out += [(each, False) for each in sentences(slots[number])] or [("", False)]
    return out


def _stable_runs(old: list[str | None], new: list[str]) -> list[tuple[int, int]]:
    """Pairs of places of sentences that are the same in both, in order; ``None`` stands for those of slots."""
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    pairs = [(place, place) for place in range(start)]
    left, right = old[start : len(old) - end], new[start : len(new) - end]
    if len(left) <= _MOST and len(right) <= _MOST:
        for block in SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks():
            pairs += [(start + block.a + step, start + block.b + step) for step in range(block.size)]
    return [*pairs, *((len(old) - step, len(new) - step) for step in range(end, 0, -1))]


def _read_off(
    new: list[str], pairs: list[tuple[int, int]], old: list[str], policy: Policy
) -> tuple[list[str], int]:
    """The anchors of the new text, and how many slots are between them."""
    anchors, slots, there, here = [""], 0, 0, 0
    for before, now in [*pairs, (len(old), len(new))]:
        was, said = "".join(old[there:before]), "".join(new[here:now])
        if before > there or now > here:
            grown = now == len(new) and before == len(old) == there and slots == 0
            if grown or policy.pins(was) or policy.pins(said):
                anchors[-1] += said
            else:
                anchors.append("")
                slots += 1
        if now < len(new):
            anchors[-1] += new[now]
        there, here = before + 1, now + 1
    return anchors, slots
