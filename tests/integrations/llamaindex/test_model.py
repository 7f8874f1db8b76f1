"""`BufferedLLM` at the wire: what goes out, what comes back, and what it is."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import CacheControl, CachePoint
from llama_index.core.chat_engine import ContextChatEngine, SimpleChatEngine
from llama_index.core.llms import ChatMessage, MockLLM, TextBlock
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.anthropic import Anthropic
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel
from tests.benchmarks.adapters.llamaindex import WANTED, run, unchanged
from tests.benchmarks.adapters.llamaindex_scenarios import (
    RECORDED,
    SCENARIOS,
    STANDARD,
    Answers,
    Retriever,
    Scenario,
    condense_plus_context,
)

from llmbuffer import Session, StableContext
from llmbuffer.errors import MessageError
from llmbuffer.reconcile import Policy
from llmbuffer.simulate import Asked, Call, ProviderServer, Reply
from llmbuffer.testing.oracle import measured
from llmbuffer.testing.scripts import handbook
from llmbuffer.usage import Usage
from llmbuffer_llamaindex import BufferedLLM, dynamic_text

Body = dict[str, Any]


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer(keep_bodies=True) as running:
        yield running


def openai_of(server: ProviderServer, model: str = "gpt-5.5", **fields: Any) -> Any:
    return OpenAI(model, api_base=server.openai_url, api_key="k", max_retries=0, **fields)


def anthropic_of(server: ProviderServer, **fields: Any) -> Any:
    return Anthropic("claude-sonnet-5-5", base_url=server.anthropic_url, api_key="k", max_retries=0, **fields)


def bodies_of(server: ProviderServer) -> list[Body]:
    found = sorted(server.requests, key=lambda request: request.number)
    return [dict(request.body) for request in found if request.body is not None]


def look(q: str) -> str:
    """Look something up."""
    return f"found {q}"


LOOK = FunctionTool.from_defaults(look)

# --- the figures on recorded scripts


MOVING = ("Context", "over its limit", "memory block")
MOVES = pytest.mark.moves_prefix(reason="in observe mode the framework's prompts stay as they are")


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(each, id=each.name, marks=[MOVES] if any(name in each.name for name in MOVING) else [])
        for each in SCENARIOS
    ],
)
def test_on_a_recorded_script(scenario: Scenario) -> None:
    """Observe mode changes no byte, the answers are the same, and at least as much can be read as was promised."""
    default, said, _ = run(scenario, RECORDED, "default", "gpt-4o")
    observed, also, _ = run(scenario, RECORDED, "observe", "gpt-4o")
    through, answers, seam = run(scenario, RECORDED, "buffered", "gpt-4o")
    assert unchanged(default, observed)
    assert said == also == answers
    before, after = measured(default, unit="characters"), measured(through, unit="characters")
    assert after.uncached <= before.uncached, "never lower than by default"
    assert after.hit_ratio >= WANTED.get(scenario.name, 0.0)
    assert seam.breaks == ()
    assert seam.account().requests == len(through)


# --- what it is


def test_it_is_an_object_of_the_llms_own_class() -> None:
    llm = OpenAI("gpt-5.5", api_key="k", temperature=0.3)
    wrapped = BufferedLLM(llm)
    assert isinstance(wrapped, OpenAI)
    assert isinstance(wrapped, BufferedLLM)
    assert type(wrapped).__name__ == "BufferedOpenAI"
    assert type(wrapped) is type(BufferedLLM(llm)), "one class for each class"
    assert wrapped.class_name() == llm.class_name()
    assert wrapped.metadata == llm.metadata
    assert wrapped.model_dump() == llm.model_dump()
    assert wrapped._get_client() is not None
    assert type(llm) is OpenAI, "the LLM itself stays as it is"


def test_copies_share_the_seam() -> None:
    wrapped = BufferedLLM(MockLLM())
    assert wrapped.model_copy().seam is wrapped.seam
    assert copy.deepcopy(wrapped).seam is wrapped.seam
    assert wrapped.bound(conversation="a", member="b").seam is wrapped.seam
    assert wrapped.forked().seam is not wrapped.seam


def test_a_pickled_one_is_made_anew(server: ProviderServer) -> None:
    policy = Policy(history="ours", trims=True)
    llm = BufferedLLM(openai_of(server, temperature=0.3), policy=policy, stream_usage=False, retell=False)
    llm = llm.bound(conversation="one", member="writer")
    llm.complete("hi")
    again = pickle.loads(pickle.dumps(llm))
    assert type(again) is type(llm)
    assert again.model_dump() == llm.model_dump()
    assert again.seam.policy == llm.seam.policy
    assert again.seam.account().requests == 0
    again.complete("hi")
    list(again.stream_complete("hi"))
    assert list(again.seam.accounts) == [("one", "writer")]
    assert "stream_options" not in bodies_of(server)[-1]
    assert llm.seam.account().requests == 1
    plain = pickle.loads(pickle.dumps(type(llm)(model="gpt-5.5", api_key="k")))
    assert type(plain) is type(llm)


def test_one_with_a_session_is_not_pickled() -> None:
    llm = BufferedLLM(MockLLM())
    session = Session(StableContext("gpt-5.5", "Be kind."))
    for each in (BufferedLLM(MockLLM(), session=session), llm.forked(session), llm.forked(session).forked()):
        with pytest.raises(TypeError, match="cannot be pickled, since its session cannot"):
            pickle.dumps(each)
    assert pickle.loads(pickle.dumps(llm.forked())).seam.mode == "buffer"


def test_what_is_no_llm_is_refused() -> None:
    with pytest.raises(MessageError, match="a str is no LLM of llama_index"):
        BufferedLLM("gpt-5.5")
    with pytest.raises(MessageError, match="buffered already"):
        BufferedLLM(BufferedLLM(MockLLM()))
    with pytest.raises(MessageError, match=r"unknown arguments \['temperature'\]"):
        BufferedLLM(MockLLM(), temperature=0)
    with pytest.raises(MessageError, match="mode is 'fast'"):
        BufferedLLM(MockLLM(), mode="fast")


def test_made_from_fields_alone_it_is_the_llm(server: ProviderServer) -> None:
    """As loaders and copies of the framework do; it says so when it is asked for its seam."""
    kind = type(BufferedLLM(openai_of(server)))
    plain = kind(model="gpt-5.5", api_base=server.openai_url, api_key="k")
    assert plain.complete("hi").text.startswith("This is a simulated reply")
    with pytest.raises(MessageError, match="made from its fields alone"):
        _ = plain.seam


def test_an_error_of_the_provider_comes_through() -> None:
    import openai

    with ProviderServer(replies=[Reply(status=400, message="no such thing")]) as server:
        llm = BufferedLLM(openai_of(server))
        with pytest.raises(openai.BadRequestError, match="no such thing"):
            llm.complete("hi")
        assert llm.seam.account().requests == 0


# --- OpenAI


def test_every_way_of_asking_is_seen(server: ProviderServer) -> None:
    """chat, complete, their streams and their asynchronous twins: usage of each is what the provider says."""
    llm = BufferedLLM(openai_of(server))
    hello = [ChatMessage("hi")]

    async def run_all() -> None:
        await llm.achat(hello)
        await llm.acomplete("hi")
        async for _ in await llm.astream_chat(hello):
            pass
        async for _ in await llm.astream_complete("hi"):
            pass
        await llm._aclient.close()

    llm.chat(hello)
    llm.complete("hi")
    list(llm.stream_chat(hello))
    last = list(llm.stream_complete("hi"))[-1]
    asyncio.run(run_all())
    assert llm.seam.account().requests == 8
    assert llm.seam.usage == server.usage()
    assert last.raw.usage.prompt_tokens == server.requests[0].usage.input_tokens


def test_usage_of_streams_is_asked_for_unless_it_is_turned_off(server: ProviderServer) -> None:
    list(BufferedLLM(openai_of(server)).stream_complete("hi"))
    list(BufferedLLM(openai_of(server), stream_usage=False).stream_complete("hi"))
    own = openai_of(server, additional_kwargs={"stream_options": {"include_usage": False}})
    list(BufferedLLM(own).stream_complete("hi"))
    asked = [body.get("stream_options") for body in bodies_of(server)]
    assert asked == [{"include_usage": True}, None, {"include_usage": False}]


def test_a_routing_key_goes_out_where_it_is_known(server: ProviderServer) -> None:
    BufferedLLM(openai_of(server)).complete("hi")
    like = OpenAILike(
        model="some-model", api_base=server.openai_url, api_key="k", is_chat_model=True, max_retries=0
    )
    wrapped = BufferedLLM(like)
    wrapped.complete("hi")
    assert [bool(body.get("prompt_cache_key")) for body in bodies_of(server)] == [True, False]
    assert wrapped.seam.account().requests == 1


def test_breakpoints_of_newer_models_and_the_users_own_body(server: ProviderServer) -> None:
    llm = BufferedLLM(openai_of(server, "gpt-5.6-sol"))
    engine = SimpleChatEngine.from_defaults(llm=llm, system_prompt=handbook(16))
    for turn in range(3):
        engine.chat(f"question {turn}")
    last = bodies_of(server)[-1]
    marked = [
        part
        for message in last["messages"]
        for part in message["content"]
        if "prompt_cache_breakpoint" in part
    ]
    assert 0 < len(marked) <= 4
    assert last["prompt_cache_options"] == {"mode": "explicit"}
    assert [request.outcome for request in server.requests] == ["cold", "hit", "hit"]
    llm.chat([ChatMessage("hi")], extra_body={"user": "me"})
    assert bodies_of(server)[-1]["user"] == "me"


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5.5"])
def test_a_system_prompt_that_comes_as_a_users_message(server: ProviderServer, model: str) -> None:
    """Chat engines give reasoning models their system prompt as a user's message; its role stays, its clock moves."""
    llm = BufferedLLM(openai_of(server, model))
    now = ["10:00"]

    def system() -> str:
        return "Be kind. It is " + dynamic_text("now", now[0]) + ". Be brief."

    for turn in range(2):
        now[0] = f"10:0{turn}"
        engine = SimpleChatEngine.from_defaults(llm=llm, system_prompt=system())
        engine.chat("question")
    role = "user" if model == "gpt-5.5" else "system"
    firsts = [body["messages"][0] for body in bodies_of(server)]
    assert firsts == [{"role": role, "content": "Be kind. Be brief."}] * 2
    assert "It is 10:01." in bodies_of(server)[1]["messages"][-1]["content"]


