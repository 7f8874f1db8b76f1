"""What CrewAI needs in tests: no telemetry, its files in a folder of the run, and no key of anybody's."""

from __future__ import annotations

import os
import tempfile
import warnings

import pytest

os.environ["CREWAI_DISABLE_TELEMETRY"] = "true"
os.environ["CREWAI_DISABLE_TRACKING"] = "true"
os.environ["CREWAI_TRACING_ENABLED"] = "false"
os.environ["OTEL_SDK_DISABLED"] = "true"
os.environ["CREWAI_STORAGE_DIR"] = tempfile.mkdtemp(prefix="crewai-")
os.environ["OPENAI_API_KEY"] = os.environ["ANTHROPIC_API_KEY"] = "none"

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # CrewAI's own, of imports and of names of its fields
    import crewai
    import crewai.llms.retry
    import crewai.tools

crewai.llms.retry._LLM_RATE_LIMIT_MAX_ATTEMPTS = (
    1  # CrewAI waits for seconds and asks again, and has no setting for it
)

FIELDS = "ignore:(.* is )?deprecated:DeprecationWarning"  # CrewAI reads fields of its own
RENDERED = "CrewAI sends a request inside of a text of its own, and bare when it has become history"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let CrewAI's own warnings pass, and say what it does to its own prompts, which observe mode tells and does not change."""
    for item in items:
        item.add_marker(pytest.mark.filterwarnings(FIELDS))
        name = item.name
        if name.startswith("test_observe_changes_no_byte") or (
            name.startswith("test_usage_is_what_the_provider_says") and name.endswith("-observe]")
        ):
            item.add_marker(pytest.mark.moves_prefix(reason=RENDERED))
        if name == "test_an_edit_is_told_as_a_break[observe]":
            item.add_marker(
                pytest.mark.xfail(reason=f"{RENDERED}: that is a break at each turn", strict=True)
            )
