"""Every dialect that llmbuffer offers keeps the contract; the contract notices those that do not."""

from __future__ import annotations

import inspect
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import Message as AnthropicMessage
from google.genai.types import GenerateContentResponse
from msgspec.structs import replace
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from tests.loopback import Said, anthropic_raw, anthropic_whole, openai_chunks, openai_whole
from tests.responses_wire import responses_raw, responses_whole

from llmbuffer import CacheRules, LLMBufferError, LossyError, Message, Text, Tool, ToolCall, Usage
from llmbuffer.dialects.anthropic import Anthropic
from llmbuffer.dialects.deepseek import DeepSeek
from llmbuffer.dialects.gemini import Gemini
from llmbuffer.dialects.llamacpp import LlamaCpp
from llmbuffer.dialects.openai_chat import OpenAIChat
from llmbuffer.dialects.openai_responses import OpenAIResponses
from llmbuffer.dialects.vllm import Vllm
from llmbuffer.errors import DialectError
from llmbuffer.frozen import FrozenDict, FrozenList, freeze
from llmbuffer.plugins import plugins
from llmbuffer.rules import Draft, Event, Rendered
from llmbuffer.testing import DialectContract
from llmbuffer.testing.dialect.cases import DYNAMIC
from llmbuffer.testing.dialect.trees import without_fields, without_text

PLAIN = Said("In Lyon, Ann.")
CALLING = Said("Let me look.", calls=(("c1", "look_up", '{"q":"x"}'), ("c2", "list", "{}")))
MESSAGES = (
    Message("assistant", "In Lyon, Ann."),
    Message(
        "assistant",
        [Text("Let me look."), ToolCall("c1", "look_up", '{"q":"x"}'), ToolCall("c2", "list", "{}")],
    ),
)
USAGE = Usage(input_tokens=2_400, output_tokens=7, cache_read_tokens=2_000, cache_write_tokens=300)


Examples = tuple[tuple[Mapping[str, Any], Usage | None], ...]


class TestOpenAI(DialectContract):
    dialect = OpenAIChat()
    model = "gpt-5.6"
    models: tuple[str, ...] = ("gpt-5.5", "gpt-4o", "gpt-6.1-sol", "o3", "deepseek-chat", "my-model")
    replies = tuple(zip((openai_whole(PLAIN), openai_whole(CALLING)), MESSAGES, strict=True))
    usages: Examples = ((openai_whole(PLAIN), USAGE), (openai_whole(PLAIN._replace(usage=None)), None))
    events = tuple(openai_chunks(CALLING))
    streamed, streamed_usage = MESSAGES[1], USAGE
    send_path = "chat.completions.create"

    def as_response(self, blocks: tuple[FrozenDict, ...]) -> Mapping[str, Any]:
        return {"choices": [{"index": 0, "message": blocks[0], "finish_reason": "stop"}]}

    def as_sdk_object(self, response: Mapping[str, Any]) -> Any:
        return ChatCompletion.construct(**json.loads(json.dumps(response)))


class TestOpenAIWithMarksOnResults(TestOpenAI):
    dialect = OpenAIChat(mark_tool_results=True)
    models: tuple[str, ...] = ("gpt-5.5",)


class TestAnthropic(DialectContract):
    dialect = Anthropic()
    model = "claude-sonnet-5.5"
    models: tuple[str, ...] = (
        "claude-opus-4.8",
        "claude-haiku-4-5-20251001",
        "claude-fable-5.1",
        "claude-sonnet-5",
        "my-model",
    )
    replies = tuple(zip((anthropic_whole(PLAIN), anthropic_whole(CALLING)), MESSAGES, strict=True))
    usages: Examples = (
        (anthropic_whole(PLAIN), USAGE),
        (
            {"content": [], "usage": {
                "input_tokens": 10, "cache_creation_input_tokens": 50, "output_tokens": 1, "cache_read_input_tokens": None,
                "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30},
            }},
            Usage(60, 1, 0, 50, 30),
        ),
        ({"content": []}, None),
    )  # fmt: skip
    events = tuple(anthropic_raw(CALLING))
    streamed, streamed_usage = MESSAGES[1], USAGE
    send_path = "messages.create"
    keeps_arguments = False

    def as_response(self, blocks: tuple[FrozenDict, ...]) -> Mapping[str, Any]:
        return {"role": "assistant", "content": blocks, "stop_reason": "end_turn"}

    def as_sdk_object(self, response: Mapping[str, Any]) -> Any:
        return AnthropicMessage.construct(**json.loads(json.dumps(response)))


