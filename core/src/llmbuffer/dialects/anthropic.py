"""Anthropic's Messages API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ..errors import DialectError, LossyError
from ..frozen import FrozenDict, FrozenList, freeze
from ..messages import Message, Tool
from ..rules import CacheRules, Diagnosis, Draft, Event, Rendered
from ..usage import Usage
from . import anthropic_rules
from .anthropic_blocks import block_kind, from_blocks, text_block, to_blocks
from .anthropic_stream import MessageAccumulator
from .base import ModelRules, as_dict, count_field, endpoint, mapping_field, sdk_arguments

__all__ = ["Anthropic"]

_SDK_FIELDS = frozenset(
    [
        "max_tokens",
        "messages",
        "model",
        "metadata",
        "service_tier",
        "stop_sequences",
        "stream",
        "system",
        "thinking",
        "tool_choice",
        "tools",
    ]
)
DEFAULT_MAX_TOKENS = 4096
TOOL_RUNS = frozenset({"tool_use", "tool_result"})
_CAUSES = {
    "model_changed": "model-changed",
    "system_changed": "system-changed",
    "tools_changed": "tool-schema-changed",
    "messages_changed": "history-edited",
}  # anthropic 2.12.0, types: cache_miss_reason
_OPENING = "(The conversation begins with the assistant's message.)"


class Anthropic(ModelRules):
    """The ``anthropic`` dialect. ``rules`` given by hand replace the table by model.

    Sources disagree on how the look-back counts tool blocks: ``collapse_tool_runs=True`` takes a run of them as one
    position, as Anthropic's guide for its own skills says; the default, which never reaches too far, counts each.

    The API requires ``max_tokens``; without one in the params, 4,096 is sent. It wants a user message first: a
    conversation that the assistant opens gets a fixed line before it.

    >>> Anthropic().bind("claude-sonnet-5.5").rules.slots
    4
    """

    name = "anthropic"
    default_model = "claude-sonnet-5.5"
    system_in_messages = False
    content_key = "content"

    rules_for = staticmethod(anthropic_rules.rules_for)

    def __init__(self, rules: CacheRules | None = None, *, collapse_tool_runs: bool = False) -> None:
        self._collapsed = TOOL_RUNS if collapse_tool_runs else frozenset[str]()
        super().__init__(rules)

    def chosen(self, rules: CacheRules) -> CacheRules:
        """The rules, with the look-back counted as asked."""
        return msgspec.structs.replace(rules, collapsed=self._collapsed)

    def render_message(self, message: Message, previous_role: str | None) -> Rendered:
        """Content blocks; consecutive messages of one role share a wire message."""
        role, blocks = self._role(message, previous_role), to_blocks(message)
        if message.role in ("system", "developer") and role == "user":
            blocks = tuple(_as_instruction(block) for block in blocks)
        elif role == "system" and any(block_kind(block) != "text" for block in blocks):
            raise LossyError(
                "an instruction between messages is text only: give what else it holds to the user message"
            )
        kinds = tuple(block_kind(block) for block in blocks)
        marks = [index for index, kind in enumerate(kinds) if kind in self.rules.markable]
        opens = previous_role is None and role == "assistant" and bool(blocks)
        lead = FrozenDict(role="user", content=FrozenList([text_block(_OPENING)])) if opens else None
        return Rendered(role, blocks, joins=True, mark_at=marks[-1] if marks else -1, kinds=kinds, lead=lead)

    def _role(self, message: Message, previous_role: str | None) -> str:
        if message.role in ("system", "developer"):
            return "system" if self.rules.midway_role and previous_role in ("user", "system") else "user"
        return "assistant" if message.role == "assistant" else "user"

    def wrap(self, role: str, blocks: tuple[FrozenDict, ...]) -> FrozenDict:
        """Blocks of one role as one wire message."""
        return FrozenDict(role=role, content=FrozenList(blocks))

    def render_tool(self, tool: Tool) -> FrozenDict:
        """A client tool with ``input_schema``, or a server tool as it came."""
        if tool.opaque is not None:
            return tool.opaque.value  # type: ignore[no-any-return]  # an opaque tool is a JSON object
        schema = {"type": "object"} if tool.parameters is None else msgspec.json.decode(tool.parameters)
        described = {} if tool.description is None else {"description": tool.description}
        extra = {} if tool.extra is None else msgspec.json.decode(tool.extra)
        wire = {"name": tool.name, **described, "input_schema": schema, **extra}
        return freeze(wire, f"tool {tool.name!r}")  # type: ignore[no-any-return]  # freeze keeps the kind

    def render_system(self, texts: Sequence[str]) -> FrozenList:
        """A text block for each segment."""
        return FrozenList(text_block(text) for text in texts if text)

    def dynamic_part(self, text: str) -> FrozenDict:
        """A text block."""
        return text_block(text)

    def mark_part(self, part: Mapping[str, Any], *, long: bool) -> FrozenDict:
        """The block with ``cache_control``; a mark that the user put there stays."""
        if part.get("cache_control") is not None:
            return FrozenDict(part)
        control = FrozenDict(type="ephemeral", ttl="1h") if long else FrozenDict(type="ephemeral")
        return FrozenDict(part, cache_control=control)

    def assemble(self, draft: Draft) -> FrozenDict:
        """The body; an implicit breakpoint and a routing key have no counterpart here."""
        body: dict[str, Any] = {"model": draft.model, "max_tokens": DEFAULT_MAX_TOKENS}
        if draft.tools:
            body["tools"] = draft.tools
        if draft.system:
            body["system"] = draft.system
        body["messages"] = draft.messages
        if draft.diagnostics:
            body["diagnostics"] = FrozenDict(previous_message_id=draft.compare_with)
        return FrozenDict(body, **draft.params)

    def prewarm(self, body: Mapping[str, Any]) -> FrozenDict | None:
        """The body with ``max_tokens`` 0; ``None`` with what the API refuses beside it: thinking, a format, a forced tool."""
        forced = mapping_field(body, "tool_choice").get("type") in ("any", "tool")
        thinks = mapping_field(body, "thinking").get("type", "disabled") != "disabled"
        if forced or thinks or "format" in mapping_field(body, "output_config"):
            return None
        return FrozenDict({**{key: value for key, value in body.items() if key != "stream"}, "max_tokens": 0})

    def read_id(self, response: Any) -> str | None:
        """The message's id."""
        found = as_dict(response).get("id")
        return found if isinstance(found, str) else None

    def read_diagnosis(self, response: Any) -> Diagnosis | None:
        """``diagnostics.cache_miss_reason``; null while the comparison is pending, and where nothing diverged."""
        reason = mapping_field(mapping_field(as_dict(response), "diagnostics"), "cache_miss_reason")
        kind = reason.get("type")
        if not isinstance(kind, str):
            return None
        missed = "cache_missed_input_tokens"
        return Diagnosis(kind, _CAUSES.get(kind), count_field(reason, missed) if missed in reason else None)

    def kwargs(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments for ``client.messages.create``."""
        return sdk_arguments(body, "anthropic", "resources.messages.Messages", _SDK_FIELDS)

    def read_usage(self, response: Any) -> Usage | None:
        """``input_tokens`` exclude what was read and written here: they are added up."""
        usage = mapping_field(as_dict(response), "usage")
        if "input_tokens" not in usage:  # half a report, as of a stream whose first event is missing, is none
            return None
        read = count_field(usage, "cache_read_input_tokens")
        written = count_field(usage, "cache_creation_input_tokens")
        by_ttl = mapping_field(usage, "cache_creation")
        return Usage(
            input_tokens=count_field(usage, "input_tokens") + read + written,
            output_tokens=count_field(usage, "output_tokens"),
            cache_read_tokens=read,
            cache_write_tokens=written,
            cache_write_long_tokens=min(written, count_field(by_ttl, "ephemeral_1h_input_tokens")),
        )

    def read_message(self, response: Any) -> Message:
        """The content blocks of the reply; blocks without a neutral part stay as they came, but for fields that are null."""
        data = as_dict(response)
        if not isinstance(data.get("content"), str | list | tuple):
            raise DialectError(f"the response has no content: found the fields {list(data)}")
        content = data["content"]
        if not isinstance(content, str):
            content = [_without_nulls(block) for block in content]
        return Message("assistant", from_blocks(content))

    def send(self, client: Any, kwargs: Mapping[str, Any]) -> Any:
        """``client.messages.create(**kwargs)``"""
        return endpoint(client, "messages").create(**kwargs)

    async def asend(self, client: Any, kwargs: Mapping[str, Any]) -> Any:
        """The same with ``AsyncAnthropic``."""
        return await endpoint(client, "messages").create(**kwargs)

    def stream(self, client: Any, kwargs: Mapping[str, Any]) -> Iterator[Event]:
        """Text as it comes; the last event holds the whole response."""
        whole = MessageAccumulator()
        with endpoint(client, "messages").create(**{**kwargs, "stream": True}) as events:
            for event in events:
                yield from whole.add(as_dict(event))
        yield Event("done", value=whole.response())

    async def astream(self, client: Any, kwargs: Mapping[str, Any]) -> AsyncIterator[Event]:
        """The same with ``AsyncAnthropic``."""
        whole = MessageAccumulator()
        async with await endpoint(client, "messages").create(**{**kwargs, "stream": True}) as events:
            async for event in events:
                for piece in whole.add(as_dict(event)):
                    yield piece
        yield Event("done", value=whole.response())


def _without_nulls(block: Any) -> Any:
    """A block without the fields that the SDK's ``model_dump()`` fills up with null."""
    if not isinstance(block, Mapping):
        return block
    return {key: value for key, value in block.items() if value is not None}


def _as_instruction(block: FrozenDict) -> FrozenDict:
    if block.get("type") != "text":
        return block
    return text_block(f"<system>\n{block['text']}\n</system>")
