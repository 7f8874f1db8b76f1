"""``llmbuffer serve`` under many streams at once: errors, wrong usage, memory, and a clean end.

    python tests/benchmarks/serve_load.py --seconds 60 --streams 200

Each of the workers holds conversations of a few turns, one request after the other, in one of the formats, always
streamed. What a request must report is known beforehand: each conversation has a system text of its own, so its first
request reads nothing, and each later one reads what the one before it wrote. Prompt tokens are compared with those of the
library's own reading of the body.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from llmbuffer.bodies import Wire, read_prompt
from llmbuffer.dialects.anthropic import Anthropic
from llmbuffer.dialects.openai_chat import OpenAIChat
from llmbuffer.rules import CacheRules
from llmbuffer.snapshot import Snapshot
from llmbuffer.tokens import counter_for
from llmbuffer.usage import Usage

PROGRAM = [sys.executable, "-c", "from llmbuffer.cli import main; main()", "serve", "--port", "0", "--json"]
TURNS = 6
PERSONS = ("Ada", "Grace", "Edsger", "Barbara", "Donald", "Frances")


class Kind(NamedTuple):
    """A way to ask: the wire format, its path, the model, and its rules."""

    wire: Wire
    path: str
    model: str
    rules: CacheRules


KINDS = (
    Kind("openai", "/v1/chat/completions", "gpt-5.5", OpenAIChat().bind("gpt-5.5").rules),
    Kind("openai", "/v1/chat/completions", "gpt-5.6", OpenAIChat().bind("gpt-5.6").rules),
    Kind("anthropic", "/v1/messages", "claude-sonnet-5.5", Anthropic().bind("claude-sonnet-5.5").rules),
)


def system_text(worker: int, talk: int) -> str:
    """A text of some 2,000 tokens that no other conversation has, different from its first word on."""
    name = PERSONS[(worker + talk) % len(PERSONS)]
    return f"{worker}-{talk}: you are {name}. " + "Answer briefly, cite the rule, and stay kind. " * 200


def body_of(kind: Kind, system: str, said: list[tuple[str, str]]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in said]
    if kind.wire == "openai":
        lead = {"role": "system", "content": system}
        options = {"include_usage": True}
        return {"model": kind.model, "messages": [lead, *messages], "stream": True, "stream_options": options}
    mark = {"cache_control": {"type": "ephemeral"}}
    return {
        "model": kind.model,
        "max_tokens": 100,
        "system": [{"type": "text", "text": system, **mark}],
        "messages": messages,
        "stream": True,
        **mark,
    }


def expected(kind: Kind, now: Snapshot, before: Snapshot | None) -> tuple[int, int, int]:
    """Input, read and written tokens of a request, from the rules and nothing else."""
    if before is None:
        read = 0
    elif kind.rules.match == "prefix":
        read = before.tokens // kind.rules.step * kind.rules.step
    else:
        read = before.tokens
    write = 0 if kind.rules.match == "prefix" else now.tokens - read
    return now.tokens, read, write


class Load:
    """All workers, and what they found."""

    def __init__(self, url: str, until: float) -> None:
        self.url, self.until = url, until
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.counters = {kind.model: counter_for(kind.model).count for kind in KINDS}

    async def run(self, streams: int) -> None:
        limits = httpx2.Limits(max_connections=streams, max_keepalive_connections=streams)
        async with httpx2.AsyncClient(base_url=self.url, limits=limits, timeout=60) as client:
            await asyncio.gather(*(self.work(client, worker) for worker in range(streams)))

    async def work(self, client: httpx2.AsyncClient, worker: int) -> None:
        kind, talk = KINDS[worker % len(KINDS)], 0
        while time.monotonic() < self.until:
            await self.converse(client, kind, system_text(worker, talk))
            talk += 1

    async def converse(self, client: httpx2.AsyncClient, kind: Kind, system: str) -> None:
        said: list[tuple[str, str]] = []
        before: Snapshot | None = None
        for turn in range(TURNS):
            said.append(("user", f"Question {turn}: where is it?"))
            body = body_of(kind, system, said)
            now = read_prompt(body, kind.wire, kind.rules, self.counters[kind.model])
            try:
                usage, text = await ask(client, kind, body)
            except (httpx2.HTTPError, ValueError, KeyError) as error:
                self.counts["errors"] += 1
                self.wrong.append(f"{type(error).__name__}: {error}")
                return
            self.counts["requests"] += 1
            found = (usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens)
            if found != expected(kind, now, before):
                self.counts["wrong usage"] += 1
                self.wrong.append(
                    f"{kind.model} turn {turn}: {found}, expected {expected(kind, now, before)}"
                )
            said.append(("assistant", text))
            before = now
            if time.monotonic() >= self.until:
                return


async def ask(client: httpx2.AsyncClient, kind: Kind, body: dict[str, Any]) -> tuple[Usage, str]:
    """One streamed request: its usage, and the text."""
    text, usage = "", None
    async with client.stream("POST", kind.path, json=body, headers={"x-api-key": "load"}) as response:
        if response.status_code != 200:
            raise ValueError(f"status {response.status_code}: {(await response.aread())[:200]!r}")
        async for event in events_of(response):
            if kind.wire == "openai":
                text += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
                usage = event.get("usage") or usage
            else:
                text += event.get("delta", {}).get("text", "")
                usage = event["usage"] if event["type"] == "message_delta" else usage
    if usage is None:
        raise ValueError("the stream told no usage")
    dialect: Any = OpenAIChat() if kind.wire == "openai" else Anthropic()
    return dialect.read_usage({"usage": usage}), text


async def events_of(response: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in response.aiter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line[len("data: ") :])


def resident(pid: int) -> float:
    """Resident memory of a process in MiB; 0 where /proc does not tell."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0.0
    line = next(line for line in status.read_text("utf-8").splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


async def measured(
    process: subprocess.Popen[str], url: str, seconds: float, streams: int
) -> tuple[Load, list[float]]:
    """The load, and memory at six moments."""
    load = Load(url, time.monotonic() + seconds)
    memory = [resident(process.pid)]

    async def watch() -> None:
        for _ in range(6):
            await asyncio.sleep(seconds / 6)
            memory.append(resident(process.pid))

    await asyncio.gather(load.run(streams), watch())
    return load, memory


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--streams", type=int, default=200)
    options = parser.parse_args()
    process = subprocess.Popen(PROGRAM, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = json.loads(process.stdout.readline())["url"]
        load, memory = asyncio.run(measured(process, url, options.seconds, options.streams))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    summary = json.loads(err.splitlines()[-1])
    requests = load.counts["requests"]
    print(f"streams at once    {options.streams}")
    print(f"requests           {requests:,} in {options.seconds:g} s")
    print(f"errors             {load.counts['errors']}")
    print(f"wrong usage        {load.counts['wrong usage']}")
    print(f"hit ratio          {summary['hit_ratio']:.4f} (simulated)")
    print(
        f"resident MiB       {' '.join(f'{each:.0f}' for each in memory)} (at the start, and at each sixth)"
    )
    print(f"exit on SIGINT     {process.returncode}, sums of {summary['requests']:,} requests")
    for line in load.wrong[:5]:
        print(f"  {line}")
    clean = process.returncode == 130 and summary["requests"] == requests and not load.wrong
    return 0 if clean else 1


if __name__ == "__main__":
    raise SystemExit(main())
