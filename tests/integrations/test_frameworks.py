"""The tests of each adapter, in a process of its own where its framework is installed.

Frameworks import for seconds, set up telemetry, event buses and loggers, and warn about each other; so none of them is
imported where the core is tested.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FRAMEWORKS = {
    "agentchat": "autogen_agentchat",
    "autogen": "autogen",
    "crewai": "crewai",
    "langchain": "langchain",
    "llamaindex": "llama_index",
}
SECONDS = 900


def test_every_folder_is_run() -> None:
    folders = {path.name for path in HERE.iterdir() if any(path.glob("test_*.py"))}
    assert folders == set(FRAMEWORKS)


@pytest.mark.timeout(SECONDS + 30)
@pytest.mark.parametrize("name", sorted(FRAMEWORKS))
def test_an_adapter_keeps_its_promises(name: str, tmp_path: Path) -> None:
    if find_spec(FRAMEWORKS[name]) is None and not os.environ.get("CI"):
        pytest.skip(f"{FRAMEWORKS[name]} is not installed: constraints/frameworks.txt has it")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / name)]
    command += [f"--basetemp={tmp_path / 'tests'}", "--color=no"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS)
    closing = run.stdout.rstrip().rpartition("\n")[2]
    print(f"{name}: {closing}")
    assert run.returncode == 0, f"{run.stdout[-20_000:]}\n{run.stderr[-2_000:]}"
    assert re.search(r"\b[1-9]\d* passed", closing), closing
