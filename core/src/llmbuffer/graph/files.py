"""Graph files: a task graph of prompts as YAML or TOML, read with loaders that make plain values only."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ..calls import Executor
from ..context import StableContext
from ..errors import GraphError, GraphFileError
from ..limits import Budget
from ..plugins import get_dialect
from ..session import Session
from ..tools import Tool
from .parsing import parsed
from .taskgraph import TaskGraph

__all__ = ["GraphFile", "read_graph"]

_TOP = ("name", "model", "dialect", "system", "params", "tools", "limits", "on_failure", "tasks")
_TASK = ("prompt", "after", "continues", "tools", "retries", "timeout", "params", "max_rounds", "version")
_LIMITS = ("requests", "tokens", "usd", "retries", "timeout")


class GraphFile(msgspec.Struct, frozen=True, kw_only=True):
    """A graph file that was read: the graph, and what its session and its run begin with.

    ``limit`` is how many requests may be under way, ``tokens`` and ``usd`` bound what may be spent (``None``: no bound).
    """

    graph: TaskGraph
    model: str | None = None
    dialect: str = "openai"
    system: str = ""
    params: Mapping[str, Any] = {}
    tools: tuple[Tool, ...] = ()
    limit: int = 8
    tokens: int | None = None
    usd: float | None = None
    on_failure: str = "fail-fast"

    def session(self, model: str | None = None, dialect: str | None = None, **options: Any) -> Session:
        """A session as the file describes it; ``model`` and ``dialect`` take the place of the file's.

        Without a model it is the dialect's own default.
        """
        named = get_dialect(dialect or self.dialect)
        chosen = model or self.model or named.default_model
        context = StableContext(chosen, self.system or None, list(self.tools), dict(self.params))
        return Session(context, named, **options)

    def budget(self) -> Budget | None:
        """A budget as the file bounds it, ``None`` without a bound."""
        return None if self.tokens is None and self.usd is None else Budget(tokens=self.tokens, usd=self.usd)


def read_graph(path: str | Path, *, tools: Mapping[str, Callable[..., Any]] | None = None) -> GraphFile:
    r"""Read a graph file, ``.yaml``, ``.yml`` or ``.toml``, and check it.

    ``tools`` are the functions that its tasks may name; a file cannot name any others. Raises ``GraphFileError`` with file
    and key for what cannot be read, and what ``TaskGraph.validate`` raises. YAML needs the extra ``graph``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "tea.toml")
    ...     _ = path.write_text('[tasks]\nfacts = "List facts on tea."\nsum = {prompt = "Sum up.", after = ["facts"]}')
    ...     read_graph(path).graph.order()
    ('facts', 'sum')
    """
    path = Path(path)
    return _File(path, tools or {}).read(parsed(path))


class _File:
    """One file while it is read; ``where`` is a path of keys, for errors."""

    def __init__(self, path: Path, tools: Mapping[str, Callable[..., Any]]) -> None:
        self.path, self.tools = path, tools

    def wrong(self, where: str, what: str) -> GraphFileError:
        return GraphFileError(f"{self.path.name}: {where}: {what}", path=(where,))

    def known(self, where: str, given: Any, fields: tuple[str, ...]) -> dict[str, Any]:
        """A mapping with these keys only."""
        if not isinstance(given, dict):
            raise self.wrong(where, f"found a {_kind(given)}: write a mapping with {', '.join(fields)}")
        for key in given:
            if key not in fields:
                near = difflib.get_close_matches(str(key), fields, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(fields)}"
                raise self.wrong(where, f"found the unknown key {key!r}: {hint}")
        return given

    def value(
        self, where: str, given: Mapping[str, Any], key: str, kinds: tuple[type, ...], default: Any
    ) -> Any:
        """A value of one of these kinds; true and false are no numbers."""
        if key not in given:
            return default
        found = given[key]
        if not isinstance(found, kinds) or (isinstance(found, bool) and bool not in kinds):
            wanted = " or ".join(_NAMES[kind] for kind in kinds)
            raise self.wrong(f"{where}{key}", f"found a {_kind(found)}: write {wanted}")
        return found

    def read(self, given: Any) -> GraphFile:
        top = self.known("the file", given, _TOP)
        limits = self.known("limits", top.get("limits", {}), _LIMITS)
        name = self.value("", top, "name", (str,), self.path.stem)
        graph = TaskGraph(name)
        tasks = self.value("", top, "tasks", (dict,), {})
        if not tasks:
            raise self.wrong("tasks", "found none: write at least one, as tasks: {key: {prompt: …}}")
        for key, each in tasks.items():
            self.add(graph, key, each, limits)
        found = self._file(graph, top, limits)
        self._checked(graph, found)
        return found

    def _file(self, graph: TaskGraph, top: dict[str, Any], limits: dict[str, Any]) -> GraphFile:
        number = (int, float)
        limit = self.value("limits.", limits, "requests", (int,), 8)
        if limit < 1:
            raise self.wrong("limits.requests", f"found {limit}: at least one request has to be under way")
        return GraphFile(
            graph=graph,
            model=self.value("", top, "model", (str,), None),
            dialect=self.value("", top, "dialect", (str,), "openai"),
            system=self.value("", top, "system", (str,), ""),
            params=self.value("", top, "params", (dict,), {}),
            tools=tuple(Tool.of(each) for each in self.value("", top, "tools", (list,), [])),
            limit=limit,
            tokens=self.value("limits.", limits, "tokens", (int,), None),
            usd=self.value("limits.", limits, "usd", number, None),
            on_failure=self._policy(top),
        )

    def _policy(self, top: dict[str, Any]) -> str:
        found: str = self.value("", top, "on_failure", (str,), "fail-fast")
        if found not in ("fail-fast", "skip-dependents"):
            raise self.wrong("on_failure", f"found {found!r}: write fail-fast or skip-dependents")
        return found

    def _checked(self, graph: TaskGraph, found: GraphFile) -> None:
        try:
            graph.validate()
            found.budget()
        except GraphError as error:
            error.args = (f"{self.path.name}: {error}", *error.args[1:])
            raise

    def add(self, graph: TaskGraph, key: Any, given: Any, limits: dict[str, Any]) -> None:
        """Add one task; a text alone is its prompt."""
        where = f"tasks.{key}"
        if not isinstance(key, str):
            raise self.wrong(where, f"the key is a {_kind(key)}: put it into quotes")
        task = {"prompt": given} if isinstance(given, str) else self.known(where, given, _TASK)
        if "prompt" not in task:
            raise self.wrong(where, "it has no prompt: write prompt: TEXT; functions cannot stand in a file")
        where += "."
        number = (int, float)
        try:
            graph.task(
                key,
                self.value(where, task, "prompt", (str,), ""),
                after=self._keys(where, task),
                continues=self.value(where, task, "continues", (str,), None),
                tools=self._tools(where, task),
                retries=self._count(where, task, "retries", self._count("limits.", limits, "retries", 0)),
                timeout=self.value(
                    where, task, "timeout", number, self.value("limits.", limits, "timeout", number, None)
                ),
                params=self.value(where, task, "params", (dict,), None),
                max_rounds=self._count(where, task, "max_rounds", 32),
                version=self.value(where, task, "version", (str,), ""),
            )
        except GraphFileError:
            raise
        except GraphError as error:
            raise self.wrong(where[:-1], str(error)) from error

    def _count(self, where: str, given: Mapping[str, Any], key: str, default: int) -> int:
        found: int = self.value(where, given, key, (int,), default)
        if found < 0:
            raise self.wrong(f"{where}{key}", f"found {found}: write a number from 0")
        return found

    def _keys(self, where: str, task: Mapping[str, Any]) -> list[str]:
        found = self.value(where, task, "after", (str, list), [])
        listed = [found] if isinstance(found, str) else found
        for each in listed:
            if not isinstance(each, str):
                raise self.wrong(
                    f"{where}after", f"found a {_kind(each)} in it: write keys of tasks, in quotes"
                )
        return listed

    def _tools(self, where: str, task: Mapping[str, Any]) -> Executor | None:
        names = self.value(where, task, "tools", (list,), None)
        if names is None:
            return None
        for name in names:
            if name not in self.tools:
                raise self.wrong(
                    f"{where}tools",
                    f"found {name!r}, and the functions that it may name are {sorted(self.tools)}: a program gives them, as "
                    "read_graph(path, tools={name: function})",
                )
        return {name: self.tools[name] for name in names}


_NAMES: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    dict: "a mapping",
    list: "a list",
}


def _kind(value: object) -> str:
    named = {
        str: "text",
        int: "number",
        float: "number",
        bool: "true or false",
        dict: "mapping",
        list: "list",
    }
    return named.get(type(value), "nothing" if value is None else type(value).__name__)