# --- Anthropic


def test_anthropic_gets_breakpoints_on_tools_system_and_messages() -> None:
    script: list[Reply | str] = [Reply(calls=(Call("look", '{"q": "x"}', "call_1"),)), "Done.", "Bye."]
    with ProviderServer(keep_bodies=True, replies=script) as server:
        llm = BufferedLLM(anthropic_of(server))
        agent = FunctionAgent(llm=llm, tools=[LOOK], system_prompt=handbook(30))

        async def talk() -> None:
            from llama_index.core.memory import ChatMemoryBuffer

            memory = ChatMemoryBuffer.from_defaults(token_limit=10**6, tokenizer_fn=str.split)
            await agent.run(user_msg="Look for x.", memory=memory)
            await agent.run(user_msg="Thanks.", memory=memory)

        asyncio.run(talk())
        bodies, log = bodies_of(server), sorted(server.requests, key=lambda each: each.number)
    for body in bodies:
        assert json.dumps(body).count('"cache_control"') <= 4
        assert all(isinstance(message["content"], list) for message in body["messages"])
        assert body["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert [request.outcome for request in log] == ["cold", "hit", "hit"]
    assert log[1].usage.hit_ratio > 0.9
    assert llm.seam.usage == sum((request.usage for request in log), Usage())


def test_anthropic_marks_of_the_users_own_count(server: ProviderServer) -> None:
    point = CachePoint(cache_control=CacheControl(type="ephemeral"))
    llm = BufferedLLM(anthropic_of(server))
    marked = [
        ChatMessage(blocks=[TextBlock(text=f"part {number} " * 400), point], role=role)
        for number, role in enumerate(["user", "assistant", "user"])
    ]
    llm.chat([ChatMessage(handbook(30), role="system"), *marked])
    (body,) = bodies_of(server)
    assert 3 <= json.dumps(body).count('"cache_control"') <= 4
    assert server.requests[-1].status == 200


def test_anthropic_marks_by_index_are_left_to_the_framework(server: ProviderServer) -> None:
    llm = BufferedLLM(anthropic_of(server, cache_idx=1))
    llm.chat([ChatMessage("Be kind.", role="system"), ChatMessage("hi")])
    (body,) = bodies_of(server)
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}
    ]


