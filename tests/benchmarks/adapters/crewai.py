"""CrewAI in figures: `python -m tests.benchmarks.adapters.crewai [--json] [--only cells,captured,fork] [--models gpt-5.6,…]`.

`cells`: a crew of 3 agents with tools of their own and 4 tasks, 0 to 5 tool calls a task, with a brief of 2,000 and of 8,000
tokens, sent by CrewAI to a simulated provider: `default` as CrewAI's users write it (the brief in every backstory), `buffered`
by `AgentFactory`, and `oracle`, the cheapest of the default and both layouts, known afterwards. Input cost in US dollars
and share of the input read from the cache; simulated.

`captured`: the recorded scenarios done again by CrewAI, with the same agents, tasks and answers: the share of the characters of
all requests that an earlier request began with, and the other characters. `buffered` is the layout `union` (their prompts are
too short for any provider's cache, so there is nothing to choose by), `oracle` the run with the fewest other characters.
Measured on the bodies. The recorded bodies stand beside, where `../shared/captures` is there.

`fork`: `fork_crew` with 8 inputs; simulated.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("CREWAI_DISABLE_TELEMETRY", "true")
os.environ.setdefault("CREWAI_TRACING_ENABLED", "false")
os.environ.setdefault("OTEL_SDK_DISABLED", "true")
os.environ.setdefault("CREWAI_STORAGE_DIR", tempfile.mkdtemp(prefix="crewai-"))


import msgspec
from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool

from llmbuffer import Session, StableContext, Usage
from llmbuffer.prices import cost, price_for
from llmbuffer.simulate import Asked, Call, ProviderServer, Reply
from llmbuffer_crewai import AgentFactory

CAPTURES = Path(__file__).resolve().parents[4] / "shared" / "captures" / "crewai.jsonl.gz"
MODELS = {
    "claude-sonnet-4-5": "anthropic",
    "gpt-5.6": "openai",
    "gpt-5.5": "openai",
    "gpt-4o": "openai",
}
BRIEFS = (2_000, 8_000)
LAYOUTS = ("crewai", "own", "union")
LOOPS = (0, 1, 2, 3, 4, 5)
_LINES = (
    "The bakery opens at six and sells what was baked in the night. ",
    "Rye is kept apart from wheat, and each sack says when it was milled. ",
    "A recipe states grams, minutes and degrees, and what to do when the dough is too wet. ",
    "We write for people who bake at home and own no machine. ",
)


def brief(tokens: int) -> str:
    """A text of about so many tokens."""
    words, out = 0, list[str]()
    while words < tokens:
        line = _LINES[len(out) % len(_LINES)]
        out.append(f"{len(out)}. {line}")
        words += len(line.split()) + 4
    return "".join(out).strip()


# The crew

_RESULT = "The entry says that the dough wants patience and a warm place. " * 14  # about 200 tokens


@tool("search_recipes")
def search_recipes(flour: str, minutes: int) -> str:
    """Search the bakery's recipes by the kind of flour and by the minutes that are left, newest recipes first."""
    return f"{flour} {minutes} {_RESULT}"


@tool("read_recipe")
def read_recipe(name: str, part: str) -> str:
    """Read one recipe of the collection by its name: its list of ingredients, its steps, or the notes of the bakers."""
    return f"{name} {part} {_RESULT}"


@tool("weigh_stock")
def weigh_stock(sack: str, unit: str) -> str:
    """Weigh what is left of a sack in the store room, in the unit that is asked for, and say when it was opened."""
    return f"{sack} {unit} {_RESULT}"


@tool("order_flour")
def order_flour(kind: str, grams: int) -> str:
    """Order flour from the mill; the answer says what it costs, when it comes, and what the mill has instead."""
    return f"{kind} {grams} {_RESULT}"


@tool("print_page")
def print_page(title: str, text: str) -> str:
    """Print a page of the booklet as readers will see it, with its title, and say how many lines it takes."""
    return f"{title} {len(text)} {_RESULT}"


