"""Tasks in files: JSON, JSON lines, YAML, TOML, or one task a line."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import LimitError, LLMBufferError, MessageError
from .tasks import Task, task_of

__all__ = ["read_tasks"]


def read_tasks(path: str | Path) -> tuple[Task, ...]:
    r"""The tasks of a file, by its ending.

    ``.json``, ``.yaml``, ``.yml``: a list, or a mapping with the list as ``tasks``; ``.toml``: ``[[tasks]]``; ``.jsonl``: one
    a line; anything else is text, of which each line that is not blank is a task. A task is a text, or a mapping with
    ``task`` and perhaps ``name``, ``dynamic``, ``params`` and ``neutral``.

    Raises ``MessageError`` for what is no such file, with the place in it, ``LimitError`` if reading YAML (or, before Python
    3.11, TOML) needs a package that is not installed, and ``OSError``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "tasks.txt").write_text("Count the parcels.\n\nSum up.\n")
    ...     [task.task for task in read_tasks(Path(folder, "tasks.txt"))]
    ['Count the parcels.', 'Sum up.']
    """
    path = Path(path)
    try:
        found = _listed(path)
    except ValueError as error:  # of every format's own kind, and text that is not UTF-8
        if isinstance(error, LLMBufferError):
            raise
        raise MessageError(f"{path}: cannot be read: {error}") from None
    tasks = []
    for number, each in enumerate(found, 1):
        if isinstance(each, Mapping) and "tools" in each:
            raise MessageError(f"{path}, task {number}: a file cannot hold tools; use fan_out in a program")
        try:
            tasks.append(task_of(each, number))
        except MessageError as error:
            raise MessageError(f"{path}, {error}") from None
    if not tasks:
        raise MessageError(f"{path} holds no tasks: write one a line, or a list in JSON, YAML or TOML")
    return tuple(tasks)


def _listed(path: Path) -> Sequence[Any]:
    text, kind = path.read_text(encoding="utf-8"), path.suffix.lower()
    if kind == ".json":
        return _list_in(path, json.loads(text))
    if kind == ".jsonl":
        return [_line(path, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if kind in (".yaml", ".yml"):
        return _list_in(path, _yaml(path, text))
    if kind == ".toml":
        return _list_in(path, _toml(text))
    return [line.strip() for line in text.splitlines() if line.strip()]


def _line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise MessageError(f"{path}, line {number}: no JSON: {error}") from None


def _list_in(path: Path, found: Any) -> Sequence[Any]:
    tasks = found.get("tasks") if isinstance(found, Mapping) else found
    if not isinstance(tasks, list):
        raise MessageError(
            f"{path} holds a {type(found).__name__}: give a list, or a mapping with the list as 'tasks'"
        )
    return tasks


def _yaml(path: Path, text: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise LimitError(f"{path}: YAML needs pyyaml: pip install 'llmbuffer[graph]>=1'") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise MessageError(f"{path}: no YAML: {error}") from None


def _toml(text: str) -> Any:
    name = "tomllib" if sys.version_info >= (3, 11) else "tomli"
    try:
        return import_module(name).loads(text)
    except ModuleNotFoundError:
        raise LimitError(f"TOML needs {name}: pip install 'llmbuffer[graph]>=1'") from None
