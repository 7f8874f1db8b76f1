"""What is said in the scenarios of agentchat: the texts of the recorded ones, and long ones made by rule."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmbuffer.simulate import Call, Reply
from llmbuffer.testing.scripts import handbook, personas

__all__ = ["CAPTURES", "Body", "Texts", "long_texts", "recorded"]

CAPTURES = Path(__file__).resolve().parents[4] / "shared" / "captures" / "autogen_agentchat.jsonl.gz"
Body = Mapping[str, Any]


class Texts(NamedTuple):
    """What is said in a scenario: system prompts by agent, the user's tasks, the model's replies and a tool's result.

    ``personas`` are the parts of the system prompts that are the agents' own, ``window`` is how many messages are remembered.
    """

    systems: Mapping[str, str]
    tasks: Sequence[str]
    replies: Sequence[Reply | str]
    found: str = ""
    personas: Mapping[str, str] = {}
    window: int = 4


def recorded() -> dict[str, Texts]:
    """The texts of the recorded scenarios; none where there are no records."""
    if not CAPTURES.is_file():
        return {}
    found: dict[str, list[Body]] = {}
    with gzip.open(CAPTURES, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            found.setdefault(row["scenario"], []).append(row["body"])
    readers = {
        "round_robin_3_agents": _said_in_turn,
        "selector_group_chat": _said_by_selection,
        "assistant_tools_reflect": _said_about_tools,
        "buffered_context": _said_alone,
    }
    return {name: read(found[name]) for name, read in readers.items() if name in found}


def _name(body: Body) -> str:
    return str(body["messages"][0]["content"]).removeprefix("You are ").partition(".")[0]


def _systems(bodies: Sequence[Body]) -> dict[str, str]:
    return {_name(body): body["messages"][0]["content"] for body in bodies}


def _said_in_turn(bodies: Sequence[Body]) -> Texts:
    last = bodies[-1]["messages"][1:]
    tasks = [each["content"] for each in last if each.get("name") == "user"]
    replies = [each["content"] for each in last if each.get("name") != "user"]
    return Texts(_systems(bodies[:3]), tasks, [*replies, "The end."])


def _said_by_selection(bodies: Sequence[Body]) -> Texts:
    agents = bodies[1::2]
    last = bodies[-1]["messages"][1:]
    said = [each["content"] for each in last[1:]]
    replies: list[Reply | str] = []
    for number, body in enumerate(agents):
        replies += [_name(body), said[number] if number < len(said) else "The end."]
    systems = _systems(agents)
    order = [name for name in ("planner", "coder", "critic") if name in systems]
    return Texts({name: systems[name] for name in order}, [last[0]["content"]], replies)


def _said_about_tools(bodies: Sequence[Body]) -> Texts:
    last = bodies[-1]["messages"]
    tasks = [each["content"] for each in last if each["role"] == "user"]
    found = next(each["content"] for each in last if each["role"] == "tool")
    said = [each["content"] for each in last if each["role"] == "assistant" and each["content"]]
    replies: list[Reply | str] = []
    for number in range(len(tasks)):
        replies.append(Reply(calls=(Call("lookup", '{"q": "a"}', f"call_{number}"),)))
        replies.append(said[number] if number < len(said) else "The end.")
    return Texts(_systems(bodies[:1]), tasks, replies, found)


def _said_alone(bodies: Sequence[Body]) -> Texts:
    tasks = [body["messages"][-1]["content"] for body in bodies]
    said = [
        body["messages"][-2]["content"] for body in bodies[1:] if body["messages"][-2]["role"] == "assistant"
    ]
    return Texts(_systems(bodies[:1]), tasks, [*said, "The end."])


def long_texts() -> dict[str, Texts]:
    """The same scenarios with a handbook in front of each agent's own instructions, and replies of 60 words."""
    told = personas()
    systems = {name: f"{text}\n\n{handbook(42)}" for name, text in told.items()}
    names = list(told)
    said = [f"Remark {number}. {_remark(number)}" for number in range(40)]
    chosen = [names[number % 3] for number in range(6)]
    mixed = [text for number, name in enumerate(chosen) for text in (name, said[number])]
    alone = {"clerk": f"{told['clerk']}\n\n{handbook(42)}"}
    asked = [f"Question {number}: where is parcel {4_100 + number * 37}?" for number in range(6)]
    tools: list[Reply | str] = []
    for number in range(6):
        tools += [Reply(calls=(Call("lookup", '{"q": "a"}', f"call_{number}"),)), said[number]]
    return {
        "round_robin_3_agents": Texts(systems, asked[:2], said, personas=told),
        "selector_group_chat": Texts(systems, asked[:1], mixed, personas=told),
        "assistant_tools_reflect": Texts(alone, asked, tools, _remark(50)),
        "buffered_context": Texts(
            alone, asked, said, window=5
        ),  # Anthropic refuses one that begins with a reply
    }


def _remark(number: int) -> str:
    places = ("Lyon", "Ghent", "Turin", "Bergen", "Porto")
    return " ".join(
        f"The depot of {places[(number + line) % 5]} has scanned parcel {number * 31 + line * 7} and waits for driver {line}."
        for line in range(8)
    )