@tool("check_words")
def check_words(text: str, level: str) -> str:
    """Check a text for words that people who never baked do not know, at one of the three levels of the series."""
    return f"{len(text)} {level} {_RESULT}"


AGENTS = [
    ("Baker", "Bake what was asked for", "You have baked for thirty years.", (search_recipes, read_recipe)),
    ("Buyer", "Buy what is missing", "You know every mill by name.", (weigh_stock, order_flour)),
    (
        "Writer",
        "Write it down for {reader}",
        "You wrote the booklets of the series.",
        (print_page, check_words),
    ),
]
ARGUMENTS: dict[str, dict[str, Any]] = {
    "search_recipes": {"flour": "rye", "minutes": 90},
    "weigh_stock": {"sack": "rye", "unit": "grams"},
    "print_page": {"title": "Rye bread", "text": "Bake."},
}
TASKS = [
    (0, "Find a recipe for rye bread.", "The recipe."),
    (1, "Buy what the recipe needs.", "A list of orders."),
    (2, "Write the page about this bread.", "The page."),
    (0, "Check the page against the recipe.", "A list of mistakes."),
]
INPUTS = {"reader": "beginners"}
ANSWER = "The bread is done and the page says how it was made, step by step. " * 18  # about 300 tokens


class Script:
    """What the model says: so many tool calls a task, one after the other, then the answer."""

    def __init__(self, loops: int) -> None:
        self.loops = loops

    def __call__(self, asked: Asked) -> Reply:
        """The reply to a request, by its text alone, so that the same task gets the same answers in any layout."""
        text = json.dumps(asked.body)
        role = next(name for name, *_ in AGENTS if f"You are {name}." in text)
        used = sum(text.count(each) for each in ('"role": "tool"', '"type": "tool_result"'))
        if used < self.loops:
            names = [each.name for _name, _goal, _story, tools in AGENTS if _name == role for each in tools]
            arguments = {**ARGUMENTS[names[0]]}
            first = next(key for key, value in arguments.items() if isinstance(value, str))
            arguments[first] = f"{arguments[first]} {used}"
            return Reply("", calls=(Call(names[0], json.dumps(arguments)),))
        return Reply(f"{role}: {ANSWER}")


@contextmanager
def served(model: str, script: Any, **options: Any) -> Iterator[tuple[ProviderServer, Any]]:
    """A server, and an LLM of CrewAI's that is served by it."""
    provider = MODELS[model]
    with ProviderServer(replies=script, keep_bodies=True) as server:
        url = server.anthropic_url if provider == "anthropic" else server.openai_url
        yield server, LLM(model=f"{provider}/{model}", base_url=url, api_key="any", max_retries=0, **options)


def default_crew(llm: Any, text: str) -> Any:
    """The crew as CrewAI's users write it."""
    agents = [
        Agent(role=role, goal=goal, backstory=f"{text}\n\n{story}", tools=list(tools), llm=llm)
        for role, goal, story, tools in AGENTS
    ]
    tasks = [Task(description=what, expected_output=wanted, agent=agents[who]) for who, what, wanted in TASKS]
    return Crew(agents=agents, tasks=tasks)


def factory(llm: Any, model: str, text: str, layout: str = "auto") -> AgentFactory:
    """The factory over a session that holds the brief."""
    return AgentFactory(Session(StableContext(model, text), MODELS[model]), llm=llm, layout=layout)


def buffered_crew(made: AgentFactory) -> Any:
    """The same crew off the factory's session."""
    agents = [made.agent(role, goal, story, tools=tools) for role, goal, story, tools in AGENTS]
    tasks = [made.task(what, wanted, agents[who]) for who, what, wanted in TASKS]
    return made.crew(agents, tasks)


# Cells


