"""What LangChain's prompts read from a provider's cache: alone, with llmbuffer, and as the best layout could.

    python -m tests.benchmarks.adapters.langchain [--json] [--only tokens]

`--only` may be given several times: tokens, captures, team, forks, summary, overhead.

Simulated: real LangChain and real SDKs against `ProviderServer` over loopback; no model answers. The script of all
adapters has more than 4,000 tokens of system text and tools. `oracle` is `llmbuffer.testing.oracle`, with the provider's
minimum and step.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from tests.integrations.langchain.lc_agents import model_at
from tests.integrations.langchain.scenarios import SCENES, SCRIPT, Scene, Ways, group, said_in_group

from llmbuffer import Usage
from llmbuffer.reconcile.reconciler import reconciler_of
from llmbuffer.simulate import ProviderServer
from llmbuffer.testing.oracle import oracle
from llmbuffer.testing.scripts import handbook, passage
from llmbuffer_langchain import (
    BufferedChatModel,
    BufferedMiddleware,
    BufferedSummarization,
    fork_runnable,
)

MODELS = (("openai", "gpt-5.5"), ("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5"))


class Row(NamedTuple):
    """Tokens of one scenario with one model: ``uncached`` is input that was not read."""

    scenario: str
    model: str
    requests: int
    default_hit: float
    buffered_hit: float
    default_uncached: int
    buffered_uncached: int
    oracle_uncached: int
    times_oracle: float
    same_answers: bool


class Ran(NamedTuple):
    """A run: the bodies in order, what was sent and read, and what was kept in the end."""

    bodies: list[Any]
    input: int
    read: int
    kept: list[Any]


def run(scene: Scene, wire: str, model: str, ways: Ways) -> Ran:
    """One scenario in front of an empty cache."""
    with ProviderServer(replies=scene.replies(), keep_bodies=True) as server:
        url = server.anthropic_url if wire == "anthropic" else server.openai_url
        kept = scene.run(model_at(url, wire, model), ways)
        used = server.usage()
        bodies = [dict(request.body or {}) for request in server.requests]
    said = [(message.type, message.content, getattr(message, "tool_calls", None)) for message in kept]
    return Ran(bodies, used.input_tokens, used.cache_read_tokens, said)


def rows() -> Iterator[Row]:
    """All scenarios with all models."""
    for scene in SCENES:
        for wire, model in MODELS:
            alone = run(scene, wire, model, Ways())
            buffered = run(scene, wire, model, Ways("buffer", scene.policy, marks=scene.marks))
            best = oracle(alone.bodies, rounded=True)
            left = [each.input - each.read for each in (alone, buffered)]
            yield Row(
                scene.name,
                model,
                len(buffered.bodies),
                alone.read / alone.input,
                buffered.read / buffered.input,
                left[0],
                left[1],
                best.uncached,
                left[1] / best.uncached,
                alone.kept == buffered.kept,
            )


def _tokens() -> tuple[list[str], list[Any]]:
    found = list(rows())
    lines = [
        f"Simulated. {SCRIPT.tokens():,} tokens of system text and tools.",
        f"{'scenario':44} {'model':18} {'requests':>8} {'default':>8} {'buffered':>8} {'uncached':>9} {'oracle':>7} {'times':>6} same",
    ]
    lines += [
        f"{row.scenario:44} {row.model:18} {row.requests:8} {row.default_hit:8.1%} {row.buffered_hit:8.1%} "
        f"{row.buffered_uncached:9,} {row.oracle_uncached:7,} {row.times_oracle:6.2f}  {'yes' if row.same_answers else 'NO'}"
        for row in found
    ]
    return lines, [row._asdict() for row in found]


# --- the recorded scenarios, in characters


def _captures() -> tuple[list[str], list[Any]]:
    from tests.integrations.langchain.recorded import CAPTURES, SCENARIOS, bodies_of, matches, prompt_of
    from tests.properties.captures import reusable, split, text_of

    if not CAPTURES.is_file():
        return ["Recorded scenarios: left out, there is no ../shared/captures."], []
    found = []
    for name, scenario in SCENARIOS.items():
        alone, observed = (bodies_of(name, Ways(mode)) for mode in (None, "observe"))
        mode = "team" if scenario.team else "buffer"
        buffered = bodies_of(name, Ways(mode, scenario.policy, marks=scenario.marks))
        chat = all("messages" in body for body in alone)
        shares = [
            reusable([text_of(*split(dict(body))) for body in each]) if chat else None
            for each in (alone, buffered)
        ]
        changed = sum(prompt_of(one) != prompt_of(other) for one, other in zip(alone, observed, strict=True))
        found.append(
            {
                "scenario": name,
                "requests": len(alone),
                "as_recorded": matches(name, alone),
                "changed_by_observe": changed,
                "mode": mode,
                "default": shares[0],
                "buffered": shares[1],
            }
        )
    lines = [
        "Recorded scenarios, run again: share of characters that an earlier request began with (measured).",
        f"{'scenario':40} {'requests':>8} {'as recorded':>11} {'changed by observe':>18} {'default':>8} {'buffered':>8}",
    ]
    lines += [
        f"{row['scenario']:40} {row['requests']:8} {'yes' if row['as_recorded'] else 'NO':>11} "
        f"{row['changed_by_observe']:18} {_percent(row['default'])} {_percent(row['buffered'])}"
        for row in found
    ]
    return lines, found


def _percent(share: Any) -> str:
    return f"{'':8}" if share is None else f"{share:8.1%}"


# --- three agents in one graph


def _team() -> tuple[list[str], list[Any]]:
    found = []
    for wire, model in MODELS:
        for mode in (None, "observe", "buffer", "team"):
            scene = Scene("group", lambda built, ways: group(built, ways, 2), lambda: said_in_group(2))
            ran = run(scene, wire, model, Ways(mode))
            found.append(
                {"model": model, "mode": mode or "default", "hit": ran.read / ran.input, "kept": ran.kept}
            )
    alone = found[0].pop("kept")
    lines = [
        "LangGraph, 3 agents, 2 rounds, shared messages (simulated).",
        f"{'model':18} {'mode':8} {'hit':>7}  same answers",
    ]
    for row in found:
        row["same_answers"] = row.pop("kept", alone) == alone
        lines.append(
            f"{row['model']:18} {row['mode']:8} {row['hit']:7.1%}  {'yes' if row['same_answers'] else 'NO'}"
        )
    return lines, found


# --- forks of one runnable

FORKS = 8


def _forks() -> tuple[list[str], list[Any]]:
    found = [_forked(wire, model) for wire, model in MODELS[1:]]
    found += [_forked_cold(wire, model) for wire, model in MODELS[1:]]
    with suppress(ModuleNotFoundError):
        found.append(_forked_engine())
    lines = [
        f"{FORKS} forks of one runnable, side by side; prefix as named.",
        f"{'what':52} {'writes of the prefix':>20} {'reads':>6} {'hit of forks':>12}",
    ]
    lines += [f"{row['what']:52} {row['writes']:20} {row['reads']:6} {row['hit']:12.1%}" for row in found]
    return lines, found


def _tasks(forks: list[Any]) -> list[Any]:
    with ThreadPoolExecutor(FORKS) as pool:
        return list(
            pool.map(
                lambda each: each[1].invoke({"messages": [("user", f"Task {each[0]}.")]}), enumerate(forks)
            )
        )


def _forked(wire: str, model: str) -> dict[str, Any]:
    """A thread that was asked once, and its forks."""
    with ProviderServer() as server:
        built = model_at(server.anthropic_url if wire == "anthropic" else server.openai_url, wire, model)
        agent = create_agent(
            built,
            [],
            system_prompt=handbook(30),
            middleware=[BufferedMiddleware()],
            checkpointer=InMemorySaver(),
        )
        agent.invoke(
            {"messages": [("user", "Where is parcel 7?")]}, {"configurable": {"thread_id": "parent"}}
        )
        _tasks(fork_runnable(agent, FORKS, conversation="parent"))
        usages = [request.usage for request in server.requests]
    return _row(
        f"{model}, off a thread of {usages[0].input_tokens:,} tokens (simulated)", usages[:1], usages[1:]
    )


def _forked_cold(wire: str, model: str) -> dict[str, Any]:
    """Forks of an agent that was never asked."""
    with ProviderServer(latency=(0.05, 0.0)) as server:
        built = model_at(server.anthropic_url if wire == "anthropic" else server.openai_url, wire, model)
        agent = create_agent(built, [], system_prompt=handbook(30), middleware=[BufferedMiddleware()])
        _tasks(fork_runnable(agent, FORKS))
        usages = [request.usage for request in server.requests]
    cold = [usage for usage in usages if not usage.cache_read_tokens]
    return _row(
        f"{model}, cold, {usages[0].input_tokens:,} tokens (simulated)",
        cold,
        [u for u in usages if u not in cold],
    )


def _forked_engine() -> dict[str, Any]:
    """A real llama.cpp server with a tiny random model."""
    from llmbuffer.engine import EngineServer, write_tiny_model

    usages: list[Usage] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        EngineServer(write_tiny_model(Path(folder) / "tiny.gguf"), slots=1, context=16_384) as server,
    ):
        built = model_at(f"{server.url}/v1", "openai", "tiny", max_tokens=1, temperature=0)
        buffered = BufferedChatModel(
            built, dialect="llamacpp", on_observe=lambda seen: usages.append(seen.usage or Usage())
        )
        chain = RunnableLambda(lambda asked: [("system", handbook(6)), *asked["messages"]]) | buffered
        chain.invoke({"messages": [("user", "Where is parcel 7?")]})
        for number, fork in enumerate(fork_runnable(chain, FORKS)):
            fork.invoke({"messages": [("user", f"Task {number}.")]})
    return _row(f"llama.cpp, 1 slot, {usages[0].input_tokens:,} tokens (measured)", usages[:1], usages[1:])


def _row(what: str, writes: list[Usage], forks: list[Usage]) -> dict[str, Any]:
    used = sum(forks, Usage())
    reads = sum(usage.cache_read_tokens > 0.5 * usage.input_tokens for usage in forks)
    return {"what": what, "writes": len(writes) + len(forks) - reads, "reads": reads, "hit": used.hit_ratio}


# --- summaries


def _summary() -> tuple[list[str], list[Any]]:
    lines = ["Summary of a long history: what the summary call reads from the cache (simulated).",
             f"{'model':18} {'LangChain: input':>16} {'read':>6} {'llmbuffer: input':>17} {'read':>6}"]  # fmt: skip
    found = []
    for wire, model in MODELS:
        figures = [_summarized(wire, model, buffered=buffered) for buffered in (False, True)]
        found.append({"model": model, "default": figures[0], "buffered": figures[1]})
        (alone, alone_read), (ours, ours_read) = figures
        lines.append(f"{model:18} {alone:16,} {alone_read:6.1%} {ours:17,} {ours_read:6.1%}")
    return lines, found


def _summarized(wire: str, model: str, *, buffered: bool) -> tuple[int, float]:
    """Input tokens of the summary call, and the share that it read."""

    def answer(asked: Any) -> str:
        last = str((asked.body.get("messages") or [""])[-1])
        return "A summary." if "Write a summary" in last or "Context Extraction" in last else passage(2) * 2

    sizes: Any = {"trigger": ("tokens", 33_000), "keep": ("messages", 6)}
    with ProviderServer(replies=answer, keep_bodies=True) as server:
        built = model_at(server.anthropic_url if wire == "anthropic" else server.openai_url, wire, model)
        middleware = (
            [BufferedSummarization(**sizes), BufferedMiddleware()]
            if buffered
            else [SummarizationMiddleware(built, trim_tokens_to_summarize=None, **sizes)]
        )
        agent = create_agent(
            built, [], system_prompt=handbook(42), middleware=middleware, checkpointer=InMemorySaver()
        )
        for turn in range(40):
            agent.invoke({"messages": [("user", passage(turn) * 8)]}, {"configurable": {"thread_id": "one"}})
        for request in server.requests:
            if answer(SimpleNamespace(body=request.body)) == "A summary.":
                return request.usage.input_tokens, request.usage.hit_ratio
    raise SystemExit("no summary was asked for: the history is too short")


# --- overhead


def _overhead(messages: int = 1_000, calls: int = 15) -> tuple[list[str], list[Any]]:
    """With the SDK, which takes most of the time of a long prompt, and with a stub in its place."""
    httpx: Any = importlib.import_module("httpx")  # it comes with the frameworks
    found = []
    with httpx.Client(
        transport=httpx.MockTransport(lambda request: httpx.Response(200, json=TOLD))
    ) as client:
        for sdk in (True, False):
            alone = model_at("http://127.0.0.1:9/v1", "openai", "gpt-5.5", http_client=client)
            if not sdk:
                alone.client = SimpleNamespace(with_raw_response=SimpleNamespace(create=_answered))
            buffered = BufferedChatModel(alone)
            histories = [_long(messages), _long(messages)]
            for model, history in zip((alone, buffered), histories, strict=True):
                _call(model, history)
            before, spent = _converted(buffered), [0.0, 0.0]
            for _ in range(calls):
                for place, (model, history) in enumerate(zip((alone, buffered), histories, strict=True)):
                    start = time.perf_counter()
                    _call(model, history)
                    spent[place] += time.perf_counter() - start
            new = (_converted(buffered) - before) / calls
            overhead = spent[1] / spent[0] - 1
            found.append(
                {
                    "messages": messages,
                    "calls": calls,
                    "sdk": sdk,
                    "overhead": overhead,
                    "conversions": new,
                    "new": 2,
                }
            )
    lines = [
        f"Overhead of a call in a conversation of {messages:,} messages, to its time without llmbuffer and network (measured).",
        *(
            f"{'LangChain and SDK' if row['sdk'] else 'LangChain, the SDK stubbed'}: {row['overhead']:.1%}; "
            f"{row['conversions']:.1f} messages converted a call, {row['new']} new"
            for row in found
        ),
    ]
    return lines, found


TOLD = {
    "id": "1", "object": "chat.completion", "created": 1, "model": "gpt-5.5",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "In Lyon."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9_000, "completion_tokens": 3, "total_tokens": 9_003},
}  # fmt: skip


def _answered(**payload: Any) -> Any:
    return SimpleNamespace(parse=lambda: TOLD, headers={})


def _converted(model: Any) -> int:
    """How many messages of this model's prompts were converted so far."""
    return sum(reconciler_of(session).conversions for session in model.seam.sessions)


