"""`BufferedChatModel` gives an instance of the model's own class, and everything of it goes on working."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator
from typing import Any

import pydantic
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from tests.integrations.langchain.lc_agents import model_at

from llmbuffer import Session, StableContext
from llmbuffer.errors import MessageError
from llmbuffer.reconcile import Policy
from llmbuffer.simulate import Call, ProviderServer, Reply
from llmbuffer.testing import assert_prefix_stable
from llmbuffer_langchain import BufferedChatModel

LONG = "You track parcels, and you name the depot. " * 150
Server = ProviderServer


@pytest.fixture
def server() -> Iterator[Server]:
    with ProviderServer(keep_bodies=True) as server:
        yield server


def chat(server: Server, model: str = "gpt-5.5", wire: str = "openai", **options: Any) -> Any:
    url = server.anthropic_url if wire == "anthropic" else server.openai_url
    return model_at(url, wire, model, **options)


def bodies(server: Server) -> list[Any]:
    return [request.body for request in sorted(server.requests, key=lambda request: request.number)]


def test_it_is_one_of_the_models_own_class(server: Server) -> None:
    plain = chat(server, max_tokens=50)
    buffered = BufferedChatModel(plain)
    assert isinstance(buffered, ChatOpenAI)
    assert type(buffered).__name__ == "BufferedChatOpenAI"
    assert type(plain) is ChatOpenAI, "the model that was given is left alone"
    assert (buffered.max_tokens, buffered.profile, buffered.lc_id()) == (50, plain.profile, plain.lc_id())
    assert buffered._get_llm_string() == plain._get_llm_string(), (
        "a cache of replies knows both by the same name"
    )
    assert buffered._get_ls_params() == plain._get_ls_params()


def test_copies_go_on_in_the_same_conversations(server: Server) -> None:
    buffered: Any = BufferedChatModel(chat(server))
    for other in (buffered.model_copy(update={"temperature": 0.1}), copy.copy(buffered)):
        other.invoke("Hello")
        assert other.seam is buffered.seam
    assert buffered.seam.account().requests == 2


def test_what_is_no_model_is_refused(server: Server) -> None:
    plain = chat(server)
    with pytest.raises(TypeError, match="takes a chat model, and this is a"):
        BufferedChatModel(plain.bind(stop=["x"]))
    with pytest.raises(MessageError, match="is buffered already"):
        BufferedChatModel(BufferedChatModel(plain))
    with pytest.raises(MessageError, match="mode is 'fast'"):
        BufferedChatModel(plain, mode="fast")  # type: ignore[arg-type]  # what users may write


class City(pydantic.BaseModel):
    """Where a parcel is."""

    city: str


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output_is_asked_for_alike(method: str) -> None:
    found = []
    reply = (
        Reply(calls=(Call("City", '{"city": "Lyon"}', "call_1"),))
        if method == "function_calling"
        else '{"city": "Lyon"}'
    )
    for wrap in (False, True):
        with ProviderServer(replies=[reply], keep_bodies=True) as server:
            model = BufferedChatModel(chat(server)) if wrap else chat(server)
            said = model.with_structured_output(City, method=method).invoke("Where? Answer in JSON.")
            body = {key: value for key, value in bodies(server)[0].items() if key != "prompt_cache_key"}
            found.append((said, body))
    assert found[0] == found[1]
    assert found[1][0] == City(city="Lyon")


@pytest.mark.parametrize("options", [{"streaming": True}, {"disable_streaming": True}, {}])
def test_streaming_flags_are_heeded(options: dict[str, Any]) -> None:
    ways = []
    for wrap in (False, True):
        with ProviderServer(replies=["One two.", "Three."]) as server:
            model = BufferedChatModel(chat(server, **options)) if wrap else chat(server, **options)
            texts = [model.invoke("Hello").text, "".join(chunk.text for chunk in model.stream("Hello"))]
            ways.append((texts, [request.stream for request in server.requests]))
    assert ways[0] == ways[1]


def test_every_way_of_calling_is_one_request(server: Server) -> None:
    buffered: Any = BufferedChatModel(chat(server))

    async def both() -> None:
        await buffered.ainvoke("One")
        async for _ in buffered.astream("Two"):
            pass
        await buffered.abatch(["Three", "Four"])
        async for _ in buffered.astream_events("Five", version="v2"):
            pass

    asyncio.run(both())
    list(buffered.stream("Six"))
    buffered.batch(["Seven", "Eight"])
    for _ in buffered.stream_events("Nine", version="v3"):
        pass
    assert len(server.requests) == buffered.seam.account().requests == 9
    assert buffered.seam.usage == server.usage(), "usage of streams is asked for"


def test_a_stream_that_nobody_reads_to_its_end_enters_nothing(server: Server) -> None:
    buffered: Any = BufferedChatModel(chat(server))
    stream = buffered.stream("Hello")
    next(stream)
    stream.close()
    assert buffered.seam.account().requests == 0
    buffered.invoke("Hello")
    assert buffered.seam.account().requests == 1


def test_the_wish_for_usage_is_the_users(server: Server) -> None:
    list(BufferedChatModel(chat(server, stream_usage=False)).stream("Hello"))
    list(BufferedChatModel(chat(server)).stream("Hello"))
    assert ["stream_options" in body for body in bodies(server)] == [False, True]


def test_a_cached_reply_is_no_call(server: Server) -> None:
    buffered: Any = BufferedChatModel(chat(server, cache=InMemoryCache()))
    assert buffered.invoke("Hello").text == buffered.invoke("Hello").text
    assert len(server.requests) == buffered.seam.account().requests == 1


def test_the_model_of_a_class_that_is_not_known_gets_nothing_added() -> None:
    seen: list[Any] = []

    class Watched(GenericFakeChatModel):
        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            seen.append(([(type(each), each.content) for each in messages], kwargs))
            return super()._generate(messages, stop=stop, run_manager=run_manager, **kwargs)

    buffered = BufferedChatModel(Watched(messages=iter([AIMessage("Hi"), AIMessage("Ho")])))
    history = [SystemMessage("Be kind."), HumanMessage("Hello")]
    assert buffered.invoke(history).text == "Hi"
    assert seen == [([(SystemMessage, "Be kind."), (HumanMessage, "Hello")], {})]
    assert "".join(chunk.text for chunk in buffered.stream(history)) == "Ho"


def test_a_model_that_streams_by_itself_is_planned_for_once(server: Server) -> None:
    class Streams(ChatOpenAI):
        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            from langchain_core.language_models.chat_models import generate_from_stream

            return generate_from_stream(self._stream(messages, stop=stop, run_manager=run_manager, **kwargs))

    plain = Streams(model="gpt-5.5", base_url=server.openai_url, api_key="any", max_retries=0)
    buffered: Any = BufferedChatModel(plain)
    buffered.invoke("Hello")
    assert buffered.seam.account().requests == len(server.requests) == 1


def test_two_sessions_of_one_chain_never_meet(server: Server) -> None:
    prompt = ChatPromptTemplate.from_messages([("system", LONG), ("human", "{text}")])
    buffered: Any = BufferedChatModel(chat(server))
    chain = prompt | buffered
    for turn in range(2):
        for name in ("amber", "birch"):
            chain.invoke({"text": f"{turn} {name}"}, {"configurable": {"session_id": name}})
    assert sorted({where for where, _ in buffered.seam.accounts}) == ["amber", "birch"]
    for body in bodies(server):
        told = str(body["messages"])
        assert ("amber" in told) != ("birch" in told)


def test_names_may_be_given(server: Server) -> None:
    buffered: Any = BufferedChatModel(
        chat(server),
        conversation=lambda told: told.get("customer"),
        member="clerk",
        on_observe=lambda seen: None,
    )
    buffered.invoke("Hello", {"configurable": {"customer": "c-7"}})
    assert list(buffered.seam.accounts) == [("c-7", "clerk")]


def test_ours_needs_a_name_for_the_conversation(server: Server) -> None:
    buffered = BufferedChatModel(chat(server), policy=Policy(history="ours"))
    with pytest.raises(MessageError, match="needs a key"):
        buffered.invoke("Hello")
    assert not server.requests
    assert buffered.invoke("Hello", {"configurable": {"thread_id": "t"}}).text


@pytest.mark.moves_prefix(reason="a user takes text out of the history")
def test_what_the_host_redacts_in_place_never_goes_out_again(server: Server) -> None:
    buffered: Any = BufferedChatModel(chat(server), conversation="one")
    history: list[Any] = [SystemMessage(LONG), HumanMessage("My number is 555-0199.")]
    history.append(buffered.invoke(history))
    history.append(HumanMessage("And now?"))
    history.append(buffered.invoke(history))
    history[1].content = "(redacted)"
    history.append(HumanMessage("And then?"))
    buffered.invoke(history)
    assert ["555-0199" in str(body) for body in bodies(server)] == [True, True, False]
    assert [each.cause for each in buffered.seam.breaks] == ["history-edited"]


@pytest.mark.parametrize(("wire", "model"), [("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5")])
def test_breakpoints_are_four_at_most_and_read(server: Server, wire: str, model: str) -> None:
    buffered: Any = BufferedChatModel(chat(server, model, wire))
    block = {"type": "text", "text": LONG}
    field = "cache_control" if wire == "anthropic" else "prompt_cache_breakpoint"
    mark = {"type": "ephemeral"} if wire == "anthropic" else {"mode": "explicit"}
    history: list[Any] = [SystemMessage([{**block, field: mark}])]
    for turn in range(6):
        history.append(
            HumanMessage(
                [{"type": "text", "text": f"Question {turn}.", field: mark}] if turn < 2 else f"{turn}?"
            )
        )
        history.append(buffered.invoke(history))
    assert all(2 <= str(body).count(field) <= 4 for body in bodies(server))
    assert all(request.usage.hit_ratio > 0.9 for request in server.requests[1:])
    assert buffered.seam.breaks == ()


def test_routing_fields_of_the_user_stay(server: Server) -> None:
    buffered = BufferedChatModel(chat(server))
    buffered.invoke("Hello", prompt_cache_key="mine")
    buffered.invoke("Hello")
    keys = [body["prompt_cache_key"] for body in bodies(server)]
    assert keys[0] == "mine"
    assert keys[1] != "mine"


def test_a_session_of_the_users_own_is_what_conversations_fork_from(server: Server) -> None:
    session = Session(StableContext("gpt-5.5"), "openai")
    buffered: Any = BufferedChatModel(chat(server), session=session)
    buffered.invoke("Hello", {"configurable": {"thread_id": "t"}})
    assert buffered.seam.session is session
    assert buffered.seam.session_of("t").context.model == "gpt-5.5"


def test_messages_of_all_kinds_stay_append_only(server: Server) -> None:
    buffered: Any = BufferedChatModel(chat(server))
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    history: list[Any] = [SystemMessage(LONG)]
    for said in ("Hello", [{"type": "text", "text": "What is this?"}, image], "And now?"):
        history.append(HumanMessage(said))
        history.append(buffered.invoke(history))
    assert_prefix_stable(bodies(server))
    assert bodies(server)[-1]["messages"][3]["content"][1] == image


def test_a_call_for_an_object_has_nothing_of_the_conversations_tools() -> None:
    def look_up(number: str) -> str:
        """Look up where a parcel is."""
        return number

    replies: list[Reply | str] = [
        "In Lyon.",
        Reply(calls=(Call("City", '{"city": "Lyon"}', "call_1"),)),
        '{"city": "Lyon"}',
        "In Lyon.",
    ]
    with ProviderServer(replies=replies, keep_bodies=True) as server:
        buffered: Any = BufferedChatModel(chat(server))
        config: Any = {"configurable": {"thread_id": "t"}}
        history: list[Any] = [SystemMessage(LONG), HumanMessage("Where is it?")]
        buffered.bind_tools([look_up]).invoke(history, config)
        for method in ("function_calling", "json_schema"):
            buffered.with_structured_output(City, method=method, include_raw=True).invoke(history, config)
        buffered.bind_tools([look_up]).invoke(history, config)
        names = [[tool["function"]["name"] for tool in body.get("tools", ())] for body in bodies(server)]
        assert names == [["look_up"], ["City"], [], ["look_up"]]
        assert [member for _, member in buffered.seam.accounts] == ["call:City", "form:City", None]
        assert buffered.seam.breaks == ()
