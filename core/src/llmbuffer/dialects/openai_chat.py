"""OpenAI's chat completions, and every endpoint that speaks them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from ..errors import DialectError, LossyError
from ..frozen import FrozenDict, FrozenList, freeze
from ..messages import Message, Tool
from ..openai_messages import from_openai, wire_message
from ..rules import CacheRules, Draft, Event, Rendered
from ..usage import Usage
from . import openai_rules
from .base import ModelRules, as_dict, count_field, endpoint, mapping_field, sdk_arguments
from .openai_marks import routed, with_breakpoint
from .openai_stream import ChatAccumulator

__all__ = ["OpenAIChat"]

_SDK_FIELDS = frozenset(
    [
        "audio",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "modalities",
        "model",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "reasoning_effort",
        "response_format",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
    ]
)
_PATH = "chat.completions"
_SPEAKERS = frozenset({"assistant", "user"})
_INSTRUCTIONS = frozenset({"system", "developer"})


class OpenAIChat(ModelRules):
    """The ``openai`` dialect. ``rules`` given by hand (an endpoint of your own) replace the table by model.

    Whether a breakpoint on a tool result ever writes an entry is disputed for gpt-5.6: ``mark_tool_results=True`` puts
    them there, the default does not.

    >>> OpenAIChat().bind("gpt-5.6").rules.has_marks
    True
    """

    name = "openai"
    default_model = "gpt-5.6"
    system_in_messages = True
    content_key = "content"

    rules_for = staticmethod(openai_rules.rules_for)

    def __init__(self, rules: CacheRules | None = None, *, mark_tool_results: bool = False) -> None:
        self._mark_tool_results = mark_tool_results
        super().__init__(rules)

    def chosen(self, rules: CacheRules) -> CacheRules:
        """The rules, with marks on tool results as asked."""
        if not self._mark_tool_results or not rules.has_marks:
            return rules
        return replace(rules, markable=rules.markable | {"tool_result"})

    def render_message(self, message: Message, previous_role: str | None) -> Rendered:
        """One wire message, or one for each result of a tool message."""
        role, text = message.role, message._content
        if (
            role in _SPEAKERS
            and isinstance(text, str)
            and message.name is None
            and self.rules.content_parts != "always"
        ):
            return Rendered(role, (FrozenDict(role=role, content=text),), False, -1)  # the most common one
        if message.role == "tool" and len(message.tool_results) > 1:
            blocks = tuple(self._wire(each) for each in _split_results(message))
        else:
            blocks = (self._wire(message),)
        return Rendered(role=message.role, blocks=blocks, joins=False, mark_at=self._mark_at(blocks[-1]))

    def _wire(self, message: Message) -> FrozenDict:
        role = self.rules.instruction_role if message.role in _INSTRUCTIONS else message.role
        as_parts = self.rules.content_parts == "always" and self._takes_marks(role)
        text = message._content
        if isinstance(text, str) and message.name is None and not as_parts and role != "tool":
            return FrozenDict(role=role, content=text)
        wire = wire_message(message)
        wire["role"] = role
        content = wire.get("content")
        if as_parts and isinstance(content, str):
            wire["content"] = [{"type": "text", "text": content}]
        elif not as_parts and isinstance(text, str) and "content" in wire:
            wire["content"] = text
        return freeze(wire, f"{message.role} message")  # type: ignore[no-any-return]  # freeze keeps the kind

    def _mark_at(self, wire: FrozenDict) -> int:
        content = wire.get("content")
        if not self.rules.markable or not isinstance(content, list) or not self._takes_marks(wire["role"]):
            return -1
        kinds = [index for index, part in enumerate(content) if part.get("type") in self.rules.markable]
        return kinds[-1] if kinds else -1

    def _takes_marks(self, role: str) -> bool:
        return "tool_result" in self.rules.markable if role == "tool" else role != "assistant"

    def wrap(self, role: str, blocks: tuple[FrozenDict, ...]) -> FrozenDict:
        """A block is a whole wire message here."""
        return blocks[0]

    def render_tool(self, tool: Tool) -> FrozenDict:
        """A function tool, or a provider's own kind as it came."""
        if tool.opaque is not None:
            return tool.opaque.value  # type: ignore[no-any-return]  # an opaque tool is a JSON object
        function: dict[str, Any] = {"name": tool.name}
        if tool.description is not None:
            function["description"] = tool.description
        if tool.parameters is not None:
            function["parameters"] = msgspec.json.decode(tool.parameters)
        if tool.extra is not None:
            function.update(msgspec.json.decode(tool.extra))
        return freeze({"type": "function", "function": function}, tool.name)

    def render_system(self, texts: Sequence[str]) -> FrozenList:
        """One leading message: a list of parts where marks may go on them, else one string."""
        if not texts:
            return FrozenList()
        if self.rules.content_parts == "always":
            content: Any = FrozenList(self.dynamic_part(text) for text in texts)
        else:
            content = "\n\n".join(texts)
        return FrozenList([FrozenDict(role=self.rules.instruction_role, content=content)])

    def dynamic_part(self, text: str) -> FrozenDict:
        """A text part."""
        return FrozenDict(type="text", text=text)

    def mark_part(self, part: Mapping[str, Any], *, long: bool) -> FrozenDict:
        """The part with ``prompt_cache_breakpoint``; one that the user put there stays."""
        return with_breakpoint(part, long=long)

    def assemble(self, draft: Draft) -> FrozenDict:
        """The body; ``system`` already leads ``messages``."""
        body: dict[str, Any] = {"model": draft.model, "messages": draft.messages}
        if draft.tools:
            body["tools"] = draft.tools
        body.update(routed(self.rules, draft.routing_key))
        params = draft.params
        if self.rules.implicit and not draft.implicit:
            options = params.get("prompt_cache_options") or {}
            params = {**params, "prompt_cache_options": FrozenDict({"mode": "explicit", **options})}
        return FrozenDict(body, **params)

    def kwargs(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments for ``client.chat.completions.create``."""
        return sdk_arguments(body, "openai", "resources.chat.completions.Completions", _SDK_FIELDS)

    def read_usage(self, response: Any) -> Usage | None:
        """``prompt_tokens`` include the cached ones; DeepSeek's own field names are read too."""
        usage = mapping_field(as_dict(response), "usage")
        if not usage:
            return None
        details = mapping_field(usage, "prompt_tokens_details")
        total = count_field(usage, "prompt_tokens")
        # A report that contradicts itself is no reason to lose a reply that was paid for.
        read = min(
            total, count_field(details, "cached_tokens") or count_field(usage, "prompt_cache_hit_tokens")
        )
        return Usage(
            input_tokens=total,
            output_tokens=count_field(usage, "completion_tokens"),
            cache_read_tokens=read,
            cache_write_tokens=min(total - read, count_field(details, "cache_write_tokens")),
        )

    def read_message(self, response: Any) -> Message:
        """The first choice. Fields that say nothing (null, empty lists), and those that the SDK added, are left out."""
        data = as_dict(response)
        choices = data.get("choices")
        choice = choices[0] if isinstance(choices, list | tuple) and choices else None
        message = choice.get("message") if isinstance(choice, Mapping) else None
        if not isinstance(message, Mapping):
            raise DialectError(f"the response has no choices with a message: found the fields {list(data)}")
        kept = {
            key: value
            for key, value in message.items()
            if key == "content" or (key != "parsed" and value not in (None, [], {}))
        }
        if isinstance(kept.get("tool_calls"), list):
            kept["tool_calls"] = [_as_sent(call) for call in kept["tool_calls"]]
        return from_openai({"content": None, **kept, "role": "assistant"})

    def send(self, client: Any, kwargs: Mapping[str, Any]) -> Any:
        """``client.chat.completions.create(**kwargs)``"""
        return endpoint(client, _PATH).create(**kwargs)

    async def asend(self, client: Any, kwargs: Mapping[str, Any]) -> Any:
        """The same with ``AsyncOpenAI``."""
        return await endpoint(client, _PATH).create(**kwargs)

    def stream(self, client: Any, kwargs: Mapping[str, Any]) -> Iterator[Event]:
        """Text as it comes; the last event holds the whole response. Usage is asked for."""
        whole = ChatAccumulator()
        with endpoint(client, _PATH).create(**_streaming(kwargs)) as chunks:
            for chunk in chunks:
                yield from whole.add(as_dict(chunk))
        yield Event("done", value=whole.response())

    async def astream(self, client: Any, kwargs: Mapping[str, Any]) -> AsyncIterator[Event]:
        """The same with ``AsyncOpenAI``."""
        whole = ChatAccumulator()
        async with await endpoint(client, _PATH).create(**_streaming(kwargs)) as chunks:
            async for chunk in chunks:
                for event in whole.add(as_dict(chunk)):
                    yield event
        yield Event("done", value=whole.response())


def _as_sent(call: Any) -> Any:
    """A call without what the SDK's parsing and streaming helpers added to it."""
    if not isinstance(call, Mapping):
        return call
    sent = {key: value for key, value in call.items() if key != "index" and value is not None}
    if isinstance(sent.get("function"), Mapping):
        sent["function"] = {
            key: value for key, value in sent["function"].items() if key != "parsed_arguments"
        }
    return sent


def _streaming(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    options = {"include_usage": True, **(kwargs.get("stream_options") or {})}
    return {**kwargs, "stream": True, "stream_options": options}


def _split_results(message: Message) -> list[Message]:
    if len(message.parts) != len(message.tool_results):
        raise LossyError("a tool message with several results holds other parts too; split it into one each")
    return [Message("tool", [result], message.name) for result in message.tool_results]
