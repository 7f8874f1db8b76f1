"""The dialects deepseek, llamacpp and vllm: their rules, what they send beyond OpenAI's format, what they read."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields
from openai.types.chat import ChatCompletion
from tests.loopback import Said, loopback, openai_whole

from llmbuffer import (
    Dialect,
    FrozenError,
    LLMBufferError,
    Message,
    Reasoning,
    Session,
    StableContext,
    Text,
    ToolCall,
    Usage,
    get_dialect,
)
from llmbuffer.dialects import deepseek_rules, engine_rules
from llmbuffer.dialects.deepseek import DeepSeek
from llmbuffer.dialects.llamacpp import LlamaCpp
from llmbuffer.dialects.llamacpp_slots import SlotState, broadcast_slot, erase_slot, root_url, save_slot
from llmbuffer.dialects.openai_chat import OpenAIChat
from llmbuffer.dialects.server_counter import ServerCounter
from llmbuffer.dialects.vllm import Vllm
from llmbuffer.engine import EngineServer, write_tiny_model
from llmbuffer.errors import DialectError
from llmbuffer.prices import price_for
from llmbuffer.replay.agreement import dialect_of
from llmbuffer.rules import CacheRules
from llmbuffer.tokens import EstimateCounter, TokenCounter

# Rules


def test_the_names_lead_to_the_dialects() -> None:
    for name, kind in (("deepseek", DeepSeek), ("llamacpp", LlamaCpp), ("vllm", Vllm)):
        dialect = get_dialect(name)
        assert isinstance(dialect, kind)
        assert isinstance(dialect, Dialect)
        assert dialect.name == name
        assert dialect.bind(dialect.default_model).rules == dialect.rules or name == "deepseek"


V4, CHAT = DeepSeek().bind("deepseek-v4-pro").rules, DeepSeek().bind("deepseek-chat").rules
LLAMA, VLLM = LlamaCpp(lanes=4).rules, Vllm().rules
# One figure a row: facts that were read in documents or measured, and where the rules say so.
FIGURES: list[tuple[CacheRules, str, Any, str]] = [
    (V4, "match", "units", "where two requests part"),
    (V4, "min_tokens", 0, "none is stated"),
    (V4, "ttl", 7_200.0, "hours to days"),
    (V4, "stores_output", True, "end of the model's output"),
    (V4, "tail_after_tool", False, ""),
    (V4, "routing_field", None, ""),
    (V4, "slots", 0, ""),
    (CHAT, "match", "prefix", "any prefix"),
    (CHAT, "step", 64, "64 tokens|the same"),
    (CHAT, "min_tokens", 64, ""),
    (CHAT, "stores_output", True, "recorded usage of mini-swe-agent sessions"),
    (LLAMA, "match", "lanes", "nothing is shared between slots"),
    (LLAMA, "lanes", 4, ""),
    (LLAMA, "min_tokens", 0, "none"),
    (LLAMA, "step", 1, "one token"),
    (LLAMA, "recomputed", 1, "computes one token"),
    (LLAMA, "stores_output", True, "prompt and reply"),
    (LLAMA, "ttl", inf, "until another prompt needs it"),
    (LLAMA, "visible_after", "end", "takes no other request"),
    (LLAMA, "tail_after_tool", True, "no rule of its own"),
    (VLLM, "match", "prefix", "hash of a block"),
    (VLLM, "step", 16, "16 tokens on a GPU; 128 on a CPU"),
    (VLLM, "recomputed", 1, "always computed"),
    (VLLM, "ttl", inf, "least recently used"),
    (VLLM, "visible_after", "request", "side by side"),
    (VLLM, "capacity", None, ""),
]


@pytest.mark.parametrize(
    ("rules", "field", "value", "source"), FIGURES, ids=[f"{row[0].name}-{row[1]}" for row in FIGURES]
)
def test_a_figure_of_the_rules(rules: CacheRules, field: str, value: object, source: str) -> None:
    assert getattr(rules, field) == value
    assert not source or any(part in rules.sources[field] for part in source.split("|"))


ALL_RULES = [deepseek_rules.STEPS, deepseek_rules.UNITS, engine_rules.LLAMACPP, engine_rules.VLLM]


@pytest.mark.parametrize("rules", ALL_RULES, ids=[rules.name for rules in ALL_RULES])
def test_every_figure_that_differs_from_the_default_names_its_source(rules: CacheRules) -> None:
    plain = CacheRules(name=rules.name, match=rules.match)
    changed = {each.name for each in fields(rules) if getattr(rules, each.name) != getattr(plain, each.name)}
    assert changed - {"sources"} <= rules.sources.keys()
    assert rules.sources.keys() <= {each.name for each in fields(rules)}
    assert all(source.strip() for source in rules.sources.values())


@pytest.mark.parametrize("model", ["deepseek-v4-pro", "deepseek-flash"])
def test_deepseek_reads_cost_what_the_price_table_says(model: str) -> None:
    price = price_for(model)
    assert price is not None
    assert price.cache_read is not None
    assert DeepSeek().bind(model).rules.read_multiplier == pytest.approx(price.cache_read / price.input)


@pytest.mark.parametrize(
    ("model", "name", "multiplier"),
    [
        ("deepseek-v4-pro", "deepseek-units", 1 / 30),
        ("deepseek-v4-pro-0813", "deepseek-units", 1 / 30),
        ("deepseek-v4-flash", "deepseek-units", 0.02),
        ("deepseek-v4.1-flash-1017", "deepseek-units", 0.02),
        ("deepseek-flash", "deepseek-units", 0.02),
        ("deepseek-chat", "deepseek-steps", 0.1),
        ("deepseek-reasoner", "deepseek-steps", 0.1),
        ("deepseek-coder", "deepseek-unknown", 1.0),
        ("my-model", "deepseek-unknown", 1.0),
    ],
)
def test_deepseek_rules_by_model(model: str, name: str, multiplier: float) -> None:
    rules = DeepSeek().bind(model).rules
    assert (rules.name, rules.read_multiplier) == (name, multiplier)


def test_the_openai_dialect_knows_deepseeks_models_too() -> None:
    for model in ("deepseek-chat", "deepseek-v4-pro"):
        assert OpenAIChat().bind(model).rules == DeepSeek().bind(model).rules


def test_a_recording_is_never_taken_for_one_of_an_engine() -> None:
    names = {
        model: found and found.name
        for model in ("deepseek-v4-pro", "gpt-5.5", "claude-opus-4-5", "my-model", "local")
        for found in [dialect_of(model)]
    }
    assert names == {
        "deepseek-v4-pro": "deepseek",
        "gpt-5.5": "openai",
        "claude-opus-4-5": "anthropic",
        "my-model": None,
        "local": None,
    }


def test_options_become_rules_and_rules_by_hand_stay() -> None:
    llama = LlamaCpp(lanes=8, capacity=50_000).bind("any").rules
    assert (llama.lanes, llama.capacity) == (8, 50_000)
    vllm = Vllm(block_size=128, capacity=9_000).bind("any").rules
    assert (vllm.step, vllm.capacity) == (128, 9_000)
    mine = CacheRules(name="mine", match="prefix")
    assert [kind(mine).bind("m").rules for kind in (DeepSeek, LlamaCpp, Vllm)] == [mine] * 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LlamaCpp(lanes=0), "lanes is 0: give the number of the server's slots"),
        (lambda: LlamaCpp(lanes=4, id_slot=4), "id_slot is 4: with lanes=4 it is one of 0 to 3"),
        (lambda: LlamaCpp(id_slot=-1), "id_slot is -1"),
        (lambda: Vllm(block_size=0), "block_size is 0: give the tokens of a block"),
        (lambda: Vllm(cache_salt=""), "cache_salt '' is refused by vLLM: give 1 to 128 characters"),
        (lambda: Vllm(cache_salt="x" * 5_000), "cache_salt of 5,000 characters is refused"),
    ],
)
def test_what_no_server_has_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(DialectError) as caught:
        make()
    assert str(caught.value).startswith(message)


@given(st.text(max_size=140))
def test_a_salt_is_sent_or_refused(salt: str) -> None:
    good = 0 < len(salt) <= 128 and not any(character in salt for character in "@/\\\0")
    try:
        assert body_of(Vllm(cache_salt=salt))["cache_salt"] == salt
    except DialectError:
        assert not good
    else:
        assert good


# What is sent


def session_of(dialect: Dialect | str, client: Any = None, **params: Any) -> Session:
    context = StableContext("local", "Be kind.", params=params)
    return Session(context, dialect, client=client, tokens=EstimateCounter(), clock=lambda: 0.0)


def body_of(dialect: Dialect | str, **params: Any) -> dict[str, Any]:
    return session_of(dialect, **params).request("hi").body


BODIES: list[tuple[str, Dialect, dict[str, Any], dict[str, Any]]] = [
    ("deepseek", DeepSeek(), {}, {}),
    ("llamacpp", LlamaCpp(), {}, {"cache_prompt": True}),
    ("llamacpp with a slot", LlamaCpp(lanes=4, id_slot=0), {}, {"cache_prompt": True, "id_slot": 0}),
    (
        "llamacpp by params",
        LlamaCpp(lanes=4, id_slot=0),
        {"id_slot": 2, "cache_prompt": False},
        {"cache_prompt": False, "id_slot": 2},
    ),
    ("vllm", Vllm(), {}, {}),
    ("vllm with a salt", Vllm(cache_salt="tenant-1"), {}, {"cache_salt": "tenant-1"}),
    ("vllm by params", Vllm(cache_salt="tenant-1"), {"cache_salt": "b"}, {"cache_salt": "b"}),
]


@pytest.mark.parametrize(
    ("dialect", "params", "own"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES]
)
def test_own_fields_and_nothing_of_openais(
    dialect: Dialect, params: dict[str, Any], own: dict[str, Any]
) -> None:
    request = session_of(dialect, **params).request("hi")
    plain = {
        "model": "local",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}],
    }
    assert request.body == {**plain, **own}
    assert request.kwargs == {**plain, **({"extra_body": own} if own else {})}


@pytest.mark.parametrize(
    ("dialect", "params", "own"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES]
)
def test_the_sdk_sends_the_body_sync_async_and_streamed(
    dialect: Dialect, params: dict[str, Any], own: dict[str, Any]
) -> None:
    with loopback([Said("Yes."), Said("No."), Said("Well.")]) as server:
        settings: dict[str, Any] = {"base_url": f"{server.url}/v1", "api_key": "none", "max_retries": 0}
        session = session_of(dialect, **params)
        expected = []

        async def aask() -> None:
            async with openai.AsyncOpenAI(**settings) as client:
                expected.append(session.request("Two?").body)
                await session.arespond("Two?", client=client)

        with openai.OpenAI(**settings) as client:
            expected.append(session.request("One?").body)
            session.respond("One?", client=client)
            anyio.run(aask)
            expected.append(session.request("Three?").body)
            *_, done = session.stream("Three?", client=client)
        assert done.value.text == "Well."
        streaming = {"stream": True, "stream_options": {"include_usage": True}}
        assert server.requests == [expected[0], expected[1], {**expected[2], **streaming}]
        assert all(body.items() >= own.items() for body in server.requests)
    assert [entry.usage for entry in session.ledger] == [
        Usage(input_tokens=2400, output_tokens=7, cache_read_tokens=2000, cache_write_tokens=300)
    ] * 3


def test_a_slot_may_change_at_any_time() -> None:
    session = session_of("llamacpp", id_slot=0)
    session.request("hi").observe(Usage(input_tokens=20), Message("assistant", "ho"))
    assert session.request("on", params={"id_slot": 1}).body["id_slot"] == 1
    session.update(params={"id_slot": 2})
    fork = session.fork(params={"id_slot": 3})
    bodies = session.request("on").body, fork.request("on").body
    assert [body["id_slot"] for body in bodies] == [2, 3]
    assert bodies[0]["messages"] == bodies[1]["messages"]
    assert (session.epoch, fork.epoch) == (0, 0)


FROZEN = [
    ("deepseek", "reasoning_effort", "max"),
    ("deepseek", "thinking", {"type": "disabled"}),
    ("llamacpp", "chat_template_kwargs", {"enable_thinking": False}),
    ("llamacpp", "response_format", {"type": "json_object"}),
    ("vllm", "cache_salt", "another"),
    ("vllm", "tool_choice", "none"),
]


@pytest.mark.parametrize(("name", "field", "value"), FROZEN)
def test_what_moves_the_prefix_is_frozen(name: str, field: str, value: object) -> None:
    context = StableContext("deepseek-v4-pro", "Be kind.")
    session = Session(context, name, tokens=EstimateCounter())
    session.request("hi").observe(Usage(input_tokens=20), Message("assistant", "ho"))
    with pytest.raises(FrozenError) as caught:
        session.request("on", params={field: value})
    assert caught.value.field == f"params.{field}"


@pytest.mark.parametrize(
    ("dialect", "tokens"), [(LlamaCpp(lanes=2, id_slot=1), 0), (Vllm(cache_salt="a"), 1)]
)
def test_prewarm_asks_for_no_answer_and_keeps_the_rest(dialect: Dialect, tokens: int) -> None:
    noisy = {"max_tokens": 500, "max_completion_tokens": 9, "n": 4, "stream": True, "stream_options": {}}
    body = body_of(dialect, temperature=0, response_format={"type": "text"}, **noisy)
    warm = dialect.prewarm(body)
    assert warm == {**{key: value for key, value in body.items() if key not in noisy}, "max_tokens": tokens}
    assert list(body)[:2] == list(warm)[:2] == ["model", "messages"]


def test_deepseek_has_no_prewarm() -> None:
    assert DeepSeek().prewarm(body_of("deepseek")) is None


def test_deepseeks_reasoning_is_sent_back() -> None:
    """Requests with tools are refused without it (DeepSeek, guide on the thinking mode)."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    wire = {"role": "assistant", "content": "", "reasoning_content": "Hm.", "tool_calls": [call]}
    response = openai_whole(Said())
    response["choices"][0]["message"] = wire
    dialect = DeepSeek().bind("deepseek-v4-pro")
    message = dialect.read_message(ChatCompletion.model_validate(response))
    assert message.parts == (Reasoning("Hm."), Text(""), ToolCall("c1", "f", "{}"))
    (sent,) = dialect.render_message(message, "user").blocks
    assert sent == wire