class TestAnthropicWithCollapsedRuns(TestAnthropic):
    dialect = Anthropic(collapse_tool_runs=True)
    models: tuple[str, ...] = ()


class TestOpenAIResponses(DialectContract):
    dialect = OpenAIResponses()
    model = "gpt-5.6"
    models: tuple[str, ...] = ("gpt-5.5", "gpt-6.1-sol", "my-model")
    replies = tuple(zip((responses_whole(PLAIN), responses_whole(CALLING)), MESSAGES, strict=True))
    usages: Examples = (
        (responses_whole(PLAIN), USAGE),
        (
            {
                "output": [],
                "usage": {
                    "input_tokens": 100,
                    "output_tokens": 1,
                    "input_tokens_details": {
                        "cached_tokens": 20,
                        "cache_write_tokens": 60,
                        "cache_write_tokens_details": {"ttl_30m_tokens": 20, "ttl_12h_tokens": 40},
                    },
                },
            },
            Usage(100, 1, 20, 60, 40),
        ),
        (responses_whole(PLAIN._replace(usage=None)), None),
    )
    events = tuple(responses_raw(CALLING))
    streamed, streamed_usage = MESSAGES[1], USAGE
    send_path = "responses.create"

    def as_response(self, blocks: tuple[FrozenDict, ...]) -> Mapping[str, Any]:
        return {"status": "completed", "output": blocks}

    def as_sdk_object(self, response: Mapping[str, Any]) -> Any:
        return Response.construct(**json.loads(json.dumps(response)))


def gemini_whole(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    content = {"role": "model", "parts": list(parts)}
    return {
        "candidates": [{"index": 0, "content": content, "finishReason": "STOP"}],
        "responseId": "r1",
        **more,
    }


GEMINI_USAGE = {
    "promptTokenCount": 2_400,
    "cachedContentTokenCount": 2_000,
    "candidatesTokenCount": 5,
    "thoughtsTokenCount": 2,
}
GEMINI_CALLS = [
    {"functionCall": {"id": "c1", "name": "look_up", "args": {"q": "x"}}},
    {"functionCall": {"id": "c2", "name": "list", "args": {}}},
]


def gemini_chunks() -> Iterator[dict[str, Any]]:
    for piece in ("Let me", " look."):
        yield {
            "candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": piece}]}}],
            "responseId": "r1",
        }
    whole = gemini_whole(*GEMINI_CALLS, usageMetadata=GEMINI_USAGE)
    yield whole


class TestGemini(DialectContract):
    dialect = Gemini()
    model = "gemini-3.8-flash"
    models: tuple[str, ...] = ("gemini-2.5-pro", "gemini-4-argon", "gemini-9-unheard-of", "my-model")
    replies = tuple(
        zip(
            (gemini_whole({"text": "In Lyon, Ann."}), gemini_whole({"text": "Let me look."}, *GEMINI_CALLS)),
            MESSAGES,
            strict=True,
        )
    )
    usages: Examples = (
        (gemini_whole({"text": "hi"}, usageMetadata=GEMINI_USAGE), Usage(2_400, 7, 2_000)),
        (
            gemini_whole({"text": "hi"}, usageMetadata={"promptTokenCount": 9, "toolUsePromptTokenCount": 4}),
            Usage(13),
        ),
        (gemini_whole({"text": "hi"}), None),
    )
    events = tuple(gemini_chunks())
    streamed, streamed_usage = MESSAGES[1], Usage(2_400, 7, 2_000)
    send_path, stream_path = "models.generate_content", "models.generate_content_stream"
    keeps_arguments = False

    def as_response(self, blocks: tuple[FrozenDict, ...]) -> Mapping[str, Any]:
        return {"candidates": [{"content": {"role": "model", "parts": blocks}, "finishReason": "STOP"}]}

    def as_sdk_object(self, response: Mapping[str, Any]) -> Any:
        return GenerateContentResponse.model_validate(response)


class TestDeepSeek(TestOpenAI):
    dialect = DeepSeek()
    model = "deepseek-v4-pro"
    models: tuple[str, ...] = ("deepseek-flash", "deepseek-chat", "my-model")
    usages: Examples = (
        *TestOpenAI.usages,
        (
            {
                "choices": [],
                "usage": {"prompt_tokens": 100, "completion_tokens": 2, "prompt_cache_hit_tokens": 64},
            },
            Usage(100, 2, 64),
        ),
    )


