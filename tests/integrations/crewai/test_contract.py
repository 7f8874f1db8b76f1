"""The adapter keeps the contract, on chat completions of both regimes and on Anthropic."""

from __future__ import annotations

from tests.integrations.crewai.crew_agents import CrewAIExamples

from llmbuffer.testing import AdapterContract


class TestContract(CrewAIExamples, AdapterContract):
    """All promises but those that CrewAI has no room for."""
