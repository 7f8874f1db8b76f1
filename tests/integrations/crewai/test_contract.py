"""The adapter keeps the contract, on chat completions of both regimes and on Anthropic."""

from __future__ import annotations

import pytest
from tests.integrations.crewai.crew_agents import CrewAIExamples

from llmbuffer.testing import AdapterContract

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
]


class TestContract(CrewAIExamples, AdapterContract):
    """All promises but those that CrewAI has no room for."""
