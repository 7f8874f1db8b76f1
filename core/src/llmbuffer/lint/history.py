"""Idioms that take messages out of a history, or change it in front."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from .calls import dotted

__all__ = ["history_idioms"]

_HISTORY = re.compile(r"(?i)_*(?:chat_?)?(?:messages|history|msgs|conversation)(?:_history)?")
_GIVEN = frozenset({"messages", "history", "chat_history", "input", "contents", "message_history"})


def history_idioms(node: ast.AST) -> Iterator[tuple[str, ast.expr, str]]:
    """The idioms that one node of a syntax tree is, as (rule, expression, what it does)."""
    if isinstance(node, ast.Call):
        yield from _of_call(node)
    elif isinstance(node, ast.Delete):
        for target in node.targets:
            if isinstance(target, ast.Subscript) and _is_history(target.value) and not _is_last(target.slice):
                yield "LB006", target, f"del {_name(target.value)}[…]"
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            yield from _of_assignment(target, node.value)


def _of_call(call: ast.Call) -> Iterator[tuple[str, ast.expr, str]]:
    if isinstance(call.func, ast.Attribute) and _is_history(call.func.value):
        name, first = _name(call.func.value), call.args[0] if call.args else None
        if call.func.attr == "popleft" or (call.func.attr == "pop" and _is_number(first, 0, 1)):
            yield "LB006", call, f"{name}.{call.func.attr}({'' if first is None else '0'})"
        elif call.func.attr == "insert" and _is_number(first, 0, 1) and not _is_system(call.args[1:]):
            yield "LB007", call, f"{name}.insert(0, …)"
    for keyword in call.keywords:
        if keyword.arg in _GIVEN:
            yield from (
                (rule, node, f"{what} for {keyword.arg}=") for rule, node, what in _windows(keyword.value)
            )


def _of_assignment(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr, str]]:
    if _is_history(target):
        yield from _windows(value)
        bounded = isinstance(value, ast.Call) and any(each.arg == "maxlen" for each in value.keywords)
        if bounded and dotted(value.func).rpartition(".")[2] == "deque":  # type: ignore[attr-defined]  # a call
            yield "LB006", value, f"{_name(target)} = deque(maxlen=…)"
    elif (
        isinstance(target, ast.Subscript)
        and isinstance(target.slice, ast.Slice)
        and _is_history(target.value)
    ):
        yield from _windows(value)
    else:
        inner = target
        while isinstance(inner, ast.Subscript | ast.Attribute):
            if isinstance(inner, ast.Subscript) and _is_number(inner.slice, 0) and _is_history(inner.value):
                yield "LB007", target, f"{_name(inner.value)}[0] is set"
                return
            inner = inner.value


def _windows(value: ast.expr) -> Iterator[tuple[str, ast.expr, str]]:
    """Slices of a history that keep its latest messages, in a value that becomes the history."""
    if isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Slice) and _is_history(value.value):
        lower = value.slice.lower
        if (
            isinstance(lower, ast.UnaryOp)
            and isinstance(lower.op, ast.USub)
            and not _is_number(lower.operand, 1)
        ):
            yield "LB006", value, f"{_name(value.value)}[-n:]"
    elif isinstance(value, ast.BinOp):
        yield from _windows(value.left)
        yield from _windows(value.right)
    elif isinstance(value, ast.List | ast.Tuple):
        for item in value.elts:
            yield from _windows(item.value if isinstance(item, ast.Starred) else ast.Constant(None))


def _is_history(node: ast.expr) -> bool:
    return bool(_HISTORY.fullmatch(_name(node)))


def _name(node: ast.expr) -> str:
    """The last name of ``messages``, ``self.messages``, ``state["messages"]``."""
    if (
        isinstance(node, ast.Subscript)
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
    ):
        return node.slice.value
    return dotted(node).rpartition(".")[2]


def _is_number(node: ast.expr | None, *numbers: int) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value in numbers


def _is_last(node: ast.expr) -> bool:
    """``-1`` and ``-n:``: what is taken off behind breaks nothing in front of it."""
    if isinstance(node, ast.Slice):
        return isinstance(node.lower, ast.UnaryOp)
    return isinstance(node, ast.UnaryOp)


def _is_system(values: list[ast.expr]) -> bool:
    """Whether a system message is put in front, which is where it belongs, if it is done once."""
    for value in values:
        for each in ast.walk(value):
            if isinstance(each, ast.Constant) and each.value in ("system", "developer"):
                return True
            if isinstance(each, ast.Name | ast.Attribute) and "system" in _name(each).lower():
                return True
    return False
