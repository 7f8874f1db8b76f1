"""What AutoGen itself warns of is no error here; what llmbuffer warns of stays one."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import pytest

os.environ.setdefault("AUTOGEN_USE_DOCKER", "0")
os.environ.setdefault("ANONYMIZED_TELEMETRY", "false")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what its modules warn of when they are imported, before any test runs
    import autogen
    import autogen.agentchat.contrib.capabilities.transform_messages

    assert autogen.ConversableAgent

logging.getLogger("ag2").propagate = False  # it logs every word that is said

_BORN_THERE = (
    "ignore::DeprecationWarning:autogen",
    "ignore::UserWarning:autogen",
    "ignore:.*Pydantic.*::autogen",
    "ignore::DeprecationWarning:flaml",
    "ignore::DeprecationWarning:asyncer",
    "ignore:There is no current event loop:DeprecationWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Relax what is born in the framework, for the tests of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for each in _BORN_THERE:
                item.add_marker(pytest.mark.filterwarnings(each))


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoGen's response cache goes into the working directory, and nothing goes over the network."""
    monkeypatch.chdir(tmp_path)
    if hasattr(
        autogen.oai.client, "count_token"
    ):  # versions that count the tokens of streams load a table over the network
        monkeypatch.setattr(autogen.oai.client, "count_token", lambda *_, **__: 1)
