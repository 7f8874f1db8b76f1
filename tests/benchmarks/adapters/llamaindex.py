"""What LlamaIndex sends, alone and through `BufferedLLM`: what of it a provider can read from its cache.

    python -m tests.benchmarks.adapters.llamaindex [--json] [--only NAME]

Each scenario runs three times against a simulated provider on the loopback interface: LlamaIndex alone (`default`), with `BufferedLLM` in
`observe` mode, and in `buffer` mode (`team` mode for the workflow). What is compared are the bodies at the wire. `oracle` is a
lower bound: what no layout of the default run's requests could do better (`llmbuffer.testing.oracle`).

`recorded scripts`: as long as the recorded requests of `../shared/captures`, in characters. `standard scripts`: more than 4,000 tokens of system
text, in tokens, simulated, for an OpenAI and an Anthropic model. Then the call that summarises 30,000 tokens, and four forks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

os.environ["ANONYMIZED_TELEMETRY"] = "false"
warnings.simplefilter("ignore")  # of the framework's own making

from llama_index.core.agent.workflow import FunctionAgent  # noqa: E402
from llama_index.core.chat_engine import SimpleChatEngine  # noqa: E402
from llama_index.core.llms import ChatMessage  # noqa: E402
from llama_index.core.memory import ChatMemoryBuffer, ChatSummaryMemoryBuffer  # noqa: E402
from llama_index.llms.openai import OpenAI  # noqa: E402
from tests.benchmarks.adapters.llamaindex_scenarios import (  # noqa: E402
    RECORDED,
    SCENARIOS,
    STANDARD,
    Answers,
    Scenario,
    Scene,
    words,
)

from llmbuffer import Session, StableContext  # noqa: E402
from llmbuffer.reconcile import Policy  # noqa: E402
from llmbuffer.simulate import ProviderServer  # noqa: E402
from llmbuffer.testing.oracle import measured, oracle  # noqa: E402
from llmbuffer.testing.scripts import handbook  # noqa: E402
from llmbuffer_llamaindex import BufferedLLM, fork_workflow  # noqa: E402

# What is to be reached on the recorded scripts: shares of all characters.
WANTED = {
    "ContextChatEngine, 3 turns": 0.45,
    "ContextChatEngine, 5 turns": 0.60,
    "CondensePlusContextChatEngine": 0.35,
    "memory block, SYSTEM": 0.75,
    "ChatMemoryBuffer over its limit": 0.71,
    "AgentWorkflow, 3 agents": 0.75,
}
Body = Mapping[str, Any]


def llm_of(server: ProviderServer, model: str) -> Any:
    """The framework's own LLM for a model."""
    if not model.startswith("claude"):
        return OpenAI(model, api_base=server.openai_url, api_key="k", max_retries=0)
    import llama_index.llms.anthropic.utils as anthropic_utils
    from llama_index.llms.anthropic import Anthropic

    anthropic_utils.MessageParam = (
        dict  # anthropic 2 made it a union of types, which llama-index 0.12 still calls
    )
    return Anthropic(model, base_url=server.anthropic_url, api_key="k", max_retries=0)


def buffered(llm: Any, scenario: Scenario, mode: str | None = None) -> Any:
    """The same LLM through the adapter, as the scenario says."""
    observing = mode == "observe"
    ours = scenario.options.get("ours") and not observing
    policy = Policy(history="ours", trims=True) if ours else None
    named = "c1" if scenario.bound else None
    return BufferedLLM(
        llm, mode=mode or scenario.options.get("mode", "buffer"), policy=policy, conversation=named
    )


def run(scenario: Scenario, scene: Scene, arm: str, model: str) -> tuple[list[Body], list[str], Any]:
    """The bodies at the wire, the answers, and the seam."""
    told: dict[str, Any] = {
        name: list(each) if isinstance(each, list) else each for name, each in scenario.answers.items()
    }
    with ProviderServer(keep_bodies=True, replies=Answers(scene, **told)) as server:
        llm = llm_of(server, model)
        if arm != "default":
            llm = buffered(llm, scenario, "observe" if arm == "observe" else None)
        answers = scenario.run(llm, scene, scenario.turns)
        bodies = [request.body for request in sorted(server.requests, key=lambda each: each.number)]
        return [body for body in bodies if body is not None], answers, getattr(llm, "seam", None)


def unchanged(one: Sequence[Body], other: Sequence[Body]) -> bool:
    """Whether two runs sent the same, but for usage that was asked for in streams."""
    bare = [{name: value for name, value in body.items() if name != "stream_options"} for body in other]
    return bare == [dict(body) for body in one]


def row(scenario: Scenario, scene: Scene, model: str, unit: Any) -> dict[str, Any]:
    """One line: what was sent, and what of it could be read."""
    default, said, _ = run(scenario, scene, "default", model)
    observed, also, _ = run(scenario, scene, "observe", model)
    through, answers, seam = run(scenario, scene, "buffered", model)
    team = scenario.options.get("mode") == "team"
    before, after = measured(default, unit=unit), measured(through, unit=unit)
    best = oracle(default, unit=unit, team=team, rounded=unit == "tokens")
    return {
        "scenario": scenario.name,
        "model": model,
        "requests": len(through),
        "default": {
            "input": before.input,
            "uncached": before.uncached,
            "hit_ratio": round(before.hit_ratio, 4),
        },
        "buffered": {
            "input": after.input,
            "uncached": after.uncached,
            "hit_ratio": round(after.hit_ratio, 4),
        },
        "oracle": {"uncached": best.uncached, "hit_ratio": round(best.hit_ratio, 4)},
        "times_oracle": round(after.uncached / max(best.uncached, 1), 3),
        "observe_is_unchanged": unchanged(default, observed),
        "answers_are_the_same": said == also == answers,
        "breaks": len(seam.breaks),
        "wanted": WANTED.get(scenario.name) if scene is RECORDED else None,
    }


