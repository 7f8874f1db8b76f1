"""A prompt that goes out as the host gave it: what it sent is told truthfully, and nothing of it is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from msgspec.structs import replace

from ..chain import Node
from ..layout import Candidate
from ..messages import Message
from ..parts import Opaque, Part, Text
from ..prompt import Prompt
from ..request import Request
from ..rules import MARK_FIELDS
from ..snapshot import MarkAt, Snapshot

__all__ = ["AsGiven", "as_given", "without_marks"]


def without_marks(message: Message) -> tuple[Message, int]:
    """The message without the breakpoints that it came with, and how many there were.

    >>> block = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    >>> message, marks = without_marks(Message.from_openai({"role": "user", "content": [block]}))
    >>> message == Message("user", "hi"), marks
    (True, 1)
    """
    if not any(isinstance(part, Opaque) for part in message.parts):
        return message, 0
    parts: list[Part] = []
    marks = 0
    for part in message.parts:
        if isinstance(part, Opaque) and part.slot.removeprefix("field:") in MARK_FIELDS:
            marks += 1
            continue
        value = part.value if isinstance(part, Opaque) else None
        if isinstance(part, Opaque) and isinstance(value, Mapping) and not MARK_FIELDS.isdisjoint(value):
            marks += 1
            parts.append(_bare(part, value))
        else:
            parts.append(part)
    return (Message(message.role, parts, message.name), marks) if marks else (message, 0)


def _bare(part: Opaque, value: Mapping[str, Any]) -> Opaque | Text:
    bare = {name: each for name, each in value.items() if name not in MARK_FIELDS}
    if bare.keys() == {"type", "text"} and isinstance(bare["text"], str):
        return Text(bare["text"])
    return Opaque.of(part.dialect, bare, part.slot)


class AsGiven(Prompt):
    """The geometry of a request with the host's own breakpoints, and none of ours.

    ``nodes`` are the messages that came with one, ``marked`` counts those that the host sets besides: the first one stands
    at the end of the prompt, the second at that of the system text, the third behind the tools.
    """

    nodes: tuple[Node, ...] = ()
    marked: int = 0

    @cached_property
    def plan(self) -> list[Candidate]:
        """None: the host places its own."""
        return []

    @cached_property
    def implicit(self) -> bool:
        """Whether the provider sets a breakpoint of its own at the end."""
        options = self.params.get("prompt_cache_options")
        explicit = isinstance(options, Mapping) and options.get("mode") == "explicit"
        return self.dialect.rules.implicit and not explicit

    @cached_property
    def snapshot(self) -> Snapshot:
        """What is sent, frozen, with the breakpoints of the host."""
        bare = Snapshot(self.head.node, self.placed.state.tip, self.head.message_seed)
        if not self.dialect.rules.has_marks:
            return bare
        count = self.marked + ("cache_control" in self.params)
        ends = [MarkAt(node) for node in self.nodes]
        levels = [MarkAt(level.node, in_head=True) for level in self.head.levels]
        behind_system = [each for each in levels if each.node is self.head.node]
        behind_tools = levels[:1] if self.head.tools else []
        marks = [
            *(behind_tools if self.head.given_marks or count > 2 else []),
            *(behind_system if count > 1 else []),
            *ends,
        ]
        if (count or self.implicit) and bare.end.node not in self.nodes:
            marks.append(bare.end)
        return replace(bare, marks=tuple(dict.fromkeys(marks)))


def as_given(request: Request, nodes: Sequence[Node], marked: int) -> Request:
    """The request with the geometry of what the host sends."""
    session, known = request.session, request._prompt
    prompt = AsGiven(
        request.placed,
        params=known.params,
        dialect=known.dialect,
        head=known.head,
        family=session.family,
        fork_anchor=None,
    )
    prompt.nodes, prompt.marked = tuple(nodes), marked
    request._prompt = prompt
    return request
