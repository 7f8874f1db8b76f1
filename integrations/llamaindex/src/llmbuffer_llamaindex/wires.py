"""How a plan goes out through each kind of LLM: as LlamaIndex's own messages and arguments, marks through ``extra_body``.

LlamaIndex has no place for breakpoints on system texts, tool results and, with OpenAI, on anything. The SDKs let
``extra_body`` take the place of a field. So where a plan has marks, the messages are rendered by LlamaIndex's own functions,
marked, and handed over there.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, Protocol, cast

from llama_index.core.base.llms.types import CachePoint
from llama_index.core.llms import ChatMessage, MessageRole, TextBlock

from llmbuffer.reconcile import Plan, Tail
from llmbuffer.rules import Dialect
from llmbuffer.usage import Usage

__all__ = ["AnthropicWire", "OpenAIWire", "Wire", "usage_of", "wire_of"]

Sent = tuple[list[Any], dict[str, Any]]


class Wire(Protocol):
    """One kind of LLM: its ``dialect`` by default, and how calls of it are read and made."""

    dialect: str
    objects: bool

    def marked(self, messages: Sequence[Any], arguments: Mapping[str, Any]) -> int:
        """How many breakpoints the user and the framework place themselves."""
        ...

    def applied(self, plan: Plan, messages: Sequence[Any], arguments: Mapping[str, Any]) -> Sent:
        """Messages and arguments of the framework's own call; ``messages`` are the plan's, as the framework has them."""
        ...

    def streaming(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments with usage asked for at the end of a stream."""
        ...


def wire_of(llm: Any, *, stream_usage: bool = True) -> Wire:
    """The wire of an LLM, by the classes that it is made from."""
    kind = _kind_of(cast(Hashable, type(llm)))
    if kind == "anthropic":
        return AnthropicWire(llm)
    if kind == "plain":
        return PlainWire()
    return OpenAIWire(llm, routed=kind == "openai", stream_usage=stream_usage)


@cache
def _kind_of(kind: Any) -> Literal["openai", "openai-like", "anthropic", "plain"]:
    names = {f"{each.__module__}.{each.__qualname__}" for each in kind.__mro__}
    if "llama_index.llms.openai.base.OpenAI" in names:
        return "openai-like" if "llama_index.llms.openai_like.base.OpenAILike" in names else "openai"
    return "anthropic" if "llama_index.llms.anthropic.base.Anthropic" in names else "plain"


def with_tail(messages: Sequence[Any], tail: Tail) -> list[Any]:
    """Messages with the tail, as further text of its message, or as a message of its own."""
    out = list(messages)
    if not tail:
        return out
    if tail.apart or not out:
        return [*out, ChatMessage(tail.text, role=MessageRole(tail.role))]
    item = out[tail.index]
    out[tail.index] = item.model_copy(update={"blocks": [*item.blocks, TextBlock(text=f"\n\n{tail.text}")]})
    return out