# --- templates, conversations, tools


def test_sources_are_as_before(server: ProviderServer) -> None:
    found = []
    for llm in (openai_of(server, "gpt-4o"), BufferedLLM(openai_of(server, "gpt-4o"))):
        engine = ContextChatEngine.from_defaults(
            retriever=Retriever(RECORDED), llm=llm, system_prompt="Be kind."
        )
        response = engine.chat("question 1")
        streamed = engine.stream_chat("question 2")
        told = "".join(streamed.response_gen)
        found.append(
            (
                [node.text for node in response.source_nodes],
                [node.text for node in streamed.source_nodes],
                bool(told),
            )
        )
    assert found[0] == found[1]
    assert found[0][0] == [RECORDED.passage("question 1")]
    body = bodies_of(server)[2]
    assert "chunk for question 1" not in body["messages"][0]["content"]
    assert 'name="context">\nchunk for question 1' in body["messages"][-1]["content"]


def test_retelling_can_be_turned_off() -> None:
    last = []
    for retell in (True, False):
        with ProviderServer(keep_bodies=True, replies=Answers(RECORDED)) as server:
            llm = BufferedLLM(openai_of(server, "gpt-4o"), retell=retell)
            condense_plus_context(llm, RECORDED, 2)
            last.append(bodies_of(server)[1]["messages"])
    assert [len(messages) for messages in last] == [4, 1]
    assert last[0][-1]["content"].count("(the conversation above)") == 1
    assert "Follow Up Input: question 1" in last[0][-1]["content"]
    assert "user: question 0" in last[1][0]["content"]


