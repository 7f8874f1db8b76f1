"""Which layout is cheapest for a crew: all are rehearsed under the provider's rules before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Literal

import msgspec

from llmbuffer import Price, Segment, Session, StableContext, Usage
from llmbuffer.prices import cost
from llmbuffer.reconcile.tooling import restriction

from .layouts import ToolLayout

__all__ = ["LayoutChoice", "Step", "choose"]

LayoutName = Literal["crewai", "own", "union"]
_SCAFFOLD = " word" * 60  # what CrewAI writes around a task
_CLEARLY = 0.99  # of a cost: what counts as cheaper
_CALL, _RESULT, _ANSWER = 40, 200, 300  # tokens of a tool call, of its result, and of an answer


class Step(msgspec.Struct, frozen=True):
    """One task of a crew: the agent's role and system text, its tools as they are sent, and the text of the task."""

    role: str
    persona: str
    tools: tuple[Any, ...]
    task: str


class LayoutChoice(msgspec.Struct, frozen=True):
    """A layout, why it was taken, and what each would cost.

    ``crewai``: as CrewAI lays prompts out, with the brief behind each agent's role. ``own``: the brief goes first, behind each
    agent's own tools. ``union``: all send the tools of all, so that their prompts share the whole beginning. ``costs`` are for the input of all tasks, by layout and then by tool calls per task: in US dollars, or in input
    tokens where no price is known; empty where nothing was to be weighed.

    >>> LayoutChoice("own", "as declared").costs
    {}
    """

    layout: LayoutName
    reason: str
    costs: Mapping[str, Mapping[int, float]] = {}


def choose(
    session: Session, steps: Sequence[Step], union: Sequence[Any], loops: Sequence[int]
) -> LayoutChoice:
    """The cheapest layout for these tasks, done one after the other from a cold cache.

    How often an agent calls its tools is not known beforehand, so all are rehearsed with each number of calls in ``loops``,
    and CrewAI's own is left only for one that is at least 1 % cheaper with each of them: with many calls the tools of all
    are read again and again, with few the shared beginning counts. Inputs that are put into a role would change all
    that follows it at each kickoff, so there the brief goes first in any case. Nothing is sent, and the session is not
    changed.
    """
    if len({tuple(map(str, step.tools)) for step in steps}) < 2:
        return LayoutChoice("own", "own: all agents have the same tools")
    costs: dict[str, Mapping[int, float]] = {
        name: {number: _rehearsed(session, steps, ToolLayout(union, name), number) for number in loops}
        for name in _LAYOUTS
    }
    plain: LayoutName = "own" if any("{" in step.role for step in steps) else "crewai"
    better = [name for name in _LAYOUTS if _cheaper(costs[name], costs["crewai"])]
    best = min(better, key=lambda name: sum(costs[name].values()), default=plain)
    return LayoutChoice(best, _reason(best, session, steps, costs), costs)


_LAYOUTS: tuple[LayoutName, ...] = ("crewai", "own", "union")


def _cheaper(one: Mapping[int, float], other: Mapping[int, float]) -> bool:
    return all(one[number] < _CLEARLY * other[number] for number in other)


def _reason(
    name: str, session: Session, steps: Sequence[Step], costs: Mapping[str, Mapping[int, float]]
) -> str:
    priced = session.family.price(session.context.model) is not None
    unit = "{:.4f} USD" if priced else "{:,.0f} input tokens"
    shown = "; ".join(
        f"{layout} " + ", ".join(f"{unit.format(each)} with {number}" for number, each in found.items())
        for layout, found in costs.items()
    )
    return f"{name}: {len(steps)} tasks, cost of the input by tool calls a task: {shown}"


def _rehearsed(session: Session, steps: Sequence[Step], layout: ToolLayout, loops: int) -> float:
    """What the input of all tasks costs; in a family of its own, with a clock that ticks once a request."""
    context, ticks = session.context, count(0)
    base = Session(
        StableContext(context.model, list(context.segments)),
        session.dialect.name,
        prices=session.family.overrides,
        clock=lambda: float(next(ticks)),
    )
    base.append(session.messages)
    before = ""
    total = 0.0
    for step in steps:
        total += _task(base, step, layout, loops, before)
        before += " word" * _ANSWER
    return total


def _task(base: Session, step: Step, layout: ToolLayout, loops: int, before: str) -> float:
    offer, tools, persona = layout.offer(step.tools, structured=False), step.tools, step.persona
    if offer is not None:
        tools = offer.items
        told = restriction(offer, base.dialect, {})[1]
        persona += "" if told is None else f"\n\n{told.content}"
    texts = layout.system([each.content for each in base.context.segments], persona, step.role)
    shared = [Segment(f"brief-{number}", text, level="tenant") for number, text in enumerate(texts[:-1])]
    fork = base.fork(system=[*shared, Segment("persona", texts[-1])], tools=tools)
    messages: list[Any] = [*base.messages, {"role": "user", "content": step.task + _SCAFFOLD + before}]
    total = 0.0
    for number in range(loops + 1):
        plan = fork.reconcile(messages=messages)
        forecast = plan.forecast
        usage = Usage(
            forecast.input_tokens,
            cache_read_tokens=forecast.read_tokens,
            cache_write_tokens=forecast.write_tokens,
        )
        total += _cost(usage, fork)
        reply = _call(number)
        plan.observe(message=reply, usage=usage)
        messages += [reply, {"role": "tool", "tool_call_id": f"call-{number}", "content": "word " * _RESULT}]
    return total


def _call(number: int) -> dict[str, Any]:
    function = {"name": "look", "arguments": '{"for": "' + "word " * (_CALL - 15) + '"}'}
    calls = [{"id": f"call-{number}", "type": "function", "function": function}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _cost(usage: Usage, session: Session) -> float:
    price, rules = session.family.price(session.context.model), session.dialect.rules
    if price is None:
        price = Price(
            input=1e6,
            output=0,
            cache_read=rules.read_multiplier * 1e6,
            cache_write=rules.write_multiplier * 1e6,
            cache_write_long=rules.write_long_multiplier * 1e6,
        )
    return cost(usage, price)
