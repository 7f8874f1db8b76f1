"""Run notebooks without Jupyter: `python -m tests.notebooks notebooks/01-first-prefix.ipynb` prints what each cell shows."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"


def notebooks() -> list[Path]:
    return sorted(FOLDER.glob("*.ipynb"))


def cells(path: Path, kind: str = "code") -> list[str]:
    book = json.loads(path.read_text("utf-8"))
    return ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == kind]


def shown(path: Path) -> Iterator[str]:
    """Run the code cells in one namespace; yields for each what its last line shows: HTML where it has any."""
    namespace: dict[str, Any] = {"__name__": path.stem}
    for number, source in enumerate(cells(path)):
        tree = ast.parse(source)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        name = f"{path.name}, cell {number}"
        exec(compile(tree, name, "exec"), namespace)
        value = None
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
        drawn = getattr(value, "_repr_html_", None)
        yield drawn() if drawn is not None else "" if value is None else repr(value)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        for number, told in enumerate(shown(Path(argument))):
            print(f"{Path(argument).name}, cell {number}: {told[:400]}")
