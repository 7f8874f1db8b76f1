"""A session for the demo's arms that is short enough for a test: every text holds a mark that stands nowhere else."""

from __future__ import annotations

import json
import re
from itertools import count

from llmbuffer.demo.script import Script, Step, Turn, Worker
from llmbuffer.messages import Message
from llmbuffer.parts import Text, ToolCall

# The changing texts that stand in a prompt: documents, preferences, and the time to the second.
CHANGING = re.compile(r"doc-\w+|pref-\w+|2026-05-14 \d\d:\d\d:\d\d")
NAMES = ("find_order", "track", "refund", "ask", "note", "close")


def short_script() -> Script:
    """Three turns of 3, 4 and 3 calls, a coordinator of one turn, and two workers of two calls."""
    ids = count(1)

    def steps(calls: int, tag: str) -> tuple[Step, ...]:
        found = [_asking(next(ids), f"{tag}{number}") for number in range(calls - 1)]
        return (*found, Step(Message("assistant", f"That settles {tag}. " * 4), ()))

    turns = tuple(
        Turn(
            f"User says {tag}. " * 3,
            f"doc-{tag} tells about {tag}. " * 6,
            f"pref-{pref} holds.",
            steps(calls, tag),
        )
        for tag, pref, calls in (("one", "mail", 3), ("two", "mail", 4), ("three", "phone", 3))
    )
    lead = Turn(
        "Find out who can help.", "doc-lead tells who is there. " * 4, "pref-phone holds.", steps(3, "lead")
    )
    workers = tuple(Worker(name, f"You are {name}: check it.", steps(2, name)) for name in ("ann", "bob"))
    tools = tuple(_tool(name) for name in NAMES)
    return Script(
        "You help the customers of a shop.", "Be kind and exact. " * 60, tools, turns, (lead,), workers
    )


def _asking(number: int, tag: str) -> Step:
    call = ToolCall(f"call_{number}", NAMES[number % len(NAMES)], json.dumps({"query": tag}))
    return Step(
        Message("assistant", [Text(f"Let me see {tag}."), call]), (f"The record of {tag} says a lot. " * 9,)
    )


def _tool(name: str) -> dict[str, object]:
    query = {"type": "string", "description": f"What to {name} for."}
    parameters = {"type": "object", "properties": {"query": query}, "required": ["query"]}
    return {
        "type": "function",
        "function": {"name": name, "description": f"To {name}.", "parameters": parameters},
    }