# What is read


def response_of(usage: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    return {**openai_whole(Said("Yes.", usage=None)), **({"usage": usage} if usage else {}), **more}


def counted(prompt: int, output: int = 3, **details: Any) -> dict[str, Any]:
    whole = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    return {**whole, **({"prompt_tokens_details": details} if details else {})}


TIMINGS = {"cache_n": 90, "prompt_n": 10, "predicted_n": 3, "prompt_ms": 1.5}
USAGES: list[tuple[Dialect, dict[str, Any], Usage | None]] = [
    (
        DeepSeek(),
        response_of({**counted(100), "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36}),
        Usage(100, 3, 64),
    ),
    (
        DeepSeek(),
        response_of({**counted(100, cached_tokens=64), "prompt_cache_hit_tokens": 64}),
        Usage(100, 3, 64),
    ),
    (LlamaCpp(), response_of(counted(100, cached_tokens=90), timings=TIMINGS), Usage(100, 3, 90)),
    (
        LlamaCpp(),
        response_of(counted(100, cached_tokens=0), timings={**TIMINGS, "cache_n": 7}),
        Usage(100, 3),
    ),
    (LlamaCpp(), response_of(counted(100), timings=TIMINGS), Usage(100, 3, 90)),
    (LlamaCpp(), response_of(None, timings=TIMINGS), Usage(100, 3, 90)),
    (LlamaCpp(), response_of(counted(100)), Usage(100, 3)),
    (LlamaCpp(), response_of(None), None),
    (Vllm(), response_of(counted(100, cached_tokens=64, created_cache_tokens=32)), Usage(100, 3, 64, 32)),
    (Vllm(), response_of(counted(100, cached_tokens=96, created_cache_tokens=32)), Usage(100, 3, 96, 4)),
    (Vllm(), response_of(counted(100, cached_tokens=None)), Usage(100, 3)),
    (Vllm(), response_of(None), None),
]


@pytest.mark.parametrize(("dialect", "response", "usage"), USAGES)
def test_usage_is_read(dialect: Dialect, response: dict[str, Any], usage: Usage | None) -> None:
    assert dialect.read_usage(response) == usage
    assert dialect.read_usage(ChatCompletion.model_validate(response)) == usage


# Slots and counting, without a server


class Answering:
    """The part of an SDK's client that these functions use; answers with what it was given, or raises it."""

    base_url = "http://127.0.0.1:8080/v1/"

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.posts: list[tuple[str, Any]] = []

    def with_options(self, **options: Any) -> Answering:
        assert options["max_retries"] == 0
        return self

    def post(self, path: str, *, cast_to: object, body: Any) -> object:
        self.posts.append((path, body))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_broadcast_saves_once_and_leaves_the_source_alone() -> None:
    saved = {"id_slot": 1, "n_saved": 9, "n_written": 90, "timings": {"save_ms": 1.5}}
    restored = {"id_slot": 0, "n_restored": 9, "n_read": 90, "timings": {}}
    client = Answering(saved, restored, restored)
    states = broadcast_slot(client, 1, range(3), "a.bin")
    assert states == (SlotState(1, 9, 90, 1.5), SlotState(0, 9, 90), SlotState(2, 9, 90))
    assert client.posts == [
        (f"http://127.0.0.1:8080/slots/{slot}?action={action}", {"filename": "a.bin"})
        for slot, action in ((1, "save"), (0, "restore"), (2, "restore"))
    ]


class _StatusError(Exception):
    def __init__(self, status_code: int, body: object) -> None:
        super().__init__("the SDK's own words")
        self.status_code, self.body = status_code, body


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("<html>", "the answer to 'save' is no slot's: is this a llama.cpp server?"),
        (
            _StatusError(501, {"message": "no slots"}),
            "the server says 'no slots'; start the server with a directory",
        ),
        (
            _StatusError(404, None),
            'the server says "the SDK\'s own words"; give a client of a llama.cpp server',
        ),
        (
            _StatusError(400, {"error": {"message": "bad"}}),
            "the server says 'bad'; give the plain name of a file",
        ),
    ],
)
def test_what_the_server_refuses_is_explained(answer: object, message: str) -> None:
    with pytest.raises(DialectError) as caught:
        save_slot(Answering(answer), 0, "a.bin")
    assert message in str(caught.value)


def test_other_errors_of_the_client_pass_through() -> None:
    with pytest.raises(TimeoutError):
        erase_slot(Answering(TimeoutError()), 0)


@pytest.mark.parametrize("slot", [-1, True, "0", None])
def test_a_slot_is_a_number(slot: Any) -> None:
    with pytest.raises(DialectError, match=r"slots are numbered from 0"):
        save_slot(Answering(), slot, "a.bin")


def test_the_root_of_a_client() -> None:
    with openai.OpenAI(base_url="http://127.0.0.1:8080/a/v1", api_key="none") as client:
        assert root_url(client) == "http://127.0.0.1:8080/a"
    for wrong in (object(), SimpleNamespace(base_url="")):
        with pytest.raises(DialectError, match="has no base_url: give a client"):
            root_url(wrong)


def test_a_counter_asks_once_for_a_text() -> None:
    client = Answering({"tokens": [1, 2, 3]}, {"tokens": [1]})
    counter: TokenCounter = ServerCounter(client)
    assert [counter.count(text) for text in ("abc", "abc", "a", "")] == [3, 3, 1, 0]
    assert [json.loads(json.dumps(body))["content"] for _, body in client.posts] == ["abc", "a"]
    assert {path for path, _ in client.posts} == {"http://127.0.0.1:8080/tokenize"}
    assert not counter.estimated


@pytest.mark.parametrize(
    "answer", [TimeoutError("too late"), {"tokens": 5}, "<html>", _StatusError(500, None)]
)
def test_a_counter_that_gets_no_answer_estimates_and_says_so_once(
    answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    counter = ServerCounter(Answering({"tokens": [1]}, answer), fallback=EstimateCounter(2.0))
    assert counter.count("a") == 1
    with caplog.at_level(logging.WARNING, "llmbuffer.tokens"):
        assert [counter.count(text) for text in ("four", "eight888")] == [2, 6]
    assert (counter.name, counter.estimated) == ("characters/2", True)
    assert len(caplog.records) == 1
    assert "from now on, counts are estimates by characters/2" in caplog.records[0].getMessage()


def test_an_engine_without_its_packages_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(LLMBufferError, match=r"needs gguf: pip install 'llmbuffer\[llamacpp\]>=1'"):
        write_tiny_model(tmp_path / "tiny.gguf")
    (tmp_path / "xllamacpp.py").write_text("raise ImportError", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(LLMBufferError, match=r"no llama.cpp server for '.*': .*needs xllamacpp: pip install"):
        EngineServer(tmp_path / "tiny.gguf").start()


def test_an_engine_that_is_not_started_is_described() -> None:
    assert repr(EngineServer("a/model.gguf", slots=2)) == "EngineServer('model.gguf', slots=2, stopped)"
    assert EngineServer("a/model.gguf").pid is None


# What is foretold


def test_deepseek_reads_a_common_prefix_from_the_third_request_on() -> None:
    """A + B and A + C share A, which neither reads; A + D reads it (DeepSeek, guide on context caching)."""
    session = Session(
        StableContext("deepseek-v4-pro", "policy " * 500),
        "deepseek",
        tokens=EstimateCounter(),
        clock=lambda: 0.0,
    )
    reads = []
    for task in ("Translate it.", "Count its words, please.", "What is it about?"):
        fork = session.fork()
        request = fork.request(task)
        reads.append(request.forecast.read_tokens)
        request.observe(Usage(input_tokens=900), Message("assistant", "Done."))
    assert reads[:2] == [0, 0]
    assert reads[2] > 800
    assert fork.request("And now?").forecast.read_tokens > reads[2]


def test_vllm_shares_whole_blocks_side_by_side() -> None:
    """Forks that begin before any answer read all whole blocks of what the first one sent."""
    session = Session(
        StableContext("local", "policy " * 500),
        Vllm(block_size=64),
        tokens=EstimateCounter(),
        clock=lambda: 0.0,
    )
    first = session.fork().request("Translate it.")
    cold = first.forecast
    first.observe(Usage(input_tokens=cold.input_tokens), Message("assistant", "Done."))
    warm = session.fork().request("Count its words.").forecast
    assert (cold.read_tokens, cold.warnings) == (0, ("cold",))
    assert 800 < warm.read_tokens < warm.input_tokens
    assert warm.read_tokens % 64 == 0


def test_llamacpp_forks_on_one_slot_read_what_the_one_before_left() -> None:
    session = Session(
        StableContext("local", "policy " * 500), "llamacpp", tokens=EstimateCounter(), clock=lambda: 0.0
    )
    for task, expected in (("Translate it.", 0), ("Count its words.", 800)):
        request = session.fork().request(task)
        assert request.forecast.read_tokens >= expected
        assert request.forecast.fresh_tokens <= (60 if expected else 1_000)
        request.observe(Usage(input_tokens=request.forecast.input_tokens), Message("assistant", "Done."))
