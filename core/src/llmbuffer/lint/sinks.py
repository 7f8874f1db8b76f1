"""The places in Python source whose values become the stable part of a prompt."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from .calls import dotted

__all__ = ["Sink", "sinks_in"]

_KEYWORDS = frozenset(
    [
        "system",
        "system_prompt",
        "system_message",
        "system_instruction",
        "system_instructions",
        "instructions",
        "developer_message",
        "developer_prompt",
    ]
)
_NAMED = re.compile(
    r"(?i)_*(?:system|developer)_?(?:prompt|message|instruction|text)s?(?:_(?:text|template))?"
)
_BUILDER = re.compile(
    r"(?i)_*(?:get|build|make|create|render|compose|format)?_?(?:system|developer)_?(?:prompt|message|instructions?)"
)
_CLASSES = frozenset("SystemMessage SystemMessagePromptTemplate DeveloperMessage StaticSystemMessage".split())  # noqa: SIM905 - as above
_ROLES = frozenset({"system", "developer"})
_SCHEMA_KEYS = frozenset({"parameters", "input_schema", "inputSchema", "parameters_json_schema", "function"})
# Decorators of functions that give a system prompt, and of tools, whose defaults stand in their schemas.
_PROMPTING = frozenset({"system_prompt", "instructions", "dynamic_prompt"})
_TOOLS = frozenset({"tool", "function_tool", "tool_plain", "kernel_function"})
_STABLE_LEVELS = frozenset({"global", "tenant", "user", "session"})


class Sink(NamedTuple):
    """A value that goes into a stable place, and what that place is called."""

    value: ast.expr
    what: str
    # Values of the machine are no matter there: addresses and keys of tool servers.
    machine: bool = True


def sinks_in(node: ast.AST) -> Iterator[Sink]:
    """The stable places that one node of a syntax tree makes."""
    if isinstance(node, ast.Call):
        yield from _of_call(node)
    elif isinstance(node, ast.Dict):
        yield from _of_dict(node)
    elif isinstance(node, ast.Tuple) and len(node.elts) == 2 and _constant(node.elts[0]) in _ROLES:
        yield Sink(node.elts[1], f'("{_constant(node.elts[0])}", …)')
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            yield from _of_target(target, node.value)
    elif isinstance(node, ast.AnnAssign | ast.AugAssign) and node.value is not None:
        yield from _of_target(node.target, node.value)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield from _of_function(node)


def _of_call(call: ast.Call) -> Iterator[Sink]:
    name = dotted(call.func).rpartition(".")[2]
    chain = dotted(call.func).split(".")
    if _is_turn(call):
        return
    for keyword in call.keywords:
        if keyword.arg in _KEYWORDS:
            yield Sink(keyword.value, f"{keyword.arg}=")
        elif keyword.arg in ("tools", "functions"):
            yield Sink(keyword.value, f"{keyword.arg}=", machine=False)
        elif keyword.arg == "description" and re.search(r"(?i)tool|function", ".".join(chain)):
            yield Sink(keyword.value, "a tool's description")
        elif keyword.arg in ("role", "goal", "backstory") and name == "Agent":
            yield Sink(keyword.value, f"Agent({keyword.arg}=)")
    if _CLASSES & set(chain):
        yield from (Sink(value, f"{name}(…)") for value in _contents(call))
    elif name == "StableContext":
        yield from (Sink(value, "StableContext(…)") for value in call.args[1:3])
    elif name == "Segment":
        yield from (Sink(value, "Segment(…)") for value in [*call.args[1:2], *_keywords(call, "content")])
    elif name in ("Message", "ChatMessage") and _role_of(call) in _ROLES:
        yield from (Sink(value, f'{name}("system", …)') for value in [*call.args[1:2], *_contents(call, 2)])


def _is_turn(call: ast.Call) -> bool:
    """Whether a segment is dynamic by its level, or the call is one that places dynamic text."""
    levels = [_constant(each) for each in [*call.args[2:3], *_keywords(call, "level")]]
    named = dotted(call.func).rpartition(".")[2]
    return named == "dynamic_text" or (
        named == "Segment" and any(each not in _STABLE_LEVELS for each in levels)
    )


def _contents(call: ast.Call, start: int = 0) -> list[ast.expr]:
    return [*call.args[start : start + 1], *_keywords(call, "content", "template", "text", "parts")]


def _keywords(call: ast.Call, *names: str) -> list[ast.expr]:
    return [each.value for each in call.keywords if each.arg in names]


def _role_of(call: ast.Call) -> str:
    found = [*call.args[:1], *_keywords(call, "role")]
    role = found[0] if found else None
    return _constant(role) or (role.attr.lower() if isinstance(role, ast.Attribute) else "")


def _of_dict(node: ast.Dict) -> Iterator[Sink]:
    fields = {
        _constant(key): value for key, value in zip(node.keys, node.values, strict=True) if key is not None
    }
    if _constant(fields.get("role")) in _ROLES:
        yield from (Sink(fields[key], '{"role": "system"}') for key in ("content", "parts") if key in fields)
    if "name" in fields and "description" in fields and _SCHEMA_KEYS & fields.keys():
        yield from (
            Sink(fields[key], f"a tool's {key}", machine=False)
            for key in ("name", "description", *sorted(_SCHEMA_KEYS))
            if key in fields
        )


def _of_target(target: ast.expr, value: ast.expr) -> Iterator[Sink]:
    name = (
        target.id
        if isinstance(target, ast.Name)
        else target.attr
        if isinstance(target, ast.Attribute)
        else ""
    )
    if _NAMED.fullmatch(name):
        yield Sink(value, name)
    elif name == "__doc__" and isinstance(target, ast.Attribute):
        yield Sink(value, "a tool's docstring")


def _of_function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Sink]:
    decorators = {
        dotted(each.func if isinstance(each, ast.Call) else each).rpartition(".")[2]
        for each in node.decorator_list
    }
    if _BUILDER.fullmatch(node.name) or decorators & _PROMPTING:
        for value in _returned(node):
            yield Sink(value, f"{node.name}()")
    if decorators & _TOOLS:
        defaults = [*node.args.defaults, *(each for each in node.args.kw_defaults if each is not None)]
        yield from (Sink(value, f"the schema of the tool {node.name}", machine=False) for value in defaults)


def _returned(node: ast.AST) -> Iterator[ast.expr]:
    """What a function returns; functions inside it return for themselves."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Return) and child.value is not None:
            yield child.value
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield from _returned(child)


def _constant(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
