"""Where values come from: through names, f-strings, lists and helper functions of one module. Nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from .calls import Imports, Origin, dotted, volatile_call, volatile_value

__all__ = ["Flow", "Scope"]

_DEEPEST = 48  # expressions, one inside or behind the other, that a value is followed back through
_STEPS = 5_000  # expressions that are looked at for one place; generated code has more paths than anybody would follow
# Methods and functions whose result holds what they were called on and with.
_THROUGH = frozenset(
    {
        "abs", "as_posix", "astimezone", "capitalize", "cast", "copy", "ctime", "date", "decode",
        "dedent", "deepcopy", "dict", "difference", "dumps", "encode", "enumerate", "fill",
        "filter", "float", "format", "format_map", "fromtimestamp", "hex", "indent", "int",
        "intersection", "isoformat", "items", "iter", "join", "keys", "list", "lower", "lstrip",
        "map", "partial", "read_text", "removeprefix", "removesuffix", "replace", "repr",
        "reversed", "round", "rstrip", "safe_substitute", "split", "splitlines", "str", "strftime",
        "strip", "substitute", "time", "timestamp", "title", "tuple", "union", "upper",
        "utcfromtimestamp", "values", "wrap", "zip"
    }
)  # fmt: skip
_BUILDERS = ("prompt", "message", "template", "format", "render", "text", "content", "segment")
_SORTING = frozenset({"sorted", "min", "max", "sum"})  # the order of what they are given is no matter
_CLEAN = frozenset({"dynamic_text", "isinstance", "open"})
_KEYWORDS_APART = frozenset({"dynamic", "key", "encoding", "indent"})


class Given(NamedTuple):
    """An expression that a name got, and the scope in which it stands; ``adds`` to what the name had before."""

    value: ast.expr
    line: int
    depth: int
    adds: bool


class Scope:
    """A module, class or function: what its names got, in order."""

    def __init__(self, node: ast.AST, parent: Scope | None, owner: Scope | None = None) -> None:
        self.node, self.parent, self.owner = node, parent, owner
        self.given: dict[str, list[Given]] = {}
        self.functions: dict[str, Scope] = {}
        self.returns: list[ast.expr] = []
        self.calls: list[ast.Call] = []
        self.params: list[str] = []
        self.defaults: dict[str, ast.expr] = {}

    def function(self, name: str) -> Scope | None:
        """The function of this name that can be seen from here."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.functions and not isinstance(scope.node, ast.ClassDef):
                return scope.functions[name]
            scope = scope.parent
        return None

    def gets(self, name: str, line: int) -> tuple[list[Given], Scope] | None:
        """What a name may hold in a line, and the scope that knows it."""
        found = self.given.get(name)
        if found:
            return _reaching(found, line), self
        if name in self.params or self.parent is None:
            return None
        outer = self.parent
        while outer is not None:
            if outer.given.get(name) and not isinstance(outer.node, ast.ClassDef):
                return _reaching(outer.given[name], 10**9), outer
            outer = outer.parent  # type: ignore[assignment]  # ends with None
        return None


def _reaching(found: Sequence[Given], line: int) -> list[Given]:
    """The last one before the line, and those before it that it may have left in place; all of them if none is before."""
    before = [each for each in found if each.line <= line]
    out: list[Given] = []
    for each in reversed(before):
        out.append(each)
        if not each.adds and each.depth <= 1:
            break
    return out or list(found)