def test_a_transcript_of_another_conversation_is_left_alone(server: ProviderServer) -> None:
    llm = BufferedLLM(openai_of(server, "gpt-4o"))
    llm.chat([ChatMessage("Hello there, this is one")])
    asked = "Chat History:\nuser: Hello there, this is another\nassistant: Fine.\nStandalone question:"
    llm.complete(asked)
    assert bodies_of(server)[-1]["messages"] == [{"role": "user", "content": asked}]


def test_conversations_that_begin_alike_are_told_apart(server: ProviderServer) -> None:
    llm = BufferedLLM(openai_of(server))
    histories: list[list[ChatMessage]] = [[], []]
    for turn in range(3):
        for number, history in enumerate(histories):
            history.append(ChatMessage("Good morning" if not turn else f"{turn} for {number}"))
            history.append(llm.chat(history).message)
    for number, body in enumerate(bodies_of(server)[-2:]):
        told = json.dumps(body["messages"])
        assert f"2 for {number}" in told
        assert f"for {1 - number}" not in told
    assert llm.seam.breaks == ()


def test_a_conversation_is_named_for_tasks_too(server: ProviderServer) -> None:
    llm = BufferedLLM(openai_of(server))
    agent = FunctionAgent(llm=llm, system_prompt="Be kind.")

    async def talk() -> None:
        with llm.conversation("user-7"):
            handler = agent.run(user_msg="hi")
        await handler
        await agent.run(user_msg="hello")
        await llm._aclient.close()

    asyncio.run(talk())
    assert [key[0] for key in llm.seam.accounts] == [None, "user-7"]


