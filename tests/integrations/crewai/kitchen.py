"""The crew that the tests send: the one of the benchmark, with a brief of 2,000 tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.benchmarks.adapters.crewai import brief, served
from tests.integrations.crewai.crew_agents import close_clients

from llmbuffer import Session, StableContext
from llmbuffer.simulate import ProviderServer

BRIEF = brief(2_000)
ANTHROPIC, MARKED, PLAIN = "claude-sonnet-4-5", "gpt-5.6", "gpt-5.5"


@contextmanager
def kitchen(model: str, script: Any, **options: Any) -> Iterator[tuple[ProviderServer, Any]]:
    """A server, and an LLM whose clients are closed at the end."""
    with served(model, script, **options) as (server, llm):
        try:
            yield server, llm
        finally:
            close_clients(llm)


def shared(model: str, dialect: str | None = None) -> Session:
    """A session that holds the brief."""
    return Session(StableContext(model, BRIEF), dialect or ("anthropic" if model == ANTHROPIC else "openai"))


def bodies(server: ProviderServer) -> list[Mapping[str, Any]]:
    """The bodies of all requests that were answered, in order."""
    return [each.body or {} for each in server.requests if each.status == 200]


def system(body: Mapping[str, Any]) -> str:
    """The system text."""
    found = body.get("system")
    if found is None:
        found = body["messages"][0]["content"]
    return found if isinstance(found, str) else "\n\n".join(part["text"] for part in found)


def tools(body: Mapping[str, Any]) -> list[str]:
    """The names of the tools."""
    return [each.get("name") or each["function"]["name"] for each in body.get("tools", [])]


def marks(body: Mapping[str, Any]) -> int:
    """How many breakpoints a body has."""
    text = json.dumps(body)
    return text.count('"cache_control"') + text.count('"prompt_cache_breakpoint"')
