"""What the simulated provider refuses: each rule as the SDK sees it, and whatever a client may send by mistake."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbuffer.simulate import Limits, ProviderServer
from llmbuffer.simulate.app import build_app
from llmbuffer.simulate.provider import Provider
from llmbuffer.simulate.replies import ReplyScript
from llmbuffer.tokens import EstimateCounter

genai = pytest.importorskip("google.genai")

USER = {"role": "user", "content": "Hi"}
GOOD = {"model": "gpt-5.6", "messages": [USER]}
EXPLICIT: dict[str, Any] = {"prompt_cache_breakpoint": {"mode": "explicit"}}
EPHEMERAL: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}
HOUR: dict[str, Any] = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}


def text(said: str = "Hi", **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **fields}


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def uses(*ids: str) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": each, "name": "f", "input": {}} for each in ids],
    }


def results(*ids: str) -> dict[str, Any]:
    return user(*({"type": "tool_result", "tool_use_id": each, "content": "x"} for each in ids))


def calls(*ids: str) -> dict[str, Any]:
    functions = [
        {"id": each, "type": "function", "function": {"name": "f", "arguments": "{}"}} for each in ids
    ]
    return {"role": "assistant", "content": None, "tool_calls": functions}


@pytest.fixture(scope="module")
def server() -> Iterator[ProviderServer]:
    with ProviderServer(counter=EstimateCounter(), limits=Limits(body_bytes=100_000)) as running:
        yield running


@pytest.fixture(scope="module")
def claude(server: ProviderServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.anthropic_url, api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def gpt(server: ProviderServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.openai_url, api_key="k", max_retries=0) as client:
        yield client


# (changes to a good request, what the API says); the sources stand beside the checks.
ANTHROPIC: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "at least one message is required"),
    ({"messages": [{"role": "bot", "content": "Hi"}]}, "messages.0.role: Input should be"),
    ({"messages": [{"role": "assistant", "content": "Hi"}]}, 'first message must use the "user" role'),
    ({"messages": [user(text(""))]}, "text content blocks must be non-empty"),
    ({"messages": [user(text(" \n"))]}, "text content blocks must be non-empty"),
    ({"messages": [user(text("", **EPHEMERAL))]}, "cache_control cannot be set for empty text blocks"),
    ({"messages": [{"role": "user", "content": ""}]}, "must have non-empty content"),
    ({"system": [text("")]}, "system.0: text content blocks must be non-empty"),
    (
        {"messages": [user(*[text(**EPHEMERAL)] * 5)]},
        "A maximum of 4 blocks with cache_control may be provided. Found 5",
    ),
    (
        {"messages": [user(*[text(**EPHEMERAL)] * 4)], "cache_control": {"type": "ephemeral"}},
        "A maximum of 4 blocks with cache_control may be provided. Found 5",
    ),
    (
        {"messages": [user(text(**EPHEMERAL), text(**HOUR))]},
        "messages.0.content.1.cache_control.ttl: a ttl='1h' cache_control block must not come after a ttl='5m'",
    ),
    (
        {"system": [text(**EPHEMERAL)], "messages": [user(text(**HOUR))]},
        "messages.0.content.0.cache_control.ttl: a ttl='1h'",
    ),
    ({"messages": [user(text(**HOUR))], "cache_control": {"type": "ephemeral"}}, "another ttl"),
    (
        {
            "messages": [
                USER,
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "", **EPHEMERAL}]},
            ]
        },
        "messages.1.content.0.cache_control: Extra inputs are not permitted",
    ),
    ({"messages": [USER, uses("a", "b"), results("a")]}, "without `tool_result` blocks immediately after: b"),
    ({"messages": [USER, uses("a")]}, "without `tool_result` blocks immediately after: a"),
    ({"messages": [USER, uses("a"), USER]}, "without `tool_result` blocks immediately after: a"),
    ({"messages": [results("z")]}, "unexpected `tool_use_id` found in `tool_result` blocks: z"),
    ({"messages": [USER, uses("a"), results("a", "z")]}, "found in `tool_result` blocks: z"),
    (
        {"model": "claude-haiku-4.5", "messages": [USER, {"role": "system", "content": "x"}]},
        'Unexpected role "system"',
    ),
    (
        {"messages": [USER, {"role": "assistant", "content": "x"}, {"role": "system", "content": "x"}]},
        'role "system" must follow a user message',
    ),
    (
        {"system": [text(cache_control={"type": "forever"})]},
        "system.0.cache_control.type: Input should be 'ephemeral'",
    ),
    (
        {"messages": [user(text(cache_control={"type": "ephemeral", "ttl": "2h"}))]},
        "messages.0.content.0.cache_control.ttl: Input should be '5m' or '1h'",
    ),
    ({"cache_control": {"type": "ephemeral", "ttl": "2h"}}, "cache_control.ttl: Input should be"),
    ({"max_tokens": -1}, "max_tokens: Input should be"),
    (
        {"max_tokens": 0, "thinking": {"type": "adaptive"}},
        "max_tokens: 0 is not allowed together with thinking",
    ),
    ({"max_tokens": 0, "tool_choice": {"type": "any"}}, "together with tool_choice"),
    (
        {"max_tokens": 0, "output_config": {"format": {"type": "json_schema"}}},
        "together with output_config.format",
    ),
    ({"diagnostics": {"previous_message_id": 7}}, "previous_message_id: Input should be a valid string"),
]


@pytest.mark.parametrize(("changes", "said"), ANTHROPIC)
def test_anthropics_400s(
    changes: dict[str, Any], said: str, claude: anthropic.Anthropic, server: ProviderServer
) -> None:
    body = {"model": "claude-sonnet-5.5", "max_tokens": 9, "messages": [USER], **changes}
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.messages.create(**body)
    assert said in caught.value.message
    assert caught.value.type == "invalid_request_error"
    assert (server.requests[-1].status, server.requests[-1].outcome) == (400, "refused")


def test_a_prewarm_does_not_stream(claude: anthropic.Anthropic) -> None:
    body: Any = {"model": "claude-sonnet-5.5", "max_tokens": 0, "messages": [USER], "stream": True}
    with pytest.raises(anthropic.BadRequestError, match="together with stream"):
        claude.messages.create(**body)


def test_what_is_legal_on_anthropic_goes_through(claude: anthropic.Anthropic) -> None:
    messages: Any = [
        user(text(**HOUR)),
        {"role": "user", "content": "and"},
        uses("a", "b"),
        results("b"),
        user({"type": "tool_result", "tool_use_id": "a", "content": [text(**EPHEMERAL)]}, text()),
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "So"},
    ]
    tools: Any = [{"name": "f", "input_schema": {"type": "object"}, **HOUR}]
    system: Any = [text(**HOUR)]
    said = claude.messages.create(
        model="claude-sonnet-5.5", max_tokens=9, tools=tools, system=system, messages=messages
    )
    assert said.stop_reason == "end_turn"


@pytest.mark.parametrize("missing", ["max_tokens", "messages", "model"])
def test_anthropics_required_fields(missing: str, claude: anthropic.Anthropic) -> None:
    body = {"model": "claude-sonnet-5.5", "max_tokens": 9, "messages": [USER]}
    del body[missing]
    with pytest.raises(anthropic.BadRequestError, match=f"{missing}: Field required"):
        claude.post("/v1/messages", body=body, cast_to=object)


MARKED_TOOL_RESULT = {"role": "tool", "tool_call_id": "a", "content": [text(**EXPLICIT)]}
CHAT: list[tuple[dict[str, Any], str, str | None]] = [
    ({"messages": []}, "Invalid 'messages': empty array", "messages"),
    ({"messages": [{"role": "bot", "content": "Hi"}]}, "Invalid value: 'bot'", "messages[0].role"),
    (
        {"messages": [{"role": "tool", "tool_call_id": "a", "content": "x"}]},
        "must be a response to",
        "messages.[0].role",
    ),
    (
        {"messages": [USER, calls("a", "b"), {"role": "tool", "tool_call_id": "a", "content": "x"}]},
        "messages: b",
        None,
    ),
    ({"messages": [USER, calls("a"), USER]}, "did not have response messages: a", "messages.[1].role"),
    (
        {"model": "gpt-5.5", "messages": [user(text(**EXPLICIT))]},
        "prompt_cache_breakpoint' is not supported with this model",
        "messages[0].content[0].prompt_cache_breakpoint",
    ),
    (
        {"model": "gpt-5.5", "prompt_cache_options": {"mode": "explicit"}},
        "'prompt_cache_options' is not supported with this model",
        "prompt_cache_options",
    ),
    (
        {"messages": [user(text(prompt_cache_breakpoint={"mode": "auto"}))]},
        "Supported values are: 'explicit'",
        "messages[0].content[0].prompt_cache_breakpoint.mode",
    ),
    (
        {"messages": [user(text(prompt_cache_breakpoint={"mode": "explicit", "ttl": "1h"}))]},
        "Invalid value: '1h'",
        "messages[0].content[0].prompt_cache_breakpoint.ttl",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f"}, **EXPLICIT}]},
        "Unknown parameter",
        "tools[0].prompt_cache_breakpoint",
    ),
    ({"prompt_cache_options": {"ttl": "12h"}}, "Invalid value: '12h'", "prompt_cache_options.ttl"),
    ({"prompt_cache_options": {"mode": "on"}}, "Invalid value: 'on'", "prompt_cache_options.mode"),
    ({"prompt_cache_options": {"prewarm": True}}, "Unknown parameter", "prompt_cache_options.prewarm"),
    ({"prompt_cache_key": "k" * 65}, "maximum length 64", "prompt_cache_key"),
    ({"prompt_cache_retention": "1h"}, "Invalid value: '1h'", "prompt_cache_retention"),
    ({"prompt_cache_retention": "in_memory"}, "Invalid value: 'in_memory'", "prompt_cache_retention"),
]


@pytest.mark.parametrize(("changes", "said", "param"), CHAT)
def test_the_400s_of_chat_completions(
    changes: dict[str, Any], said: str, param: str | None, gpt: openai.OpenAI
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        gpt.chat.completions.create(**{"model": "gpt-5.6", "messages": [USER], **changes})
    assert said in caught.value.message
    assert caught.value.type == "invalid_request_error"
    assert param is None or caught.value.param == param


def test_what_is_legal_in_chat_completions_goes_through(gpt: openai.OpenAI) -> None:
    messages: Any = [
        user(text(**EXPLICIT)),
        calls("a"),
        MARKED_TOOL_RESULT,
        {"role": "assistant", "content": "So"},
    ]
    said = gpt.chat.completions.create(
        model="gpt-5.6", messages=messages, prompt_cache_options={"ttl": "30m"}
    )
    assert said.choices[0].finish_reason == "stop"
    # An engine, or another provider, ignores what it does not know.
    assert gpt.chat.completions.create(model="my-model", messages=messages).usage is not None


OUTPUT = {"type": "function_call_output", "call_id": "a", "output": "x"}
FUNCTION_CALL = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
RESPONSES: list[tuple[dict[str, Any], str]] = [
    ({"input": [OUTPUT]}, "No tool call found for function call output with call_id a"),
    ({"input": [OUTPUT, FUNCTION_CALL]}, "No tool call found for function call output"),
    ({"input": [USER, FUNCTION_CALL]}, "No tool output found for function call a"),
    ({"input": [{"role": "tool", "content": "x"}]}, "Invalid value: 'tool'"),
    (
        {"input": [{"role": "assistant", "content": [{"type": "output_text", "text": "x", **EXPLICIT}]}]},
        "Unknown parameter: 'input[0].content[0].prompt_cache_breakpoint'",
    ),
    ({"previous_response_id": "resp_1"}, "keeps no conversations"),
    ({"prompt_cache_options": {"ttl": "1h"}}, "Invalid value: '1h'"),
    ({"model": "gpt-4o", "prompt_cache_options": {"ttl": "30m"}}, "not supported with this model"),
    (
        {"model": "gpt-5", "input": [user({"type": "input_text", "text": "x", **EXPLICIT})]},
        "'input[0].content[0].prompt_cache_breakpoint' is not supported",
    ),
]


@pytest.mark.parametrize(("changes", "said"), RESPONSES)
def test_the_400s_of_responses(changes: dict[str, Any], said: str, gpt: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        gpt.responses.create(**{"model": "gpt-5.6", "input": "Hi", **changes})
    assert said in caught.value.message


def test_geminis_400s(server: ProviderServer) -> None:
    with genai.Client(api_key="k", http_options={"base_url": server.gemini_url}) as client:

        def refused(contents: Any, **config: Any) -> Any:
            with pytest.raises(genai.errors.ClientError) as caught:
                client.models.generate_content(model="gemini-2.5-pro", contents=contents, config=config)
            return caught.value

        assert refused([{"role": "bot", "parts": [{"text": "x"}]}]).status == "INVALID_ARGUMENT"
        both = refused("Hi", cached_content="cachedContents/x", system_instruction="Be kind.")
        assert "system_instruction" in both.message
        assert refused("Hi", cached_content="cachedContents/x").code == 403
        for config, said in (
            ({"system_instruction": "short"}, "min_total_token_count=2048"),
            ({"contents": [{"role": "model", "parts": [{"text": "x"}]}]}, "must not end with a model turn"),
            ({"system_instruction": "short", "ttl": "-1s"}, "too small"),
        ):
            with pytest.raises(genai.errors.ClientError, match=said):
                client.caches.create(model="gemini-2.5-pro", config=config)


class Answered:
    """What the application says to one request, in process."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def asked(
    app: Any, path: str, chunks: list[bytes], method: str = "POST", headers: dict[str, str] | None = None
) -> Answered:
    sent: list[dict[str, Any]] = []
    left = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    left.append({"type": "http.request", "body": b"", "more_body": False})
    path, _, query = path.partition("?")

    async def receive() -> dict[str, Any]:
        return left.pop(0) if left else await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "http",
        "headers": [(key.encode(), value.encode()) for key, value in (headers or {}).items()],
        "server": ("127.0.0.1", 1),
        "client": ("127.0.0.1", 2),
    }
    asyncio.run(app(scope, receive, send))
    start = sent[0]
    body = b"".join(message.get("body", b"") for message in sent[1:])
    names = {key.decode(): value.decode() for key, value in start["headers"]}
    return Answered(start["status"], names, body)


