"""Which calls give another value each time, by what they are imported as."""

from __future__ import annotations

import ast
import re
from typing import NamedTuple

__all__ = ["Imports", "Origin", "dotted", "volatile_call", "volatile_value"]


class Origin(NamedTuple):
    """Where something volatile comes from."""

    rule: str
    node: ast.expr
    what: str


_CLOCK = re.compile(
    r"datetime\.(?:datetime\.(?:now|utcnow|today)|date\.today)|"
    r"time\.(?:time|time_ns|monotonic|monotonic_ns|perf_counter|perf_counter_ns|ctime|asctime|localtime|gmtime|strftime)|"
    r"pendulum\.(?:now|today)|arrow\.(?:now|utcnow)|pandas\.Timestamp\.(?:now|today|utcnow)|"
    r"django\.utils\.timezone\.(?:now|localtime|localdate)"
)
_RANDOM = re.compile(
    r"uuid\.uuid[1-8]|secrets\.\w+|os\.(?:urandom|getpid|getppid|times)|threading\.(?:get_ident|get_native_id)|"
    r"random\.(?!Random$|seed$|getstate$|setstate$)\w+|numpy\.random\.(?!seed$|default_rng$|Generator$|RandomState$)\w+|"
    r"tempfile\.(?:mkdtemp|mkstemp|mktemp|TemporaryDirectory|NamedTemporaryFile|gettempdir)|"
    r"shortuuid\.uuid|nanoid\.generate|(?:builtins\.)?(?:id|hash)"
)
_UNORDERED = re.compile(r"os\.(?:listdir|scandir|walk)|glob\.i?glob|(?:builtins\.)?(?:set|frozenset)")
_MACHINE = re.compile(
    r"os\.(?:getenv|environ\.get|getcwd|getlogin|uname|cpu_count)|platform\.\w+|socket\.(?:gethostname|getfqdn)|"
    r"getpass\.getuser|pathlib\.Path\.(?:cwd|home)"
)
# Methods of paths, whose class is not to be seen where they are called.
_LISTING = frozenset({"glob", "rglob", "iterdir"})
_SETS = frozenset({"set", "frozenset"})
# What these take so many arguments for is the present time; with one more they are given another.
_GIVEN = {"time.strftime": 1, "time.ctime": 0, "time.asctime": 0, "time.localtime": 0, "time.gmtime": 0}
_BUILTINS = frozenset({"id", "hash", "set", "frozenset"})
_TABLES = (("LB001", _CLOCK), ("LB002", _RANDOM), ("LB003", _UNORDERED), ("LB005", _MACHINE))


class Imports:
    """What the names of a module stand for, as far as imports say."""

    def __init__(self, tree: ast.AST) -> None:
        self._names: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    name = alias.asname or alias.name.partition(".")[0]
                    self._names[name] = alias.name if alias.asname else name
            elif isinstance(node, ast.ImportFrom) and not node.level:
                for alias in node.names:
                    self._names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        self._shadowed = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        }

    def full(self, name: str) -> str | None:
        """The full name behind a dotted one: ``datetime.datetime.now`` for ``dt.datetime.now``."""
        first, dot, rest = name.partition(".")
        if first in self._names:
            return f"{self._names[first]}{dot}{rest}"
        return name if name in _BUILTINS and name not in self._shadowed else None


def dotted(node: ast.AST) -> str:
    """The dotted name that an expression is; empty for any other expression.

    >>> dotted(ast.parse("a.b.c()").body[0].value.func)
    'a.b.c'
    """
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def volatile_call(call: ast.Call, imports: Imports) -> Origin | None:
    """What is volatile about the value of a call, if anything is."""
    full = imports.full(dotted(call.func))
    if full is None:
        listing = isinstance(call.func, ast.Attribute) and call.func.attr in _LISTING
        return Origin("LB003", call, f".{_last(call.func)}()") if listing else None
    if len(call.args) > _GIVEN.get(full, len(call.args)) or (full in _SETS and not call.args):
        return None
    rule = next((rule for rule, table in _TABLES if table.fullmatch(full)), None)
    return None if rule is None else Origin(rule, call, f"{full}()")


def volatile_value(node: ast.expr, imports: Imports) -> Origin | None:
    """What is volatile about a value that is no call: a set, or the environment."""
    if isinstance(node, ast.Set | ast.SetComp):
        return Origin("LB003", node, "a set")
    if isinstance(node, ast.Subscript) and imports.full(dotted(node.value)) == "os.environ":
        return Origin("LB005", node, "os.environ[...]")
    return None


def _last(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else ""
