"""One request of a model client: the plan applied to agentchat's own messages, tools and choice of tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    SystemMessage,
    UserMessage,
)

from llmbuffer.reconcile import Plan, unmarked
from llmbuffer.seam import Call

from .convert import ASSISTANT, USER, ModelHost

__all__ = [
    "Asked",
    "applied_messages",
    "bare",
    "chosen_tools",
    "goes_midway",
    "params_of",
    "refused",
    "routed",
    "with_midway",
]


class Asked(NamedTuple):
    """What a caller handed to ``create``, as it was."""

    messages: Sequence[Any]
    tools: Sequence[Any]
    tool_choice: Any
    json_output: Any
    extra: Mapping[str, Any]


def params_of(asked: Asked, create_args: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the request, by the names of OpenAI's API; what is no JSON is told by its type."""
    params = {name: value for name, value in {**create_args, **asked.extra}.items() if name != "model"}
    if asked.json_output is not None:
        params["response_format"] = _format(asked.json_output)
    if asked.tools and asked.tool_choice != "auto":
        params["tool_choice"] = _choice(asked.tool_choice)
    return params


def _choice(tool_choice: Any) -> Any:
    schema = getattr(tool_choice, "schema", None)
    return {"type": "function", "name": schema["name"]} if isinstance(schema, Mapping) else tool_choice


def _format(json_output: Any) -> dict[str, Any]:
    if isinstance(json_output, type):
        return _schema(json_output)
    return {"type": "json_object" if json_output else "text"}


@lru_cache(maxsize=64)
def _schema(kind: type) -> dict[str, Any]:
    schema = getattr(kind, "model_json_schema", None)
    return {"type": "json_schema", "name": kind.__name__, "schema": None if schema is None else schema()}


def goes_midway(plan: Plan) -> str | None:
    """The role of an entry between messages that takes the tail, where the wire has one that agentchat has no object for."""
    role = plan.session.dialect.rules.midway_role
    return role if plan.tail and plan.tail.apart and plan.tail.role == "system" else None


def applied_messages(plan: Plan, *, parts: bool, system: bool, note: str = "") -> list[Any]:
    """The messages that go out: the plan's, with its tail. The caller's own objects are not changed.

    ``parts``: the tail is a content part of its own, as breakpoints need it; else it continues the text. ``system``: the
    model takes system messages anywhere. ``note`` is a last text of the tail. A tail that goes midway is not among them,
    see ``with_midway``.
    """
    messages, tail = list(plan.messages), plan.tail
    texts = [*tail.texts, *([note] if note else [])]
    if not texts or goes_midway(plan):
        return messages
    at = tail.index if tail else len(messages) - 1
    holder = messages[at] if 0 <= at < len(messages) and not tail.apart else None
    if isinstance(holder, UserMessage):
        own = holder.content
        if isinstance(own, str) and not parts:
            content: Any = "\n\n".join([own, *texts])
        else:
            content = [*([own] if isinstance(own, str) else own), *texts]
        messages[at] = holder.model_copy(update={"content": content})
    elif tail.role == "system" and system:
        messages.append(SystemMessage(content="\n".join(texts)))
    else:
        messages.append(UserMessage(content="\n".join(texts), source=USER))
    return messages


def bare(messages: Sequence[Any], host: ModelHost) -> Sequence[Any]:
    """The messages without the marks of ``dynamic_text`` and ``persona``; those without marks by reference."""
    found = [host.stripped(item, unmarked) if marks_in(item) else item for item in messages]
    return messages if all(one is other for one, other in zip(found, messages, strict=True)) else found


def marks_in(item: Any) -> bool:
    """Whether such marks may stand in a message."""
    content = getattr(item, "content", None)
    texts = [content] if isinstance(content, str) else content if isinstance(content, list) else []
    return any(isinstance(text, str) and unmarked(text) != text for text in texts)


def chosen_tools(plan: Plan, asked: Asked, *, reaches_body: bool) -> tuple[Any, str]:
    """The choice of tools for the client, and a text for the model where nothing else tells it.

    A list of allowed tools can only be put into the body (``routed``); a client without a known SDK has none.
    """
    choice = plan.arguments.get("tool_choice")
    if choice == "none":
        return "none", ""
    if isinstance(choice, Mapping) and not reaches_body:
        allowed = [each["function"]["name"] for each in choice["allowed_tools"]["tools"]]
        return "auto", f"For this reply, only these tools may be used: {', '.join(allowed)}."
    if asked.tool_choice == "none" and not asked.tools and plan.tools:
        return "auto", ""  # the tail says so: a changed choice would lose the cache
    return asked.tool_choice, ""


def routed(body: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """The body with the plan's routing fields; those that the user set stay."""
    fields = {name: value for name, value in plan.arguments.items() if name not in body}
    choice = plan.arguments.get("tool_choice")
    if isinstance(choice, Mapping) and body.get("tools"):
        fields["tool_choice"] = choice
    elif "tool_choice" in fields:
        del fields["tool_choice"]
    return {**body, **fields}


def with_midway(body: dict[str, Any], plan: Plan, behind: int) -> dict[str, Any]:
    """The body with the tail as an entry between its messages, ``behind`` messages from its end."""
    role = goes_midway(plan)
    messages = body.get("messages")
    if role is None or not isinstance(messages, list):
        return body
    entry = {"role": role, "content": [{"type": "text", "text": text} for text in plan.tail.texts]}
    at = len(messages) - behind
    return {**body, "messages": [*messages[:at], entry, *messages[at:]]}


def refused(call: Call, result: Any) -> list[Any]:
    """What goes behind a reply that called tools which may not be used: the reply, and an error for each call.

    Nothing is executed then, the other calls included; the model is asked again. Empty where all calls may be executed.
    """
    if isinstance(result.content, str):
        return []
    answers = [(each, call.refusal(each.name)) for each in result.content]
    if not any(text for _, text in answers):
        return []
    told = [
        FunctionExecutionResult(content=text or _BESIDE, name=each.name, call_id=each.id, is_error=True)
        for each, text in answers
    ]
    said = AssistantMessage(content=result.content, thought=result.thought, source=ASSISTANT)
    return [said, FunctionExecutionResultMessage(content=told)]


_BESIDE = (
    "Error: not executed, since another call beside it was refused. Call it again if it is still needed."
)
