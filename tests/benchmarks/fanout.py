"""Fan-out in figures: `python tests/benchmarks/fanout.py [--json] [--only dialects,engine,hundred,keys,forks]`.

`dialects` and `engine`: a coordinator and three workers on every simulated dialect and on a real llama.cpp server (with the
demo's script), against separate sessions and against naive parallel forks. `hundred`: 100 cold workers, a leader that
fails, two processes over one store. `keys`: routing keys that take 15 requests a minute, in simulated time. `forks`: 10,000
forks of 10,000 messages. Tokens of `dialects`, `hundred` and `keys` are simulated; those of `engine`, and all times, measured.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fanning import client_of, cold, fanned, session_of, tasks

from llmbuffer import Message, Segment, Session, StableContext, Usage
from llmbuffer.demo.script import Script, script
from llmbuffer.dialects.llamacpp import LlamaCpp
from llmbuffer.engine import EngineServer
from llmbuffer.fanout import Task, afan_out, fan_out
from llmbuffer.simulate import Asked, Call, ProviderServer, Reply
from llmbuffer.simulate.exchange import Incoming
from llmbuffer.simulate.provider import Provider
from llmbuffer.tokens import EstimateCounter

DIALECTS = {
    "anthropic": ("anthropic", "claude-sonnet-5.5"),
    "openai gpt-5.6": ("openai", "gpt-5.6"),
    "openai gpt-5.5": ("openai-prefix", "gpt-5.5"),
    "openai-responses gpt-5.6": ("openai-responses", "gpt-5.6"),
    "gemini": ("gemini", "gemini-2.5-pro"),
    "deepseek": ("deepseek", "deepseek-v4-pro"),
    "vllm": ("vllm", "vllm-model"),
    "llamacpp": ("llamacpp", "llama-model"),
}
RULES = {"vllm-*": "vllm", "llama-*": "llamacpp"}
IN_FLIGHT = (2, 8, 32, 128)
POLICIES = ("shared", "each", "auto")


# The script of the demo, answered from what a prompt holds


class Said:
    """What the model says next, found by what the prompt says last: the same for every way to send it."""

    def __init__(self, told: Script) -> None:
        turns = [(turn.user, turn.steps) for turn in told.coordinator]
        workers = [(worker.task, worker.steps) for worker in told.workers]
        self._parts = [(json.dumps(text)[1:-1], steps) for text, steps in (*turns, *workers)]
        self.results = {
            call.id: result
            for _, steps in self._parts
            for step in steps
            for call, result in zip(step.reply.tool_calls, step.results, strict=True)
        }

    def after(self, body: Any) -> Message:
        text = json.dumps(body)
        _, steps = max(self._parts, key=lambda part: text.rfind(part[0]))
        before = text[text.rfind(max(self._parts, key=lambda part: text.rfind(part[0]))[0]) :]
        done = sum(bool(step.reply.tool_calls) and _called(step.reply, before) for step in steps)
        return steps[min(done, len(steps) - 1)].reply


def _called(reply: Message, text: str) -> bool:
    """Whether the calls of a reply stand in a prompt; Gemini knows them by name and arguments only."""
    first = reply.tool_calls[0]
    if f'"{first.id}"' in text:
        return True
    return "functionCall" in text and json.dumps(json.loads(first.arguments)) in text


def _tools(told: Script, said: Said) -> Callable[[str, Mapping[str, Any]], str]:
    """Answers a call by its name and arguments."""
    known: dict[str, str] = {}
    steps = [step for turn in told.coordinator for step in turn.steps]
    steps += [step for worker in told.workers for step in worker.steps]
    for call in (call for step in steps for call in step.reply.tool_calls):
        known[call.name + json.dumps(json.loads(call.arguments), sort_keys=True)] = said.results[call.id]

    def answer(name: str, arguments: Mapping[str, Any]) -> str:
        return known[name + json.dumps(arguments, sort_keys=True)]

    return answer


def context_of(
    told: Script, model: str, persona: str = "", params: Mapping[str, Any] | None = None
) -> StableContext:
    system = [
        Segment("persona", persona + told.persona, level="global"),
        Segment("policy", told.policy, level="tenant"),
    ]
    return StableContext(model, system, tools=told.tools, params=params)


def briefing(session: Session) -> str:
    """What a separate session is told: all that was said, as text."""
    lines = []
    for message in session.messages:
        results = [str(result.content) for result in message.tool_results]
        lines.append(f"{message.role}: {message.text}{''.join(results)}")
    return "\n".join(lines)


class Arm:
    """The requests of one way to run coordinator and workers."""

    def __init__(self, name: str, workers: list[list[Usage]], coordinator: list[Usage], head: int) -> None:
        self.name = name
        every = [*coordinator, *(usage for worker in workers for usage in worker)]
        whole = _sum(every)
        self.row = {
            "arm": name,
            "requests": len(every),
            "hit_ratio": whole.hit_ratio,
            "worst_worker": min(_sum(worker).hit_ratio for worker in workers),
            "computed_tokens": whole.input_tokens - whole.cache_read_tokens,
            "cold_writes": sum(usage.cache_read_tokens < 0.8 * head for usage in every),
        }


def _sum(usages: list[Usage]) -> Usage:
    return sum(usages, Usage())


def _ledger(session: Session) -> list[Usage]:
    return [entry.usage for entry in session.ledger if entry.usage is not None]


def dialect_arms(name: str) -> list[dict[str, Any]]:
    """Coordinator and workers on a simulated dialect."""
    dialect, model = DIALECTS[name]
    told = script()
    said = Said(told)
    rows = []
    for arm in ("separate sessions", "naive forks", "fan-out", "naive forks, cold", "fan-out, cold"):

        def reply(asked: Asked) -> Reply:
            message = said.after(asked.body)
            calls = tuple(Call(call.name, call.arguments, call.id) for call in message.tool_calls)
            return Reply(message.text or None, calls=calls)

        with (
            ProviderServer(replies=reply, rules=RULES, latency=(0.1, 0.0)) as server,
            client_of(dialect, server) as client,
        ):
            session = Session(
                context_of(told, model),
                dialect.removesuffix("-prefix"),
                client=client,
                tokens=EstimateCounter(),
            )
            rows.append(
                _run(arm, session, told, said, server=server, dialect=dialect).row | {"dialect": name}
            )
    return rows


def _run(arm: str, session: Session, told: Script, said: Said, *, server: Any, dialect: str) -> Arm:
    tools = _tools(told, said)
    if arm.endswith(", cold"):
        # The history was made elsewhere: this provider has seen none of it.
        _played(session, told, said)
        coordinator: list[Usage] = []
    else:
        for turn in told.coordinator:
            session.respond(turn.user, tools=tools)
        coordinator = _ledger(session)
    head = session.request("x").head.node.end
    given = [Task(worker.task, name=worker.name) for worker in told.workers]
    if arm == "separate sessions":
        workers = []
        for task in given:
            persona = f"You are {task.name}, a specialist. "
            own = Session(
                context_of(told, session.context.model, persona, session.context.params),
                session.dialect,
                client=session.client,
                tokens=EstimateCounter(),
            )
            own.respond(f"{briefing(session)}\n\n{task.task}", tools=tools)
            workers.append(_ledger(own))
        return Arm(arm, workers, coordinator, head)
    warm: Any = "never" if arm.startswith("naive") else "auto"
    policy: Any = "shared" if arm.startswith("naive") else "auto"
    results = fan_out(session, given, tools=tools, limit=3, warm=warm, key_policy=policy)
    assert results.ok, results.errors[0].error
    found = [[seen.usage for seen in each.observations if seen.usage is not None] for each in results]
    return Arm(arm, found, coordinator, head)


def _played(session: Session, told: Script, said: Said) -> None:
    """What the coordinator said, without a request."""
    for turn in told.coordinator:
        session.append({"role": "user", "content": turn.user})
        for step in turn.steps:
            session.append(step.reply)
            for call in step.reply.tool_calls:
                session.append({"role": "tool", "tool_call_id": call.id, "content": said.results[call.id]})


# A real engine


class EngineClient:
    """The real SDK on a tiny model that writes noise: tokens are the engine's, words the script's. Threads may share it."""

    def __init__(self, inner: Any, said: Said) -> None:
        self._inner, self._said = inner, said
        self.prompt_ms: list[float] = []
        self.base_url, self.with_options = inner.base_url, inner.with_options
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._create))

    def _create(self, **fields: Any) -> dict[str, Any]:
        extra = {**fields.pop("extra_body", {}), "logit_bias": [["a", 100]]}
        answer = self._inner.chat.completions.create(**fields, extra_body=extra).model_dump(mode="json")
        self.prompt_ms.append(answer["timings"]["prompt_ms"])
        reply = self._said.after({"messages": fields["messages"]}).to_openai()
        return {**answer, "choices": [{**answer["choices"][0], "message": reply}]}


def engine_arms(rounds: int = 3) -> list[dict[str, Any]]:
    """Coordinator and workers on a llama.cpp server, each arm on a fresh one; wall time is that of the workers."""
    from llmbuffer.demo.engines import script_texts
    from llmbuffer.demo.vocabulary import BytePairs
    from llmbuffer.engine import write_tiny_model

    told = script()
    said = Said(told)
    arms = [("separate sessions", 1), ("naive forks", 4), ("fan-out", 1), ("fan-out", 4)]
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        merges = BytePairs.trained(script_texts(told)).merges
        # Two layers: with the demo's one, what surrounds a request takes as long as its prompt.
        model = write_tiny_model(Path(folder) / "two.gguf", layers=2, width=64, merges=merges)
        for _ in range(rounds):
            for arm, slots in arms:
                row = _engine_arm(arm, slots, model, told, said)
                best = rows.get((arm, slots))
                if best is None or row["worker_seconds"] < best["worker_seconds"]:
                    rows[arm, slots] = row
    reference = rows["separate sessions", 1]
    for row in rows.values():
        row["times_faster"] = reference["worker_seconds"] / row["worker_seconds"]
        row["times_faster_in_all"] = reference["seconds"] / row["seconds"]
        row["prompt_times_faster"] = reference["worker_prompt_seconds"] / row["worker_prompt_seconds"]
    return list(rows.values())


def _engine_arm(arm: str, slots: int, model: Path, told: Script, said: Said) -> dict[str, Any]:
    from openai import OpenAI

    params = {"max_tokens": 1, "temperature": 0}
    with (
        tempfile.TemporaryDirectory() as saved,
        EngineServer(model, slots=slots, context=32_768, slot_dir=saved) as server,
        OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=300) as inner,
    ):
        session = Session(
            context_of(told, "local", params=params),
            LlamaCpp(lanes=slots),
            client=EngineClient(inner, said),
            tokens=EstimateCounter(),
        )
        begun, start = [time.perf_counter()], time.perf_counter()
        if (
            slots > 1 and arm != "naive forks"
        ):  # the coordinator keeps to the slot that its forks are made from
            session.update(params={**params, "id_slot": 0})
        row = _timed(arm, session, told, said, begun)
        end, computing = time.perf_counter(), session.client.prompt_ms
        # The slots are warmed by a request of its own, which is among those of the workers.
        prompts = sum(computing[sum(len(turn.steps) for turn in told.coordinator) :]) / 1000
    took = {"worker_seconds": end - begun[0], "worker_prompt_seconds": prompts, "seconds": end - start}
    return {**row, "slots": slots, **took}


def _timed(arm: str, session: Session, told: Script, said: Said, begun: list[float]) -> dict[str, Any]:
    original = briefing

    def turn_over() -> None:
        begun[0] = time.perf_counter()

    tools = _tools(told, said)
    for turn in told.coordinator:
        session.respond(turn.user, tools=tools)
    turn_over()
    head = session.request("x").head.node.end
    given = [Task(worker.task, name=worker.name) for worker in told.workers]
    if arm == "separate sessions":
        workers = []
        for task in given:
            own = Session(
                context_of(told, "local", f"You are {task.name}, a specialist. ", session.context.params),
                session.dialect,
                client=session.client,
                tokens=EstimateCounter(),
            )
            own.respond(f"{original(session)}\n\n{task.task}", tools=tools)
            workers.append(_ledger(own))
    else:
        warm: Any = "never" if arm.startswith("naive") else "auto"
        policy: Any = "shared" if arm.startswith("naive") else "auto"
        results = fan_out(session, given, tools=tools, limit=3, warm=warm, key_policy=policy)
        assert results.ok, results.errors[0].error
        workers = [[seen.usage for seen in each.observations if seen.usage is not None] for each in results]
    return Arm(arm, workers, _ledger(session), head).row


# A hundred workers


def hundred() -> list[dict[str, Any]]:
    """100 cold workers, a leader that fails, and two processes over one store."""
    rows: list[dict[str, Any]] = []
    for dialect in ("anthropic", "openai"):
        for warm, replies, case in (
            ("auto", None, "fan-out"),
            ("never", None, "naive, all at once"),
            ("auto", [Reply(status=500)], "fan-out, first leader fails"),
            ("auto", [Reply("late", delay=60.0)], "fan-out, first leader hangs (timeout 10 s)"),
        ):
            with ProviderServer(replies=replies, latency=(0.1, 0.0)) as server:
                session = session_of(dialect)
                timeout = 10.0 if "hangs" in case else None
                results = fanned(
                    dialect, server, session, tasks(100), warm=warm, key_policy="shared", timeout=timeout
                )
                rows.append(_hundred_row(dialect, case, server, sum(each.ok for each in results)))
    for url in _stores():
        with url as opened, ProviderServer(latency=(0.2, 0.0)) as server:
            command = [sys.executable, "-m", "tests.fanning", opened, server.url, "50"]
            root = Path(__file__).parents[2]
            running = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) for _ in range(2)]
            codes = [process.wait(timeout=300) for process in running]
            for process in running:
                assert process.stdout is not None
                process.stdout.close()
            assert codes == [0, 0]
            rows.append(_hundred_row("anthropic", f"2 processes, {opened.partition(':')[0]}", server, 100))
    return rows


def _hundred_row(dialect: str, case: str, server: ProviderServer, ok: int) -> dict[str, Any]:
    sent = [each for each in server.requests if each.status == 200 and each.completed]
    usage = _sum([each.usage for each in sent])
    writes = cold(server)
    return {
        "dialect": dialect,
        "case": case,
        "answered": ok,
        "writes": writes,
        "reads": len(sent) - writes,
        "hit_ratio": usage.hit_ratio,
    }


def _stores() -> Iterator[Any]:
    @contextmanager
    def sqlite() -> Iterator[str]:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/store.db"

    @contextmanager
    def redis() -> Iterator[str]:
        from tests.servers import RedisServer

        with tempfile.TemporaryDirectory() as folder:
            server = RedisServer(Path(folder))
            server.start()
            try:
                yield server.url
            finally:
                server.stop()

    yield sqlite()
    if shutil.which("redis-server") or shutil.which("valkey-server"):
        yield redis()


# Routing keys, in simulated time


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        real = self._selector.select  # type: ignore[attr-defined]  # asyncio's own

        def select(timeout: float | None = None) -> Any:
            if timeout:
                self._now += timeout
            return real(0)

        self._selector.select = select  # type: ignore[attr-defined]  # the same

    def time(self) -> float:
        """Seconds since the loop was made, as far as it is concerned."""
        return self._now


class VirtualClient:
    """OpenAI's asynchronous client on a simulated provider, without HTTP: 1 s to the first token, 3 s to the last."""

    def __init__(self, provider: Provider, rounds: int) -> None:
        self._provider, self._rounds = provider, rounds
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._create))

    async def _create(self, *, extra_body: Any = None, **fields: Any) -> Any:
        body = json.loads(json.dumps({**fields, **(extra_body or {})}))
        body.pop("stream", None), body.pop("stream_options", None)
        exchange = self._provider.begin(Incoming("openai", "/v1/chat/completions", body, "w", body["model"]))
        self._provider.send(exchange)
        usage = exchange.lookup.usage(20)
        told = {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": 20,
            "total_tokens": usage.input_tokens + 20,
            "prompt_tokens_details": {
                "cached_tokens": usage.cache_read_tokens,
                "cache_write_tokens": usage.cache_write_tokens,
            },
        }
        said = sum(message["role"] == "tool" for message in body["messages"])
        call = {"id": f"c{said}", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
        more = {"tool_calls": [call]} if said + 1 < self._rounds else {}
        message = {"role": "assistant", "content": "Well.", **more}
        if fields.get("stream"):
            return _Chunks(self._provider, exchange, usage, message, told)
        await asyncio.sleep(1)
        self._provider.first_token(exchange)
        await asyncio.sleep(2)
        self._provider.end(exchange, Reply("Well."), usage)
        return {"choices": [{"message": message}], "usage": told}


class _Chunks:
    """A streamed reply."""

    def __init__(self, provider: Provider, exchange: Any, usage: Usage, message: Any, told: Any) -> None:
        self._provider, self._exchange, self._usage = provider, exchange, usage
        self._message, self._told = message, told

    async def __aenter__(self) -> Any:
        return self._all()

    async def __aexit__(self, *_: object) -> None:
        return None

    async def _all(self) -> Any:
        await asyncio.sleep(1)
        self._provider.first_token(self._exchange)
        delta = {key: value for key, value in self._message.items() if key != "tool_calls"}
        yield {"choices": [{"index": 0, "delta": delta}]}
        await asyncio.sleep(2)
        self._provider.end(self._exchange, Reply("Well."), self._usage)
        calls = [{"index": 0, **call} for call in self._message.get("tool_calls", ())]
        last = {"tool_calls": calls} if calls else {}
        yield {"choices": [{"index": 0, "delta": last, "finish_reason": "stop"}]}
        yield {"choices": [], "usage": self._told}


class StreamingClient(VirtualClient):
    """Known to stream by the name of its module, as those of the SDKs are."""


StreamingClient.__module__ = "openai"


def keys(rounds: int = 3) -> list[dict[str, Any]]:
    """Policies side by side: four tasks for each place in flight, each of so many requests."""
    rows = []
    for in_flight in IN_FLIGHT:
        for policy in POLICIES:
            usages, opened = _with_keys(policy, in_flight, 4 * in_flight, rounds)
            whole = _sum(usages)
            rows.append(
                {
                    "in_flight": in_flight,
                    "policy": policy,
                    "requests": len(usages),
                    "keys": opened,
                    "cold": sum(usage.cache_read_tokens < 1_000 for usage in usages),
                    "hit_ratio": whole.hit_ratio,
                    "billed": (
                        whole.fresh_tokens + 1.25 * whole.cache_write_tokens + 0.1 * whole.cache_read_tokens
                    ),
                }
            )
    return rows


def _with_keys(policy: Any, in_flight: int, number: int, rounds: int) -> tuple[list[Usage], int]:
    loop = VirtualLoop()

    def clock() -> float:
        return 1_000_000.0 + loop.time()

    provider = Provider(clock=clock, counter=EstimateCounter(), overflow=True)
    session = session_of("openai", clock=clock, routing_key="key")

    async def look_up() -> str:
        return "a depot in Lyon, open until six, with room for forty parcels " * 8

    async def work() -> Any:
        client = StreamingClient(provider, rounds)
        return await afan_out(
            session,
            tasks(number),
            client=client,
            limit=in_flight,
            key_policy=policy,
            tools={"look_up": look_up},
        )

    try:
        results = loop.run_until_complete(work())
    finally:
        loop.close()
    assert results.ok, results.errors[0].error
    usages = [seen.usage for each in results for seen in each.observations if seen.usage is not None]
    return usages, len({each.key for each in results})


# Forks


def forks(number: int = 10_000) -> dict[str, Any]:
    """Forks of a parent with 10,000 messages, each with a task name and nothing said yet; against deep copies of its list."""
    session = Session(StableContext("gpt-5.5", "You are kind."), tokens=EstimateCounter())
    plain: list[dict[str, str]] = []
    for index in range(number):
        message = {
            "role": "user" if index % 2 == 0 else "assistant",
            "content": f"{index}: on its way to the customer",
        }
        session.append(message)
        plain.append(message)
    start = time.perf_counter()
    held = [session.fork(f"worker-{index}") for index in range(number)]
    seconds = time.perf_counter() - start
    del held
    gc.collect()
    tracemalloc.start()
    held = [session.fork(f"worker-{index}") for index in range(number)]
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    start = time.perf_counter()
    copies = [list(plain) for _ in range(100)]
    copied = (time.perf_counter() - start) * number / 100
    return {
        "forks": len(held),
        "messages": number,
        "seconds": seconds,
        "megabytes": size / 1e6,
        "list_copies_seconds": copied,
        "list_copies_megabytes": sys.getsizeof(copies[0]) * number / 1e6,
        "times_faster": copied / seconds,
        "bounds_hold": seconds < 0.5 and size < 20e6,
    }


# Printing


def show(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}")
    columns = list(rows[0])
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for line in [columns, *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


PARTS: dict[str, tuple[str, Callable[[], list[dict[str, Any]]]]] = {
    "dialects": (
        "Coordinator and 3 workers, simulated dialects",
        lambda: [row for name in DIALECTS for row in dialect_arms(name)],
    ),
    "engine": ("The same on a llama.cpp server, measured", engine_arms),
    "hundred": ("100 workers on a cold prefix, simulated", hundred),
    "keys": ("15 requests a minute for each key, simulated time", keys),
    "forks": ("Forks, measured", lambda: [forks()]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default=",".join(PARTS))
    given = parser.parse_args()
    found = {}
    with ExitStack() as stack:
        os.environ.setdefault("NO_PROXY", "127.0.0.1")
        logging.getLogger("uvicorn").addHandler(logging.NullHandler())  # replies that are cut off at the end
        stack.callback(gc.collect)
        for name in given.only.split(","):
            title, part = PARTS[name]
            found[name] = part()
            if not given.json:
                show(title, found[name])
    if given.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
