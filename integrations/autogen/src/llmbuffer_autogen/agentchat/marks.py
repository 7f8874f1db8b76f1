"""Breakpoints of a plan in the body that an SDK sends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autogen_core.models import FunctionExecutionResultMessage, SystemMessage

from llmbuffer.reconcile import Plan, PlanMark
from llmbuffer.rules import Dialect

__all__ = ["marked"]

Body = dict[str, Any]


def marked(
    body: Body, plan: Plan, shown: Sequence[Any], *, behind: int = 0, merges_system: bool, opening: int = 0
) -> Body:
    """The body with the plan's breakpoints; a new one, the rest of it shared.

    ``shown`` are the messages that the framework rendered, the last ``behind`` of them none of the plan's; ``merges_system``
    says whether it sent system messages as one. The first ``opening`` of them are shared with other agents, and get a mark
    of their own. A mark whose place cannot be told is left out: then less is cached, and
    the request stays valid.
    """
    body = dict(body)
    if not plan.marks:
        return body
    last = len(shown) - behind - 1
    places = _places(body, shown, merges_system=merges_system)
    for mark in plan.marks:
        if mark.section == "tools":
            _mark_tool(body, mark, plan.session.dialect)
            continue
        place = places.get(last if mark.section == "tail" and plan.tail.apart else mark.index)
        if mark.section == "system" or place == _SYSTEM:
            _mark_system(body, mark, plan.session.dialect)
        elif place is not None:
            _mark_message(body, place, _part(mark, plan), mark, plan.session.dialect)
    if opening:
        _mark_opening(body, shown[:opening], places, plan.session.dialect)
    return body


_SYSTEM = -1  # the place of what goes out as the body's system text


def _mark_opening(body: Body, opening: Sequence[Any], places: dict[int, int], dialect: Dialect) -> None:
    """A mark at the end of what other agents begin with too; a system text that was made of both is cut in two there."""
    shared = "\n".join(item.content for item in opening)
    place = places.get(len(opening) - 1)
    holder = body if place == _SYSTEM else body["messages"][place] if place is not None else {}
    field = "system" if place == _SYSTEM else "content"
    parts = _parts(holder.get(field))
    if not parts or not str(parts[0].get("text", "")).startswith(shared):
        return
    rest = parts[0]["text"][len(shared) :]
    begun = dict(dialect.mark_part({"type": "text", "text": shared}, long=False))
    parts = [begun, *([{**parts[0], "text": rest}] if rest.strip() else []), *parts[1:]]
    if place == _SYSTEM:
        body["system"] = parts
    elif place is not None:
        body["messages"] = [
            {**each, "content": parts} if index == place else each
            for index, each in enumerate(body["messages"])
        ]


def _part(mark: PlanMark, plan: Plan) -> int:
    """Which part of that message, from its end: parts of the tail may stand behind the message's own."""
    tail = plan.tail
    behind = mark.section == "messages" and tail and not tail.apart and tail.index == mark.index
    return mark.part - len(tail.texts) if behind else mark.part


def _places(body: Body, shown: Sequence[Any], *, merges_system: bool) -> dict[int, int]:
    """The place in the body's messages of each message that went out; of several results, the last one's."""
    apart = "system" in body
    out: dict[int, int] = {}
    at, merged = -1, None
    for index, item in enumerate(shown):
        if isinstance(item, SystemMessage) and (apart or merges_system):
            if merged is None:
                at, merged = (at, _SYSTEM) if apart else (at + 1, at + 1)
            out[index] = merged
            continue
        several = isinstance(item, FunctionExecutionResultMessage) and not apart
        at += len(item.content) if several else 1
        out[index] = at
    messages = body.get("messages")
    if not isinstance(messages, list) or at != len(messages) - 1:
        return {}  # a client that leaves messages out: which one is which cannot be told
    return out


def _mark_tool(body: Body, mark: PlanMark, dialect: Dialect) -> None:
    tools = list(body.get("tools") or ())
    if mark.index < len(tools):
        tools[mark.index] = dict(dialect.mark_part(tools[mark.index], long=mark.long))
        body["tools"] = tools


def _mark_system(body: Body, mark: PlanMark, dialect: Dialect) -> None:
    parts = _parts(body.get("system"))
    if parts:
        parts[-1] = dict(dialect.mark_part(parts[-1], long=mark.long))
        body["system"] = parts


def _mark_message(body: Body, place: int, part: int, mark: PlanMark, dialect: Dialect) -> None:
    messages = list(body["messages"])
    parts = _parts(messages[place].get("content"))
    if parts and -part <= len(parts):
        parts[part] = dict(dialect.mark_part(parts[part], long=mark.long))
        messages[place] = {**messages[place], "content": parts}
        body["messages"] = messages


def _parts(content: Any) -> list[dict[str, Any]]:
    """Content as a list of parts; none where there is nothing to mark."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    return [dict(part) for part in content] if isinstance(content, list) else []
