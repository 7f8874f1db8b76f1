"""Requests the slow way: bodies as blocks, and as units, from the wire messages, without a chain.

A *wire* is a message as a provider's API takes it (a plain dict). A *unit* is what moves as a whole: a tool, a system
text, a message, a dynamic text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from llmbuffer import CacheRules, Message, StableContext
from llmbuffer.snapshot import message_tokens, texts

MARKS = ("cache_control", "prompt_cache_breakpoint")


def dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# Bodies as blocks


class Laid(NamedTuple):
    """A body as a list of blocks; ``marks`` are (blocks up to the mark, whether it is kept long)."""

    blocks: list[str]
    marks: list[tuple[int, bool]]


def laid_out(body: dict[str, Any], dialect: str) -> Laid:
    """Tools, system, messages; marks stripped. Where messages join (Anthropic), blocks only tell their role."""
    laid = Laid([], [])
    for tool in body.get("tools", ()):
        _add(laid, "tool", tool)
    for part in body.get("system", ()):
        _add(laid, "system", part)
    for message in body["messages"]:
        role, content = message["role"], message.get("content")
        if dialect != "anthropic":
            fields = {key: value for key, value in message.items() if key not in ("content", "tool_calls")}
            laid.blocks.append(dumped(["message", fields]))
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content or ():
            _add(laid, role, part)
        for call in message.get("tool_calls", ()):
            _add(laid, role, call)
    return laid


def _add(laid: Laid, kind: str, value: dict[str, Any]) -> None:
    laid.blocks.append(dumped([kind, {key: item for key, item in value.items() if key not in MARKS}]))
    for name in MARKS:
        if name in value:
            laid.marks.append((len(laid.blocks), "ttl" in value[name]))


def expected_body(
    context: StableContext, wires: Sequence[dict[str, Any]], dialect: str, rules: CacheRules
) -> dict[str, Any]:
    """What a session with this history should send, without marks and dynamic text."""
    tools = [_tool(tool, dialect) for tool in context.tools]
    system = [{"type": "text", "text": segment.content} for segment in context.segments]
    if dialect == "anthropic":
        return {"tools": tools, "system": system, "messages": _merged(wires, rules.midway_role)}
    leading: list[dict[str, Any]] = []
    if system:
        joined = "\n\n".join(part["text"] for part in system)
        content = system if rules.has_marks else joined
        leading = [{"role": rules.instruction_role, "content": content}]
    given = ("system", "developer")
    renamed = [{**wire, "role": rules.instruction_role} if wire["role"] in given else wire for wire in wires]
    return {"tools": tools, "messages": leading + renamed}


def _tool(tool: Any, dialect: str) -> dict[str, Any]:
    schema = json.loads(tool.parameters)
    if dialect == "anthropic":
        return {"name": tool.name, "description": tool.description, "input_schema": schema}
    function = {"name": tool.name, "description": tool.description, "parameters": schema}
    return {"type": "function", "function": function}


def _merged(wires: Sequence[dict[str, Any]], midway: str | None) -> list[dict[str, Any]]:
    merged: list[dict[str, Any]] = []
    for wire in wires:
        role, content = wire["role"], wire["content"]
        if role == "system" and (midway is None or not merged or merged[-1]["role"] == "assistant"):
            role = "user"
            content = [{"type": "text", "text": f"<system>\n{part['text']}\n</system>"} for part in content]
        if not merged and role == "assistant":
            opening = "(The conversation begins with the assistant's message.)"
            merged.append({"role": "user", "content": [{"type": "text", "text": opening}]})
        if merged and merged[-1]["role"] == role:
            merged[-1] = {"role": role, "content": merged[-1]["content"] + content}
        else:
            merged.append({"role": role, "content": content})
    return merged


# Units


class Unit(NamedTuple):
    """``alike`` says with which units it may share a part of its ``text``."""

    digest: str
    tokens: int
    positions: int
    alike: tuple[str, ...]
    text: str


class Sent(NamedTuple):
    """A request as units; ``marks`` are (units up to the mark, whether it is kept long)."""

    units: tuple[Unit, ...]
    marks: tuple[tuple[int, bool], ...]

    @property
    def tokens(self) -> int:
        return sum(unit.tokens for unit in self.units)


def sent(
    body: dict[str, Any],
    context: StableContext,
    history: Sequence[tuple[Message, dict[str, Any]]],
    dynamic: Sequence[str],
    dialect: str,
    rules: CacheRules,
    count: Callable[[str], int],
) -> Sent:
    """The body as units: its blocks shared out among tools, segments, messages and dynamic texts.

    Raises ``AssertionError`` if the blocks are not those of the history with the dynamic texts at the end of a message.
    """
    laid = laid_out(body, dialect)
    wires = [wire for _, wire in history]
    plain = laid_out(expected_body(context, wires, dialect, rules), dialect)
    head = _head_units(context, dialect, rules, count)
    ends = _ends(context, wires, dialect, rules)
    units = list(head)
    kind = ""
    for index, (message, _) in enumerate(history):
        blocks = plain.blocks[ends[len(head) - 1 + index] : ends[len(head) + index]]
        positions, kind = _positions(blocks, kind, rules) if dialect == "anthropic" else (1, "")
        alike = ("message", message.role, str(message.name))
        text = "".join(texts(message))
        units.append(Unit(_digest(blocks), message_tokens(message, count), positions, alike, text))
    at, inserted = _inserted(laid.blocks, plain.blocks, dynamic, dialect)
    if dynamic:
        assert at in ends, "dynamic text stands at the end of a message"
        place = ends.index(at) + 1
        extra = [Unit(_digest([text]), count(text) + 1, 1, ("block", "messages"), text) for text in dynamic]
        units[place:place] = extra
        ends[place:place] = [at + inserted - len(dynamic) + 1 + index for index in range(len(dynamic))]
        ends[place + len(dynamic) :] = [end + inserted for end in ends[place + len(dynamic) :]]
    marks = tuple((_unit_of(ends, blocks), long) for blocks, long in laid.marks)
    if rules.implicit and "prompt_cache_options" not in body:
        marks += ((len(units), False),)
    return Sent(tuple(units), marks)


def _unit_of(ends: list[int], blocks: int) -> int:
    return next(index for index, end in enumerate(ends) if end >= blocks) + 1


def _head_units(
    context: StableContext, dialect: str, rules: CacheRules, count: Callable[[str], int]
) -> list[Unit]:
    units = [Unit(_digest([context.model]), 0, 0, ("model",), "")]
    for tool in context.tools:
        text = dumped(_tool(tool, dialect))
        units.append(Unit(_digest([text]), count(text), 1, ("block", "tools"), text))
    for segment in context.segments:
        text = segment.content
        units.append(Unit(_digest(["s", text]), count(text) + 2, 1, ("block", "system"), text))
    return units


def _ends(
    context: StableContext, wires: Sequence[dict[str, Any]], dialect: str, rules: CacheRules
) -> list[int]:
    """Blocks up to the end of each unit, in a body without dynamic text."""
    tools, system = len(context.tools), len(context.segments)
    ends = [0, *range(1, tools + 1)]
    if dialect == "anthropic" or rules.has_marks:
        header = int(dialect != "anthropic")
        ends += [tools + header + index + 1 for index in range(system)]
    else:
        ends += [tools + 2] * system
    for index, wire in enumerate(wires):
        if dialect == "anthropic":
            opening = int(index == 0 and wire["role"] == "assistant")
            ends.append(ends[-1] + opening + len(wire["content"]))
        else:
            content = wire.get("content")
            parts = 1 if isinstance(content, str) else len(content or ())
            ends.append(ends[-1] + 1 + parts + len(wire.get("tool_calls", ())))
    return ends


def _inserted(found: list[str], plain: list[str], dynamic: Sequence[str], dialect: str) -> tuple[int, int]:
    """Where the dynamic texts stand among the blocks, and how many blocks they are."""
    if not dynamic:
        assert found == plain, _first_difference(found, plain)
        return -1, 0
    parts = [dumped(["user", {"type": "text", "text": text}]) for text in dynamic]
    own = [] if dialect == "anthropic" else [[dumped(["message", {"role": "user"}]), *parts]]
    for run in (parts, *own):
        for at in range(len(found) - len(run), -1, -1):
            if found[at : at + len(run)] == run and found[:at] + found[at + len(run) :] == plain:
                return at, len(run)
    raise AssertionError(f"{dynamic} and nothing else was to be added: {_first_difference(found, plain)}")


def shared(a: Sequence[object], b: Sequence[object]) -> int:
    """How many elements two sequences share from the start."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((index for index, (one, two) in pairs if one != two), min(len(a), len(b)))


def _first_difference(found: list[str], plain: list[str]) -> str:
    at = shared(found, plain)
    return f"block {at}: found {found[at : at + 2]}, expected {plain[at : at + 2]}"


def _positions(blocks: list[str], kind: str, rules: CacheRules) -> tuple[int, str]:
    count = 0
    for block in blocks:
        new = json.loads(block)[1].get("type", "")
        count += new != kind or new not in rules.collapsed
        kind = new
    return count, kind


def _digest(parts: Sequence[str]) -> str:
    return sha256(dumped(parts).encode()).hexdigest()[:16]


def relation(older: Sent, newer: Sent) -> str:
    a = [unit.digest for unit in older.units]
    b = [unit.digest for unit in newer.units]
    if a == b:
        return "same"
    if b[: len(a)] == a:
        return "extension"
    return "shrunk" if a[: len(b)] == b else "divergent"
