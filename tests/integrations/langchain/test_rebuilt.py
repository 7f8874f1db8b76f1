"""What LangChain and Python make of a buffered model again: from its class, from its fields, from its bytes."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.load import dumpd
from langchain_core.messages import SystemMessage
from langchain_core.runnables import ConfigurableField
from tests.integrations.langchain.lc_agents import KEY, model_at

from llmbuffer import Message, Session, StableContext
from llmbuffer.errors import MessageError
from llmbuffer.simulate import ProviderServer
from llmbuffer_langchain import BufferedChatModel

LONG = "You track parcels, and you name the depot. " * 150


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer(keep_bodies=True) as server:
        yield server


def chat(server: ProviderServer, wire: str = "openai", model: str = "gpt-5.5") -> Any:
    return model_at(server.anthropic_url if wire == "anthropic" else server.openai_url, wire, model)


def bodies(server: ProviderServer) -> list[Any]:
    return [request.body for request in sorted(server.requests, key=lambda request: request.number)]


def configured(**fields: Any) -> Any:
    return {"configurable": {"thread_id": "t", **fields}}


@pytest.mark.parametrize(
    ("wire", "model", "field"),
    [("openai", "gpt-5.5", "seed"), ("anthropic", "claude-sonnet-4-5", "max_tokens")],
)
def test_fields_of_a_config_leave_it_in_its_conversations(
    server: ProviderServer, wire: str, model: str, field: str
) -> None:
    buffered: Any = BufferedChatModel(chat(server, wire, model))
    spec: Any = ConfigurableField(id="f")
    chosen = buffered.configurable_fields(**{field: spec})
    said = [SystemMessage(LONG)]
    chosen.invoke([*said, ("user", "One")], configured())
    chosen.invoke([*said, ("user", "One"), ("assistant", "ok"), ("user", "Two")], configured(f=1))
    asyncio.run(chosen.with_config(configurable={"f": 2}).ainvoke([*said, ("user", "Three")], configured()))
    assert [body.get(field) for body in bodies(server)][1:] == [1, 2]
    assert buffered.seam.account(conversation="t").requests == chosen.seam.account().requests == 3
    assert len(buffered.seam.sessions) == 1


def test_fields_are_checked_and_stored_as_langchains_own(server: ProviderServer) -> None:
    plain, buffered = chat(server), BufferedChatModel(chat(server))
    spec = ConfigurableField(id="t")
    with pytest.raises(ValueError, match="no_such_field"):
        buffered.configurable_fields(no_such_field=spec)
    names = [dumpd(each.configurable_fields(temperature=spec))["id"] for each in (plain, buffered)]
    assert names[0] == names[1]


def test_fields_and_alternatives_go_together(server: ProviderServer) -> None:
    buffered: Any = BufferedChatModel(chat(server))
    other: Any = BufferedChatModel(chat(server, "anthropic", "claude-sonnet-4-5"))
    chosen = buffered.configurable_fields(seed=ConfigurableField(id="t")).configurable_alternatives(
        ConfigurableField(id="llm"), default_key="mine", other=other
    )
    chosen.invoke("Hello", {"configurable": {"t": 5}})
    chosen.invoke("Hello", {"configurable": {"llm": "other"}})
    assert [each.seam.account().requests for each in (buffered, other)] == [1, 1]
    assert bodies(server)[0]["seed"] == 5


def test_another_model_by_a_config_has_rules_and_conversations_of_its_own(server: ProviderServer) -> None:
    session = Session(StableContext("gpt-5.5", "You work for Acme."), "openai")
    session.append([Message("user", "We open at 9."), Message("assistant", "Noted.")])
    buffered: Any = BufferedChatModel(chat(server), session=session)
    chosen = buffered.configurable_fields(model_name=ConfigurableField(id="m"))
    for name in ("gpt-5.5", "gpt-5.6", "gpt-5.6"):
        chosen.invoke([SystemMessage(LONG), ("user", "Hello")], configured(m=name))
    assert ["prompt_cache_breakpoint" in str(body) for body in bodies(server)] == [False, True, True]
    assert [seam.session.context.model for seam in buffered.seams] == ["gpt-5.5", "gpt-5.6"]
    assert [seam.account().requests for seam in buffered.seams] == [1, 2]
    assert all("You work for Acme." in str(body) and "We open at 9." in str(body) for body in bodies(server))


def test_one_that_is_made_from_its_class_goes_out_as_it_is(server: ProviderServer) -> None:
    kind: Any = type(BufferedChatModel(chat(server)))
    made = kind(model="gpt-5.5", api_key=KEY, base_url=server.openai_url, max_retries=0)

    async def others() -> None:
        await made.ainvoke("Hello")
        assert [chunk async for chunk in made.astream("Hello")]

    made.invoke("Hello")
    assert list(made.stream("Hello"))
    asyncio.run(others())
    assert all(body["messages"] == [{"role": "user", "content": "Hello"}] for body in bodies(server))
    assert not any("prompt_cache_key" in body for body in bodies(server))
    with pytest.raises(MessageError, match="made from its class, so it goes out as it is"):
        _ = made.seam


def test_one_that_was_pickled_begins_anew(server: ProviderServer) -> None:
    buffered: Any = BufferedChatModel(
        chat(server, "anthropic", "claude-sonnet-4-5"), mode="observe", member="clerk"
    )
    again = pickle.loads(pickle.dumps(buffered))
    buffered.invoke("Hello")
    again.invoke("Hello")
    assert type(again) is type(buffered)
    assert isinstance(again, ChatAnthropic)
    assert again.max_tokens == buffered.max_tokens
    assert (again.seam.mode, list(again.seam.accounts)) == ("observe", [(None, "clerk")])
    assert [each.seam.account().requests for each in (buffered, again)] == [1, 1]


def test_one_with_a_session_is_not_pickled(server: ProviderServer) -> None:
    session = Session(StableContext("claude-sonnet-4-5"), "anthropic")
    buffered: Any = BufferedChatModel(chat(server, "anthropic", "claude-sonnet-4-5"), session=session)
    with pytest.raises(TypeError, match="with session= cannot be pickled"):
        pickle.dumps(buffered)
