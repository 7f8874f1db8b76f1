"""Recorded requests of frameworks through `reconcile`: what of each could be read again, before and after.

    python -m tests.properties.captures [--json]

For each scenario of `../shared/captures`: the characters of all requests, and the share of them that is the longest common
prefix with an earlier request of the scenario (what an ideal cache could read). A prompt is the JSON of its tools, then its
system text, then its messages. `before` is what the framework sent; `after` is what the plans of a router yield, with a
session for each agent that learns the slots of its system prompt as it goes; `declared` is the same where the adapter
knows what the framework does: its clock, its window, its placeholder; `team` is the same where the agents of a
conversation share one prefix, with the characters that no earlier request began with as sent and then. Measured in
characters, on recorded requests.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llmbuffer import Session, StableContext, Usage
from llmbuffer.reconcile import Plan, Policy, Router
from llmbuffer.tokens import EstimateCounter

CAPTURES = Path(__file__).resolve().parents[3] / "shared" / "captures"
# What an adapter knows of its framework: these trim or clear, or fill in a template of their own.
KNOWN: dict[str, dict[str, Any]] = {
    "agent_dynamic_prompt": {"declared": (r"\nCurrent time: .*",)},
    "before_model_window_trim": {"history": "ours", "trims": True},
    "agent_context_editing": {"history": "ours", "cleared": ("[cleared]",)},
    "chat_memory_buffer_trim": {"history": "ours", "trims": True},
    "buffered_context": {"history": "ours", "trims": True},
    "rwmh_dynamic_system": {"declared": (r"(?s)\n[^\n]*\d\d:\d\d.*",)},
    "selector_group_chat": {"declared": (r"Then select the next role from [^.]*\.",)},
    "context_chat_engine": {"declared": (r"(?s)(?<=-{20}\n).*?(?=-{20})",)},
}
Body = dict[str, Any]
NAMED = 40  # characters of a system prompt that tell one agent from another: adapters know its name
# Where several agents talk: their names, as their prompts begin with them.
TEAMS = {
    "langgraph_3_agents_shared_messages": r"You are (\w+)\.",
    "groupchat_round_robin": r"You are (\w+)\.",
    "groupchat_auto_speaker": r"You are (\w+)\.",
    "round_robin_3_agents": r"You are (\w+)\.",
    "selector_group_chat": r"You are (\w+)\.",
    "agent_workflow_3_agents_handoff": r"You are (\w+)\.",
}


class Figures(NamedTuple):
    """One scenario: the share of all characters that an earlier request began with, before and after.

    ``new`` and ``new_team`` count the others.
    """

    source: str
    scenario: str
    requests: int
    before: float
    after: float
    declared: float | None
    team: float | None
    new: int
    new_team: int | None


def bodies() -> Iterator[tuple[str, str, list[Body]]]:
    """The chat requests of each scenario, in the order in which they were recorded."""
    for path in sorted(CAPTURES.glob("*.jsonl.gz")):
        found: dict[str, list[Body]] = {}
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                if row["path"].endswith("/chat/completions"):
                    found.setdefault(row["scenario"], []).append(row["body"])
        for scenario, rows in found.items():
            if len(rows) > 1:
                yield path.name.partition(".")[0], scenario, rows


def split(body: Body) -> tuple[list[Any], list[str], list[Any]]:
    """Tools, leading system texts, and the rest of the messages."""
    messages = list(body["messages"])
    system = []
    while messages and messages[0]["role"] in ("system", "developer"):
        system.append(str(messages.pop(0)["content"]))
    return body.get("tools", []), system, messages


def text_of(tools: Iterable[Any], system: Iterable[str], messages: Iterable[Any]) -> str:
    """A prompt in the order in which providers render it."""
    head = [json.dumps(list(tools)), *system]
    return "".join([*head, *(json.dumps(message) for message in messages)])


def applied(plan: Plan) -> str:
    """The prompt that a host sends which applies the plan."""
    messages = [dict(message) for message in plan.messages]
    if plan.tail:
        if plan.tail.apart:
            messages.append({"role": plan.tail.role, "content": plan.tail.text})
        else:
            at = messages[plan.tail.index]
            own = at["content"] if isinstance(at["content"], str) else json.dumps(at["content"])
            messages[plan.tail.index] = {**at, "content": f"{own}\n{plan.tail.text}"}
    return text_of(plan.tools, [text for text in plan.system or () if text], messages)


def shared(one: str, other: str) -> int:
    """How many characters two prompts begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def known(prompts: list[str]) -> int:
    """The characters that the best earlier request began with."""
    return sum(
        max((shared(prompt, earlier) for earlier in prompts[:index]), default=0)
        for index, prompt in enumerate(prompts)
    )