class Cell(dict[str, Any]):
    """What a run came to: input tokens, what of them was read and written, and what the input cost."""

    @classmethod
    def of(cls, server: ProviderServer, model: str, raw: str) -> Cell:
        """The figures of a server."""
        used = sum((each.usage for each in server.requests), Usage())
        price = price_for(model)
        assert price is not None, "the models of this table have prices"
        paid = sum(
            cost(msgspec.structs.replace(each.usage, output_tokens=0), price) for each in server.requests
        )
        assert all(each.status == 200 for each in server.requests), "no request is refused"
        return cls(requests=len(server.requests), **used.figures(), cost_usd=paid, answer=raw)


def cell(model: str, tokens: int, loops: int, layout: str | None) -> Cell:
    """One run; without a layout, CrewAI's default."""
    text = brief(tokens)
    with served(model, Script(loops)) as (server, llm):
        if layout is None:
            output, chosen = default_crew(llm, text).kickoff(inputs=INPUTS), "default"
        else:
            made = factory(llm, model, text, layout)
            output, chosen = buffered_crew(made).kickoff(inputs=INPUTS), made.choice.layout
        found = Cell.of(server, model, output.raw)
    return Cell(found, layout=chosen)


def cells(
    models: Sequence[str], briefs: Sequence[int] = BRIEFS, loops: Sequence[int] = LOOPS
) -> list[dict[str, Any]]:
    """A row for each model, brief and number of tool calls."""
    rows = []
    for model in models:
        for tokens in briefs:
            for number in loops:
                default, buffered = (cell(model, tokens, number, each) for each in (None, "auto"))
                others = [cell(model, tokens, number, each) for each in LAYOUTS if each != buffered["layout"]]
                oracle = min([default, buffered, *others], key=lambda each: each["cost_usd"])
                assert len({each["answer"] for each in (default, buffered, *others)}) == 1, "the same answers"
                rows.append(
                    {
                        "model": model,
                        "brief_tokens": tokens,
                        "tool_calls": number,
                        "layout": buffered["layout"],
                        "default": default,
                        "buffered": buffered,
                        "oracle": oracle,
                        "cost_change": buffered["cost_usd"] / default["cost_usd"] - 1,
                    }
                )
    return rows


# Captured scenarios

STORY = "You have twenty years of experience. " + "Rule: cite the source of each claim. " * 20
ENDING = "result " * 40
WINDOW = 850  # tokens, of four characters each


@tool("search_docs")
def search_docs(query: str) -> str:
    """Search the internal documentation."""
    return "doc text " * 60


@tool("read_page")
def read_page(url: str) -> str:
    """Read one page."""
    return "page"


class Recorded:
    """What the model said in the recordings: one call and an answer each time, or an answer where there are no tools."""

    def __init__(self, refused: int | None = None, calls: int = 1) -> None:
        self.number, self.refused, self.calls = 0, refused, calls

    def __call__(self, asked: Asked) -> Reply:
        """The next reply."""
        messages = asked.body["messages"]
        last = next(i for i in range(len(messages) - 1, -1, -1) if messages[i]["role"] == "user")
        used = sum(each["role"] == "tool" for each in messages[last:])
        asks = json.dumps(messages[-1])
        self.number += 1
        if "Analyze the following conversation" in asks or "outgrow the context window" in asks:
            return Reply("<summary>short</summary>")
        if self.number == self.refused:
            return Reply(status=400, message="This model's maximum context length is 1000 tokens.")
        writes = "You are Writer." in json.dumps(messages[0])
        if (
            used < self.calls
            and "tools" in asked.body
            and not writes
            and "</summary>" not in json.dumps(messages)
        ):
            return Reply("", calls=(Call("search_docs", json.dumps({"query": f"q{self.number}"})),))
        return Reply(f"Thought: done\nFinal Answer: answer number {self.number} {ENDING}")


