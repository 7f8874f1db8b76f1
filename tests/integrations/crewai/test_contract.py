"""The adapter keeps the contract, on chat completions of both regimes and on Anthropic."""

from __future__ import annotations

from tests.integrations.crewai.crew_agents import CrewAIExamples
from tests.integrations.promises import agree

from llmbuffer.testing import AdapterContract
from llmbuffer_crewai import plugin


class TestContract(CrewAIExamples, AdapterContract):
    """All promises but those that CrewAI has no room for."""


def test_the_plugin_says_what_the_contract_tries() -> None:
    agree(plugin.CAPABILITIES, CrewAIExamples.capabilities)