def test_an_own_history_needs_a_name(server: ProviderServer) -> None:
    llm = BufferedLLM(openai_of(server), policy=Policy(history="ours", trims=True))
    with pytest.raises(MessageError, match="needs a key"):
        llm.complete("hi")
    assert llm.bound(conversation="one").complete("hi").text


def test_reset_forgets(server: ProviderServer) -> None:
    llm = BufferedLLM(openai_of(server))
    llm.complete("hi")
    llm.reset()
    assert (llm.seam.account().requests, llm.seam.sessions) == (0, ())


class Parcel(BaseModel):
    """Where it is."""

    city: str


def _parcel(asked: Asked) -> Reply:
    if asked.body.get("response_format"):
        return Reply('{"city": "Lyon"}')
    tools = asked.body.get("tools")
    return Reply(calls=(Call("Parcel", '{"city": "Lyon"}', "c1"),)) if tools else Reply("It is in Lyon.")


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4-turbo"])
def test_objects_are_asked_for_as_before(model: str) -> None:
    """By a schema of the response, or by a tool that has to be called; also as an agent's ``output_cls``."""
    sent = []
    for mode in (None, "buffer"):
        with ProviderServer(keep_bodies=True, replies=_parcel) as server:
            llm = openai_of(server, model)
            llm = llm if mode is None else BufferedLLM(llm)
            agent = FunctionAgent(llm=llm, system_prompt="Be kind.", output_cls=Parcel)

            async def talk(llm: Any = llm, agent: Any = agent) -> list[Any]:
                prompt = PromptTemplate("Where is {it}?")
                found = [await llm.astructured_predict(Parcel, prompt, it="parcel 7")]
                found.append((await agent.run(user_msg="And where is it now?")).structured_response)
                await llm._aclient.close()
                return found

            assert asyncio.run(talk()) == [Parcel(city="Lyon"), {"city": "Lyon"}]
            sent.append(
                [
                    {name: body.get(name) for name in ("messages", "tools", "tool_choice", "response_format")}
                    for body in bodies_of(server)
                ]
            )
    assert sent[0] == sent[1]


def test_a_required_tool_stays_required(server: ProviderServer) -> None:
    llm = BufferedLLM(openai_of(server))
    llm.chat_with_tools([LOOK], user_msg="x", tool_required=True)
    llm.chat_with_tools([LOOK], user_msg="x", tool_choice="look")
    choices = [body["tool_choice"] for body in bodies_of(server)]
    assert choices == ["required", {"type": "function", "function": {"name": "look"}}]


def test_other_llms_keep_their_messages_in_order() -> None:
    llm = BufferedLLM(MockLLM())
    said = llm.chat([ChatMessage("Be kind.", role="system"), ChatMessage("hi")]).message.content
    assert said == MockLLM().chat([ChatMessage("Be kind.", role="system"), ChatMessage("hi")]).message.content
    assert llm.seam.account().requests == 1


@pytest.mark.parametrize("name", ["ContextChatEngine, 5 turns", "CondensePlusContextChatEngine"])
@pytest.mark.parametrize("model", ["gpt-5.5", "claude-sonnet-5-5"])
def test_on_a_script_of_4000_tokens(name: str, model: str) -> None:
    """Where nothing could be read by default, most is; in tokens, simulated."""
    scenario = next(each for each in SCENARIOS if each.name == name)
    before, after = (
        measured(run(scenario, STANDARD, arm, model)[0], unit="tokens") for arm in ("default", "buffered")
    )
    assert before.hit_ratio == 0
    assert after.hit_ratio > 0.7