def kickoffs(maker: Any) -> None:
    """Two agents, three tasks, two kickoffs about different topics."""
    for topic in ("topic 0", "topic 1"):
        researcher = maker.agent("Researcher", "Find facts about {topic}", tools=[search_docs, read_page])
        writer = maker.agent("Writer", "Write a clear report about {topic}")
        tasks = [
            maker.task("Research {topic} in depth.", "A list of facts.", researcher),
            maker.task("Write the report about {topic}.", "A report.", writer),
            maker.task("Check the report about {topic}.", "A checklist.", researcher),
        ]
        maker.crew([researcher, writer], tasks).kickoff(inputs={"topic": topic})


def multi_turn(maker: Any, keep: Any = list) -> None:
    """One agent, three turns of a conversation, with the history handed over as ``keep`` gives it back."""
    agent = maker.agent("Researcher", "Find facts about {topic}", tools=[search_docs, read_page])
    history: list[dict[str, str]] = []
    for turn in range(3):
        history.append({"role": "user", "content": f"turn {turn}: tell me about {turn}"})
        history.append({"role": "assistant", "content": agent.kickoff(keep(history)).raw})


def stored(maker: Any) -> None:
    """The same with the history out of a database, and no name for the conversation."""
    multi_turn(maker, lambda history: json.loads(json.dumps(history)))


def summarized(maker: Any) -> None:
    """A task whose fourth prompt is refused as too long."""
    agent = maker.agent("Researcher", "Find facts", tools=[search_docs, read_page])
    task = maker.task("Research the topic in depth.", "facts", agent)
    maker.crew([agent], [task]).kickoff()


class Plain:
    """Makes agents as CrewAI's users do, with the story in each backstory."""

    def __init__(self, llm: Any) -> None:
        self.llm = llm

    def agent(self, role: str, goal: str, tools: Sequence[Any] = ()) -> Any:
        """An agent."""
        return Agent(role=role, goal=goal, backstory=STORY, tools=list(tools), llm=self.llm)

    def task(self, what: str, wanted: str, agent: Any) -> Any:
        """A task."""
        return Task(description=what, expected_output=wanted, agent=agent)

    def crew(self, agents: Sequence[Any], tasks: Sequence[Any]) -> Any:
        """A crew."""
        return Crew(agents=list(agents), tasks=list(tasks))


SCENARIOS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sequential_2agents_native_tools": (kickoffs, {}),
    "agent_kickoff_multi_turn": (multi_turn, {}),
    "agent_kickoff_stored_history": (stored, {}),
    "context_window_summarization": (summarized, {"refused": 4, "calls": 9}),
}


def captured() -> list[dict[str, Any]]:
    """A row for each scenario."""
    recorded, rows = _recorded(), []
    for name, (play, script) in SCENARIOS.items():
        runs = {each: _played(play, script, each) for each in ("default", "own", "union")}
        rows.append(
            {
                "scenario": name,
                "recorded": figures(recorded[name]) if name in recorded else None,
                "default": runs["default"],
                "own": runs["own"],
                "buffered": runs["union"],
                "oracle": min(runs.values(), key=lambda run: run["uncached"]),
            }
        )
    return rows


def _played(play: Any, script: dict[str, Any], layout: str) -> dict[str, Any]:
    with served("gpt-4o", Recorded(**script)) as (server, llm):
        llm.__dict__["get_context_window_size"] = lambda: WINDOW
        if layout == "default":
            play(Plain(llm))
        else:
            play(AgentFactory(Session(StableContext("gpt-4o", STORY)), llm=llm, layout=layout))
        bodies = [dict(each.body or {}) for each in server.requests]
    return figures(bodies)