def summary_row(model: str) -> dict[str, Any]:
    """The call that summarises a history of 30,000 tokens: what `ChatSummaryMemoryBuffer` sends."""
    rows = {}
    for arm in ("default", "buffered"):
        with ProviderServer(keep_bodies=True) as server:
            llm = llm_of(server, model)
            if arm == "buffered":
                llm = BufferedLLM(llm)
            history: list[ChatMessage] = []
            long = " ".join(f"word{number}" for number in range(300))
            for turn in range(45):
                engine = SimpleChatEngine.from_defaults(
                    llm=llm, system_prompt=handbook(), memory=_long_memory(history)
                )
                engine.chat(f"question {turn}: {long}")
                history = list(engine.chat_history)
            memory = ChatSummaryMemoryBuffer.from_defaults(
                chat_history=history, llm=llm, token_limit=400, tokenizer_fn=words
            )
            SimpleChatEngine.from_defaults(llm=llm, system_prompt=handbook(), memory=memory).chat("And now?")
            asked = [each for each in server.requests if "concise summary" in json.dumps(each.body)]
            usage = asked[0].usage
        rows[arm] = {"input": usage.input_tokens, "hit_ratio": round(usage.hit_ratio, 4)}
    return {"scenario": "the call that summarises", "model": model, **rows, "wanted": 0.9}


def _long_memory(history: list[ChatMessage]) -> ChatMemoryBuffer:
    return ChatMemoryBuffer.from_defaults(chat_history=history, token_limit=10**6, tokenizer_fn=words)


def fork_row(model: str) -> dict[str, Any]:
    """Four forks off a shared session that is grounded in an index, after one request that writes it."""
    shared = (
        f"{handbook(14)}\nUse the context information below to assist the user.\n{STANDARD.passage('question 1')}"
        * 2
    )
    with ProviderServer() as server:
        llm = BufferedLLM(
            llm_of(server, model), session=Session(StableContext(model, shared), _dialect(model))
        )
        agent = FunctionAgent(llm=llm)

        async def together() -> None:
            await agent.run(user_msg="Read the handbook.")
            forks = fork_workflow(agent, 4)
            await asyncio.gather(*(each.run(user_msg=f"Task {n}") for n, each in enumerate(forks)))

        asyncio.run(together())
        log = sorted(server.requests, key=lambda each: each.number)
        cold = sum(1 for request in log if not request.usage.cache_read_tokens)
        return {
            "scenario": "4 forks",
            "model": model,
            "shared_tokens": log[0].usage.input_tokens,
            "cold_writes": cold,
            "reads": len(log) - cold,
            "lowest_hit_ratio_of_a_fork": round(min(request.usage.hit_ratio for request in log[1:]), 4),
        }


def _dialect(model: str) -> str:
    return "anthropic" if model.startswith("claude") else "openai"


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the framework logs about requests."""
    import logging

    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def figures(only: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """All tables."""
    chosen = [each for each in SCENARIOS if only is None or only in each.name]
    with quiet():
        return {
            "recorded scripts (characters)": [row(each, RECORDED, "gpt-4o", "characters") for each in chosen],
            "standard scripts (tokens, simulated)": [
                row(each, STANDARD, model, "tokens")
                for model in ("gpt-5.5", "claude-sonnet-5-5")
                for each in chosen
            ],
            "summary": [] if only else [summary_row(model) for model in ("gpt-5.5", "claude-sonnet-5-5")],
            "forks": [] if only else [fork_row(model) for model in ("gpt-5.6-sol", "claude-sonnet-5-5")],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", metavar="NAME", help="scenarios whose names hold this")
    arguments = parser.parse_args()
    found = figures(arguments.only)
    if arguments.json:
        print(json.dumps(found))
        return
    for title in list(found)[:2]:
        print(title)
        head = f"  {'scenario':32} {'model':17} {'default':>8} {'buffered':>8} {'oracle':>7} {'uncached':>15} {'x oracle':>8} {'observe':>8}"
        print(head)
        for each in found[title]:
            uncached = f"{each['default']['uncached']:,}→{each['buffered']['uncached']:,}"
            same = "same" if each["observe_is_unchanged"] and each["answers_are_the_same"] else "DIFFERS"
            wanted = "" if each["wanted"] is None else f"  wanted {each['wanted']:.0%}"
            print(
                f"  {each['scenario']:32} {each['model']:17} {each['default']['hit_ratio']:8.1%} {each['buffered']['hit_ratio']:8.1%} "
                f"{each['oracle']['hit_ratio']:7.1%} {uncached:>15} {each['times_oracle']:8.2f} {same:>8}{wanted}"
            )
    for each in [*found["summary"], *found["forks"]]:
        print(json.dumps(each))


if __name__ == "__main__":
    main()
