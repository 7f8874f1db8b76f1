"""LlamaIndex in the tests: without telemetry, and with the SDK of Anthropic that is installed."""

from __future__ import annotations

import gc
import os
import warnings
from pathlib import Path
from typing import Union, get_origin

import pytest

os.environ["ANONYMIZED_TELEMETRY"] = "false"
os.environ["IS_TESTING"] = "1"  # LlamaIndex's own switch: its default LLM and embedding are mocks

pytest.importorskip("llama_index.core", reason="llama-index-core is not installed")


HERE = Path(__file__).resolve().parent
# Of the framework's own making: it inspects its pydantic models member by member, and never closes its SDK clients and databases.
BORN_THERE = (
    "ignore::pydantic.warnings.PydanticDeprecatedSince20",
    "ignore::pydantic.warnings.PydanticDeprecatedSince211",
    "ignore:unclosed:ResourceWarning",
    "ignore:<aiosqlite.* was deleted before being closed:ResourceWarning",
    "ignore:is_running called from within a step:DeprecationWarning",
    "ignore:Pydantic serializer warnings:UserWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the framework's own warnings pass in this folder."""
    for item in items:
        if HERE in item.path.parents:
            for warning in BORN_THERE:
                item.add_marker(pytest.mark.filterwarnings(warning))


def pytest_sessionfinish() -> None:
    """Let go of the clients that the framework never closes, before pytest looks for what was left behind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(autouse=True)
def anthropic_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama-index-llms-anthropic 0.12 calls ``MessageParam(…)``, which anthropic 2 made a union of types that nobody can call."""
    utils = pytest.importorskip("llama_index.llms.anthropic.utils")
    for name in ("MessageParam", "BetaMessageParam"):
        if get_origin(getattr(utils, name)) is Union:
            monkeypatch.setattr(utils, name, dict)