def _long(count: int) -> list[Any]:
    said: list[Any] = [SystemMessage(handbook(4))]
    for number in range(count // 2):
        said += [
            HumanMessage(f"{number}: {passage(number)[:120]}"),
            AIMessage(f"Answer {number}. {passage(number)[:200]}"),
        ]
    return said


def _call(model: Any, history: list[Any]) -> None:
    history.append(HumanMessage(f"And parcel {len(history)}?"))
    history.append(model.invoke(history, {"configurable": {"thread_id": "one"}}))


PARTS: dict[str, Callable[[], tuple[list[str], list[Any]]]] = {
    "tokens": _tokens,
    "captures": _captures,
    "team": _team,
    "forks": _forks,
    "summary": _summary,
    "overhead": _overhead,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=re.sub(r"\s+", " ", (__doc__ or "").split("\n\n", 1)[0]))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=sorted(PARTS), action="append")
    arguments = parser.parse_args()
    os.environ.update(LANGSMITH_TRACING="false", LANGCHAIN_TRACING_V2="false")
    warnings.simplefilter("ignore")  # what frameworks say about themselves
    out = {}
    for name in arguments.only or PARTS:
        lines, figures = PARTS[name]()
        out[name] = figures
        if not arguments.json:
            print("\n".join([*lines, ""]))
    if arguments.json:
        print(json.dumps(out))


if __name__ == "__main__":
    main()
