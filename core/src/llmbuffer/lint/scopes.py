"""A module's scopes, and what their names got."""

from __future__ import annotations

import ast

from .flow import Given, Scope

__all__ = ["scopes_of"]

_GROWING = frozenset({"append", "extend", "insert", "add", "update"})
_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.With, ast.AsyncWith, ast.Match)


def scopes_of(tree: ast.Module) -> dict[ast.AST, Scope]:
    """The scopes of a module by the nodes that make them; the module's own first.

    >>> [type(node).__name__ for node in scopes_of(ast.parse("def f(): return 1"))]
    ['Module', 'FunctionDef']
    """
    reader = _Reader(tree)
    reader.block(tree.body, reader.scopes[tree], 1)
    return reader.scopes


class _Reader:
    def __init__(self, tree: ast.Module) -> None:
        self.scopes: dict[ast.AST, Scope] = {tree: Scope(tree, None)}

    def block(self, body: list[ast.stmt], scope: Scope, depth: int) -> None:
        for statement in body:
            self.statement(statement, scope, depth)

    def statement(self, node: ast.stmt, scope: Scope, depth: int) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self.function(node, scope)
            return
        if isinstance(node, ast.ClassDef):
            inner = Scope(node, scope)
            inner.owner = inner
            self.scopes[node] = inner
            self.block(node.body, inner, 1)
            return
        self.assignments(node, scope, depth)
        if isinstance(node, ast.Return) and node.value is not None:
            scope.returns.append(node.value)
        self.expressions(node, scope)
        if isinstance(node, _BLOCKS):
            # What a `with` does is done; what stands under an `if` may not be.
            deeper = depth if isinstance(node, ast.With | ast.AsyncWith) else depth + 1
            for inner_block in _blocks(node):
                self.block(inner_block, scope, deeper)

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope) -> None:
        inner = Scope(node, scope, scope.owner)
        arguments = node.args
        positional = [*arguments.posonlyargs, *arguments.args]
        inner.params = [each.arg for each in [*positional, *arguments.kwonlyargs]]
        pairs = zip(reversed(positional), reversed(arguments.defaults), strict=False)
        inner.defaults = {each.arg: value for each, value in pairs}
        inner.defaults.update(
            {
                each.arg: value
                for each, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
                if value is not None
            }
        )
        scope.functions[node.name] = inner
        self.scopes[node] = inner
        for decorator in node.decorator_list:
            self.calls(decorator, scope)
        self.block(node.body, inner, 1)

    def assignments(self, node: ast.stmt, scope: Scope, depth: int) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self.give(target, node.value, scope, depth, adds=False)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self.give(node.target, node.value, scope, depth, adds=False)
        elif isinstance(node, ast.AugAssign):
            self.give(node.target, node.value, scope, depth, adds=True)
        elif isinstance(node, ast.For | ast.AsyncFor):
            self.give(node.target, node.iter, scope, depth + 1, adds=False)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            call = node.value
            if isinstance(call.func, ast.Attribute) and call.func.attr in _GROWING:
                for value in call.args:
                    self.give(call.func.value, value, scope, depth, adds=True)

    def give(self, target: ast.expr, value: ast.expr, scope: Scope, depth: int, *, adds: bool) -> None:
        given = Given(value, target.lineno, depth, adds)
        if isinstance(target, ast.Name):
            scope.given.setdefault(target.id, []).append(given)
        elif (
            isinstance(target, ast.Attribute)
            and isinstance(target.value, ast.Name)
            and target.value.id in ("self", "cls")
        ):
            scope.given.setdefault(f"self.{target.attr}", []).append(given)
        elif isinstance(target, ast.Tuple | ast.List):
            same = isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts)
            values = (
                value.elts if same and isinstance(value, ast.Tuple | ast.List) else [value] * len(target.elts)
            )
            for each, item in zip(target.elts, values, strict=True):
                self.give(each, item, scope, depth, adds=adds)

    def expressions(self, node: ast.stmt, scope: Scope) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.calls(child, scope)
            elif isinstance(child, ast.withitem):
                self.calls(child.context_expr, scope)

    def calls(self, node: ast.expr, scope: Scope) -> None:
        scope.calls += [each for each in ast.walk(node) if isinstance(each, ast.Call)]


def _blocks(node: ast.stmt) -> list[list[ast.stmt]]:
    found = [getattr(node, name, None) for name in ("body", "orelse", "finalbody")]
    found += [each.body for each in getattr(node, "handlers", ())]
    found += [each.body for each in getattr(node, "cases", ())]
    return [each for each in found if each]
