"""OpenAI's Responses API, used without state on the server: every request brings the whole conversation."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

import msgspec
from msgspec.structs import replace

from ..errors import DialectError, LossyError
from ..frozen import FrozenDict, FrozenList, freeze
from ..messages import Message, Tool
from ..rules import CacheRules, Diagnosis, Draft, Event, Rendered
from ..usage import Usage
from . import openai_rules
from .base import ModelRules, as_dict, count_field, endpoint, mapping_field, sdk_arguments
from .openai_items import input_text, to_items
from .openai_marks import routed, with_breakpoint
from .openai_output import from_output
from .responses_stream import ResponseAccumulator, refusal

__all__ = ["OpenAIResponses"]

_SDK_FIELDS = frozenset(
    [
        "background",
        "context_management",
        "conversation",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "model",
        "parallel_tool_calls",
        "previous_response_id",
        "prompt",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    ]
)
_INSTRUCTIONS = frozenset({"system", "developer"})
_TYPES = "openai 3.54.0, types/responses/response_create_params.py"
_FROZEN = frozenset(
    {"instructions", "prompt", "reasoning", "service_tier", "text", "tool_choice", "truncation"}
)
_MARKABLE = frozenset({"input_text", "input_image", "input_file"})
# What the provider calls a reason, and the cause of a break that it stands for: openai 3.54.0, types/responses/response.py
_CAUSES = {
    "model_changed": "model-changed",
    "prompt_cache_key_changed": "evicted-or-routed",
    "tools_changed": "tool-schema-changed",
    "text_format_changed": "params-changed",
    "reasoning_effort_changed": "params-changed",
    "verbosity_changed": "params-changed",
    "service_tier_changed": "params-changed",
    "context_compacted": "compacted",
    "input_changed": "history-edited",
}


def rules_for(model: str) -> CacheRules:
    """The rules of one model: those of chat completions, with the names that this API has for parts and params.

    >>> sorted(rules_for("gpt-5.6").markable)
    ['input_file', 'input_image', 'input_text']
    """
    chat = openai_rules.rules_for(model)
    marks = chat.has_marks
    own = {
        "frozen_params": f"{_TYPES}: the fields that are part of the prompt",
        **(
            {
                "markable": f"{_TYPES}: content parts of input messages; tools, instructions and replies take none"
            }
            if marks
            else {}
        ),
    }
    return replace(
        chat,
        markable=_MARKABLE if marks else frozenset(),
        frozen_params=_FROZEN - {"tool_choice"} if marks else _FROZEN,
        sources=FrozenDict({**chat.sources, **own}),
    )


class OpenAIResponses(ModelRules):
    """The ``openai-responses`` dialect. ``rules`` given by hand (an endpoint of your own) replace the table by model.

    The params stay the user's: for conversations that OpenAI does not store, ask for ``{"store": False, "include":
    ["reasoning.encrypted_content"]}``, and the reasoning of a reply goes back with it. Function tools that
    leave ``strict`` out are sent with ``"strict": False``, which is what that means in chat completions; this API would
    make all their parameters required (OpenAI's guide on function calling).

    >>> OpenAIResponses().bind("gpt-5.6").rules.has_marks
    True
    """

    name = "openai-responses"
    default_model = "gpt-5.6"
    system_in_messages = True
    content_key = "content"

    rules_for = staticmethod(rules_for)

    def render_message(self, message: Message, previous_role: str | None) -> Rendered:
        """The items of one message; a message without parts is not sent."""
        role = self.rules.instruction_role if message.role in _INSTRUCTIONS else message.role
        blocks = to_items(message, role)
        if not blocks:
            return Rendered(role=role, blocks=(), joins=True, mark_at=-1)
        if role == "user" and not message.tool_results and "content" not in blocks[-1]:
            raise LossyError(
                f"the user message ends in an item of type {blocks[-1].get('type')!r}: put the user's words last, or give "
                "the item to a developer message"
            )
        return Rendered(role=role, blocks=blocks, joins=False, mark_at=self._mark_at(blocks[-1]))

    def _mark_at(self, item: FrozenDict) -> int:
        content = item.get("content")
        if not isinstance(content, list) or item.get("role") not in ("user", *_INSTRUCTIONS):
            return -1
        kinds = [index for index, part in enumerate(content) if part.get("type") in self.rules.markable]
        return kinds[-1] if kinds else -1

    def wrap(self, role: str, blocks: tuple[FrozenDict, ...]) -> FrozenDict:
        """A block is a whole item here."""
        return blocks[0]

    def render_tool(self, tool: Tool) -> FrozenDict:
        """A function tool in this API's flat shape, or a provider's own kind as it came."""
        if tool.opaque is not None:
            return _flat(tool.opaque.value)
        function: dict[str, object] = {"type": "function", "name": tool.name}
        if tool.description is not None:
            function["description"] = tool.description
        if tool.parameters is not None:
            function["parameters"] = msgspec.json.decode(tool.parameters)
        if tool.extra is not None:
            function.update(msgspec.json.decode(tool.extra))
        function.setdefault("strict", False)
        return freeze(function, tool.name)

    def render_system(self, texts: Sequence[str]) -> FrozenList:
        """One leading message: a part for each text where marks may go on them, else one part."""
        if not texts:
            return FrozenList()
        parts = texts if self.rules.content_parts == "always" else ["\n\n".join(texts)]
        content = FrozenList(map(input_text, parts))
        return FrozenList([FrozenDict(role=self.rules.instruction_role, content=content)])

    def dynamic_part(self, text: str) -> FrozenDict:
        """A text part."""
        return input_text(text)

    def mark_part(self, part: Mapping[str, Any], *, long: bool) -> FrozenDict:
        """The part with ``prompt_cache_breakpoint``; one that the user put there stays."""
        return with_breakpoint(part, long=long)

    def assemble(self, draft: Draft) -> FrozenDict:
        """The body; ``system`` already leads ``messages``."""
        body: dict[str, Any] = {"model": draft.model, "input": draft.messages}
        if draft.tools:
            body["tools"] = draft.tools
        body.update(routed(self.rules, draft.routing_key))
        params = draft.params
        options = self._options(draft)
        if options:
            own = params.get("prompt_cache_options") or {}
            params = {**params, "prompt_cache_options": FrozenDict({**options, **own})}
        return FrozenDict(body, **params)

    def _options(self, draft: Draft) -> dict[str, Any]:
        """Caching options of this request; older models refuse them all."""
        if not self.rules.implicit:
            return {}
        options: dict[str, Any] = {} if draft.implicit else {"mode": "explicit"}
        if draft.diagnostics and draft.compare_with is not None:
            options["comparison_response_id"] = draft.compare_with
        return options

    def kwargs(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments for ``client.responses.create``."""
        if "openai" in sys.modules:
            with suppress(ImportError):  # the SDK loads this part of itself at first use
                import_module("openai.resources.responses")
        return sdk_arguments(body, "openai", "resources.responses.Responses", _SDK_FIELDS)

    def read_usage(self, response: Any) -> Usage | None:
        """``input_tokens`` include those that were read and written."""
        usage = mapping_field(as_dict(response), "usage")
        if not usage:
            return None
        details = mapping_field(usage, "input_tokens_details")
        by_ttl = mapping_field(details, "cache_write_tokens_details")
        total = count_field(usage, "input_tokens")
        # A report that contradicts itself is no reason to lose a reply that was paid for.
        read = min(total, count_field(details, "cached_tokens"))
        written = min(total - read, count_field(details, "cache_write_tokens"))
        return Usage(
            input_tokens=total,
            output_tokens=count_field(usage, "output_tokens"),
            cache_read_tokens=read,
            cache_write_tokens=written,
            cache_write_long_tokens=min(written, count_field(by_ttl, "ttl_12h_tokens")),
        )

    def read_message(self, response: Any) -> Message:
        """All output items, as one message. Raises ``DialectError`` for a response that failed or is not finished."""
        data = as_dict(response)
        status = data.get("status")
        if status in ("failed", "cancelled"):
            raise refusal(data)
        if status in ("queued", "in_progress"):
            raise DialectError(
                f"the response is {status!r}: leave 'background' out, or observe it when it is complete"
            )
        if "output" not in data:
            raise DialectError(f"the response has no output: found the fields {list(data)}")
        return Message("assistant", from_output(data["output"]))

    def prewarm(self, body: Mapping[str, Any]) -> FrozenDict | None:
        """The body with ``prewarm``, which fills the cache and says nothing; ``None`` for older models."""
        if not self.rules.implicit:
            return None
        options = FrozenDict({**(body.get("prompt_cache_options") or {}), "prewarm": True})
        return FrozenDict({**body, "prompt_cache_options": options})

    def read_id(self, response: Any) -> str | None:
        """The response's id; diagnostics exist for the newer models only."""
        found = as_dict(response).get("id")
        return found if self.rules.implicit and isinstance(found, str) else None

    def read_diagnosis(self, response: Any) -> Diagnosis | None:
        """What ``prompt_cache_diagnostics`` say about a miss."""
        found = mapping_field(as_dict(response), "prompt_cache_diagnostics")
        if found.get("type") != "cache_miss":
            return None
        reason = str(found.get("reason"))
        known = found.get("cache_missed_tokens") is not None
        return Diagnosis(
            reason, _CAUSES.get(reason), count_field(found, "cache_missed_tokens") if known else None
        )

    def send(self, client: Any, kwargs: Mapping[str, Any]) -> Any:
        """``client.responses.create(**kwargs)``"""
        return endpoint(client, "responses").create(**kwargs)

    async def asend(self, client: Any, kwargs: Mapping[str, Any]) -> Any:
        """The same with ``AsyncOpenAI``."""
        return await endpoint(client, "responses").create(**kwargs)

    def stream(self, client: Any, kwargs: Mapping[str, Any]) -> Iterator[Event]:
        """Text as it comes; the last event holds the whole response."""
        whole = ResponseAccumulator()
        with endpoint(client, "responses").create(**{**kwargs, "stream": True}) as events:
            for event in events:
                yield from whole.add(as_dict(event))
        yield Event("done", value=whole.response())

    async def astream(self, client: Any, kwargs: Mapping[str, Any]) -> AsyncIterator[Event]:
        """The same with ``AsyncOpenAI``."""
        whole = ResponseAccumulator()
        async with await endpoint(client, "responses").create(**{**kwargs, "stream": True}) as events:
            async for event in events:
                for piece in whole.add(as_dict(event)):
                    yield piece
        yield Event("done", value=whole.response())


def _flat(tool: FrozenDict) -> FrozenDict:
    """A custom tool of chat completions, whose fields stand in an object of their own, as this API takes it."""
    inner = tool.get("custom")
    if tool.get("type") != "custom" or not isinstance(inner, Mapping):
        return tool
    format_ = inner.get("format")
    if isinstance(format_, Mapping) and isinstance(format_.get("grammar"), Mapping):
        inner = {**inner, "format": FrozenDict({"type": "grammar", **format_["grammar"]})}
    return FrozenDict({"type": "custom", **inner})
