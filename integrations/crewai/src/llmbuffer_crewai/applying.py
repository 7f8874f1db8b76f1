"""A plan applied to CrewAI's messages: parts where marks go, the dynamic text behind its message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmbuffer import Dialect
from llmbuffer.reconcile import Plan, PlanMark

from .hosting import FLAG

__all__ = ["laid_out", "tools_mark"]

_Message = dict[str, Any]


def laid_out(
    plan: Plan, dialect: Dialect, *, system: Sequence[str], marked: Sequence[int] = (), parts: bool
) -> list[_Message]:
    """The messages that go out: ``system`` as one message in front of the plan's, with its marks and its tail.

    ``marked`` are places in ``system`` that get a breakpoint besides the plan's. Without ``parts``, contents stay texts:
    for LLMs that take nothing else, and where the provider has no marks.
    """
    marks = [mark for mark in plan.marks if parts and mark.section != "tools"]
    messages = [_unflagged(message) for message in plan.messages]
    always = parts and dialect.rules.has_marks
    out = [
        _parted(message, dialect) if always and _may_part(message, dialect) else message
        for message in messages
    ]
    for mark in marks:
        if mark.section == "messages":
            out[mark.index] = _with_mark(out[mark.index], mark, dialect)
    _append_tail(out, plan, dialect, [mark for mark in marks if mark.section == "tail"], parts=parts)
    leading = _system(system, dialect, marks, marked, always=always and dialect.name != "openai-responses")
    return [*leading, *out]


def tools_mark(plan: Plan) -> bool | None:
    """Whether the breakpoint on the last tool is for long; ``None`` where there is none."""
    return next((mark.long for mark in plan.marks if mark.section == "tools"), None)


def _unflagged(message: Mapping[str, Any]) -> _Message:
    return {key: value for key, value in message.items() if key != FLAG}


def _may_part(message: Mapping[str, Any], dialect: Dialect) -> bool:
    """Whether a text becomes a list of parts, so that a mark that comes and goes does not turn one into the other."""
    if not isinstance(message.get("content"), str) or not message["content"]:
        return False
    role = message.get("role")
    if role == "tool":
        return "tool_result" in dialect.rules.markable
    return role == "user" or (role == "system" and dialect.name != "openai-responses")


def _parted(message: _Message, dialect: Dialect) -> _Message:
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": [dict(dialect.dynamic_part(content))]}
    return {**message, "content": list(content or ())}


def _with_mark(message: _Message, mark: PlanMark, dialect: Dialect) -> _Message:
    if message.get("tool_calls") or not message.get("content"):
        return message
    if message.get("role") == "tool" and "tool_result" not in dialect.rules.markable:
        return message
    found = _parted(message, dialect)
    place = len(found["content"]) + mark.part
    if 0 <= place < len(found["content"]):
        found["content"][place] = dict(dialect.mark_part(found["content"][place], long=mark.long))
    return found


def _append_tail(
    out: list[_Message], plan: Plan, dialect: Dialect, marks: Sequence[PlanMark], *, parts: bool
) -> None:
    tail = plan.tail
    if not tail:
        return
    found = [dict(dialect.dynamic_part(text)) for text in tail.texts]
    for mark in marks:
        found[-1] = dict(dialect.mark_part(found[-1], long=mark.long))
    if tail.apart or not 0 <= tail.index < len(out):
        out.insert(tail.index + 1, {"role": tail.role, "content": found if parts else tail.text})
        return
    behind = out[tail.index]
    if parts and behind.get("content"):
        out[tail.index] = {**behind, "content": [*_parted(behind, dialect)["content"], *found]}
    else:
        texts = [text for text in (behind.get("content"), tail.text) if text]
        out[tail.index] = {**behind, "content": "\n\n".join(texts)}


def _system(
    texts: Sequence[str], dialect: Dialect, marks: Sequence[PlanMark], marked: Sequence[int], *, always: bool
) -> list[_Message]:
    """One system message: the texts as its parts, so that each can end in a mark; else joined as CrewAI joins them."""
    if not texts:
        return []
    if not always:
        return [{"role": "system", "content": "\n\n".join(texts)}]
    long = {mark.index: mark.long for mark in marks if mark.section == "system"}
    places = {**dict.fromkeys(marked, False), **long}
    content = []
    for index, text in enumerate(texts):
        part = dialect.dynamic_part(text)
        content.append(dict(dialect.mark_part(part, long=places[index]) if index in places else part))
    return [{"role": "system", "content": content}]