def _recorded() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    if CAPTURES.exists():
        with gzip.open(CAPTURES, "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                found.setdefault(row["scenario"], []).append(row["body"])
    return found


def prompt(body: Mapping[str, Any]) -> list[str]:
    """Tools, then messages, each as JSON; a text and a list of one text are the same."""
    pieces = [*(body.get("tools") or ()), *(body.get("system") or ()), *body["messages"]]
    return [json.dumps(each, ensure_ascii=False) for each in pieces]


def figures(bodies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Requests, characters, those that no earlier request began with, and the share of the others."""
    texts = ["".join(prompt(body)) for body in bodies]
    total = sum(map(len, texts))
    reused = sum(
        max((_common(text, other) for other in texts[:place]), default=0) for place, text in enumerate(texts)
    )
    return {
        "requests": len(texts),
        "characters": total,
        "uncached": total - reused,
        "reused": reused / total,
    }


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))


# Forks


def forks(models: Sequence[str], tokens: int = 8_000) -> list[dict[str, Any]]:
    """A row for each model: 8 crews off one session."""
    rows = []
    for model in models:
        with served(model, Script(1)) as (server, llm):
            made = factory(llm, model, brief(tokens))
            buffered_crew(made)
            inputs = [{"reader": f"reader {number}"} for number in range(8)]
            results = made.fork_crew(inputs)
            requests = server.requests
            cold = [each for each in requests if each.usage.cache_read_tokens < tokens // 2]
            used = sum((each.usage for each in requests), Usage())
            rows.append(
                {
                    "model": model,
                    "crews": len(results),
                    "in_order": [each.inputs for each in results] == inputs,
                    "cold_requests": len(cold),
                    "requests": len(requests),
                    **used.figures(),
                }
            )
    return rows


# Tables


def main() -> None:
    """Print the tables, or with `--json` one document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default="cells,captured,fork")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--briefs", default=",".join(map(str, BRIEFS)))
    parser.add_argument("--loops", default=",".join(map(str, LOOPS)))
    asked = parser.parse_args()
    logging.getLogger("crewai").setLevel(logging.ERROR)
    parts, models = asked.only.split(","), asked.models.split(",")
    briefs, loops = ([int(each) for each in given.split(",")] for given in (asked.briefs, asked.loops))
    found: dict[str, Any] = {"measured": False}
    if "cells" in parts:
        found["cells"] = cells(models, briefs, loops)
    if "captured" in parts:
        found["captured"] = captured()
    if "fork" in parts:
        found["fork"] = forks(models)
    if asked.json:
        print(json.dumps(found))
        return
    for name, show in (("cells", _show_cells), ("captured", _show_captured), ("fork", _show_forks)):
        if name in found:
            show(found[name])


def _show_cells(rows: Sequence[Mapping[str, Any]]) -> None:
    print("\ninput cost in USD, and share of the input read; simulated")
    print("| model | brief | tool calls | default | buffered | oracle | layout | cost |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        shown = " | ".join(
            f"{row[each]['cost_usd']:.4f}, {row[each]['hit_ratio']:.1%}"
            for each in ("default", "buffered", "oracle")
        )
        start = f"| {row['model']} | {row['brief_tokens']:,} | {row['tool_calls']} | {shown}"
        print(f"{start} | {row['layout']} | {row['cost_change']:+.1%} |")
    worst = max(rows, key=lambda row: float(row["cost_change"]))
    print(f"dearest against the default: {worst['cost_change']:+.1%}")


def _show_captured(rows: Sequence[Mapping[str, Any]]) -> None:
    print("\ncharacters that an earlier request began with, and those that none did; measured on the bodies")
    print("| scenario | recorded | default | own | buffered | oracle |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        runs = (row[each] for each in ("recorded", "default", "own", "buffered", "oracle"))
        shown = " | ".join(
            "-" if run is None else f"{run['reused']:.1%}, {run['uncached']:,}" for run in runs
        )
        print(f"| {row['scenario']} | {shown} |")


def _show_forks(rows: Sequence[Mapping[str, Any]]) -> None:
    print("\nfork_crew, 8 inputs; simulated")
    print("| model | crews | in order | requests | cold | read |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['model']} | {row['crews']} | {row['in_order']} | {row['requests']} | {row['cold_requests']} | "
            f"{row['hit_ratio']:.1%} |"
        )


if __name__ == "__main__":
    main()