class PlainWire:
    """Any other LLM: messages and tools alone."""

    dialect, objects = "openai", False

    def marked(self, messages: Sequence[Any], arguments: Mapping[str, Any]) -> int:
        """See ``Wire``."""
        return _points(messages)

    def applied(self, plan: Plan, messages: Sequence[Any], arguments: Mapping[str, Any]) -> Sent:
        """See ``Wire``."""
        return with_tail(messages, plan.tail), {**arguments, **_tools(plan, arguments)}

    def streaming(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """See ``Wire``."""
        return arguments


class OpenAIWire(PlainWire):
    """``OpenAI`` and what is made from it. Routing fields go out unless ``routed`` is false: not all servers take them."""

    def __init__(self, llm: Any, *, routed: bool, stream_usage: bool) -> None:
        self._llm, self._routed, self._stream_usage = llm, routed, stream_usage

    def marked(self, messages: Sequence[Any], arguments: Mapping[str, Any]) -> int:
        """None: LlamaIndex cannot place any."""
        return 0

    def applied(self, plan: Plan, messages: Sequence[Any], arguments: Mapping[str, Any]) -> Sent:
        """See ``Wire``."""
        out = {**arguments, **_tools(plan, arguments)}
        given = dict(plan.arguments)
        if "tool_choice" in given:
            out["tool_choice"] = given.pop("tool_choice")
        body = given if self._routed else {}
        dialect = plan.session.dialect
        if dialect.rules.has_marks and self._routed:
            body["messages"] = self._rendered(plan, messages, dialect)
        own = {**(arguments.get("extra_body") or {}), **(self._llm.additional_kwargs.get("extra_body") or {})}
        if body and "messages" not in own:
            out["extra_body"] = {**body, **own}
        return with_tail(messages, plan.tail), out

    def _rendered(self, plan: Plan, messages: Sequence[Any], dialect: Dialect) -> list[Any]:
        """The messages as the framework writes them, text always as a list of parts, with the plan's marks."""
        from llama_index.llms.openai.utils import to_openai_message_dicts

        bare: list[Any] = to_openai_message_dicts(list(messages), model=self._llm.model)
        wire = [_listed(dict(each)) for each in bare]
        for mark in plan.marks:
            if mark.section == "messages":
                _mark(wire[mark.index]["content"], mark.part, dialect, long=mark.long)
        tail = plan.tail
        if tail:
            parts = [{"type": "text", "text": tail.text}]
            if tail.apart or not wire:
                wire.append({"role": tail.role, "content": parts})
            else:
                wire[tail.index]["content"] = [*(wire[tail.index]["content"] or []), *parts]
            if any(mark.section == "tail" for mark in plan.marks):
                _mark(wire[-1 if tail.apart else tail.index]["content"], -1, dialect, long=False)
        return wire

    def streaming(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """See ``Wire``; what the user says of streams stays."""
        told = "stream_options" in arguments or "stream_options" in self._llm.additional_kwargs
        if told or not self._stream_usage:
            return arguments
        return {**arguments, "stream_options": {"include_usage": True}}


class AnthropicWire(PlainWire):
    """``Anthropic``: breakpoints on tools, system text and messages."""

    dialect, objects = "anthropic", True

    def __init__(self, llm: Any) -> None:
        self._llm = llm

    def marked(self, messages: Sequence[Any], arguments: Mapping[str, Any]) -> int:
        """``CachePoint`` blocks, ``cache_idx``, and tools that carry a mark."""
        own = sum(1 for tool in arguments.get("tools") or () if "cache_control" in tool)
        until = self._llm.cache_idx
        by_index = 0 if until is None else len(messages) if until == -1 else min(until + 1, len(messages))
        return own + by_index + _points(messages)

    def applied(self, plan: Plan, messages: Sequence[Any], arguments: Mapping[str, Any]) -> Sent:
        """See ``Wire``."""
        out = {**arguments, **_tools(plan, arguments)}
        dialect = plan.session.dialect
        marks = [mark for mark in plan.marks if mark.section == "tools"]
        if marks and not self._llm.tools:
            tools = [dict(tool) for tool in out["tools"]]
            for mark in marks:
                tools[mark.index] = dict(dialect.mark_part(tools[mark.index], long=mark.long))
            out["tools"] = tools
        if not dialect.rules.has_marks or self._llm.cache_idx is not None:
            return with_tail(messages, plan.tail), out
        own = dict(arguments.get("extra_body") or {})
        if not own.keys() & {"messages", "system"}:
            out["extra_body"] = {**own, **self._rendered(plan, messages, dialect)}
        return with_tail(messages, plan.tail), out

    def _rendered(self, plan: Plan, messages: Sequence[Any], dialect: Dialect) -> dict[str, Any]:
        """System text and messages as the framework writes them, with the plan's marks; it merges messages of one role."""
        system: list[dict[str, Any]] = []
        wire: list[dict[str, Any]] = []
        tail, marks = plan.tail, plan.marks
        for index, item in enumerate(messages):
            mine = [mark for mark in marks if mark.section == "messages" and mark.index == index]
            if item.role == MessageRole.SYSTEM:
                texts = [
                    block.text for block in item.blocks if isinstance(block, TextBlock) and block.text.strip()
                ]
                parts = [{"type": "text", "text": text} for text in texts]
                into = system
            else:
                parts, into = self._blocks(item), None
            for mark in mine:
                _mark(parts, mark.part, dialect, long=mark.long)
            if tail and not tail.apart and tail.index == index:
                parts.append({"type": "text", "text": tail.text})
            if into is not None:
                into += parts
            elif parts:
                role = "user" if item.role in (MessageRole.TOOL, MessageRole.FUNCTION) else item.role.value
                _append(wire, role, parts)
        if tail and tail.apart:
            _append(wire, "user" if tail.role == "user" else tail.role, [{"type": "text", "text": tail.text}])
        return {"messages": wire, **({"system": system} if system else {})}

    def _blocks(self, item: Any) -> list[Any]:
        from llama_index.llms.anthropic.utils import messages_to_anthropic_messages

        found, _ = messages_to_anthropic_messages([item], None, self._llm.model)
        return [dict(block) for block in found[0]["content"]] if found else []


def _append(wire: list[dict[str, Any]], role: str, parts: list[Any]) -> None:
    if wire and wire[-1]["role"] == role:
        wire[-1]["content"] = [*wire[-1]["content"], *parts]
    else:
        wire.append({"role": role, "content": parts})


def _listed(message: dict[str, Any]) -> dict[str, Any]:
    if isinstance(message.get("content"), str) and message["content"]:
        message["content"] = [{"type": "text", "text": message["content"]}]
    elif isinstance(message.get("content"), list):
        message["content"] = list(message["content"])
    return message


def _mark(parts: Any, part: int, dialect: Dialect, *, long: bool) -> None:
    """Put a breakpoint on the part that is counted from the end; where there is none, nothing is marked."""
    if isinstance(parts, list) and len(parts) >= -part:
        parts[part] = dict(dialect.mark_part(parts[part], long=long))


def _points(messages: Sequence[Any]) -> int:
    return sum(
        isinstance(block, CachePoint) for message in messages for block in getattr(message, "blocks", ())
    ) + sum(bool(message.additional_kwargs.get("cache_control")) for message in messages)


def _tools(plan: Plan, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The plan's tools in place of those given; no field where there were and are none."""
    tools = list(plan.tools)
    return {"tools": tools} if tools or arguments.get("tools") else {}


def usage_of(raw: Any, dialect: Dialect) -> Usage | None:
    """The usage in what LlamaIndex calls ``raw``: a response of the SDK, one of its events, or either as a mapping."""
    found = raw.get("usage") if isinstance(raw, Mapping) else getattr(raw, "usage", None)
    if found is None:
        return None
    dump = getattr(found, "model_dump", None)
    return dialect.read_usage({"usage": found if dump is None else dump(exclude_none=True)})
