"""What the tests of fan-outs share: a long session on each dialect, real SDK clients of a simulated provider, processes.

Run as a program it is a process that fans out over a store, and prints how many of its workers led.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio

from llmbuffer import Session, StableContext
from llmbuffer.fanout import Results, afan_out
from llmbuffer.simulate import Asked, ProviderServer
from llmbuffer.tokens import EstimateCounter

POLICY = "Answer kindly, briefly and with a source. " * 700
MODELS = {
    "anthropic": "claude-sonnet-5.5",
    "openai": "gpt-5.6",
    "openai-prefix": "gpt-5.5",
    "openai-responses": "gpt-5.6",
    "gemini": "gemini-2.5-pro",
    "deepseek": "deepseek-v4-pro",
    "vllm": "vllm-model",
    "llamacpp": "llama-model",
}
RULES = {"vllm-*": "vllm", "llama-*": "llamacpp"}


def session_of(dialect: str = "anthropic", *, policy: str = POLICY, **options: Any) -> Session:
    """A coordinator that has said something; nothing of it was sent."""
    name = "openai" if dialect == "openai-prefix" else dialect
    tools = [{"name": "look_up", "parameters": {"type": "object"}}]
    context = StableContext(MODELS[dialect], policy, tools=tools)
    session = Session(context, name, tokens=EstimateCounter(), **options)
    session.append([{"role": "user", "content": "Find the depots."}])
    session.append([{"role": "assistant", "content": "There are nine depots."}])
    return session


@contextmanager
def client_of(dialect: str, server: ProviderServer, **options: Any) -> Iterator[Any]:
    """The synchronous client of the dialect's SDK, closed in the end."""
    client = _made(dialect, server, asynchronous=False, **options)
    try:
        yield client
    finally:
        client.close()


def _made(dialect: str, server: ProviderServer, *, asynchronous: bool, **options: Any) -> Any:
    if dialect == "gemini":
        from google import genai

        return genai.Client(api_key="k", http_options={"base_url": server.gemini_url})
    settings = {"api_key": "k", "max_retries": 0, **options}
    if dialect == "anthropic":
        import anthropic

        kind: Any = anthropic.AsyncAnthropic if asynchronous else anthropic.Anthropic
        return kind(base_url=server.anthropic_url, **settings)
    import openai

    kind = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    return kind(base_url=server.openai_url, **settings)


def run(
    dialect: str, server: ProviderServer, work: Callable[[Any], Awaitable[Any]], *, backend: str = "asyncio"
) -> Any:
    """Run a coroutine function with the asynchronous client of the dialect's SDK."""

    async def with_client() -> Any:
        client = _made(dialect, server, asynchronous=True)
        closing = getattr(client, "aio", client)
        try:
            return await work(closing)
        finally:
            await (closing.aclose() if dialect == "gemini" else closing.close())
            if dialect == "gemini":
                client.close()

    return anyio.run(with_client, backend=backend)


def fanned(
    dialect: str, server: ProviderServer, session: Session, tasks: list[Any], **options: Any
) -> Results:
    """``afan_out`` with the real SDK."""

    async def work(client: Any) -> Results:
        return await afan_out(session, tasks, client=client, **{"limit": len(tasks), **options})

    results: Results = run(dialect, server, work)
    return results


def tasks(number: int) -> list[str]:
    return [f"Check depot {index}." for index in range(number)]


def cold(server: ProviderServer, floor: int = 1_000) -> int:
    """Requests that read less than ``floor`` tokens."""
    return sum(each.usage.cache_read_tokens < floor for each in server.requests if each.status == 200)


def meeting(number: int, first: int = 0) -> Callable[[Asked], Awaitable[str]]:
    """Replies that begin when so many requests are there, so that none reads what another one writes; ``first`` do not wait."""
    all_there = asyncio.Event()
    there = 0

    async def reply(asked: Asked) -> str:
        nonlocal there
        if asked.number < first:
            return "Fine."
        there += 1
        if there == number:
            all_there.set()
        await all_there.wait()
        return "Fine."

    return reply


def fan_out_over(store_url: str, server_url: str, number: int) -> Results:
    """What one of several processes does: all share the store, the routing key and the prefix."""
    import anthropic

    from llmbuffer.store import open_store

    with open_store(store_url) as store:
        session = session_of(store=store, routing_key="shared")

        async def work() -> Results:
            async with anthropic.AsyncAnthropic(base_url=server_url, api_key="k", max_retries=0) as client:
                return await afan_out(session, tasks(number), client=client, limit=number)

        return asyncio.run(work())


if __name__ == "__main__":
    found = fan_out_over(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    assert found.ok, found.errors
    print(sum(each.led for each in found))
