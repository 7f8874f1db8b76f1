"""The session that the demo plays: a customer of a coffee shop in ten turns, then an incident with three workers.

Its texts are written for this project and stand in the folder ``texts``; the answers of the tools are put together from
records, so the whole session is a few ten thousand bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from itertools import count
from typing import Any

import msgspec

from ..messages import Message, Text, ToolCall
from .shop import Passage, Shop, passages_of

__all__ = ["Script", "Step", "Turn", "Worker", "script", "shop"]


class Step(msgspec.Struct, frozen=True):
    """What one model call answers, and what its tool calls return.

    ``results`` holds one text for each call in ``reply``, in their order; a final answer has none.
    """

    reply: Message
    results: tuple[str, ...]


class Turn(msgspec.Struct, frozen=True):
    """A user's text and the steps to the final answer, which is the last one.

    ``retrieved`` and ``preferences`` are the dynamic text of the turn: the first is another one each time, the second
    changes once in the session.
    """

    user: str
    retrieved: str
    preferences: str
    steps: tuple[Step, ...]


class Worker(msgspec.Struct, frozen=True):
    """A colleague to whom the coordinator hands a task; the steps end with the report."""

    name: str
    task: str
    steps: tuple[Step, ...]


class Script(msgspec.Struct, frozen=True):
    """A support session, and a coordinator's session whose history the workers share; all with the same system text and tools.

    ``tools`` are in OpenAI's format. Ids of tool calls are unique in the whole script.
    """

    persona: str
    policy: str
    tools: tuple[dict[str, Any], ...]
    turns: tuple[Turn, ...]
    coordinator: tuple[Turn, ...]
    workers: tuple[Worker, ...]


@cache
def script() -> Script:
    """The one session of the demo, always the same.

    >>> len(script().turns), sum(len(turn.steps) for turn in script().turns)
    (10, 42)
    >>> script().turns[0].steps[0].reply.tool_calls[0].name
    'find_customer'
    """
    reader = _Reader(shop(), _passages(), _load("preferences.json"))
    support, incident = _load("support.json"), _load("incident.json")
    return Script(
        persona=_read("persona.md"),
        policy=_read("policy.md"),
        tools=tuple(_load("tools.json")),
        turns=reader.turns(support),
        coordinator=reader.turns(incident["turns"]),
        workers=tuple(reader.worker(each) for each in incident["workers"]),
    )


@cache
def shop() -> Shop:
    """The shop that answers the tool calls of the session."""
    return Shop(_load("records.json"), _passages())


@cache
def _passages() -> dict[str, Passage]:
    return passages_of(_read("handbook.md"))


def _read(name: str) -> str:
    return (resources.files(__package__) / "texts" / name).read_text(encoding="utf-8").strip()


def _load(name: str) -> Any:
    return json.loads(_read(name))


class _Reader:
    """Reads the written session, carries out its tool calls and numbers them."""

    def __init__(self, shop: Shop, passages: Mapping[str, Passage], preferences: Mapping[str, str]) -> None:
        self._shop, self._passages, self._preferences = shop, passages, preferences
        self._numbers = count(1)

    def turns(self, written: Iterable[Mapping[str, Any]]) -> tuple[Turn, ...]:
        return tuple(
            Turn(
                user=turn["user"],
                retrieved="\n\n".join(self._passages[name].shown for name in turn["retrieved"]),
                preferences=self._preferences[turn["preferences"]],
                steps=tuple(map(self._step, turn["steps"])),
            )
            for turn in written
        )

    def worker(self, written: Mapping[str, Any]) -> Worker:
        return Worker(written["name"], written["task"], tuple(map(self._step, written["steps"])))

    def _step(self, written: Mapping[str, Any]) -> Step:
        said = [Text(written["say"])] if "say" in written else []
        done = [self._call(*call) for call in written.get("calls", ())]
        return Step(
            Message("assistant", [*said, *(call for call, _ in done)]), tuple(result for _, result in done)
        )

    def _call(self, tool: str, arguments: Mapping[str, Any], *mark: str) -> tuple[ToolCall, str]:
        call = ToolCall(f"call_{next(self._numbers)}", tool, json.dumps(arguments, ensure_ascii=False))
        return call, self._shop.answer(tool, arguments, *mark)
