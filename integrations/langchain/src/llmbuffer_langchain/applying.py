"""A plan put into effect: which messages and arguments a LangChain model is called with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage, ToolMessage

from llmbuffer.reconcile import Plan, PlanMark, unmarked
from llmbuffer.rules import MARK_FIELDS, Dialect

from .convert import leaves_copy

__all__ = ["Parts", "arguments_of", "bare", "messages_of", "tools_of"]

_AS_PARTS = (HumanMessage, SystemMessage)


class Parts:
    """Messages whose text is a part of a list, where the provider's breakpoints stand on parts.

    A text that is a string in one request and a part in the next would move the prefix, so it is a part in all of them.
    Copies are made once for a message, and kept as long as it is in the prompt.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[BaseMessage, Any, BaseMessage]] = {}

    def of(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        """The messages, those of the user and the instructions as parts."""
        known, now = self._known, dict[int, tuple[BaseMessage, Any, BaseMessage]]()
        out: list[BaseMessage] = []
        for message in messages:
            text = message.content
            if type(text) is not str or not text or not isinstance(message, _AS_PARTS):
                out.append(message)
                continue
            found = known.get(id(message))
            if found is None or found[0] is not message or found[1] is not text:
                found = (message, text, _with(message, [{"type": "text", "text": text}]))
            now[id(message)] = found
            out.append(found[2])
        self._known = now
        return out


def bare(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages without the marks of ``dynamic_text`` and ``persona``; those without marks by reference."""
    return [_bare(message) for message in messages]


def _bare(message: BaseMessage) -> BaseMessage:
    content: Any = message.content
    shown = unmarked(content) if isinstance(content, str) else [_bare_block(block) for block in content or ()]
    return message if shown == content else _with(message, shown)


def _bare_block(block: Any) -> Any:
    if isinstance(block, str):
        return unmarked(block)
    text = block.get("text") if isinstance(block, Mapping) else None
    return {**block, "text": unmarked(text)} if isinstance(text, str) else block


def messages_of(plan: Plan, dialect: Dialect, parts: Parts) -> list[BaseMessage]:
    """The messages of a plan, with its breakpoints and its tail."""
    always = dialect.rules.content_parts == "always"
    out = parts.of(plan.messages) if always else list(plan.messages)
    for mark in plan.marks:
        if mark.section == "messages":
            out[mark.index] = _marked(out[mark.index], mark, dialect)
    tail = plan.tail
    if tail:
        marks = [mark for mark in plan.marks if mark.section == "tail"]
        _put_tail(out, plan, dialect, always, marks)
    return out


def _put_tail(
    out: list[BaseMessage], plan: Plan, dialect: Dialect, always: bool, marks: Sequence[PlanMark]
) -> None:
    tail = plan.tail
    blocks: list[Any] = [{"type": "text", "text": text} for text in tail.texts]
    if marks:
        blocks[-1] = leaves_copy(dialect.mark_part(blocks[-1], long=marks[-1].long))
    content: Any = blocks if always else tail.text
    at = out[tail.index] if 0 <= tail.index < len(out) else None
    if tail.apart or at is None:
        out.insert(tail.index + 1, SystemMessage(content) if tail.role == "system" else HumanMessage(content))
    elif isinstance(at.content, str) and not always:
        out[tail.index] = _with(at, f"{at.content}\n\n{tail.text}" if at.content else tail.text)
    else:
        own = [{"type": "text", "text": at.content}] if isinstance(at.content, str) else list(at.content)
        out[tail.index] = _with(at, [*own, *blocks])


def _marked(message: BaseMessage, mark: PlanMark, dialect: Dialect) -> BaseMessage:
    """The message with a breakpoint, where LangChain hands one on; one that is there already stays."""
    content: Any = message.content
    if isinstance(message, ToolMessage):
        return _marked_result(message, mark, dialect)
    if isinstance(content, str):
        content = [{"type": "text", "text": content}] if content else []
    if -mark.part > len(content) or isinstance(content[mark.part], str):
        return message
    block = content[mark.part]
    markable = block.get("type") in dialect.rules.markable and block.get("text", True)
    if not markable or block.get("type") == "tool_use":
        return message
    out = list(content)
    out[mark.part] = leaves_copy(dialect.mark_part(block, long=mark.long))
    return _with(message, out)


def _marked_result(message: ToolMessage, mark: PlanMark, dialect: Dialect) -> BaseMessage:
    """A tool's result with a breakpoint: on Anthropic it stands on the result, else on a part of it."""
    content: Any = message.content
    if "tool_result" not in dialect.rules.markable:
        return message
    if dialect.name != "anthropic":
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        if blocks and isinstance(blocks[-1], Mapping):
            blocks[-1] = leaves_copy(dialect.mark_part(blocks[-1], long=mark.long))
        return _with(message, blocks)
    block = {
        "type": "tool_result",
        "content": content,
        "tool_use_id": message.tool_call_id,
        "is_error": message.status == "error",
    }
    return _with(message, [leaves_copy(dialect.mark_part(block, long=mark.long))])


def _with(message: BaseMessage, content: Any) -> BaseMessage:
    return message.model_copy(update={"content": content})


def tools_of(plan: Plan, dialect: Dialect) -> list[Any]:
    """The tools of a plan, with a breakpoint on one of them where the provider takes it."""
    out = list(plan.tools)
    for mark in plan.marks:
        if (
            mark.section == "tools"
            and dialect.name == "anthropic"
            and not MARK_FIELDS & out[mark.index].keys()
        ):
            out[mark.index] = leaves_copy(dialect.mark_part(out[mark.index], long=mark.long))
    return out


def arguments_of(plan: Plan, dialect: Dialect, model: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What the call is made with besides; what the user set stays, and fields that the SDK lacks go to ``extra_body``."""
    arguments = plan.arguments
    given = {**(getattr(model, "model_kwargs", None) or {}), **kwargs}
    out = {"tool_choice": arguments["tool_choice"]} if "tool_choice" in arguments else {}
    fields = {
        key: leaves_copy(value)
        for key, value in arguments.items()
        if key != "tool_choice" and given.get(key) is None and getattr(model, key, None) is None
    }
    if fields:
        out.update(dialect.kwargs(fields))
    if "extra_body" in out:
        own = kwargs.get("extra_body") or getattr(model, "extra_body", None) or {}
        out["extra_body"] = {**out["extra_body"], **own}
    return out