def application(**limits: int) -> Any:
    return build_app(Provider(counter=EstimateCounter(), limits=Limits(**limits)), ReplyScript())


PATHS = {
    "openai": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/gemini-2.5-pro:generateContent",
}


@pytest.mark.parametrize("path", PATHS.values())
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b'{"model": "\\ud800"}', "no JSON"),
        (b"[1]", "a JSON list: expected an object"),
        (b"null", "a JSON NoneType: expected an object"),
        (b"[" * 100_000, "no JSON"),
    ],
)
def test_what_is_no_request_is_refused_in_the_formats_own_words(path: str, body: bytes, said: str) -> None:
    answered = asked(application(), path, [body])
    assert answered.status == 400
    assert said in answered.json["error"]["message"]
    assert ("code" in answered.json["error"]) == (path != PATHS["anthropic"])


def test_what_cannot_be_read_is_in_the_log_too() -> None:
    provider = Provider(counter=EstimateCounter(), limits=Limits(body_bytes=100))
    app = build_app(provider, ReplyScript())
    bodies = [b"{", b"x" * 1000, b'{"model": "gpt-5.6", "messages": []}', json.dumps(GOOD).encode()]
    for body in bodies:
        asked(app, PATHS["openai"], [body])
    seen = [(request.number, request.status, request.outcome) for request in provider.log.requests]
    assert seen == [(0, 400, "refused"), (1, 413, "refused"), (2, 400, "refused"), (3, 200, "below-minimum")]
    assert provider.log.requests[2].error is not None
    assert "empty array" in provider.log.requests[2].error


