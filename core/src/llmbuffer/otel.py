"""OpenTelemetry: a span and measurements for every observed request, in the semantic conventions for generative AI.

Off until ``instrument`` is called. Attributes hold counts, names, places and prices, never text of a prompt or a reply.
Names under ``gen_ai`` are those of opentelemetry-semantic-conventions 0.66b2, those of our own stand under ``llmbuffer``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from .errors import LLMBufferError
from .family import Family
from .observing import WATCHERS, Observation
from .session import Session

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider
    from typing_extensions import Self

    from .breaks import CacheBreak
    from .ledger import LedgerEntry
    from .request import Request

__all__ = ["Instrumentation", "instrument"]

_log = logging.getLogger("llmbuffer.otel")
_PROVIDERS = {"openai-responses": "openai", "gemini": "gcp.gemini"}
_PARAMS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "maxOutputTokens": "max_tokens",
}
# Bounds of histograms, as the conventions advise.
_TOKENS = [float(4**power) for power in range(14)]
_SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]


def instrument(
    target: Session | Family | None = None,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    now: Callable[[], int] = time.time_ns,
) -> Instrumentation:
    """Tell OpenTelemetry about the requests of a session and all its forks, of a family, or (``None``) of this process.

    A span ends when a request is observed and begins as long before as it was made, by the session's clock; ``now`` gives
    nanoseconds since the epoch. Its parent is the span that is current where ``observe`` is called. Providers are the
    global ones unless given. A fault in an exporter never fails a request: the logger ``llmbuffer.otel`` warns once.

    Calling it twice for one target tells everything twice; end the first with ``uninstrument``, or use a ``with`` block.
    Raises ``LLMBufferError`` where opentelemetry is not installed (extra ``otel``).

    >>> from llmbuffer import StableContext
    >>> with instrument(Session(StableContext("gpt-5.5", "Be kind."))) as told:
    ...     told.active
    True
    >>> told.active
    False
    """
    try:
        from opentelemetry import metrics, trace
    except ImportError:
        raise LLMBufferError(
            "telling OpenTelemetry needs opentelemetry-api: pip install 'llmbuffer[otel]>=1'"
        ) from None
    family = target.family if isinstance(target, Session) else target
    version = metadata.version("llmbuffer")
    tracer = trace.get_tracer("llmbuffer", version, tracer_provider)
    meter = metrics.get_meter("llmbuffer", version, meter_provider)
    return Instrumentation(family, tracer, meter, now)


class Instrumentation:
    """What ``instrument`` began; ``uninstrument`` ends it, and so does leaving a ``with`` block."""

    def __init__(self, family: Family | None, tracer: Any, meter: Any, now: Callable[[], int]) -> None:
        self._family, self._tracer, self._now = family, tracer, now
        self._usage = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._cache = meter.create_counter(
            "llmbuffer.cache.tokens",
            unit="{token}",
            description="Prompt tokens read, written and computed afresh.",
        )
        self._breaks = meter.create_counter(
            "llmbuffer.cache.breaks", unit="{break}", description="Cache breaks by cause."
        )
        self._lost = meter.create_counter(
            "llmbuffer.cache.tokens_lost",
            unit="{token}",
            description="Tokens that cache breaks had billed again.",
        )
        self._cost = meter.create_counter("llmbuffer.cost", unit="USD", description="What requests cost.")
        self._warned = False
        WATCHERS.append(self._watch)

    @property
    def active(self) -> bool:
        """Whether requests are told."""
        return self._watch in WATCHERS

    def uninstrument(self) -> None:
        """Tell nothing from now on. A second call does nothing."""
        if self.active:
            WATCHERS.remove(self._watch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.uninstrument()

    def _watch(self, request: Request, seen: Observation) -> None:
        if self._family is not None and request.session.family is not self._family:
            return
        try:
            self._tell(request, seen)
        except Exception as error:  # noqa: BLE001 - an exporter's fault is not the request's
            if not self._warned:
                self._warned = True
                _log.warning("a request could not be told to OpenTelemetry (%s)", type(error).__name__)

    def _tell(self, request: Request, seen: Observation) -> None:
        from opentelemetry.trace import SpanKind

        common = _common(request)
        seconds = max(0.0, request.session.clock() - request.at)
        end = self._now()
        span = self._tracer.start_span(
            f"{common['gen_ai.operation.name']} {common['gen_ai.request.model']}",
            kind=SpanKind.INTERNAL if seen.reused else SpanKind.CLIENT,
            attributes={**common, **_about(request, seen)},
            start_time=end - round(seconds * 1e9),
        )
        if seen.cache_break is not None:
            span.add_event("llmbuffer.cache_break", _about_break(seen.cache_break), end)
        span.end(end)
        if not seen.reused:
            self._measure(common, seen, seconds)

    def _measure(self, common: Mapping[str, Any], seen: Observation, seconds: float) -> None:
        self._duration.record(seconds, common)
        if seen.usage is not None:
            usage = seen.usage
            self._usage.record(usage.input_tokens, {**common, "gen_ai.token.type": "input"})
            self._usage.record(usage.output_tokens, {**common, "gen_ai.token.type": "output"})
            for kind, tokens in (
                ("read", usage.cache_read_tokens),
                ("write", usage.cache_write_tokens),
                ("fresh", usage.fresh_tokens),
            ):
                self._cache.add(tokens, {**common, "llmbuffer.cache.kind": kind})
        if seen.cost is not None:
            self._cost.add(seen.cost, common)
        if seen.cache_break is not None:
            by_cause = {**common, "llmbuffer.break.cause": seen.cache_break.cause}
            self._breaks.add(1, by_cause)
            self._lost.add(seen.cache_break.tokens_lost, by_cause)


def _common(request: Request) -> dict[str, Any]:
    """What spans and measurements share: few values, so that series stay few."""
    dialect = request.dialect.name
    return {
        "gen_ai.operation.name": "generate_content" if dialect == "gemini" else "chat",
        "gen_ai.provider.name": _PROVIDERS.get(dialect, dialect),
        "gen_ai.request.model": request.context.model,
    }


def _about(request: Request, seen: Observation) -> dict[str, Any]:
    about: dict[str, Any] = {
        "gen_ai.conversation.id": seen.session.id,
        "llmbuffer.dialect": request.dialect.name,
        "llmbuffer.epoch": seen.session.epoch,
        "llmbuffer.forked": seen.forked,
        "llmbuffer.reused": seen.reused,
    }
    if seen.session.name:
        about["gen_ai.agent.name"] = seen.session.name
    about.update(_params(request))
    if seen.usage is not None:
        about |= {
            "gen_ai.usage.input_tokens": seen.usage.input_tokens,
            "gen_ai.usage.output_tokens": seen.usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": seen.usage.cache_read_tokens,
            "gen_ai.usage.cache_creation.input_tokens": seen.usage.cache_write_tokens,
            "llmbuffer.usage.fresh_tokens": seen.usage.fresh_tokens,
            "llmbuffer.hit_ratio": seen.usage.hit_ratio,
        }
    if seen.cost is not None:
        about["llmbuffer.cost_usd"] = seen.cost
    entry = _entry(request, seen)
    if entry is not None:
        about |= {
            "llmbuffer.forecast.read_tokens": entry.forecast_read_tokens,
            "llmbuffer.forecast.write_tokens": entry.forecast_write_tokens,
            "llmbuffer.forecast.fresh_tokens": entry.forecast_fresh_tokens,
        }
    return about if seen.cache_break is None else {**about, **_about_break(seen.cache_break)}


def _params(request: Request) -> Iterator[tuple[str, float]]:
    for params in (request.context.params, request.params):
        for name, value in params.items():
            if name in _PARAMS and isinstance(value, int | float) and not isinstance(value, bool):
                yield f"gen_ai.request.{_PARAMS[name]}", value


def _entry(request: Request, seen: Observation) -> LedgerEntry | None:
    """The request's own entry of the ledger, unless another one came in meanwhile."""
    ledger = seen.session.ledger
    last = ledger[-1] if len(ledger) else None
    return last if last is not None and last.at == request.at and last.usage == seen.usage else None


def _about_break(found: CacheBreak) -> dict[str, Any]:
    """A break without its excerpts, which are text of the prompt."""
    about: dict[str, Any] = {
        "llmbuffer.break.cause": found.cause,
        "llmbuffer.break.section": found.section,
        "llmbuffer.break.tokens_lost": found.tokens_lost,
        "llmbuffer.break.confidence": found.confidence,
    }
    if found.path:
        about |= {"llmbuffer.break.path": found.path, "llmbuffer.break.offset": found.offset}
    if found.cost is not None:
        about["llmbuffer.break.cost_usd"] = found.cost
    return about
