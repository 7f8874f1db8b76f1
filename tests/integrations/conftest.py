"""The tests of the adapters: each framework in a process of its own, since each imports for seconds and sets up what it likes.

`pytest tests/integrations/langchain` runs one of them here; a whole run has `test_frameworks.py` start them one by one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the folder of a framework that was not asked for by its path."""
    if collection_path.parent != HERE or not collection_path.is_dir():
        return None
    asked = [(config.invocation_params.dir / arg.split("::", maxsplit=1)[0]).resolve() for arg in config.args]
    return None if any(each == collection_path or collection_path in each.parents for each in asked) else True