def test_deep_nesting_is_refused() -> None:
    deep = b"[" * 900 + b"]" * 900
    body = (
        b'{"model": "gpt-5.6", "messages": [{"role": "user", "content": [{"type": "x", "y": '
        + deep
        + b"}]}]}"
    )
    assert asked(application(), PATHS["openai"], [body]).status in (200, 400)


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_never_held_as_a_whole(announced: bool) -> None:
    chunks = [b"x" * 1000] * 100
    headers = {"content-length": "100000"} if announced else {}
    answered = asked(application(body_bytes=10_000), PATHS["anthropic"], chunks, headers=headers)
    assert answered.status == 413
    assert answered.json["error"]["type"] == "request_too_large"
    assert "larger than 10,000 bytes" in answered.json["error"]["message"]


def test_a_body_of_100_mb_takes_little_memory() -> None:
    app, chunks = application(body_bytes=2**22), [b"x" * 2**20] * 100
    tracemalloc.start()
    try:
        answered = asked(app, PATHS["openai"], chunks)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answered.status == 413
    assert peak < 2**22


def test_a_large_body_over_http_gets_an_answer(server: ProviderServer, gpt: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="larger than 100,000 bytes") as caught:
        gpt.chat.completions.create(model="gpt-5.6", messages=[{"role": "user", "content": "x" * 1_500_000}])
    assert caught.value.status_code == 413
    assert gpt.chat.completions.create(model="gpt-5.6", messages=[{"role": "user", "content": "x"}]).id


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/v1/completions", 404),
        ("GET", "/v1/messages", 405),
        ("POST", "/v1beta/models/gemini-2.5-pro:embedContent", 404),
        ("POST", "/v1/models/gemini-2.5-pro:streamGenerateContent", 400),
    ],
)
def test_an_unknown_path_lists_those_that_are_known(method: str, path: str, status: int) -> None:
    answered = asked(application(), path, [b"{}"], method)
    assert answered.status == status
    if status != 400:
        assert "POST /v1/chat/completions" in answered.json["error"]["message"]


