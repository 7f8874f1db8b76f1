"""LangChain traces nothing in these tests, and warns about itself where it likes."""

from __future__ import annotations

import os

import pytest

for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2", "LANGSMITH_TEST_TRACKING"):
    os.environ[name] = "false"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "integrations/langchain" in item.path.as_posix():
            for born in (
                "ignore::langchain_core._api.deprecation.LangChainDeprecationWarning",
                "ignore::langchain_core._api.deprecation.LangChainPendingDeprecationWarning",
                "ignore:Pydantic serializer warnings:UserWarning",
            ):
                item.add_marker(pytest.mark.filterwarnings(born))
