"""What the session of an arm would cost at a provider: simulated, by the model of its cache and its list prices.

``default``, ``per-turn`` and ``oracle`` are given what a plain program gets: the provider's automatic caching, and at
Anthropic one breakpoint after the system prompt and one at the end. ``buffered`` is a session of that provider's dialect.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..cache import CacheModel
from ..messages import Message
from ..parts import ToolResult
from ..plugins import get_dialect
from ..prices import cost, price_for
from ..replay.layouts import AsWritten, Buffered, Layout
from ..replay.recordings import Agent, Call, Recording
from ..rules import Dialect
from ..snapshot import message_tokens
from ..tokens import TokenCounter, counter_for
from .arms import ArmName, told
from .clock import DemoClock

if TYPE_CHECKING:
    from .script import Script

__all__ = ["PROVIDERS", "counters", "session_cost"]

PROVIDERS = {"anthropic": "claude-sonnet-5.5", "openai": "gpt-5.6"}


def counters() -> dict[str, str]:
    """How the tokens are counted for each provider: estimated, where the counter is not the model's own."""
    found = {name: counter_for(model) for name, model in PROVIDERS.items()}
    return {
        name: f"{'estimated' if counter.estimated else 'counted'} with {counter.name}"
        for name, counter in found.items()
    }


def session_cost(name: ArmName, script: Script, provider: str) -> float:
    """US dollars for the session's turns, output included."""
    model = PROVIDERS[provider]
    dialect, counter, price = get_dialect(provider).bind(model), counter_for(model), price_for(model)
    assert price is not None, "the table of prices has both models"
    recording = _recording(script)
    layout = _layout(name, recording, dialect, model, counter)
    cache = CacheModel(dialect.rules, count=counter.count)
    total = 0.0
    for (call, texts), at in zip(_calls(name, script, recording), _times(), strict=False):
        prompt = layout.ask(call, texts, at)
        lookup = cache.commit(prompt.snapshot, at)
        usage = lookup.usage(message_tokens(call.reply, counter.count))
        layout.answer(call, usage)
        if dialect.rules.stores_output:
            cache.commit_output(layout.answered(call), at)
        total += cost(usage, price)
    return total


def _layout(
    name: ArmName, recording: Recording, dialect: Dialect, model: str, counter: TokenCounter
) -> Layout:
    if name == "buffered":
        return Buffered(recording, dialect, model, counter, "turn")
    return AsWritten(recording, dialect, model, counter, clock=False)


def _recording(script: Script) -> Recording:
    """The session as a recording: what each call keeps of the one before, and what is new in it."""
    calls: list[Call] = []
    sent, new = 0, []
    for turn in script.turns:
        new.append(Message("user", turn.user))
        for step in turn.steps:
            calls.append(Call(0, sent, tuple(new), step.reply))
            sent += len(new)
            pairs = zip(step.reply.call_ids, step.results, strict=True)
            new = [step.reply, *(Message("tool", [ToolResult(call_id, text)]) for call_id, text in pairs)]
    system = f"{script.persona}\n\n{script.policy}"
    return Recording("demo", None, (Agent("support", system, script.tools),), tuple(calls))


def _calls(name: ArmName, script: Script, recording: Recording) -> Iterator[tuple[Call, dict[str, str]]]:
    """Each call, with the changing texts that the arm gives it."""
    clock, calls = DemoClock(), iter(recording.calls)
    for turn in script.turns:
        begun = told(turn, clock)
        for _ in turn.steps:
            now = told(turn, clock) if name == "default" else begun
            yield next(calls), {} if name == "oracle" else now
            clock.tick()


def _times() -> Iterator[float]:
    clock = DemoClock()
    while True:
        yield clock()
        clock.tick()