def test_health_and_metrics_are_there_before_the_first_request() -> None:
    app = application()
    assert asked(app, "/health", [], "GET").json == {"status": "ok"}
    assert asked(app, "/summary", [], "GET").json["requests"] == 0
    metrics = asked(app, "/metrics", [], "GET")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"# TYPE llmbuffer_requests_total counter" in metrics.body


WORDS = st.sampled_from(
    [
        "user",
        "assistant",
        "system",
        "tool",
        "text",
        "tool_use",
        "tool_result",
        "image",
        "ephemeral",
        "1h",
        "explicit",
    ]
)
KEYS = st.sampled_from(
    [
        "role",
        "type",
        "text",
        "content",
        "parts",
        "id",
        "tool_use_id",
        "ttl",
        "mode",
        "cache_control",
        "source",
        "name",
        "tool_calls",
        "function",
        "arguments",
        "call_id",
        "output",
        "prompt_cache_breakpoint",
        "tool_call_id",
        "input",
        "functionCall",
        "functionResponse",
        "inlineData",
        "comparison_response_id",
        "previous_message_id",
        "format",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
MESSAGE = st.dictionaries(KEYS, VALUES, max_size=3).flatmap(
    lambda message: st.sampled_from(["user", "assistant", "system", "tool"]).map(
        lambda role: {**message, "role": role}
    )
)
BODY = st.dictionaries(
    st.sampled_from(
        [
            "model",
            "messages",
            "tools",
            "system",
            "input",
            "contents",
            "cache_control",
            "instructions",
            "thinking",
            "stream",
            "stream_options",
            "max_tokens",
            "prompt_cache_options",
            "prompt_cache_key",
            "diagnostics",
            "text",
            "systemInstruction",
            "generationConfig",
            "cachedContent",
            "tool_choice",
            "reasoning",
            "ttl",
            "functions",
        ]
    ),
    VALUES
    | st.lists(MESSAGE, max_size=4)
    | st.sampled_from(["gpt-5.6", "claude-sonnet-5.5"])
    | st.just([USER]),
    max_size=7,
).flatmap(
    lambda body: st.booleans().map(
        lambda whole: (
            {"model": "gpt-5.6", "max_tokens": 9, "messages": [USER], "contents": USER, **body}
            if whole
            else body
        )
    )
)
EVERY_PATH = [
    *PATHS.values(),
    "/v1/messages/count_tokens",
    "/v1beta/models/m:countTokens",
    "/v1beta/models/m:streamGenerateContent?alt=sse",
    "/v1beta/cachedContents",
]
APP = application()


@settings(max_examples=400)
@given(path=st.sampled_from(EVERY_PATH), body=BODY)
def test_no_body_makes_the_server_fail(path: str, body: dict[str, Any]) -> None:
    answered = asked(APP, path, [json.dumps(body).encode()])
    assert answered.status in (200, 400, 403), answered.body
    if answered.status != 200:
        assert answered.json["error"]["message"]


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("/chat/completions", "OpenAI's clients ends in /v1"),
        ("/responses", "OpenAI's clients ends in /v1"),
        ("/v1/v1/messages", "Anthropic's clients ends without /v1"),
        ("/v1/complete", "POST /v1/chat/completions; POST"),
    ],
)
def test_a_path_that_is_not_served_says_what_to_do(path: str, advice: str) -> None:
    with (
        ProviderServer() as server,
        openai.OpenAI(base_url=server.url, api_key="any", max_retries=0) as client,
        pytest.raises(openai.NotFoundError, match="is not served here") as caught,
    ):
        client.post(path, body=GOOD, cast_to=object)
    assert advice in str(caught.value)
