"""A 30-turn session through a real SDK to a loopback server: tools, two calls at once, dynamic text that always changes.

Run as a program it prints a digest of every byte that was sent, for tests that compare hash seeds.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.loopback import Loopback, Said, loopback

from llmbuffer import Segment, Session, StableContext
from llmbuffer.tokens import EstimateCounter

TURNS = 30
MODELS = {"gpt-5.5": "openai", "gpt-5.6": "openai", "claude-sonnet-5.5": "anthropic"}
TOOLS = [
    {
        "name": name,
        "description": f"To {name}.",
        "parameters": {
            "type": "object",
            "required": ["query"],
            "properties": {"query": {"type": "string"}, "depth": {"minimum": 1e2, "type": "number"}},
        },
    }
    for name in ("search", "read_file", "zip_up", "ask")
]


def context(model: str) -> StableContext:
    policy = "Answer kindly, briefly and with a source. " * 160
    system = [
        Segment("persona", "You help Ann, who likes tea. " * 20, level="user"),
        Segment("policy", policy, level="global"),
        Segment("tenant", "The shop sells teapots. " * 20, level="tenant"),
    ]
    return StableContext(model, system, tools=TOOLS, params={"temperature": 0})


def replies() -> Iterator[Said]:
    for turn in range(TURNS):
        one = (f"call_{turn}_a", "search", '{"query": "teapots é", "depth": 1.5}')
        two = (f"call_{turn}_b", "read_file", '{"query": "b", "a": 1}')
        if turn % 10 == 0:
            yield Said(calls=(one, two))
        elif turn % 10 == 1:
            yield Said("Let me look.", calls=(one,))
            yield Said(calls=(two,))
        yield Said(f"Answer {turn}, with a teapot.")


def dynamic(turn: int) -> dict[str, str]:
    """Every text holds a mark that stands nowhere else."""
    return {"clock": f"«tick {turn}»", "retrieved": f"«passage {turn}» " + "on teapots, " * (turn % 7)}


def tools() -> dict[str, Callable[..., Any]]:
    return {
        "search": lambda query, depth: {"hits": [query, depth], "fresh": {"b": 1, "a": 2}},
        "read_file": lambda **arguments: "\n".join(f"{key} is {value}" for key, value in arguments.items()),
    }


@contextmanager
def client_of(model: str, server: Loopback, *, asynchronous: bool = False) -> Iterator[Any]:
    """The real SDK's client; asynchronous ones are for the caller to close."""
    os.environ.setdefault("NO_PROXY", "127.0.0.1")
    if MODELS[model] == "openai":
        import openai

        kinds: tuple[Any, Any] = (openai.OpenAI, openai.AsyncOpenAI)
        url = f"{server.url}/v1"
    else:
        import anthropic

        kinds, url = (anthropic.Anthropic, anthropic.AsyncAnthropic), server.url
    client = kinds[asynchronous](base_url=url, api_key="none", max_retries=0)
    yield client
    if not asynchronous:
        client.close()


def session_of(model: str, client: Any = None) -> Session:
    return Session(
        context(model),
        MODELS[model],
        client=client,
        tokens=EstimateCounter(),
        clock=lambda: 0.0,
        routing_key="key",
        session_id="session",
    )


def converse(model: str) -> list[bytes]:
    """All turns with the synchronous SDK; returns the raw bodies."""
    with loopback(replies()) as server, client_of(model, server) as client:
        session = session_of(model, client)
        for turn in range(TURNS):
            session.respond(f"Question {turn}?", dynamic=dynamic(turn), tools=tools())
        return server.bodies


async def aconverse(model: str) -> list[bytes]:
    """The same with the asynchronous SDK."""
    with loopback(replies()) as server, client_of(model, server, asynchronous=True) as client:
        async with client:
            session = session_of(model, client)
            for turn in range(TURNS):
                await session.arespond(f"Question {turn}?", dynamic=dynamic(turn), tools=tools())
        return server.bodies


def converse_streaming(model: str) -> list[bytes]:
    """The same with streamed replies."""
    with loopback(replies()) as server, client_of(model, server) as client:
        session = session_of(model, client)
        for turn in range(TURNS):
            for _ in session.stream(f"Question {turn}?", dynamic=dynamic(turn), tools=tools()):
                pass
        return server.bodies


def digest(bodies: list[bytes]) -> str:
    return hashlib.sha256(b"\0".join(bodies)).hexdigest()


if __name__ == "__main__":
    print(*(digest(converse(model)) for model in sys.argv[1:] or MODELS))
