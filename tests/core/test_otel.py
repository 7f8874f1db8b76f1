"""Spans and measurements, with OpenTelemetry's own SDK and its exporters in memory."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as names
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.trace import SpanKind

from llmbuffer import LLMBufferError, Message, Session, StableContext, Usage
from llmbuffer.observing import WATCHERS, Reused
from llmbuffer.otel import instrument

RULES = "You track parcels, and you are brief and kind. " * 400
WARM = Usage(input_tokens=4100, output_tokens=20, cache_read_tokens=3968)


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Told(NamedTuple):
    """What the exporters got."""

    spans: InMemorySpanExporter
    reader: InMemoryMetricReader
    options: dict[str, Any]

    @property
    def attributes(self) -> list[dict[str, Any]]:
        return [dict(span.attributes or {}) for span in self.finished]

    @property
    def finished(self) -> tuple[ReadableSpan, ...]:
        return self.spans.get_finished_spans()

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in ([] if data is None else data.resource_metrics)
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def told() -> Iterator[Told]:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    yield Told(spans, reader, {"tracer_provider": tracers, "meter_provider": meters, "now": lambda: 10**18})
    tracers.shutdown()
    meters.shutdown()


def a_session(clock: Clock | None = None, **options: Any) -> Session:
    context = StableContext("gpt-5.5", RULES, params={"temperature": 0.5, "max_tokens": 64})
    return Session(context, clock=clock or Clock(), **options)


def turn(
    session: Session, usage: Usage, text: str = "Where is the parcel of Ann?", seconds: float = 2.0
) -> None:
    request = session.request(text)
    assert isinstance(session.clock, Clock)
    session.clock.seconds += seconds
    request.observe(usage, Message("assistant", "In the harbour of Genoa."))


def test_a_request_becomes_a_span_in_the_conventions_names(told: Told) -> None:
    session = a_session()
    with instrument(session, **told.options):
        turn(session, Usage(input_tokens=4050, output_tokens=7))
        turn(session, WARM)
    _, second = told.finished
    assert (second.name, second.kind) == ("chat gpt-5.5", SpanKind.CLIENT)
    assert (second.end_time, second.start_time) == (10**18, 10**18 - 2 * 10**9)
    attributes = told.attributes[1]
    assert attributes[names.GEN_AI_OPERATION_NAME] == names.GenAiOperationNameValues.CHAT.value
    assert attributes[names.GEN_AI_PROVIDER_NAME] == names.GenAiProviderNameValues.OPENAI.value
    assert attributes[names.GEN_AI_REQUEST_MODEL] == "gpt-5.5"
    assert attributes[names.GEN_AI_REQUEST_TEMPERATURE] == 0.5
    assert attributes[names.GEN_AI_REQUEST_MAX_TOKENS] == 64
    assert attributes[names.GEN_AI_CONVERSATION_ID] == session.id
    assert attributes[names.GEN_AI_USAGE_INPUT_TOKENS] == 4100
    assert attributes[names.GEN_AI_USAGE_OUTPUT_TOKENS] == 20
    assert attributes[names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS] == 3968
    assert attributes[names.GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS] == 0
    assert attributes["llmbuffer.hit_ratio"] == pytest.approx(3968 / 4100)
    assert attributes["llmbuffer.cost_usd"] == session.ledger[1].cost
    assert attributes["llmbuffer.forecast.read_tokens"] == session.ledger[1].forecast_read_tokens > 3000
    known = {value for name, value in vars(names).items() if name.startswith("GEN_AI_")}
    assert {name for name in attributes if name.startswith("gen_ai.")} <= known


def test_measurements_are_in_the_conventions_names_too(told: Told) -> None:
    session = a_session()
    with instrument(session, **told.options):
        turn(session, Usage(input_tokens=4050, output_tokens=7))
        turn(session, WARM)
    tokens = {
        point.attributes[names.GEN_AI_TOKEN_TYPE]: point.sum
        for point in told.points(gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE)
    }
    assert tokens == {"input": 8150, "output": 27}
    [duration] = told.points(gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION)
    assert (duration.sum, duration.count) == (4.0, 2)
    cached = {
        point.attributes["llmbuffer.cache.kind"]: point.value
        for point in told.points("llmbuffer.cache.tokens")
    }
    assert cached == {"read": 3968, "write": 0, "fresh": 8150 - 3968}
    [cost] = told.points("llmbuffer.cost")
    assert cost.value == pytest.approx(session.ledger.cost)
    assert told.points("llmbuffer.cache.breaks") == []


def test_a_break_is_an_event_with_its_cause_and_no_text(told: Told) -> None:
    session = a_session()
    with instrument(session, **told.options):
        turn(session, Usage(input_tokens=4050, output_tokens=7))
        turn(session, Usage(input_tokens=4100, output_tokens=7))
    [found] = session.ledger.breaks
    [event] = told.finished[1].events
    assert event.name == "llmbuffer.cache_break"
    assert event.attributes is not None
    assert event.attributes["llmbuffer.break.cause"] == found.cause == "evicted-or-routed"
    assert event.attributes["llmbuffer.break.tokens_lost"] == found.tokens_lost > 3000
    [counted] = told.points("llmbuffer.cache.breaks")
    assert (counted.value, counted.attributes["llmbuffer.break.cause"]) == (1, "evicted-or-routed")
    [lost] = told.points("llmbuffer.cache.tokens_lost")
    assert lost.value == found.tokens_lost


def test_no_text_of_prompt_or_reply_is_told(told: Told) -> None:
    session = a_session()
    with instrument(session, **told.options):
        turn(session, Usage(input_tokens=4050, output_tokens=7))
        turn(session, Usage(input_tokens=4100, output_tokens=7))
    data = told.reader.get_metrics_data()
    shown = "".join(span.to_json() for span in told.finished) + ("" if data is None else data.to_json())
    assert "evicted-or-routed" in shown
    for private in ("parcel", "Ann", "brief", "harbour", "Genoa"):
        assert private not in shown


def test_forks_are_told_and_other_sessions_are_not(told: Told) -> None:
    session, other = a_session(), a_session()
    with instrument(session, **told.options):
        turn(session, WARM)
        worker = session.fork("worker-1")
        turn(worker, WARM)
        turn(other, WARM)
    assert [each[names.GEN_AI_CONVERSATION_ID] for each in told.attributes] == [session.id, worker.id]
    assert told.attributes[1][names.GEN_AI_AGENT_NAME] == "worker-1"


def test_without_a_target_every_session_is_told(told: Told) -> None:
    one, other = a_session(), a_session()
    with instrument(**told.options):
        turn(one, WARM)
        turn(other, WARM)
    assert {each[names.GEN_AI_CONVERSATION_ID] for each in told.attributes} == {one.id, other.id}


def test_uninstrumenting_restores_what_was(told: Told) -> None:
    before = list(WATCHERS)
    session = a_session()
    instrumentation = instrument(session, **told.options)
    assert len(WATCHERS) == len(before) + 1
    instrumentation.uninstrument()
    instrumentation.uninstrument()
    assert before == WATCHERS
    turn(session, WARM)
    assert told.finished == ()


def test_nothing_is_told_unless_it_is_asked_for(told: Told) -> None:
    turn(a_session(), WARM)
    assert told.finished == ()
    program = "import sys; import llmbuffer, llmbuffer.otel; print('opentelemetry' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_a_span_stands_under_the_one_that_is_current(told: Told) -> None:
    session = a_session()
    tracer = told.options["tracer_provider"].get_tracer("program")
    with instrument(session, **told.options), tracer.start_as_current_span("turn") as above:
        turn(session, WARM)
    assert told.finished[0].parent is not None
    assert told.finished[0].parent.span_id == above.get_span_context().span_id


def test_a_reply_that_was_there_is_no_call_of_a_client(told: Told) -> None:
    session = a_session()
    with instrument(session, **told.options):
        session.request("Where is it?").observe(Reused(Message("assistant", "Here.")))
    assert told.finished[0].kind == SpanKind.INTERNAL
    assert told.attributes[0]["llmbuffer.reused"] is True
    assert told.points(gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION) == []


def test_usage_that_was_not_reported_is_not_invented(told: Told) -> None:
    session = a_session()
    with instrument(session, **told.options):
        session.request("Where is it?").observe(None, Message("assistant", "Here."))
    assert not [name for name in told.attributes[0] if name.startswith("gen_ai.usage")]
    assert told.points(gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE) == []


class Broken:
    def get_tracer(self, *arguments: Any, **options: Any) -> Any:
        return self

    def start_span(self, *arguments: Any, **options: Any) -> Any:
        raise RuntimeError("the exporter says: the parcel of Ann")


def test_a_fault_of_an_exporter_never_fails_a_request(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    session = a_session()
    options: dict[str, Any] = {**told.options, "tracer_provider": Broken()}
    with instrument(session, **options), caplog.at_level(logging.WARNING):
        turn(session, WARM)
        turn(session, WARM)
    assert session.ledger.requests == 2
    assert len(caplog.records) == 1
    assert "Ann" not in caplog.text


def test_providers_have_the_conventions_names(told: Told) -> None:
    for dialect, model in (
        ("anthropic", "claude-sonnet-5.5"),
        ("gemini", "gemini-3.1-pro"),
        ("deepseek", "deepseek-v4-pro"),
    ):
        session = Session(StableContext(model, RULES), dialect=dialect, clock=Clock())
        with instrument(session, **told.options):
            turn(session, WARM)
    known = {each.value for each in names.GenAiProviderNameValues}
    assert [each[names.GEN_AI_PROVIDER_NAME] for each in told.attributes] == [
        "anthropic",
        "gcp.gemini",
        "deepseek",
    ]
    assert {each[names.GEN_AI_PROVIDER_NAME] for each in told.attributes} <= known
    assert told.finished[1].name == "generate_content gemini-3.1-pro"


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(LLMBufferError, match=r"llmbuffer\[otel\]"):
        instrument()


def test_attributes_are_json(told: Told) -> None:
    session = a_session()
    with instrument(session, **told.options):
        turn(session, WARM)
    assert json.loads(told.finished[0].to_json())["attributes"]["llmbuffer.epoch"] == 0
