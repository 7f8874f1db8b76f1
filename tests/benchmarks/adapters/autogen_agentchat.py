"""agentchat through ``llmbuffer_autogen``: what the provider could read of each scenario, by default and buffered.

    python -m tests.benchmarks.adapters.autogen_agentchat [--json] [--only NAME]

Three tables, all of real teams and agents of autogen-agentchat against a simulated provider over loopback.

``captured``: the texts of the recorded scenarios of ``../shared/captures`` said again, in characters: the share of all
requests that the best earlier one begins with. ``long``: the same teams with a handbook of more than 4,000 tokens, in
tokens as the simulated provider counts them; ``times`` is the uncached input as a multiple of the oracle's (see
``llmbuffer.testing.oracle``). ``forks``: four teams off one shared session of 3,000 tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tests.benchmarks.adapters.agentchat_texts import CAPTURES, Body, Texts, long_texts, recorded

from llmbuffer import Session, StableContext, Usage
from llmbuffer.reconcile import Policy, persona
from llmbuffer.simulate import ProviderServer
from llmbuffer.testing.oracle import OracleFigures, measured, oracle
from llmbuffer.testing.scripts import handbook, personas

os.environ.setdefault("OTEL_SDK_DISABLED", "true")
MODELS = (("openai", "gpt-5.5"), ("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5"))
Drive = Callable[[Any, "Texts"], Awaitable[None]]


class Row(NamedTuple):
    """One scenario in one mode."""

    table: str
    scenario: str
    model: str
    mode: str
    requests: int
    input: int
    uncached: int
    hit_ratio: float
    times: float | None  # the uncached input as a multiple of the oracle's


# --- scenarios


def _agents(client: Any, texts: Texts) -> list[Any]:
    from autogen_agentchat.agents import AssistantAgent

    return [
        AssistantAgent(name, client, system_message=text, description=f"{name} agent")
        for name, text in texts.systems.items()
    ]


async def round_robin(client: Any, texts: Texts) -> None:
    """Agents that speak in turn, two tasks."""
    from autogen_agentchat.teams import RoundRobinGroupChat

    team = RoundRobinGroupChat(_agents(client, texts), max_turns=3)
    for task in texts.tasks:
        await team.run(task=task)


async def selector(client: Any, texts: Texts) -> None:
    """A model says who speaks next."""
    from autogen_agentchat.teams import SelectorGroupChat

    team = SelectorGroupChat(_agents(client, texts), client, max_turns=len(texts.replies) // 2)
    await team.run(task=texts.tasks[0])


async def reflection(client: Any, texts: Texts) -> None:
    """An agent that is asked to put in words what its tool gave."""
    from autogen_agentchat.agents import AssistantAgent

    def lookup(q: str) -> str:
        return texts.found

    [(name, system)] = texts.systems.items()
    agent = AssistantAgent(name, client, tools=[lookup], system_message=system, reflect_on_tool_use=True)
    for task in texts.tasks:
        await agent.run(task=task)


async def buffered_context(client: Any, texts: Texts) -> None:
    """An agent that remembers the last messages."""
    from autogen_agentchat.agents import AssistantAgent
    from autogen_core.model_context import BufferedChatCompletionContext

    [(name, system)] = texts.systems.items()
    agent = AssistantAgent(
        name, client, system_message=system, model_context=BufferedChatCompletionContext(texts.window)
    )
    for task in texts.tasks:
        await agent.run(task=task)


SCENARIOS: dict[str, Drive] = {
    "round_robin_3_agents": round_robin,
    "selector_group_chat": selector,
    "assistant_tools_reflect": reflection,
    "buffered_context": buffered_context,
}
OURS = Policy(history="ours", trims=True)
MODES: dict[str, dict[str, dict[str, Any]]] = {
    "round_robin_3_agents": {"default": {}, "buffer": {"mode": "buffer"}, "team": {"mode": "team"}},
    "selector_group_chat": {"default": {}, "buffer": {"mode": "buffer"}, "team": {"mode": "team"}},
    "assistant_tools_reflect": {"default": {}, "buffer": {"mode": "buffer"}},
    "buffered_context": {
        "default": {},
        "buffer": {"mode": "buffer", "policy": OURS, "conversation": "one"},
    },
}


# --- running


def clients(url: str, wire: str, model: str, options: Mapping[str, Any]) -> Any:
    """The framework's own client, or a buffered one around it."""
    from tests.integrations.agentchat.ac_agents import model_client

    from llmbuffer_autogen.agentchat import BufferedChatCompletionClient

    inner = model_client(url, wire, model)
    return BufferedChatCompletionClient(inner, **options) if options else inner


def played(
    name: str, texts: Texts, wire: str, model: str, options: Mapping[str, Any]
) -> tuple[list[Body], list[Usage]]:
    """The bodies and the usages of a scenario."""
    marked = texts
    if options.get("mode") == "team" and texts.personas:
        systems = {
            who: text.replace(texts.personas[who], persona(texts.personas[who]))
            for who, text in texts.systems.items()
        }
        marked = texts._replace(systems=systems)
    with ProviderServer(replies=list(texts.replies), keep_bodies=True) as server:
        url = server.anthropic_url if wire == "anthropic" else server.openai_url
        client = clients(url, wire, model, options)
        if options.get("mode") == "team":
            for who, text in marked.systems.items():
                client.declare(who, system=text)
        asyncio.run(_driven(SCENARIOS[name], client, marked))
        log = sorted(server.requests, key=lambda request: request.number)
        failed = [request.status for request in log if request.status != 200]
        assert not failed, f"{name}: the provider answered {failed}"
        return [request.body for request in log if request.body is not None], [
            request.usage for request in log
        ]


