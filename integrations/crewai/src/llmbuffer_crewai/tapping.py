"""A copy of the user's LLM that sends what a plan adds to a request, and tells what the request used.

CrewAI has no field of a call for routing or for marks on tools, and its usage leaves out what was written to a cache; so
the copy is of a class made from the LLM's own, with the few methods that make a request and read a response extended. What
belongs to one call travels in a context variable, so that calls may run side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from llmbuffer import Dialect, Usage
from llmbuffer.errors import LLMBufferError

__all__ = ["Wire", "dialect_name", "tapped"]


class Wire:
    """One call: ``arguments`` to add to the request, ``mark_tools`` (``None``, or whether for long), and the ``usage``."""

    __slots__ = ("arguments", "dialect", "mark_tools", "tracked", "usage")

    def __init__(
        self, dialect: Dialect, arguments: Mapping[str, Any] | None = None, *, mark_tools: bool | None = None
    ) -> None:
        self.dialect, self.arguments, self.mark_tools = dialect, dict(arguments or {}), mark_tools
        self.usage: Usage | None = None
        self.tracked: Usage | None = None

    @contextmanager
    def open(self) -> Iterator[Wire]:
        """The block in which the LLM is called."""
        token = _wire.set(self)
        try:
            yield self
        finally:
            _wire.reset(token)

    @property
    def used(self) -> Usage | None:
        """What the response reported; else what CrewAI counted."""
        return self.tracked if self.usage is None else self.usage

    def read(self, response: Any) -> None:
        """Take the usage out of a response of the SDK's."""
        with suppress(LLMBufferError):
            self.usage = self.dialect.read_usage(response) or self.usage

    def track(self, counted: Any) -> None:
        """Take what CrewAI counted, for LLMs whose responses are not seen."""
        if isinstance(counted, Mapping):
            self.tracked = _usage(counted) or self.tracked


_wire: ContextVar[Wire | None] = ContextVar("llmbuffer_crewai_wire", default=None)


def _usage(counted: Mapping[str, Any]) -> Usage | None:
    def first(*names: str) -> int:
        found = (counted.get(name) for name in names)
        return next((value for value in found if isinstance(value, int) and value > 0), 0)

    total = first("prompt_tokens", "input_tokens", "prompt_token_count")
    if not total:
        return None
    read = min(total, first("cached_prompt_tokens", "cached_tokens"))
    written = min(total - read, first("cache_creation_tokens"))
    output = first("completion_tokens", "output_tokens", "candidates_token_count")
    return Usage(total, output, read, written)


# What is extended


class _Tapped:
    """Any LLM: what it counts."""

    def _track_token_usage_internal(self, usage: Any) -> None:
        wire = _wire.get()
        if wire is not None:
            wire.track(usage)
        super()._track_token_usage_internal(usage)  # type: ignore[misc]  # of CrewAI's BaseLLM


class _TappedOpenAI(_Tapped):
    def _prepare_completion_params(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return _with_arguments(super()._prepare_completion_params(*args, **kwargs))  # type: ignore[misc]

    def _prepare_responses_params(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return _with_arguments(super()._prepare_responses_params(*args, **kwargs))  # type: ignore[misc]

    def _extract_openai_token_usage(self, response: Any) -> Any:
        _read(response)
        return super()._extract_openai_token_usage(response)  # type: ignore[misc]

    def _extract_responses_token_usage(self, response: Any) -> Any:
        _read(response)
        return super()._extract_responses_token_usage(response)  # type: ignore[misc]


class _TappedAnthropic(_Tapped):
    def _prepare_completion_params(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        params: dict[str, Any] = super()._prepare_completion_params(*args, **kwargs)  # type: ignore[misc]
        wire = _wire.get()
        if wire is not None:
            _lift_marks(params.get("messages") or ())
            if wire.mark_tools is not None and params.get("tools"):
                *others, last = params["tools"]
                params["tools"] = [*others, dict(wire.dialect.mark_part(last, long=wire.mark_tools))]
        return params

    def _extract_anthropic_token_usage(self, response: Any) -> Any:
        _read(response)
        return super()._extract_anthropic_token_usage(response)  # type: ignore[misc]


def _read(response: Any) -> None:
    wire = _wire.get()
    if wire is not None:
        wire.read(response)


def _with_arguments(params: dict[str, Any]) -> dict[str, Any]:
    """The request with what the plan adds; what the user set stays, and fields that an SDK may lack go round its checks."""
    wire = _wire.get()
    if wire is None:
        return params
    for name, value in wire.arguments.items():
        if name == "tool_choice":
            if params.get("tools") and params.get(name, "auto") == "auto":
                params[name] = value
        elif name == "prompt_cache_key":
            params.setdefault(name, value)
        elif name not in params:
            params["extra_body"] = {name: value, **(params.get("extra_body") or {})}
    return params


def _lift_marks(messages: Any) -> None:
    """Put a mark inside a tool result on the tool result, where Anthropic's guide has it."""
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        for block in content if isinstance(content, list) else ():
            inner = block.get("content") if isinstance(block, dict) else None
            if not isinstance(inner, list) or not inner or block.get("type") != "tool_result":
                continue
            if isinstance(inner[-1], dict) and "cache_control" in inner[-1]:
                last = dict(inner[-1])
                block["cache_control"] = last.pop("cache_control")
                block["content"] = [*inner[:-1], last]


# The copy

_classes: dict[type, type] = {}


def tapped(llm: Any) -> Any:
    """A copy of an LLM of CrewAI's that listens to ``Wire``; clients and counts are those of the original."""
    if isinstance(llm, _Tapped):
        return llm
    made = _classes.get(type(llm))
    if made is None:
        made = _classes[type(llm)] = _made(type(llm))
    copy = llm.model_copy()
    try:
        copy.__class__ = made
    except TypeError:  # a class with a layout of its own: it is called as it is, and tells nothing
        return llm
    return copy


def _made(kind: type) -> type:
    mixins = {"AnthropicCompletion": _TappedAnthropic, "OpenAICompletion": _TappedOpenAI}
    mixin = next((mixins[base.__name__] for base in kind.__mro__ if base.__name__ in mixins), _Tapped)
    return type(kind)(
        f"Tapped{kind.__name__}", (mixin, kind), {"__module__": __name__, "__doc__": kind.__doc__}
    )


def family(llm: Any) -> str:
    """Which of CrewAI's providers an LLM is: ``openai``, ``anthropic`` or ``other``."""
    names = {base.__name__ for base in type(llm).__mro__}
    if "AnthropicCompletion" in names:
        return "anthropic"
    return "openai" if "OpenAICompletion" in names else "other"


_BY_PROVIDER = {"anthropic": "anthropic", "gemini": "gemini", "google": "gemini", "deepseek": "deepseek"}


def dialect_name(llm: Any) -> str:
    """The dialect that an LLM speaks."""
    kind = family(llm)
    if kind == "openai" and getattr(llm, "api", "completions") == "responses":
        return "openai-responses"
    provider = str(getattr(llm, "provider", "") or "").lower()
    return "anthropic" if kind == "anthropic" else _BY_PROVIDER.get(provider, "openai")
