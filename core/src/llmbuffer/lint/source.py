"""Lint of Python source: what changes between requests and becomes part of a stable prompt. Nothing is imported or run."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator

from .calls import Origin
from .findings import RULES, Finding, Ignores
from .flow import Flow, Scope
from .history import history_idioms
from .prompts import PLACEHOLDER
from .scopes import scopes_of
from .sinks import Sink, sinks_in

__all__ = ["lint_source"]


def lint_source(source: str, *, path: str = "<source>") -> list[Finding]:
    """The findings in Python source, in order; ``path`` names it in them.

    Source that cannot be parsed is a finding of its own (``LB902``).

    >>> program = '''
    ... import datetime as dt
    ... def rules():
    ...     return f"You are kind. It is {dt.datetime.now()}."
    ... client.messages.create(system=rules(), messages=[])
    ... '''
    >>> [str(found) for found in lint_source(program, path="a.py")]
    ['a.py:4:35: LB001 datetime.datetime.now() reaches system= in line 5']
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the source's own, such as invalid escapes
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        said = error.msg if isinstance(error, SyntaxError) else type(error).__name__
        return [
            Finding(path, line, getattr(error, "offset", None) or 1, "LB902", f"cannot be parsed: {said}")
        ]
    ignores = Ignores(source)
    found: dict[tuple[str, int, int], Finding] = {}
    try:
        for finding, lines in _findings(tree, path):
            key = (finding.rule, finding.line, finding.column)
            if key not in found and not ignores.hides(finding.rule, lines):
                found[key] = finding
    except RecursionError:
        return [Finding(path, 1, 1, "LB902", "cannot be read: expressions are nested too deeply")]
    return sorted(found.values())


def _findings(tree: ast.Module, path: str) -> Iterator[tuple[Finding, list[int]]]:
    scopes = scopes_of(tree)
    flow = Flow(tree, scopes)
    for node, scope in _walk(tree, scopes):
        for rule, expression, what in history_idioms(node):
            title = RULES[rule].title
            yield _finding(path, rule, expression, f"{what}: {title}"), _lines(expression)
        for sink in sinks_in(node):
            # A function's returns stand in the scope that it makes.
            inner = scopes[node] if sink.what.endswith("()") and node in scopes else scope
            yield from _of_sink(sink, inner, flow, path)


def _of_sink(sink: Sink, scope: Scope, flow: Flow, path: str) -> Iterator[tuple[Finding, list[int]]]:
    for origin in [*flow.origins(sink.value, scope), *_of_callable(sink, scope, flow)]:
        if sink.machine or origin.rule != "LB005":
            yield (
                _finding(path, origin.rule, origin.node, _reaches(origin, sink)),
                [
                    *_lines(origin.node),
                    *_lines(sink.value),
                ],
            )
    value = sink.value
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        match = PLACEHOLDER.search(value.value)
        if match is not None:
            message = f"{{{match['name']}}} in {sink.what}: {RULES['LB008'].title}"
            yield _finding(path, "LB008", value, message), _lines(value)


def _of_callable(sink: Sink, scope: Scope, flow: Flow) -> Iterator[Origin]:
    """What a function gives that is handed over itself, as frameworks that ask it for each request take it."""
    if sink.what.endswith("=") and sink.machine and isinstance(sink.value, ast.Name):
        function = scope.function(sink.value.id)
        if function is not None and scope.gets(sink.value.id, sink.value.lineno) is None:
            for value in function.returns:
                yield from flow.origins(value, function)


def _reaches(origin: Origin, sink: Sink) -> str:
    line = sink.value.lineno
    return f"{origin.what} reaches {sink.what}" + ("" if line == origin.node.lineno else f" in line {line}")


def _finding(path: str, rule: str, node: ast.expr, message: str) -> Finding:
    return Finding(path, node.lineno, node.col_offset + 1, rule, message)


def _lines(node: ast.expr) -> list[int]:
    return list(range(node.lineno, (node.end_lineno or node.lineno) + 1))


def _walk(tree: ast.Module, scopes: dict[ast.AST, Scope]) -> Iterator[tuple[ast.AST, Scope]]:
    """Every node with the scope that it stands in."""
    waiting: list[tuple[ast.AST, Scope]] = [(tree, scopes[tree])]
    while waiting:
        node, scope = waiting.pop()
        yield node, scope
        inner = scopes.get(node, scope)
        waiting += [(child, inner) for child in ast.iter_child_nodes(node)]