async def _driven(drive: Drive, client: Any, texts: Texts) -> None:
    await drive(client, texts)
    await client.close()


def captured_rows(only: str | None) -> Iterator[Row]:
    """The recorded scenarios, in characters."""
    for name, texts in recorded().items():
        if only not in (None, name):
            continue
        bound: dict[bool, OracleFigures] = {}
        for mode, options in MODES[name].items():
            bodies, _ = played(name, texts, "openai", "gpt-5.5", options)
            if mode == "default":
                bound = {
                    team: oracle(bodies, model="gpt-5.5", unit="characters", team=team)
                    for team in (False, True)
                }
            found = measured(bodies, model="gpt-5.5", unit="characters")
            times = found.times(bound[mode == "team"])
            yield _row("captured", name, "characters", mode, found, times)


def long_rows(only: str | None) -> Iterator[Row]:
    """The long scenarios, in tokens, as the simulated provider reports them."""
    for name, texts in long_texts().items():
        if only not in (None, name):
            continue
        for wire, model in MODELS:
            bound: dict[bool, OracleFigures] = {}
            for mode, options in MODES[name].items():
                bodies, usages = played(name, texts, wire, model, options)
                if mode == "default":
                    bound = {
                        team: oracle(bodies, model=model, dialect=wire, team=team, rounded=True)
                        for team in (False, True)
                    }
                found = _reported(usages)
                yield _row("long", name, model, mode, found, found.times(bound[mode == "team"]))


def _reported(usages: Sequence[Usage]) -> OracleFigures:
    each = tuple((usage.input_tokens, usage.input_tokens - usage.cache_read_tokens) for usage in usages)
    return OracleFigures("tokens", sum(one for one, _ in each), sum(two for _, two in each), each)


def _row(table: str, name: str, model: str, mode: str, found: OracleFigures, times: float) -> Row:
    return Row(
        table, name, model, mode, len(found.requests), found.input, found.uncached, found.hit_ratio, times
    )


def fork_rows() -> Iterator[dict[str, Any]]:
    """Four teams off one shared session of 3,000 tokens: what each of their requests read."""
    for wire, model in MODELS:
        with ProviderServer(replies=lambda asked: "Done.", keep_bodies=True) as server:
            url = server.anthropic_url if wire == "anthropic" else server.openai_url
            asyncio.run(_forked(url, wire, model))
            log = sorted(server.requests, key=lambda request: request.number)
            first = _first_of_each(log)
            yield {
                "model": model,
                "requests": len(log),
                "cold": sum(request.usage.cache_read_tokens == 0 for request in log),
                "teams_that_read": sum(usage.cache_read_tokens > 0 for usage in first),
                "shared_tokens": min(
                    request.usage.cache_read_tokens for request in log if request.usage.cache_read_tokens
                ),
                "input_tokens": sum(request.usage.input_tokens for request in log),
                "cache_read_tokens": sum(request.usage.cache_read_tokens for request in log),
            }


def _first_of_each(log: Sequence[Any]) -> list[Usage]:
    """What each fork's first request used."""
    seen: dict[str, Usage] = {}
    for request in log:
        told = json.dumps(request.body)
        for number in range(4):
            if f"Task {number}:" in told:
                seen.setdefault(str(number), request.usage)
    return list(seen.values())


async def _forked(url: str, wire: str, model: str) -> None:
    from autogen_agentchat.agents import AssistantAgent
    from autogen_agentchat.teams import RoundRobinGroupChat

    from llmbuffer_autogen.agentchat import fork_team

    session = Session(StableContext(model, handbook(32)), wire)
    client = clients(url, wire, model, {"session": session})

    def team(fork: Any) -> Any:
        agents = [AssistantAgent(name, fork, system_message=text) for name, text in personas().items()]
        return RoundRobinGroupChat(agents, max_turns=3)

    await team(client).run(task="Read the handbook.")
    tasks = [f"Task {number}: which section speaks of week {number}?" for number in range(4)]
    found = await fork_team(team, tasks, client=client)
    assert all(each.ok for each in found), [each.error for each in found]
    await client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="agentchat by default and through llmbuffer (simulated)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=sorted(SCENARIOS))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows = [*captured_rows(arguments.only), *long_rows(arguments.only)]
    forks = [] if arguments.only else list(fork_rows())
    if arguments.json:
        print(
            json.dumps({"measured": False, "rows": [row._asdict() for row in rows], "forks": forks}, indent=1)
        )
        return
    if not CAPTURES.is_file():
        print(f"no recorded requests at {CAPTURES}: the long scripts alone")
    print(
        f"{'':10} {'scenario':24} {'counted by':18} {'mode':8} {'req':>3} {'input':>7} {'uncached':>8} {'hit':>6} times"
    )
    for row in rows:
        print(
            f"{row.table:10} {row.scenario:24} {row.model:18} {row.mode:8} {row.requests:3} {row.input:7} "
            f"{row.uncached:8} {row.hit_ratio:6.1%} {row.times:.2f}"
        )
    for fork in forks:
        print(f"forks      {fork}")


if __name__ == "__main__":
    main()
