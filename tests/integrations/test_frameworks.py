"""The tests of each adapter, in a process of its own where its framework is installed.

Frameworks import for seconds, set up telemetry, event buses and loggers, and warn about each other; so none of them is
imported where the core is tested.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

Run = subprocess.CompletedProcess[str]
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FRAMEWORKS = {  # those that take longest come first
    "langchain": "langchain",
    "llamaindex": "llama_index",
    "agentchat": "autogen_agentchat",
    "crewai": "crewai",
    "autogen": "autogen",
}
SECONDS = 900  # for one of them
AT_A_TIME = 2


def test_every_folder_is_run() -> None:
    folders = {path.name for path in HERE.iterdir() if any(path.glob("test_*.py"))}
    assert folders == set(FRAMEWORKS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future[Run]]]:
    """What the tests of each installed framework come to, some at a time; they wait for servers as much as they work."""
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        there = [name for name in FRAMEWORKS if find_spec(FRAMEWORKS[name]) is not None]
        yield {name: pool.submit(run, name, tmp_path_factory.mktemp(name)) for name in there}
        pool.shutdown(cancel_futures=True)


def run(name: str, folder: Path) -> Run:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / name)]
    command += [f"--basetemp={folder / 'tests'}", "--color=no"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS)


@pytest.mark.timeout(len(FRAMEWORKS) * SECONDS)
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_an_adapter_keeps_its_promises(name: str, runs: Mapping[str, Future[Run]]) -> None:
    if name not in runs:
        message = f"{FRAMEWORKS[name]} is not installed: constraints/frameworks.txt has it"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    found = runs[name].result()
    closing = found.stdout.rstrip().rpartition("\n")[2]
    print(f"{name}: {closing}")
    assert found.returncode == 0, f"{found.stdout[-20_000:]}\n{found.stderr[-2_000:]}"
    assert re.search(r"\b[1-9]\d* passed", closing), closing
