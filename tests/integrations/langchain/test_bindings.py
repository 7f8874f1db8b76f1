"""`BufferedMiddleware` finds the chat model in what LangChain makes of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.runnables import ConfigurableField
from langgraph.checkpoint.memory import InMemorySaver
from tests.integrations.langchain.lc_agents import KEY, model_at

from llmbuffer.simulate import ProviderServer
from llmbuffer.testing.scripts import handbook
from llmbuffer_langchain import BufferedChatModel, BufferedMiddleware


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer(keep_bodies=True) as server:
        yield server


def chat(server: ProviderServer, name: str = "gpt-5.5") -> Any:
    return model_at(server.openai_url, "openai", name)


def chosen(server: ProviderServer) -> Any:
    return init_chat_model(
        "gpt-5.5",
        model_provider="openai",
        configurable_fields=("model",),
        base_url=server.openai_url,
        api_key=KEY,
        max_retries=0,
    )


def talk(
    server: ProviderServer, model: Any, *configs: dict[str, Any]
) -> tuple[BufferedMiddleware, list[Any]]:
    ours = BufferedMiddleware()
    agent = create_agent(
        model, [], system_prompt=handbook(16), middleware=[ours], checkpointer=InMemorySaver()
    )
    for number, config in enumerate(configs):
        agent.invoke(
            {"messages": [("user", f"Question {number}?")]}, {"configurable": {"thread_id": "t", **config}}
        )
    return ours, [request.body for request in sorted(server.requests, key=lambda each: each.number)]


def test_bound_arguments_are_kept(server: ProviderServer) -> None:
    bound = chat(server).bind(seed=5).with_config(tags=["mine"])
    ours, sent = talk(server, bound, {}, {})
    assert [body["seed"] for body in sent] == [5, 5]
    assert ours.account(conversation="t").requests == 2
    assert len({body["prompt_cache_key"] for body in sent}) == len(ours.seam.sessions) == 1


def test_a_model_that_a_config_chooses(server: ProviderServer) -> None:
    ours, sent = talk(server, chosen(server), {}, {}, {"model": "gpt-5.6"})
    assert [body["model"] for body in sent] == ["gpt-5.5", "gpt-5.5", "gpt-5.6"]
    assert ["prompt_cache_breakpoint" in str(body) for body in sent] == [False, False, True]
    assert [seam.session.context.model for seam in ours.seams] == ["gpt-5.5", "gpt-5.6"]
    assert [seam.account(conversation="t").requests for seam in ours.seams] == [2, 1]
    assert len(ours.seams[0].sessions) == 1
    assert ours.seam is ours.seams[1]


def test_a_model_whose_fields_a_config_sets(server: ProviderServer) -> None:
    model = chat(server).configurable_fields(seed=ConfigurableField(id="s"))
    ours, sent = talk(server, model, {}, {"s": 7}, {"s": 8})
    assert [body.get("seed") for body in sent] == [None, 7, 8]
    assert ours.account(conversation="t").requests == 3
    assert len(ours.seam.sessions) == 1


def test_one_that_is_buffered_already_is_left_alone_there_too(server: ProviderServer) -> None:
    buffered: Any = BufferedChatModel(chat(server))
    ours, _ = talk(server, buffered.bind(seed=5), {})
    assert (buffered.seam.account().requests, ours.account().requests) == (1, 0)


def test_where_no_model_is_found_it_is_said_once(
    server: ProviderServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "llmbuffer_langchain"):
        ours, sent = talk(server, chat(server).with_fallbacks([chat(server, "gpt-5.4")]), {}, {})
    assert (len(sent), ours.account().requests) == (2, 0)
    assert [record.getMessage() for record in caplog.records] == [
        (
            "no chat model is found in a RunnableWithFallbacks, so its calls go out as they are, and nothing is counted: "
            "give the models in it to BufferedChatModel"
        )
    ]
