"""The notebooks run from top to bottom, offline, show pictures, and are committed without outputs."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest
from tests.notebooks import FOLDER, cells, notebooks, shown

BOOKS = notebooks()


def need(*packages: str) -> None:
    """Skip without these packages; where CI runs, fail, so that nothing is left out there in silence."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"not installed: {missing}; notebooks must run where CI is set")
    if missing:
        pytest.skip(f"not installed: {missing}")


def test_there_are_five_of_them() -> None:
    assert [path.name[:2] for path in BOOKS] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_pictures(path: Path) -> None:
    source = "\n".join(cells(path))
    need("openai", *(("xllamacpp", "gguf") if "EngineServer" in source else ()))
    pictures = [told for told in shown(path) if "<svg" in told]
    assert pictures
    assert all("<script" not in told and "://" not in re.sub(r'xmlns="[^"]*"', "", told) for told in pictures)


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_it_was_written(path: Path) -> None:
    book = json.loads(path.read_text("utf-8"))
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert path.read_text("utf-8") == json.dumps(book, indent=1, ensure_ascii=False) + "\n"
    assert (book["nbformat"], book["metadata"]["kernelspec"]["name"]) == (4, "python3")


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_says_whether_its_figures_are_measured(path: Path) -> None:
    opening = cells(path, "markdown")[0]
    engine = "EngineServer" in "\n".join(cells(path))
    assert ("*Measured" in opening) == engine
    assert ("*Simulated" in opening) != engine


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_links_of_a_notebook_lead_somewhere(path: Path) -> None:
    for text in cells(path, "markdown"):
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert (FOLDER / target).exists(), f"{path.name} links to {target}"
