"""`__all__`, the pages of the reference and the docstrings agree, and every public name has its types."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import sys
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.doc_pages import DOCS, ROOT, fences, named, pages, prose

import llmbuffer

REFERENCE = DOCS / "reference"
UNTYPED = {"self", "cls"}  # what the language fixes


@cache
def rooms() -> dict[str, Path]:
    """Each public room, and the page of the reference that shows it."""
    found: dict[str, Path] = {}
    for page in sorted(REFERENCE.glob("*.md")):
        for name in re.findall(r"^\.\. automodule:: (\S+)$", page.read_text("utf-8"), re.MULTILINE):
            assert name not in found, f"{name} is shown twice: {named(page)} and {named(found[name])}"
            found[name] = page
    return found


ROOMS = sorted(rooms())


def room(name: str) -> ModuleType:
    return importlib.import_module(name)


def shown(name: str) -> list[str]:
    """The names that the page of a room shows: those after `:members:`, or all of `__all__`."""
    [listed] = re.findall(r"^   :members:(.*)$", rooms()[name].read_text("utf-8"), re.MULTILINE)
    return [each.strip() for each in listed.split(",") if each.strip()] or list(room(name).__all__)


def public() -> Iterator[tuple[str, Any]]:
    """Every public class and function, once, by the name of the first room that shows it."""
    seen: set[int] = set()
    for name in ROOMS:
        for attribute in shown(name):
            value = getattr(room(name), attribute)
            if id(value) not in seen and getattr(value, "__module__", "").startswith("llmbuffer"):
                seen.add(id(value))
                yield f"{name}.{attribute}", value


PUBLIC = dict(public())


def callables(value: Any) -> Iterator[tuple[str, Any]]:
    """A function itself; of a class its own public methods and `__init__`, as written by us."""
    if inspect.isfunction(value):
        yield "", value
    elif inspect.isclass(value):
        for name, member in vars(value).items():
            function = getattr(member, "__func__", getattr(member, "fget", member))
            ours = inspect.isfunction(function) and function.__module__.startswith("llmbuffer")
            if ours and (name == "__init__" or not name.startswith("_")):
                yield f".{name}", function


@pytest.mark.parametrize("name", ROOMS)
def test_what_a_room_offers_exists_and_is_described(name: str) -> None:
    assert inspect.getdoc(room(name)), f"{name} has no docstring"
    for attribute in shown(name):
        value = getattr(room(name), attribute)  # AttributeError: a page names what does not exist
        if inspect.isclass(value) or inspect.isroutine(value):
            assert inspect.getdoc(value), f"{name}.{attribute} has no docstring"
    assert len(set(room(name).__all__)) == len(room(name).__all__)


def test_the_page_of_the_front_door_shows_all_of_it() -> None:
    text = (REFERENCE / "llmbuffer.md").read_text("utf-8")
    listed = re.findall(r"^   ~(llmbuffer(?:\.\w+)+)$", text, re.MULTILINE)
    assert sorted(path.rpartition(".")[2] for path in listed) == sorted(llmbuffer.__all__)
    for path in listed:
        where, _, name = path.rpartition(".")
        assert where in rooms(), f"{path}: {where} has no page"
        assert name in shown(where), f"{path} does not stand on {named(rooms()[where])}"
        assert getattr(room(where), name) is getattr(llmbuffer, name)


def test_every_page_of_the_reference_is_in_its_index() -> None:
    listed = [line for fence in fences(REFERENCE / "index.md") for line in fence.text.splitlines()]
    pages_there = {page.stem for page in REFERENCE.glob("*.md")} - {"index"}
    assert pages_there == {line for line in listed if line and not line.startswith(":")}


def imports(page: Path) -> Iterator[tuple[str, str]]:
    """Room and name of everything that the snippets of a page take from llmbuffer."""
    for fence in fences(page):
        if fence.info == "python":
            for node in ast.walk(ast.parse(fence.text)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "llmbuffer":
                    yield from ((str(node.module), alias.name) for alias in node.names)


@pytest.mark.parametrize("page", pages(), ids=named)
def test_what_a_page_imports_stands_in_the_reference(page: Path) -> None:
    """A page that shows how to use a name says by that that it is public."""
    for where, name in imports(page):
        if where in rooms():
            assert name in shown(where), f"{name} is not on {named(rooms()[where])}"
        elif where != "llmbuffer":
            assert any(where.startswith(f"{known}.") for known in rooms()), f"{where} has no page"


def test_adapters_import_what_stands_in_the_reference() -> None:
    """They are released apart from the core, so they may rely on what is promised to stay, like everybody's."""
    inside = [
        f"{path.relative_to(ROOT)}: {node.module}"
        for path in sorted(ROOT.glob("integrations/*/src/**/*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llmbuffer.")
        if not any(f"{node.module}.".startswith(f"{known}.") for known in rooms())
    ]
    assert inside == []


@pytest.mark.parametrize("page", pages(), ids=named)
def test_names_in_the_text_of_a_page_exist(page: Path) -> None:
    told = Path(str(room("llmbuffer.otel").__file__)).read_text(
        "utf-8"
    )  # attributes of spans look like names
    for path in re.findall(r"`(llmbuffer(?:\.\w+)+)(?:\([^`]*\))?`", prose(page)):
        assert f'"{path}' in told or _found(path), f"there is no {path}"
    session = llmbuffer.Session(llmbuffer.StableContext("gpt-5.5"))
    for name in re.findall(r"`[sS]ession\.(\w+)", prose(page)):
        assert hasattr(session, name), f"a session has no {name}"


def _found(path: str) -> bool:
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            if not hasattr(value, name):
                return False
            value = getattr(value, name)
        return True
    return False


@cache
def names_of_types() -> dict[str, Any]:
    """Every class, alias and module of the package: what an annotation may name although it is imported for checkers only."""
    found: dict[str, Any] = {}
    for each in pkgutil.walk_packages(llmbuffer.__path__, "llmbuffer."):
        module = sys.modules.get(each.name)
        for name in getattr(module, "__all__", ()):
            found.setdefault(name, getattr(module, name))
    return found


@pytest.mark.parametrize("name", [name for name, value in PUBLIC.items() if list(callables(value))])
def test_every_argument_and_result_has_a_type(name: str) -> None:
    for suffix, function in callables(PUBLIC[name]):
        signature = inspect.signature(function)
        bare = [each for each in signature.parameters.values() if each.annotation is each.empty]
        assert [each.name for each in bare if each.name not in UNTYPED] == [], f"{name}{suffix}"
        assert signature.return_annotation is not signature.empty, (
            f"{name}{suffix} does not say what it returns"
        )


def test_the_types_of_fields_resolve() -> None:
    """What structs, named tuples and protocols hold can be asked for at run time, with the names of all rooms at hand."""
    unresolved = {}
    for name, value in PUBLIC.items():
        if inspect.isclass(value):
            try:
                typing.get_type_hints(value, localns=names_of_types())
            except NameError as error:
                unresolved[name] = str(error)
    assert unresolved == {}