class TestLlamaCpp(TestOpenAI):
    dialect = LlamaCpp(lanes=4, id_slot=1, capacity=8_192)
    model = "local"
    models: tuple[str, ...] = ()
    usages: Examples = (
        *TestOpenAI.usages,
        ({"choices": [], "timings": {"cache_n": 90, "prompt_n": 10, "predicted_n": 3}}, Usage(100, 3, 90)),
    )


class TestVllm(TestOpenAI):
    dialect = Vllm(block_size=128, cache_salt="tenant-1", capacity=65_536)
    model = "local"
    models: tuple[str, ...] = ()


def test_every_dialect_on_offer_keeps_the_contract() -> None:
    classes = {
        value
        for value in globals().values()
        if isinstance(value, type) and issubclass(value, DialectContract)
    }
    held = {type(each.dialect) for each in classes - {DialectContract}}
    offered = {name: type(offer.factory()) for name, offer in plugins.offers("dialects").items()}
    assert [name for name, kind in offered.items() if kind not in held] == []


# --- the contract notices


PREFIX_RULES = CacheRules(name="mine", match="prefix", sources={"match": "a guess"})
CHAT = OpenAIChat()
_numbers = itertools.count()


def faulty(**methods: Any) -> OpenAIChat:
    """OpenAI's dialect with other methods."""
    made: OpenAIChat = type("Faulty", (OpenAIChat,), methods)()
    return made


def assembling(change: Callable[[Draft, FrozenDict], Mapping[str, Any]]) -> OpenAIChat:
    return faulty(assemble=lambda self, draft: change(draft, OpenAIChat.assemble(self, draft)))


def rendering(change: Callable[[Rendered], Rendered]) -> OpenAIChat:
    return faulty(render_message=lambda self, *given: change(OpenAIChat.render_message(self, *given)))


def front(_: Draft, body: FrozenDict) -> FrozenDict:
    """A text that grows with the history, in front of it."""
    clock = FrozenDict(role="system", content=f"{len(body['messages'])} messages so far")
    return FrozenDict(body, messages=FrozenList([clock, *body["messages"]]))


def minded(_: Draft, body: FrozenDict) -> FrozenDict:
    """A message that stands there while there is dynamic text."""
    more = [FrozenDict(role="user", content="Mind the clock.")] if DYNAMIC in str(body) else []
    return FrozenDict(body, messages=FrozenList([*body["messages"], *more]))


def marked_at(place: int) -> Callable[[Draft, FrozenDict], FrozenDict]:
    """A long mark on the first part of this message, come what may."""

    def change(_: Draft, body: FrozenDict) -> FrozenDict:
        messages = list(body["messages"])
        if isinstance(messages[place].get("content"), list):
            first, *rest = messages[place]["content"]
            content = FrozenList([CHAT.mark_part(without_fields(first, CHAT_MARKS), long=True), *rest])
            messages[place] = FrozenDict(messages[place], content=content)
        return FrozenDict(body, messages=FrozenList(messages))

    return change


CHAT_MARKS = frozenset({"prompt_cache_breakpoint"})


def nameless(self: OpenAIChat, message: Message, previous: str | None) -> Rendered:
    return OpenAIChat.render_message(self, Message(message.role, message.parts), previous)


def numbered(self: OpenAIChat, message: Message, previous: str | None) -> Rendered:
    return OpenAIChat.render_message(
        self, Message(message.role, message.parts, f"n{next(_numbers)}"), previous
    )


def without_tools(self: OpenAIChat, message: Message, previous: str | None) -> Rendered:
    if message.tool_calls:
        raise LossyError("no calls")
    return OpenAIChat.render_message(self, message, previous)


def renaming(self: OpenAIChat, calls: Mapping[str, str]) -> OpenAIChat:
    self.called = str(calls)  # type: ignore[attr-defined]  # the fault: state of a shared object
    return self


def named_results(self: OpenAIChat, message: Message, previous: str | None) -> Rendered:
    name = getattr(self, "called", None) if message.role == "tool" else message.name
    return OpenAIChat.render_message(self, Message(message.role, message.parts, name), previous)


def other_rules(self: OpenAIChat, model: str) -> OpenAIChat:
    return OpenAIChat(replace(PREFIX_RULES, step=1 + next(_numbers)))


def forgetful(self: OpenAIChat, model: str) -> OpenAIChat:
    self.rules = OpenAIChat.bind(self, model).rules
    return self


def sorted_schema(self: OpenAIChat, tool: Tool) -> FrozenDict:
    wire: FrozenDict = freeze(json.loads(json.dumps(OpenAIChat.render_tool(self, tool), sort_keys=True)))
    return wire


