"""llmbuffer beside what a user would pick instead: time of a turn, memory, hit rate and cost; ratios of one run.

    python -m tests.benchmarks.peers.run --envs FOLDER [--json] [--sessions 3] [--calls 60] [--window 32000]

Each peer runs in an environment of its own below FOLDER: `index`, `langchain`, `autogen`, `llamaindex`, `crewai`, and `core`
for this llmbuffer; `nox -s bench` makes them. A peer whose environment is missing is left out, and said so.

Time of a turn (a message comes, the prompt is made in OpenAI's format, the reply comes) is measured in units of a
fixed piece of work beside it and told as a multiple of ours. ``made to fit`` is the first request of
1,000 messages that has to be made to fit a window of half of them. Hit ratio and USD are simulated: the public sessions, with a
clock rendered at each call and a passage retrieved at each turn, within one window for all, through the model of each
provider's cache; programs that have no place of their own for changing text put it at the end of the system prompt.
``--changing turn`` is kinder to them: their clock stands still within a turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from tests.benchmarks.peers.scripts import TRACES, Changing, Script, scripts

from llmbuffer import Usage, get_dialect
from llmbuffer.bodies import read_prompt
from llmbuffer.cache import CacheModel
from llmbuffer.prices import cost, price_for
from llmbuffer.replay.keeping import Keeping, Selfkept
from llmbuffer.replay.layouts import automatic_marks
from llmbuffer.tokens import EstimateCounter

HOSTS = Path(__file__).resolve().parent / "hosts"
PEERS = {
    "llmbuffer 0.3.0": ("index", "index_llmbuffer.py", "llmbuffer"),
    "LangChain trim_messages": ("langchain", "langchain_peers.py", "langchain_core.messages"),
    "LangChain SummarizationMiddleware": ("langchain", "langchain_peers.py", "langchain.agents.middleware"),
    "LangChain ContextEditing": ("langchain", "langchain_peers.py", "langchain.agents.middleware"),
    "AutoGen MessageHistoryLimiter": ("autogen", "autogen_peers.py", "autogen"),
    "AutoGen BufferedChatCompletionContext": ("autogen", "autogen_peers.py", "autogen_core.model_context"),
    "LlamaIndex ChatMemoryBuffer": ("llamaindex", "llamaindex_peers.py", "llama_index.core.memory"),
    "LlamaIndex Memory": ("llamaindex", "llamaindex_peers.py", "llama_index.core.memory"),
    "CrewAI summarize_messages": ("crewai", "crewai_peers.py", "crewai"),
}
OURS = "llmbuffer"
MODELS = (("openai", "gpt-5.5"), ("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5"))
SIZES = (100, 1_000, 10_000)
Column: TypeAlias = tuple[str, Callable[[str], str]]  # its title, and what stands in it for a peer
SUMMARY = 1_000  # tokens
COUNT = EstimateCounter().count


class Environments:
    """The interpreters of the peers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def python(self, name: str) -> Path | None:
        """The interpreter of an environment; ``None`` where there is none."""
        path = self._folder / name / "bin" / "python"
        return path if path.exists() else None

    def rows(self, peer: str, job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """What a peer answers to a job, a line at a time."""
        environment, program, _ = OURS_ENVIRONMENT if peer == OURS else PEERS[peer]
        python = self.python(environment)
        assert python is not None, "those without an environment were left out"
        command = [str(python), "-W", "ignore", program, peer]
        quiet = {**os.environ, "CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, cwd=HOSTS, env=quiet, **pipes) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.close()
            yield from map(json.loads, process.stdout)
        if process.returncode:
            raise RuntimeError(f"{peer} ended with {process.returncode}: see above")

    def import_time(self, environment: str, module: str) -> float:
        """Seconds of an import, the best of three, without what Python itself takes."""
        whole, bare = (
            min(self._took(environment, code) for _ in range(3))
            for code in (f"import {module}", "import json, asyncio")
        )
        return max(0.0, whole - bare)

    def _took(self, environment: str, code: str) -> float:
        program = f"import time; start = time.perf_counter(); {code}; print(time.perf_counter() - start)"
        python = str(self.python(environment))
        run = subprocess.run(
            [python, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True, cwd=HOSTS
        )
        return float(run.stdout.split()[-1])


OURS_ENVIRONMENT = ("core", "ours.py", "llmbuffer")


class Sums:
    """Usage and cost of one peer on the sessions of one source with one model."""

    def __init__(self) -> None:
        self.usage, self.cost = Usage(), 0.0

    def add(self, usage: Usage, model: str) -> None:
        self.usage += usage
        price = price_for(model)
        assert price is not None, "the models of this comparison have prices"
        self.cost += cost(usage, price)


def replayed(
    environments: Environments, peer: str, given: list[Script], window: int, changing: Changing
) -> dict[tuple[str, str], Sums]:
    """Sums by source and model of what a peer sends."""
    sums: dict[tuple[str, str], Sums] = defaultdict(Sums)
    by_id = {each.recording.id: each for each in given}
    job = {
        "do": "script",
        "scripts": [each.job(changing) for each in given],
        "window": window,
        "summary": SUMMARY,
    }
    texts: list[dict[str, Any]] = []
    readers: list[_Reader] = []
    script, step = None, 0
    for row in environments.rows(peer, job):
        if "message" in row:
            texts.append(json.loads(row["message"]))
        elif "script" in row:
            script, step, texts = by_id[row["script"]], 0, []
            readers = [_Reader(dialect, model) for dialect, model in MODELS]
        elif "sent" in row:
            assert script is not None, "a script is named before its steps"
            call = script.recording.calls[step]
            for reader in readers:
                key = (script.source, reader.model)
                for asked in row["asides"]:
                    sums[key].add(
                        reader.sent([texts[number] for number in asked], [], step, SUMMARY), reader.model
                    )
                prompt = [texts[number] for number in row["sent"]]
                tools = list(script.recording.agents[0].tools)
                sums[key].add(reader.sent(prompt, tools, step, COUNT(call.reply.text)), reader.model)
            step += 1
    return sums


class _Reader:
    """One session's prompts through the cache of one model, with the marks of a program that leaves caching to it."""

    def __init__(self, dialect: str, model: str) -> None:
        self.model = model
        self._rules = get_dialect(dialect).bind(model).rules
        self._cache = CacheModel(self._rules, count=COUNT)

    def sent(self, messages: list[dict[str, Any]], tools: list[Any], at: float, output: int) -> Usage:
        snapshot = read_prompt(
            {"model": self.model, "tools": tools, "messages": messages}, "openai", self._rules, COUNT
        )
        marks = automatic_marks(self._rules, snapshot.head, snapshot.tip)
        return self._cache.commit(msgspec.structs.replace(snapshot, marks=marks), at).usage(output)


def ours(given: Iterable[Script], window: int) -> dict[tuple[str, str], Sums]:
    """The same for a session of ours; its clock is that of the turn's begin."""
    sums: dict[tuple[str, str], Sums] = defaultdict(Sums)
    for script in given:
        for dialect, model in MODELS:
            bound = get_dialect(dialect).bind(model)
            setting = Keeping(
                name="auto", window=window, seed=7, dialect=bound, model=model, counter=EstimateCounter()
            )
            layout, cache = Selfkept(script.recording, setting), CacheModel(bound.rules, count=COUNT)
            for at, (call, texts) in enumerate(zip(script.recording.calls, script.texts, strict=True)):
                prompt = layout.ask(call, texts, float(at))
                for aside in prompt.asides:
                    sums[script.source, model].add(
                        cache.commit(aside.snapshot, at).usage(aside.output), model
                    )
                usage = cache.commit(prompt.snapshot, at).usage(COUNT(call.reply.text))
                sums[script.source, model].add(usage, model)
                layout.answer(call, usage)
    return sums


def timed(environments: Environments, names: list[str]) -> dict[str, dict[str, float | None]]:
    """Time of a turn by peer and size, in units; memory and import time besides."""
    out: dict[str, dict[str, float | None]] = {}
    for name in names:
        print(f"timing {name}", file=sys.stderr)
        environment, _, module = OURS_ENVIRONMENT if name == OURS else PEERS[name]
        rows = environments.rows(name, {"do": "time", "sizes": SIZES})
        out[name] = {f"turn_{row['size']}": row["units"] for row in rows}
        (once,) = environments.rows(name, {"do": "compact", "size": 1_000})
        out[name]["compaction_1000"] = once["units"]
        (held,) = environments.rows(name, {"do": "memory", "size": 1_000})
        out[name]["bytes_over_text"] = held["bytes_over_text"]
        out[name]["import_seconds"] = environments.import_time(environment, module)
    return out


def compared(found: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float | None]]:
    """The same as multiples of ours."""
    mine = found[OURS]
    return {name: {key: _over(value, mine[key]) for key, value in row.items()} for name, row in found.items()}


def _over(value: float | None, mine: float | None) -> float | None:
    return value / mine if value is not None and mine else None


def _shown(value: float | None) -> str:
    return "too long to wait for" if value is None else f"{value:.1f}"


def table(document: Mapping[str, Any]) -> None:
    """Print what was asked for as one Markdown table, and what stands out below it."""
    columns = [*(_times(document) if document["times"] else ()), *_replays(document)]
    print("|" + "".join(f" | {title}" for title, _ in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name in document["times"] or document["replays"]:
        print(f"| {name}" + "".join(f" | {shown(name)}" for _, shown in columns) + " |")
    print()
    if document["times"]:
        mine = document["measured"][OURS]
        flat = mine["turn_10000"] / mine["turn_100"]
        print(f"llmbuffer's turn at 10,000 messages over its turn at 100: {flat:.2f} (measured)")
    for line in document["behind"]:
        print(line)
    if document["replays"] and not document["behind"]:
        sources = sorted(set(document["replays"][OURS]) - {"all"})
        print(
            f"ahead of every peer in hit ratio and cost on each model and source: {', '.join(sources)} (simulated)"
        )


def _times(document: Mapping[str, Any]) -> Iterator[Column]:
    measured = {
        **{f"turn_{size}": f"turn at {size:,}" for size in SIZES},
        "compaction_1000": "made to fit, 1,000",
        "import_seconds": "import",
    }
    for key, title in measured.items():
        yield title, lambda name, key=key: _shown(document["times"][name][key])  # type: ignore[misc]  # bound now
    yield "bytes held over text", lambda name: f"{document['measured'][name]['bytes_over_text']:.2f}"


def _replays(document: Mapping[str, Any]) -> Iterator[Column]:
    for _, model in MODELS if document["replays"] else ():

        def shown(name: str, model: str = model) -> str:
            row = document["replays"][name]["all"][model]
            return f"{row['hit_ratio']:.3f}, {row['cost_usd']:.2f}"

        yield model, shown


def summed(found: Mapping[tuple[str, str], Sums]) -> dict[str, dict[str, Any]]:
    """By source and model, and over all sources."""
    out: dict[str, dict[str, Any]] = defaultdict(dict)
    totals: dict[str, Sums] = defaultdict(Sums)
    for (source, model), sums in sorted(found.items()):
        out[source][model] = {**sums.usage.figures(), "cost_usd": round(sums.cost, 4)}
        totals[model].usage += sums.usage
        totals[model].cost += sums.cost
    for model, sums in totals.items():
        out["all"][model] = {**sums.usage.figures(), "cost_usd": round(sums.cost, 4)}
    return dict(out)


def behind(replays: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Where a peer reads a larger share or costs less than llmbuffer."""
    lines = []
    for name, rows in replays.items():
        for source, models in rows.items():
            for model, found in models.items():
                mine = replays[OURS][source][model]
                if (
                    found["cost_usd"] < mine["cost_usd"] - 0.00005
                    or found["hit_ratio"] > mine["hit_ratio"] + 0.0005
                ):
                    lines.append(
                        f"behind {name} on {source}, {model}: hit ratio {mine['hit_ratio']:.3f} against "
                        f"{found['hit_ratio']:.3f}, USD {mine['cost_usd']:.3f} against {found['cost_usd']:.3f}"
                    )
    return lines


def main() -> int:
    """Measure and print; a peer that is not there is told."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--envs", type=Path, required=True, help="folder of the environments")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--only", choices=("times", "replays"), help="one of the two tables")
    parser.add_argument(
        "--sessions", type=int, default=3, help="sessions of each source (default: %(default)s)"
    )
    parser.add_argument(
        "--calls", type=int, default=60, help="calls of each session at the most (default: %(default)s)"
    )
    parser.add_argument(
        "--changing",
        choices=("call", "turn"),
        default="call",
        help="when the peers' clock and passage change (default: each %(default)s)",
    )
    parser.add_argument("--window", type=int, default=32_000, help="tokens (default: %(default)s)")
    asked = parser.parse_args()
    environments = Environments(asked.envs)
    names = [
        name for name, (environment, *_) in PEERS.items() if environments.python(environment) is not None
    ]
    missing = sorted(set(PEERS) - set(names))
    if missing:
        print(f"left out, since their environments are not there: {', '.join(missing)}", file=sys.stderr)
    document: dict[str, Any] = {"measured": {}, "times": {}, "replays": {}, "behind": []}
    if asked.only != "replays":
        document["measured"] = timed(environments, [OURS, *names])
        document["times"] = compared(document["measured"])
    if asked.only == "times":
        pass
    elif TRACES.is_dir():
        given = list(scripts(asked.sessions, asked.calls))
        document["replays"][OURS] = summed(ours(given, asked.window))
        for name in names:
            print(f"replaying {name}", file=sys.stderr)
            document["replays"][name] = summed(
                replayed(environments, name, given, asked.window, asked.changing)
            )
        document["behind"] = behind(document["replays"])
    else:
        print("no replays: the recorded sessions are not there", file=sys.stderr)
    if asked.json:
        print(json.dumps(document, indent=2))
    else:
        table(document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