class Flow:
    """Follows the values of one module."""

    def __init__(self, tree: ast.Module, scopes: Mapping[ast.AST, Scope]) -> None:
        self.imports = Imports(tree)
        self._scopes = scopes
        self._left = 0

    def origins(self, value: ast.expr, scope: Scope) -> list[Origin]:
        """Everything volatile that a value may hold."""
        self._left = _STEPS
        return list(self._of(value, scope, {}, frozenset()))

    def _of(
        self, node: ast.expr, scope: Scope, bound: Mapping[str, tuple[ast.expr, Scope]], seen: frozenset[int]
    ) -> Iterator[Origin]:
        if id(node) in seen or len(seen) > _DEEPEST or self._left <= 0:
            return
        self._left -= 1
        seen |= {id(node)}
        own = volatile_value(node, self.imports)
        if own is not None:
            yield own
        elif isinstance(node, ast.Name):
            yield from self._name(node, scope, bound, seen)
        elif isinstance(node, ast.Call):
            yield from self._call(node, scope, bound, seen)
        elif isinstance(node, ast.Attribute):
            yield from self._attribute(node, scope, bound, seen)
        else:
            for child in _parts(node):
                yield from self._of(child, scope, bound, seen)

    def _name(
        self, node: ast.Name, scope: Scope, bound: Mapping[str, tuple[ast.expr, Scope]], seen: frozenset[int]
    ) -> Iterator[Origin]:
        known = scope.gets(node.id, node.lineno)
        if known is not None:
            for given in known[0]:
                yield from self._of(given.value, known[1], bound if known[1] is scope else {}, seen)
        elif node.id in bound:
            value, caller = bound[node.id]
            yield from self._of(value, caller, {}, seen)
        elif node.id in scope.params:
            if node.id in scope.defaults and scope.parent is not None:
                yield from self._of(scope.defaults[node.id], scope.parent, {}, seen)
            for value, caller in self.arguments(scope, node.id):
                yield from self._of(value, caller, {}, seen)

    def _attribute(
        self,
        node: ast.Attribute,
        scope: Scope,
        bound: Mapping[str, tuple[ast.expr, Scope]],
        seen: frozenset[int],
    ) -> Iterator[Origin]:
        if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls") and scope.owner is not None:
            for given, method in _attributes(scope.owner, node.attr):
                yield from self._of(given.value, method, {}, seen)
        else:
            yield from self._of(node.value, scope, bound, seen)

    def _call(
        self, call: ast.Call, scope: Scope, bound: Mapping[str, tuple[ast.expr, Scope]], seen: frozenset[int]
    ) -> Iterator[Origin]:
        name = dotted(call.func).rpartition(".")[2] or getattr(call.func, "attr", "")
        if name in _CLEAN:
            return
        own = volatile_call(call, self.imports)
        if own is not None:
            yield own
            return
        helper = self._helper(call, scope)
        if helper is not None:
            arguments = {each: (value, scope) for each, value in _bound(call, helper).items()}
            for value in helper.returns:
                yield from self._of(value, helper, arguments, seen)
            return
        yield from self._through(call, name, scope, bound, seen)

    def _through(
        self,
        call: ast.Call,
        name: str,
        scope: Scope,
        bound: Mapping[str, tuple[ast.expr, Scope]],
        seen: frozenset[int],
    ) -> Iterator[Origin]:
        """What a call hands on of what it was given."""
        lowered = name.lower()
        if name == "dumps":
            yield from unsorted_json(call, scope)
        if name not in _THROUGH | _SORTING and not any(word in lowered for word in _BUILDERS):
            return
        values = [*call.args, *(each.value for each in call.keywords if each.arg not in _KEYWORDS_APART)]
        if isinstance(call.func, ast.Attribute) and name in _THROUGH:
            values.append(call.func.value)
        sorts = name in _SORTING or (name == "dumps" and _is_true(call, "sort_keys"))
        for value in values:
            for found in self._of(value, scope, bound, seen):
                if not (sorts and found.rule == "LB003"):
                    yield found

    def _helper(self, call: ast.Call, scope: Scope) -> Scope | None:
        if isinstance(call.func, ast.Name):
            return scope.function(call.func.id)
        if isinstance(call.func, ast.Attribute) and dotted(call.func.value) in ("self", "cls"):
            return scope.owner.functions.get(call.func.attr) if scope.owner is not None else None
        return None

    def arguments(self, function: Scope, name: str) -> Iterator[tuple[ast.expr, Scope]]:
        """What the calls of a function in this module give for one of its parameters."""
        for caller in self._scopes.values():
            for call in caller.calls:
                if self._helper(call, caller) is function:
                    value = _bound(call, function).get(name)
                    if value is not None:
                        yield value, caller


def unsorted_json(call: ast.Call, scope: Scope) -> Iterator[Origin]:
    """JSON of an object whose keys come in the order that somebody else chose."""
    if _is_true(call, "sort_keys") or not call.args:
        return
    value = call.args[0]
    node = scope.node
    spread = node.args.kwarg if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else None
    if isinstance(value, ast.Name) and spread is not None and value.id == spread.arg:
        yield Origin("LB004", call, f"json.dumps(**{value.id})")
    elif isinstance(value, ast.Call) and dotted(value.func) in ("vars", "locals", "globals"):
        yield Origin("LB004", call, f"json.dumps({dotted(value.func)}())")


def _is_true(call: ast.Call, name: str) -> bool:
    return any(
        each.arg == name and isinstance(each.value, ast.Constant) and each.value.value is True
        for each in call.keywords
    )


def _bound(call: ast.Call, function: Scope) -> dict[str, ast.expr]:
    """The arguments of a call by the parameters that get them."""
    params = function.params
    if params[:1] in (["self"], ["cls"]):
        params = params[1:]
    out = dict(zip(params, call.args, strict=False))
    out.update({each.arg: each.value for each in call.keywords if each.arg is not None})
    return out


def _attributes(owner: Scope, name: str) -> Iterator[tuple[Given, Scope]]:
    """What the methods of a class, and its body, give to an attribute."""
    for given in owner.given.get(name, ()):
        yield given, owner
    for method in owner.functions.values():
        for given in method.given.get(f"self.{name}", ()):
            yield given, method


def _parts(node: ast.expr) -> Iterator[ast.expr]:
    """The expressions whose values go into this one; those that only decide something do not."""
    if isinstance(node, ast.Compare | ast.Lambda | ast.Constant):
        return
    if isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif isinstance(node, ast.Subscript):
        yield node.value
    elif isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp):
        yield from ([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt])
        yield from (each.iter for each in node.generators)
    elif isinstance(node, ast.NamedExpr):
        yield node.value
    else:
        yield from (child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr))