def loud(self: OpenAIChat, response: Any) -> Message:
    message = OpenAIChat.read_message(self, response)
    return Message(
        message.role, [Text(part.text.upper()) if isinstance(part, Text) else part for part in message.parts]
    )


def patient(self: OpenAIChat, response: Any) -> Message:
    try:
        return OpenAIChat.read_message(self, response)
    except DialectError:
        return Message("assistant", "")


def exclusive(self: OpenAIChat, response: Any) -> Usage | None:
    usage = OpenAIChat.read_usage(self, response)
    return None if usage is None else Usage(usage.fresh_tokens, usage.output_tokens)


def trusting(self: OpenAIChat, response: Any) -> Usage | None:
    try:
        return OpenAIChat.read_usage(self, response)
    except DialectError:
        return Usage()


def uncut(self: OpenAIChat, response: Any) -> Usage | None:
    usage = OpenAIChat.read_usage(self, response)
    details = response["usage"]["prompt_tokens_details"] if usage is not None else {}
    return None if usage is None else Usage(usage.input_tokens, 0, details["cached_tokens"])


def half(self: OpenAIChat, client: Any, kwargs: Any) -> Iterator[Event]:
    with suppress(DialectError):
        yield from OpenAIChat.stream(self, client, kwargs)
    yield Event("done", value=openai_whole(PLAIN))


def stammering(self: OpenAIChat, client: Any, kwargs: Any) -> Iterator[Event]:
    for event in OpenAIChat.stream(self, client, kwargs):
        yield from [event] * (1 if event.kind == "done" else 2)


def known_only(self: OpenAIChat, body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in OpenAIChat.kwargs(self, body).items() if key != "extra_body"}


def toolless(self: OpenAIChat, client: Any, kwargs: Mapping[str, Any]) -> Any:
    return OpenAIChat.send(self, client, {key: value for key, value in kwargs.items() if key != "tools"})


FAULTS: dict[str, OpenAIChat] = {
    "test_it_keeps_the_protocol": faulty(name=""),
    "test_its_figures_make_sense": OpenAIChat(replace(PREFIX_RULES, read_multiplier=1.5)),
    "test_every_figure_names_its_source": OpenAIChat(replace(PREFIX_RULES, step=7)),
    "test_no_source_is_for_nothing": OpenAIChat(
        replace(PREFIX_RULES, sources={"match": "a guess", "least": "another"})
    ),
    "test_binding_leaves_the_dialect_as_it_was": faulty(bind=forgetful),
    "test_a_session_is_bound_to_its_model": faulty(bind=other_rules),
    "test_rendering_twice_gives_the_same_bytes": faulty(render_message=numbered),
    "test_answering_leaves_the_dialect_as_it_was": faulty(answering=renaming, render_message=named_results),
    "test_what_is_rendered_is_read_only": rendering(
        lambda made: replace(made, blocks=tuple({**b} for b in made.blocks))
    ),
    "test_a_mark_has_a_part_to_stand_on": rendering(lambda made: replace(made, mark_at=9)),
    "test_nobody_can_damage_a_session_through_a_body": assembling(lambda _, body: dict(body)),
    "test_all_that_a_message_says_is_on_the_wire": faulty(render_message=nameless),
    "test_not_everything_is_refused": faulty(render_message=without_tools),
    "test_a_reply_comes_back_equal": faulty(read_message=loud),
    "test_a_reply_that_goes_on_says_all_it_said": faulty(read_message=loud),
    "test_a_tool_keeps_its_schema": faulty(render_tool=sorted_schema),
    "test_a_request_changes_nothing": assembling(lambda _, body: FrozenDict(body, seed=next(_numbers))),
    "test_dynamic_text_moves_nothing": assembling(minded),
    "test_dynamic_text_is_sent_for_one_turn": assembling(lambda _, body: freeze(without_text(body, DYNAMIC))),
    "test_marks_stay_within_the_slots": assembling(
        lambda _, body: FrozenDict(
            body, tools=FrozenList(CHAT.mark_part(tool, long=False) for tool in body["tools"])
        )
    ),
    "test_a_model_that_takes_marks_gets_them": faulty(mark_part=lambda self, part, long: part),
    "test_marks_stand_on_kinds_that_take_them": assembling(
        lambda _, body: FrozenDict(
            body, tools=FrozenList(CHAT.mark_part(tool, long=False) for tool in body["tools"])
        )
    ),
    "test_nothing_below_the_minimum_is_marked": assembling(marked_at(0)),
    "test_a_mark_changes_nothing_else": faulty(
        mark_part=lambda self, part, long: FrozenDict(
            OpenAIChat.mark_part(self, part, long=long), note="marked"
        )
    ),
    "test_long_marks_come_first": assembling(marked_at(-1)),
    "test_the_routing_key_stands_in_its_field": assembling(
        lambda draft, body: FrozenDict(body, user=draft.routing_key)
    ),
    "test_usage_is_read_as_reported": faulty(read_usage=exclusive),
    "test_counts_that_make_no_sense_are_refused": faulty(read_usage=trusting),
    "test_a_report_that_contradicts_itself_loses_no_reply": faulty(read_usage=uncut),
    "test_what_is_no_response_has_no_usage": faulty(read_usage=trusting),
    "test_replies_are_read": faulty(read_message=loud),
    "test_what_is_no_reply_is_refused": faulty(read_message=patient),
    "test_ids_and_diagnoses_are_read_without_harm": faulty(read_id=lambda self, response: 5),
    "test_a_session_goes_on_with_a_reply": faulty(read_message=loud),
    "test_a_stream_ends_with_the_whole_reply": faulty(stream=stammering),
    "test_a_stream_that_breaks_off_is_no_reply": faulty(stream=half),
    "test_no_field_of_a_body_is_lost": faulty(kwargs=known_only),
    "test_what_is_sent_is_what_was_asked_for": faulty(send=toolless),
    "test_a_client_of_another_sdk_is_refused": faulty(send=lambda self, client, kwargs: None),
    "test_prewarming_sends_the_same_prefix": faulty(
        prewarm=lambda self, body: FrozenDict(body, messages=FrozenList(body["messages"][1:]))
    ),
}


