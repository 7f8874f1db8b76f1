"""The gemini dialect: what goes onto the wire of the real SDK, what is read off it, and what comes back as it was."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from google import genai
from google.genai import types
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.any_json import ARGUMENTS, OBJECTS, TEXT
from tests.gemini_wire import GeminiServer, chunks, gemini_server, usage_of, whole
from tests.loopback import Failure, Said

from llmbuffer import (
    File,
    Image,
    LossyError,
    Message,
    MessageError,
    Opaque,
    Reasoning,
    Segment,
    Session,
    StableContext,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
    get_dialect,
)
from llmbuffer.dialects.gemini import Gemini
from llmbuffer.dialects.gemini_parts import from_message, from_parts, to_message, to_parts
from llmbuffer.dialects.gemini_rules import rules_for
from llmbuffer.dialects.gemini_stream import ReplyAccumulator, response_fields
from llmbuffer.errors import DialectError, FrozenError
from llmbuffer.prices import price_for
from llmbuffer.tokens import EstimateCounter

MODEL = "gemini-3.8-flash"
DIALECT = Gemini().bind(MODEL)
PNG = "data:image/png;base64,+/+/"
SIGNED = {"text": "Hi", "thoughtSignature": "ab+/+w=="}


@contextmanager
def client_of(server: GeminiServer) -> Iterator[Any]:
    os.environ.setdefault("NO_PROXY", "127.0.0.1")
    with genai.Client(api_key="none", http_options={"base_url": server.url}) as client:
        yield client


def sent(body: Any) -> str:
    """A body as the SDK puts it on the wire: the model stands in the address."""
    return json.dumps({key: value for key, value in body.items() if key != "model"})


# Rendering

PARTS: list[tuple[Any, dict[str, Any]]] = [
    (Text("hi"), {"text": "hi"}),
    (Image(PNG), {"inlineData": {"mimeType": "image/png", "data": "+/+/"}}),
    (Image("https://a.b/c.png"), {"fileData": {"mimeType": "image/png", "fileUri": "https://a.b/c.png"}}),
    (
        File("data:application/pdf;base64,AA==", name="a.pdf"),
        {"inlineData": {"mimeType": "application/pdf", "data": "AA==", "displayName": "a.pdf"}},
    ),
    (File("https://a.b/v1beta/files/x"), {"fileData": {"fileUri": "https://a.b/v1beta/files/x"}}),
    (File(id="files/x"), {"fileData": {"fileUri": "files/x"}}),
    (Reasoning("hm"), {"text": "hm", "thought": True}),
    (
        ToolCall("c", "f", '{"b": 1, "a": 1.5}'),
        {"functionCall": {"id": "c", "name": "f", "args": {"b": 1, "a": 1.5}}},
    ),
    (ToolCall("gemini::0:f", "f", ""), {"functionCall": {"name": "f"}}),
    (
        ToolCall("c", "f", "{}", Opaque.of("gemini", {"thoughtSignature": "+/+/"}, "tool_call")),
        {"functionCall": {"id": "c", "name": "f", "args": {}}, "thoughtSignature": "+/+/"},
    ),
    (
        ToolCall("c", "f", "{}", Opaque.of("gemini", {"functionCall": {"new": 1}}, "tool_call")),
        {"functionCall": {"id": "c", "name": "f", "args": {}, "new": 1}},
    ),
    (
        ToolResult("gemini::0:f", "42"),
        {"functionResponse": {"name": "f", "response": {"output": "42"}}},
    ),
    (
        ToolResult("gemini::0:f", "no", is_error=True),
        {"functionResponse": {"name": "f", "response": {"error": "no"}}},
    ),
    (
        ToolResult("gemini::0:f", (Opaque.of("gemini", {"response": {"a": 1}}, "function_response"),)),
        {"functionResponse": {"name": "f", "response": {"a": 1}}},
    ),
    (
        Opaque.of("gemini", {"executableCode": {"language": "PYTHON", "code": "1"}}),
        {"executableCode": {"language": "PYTHON", "code": "1"}},
    ),
]


@pytest.mark.parametrize(
    ("part", "wire"), PARTS, ids=[f"{type(part).__name__}-{n}" for n, (part, _) in enumerate(PARTS)]
)
def test_a_part_as_it_is_sent_and_taken_back(part: Any, wire: dict[str, Any]) -> None:
    role: Any = "user" if isinstance(part, Text | Image | File) else "assistant"
    message = Message("tool", [part]) if isinstance(part, ToolResult) else Message(role, [part, Text("then")])
    assert json.dumps(to_parts(message)[0]) == json.dumps(wire)
    assert from_message(to_message(message)) == message


def test_a_signature_comes_back_byte_for_byte() -> None:
    parts: list[dict[str, Any]] = [
        SIGNED,
        {"text": "", "thoughtSignature": "+/=="},
        {"text": "t", "thought": True, "thoughtSignature": "AA=="},
    ]
    message = Message("assistant", from_parts(parts))
    assert message.text == "Hi", "signed text is text"
    assert json.dumps(to_parts(message)) == json.dumps(parts)


def test_texts_that_say_nothing_are_left_out() -> None:
    assert to_parts(Message("user", "")) == ()
    assert to_parts(Message("user", [Text(""), Text(" ")])) == ({"text": " "},)
    nothing = [Opaque.of("openai", None, "field:refusal"), Opaque.of("openai", [], "field:annotations")]
    assert to_parts(Message("assistant", [Text("a"), *nothing])) == ({"text": "a"},)


def test_results_of_several_parts() -> None:
    content = (
        Text("a"),
        Image(PNG),
        Opaque.of("gemini", {"inlineData": {"mimeType": "x/y", "data": "AA=="}}),
    )
    (wire,) = to_parts(Message("tool", [ToolResult("c", content)], "f"))
    assert wire["functionResponse"] == {
        "id": "c",
        "name": "f",
        "response": {"output": "a"},
        "parts": [
            {"inlineData": {"mimeType": "image/png", "data": "+/+/"}},
            {"inlineData": {"mimeType": "x/y", "data": "AA=="}},
        ],
    }
    (two,) = to_parts(Message("tool", [ToolResult("c", (Text("a"), Text("b")))], "f"))
    assert two["functionResponse"]["response"] == {"output": ["a", "b"]}
    (none,) = to_parts(Message("tool", [ToolResult("c", ())], "f"))
    assert none["functionResponse"]["response"] == {}


def test_results_find_the_name_of_their_function() -> None:
    dialect = Gemini().bind(MODEL)
    results = Message("tool", [ToolResult("d", "1"), ToolResult("c", "2")])
    with pytest.raises(LossyError, match="which function"):
        dialect.render_message(results, "model")
    blocks = dialect.answering({"c": "f", "d": "g"}).render_message(results, "model").blocks
    assert [block["functionResponse"]["name"] for block in blocks] == ["g", "f"]


def test_sessions_that_share_a_dialect_never_mix_up_the_names_of_functions() -> None:
    dialect = Gemini()
    sessions = [Session(StableContext(MODEL), dialect, tokens=EstimateCounter()) for _ in range(2)]
    for session, name in zip(sessions, ("f", "g"), strict=True):
        session.append([Message("user", "go"), Message("assistant", [ToolCall("c", name, "{}")])])
    for session, name in zip(sessions, ("f", "g"), strict=True):
        session.append(Message("tool", [ToolResult("c", "1")]))
        [result] = session.request().body["contents"][-1]["parts"]
        assert result["functionResponse"]["name"] == name


LOSSY = {
    "a name": Message("user", "hi", name="Ann"),
    "another provider's part": Message("user", [Opaque.of("openai", {"type": "input_audio"})]),
    "another provider's field": Message("assistant", [Text("a"), Opaque.of("openai", "no", "field:refusal")]),
    "another provider's extra": Message(
        "assistant", [ToolCall("c", "f", "{}", Opaque.of("openai", {}, "tool_call"))]
    ),
    "an extra that is no call": Message(
        "assistant", [ToolCall("c", "f", "{}", Opaque.of("gemini", {"functionCall": None}, "tool_call"))]
    ),
    "a part that is no object": Message("user", [Opaque.of("gemini", [1])]),
    "a continuation of nothing": Message("user", [Opaque.of("gemini", {"thoughtSignature": "AA=="}, "part")]),
    "an image detail": Message("user", [Image(PNG, "high")]),
    "an image that is no address": Message("user", [Image("picture.png")]),
    "a data url that is not base64": Message("user", [Image("data:text/plain,hi")]),
    "a file without anything": Message("user", [File(name="a")]),
    "a file with two sources": Message("user", [File("https://a.b/c", "file_1")]),
    "broken arguments": Message("assistant", [ToolCall("c", "f", '{"a": ')]),
    "arguments that are a list": Message("assistant", [ToolCall("c", "f", "[1]")]),
    "arguments with a key twice": Message("assistant", [ToolCall("c", "f", '{"a": 1, "a": 2}')]),
    "arguments that are not finite": Message("assistant", [ToolCall("c", "f", '{"a": 1e999}')]),
    "arguments that are too deep": Message("assistant", [ToolCall("c", "f", '{"a":' * 5000)]),
    "an instruction with an image": Message("system", [Image(PNG)]),
}


@pytest.mark.parametrize("what", LOSSY)
def test_what_has_no_place_is_refused(what: str) -> None:
    with pytest.raises(LossyError):
        DIALECT.render_message(LOSSY[what], "user")
    with pytest.raises(LossyError):
        to_message(LOSSY[what])


@pytest.mark.parametrize(
    "message",
    [
        Message("user", [Text(""), Text("a")]),
        Message("user", [Image(PNG, "auto")]),
        Message("assistant", [ToolCall("c", "f", '{"a":1e2}')]),
        Message("tool", [ToolResult("c", (Text("a"), Image(PNG)))], "f"),
    ],
)
def test_what_would_not_come_back_equal_is_refused_by_the_strict_way(message: Message) -> None:
    assert DIALECT.render_message(message, "user").blocks
    with pytest.raises(LossyError, match="come back equal"):
        to_message(message)


@pytest.mark.parametrize(
    "part",
    [
        {"functionCall": {"id": "x"}},
        {"functionCall": {"name": "f", "id": 3}},
        {"functionResponse": {"response": {}}},
        {"inlineData": {"mimeType": "image/png", "data": 3}},
        {"inlineData": {"mimeType": "image/png"}, "thoughtSignature": "AA=="},
        {"thoughtSignature": "AA=="},
    ],
)
def test_parts_of_an_unexpected_shape_stay_as_they_are(part: dict[str, Any]) -> None:
    message = Message("assistant", from_parts([part]))
    assert isinstance(message.parts[0], Opaque)
    assert to_parts(message) == (part,)


def test_roles_that_the_format_does_not_know_are_refused() -> None:
    with pytest.raises(DialectError, match="unknown role"):
        from_message({"role": "assistant", "parts": []})


def test_instructions_between_messages_are_the_users_words() -> None:
    session = Session(StableContext(MODEL, "be kind"), "gemini")
    session.append([{"role": "user", "content": "hi"}, {"role": "system", "content": "be brief"}])
    body = session.request(None).body
    assert body["systemInstruction"] == {"parts": [{"text": "be kind"}]}
    assert body["contents"] == [
        {"role": "user", "parts": [{"text": "hi"}, {"text": "<system>\nbe brief\n</system>"}]}
    ]


def test_consecutive_messages_of_a_role_share_one_content() -> None:
    session = Session(StableContext(MODEL), "gemini")
    calls = [ToolCall("c", "f", "{}"), ToolCall("d", "g", "{}")]
    session.append([Message("assistant", calls), Message("tool", [ToolResult("c", "1")])])
    session.append(
        [Message("tool", [ToolResult("d", "2")]), Message("user", "go on"), Message("assistant", "ok")]
    )
    contents = session.request("and?").body["contents"]
    assert [(each["role"], [next(iter(part)) for part in each["parts"]]) for each in contents] == [
        ("user", ["text"]),  # calls may not open a conversation
        ("model", ["functionCall", "functionCall"]),
        ("user", ["functionResponse", "functionResponse", "text"]),
        ("model", ["text"]),
        ("user", ["text"]),
    ]


TOOLS: list[tuple[Any, dict[str, Any]]] = [
    (
        {"name": "f", "description": "F.", "parameters": {"type": "object", "b": 1, "a": [1.0]}},
        {"functionDeclarations": [{"name": "f", "description": "F.", "parametersJsonSchema": {"type": "object", "b": 1, "a": [1.0]}}]},
    ),
    ({"type": "function", "function": {"name": "f"}}, {"functionDeclarations": [{"name": "f"}]}),
    ({"name": "f", "behavior": "BLOCKING"}, {"functionDeclarations": [{"name": "f", "behavior": "BLOCKING"}]}),
    ({"type": "google_search"}, {"googleSearch": {}}),
    ({"type": "fileSearch", "top_k": 2}, {"fileSearch": {"top_k": 2}}),
]  # fmt: skip


@pytest.mark.parametrize(("tool", "wire"), TOOLS)
def test_a_tool_as_it_is_sent(tool: Any, wire: dict[str, Any]) -> None:
    assert json.dumps(DIALECT.render_tool(Tool.of(tool))) == json.dumps(wire)


def test_a_tool_of_another_provider_is_refused() -> None:
    own = Tool("x", opaque=Opaque.of("gemini", {"urlContext": {}}, "tools"))
    assert DIALECT.render_tool(own) == {"urlContext": {}}
    with pytest.raises(LossyError):
        DIALECT.render_tool(Tool("x", opaque=Opaque.of("anthropic", {"type": "x"}, "tools")))


# The body


def full_session(client: Any = None, **options: Any) -> Session:
    system = [Segment("a", "Be kind.", level="global"), Segment("b", "Be brief.")]
    tools: list[Any] = [
        {"name": "search", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}},
        {"type": "google_search"},
        {"name": "read"},
    ]
    params = {
        "temperature": 0,
        "max_output_tokens": 99,
        "stopSequences": ["x"],
        "tool_config": {"functionCallingConfig": {"mode": "AUTO"}},
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    }
    return Session(
        StableContext(MODEL, system, tools=tools, params=params), "gemini", client=client, **options
    )


def test_the_body_is_that_of_the_rest_api() -> None:
    body = full_session().request("hi", dynamic={"clock": "12:00"}).body
    assert list(body) == [
        "model",
        "contents",
        "generationConfig",
        "systemInstruction",
        "tools",
        "toolConfig",
        "safetySettings",
    ]
    assert body["contents"][0]["parts"][1] == {"text": '<context name="clock">\n12:00\n</context>'}
    assert body["generationConfig"] == {"temperature": 0, "maxOutputTokens": 99, "stopSequences": ["x"]}
    assert body["systemInstruction"] == {"parts": [{"text": "Be kind."}, {"text": "Be brief."}]}
    assert [list(tool) for tool in body["tools"]] == [["googleSearch"], ["functionDeclarations"]]
    assert [each["name"] for each in body["tools"][1]["functionDeclarations"]] == ["search", "read"]


def test_flat_params_win_over_the_whole() -> None:
    params = {"generationConfig": {"topP": 0.5, "temperature": 1}, "temperature": 0, "x": 1}
    body = Session(StableContext(MODEL, params=params), "gemini").request("hi").body
    assert body["generationConfig"] == {"topP": 0.5, "temperature": 0}
    assert body["x"] == 1


@pytest.mark.parametrize(
    "params", [{"tools": []}, {"system_instruction": "x"}, {"http_options": {}}, {"generationConfig": 3}]
)
def test_params_that_belong_elsewhere_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        _ = Session(StableContext(MODEL, params=params), "gemini").request("hi").body


def test_a_request_without_messages_is_refused() -> None:
    with pytest.raises(MessageError, match="needs contents"):
        _ = Session(StableContext(MODEL, "be kind"), "gemini").request(None).body


def test_params_before_the_messages_are_frozen() -> None:
    session = full_session()
    session.request("hi").observe(Usage(input_tokens=9), Message("assistant", "yes"))
    assert session.request("hi", params={"temperature": 1}).body["generationConfig"]["temperature"] == 1
    for name in ("tool_config", "responseSchema", "thinking_config"):
        with pytest.raises(FrozenError, match=name):
            session.request("hi", params={name: {}})


# Rules


def test_rules_follow_the_price_table() -> None:
    for model in ("gemini-4-argon", "gemini-3.8-flash", "gemini-3.1-pro"):
        price = price_for(model)
        assert price is not None
        assert rules_for(model).read_multiplier == pytest.approx(price.read_multiplier)


@pytest.mark.parametrize(
    ("model", "name", "minimum"),
    [
        ("gemini-3.5-flash", "gemini", 4096),
        ("gemini-3.8-flash", "gemini", 4096),
        ("models/gemini-3.1-pro-preview", "gemini", 4096),
        ("gemini-4-argon", "gemini", 4096),
        ("gemini-2.5-flash-lite", "gemini", 2048),
        ("gemini-9", "gemini", 6144),
        ("learnlm", "gemini-unknown", 6144),
        ("", "gemini-unknown", 6144),
    ],
)
def test_a_minimum_for_every_model(model: str, name: str, minimum: int) -> None:
    rules = rules_for(model)
    assert (rules.name, rules.min_tokens, rules.match, rules.step, rules.slots) == (
        name,
        minimum,
        "prefix",
        1,
        0,
    )
    assert {"ttl", "min_tokens", "read_multiplier", "visible_after"} <= rules.sources.keys()


def test_a_model_of_another_maker_is_told_about() -> None:
    assert "unsupported-model" in Session(StableContext("gpt-x"), "gemini").request("hi").forecast.warnings
    assert "unsupported-model" not in full_session().request("hi").forecast.warnings
    assert get_dialect("gemini").name == "gemini"


# Over the real SDK


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the SDK's own


def history(session: Session) -> None:
    session.append(Message("user", [Text("see é"), Image(PNG), File("https://a.b/c.pdf", name="c")]))
    session.append(
        Message(
            "assistant",
            from_parts(
                [
                    SIGNED,
                    {"functionCall": {"name": "search", "args": {"q": 1.0}}, "thoughtSignature": "-/+_"},
                ],
                "r",
            ),
        )
    )
    session.append(Message("tool", [ToolResult("gemini:r:0:search", "found")]))  # fmt: skip


def test_the_sdk_sends_the_body_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with gemini_server([Said("one"), Said("two")]) as server, client_of(server) as client:
        session = full_session(client)
        history(session)
        request = session.request("hi", dynamic={"clock": "12:00"})
        response = client.models.generate_content(**request.kwargs)
        list(client.models.generate_content_stream(**request.kwargs))
        assert [seen.path for seen in server.seen] == [
            f"models/{MODEL}:generateContent",
            f"models/{MODEL}:streamGenerateContent",
        ]
        for body in server.generated:
            assert json.dumps(body) == sent(request.body)
        assert request.observe(response).message == Message("assistant", "one")
    assert [
        record for record in caplog.records if record.levelname == "WARNING" and "genai" in record.name
    ] == []


def test_a_bare_request_is_the_body_too() -> None:
    with gemini_server([Said("one")]) as server, client_of(server) as client:
        session = Session(StableContext(MODEL), "gemini", client=client)
        session.respond("hi")
        assert server.seen[0].json == {
            "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
            "generationConfig": {},
        }


REPLY: dict[str, Any] = {
    "candidates": [
        {
            "content": {
                "parts": [
                    {"text": "hm", "thought": True},
                    SIGNED,
                    {"functionCall": {"name": "f", "args": {"b": 1, "a": 1.0, "é": None}, "id": "q"}, "thoughtSignature": "+/+/"},
                    {"inlineData": {"mimeType": "image/png", "data": "+/+/"}},
                    {"executableCode": {"language": "PYTHON", "code": "1"}},
                ],
                "role": "model",
            },
            "finishReason": "STOP",
            "index": 0,
            "safetyRatings": [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}],
        }
    ],
    "usageMetadata": {
        "promptTokenCount": 50,
        "cachedContentTokenCount": 30,
        "candidatesTokenCount": 7,
        "thoughtsTokenCount": 5,
        "toolUsePromptTokenCount": 11,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 50}],
    },
    "modelVersion": "m",
    "responseId": "r",
}  # fmt: skip


def test_the_sdks_object_is_read_as_what_the_server_sent() -> None:
    with gemini_server([REPLY, REPLY]) as server, client_of(server) as client:
        request = full_session(client).request("hi")
        response = client.models.generate_content(**request.kwargs)
        assert response_fields(response) == REPLY
        (chunk,) = client.models.generate_content_stream(**request.kwargs)
        assert response_fields(chunk) == REPLY
    for each in (response, REPLY, chunk):
        assert DIALECT.read_usage(each) == Usage(input_tokens=61, output_tokens=12, cache_read_tokens=30)
        message = DIALECT.read_message(each)
        assert message.text == "Hi"
        wire = DIALECT.render_message(message, "user").blocks
        assert json.dumps(wire, sort_keys=True) == json.dumps(
            REPLY["candidates"][0]["content"]["parts"], sort_keys=True
        )
    assert message.tool_calls[0].arguments == '{"b": 1, "a": 1.0, "é": null}'


CALLS = (("", "search", '{"q": "b"}'), ("id-2", "read", "{}"))
TURN = (Said("Let me look.", calls=CALLS), Said(calls=CALLS[1:]), Said("There."))
RUN: dict[str, Any] = {"search": lambda q: f"all about {q}", "read": lambda: {"b": 1}}


def after_the_tools(session: Session, server: GeminiServer) -> None:
    first, second, third = server.generated
    assert second["contents"][: len(first["contents"])] == first["contents"]
    assert second["contents"][1]["parts"] == whole(TURN[0])["candidates"][0]["content"]["parts"]
    assert second["contents"][2] == {
        "role": "user",
        "parts": [
            {"functionResponse": {"name": "search", "response": {"output": "all about b"}}},
            {"functionResponse": {"id": "id-2", "name": "read", "response": {"output": '{"b":1}'}}},
        ],
    }
    assert third["contents"][:3] == second["contents"]
    assert session.messages[-1].text == "There."
    assert session.ledger.usage.cache_read_tokens == 6000


def test_tools_through_the_sdk() -> None:
    with gemini_server(TURN) as server, client_of(server) as client:
        session = full_session(client)
        assert session.respond("hi", tools=RUN).text == "There."
        after_the_tools(session, server)


def test_streams_through_the_sdk() -> None:
    with gemini_server(TURN) as server, client_of(server) as client:
        session = full_session(client)
        events = list(session.stream("hi", tools=RUN))
        assert "".join(event.text for event in events) == "Let me look.There."
        assert [event.value.name for event in events if event.kind == "tool_call"] == [
            "search",
            "read",
            "read",
        ]
        after_the_tools(session, server)


@pytest.mark.anyio
async def test_asynchronous_tools_and_streams_through_the_sdk() -> None:
    with gemini_server(TURN * 2) as server, client_of(server) as client:
        async with client.aio as aio:
            session = full_session(aio)
            assert (await session.arespond("hi", tools=RUN)).text == "There."
            after_the_tools(session, server)
            server.seen.clear()
            other = full_session(aio)
            texts = [event.text async for event in other.astream("hi", tools=RUN)]
            assert "".join(texts) == "Let me look.There."
            after_the_tools(other, server)


@pytest.mark.anyio
async def test_the_dialect_finds_the_asynchronous_side_of_a_client() -> None:
    with gemini_server([Said("one"), Said("two")]) as server, client_of(server) as client:
        request = full_session().request("hi")
        assert DIALECT.read_message(await DIALECT.asend(client, request.kwargs)).text == "one"
        events = [event async for event in DIALECT.astream(client, request.kwargs)]
        assert DIALECT.read_message(events[-1].value).text == "two"
        await client.aio.aclose()


def test_the_sdks_errors_pass_through() -> None:
    with gemini_server([Failure(429, "slow down"), Said("x")]) as server, client_of(server) as client:
        session = full_session(client)
        with pytest.raises(genai.errors.ClientError, match="slow down"):
            session.respond("hi")
        assert session.messages == ()
        with pytest.raises(DialectError, match="no 'models'"):
            DIALECT.send(object(), {})


def test_whoever_stops_reading_leaves_the_session_as_it_was() -> None:
    with gemini_server([Said("a long answer")]) as server, client_of(server) as client:
        session = full_session(client)
        events = session.stream("hi")
        assert next(iter(events)).text == "a l"
        events.close()  # type: ignore[attr-defined]  # a generator
        assert session.messages == ()


# Replies


def test_a_blocked_prompt_says_why() -> None:
    blocked = {
        "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
        "usageMetadata": {"promptTokenCount": 5},
    }
    with pytest.raises(DialectError, match="'PROHIBITED_CONTENT'"):
        DIALECT.read_message(blocked)
    with gemini_server([blocked, blocked]) as server, client_of(server) as client:
        session = full_session(client)
        with pytest.raises(DialectError, match="'PROHIBITED_CONTENT'"):
            session.respond("hi")
        with pytest.raises(DialectError, match="'PROHIBITED_CONTENT'"):
            list(session.stream("hi"))
        assert session.messages == ()


def test_a_withheld_reply_says_why_and_an_empty_one_is_a_reply() -> None:
    with pytest.raises(DialectError, match="'SAFETY'"):
        DIALECT.read_message({"candidates": [{"finishReason": "SAFETY"}]})
    for reason in ("STOP", "MAX_TOKENS"):
        assert DIALECT.read_message({"candidates": [{"finishReason": reason}]}).parts == ()
    cut = {"candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "SAFETY"}]}
    assert DIALECT.read_message(cut).text == "a"


@pytest.mark.parametrize(
    "response",
    [{}, {"candidates": []}, {"candidates": "x"}, {"candidates": [{"content": {"parts": ["x"]}}]}, 3],
)
def test_what_is_no_reply_is_refused(response: Any) -> None:
    with pytest.raises(DialectError):
        DIALECT.read_message(response)


def test_usage_that_contradicts_itself_loses_no_reply() -> None:
    assert DIALECT.read_usage({"candidates": []}) is None
    usage = {"usageMetadata": {"promptTokenCount": 5, "cachedContentTokenCount": 9}}
    assert DIALECT.read_usage(usage) == Usage(input_tokens=5, cache_read_tokens=5)


def test_ids_of_calls_without_one_differ_by_reply() -> None:
    calls = [
        {"functionCall": {"name": "a.b:c"}},
        {"functionCall": {"name": "f", "id": "x"}},
        {"functionCall": {"name": "f"}},
    ]
    found = [part.id for part in from_parts(calls, "r:1") if isinstance(part, ToolCall)]
    assert found == ["gemini:r1:0:a.b:c", "x", "gemini:r1:1:f"]
    (wire,) = to_parts(Message("tool", [ToolResult(found[0], "1")]))
    assert wire["functionResponse"] == {"name": "a.b:c", "response": {"output": "1"}}


class Dumped:
    """An SDK's object that holds what JSON has no form for."""

    def model_dump(self, **_: Any) -> dict[str, Any]:
        at = dt.datetime(2026, 11, 22, tzinfo=dt.timezone.utc)
        return {"createTime": at, "candidates": None, "sdkHttpResponse": {"headers": {}}, "n": [b"\xfb\xff"]}


