"""Agents of classic AutoGen in front of a simulated provider, plain and buffered, for all tests of the folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import pytest
from autogen import ConversableAgent, GroupChat, GroupChatManager

from llmbuffer.simulate import ProviderServer
from llmbuffer.testing.scripts import handbook, personas
from llmbuffer_autogen.classic import BufferedConversableAgent, BufferedGroupChat

KEY = "sk-" + "0" * 48
LONG = handbook(42)


def config(url: str, model: str = "gpt-5.5", **fields: Any) -> dict[str, Any]:
    """A configuration of AutoGen's for one model at a URL, without its response cache."""
    entry = {"model": model, "api_key": KEY, "base_url": url, "price": [0, 0], **fields}
    return {"config_list": [entry], "cache_seed": None}


def no_calls(message: Mapping[str, Any]) -> bool:
    """Whether a message ends a chat: it calls nothing."""
    return not message.get("tool_calls") and not message.get("function_call")


def person(name: str = "user", **given: Any) -> ConversableAgent:
    """Somebody without a model, who stops at the first reply that calls nothing."""
    return ConversableAgent(
        name, llm_config=False, human_input_mode="NEVER", **{"is_termination_msg": no_calls, **given}
    )


def assistant(
    server: ProviderServer, mode: Any, name: str = "helper", system: str = LONG, **given: Any
) -> Any:
    """An agent with a model: buffered, or a plain one with mode ``None``."""
    told = {"llm_config": config(server.openai_url), "human_input_mode": "NEVER", **given}
    if mode is None:
        return once(ConversableAgent(name, system, **told))
    return once(BufferedConversableAgent(name, system, mode=mode, **told))


@contextmanager
def older_anthropic() -> Iterator[None]:
    """AutoGen's client for Anthropic was made for SDKs before 1, whose ``create`` took sampling fields by name."""
    pytest.importorskip("anthropic", reason="AutoGen's client for Anthropic needs its SDK")
    from anthropic.resources.messages import Messages

    held: Any = Messages
    create = held.create

    def tolerant(self: Any, *, temperature: Any = None, **given: Any) -> Any:
        return create(self, **given)

    if "temperature" in signature(create).parameters:
        yield
        return
    held.create = tolerant
    try:
        yield
    finally:
        held.create = create


def streaming(agent: Any) -> Any:
    """The agent, whose model is asked for streams: not all versions take that from the configuration."""
    for entry in agent.client._config_list:
        entry["stream"] = True
    return agent


def once(agent: Any) -> Any:
    """The agent, whose SDK does not retry: not all versions take that from the configuration."""
    for client in agent.client._clients:
        sdk = getattr(client, "_oai_client", None) or client._client
        sdk.max_retries = 0
    return agent


def equip(agent: Any, executor: Any, tools: Mapping[str, Callable[..., str]]) -> None:
    """Have the model of ``agent`` know tools, and ``executor`` run them."""
    from llmbuffer.testing.scripts import schema_of

    for name, function in tools.items():
        schema = schema_of(function)
        schema["function"]["name"] = name
        agent.update_tool_signature(schema, is_remove=False)
        executor.register_function({name: function})


def members(server: ProviderServer, system: str = LONG, **given: Any) -> list[ConversableAgent]:
    """Three plain agents that share a system text, each with a persona in front of it."""
    llm = given.pop("llm_config", config(server.openai_url))
    return [
        ConversableAgent(
            name, f"{told}\n\n{system}", llm_config=llm, human_input_mode="NEVER", description=told, **given
        )
        for name, told in personas().items()
    ]


def group(
    server: ProviderServer,
    mode: str | None,
    agents: Sequence[ConversableAgent] | None = None,
    *,
    rounds: int = 7,
    method: str = "round_robin",
    manager: Mapping[str, Any] | None = None,
    **given: Any,
) -> tuple[Any, GroupChatManager]:
    """A group chat of three, and its manager; a plain one with mode ``None``."""
    kind: Any = GroupChat if mode is None else BufferedGroupChat
    fields = {**given} if mode is None else {"mode": mode, **given}
    made = kind(
        agents=list(agents or members(server)),
        messages=[],
        max_round=rounds,
        speaker_selection_method=method,
        **fields,
    )
    told = {"llm_config": config(server.openai_url), **(manager or {})}
    return made, GroupChatManager(groupchat=made, **told)


def bodies(server: ProviderServer) -> list[Any]:
    """The bodies of all requests that were answered, in the order in which they came."""
    found = sorted(server.requests, key=lambda request: request.number)
    return [request.body for request in found if request.status == 200]


def transcript(chat: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Who said what in a chat, calls and results included."""
    return [
        (each.get("role"), each.get("name"), each.get("content"), str(each.get("tool_calls")))
        for each in chat
    ]
