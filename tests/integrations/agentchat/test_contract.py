"""The contract of all adapters, for agentchat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tests.integrations.agentchat.ac_agents import ChatAgent, ChatGroup, forked
from tests.integrations.promises import agree

from llmbuffer.reconcile import Host
from llmbuffer.testing.adapters import CAPABILITIES, AdapterContract, Agent, Group, Setup
from llmbuffer_autogen import plugin
from llmbuffer_autogen.agentchat import ModelHost

# The framework dumps parsed replies by the class of unparsed ones.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")


class TestAgentchat(AdapterContract):
    """Assistants and round robins through ``BufferedChatCompletionClient``."""

    capabilities = frozenset(CAPABILITIES)
    served = (("openai", "gpt-5.5"), ("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5"))

    def host(self) -> Host:
        return ModelHost()

    def agent(self, url: str, setup: Setup) -> Agent:
        return ChatAgent(url, setup)

    def restored(self, url: str, setup: Setup, saved: Any) -> Agent:
        return ChatAgent(url, setup, saved)

    def fan_out(self, url: str, setup: Setup, tasks: Sequence[str]) -> list[Any]:
        return forked(url, setup, tasks)

    def group(self, url: str, setup: Setup, personas: Mapping[str, str]) -> Group:
        return ChatGroup(url, setup, personas)


def test_the_plugin_says_what_the_contract_tries() -> None:
    agree(plugin.CAPABILITIES, TestAgentchat.capabilities)