@pytest.mark.moves_prefix(reason="the faulty dialect puts a count in front of the history")
def test_a_moving_prefix_breaks_the_contract() -> None:
    _assert_fails("test_a_conversation_only_grows", assembling(front))


@pytest.mark.parametrize("test", FAULTS)
def test_a_fault_breaks_the_contract(test: str) -> None:
    _assert_fails(test, FAULTS[test])


def test_there_is_a_fault_for_every_promise() -> None:
    promises = {name for name in dir(DialectContract) if name.startswith("test_")}
    elsewhere = {"test_a_conversation_only_grows", "test_nothing_is_left_out_without_a_reason"}
    assert FAULTS.keys() == promises - elsewhere


def _assert_fails(test: str, broken: OpenAIChat) -> None:
    class Broken(TestOpenAI):
        dialect = broken

    given = {"served": "gpt-5.6", "strange": "text"}
    arguments = [
        given[name] for name in inspect.signature(getattr(Broken, test)).parameters if name != "self"
    ]
    getattr(TestOpenAI(), test)(*arguments)
    with pytest.raises((AssertionError, LLMBufferError, pytest.fail.Exception)):
        getattr(Broken(), test)(*arguments)


def test_a_promise_is_not_taken_back_in_silence() -> None:
    class Silent(TestOpenAI):
        def test_replies_are_read(self) -> None:
            """Nothing."""

    class Told(TestOpenAI):
        @pytest.mark.skip(reason="this provider never answers")
        def test_replies_are_read(self) -> None:
            """Nothing."""

    Told().test_nothing_is_left_out_without_a_reason()
    with pytest.raises(AssertionError, match="test_replies_are_read"):
        Silent().test_nothing_is_left_out_without_a_reason()


def test_a_dialect_without_examples_is_told_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match="DialectContract"):
        DialectContract().as_response(())


def test_the_class_of_the_docs_passes_in_a_suite_of_its_own(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "dialects.md").read_text("utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    first, own = snippets[0], next(snippet for snippet in snippets if "(DialectContract)" in snippet)
    (tmp_path / "test_mine.py").write_text(first + own, "utf-8")
    plain = ["-p", "no:hypothesispytest", "-p", "no:asyncio", "-p", "no:cacheprovider", "-W", "error"]
    command = [sys.executable, "-m", "pytest", "-q", *plain, "test_mine.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert re.search(r"\b[3-9]\d passed", run.stdout)


def test_the_contract_loads_no_sdk_and_only_when_asked_for() -> None:
    program = (
        "import sys, llmbuffer.testing; before = 'pytest' in sys.modules; llmbuffer.testing.DialectContract; "
        "print(before, *sorted({'anthropic', 'google', 'hypothesis', 'openai', 'pytest'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "pytest"]
