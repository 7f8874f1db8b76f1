"""A prompt as a request body: shared wire messages, with marks and dynamic text put in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .frozen import FrozenDict, FrozenList
from .layout import render_dynamic
from .prompt import Prompt
from .rendered import edited
from .rules import Dialect, Draft, Mark, Place

__all__ = ["assemble"]


def assemble(
    prompt: Prompt,
    *,
    model: str,
    params: Mapping[str, Any],
    routing_key: str | None,
    diagnostics: bool = False,
    compare_with: str | None = None,
) -> FrozenDict:
    """The body; work is proportional to what is new, but for one copy of a list of pointers."""
    dialect, head = prompt.dialect, prompt.head
    marks = [candidate.mark for candidate in prompt.plan]
    messages = FrozenList()
    system = _marked_head(dialect, head.system, "system", marks)
    if dialect.system_in_messages:
        list.extend(messages, system)
    first = len(messages)
    prompt.placed.state.rendered.extend(messages, dialect)
    _edit(prompt, messages, first, [mark for mark in marks if mark.place.section == "messages"])
    return dialect.assemble(
        Draft(
            model=model,
            tools=_marked_head(dialect, head.tools, "tools", marks),
            system=system,
            messages=messages,
            params=params,
            implicit=prompt.implicit,
            routing_key=routing_key,
            diagnostics=diagnostics,
            compare_with=compare_with,
        )
    )


def _marked_head(dialect: Dialect, items: FrozenList, section: str, marks: Sequence[Mark]) -> FrozenList:
    wanted = [mark for mark in marks if mark.place.section == section]
    if not wanted:
        return items
    out = FrozenList(items)
    in_content = section == "system" and dialect.system_in_messages
    for item in {mark.place.item for mark in wanted}:
        here = [(mark.place.part, mark.long) for mark in wanted if mark.place.item == item]
        if in_content:
            new = edited(out[item], dialect, marks=here)
        else:
            new = dialect.mark_part(out[item], long=here[0][1])
        list.__setitem__(out, item, new)
    return out


def _edit(prompt: Prompt, messages: FrozenList, first: int, marks: Sequence[Mark]) -> None:
    dialect = prompt.dialect
    parts = [dialect.dynamic_part(text) for text in render_dynamic(prompt.placed.segments)]
    for mark in marks:
        if mark.kind == "dynamic":
            parts[-1] = dialect.mark_part(parts[-1], long=mark.long)
    place = _insertion(prompt, messages, first, parts)
    edits: dict[int, list[tuple[int, bool]]] = {} if place is None else {place.item: []}
    for mark in marks:
        if mark.kind != "dynamic":
            edits.setdefault(mark.place.item, []).append((mark.place.part, mark.long))
    for item, here in edits.items():
        takes = place is not None and place.item == item
        new = edited(
            messages[first + item],
            dialect,
            marks=here,
            insert_at=place.end if place is not None and takes else 0,
            insert=parts if takes else (),
        )
        list.__setitem__(messages, first + item, new)


def _insertion(prompt: Prompt, messages: FrozenList, first: int, parts: list[FrozenDict]) -> Place | None:
    """Where the dynamic parts go; they become a user message of their own if no user message can take them."""
    if not parts:
        return None
    if prompt.placed.turn is not None:
        return prompt.placed.turn.user.place
    key = prompt.dialect.content_key
    last = messages[-1] if len(messages) > first else {}
    if last.get("role") == "user":
        content = last.get(key)
        return Place(
            "messages", len(messages) - 1 - first, -1, len(content) if isinstance(content, list) else 1
        )
    list.append(messages, FrozenDict({"role": "user", key: FrozenList(parts)}))
    return None
