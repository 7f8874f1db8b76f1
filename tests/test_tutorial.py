"""The tutorial as a reader types it: files saved under the names that the pages give, and every command in order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.doc_pages import DOCS, FENCE, provider, same_words

PAGES = ("first-session", "first-fork", "first-break")
COMMAND = [sys.executable, "-c", "from llmbuffer.cli import main; main()"]
SAVED = re.compile(r"Save this as `(\w+\.py)`")


def steps(page: str) -> list[tuple[str, str, str]]:
    """What is to be done on a page, in order: (what, file, text); ``what`` is ``save``, ``add``, ``run`` or ``shows``."""
    text = (DOCS / "tutorial" / f"{page}.md").read_text("utf-8")
    found: list[tuple[str, str, str]] = []
    end, file = 0, ""
    for block in FENCE.finditer(text):
        told, info, inner = text[end : block.start()], block.group(1), block.group(2)
        end = block.end()
        if named := SAVED.findall(told):
            file = named[-1]
            found.append(("save", file, inner))
        elif info == "python" and "Add this to the file" in told:
            found.append(("add", file, inner))
        elif info == "text printed" and not any(each == ("shows", file, inner) for each in found):
            found.append(("shows", file, inner))
        elif info == "sh":
            found += [
                ("run", "", line) for line in inner.splitlines() if line.startswith(("llmbuffer ", "python "))
            ]
    return [step for step in found if step[2] != "llmbuffer serve"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the reader works in, over all pages."""
    return tmp_path_factory.mktemp("desk")


def typed(command: list[str], desk: Path) -> subprocess.CompletedProcess[str]:
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        command, cwd=desk, env=quiet, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("page", PAGES)
def test_a_page_typed_line_by_line(page: str, desk: Path) -> None:
    todo = steps(page)
    assert todo
    with provider():
        for what, file, text in todo:
            if what in ("save", "add"):
                before = (desk / file).read_text("utf-8") + "\n" if what == "add" else ""
                (desk / file).write_text(before + text, "utf-8")
            elif what == "shows" and (desk / file).exists():
                done = typed([sys.executable, file], desk)
                assert done.returncode == 0, done.stderr
                lines = done.stdout.splitlines(keepends=True)
                heads = ["".join(lines[start:]) for start in range(len(lines))]
                assert any(same_words(head, text) for head in heads), done.stdout
            elif what == "run":
                _run(text, desk)


def _run(line: str, desk: Path) -> None:
    name, *arguments = shlex.split(line)
    done = typed([*(COMMAND if name == "llmbuffer" else [sys.executable]), *arguments], desk)
    finds = arguments[:1] == ["lint"]
    assert done.returncode == (1 if finds else 0), f"{line}: {done.stdout}{done.stderr}"
    if finds:
        assert "plain.py" in done.stdout
        assert "buffered.py" not in done.stdout


def test_the_pages_have_been_understood() -> None:
    done = [(what, file or text) for page in PAGES for what, file, text in steps(page)]
    assert ("save", "plain.py") in done
    assert ("save", "buffered.py") in done
    assert ("add", "fork.py") in done
    assert ("run", "llmbuffer explain requests.jsonl:1 requests.jsonl:2") in done
    assert sum(what == "shows" for what, _ in done) == 5