def test_an_sdks_own_types_are_read_as_json() -> None:
    assert response_fields(Dumped()) == {"createTime": "2026-11-22T00:00:00+00:00", "n": ["+/8="]}


# Streams


def joined(*events: dict[str, Any]) -> dict[str, Any]:
    accumulator = ReplyAccumulator()
    for event in events:
        list(accumulator.add(event))
    return accumulator.response()


@given(
    text=st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    inputs=st.lists(
        st.dictionaries(st.text("abé", max_size=3), st.integers() | st.floats(-9, 9) | st.text(max_size=3)),
        max_size=3,
    ),
)
def test_a_streamed_reply_is_the_whole_one(text: str | None, inputs: list[dict[str, Any]]) -> None:
    said = Said(text, tuple(("", "f", json.dumps(each)) for each in inputs))
    raw = list(chunks(said))
    typed = [response_fields(types.GenerateContentResponse.model_validate(chunk)) for chunk in raw]
    for events in (raw, typed):
        response = joined(*events)
        assert DIALECT.read_message(response) == DIALECT.read_message(whole(said))
        assert DIALECT.read_usage(response) == DIALECT.read_usage(usage_of(said))


def chunk_of(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": list(parts), "role": "model"}, **more}]}


def test_signed_parts_are_not_merged() -> None:
    response = joined(
        chunk_of({"text": "h", "thought": True}),
        chunk_of({"text": "m", "thought": True}),
        chunk_of({"text": "a"}),
        chunk_of({"text": "b"}),
        chunk_of({"text": "", "thoughtSignature": "AA=="}),
        chunk_of({"text": "c"}, finishReason="STOP"),
    )
    assert response["candidates"][0]["content"]["parts"] == [
        {"text": "hm", "thought": True},
        {"text": "ab"},
        {"text": "", "thoughtSignature": "AA=="},
        {"text": "c"},
    ]
    assert DIALECT.read_message(response).text == "abc"


def test_half_a_stream_is_refused() -> None:
    with pytest.raises(DialectError, match="no finishReason"):
        joined(chunk_of({"text": "a"}))
    with pytest.raises(DialectError, match="no finishReason"):
        joined()
    with pytest.raises(DialectError, match="in pieces"):
        joined(chunk_of({"functionCall": {"name": "f", "willContinue": True}}))
    with gemini_server([Said("half", truncated=True)]) as server, client_of(server) as client:
        session = full_session(client)
        with pytest.raises(DialectError, match="no finishReason"):
            list(session.stream("hi"))
        assert session.messages == ()


def test_other_candidates_are_left_out() -> None:
    other = {"candidates": [{"index": 1, "content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}]}
    assert DIALECT.read_message(joined(other, chunk_of({"text": "a"}, finishReason="STOP"))).text == "a"


# Round trips

URLS = (
    st.sampled_from(
        [
            PNG,
            "https://a.b/c",
            "https://a.b/c.png",
            "data:text/plain,x",
            "data:;base64,",
            "data:a;base64;base64,A,B",
        ]
    )
    | TEXT
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
IDS = TEXT | st.sampled_from(["gemini:", "gemini::0:f", "gemini:r:1:g", "gemini::1:a:b"])
FURTHER = st.dictionaries(
    st.sampled_from(["thoughtSignature", "partMetadata", "thought", "text", "functionCall"]), JSON, max_size=2
)
CONTENT = st.one_of(
    st.builds(Text, TEXT),
    st.builds(Image, URLS, st.none() | TEXT),
    st.builds(File, st.none() | URLS, st.none() | TEXT, st.none() | TEXT),
    st.builds(
        lambda value, slot: Opaque.of("gemini", value, slot),
        OBJECTS | FURTHER,
        st.sampled_from(["content", "part", "function_response"]),
    ),
)
ANY = st.one_of(
    CONTENT,
    st.builds(Reasoning, TEXT),
    st.builds(ToolCall, IDS, TEXT, ARGUMENTS),
    st.builds(
        ToolCall,
        IDS,
        TEXT,
        ARGUMENTS,
        (OBJECTS | FURTHER).map(lambda value: Opaque.of("gemini", value, "tool_call")),
    ),
    st.builds(ToolResult, IDS, TEXT, st.booleans()),
    st.builds(ToolResult, IDS, st.lists(CONTENT, max_size=2).map(tuple)),
    st.builds(
        lambda value, slot: Opaque.of("openai", value, slot),
        JSON,
        st.sampled_from(["content", "field:refusal"]),
    ),
)
MESSAGES = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.lists(ANY, max_size=3),
    st.none() | TEXT,
)


@given(MESSAGES)
def test_a_message_comes_back_equal_or_is_refused(message: Message) -> None:
    try:
        wire = to_message(message)
    except LossyError:
        return
    assert from_message(json.loads(json.dumps(wire))) == message


WIRE_PARTS = st.one_of(
    st.builds(lambda text, more: {**more, "text": text}, TEXT, FURTHER | OBJECTS),
    st.builds(lambda call, more: {**more, "functionCall": call}, st.fixed_dictionaries({"name": TEXT}, optional={"id": TEXT, "args": OBJECTS, "x": JSON}) | OBJECTS, FURTHER),
    st.builds(lambda result: {"functionResponse": result}, st.fixed_dictionaries({"name": TEXT}, optional={"id": TEXT, "response": OBJECTS | st.fixed_dictionaries({"output": JSON})})),
    st.builds(lambda data, more: {**more, "inlineData": data}, st.fixed_dictionaries({"mimeType": TEXT, "data": TEXT}), FURTHER),
    st.builds(lambda data: {"fileData": data}, st.fixed_dictionaries({"fileUri": URLS}, optional={"mimeType": TEXT, "displayName": TEXT})),
    OBJECTS,
)  # fmt: skip


@given(st.lists(WIRE_PARTS, max_size=3))
def test_what_came_in_goes_out_as_it_was(content: list[dict[str, Any]]) -> None:
    """All but texts that say nothing, which the API refuses, and the place of results, which it wants first."""
    expected = [part for part in content if part != {"text": ""}]
    expected.sort(key=lambda part: "functionResponse" not in part)
    message = Message("assistant", from_parts(content))
    named = [part.get(key) for part in content for key in ("functionCall", "functionResponse")]
    identified = [each for each in named if isinstance(each, dict) and "id" in each]
    names = {str(each["id"]): str(each.get("name")) for each in identified}
    assume(len(names) == len(identified))  # a result has the name of the call of its id
    back = [json.loads(json.dumps(part)) for part in to_parts(message, names)]
    assert json.dumps(back, sort_keys=True) == json.dumps(expected, sort_keys=True)


def test_tasks_may_share_a_dialect() -> None:
    """One dialect in two sessions at once: each result gets the name of its own call."""
    with gemini_server(TURN * 2) as server, client_of(server) as client:
        dialect = Gemini()
        sessions = [
            Session(
                StableContext(MODEL, tools=[{"name": "search"}, {"name": "read"}]), dialect, client=client
            )
            for _ in range(2)
        ]

        def converse(session: Session) -> None:
            session.respond("hi", tools=lambda name, arguments: name)

        async def both() -> None:
            async with anyio.create_task_group() as group:
                for session in sessions:
                    group.start_soon(anyio.to_thread.run_sync, converse, session)

        anyio.run(both)
        assert len(server.generated) == 6
        for body in server.generated:
            for part in (part for each in body["contents"] for part in each["parts"]):
                result = part.get("functionResponse")
                assert result is None or result["response"] == {"output": result["name"]}
