"""Where things stand in a prompt: the head in the order of its levels, breakpoints, and dynamic text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from .attribution import Span
from .chain import Block, Node, root
from .context import Segment, StableContext
from .frozen import FrozenList
from .messages import content_hash
from .rules import MARK_FIELDS, CacheRules, Dialect, Mark, Place
from .snapshot import MarkAt

__all__ = [
    "Candidate",
    "Head",
    "Level",
    "Placement",
    "Sharing",
    "cheapest_placement",
    "head_spans",
    "plan_marks",
    "render_head",
]

Placement = Literal["turn", "tail", "sticky", "auto"]
Sharing = Mapping[str, int]
# How many sessions are expected to share a level when nobody says so: each level is shared far more widely than the next.
DEFAULT_SHARING: Sharing = {"tools": 1000, "global": 1000, "tenant": 100, "user": 10, "session": 1}


class Level(msgspec.Struct, frozen=True):
    """The end of one level in the head: a place where a breakpoint serves every session that shares the level."""

    name: str
    node: Node
    place: Place
    long: bool = False


class Head(msgspec.Struct, frozen=True):
    """Tools and stable system text, rendered once and shared: ``node`` ends their chain.

    ``given_marks`` counts the breakpoints that tools came with.
    """

    tools: FrozenList
    system: FrozenList
    node: Node
    levels: tuple[Level, ...]
    message_seed: bytes
    given_marks: int = 0


def render_head(context: StableContext, dialect: Dialect, count: Callable[[str], int]) -> Head:
    """Tools, then segments in the order of their levels, as wire objects and as a chain of blocks.

    The root of the chain is seeded with the model and the params that, once changed, leave nothing to read.
    """
    rules = dialect.rules
    tools = FrozenList(dialect.render_tool(tool) for tool in context.tools)
    node = root(_seed(dialect.name, context, rules.frozen_params, context.model))
    levels: list[Level] = []
    for index, tool in enumerate(tools):
        wire = msgspec.json.encode(tool)
        block = Block("tools", context.tools[index].name, wire.decode())
        node = node.child(block, content=wire, wire=wire, tokens=count(block.text))
    if tools:
        levels.append(
            Level("tools", node, Place("tools", len(tools) - 1, 0 if "tool" in rules.markable else -1))
        )
    segments = [
        segment for segment in context.segments if segment.content.strip()
    ]  # providers refuse empty texts
    for index, segment in enumerate(segments):
        text = segment.content.encode()
        block = Block("system", segment.name, segment.content)
        node = node.child(block, content=text, wire=text, tokens=count(segment.content) + 2)
        level = Level(segment.level, node, _system_place(dialect, index), segment.ttl == "long")
        if levels and levels[-1].name == segment.level:
            level = msgspec.structs.replace(level, long=level.long or levels.pop().long)
        levels.append(level)
    system = dialect.render_system([segment.content for segment in segments])
    given = sum(not MARK_FIELDS.isdisjoint(tool) for tool in tools)
    seed = _seed("", context, rules.message_params, "")
    return Head(tools, system, node, tuple(levels), seed, given)


def head_spans(head: Head) -> tuple[Span, ...]:
    """Where tools and each stable segment end, in tokens from the start, in prompt order."""
    nodes, node = list[Node](), head.node
    while node.parent is not None:
        nodes.append(node)
        node = node.parent
    nodes.reverse()
    tools = len(head.tools)
    spans = [Span("tools", nodes[tools - 1].end)] if tools else []
    blocks = ((node.message, node.end) for node in nodes[tools:])
    return (*spans, *(Span(block.label, end) for block, end in blocks if isinstance(block, Block)))


def _seed(name: str, context: StableContext, fields: frozenset[str], model: str) -> bytes:
    params = {key: value for key, value in context.params.items() if key in fields}
    return content_hash([name.encode(), model.encode(), msgspec.json.encode(params)]).encode()


def _system_place(dialect: Dialect, index: int) -> Place:
    if not {"text", "input_text"} & dialect.rules.markable:  # text parts by the names of all wires
        return Place("system", 0)
    return Place("system", 0, index) if dialect.system_in_messages else Place("system", index, 0)


class Candidate(msgspec.Struct, frozen=True):
    """A place where a breakpoint could go: ``tokens`` and ``position`` from the start of the prompt.

    ``sharing`` counts the sessions that a mark on a level of the head would serve.
    """

    mark: Mark
    at: MarkAt
    tokens: int
    position: int
    sharing: int = 1


def plan_marks(
    rules: CacheRules,
    fixed: Sequence[Candidate | None],
    levels: Sequence[Candidate],
    *,
    slots: int | None = None,
) -> list[Candidate]:
    """Choose breakpoints: ``fixed`` in their order, then levels by what they save, until the slots are used.

    A level saves the tokens beyond the next shorter mark, for every session that shares it but no longer mark: longer
    levels serve those that share them, and marks in the messages serve this one while they live. A level that saves
    nothing still takes a slot that is left over.

    ``slots`` (default: the rules') is what the user and the host left free. Nothing below the model's minimum is marked,
    no place twice, and entries that live long come before those that do not. In prompt order.
    """
    free = rules.slots if slots is None else slots
    chosen: list[Candidate] = []
    for candidate in fixed:
        if candidate is not None and len(chosen) < free and _markable(candidate, rules, chosen):
            chosen.append(candidate)
    open_levels = [level for level in levels if _markable(level, rules, chosen)]
    while open_levels and len(chosen) < free:
        best = max(open_levels, key=lambda level: (_saving(level, chosen), level.tokens))
        open_levels.remove(best)
        chosen.append(best)
    return _long_first(sorted(chosen, key=lambda candidate: candidate.tokens))


def _markable(candidate: Candidate, rules: CacheRules, chosen: Sequence[Candidate]) -> bool:
    place = candidate.mark.place
    return (
        place.part >= 0
        and candidate.tokens >= rules.min_tokens
        and place not in [c.mark.place for c in chosen]
    )


def _saving(level: Candidate, chosen: Sequence[Candidate]) -> int:
    shorter = max((c.tokens for c in chosen if c.tokens < level.tokens), default=0)
    # This session reads on from its messages, unless the level is kept for longer than they are.
    own = int(not level.mark.long and any(not c.at.in_head for c in chosen))
    served = max((c.sharing for c in chosen if c.at.in_head and c.tokens > level.tokens), default=own)
    return (level.tokens - shorter) * max(0, level.sharing - served)


def _long_first(chosen: list[Candidate]) -> list[Candidate]:
    last_long = max((index for index, c in enumerate(chosen) if c.mark.long), default=-1)
    return [
        msgspec.structs.replace(c, mark=msgspec.structs.replace(c.mark, long=True))
        if index <= last_long
        else c
        for index, c in enumerate(chosen)
    ]


def cheapest_placement(
    rules: CacheRules, *, dynamic: int, calls: float, after: float, expected: float, tail_allowed: bool
) -> tuple[Literal["turn", "tail", "sticky"], str]:
    """The cheapest place for dynamic text, and why, in units of one input token's price.

    ``dynamic`` tokens of the text, ``calls`` requests in the turn, ``after`` tokens that the turn appends behind it
    (without the final reply), ``expected`` requests still to come.

    >>> rules = CacheRules(name="engine", match="prefix")
    >>> cheapest_placement(rules, dynamic=500, calls=1, after=0, expected=40, tail_allowed=False)[0]
    'turn'
    """
    read, write = rules.read_multiplier, rules.write_multiplier
    costs: dict[Literal["turn", "tail", "sticky"], float] = {
        "turn": write * dynamic + max(0.0, calls - 1) * read * dynamic + (write - read) * after,
        "sticky": write * dynamic + read * dynamic * expected,
    }
    if tail_allowed:
        costs["tail"] = calls * dynamic
    best = min(costs, key=lambda name: costs[name])
    listed = ", ".join(f"{name} {cost:.0f}" for name, cost in sorted(costs.items(), key=lambda item: item[1]))
    return best, f"placement {best}: cost in input tokens: {listed}"


def render_dynamic(segments: Sequence[Segment]) -> list[str]:
    r"""Dynamic segments as the texts that are sent, each with its name.

    >>> render_dynamic([Segment("clock", "12:00", level="turn")])
    ['<context name="clock">\n12:00\n</context>']
    """
    return [f'<context name="{segment.name}">\n{segment.content}\n</context>' for segment in segments]
