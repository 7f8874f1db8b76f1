"""From the text of a graph file to plain values: texts, numbers, lists, mappings, and nothing that could run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import GraphFileError

__all__ = ["parsed"]

_MOST_BYTES = 16 * 2**20


def parsed(path: Path) -> Any:
    """What a file says. Raises ``GraphFileError`` for another format, for text that is none, and for keys that come twice."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise GraphFileError(
            f"{path.name}: found the ending {path.suffix!r}: give a .yaml, .yml or .toml file"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise GraphFileError(
            f"{path.name}: {error.strerror}: give the path of a file that can be read"
        ) from error
    if len(content) > _MOST_BYTES:
        raise GraphFileError(
            f"{path.name}: found {len(content):,} bytes: a graph file has at most {_MOST_BYTES:,}"
        )
    try:
        return reader(path.name, content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise GraphFileError(
            f"{path.name}: byte {error.start} is no UTF-8: save the file as UTF-8"
        ) from error
    except RecursionError:
        raise GraphFileError(f"{path.name}: it is nested too deeply: a graph needs three levels") from None


def _toml(name: str, text: str) -> Any:
    library = _toml_library()
    try:
        return library.loads(text)
    except library.TOMLDecodeError as error:
        raise GraphFileError(f"{name}: it is no TOML: {error}") from error


def _toml_library() -> Any:
    if sys.version_info >= (3, 11):
        import tomllib

        return tomllib
    from importlib import import_module

    try:
        return import_module("tomli")
    except ModuleNotFoundError:
        raise GraphFileError("TOML files need tomli: pip install 'llmbuffer[graph]>=1'") from None


def _yaml(name: str, text: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise GraphFileError(
            "YAML files need PyYAML: pip install 'llmbuffer[graph]>=1', or write TOML"
        ) from None
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_doubles(name, tree)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise GraphFileError(f"{name}: it is no plain YAML{_told(error)}") from None


def _told(error: Any) -> str:
    """What is wrong and where; the error itself shows a piece of the file, which may be a prompt."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    place = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
    return f"{place}: {problem}" if problem else f"{place}: it breaks off, or holds odd characters"


def _refuse_doubles(name: str, tree: Any) -> None:
    """YAML lets the second of two equal keys win, and a task would be lost without a word."""
    nodes, seen = [tree], set()
    while nodes:
        node = nodes.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if node.id == "sequence":
            nodes += node.value
        elif node.id == "mapping":
            keys = [key.value for key, _ in node.value if key.id == "scalar"]
            met: set[str] = set()
            double = next((key for key in keys if key in met or met.add(key)), None)  # type: ignore[func-returns-value]  # None, which is false
            if double is not None:
                line = node.start_mark.line + 1
                raise GraphFileError(
                    f"{name}: the key {double!r} comes twice in the mapping of line {line}: rename one"
                )
            nodes += [value for _, value in node.value]


_READERS: dict[str, Callable[[str, str], Any]] = {".yaml": _yaml, ".yml": _yaml, ".toml": _toml}
