"""LangChain traces nothing in these tests, warns about itself where it likes, and its suites have a loop to run in."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2", "LANGSMITH_TEST_TRACKING"):
    os.environ[name] = "false"

BORN_THERE = (
    "ignore::langchain_core._api.deprecation.LangChainDeprecationWarning",
    "ignore::langchain_core._api.deprecation.LangChainPendingDeprecationWarning",
    "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning",
    "ignore:Pydantic serializer warnings:UserWarning",
    "ignore:The model 'claude-sonnet-4-5' is deprecated:DeprecationWarning",
    "ignore:Received a Pydantic BaseModel V1 schema:UserWarning",
    # The SDK clients are shared by models and closed by nobody.
    "ignore:unclosed (<socket|transport):ResourceWarning",
)


def pytest_configure(config: pytest.Config) -> None:
    """Also for what is found when the process ends: marks of tests do not count there."""
    for warning in BORN_THERE[-1:]:
        config.addinivalue_line("filterwarnings", warning)


def pytest_sessionfinish() -> None:
    """Let go of the shared clients while nobody minds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for warning in BORN_THERE:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def suites_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One loop for all: LangChain shares the SDK's connections between models, and they belong to a loop."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: Any) -> bool | None:
    """Run the asynchronous tests of LangChain's suites; they name no plugin that would."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    loop = pyfuncitem._request.getfixturevalue("suites_loop")
    given = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    loop.run_until_complete(pyfuncitem.obj(**given))
    return True