def reusable(prompts: list[str]) -> float:
    """The share of all characters that the best earlier request began with."""
    return known(prompts) / sum(map(len, prompts))


def reconciled(rows: list[Body], **options: Any) -> list[str]:
    """The prompts that the plans of one router yield, with a session for each agent."""
    router = Router(Session(StableContext("gpt-5.5"), tokens=EstimateCounter()), policy=Policy(**options))
    out: list[str] = []
    for body in rows:
        tools, system, messages = split(body)
        member = "".join(system)[:NAMED]
        plan = router.reconcile(
            tools=tools, system=system, messages=messages, conversation="recorded", member=member
        )
        out.append(applied(plan))
        plan.observe(Usage(input_tokens=len(out[-1]) // 4))
    return out


def selecting(system: list[str], messages: list[Any]) -> tuple[list[str], list[Any]]:
    """A selector's prompt that holds the conversation as text, as its adapter hands it over: as messages."""
    found = re.fullmatch(
        r"(?s)(You are in a role play.*?\n\n)(.*)\n\n\n\n(Read the above.*)", "".join(system)
    )
    if found is None or messages:
        return system, messages
    intro, history, asked = found.groups()
    said = [entry.partition(": ") for entry in history.split("\n\n\n")]
    told = [{"role": "user", "name": name, "content": text} for name, _, text in said]
    return [intro], [*told, {"role": "system", "content": asked}]


def as_a_team(rows: list[Body], named: str, team: str = "shared", **told: Any) -> list[str]:
    """The same where the agents of a conversation share one prefix; the adapter knows and declares them."""
    policy = Policy(team=team, **told)  # type: ignore[arg-type]
    router = Router(Session(StableContext("gpt-5.5"), tokens=EstimateCounter()), policy=policy)
    parted = [(tools, *selecting(system, rest)) for tools, system, rest in map(split, rows)]
    found = [re.match(named, "".join(system)) for _, system, _ in parted]
    names = ["manager" if match is None else match[1] for match in found]
    for name, (tools, system, _) in zip(names, parted, strict=True):
        router.declare(name, system=system, tools=tools)
    out: list[str] = []
    for name, (tools, system, messages) in zip(names, parted, strict=True):
        plan = router.reconcile(
            tools=tools, system=system, messages=messages, conversation="recorded", member=name
        )
        out.append(applied(plan))
        plan.observe(Usage(input_tokens=len(out[-1]) // 4))
    return out


def figures() -> list[Figures]:
    """All scenarios."""
    out = []
    for source, scenario, rows in bodies():
        told, named = KNOWN.get(scenario), TEAMS.get(scenario)
        sent = [text_of(*split(body)) for body in rows]
        team = None if named is None else as_a_team(rows, named, **(told or {}))
        out.append(
            Figures(
                source,
                scenario,
                len(rows),
                reusable(sent),
                reusable(reconciled(rows)),
                None if told is None else reusable(reconciled(rows, **told)),
                None if team is None else reusable(team),
                sum(map(len, sent)) - known(sent),
                None if team is None else sum(map(len, team)) - known(team),
            )
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=re.sub(r"\s+", " ", (__doc__ or "").split("\n\n", 1)[0]))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not CAPTURES.is_dir():
        raise SystemExit(f"no recorded requests at {CAPTURES}")
    rows = figures()
    if arguments.json:
        print(json.dumps([row._asdict() for row in rows]))
        return
    print(
        f"{'scenario':54} {'requests':>8} {'before':>7} {'after':>7} {'declared':>8} {'team':>7}  new characters"
    )
    for row in rows:
        declared = " " * 8 if row.declared is None else f"{row.declared:8.1%}"
        team = "" if row.team is None else f"{row.team:7.1%}  {row.new:6,} -> {row.new_team:6,}"
        name = f"{row.source}: {row.scenario}"
        print(f"{name:54} {row.requests:8} {row.before:7.1%} {row.after:7.1%} {declared} {team}".rstrip())


if __name__ == "__main__":
    main()
