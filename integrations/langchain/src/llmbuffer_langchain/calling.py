"""One call of a model, from what LangChain hands over to what its reply told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.messages.ai import add_usage

from llmbuffer import Usage
from llmbuffer.errors import LLMBufferError
from llmbuffer.seam import Call

from .applying import arguments_of, bare, messages_of, tools_of
from .convert import marks_in
from .dialects import speaks_responses
from .holding import waits_for
from .where import form_of

if TYPE_CHECKING:
    from llmbuffer.rules import Dialect

    from .wiring import Wiring

__all__ = ["Planned", "Sending", "asking_for_usage", "usage_of"]

_REFUSALS = 3  # times that a model may ask for a tool which it must not use, before its calls are dropped


class Planned(list[BaseMessage]):
    """Messages that a plan was made for: a model that calls itself with them is not planned for again."""


class Sending:
    """A call on its way: what the model is called with (``messages``, ``kwargs``), and what became of its replies."""

    def __init__(
        self,
        wiring: Wiring,
        model: Any,
        messages: Sequence[BaseMessage],
        kwargs: dict[str, Any],
        manager: Any,
    ) -> None:
        place = wiring.where(manager)
        form = None if place.agent else form_of(kwargs)
        if form is not None:  # its tools are none of the conversation's
            place = place._replace(member=f"{place.member}/{form}" if place.member else form)
        seam = wiring.at(place)
        dialect = seam.session.dialect
        tools = kwargs.get("tools")
        observes = seam.mode == "observe"
        messages = messages if observes else wiring.opening.before(messages)
        if place.planned is not None and place.conversation is not None:
            seam.session_of(place.conversation, place.member).thaw(place.planned)
        self.call: Call = seam.call(
            messages=messages,
            tools=list(tools or ()),
            params=_params(model, kwargs, dialect),
            conversation=place.conversation,
            member=place.member,
            marked=_marks(messages, kwargs) if dialect.rules.has_marks else 0,
        )
        plan = self.call.plan
        if place.planned is not None:
            plan.request.moved = None
        wiring.unknown(plan.messages, plan.unknown)
        self.gates = wiring.gates
        self.messages, self.kwargs = Planned(bare(messages) if observes else messages), kwargs
        if self.call.applies:
            self.messages = Planned(messages_of(plan, dialect, wiring.parts))
            tools = tools_of(plan, dialect)
            changed = {"tools": tools} if tools or "tools" in kwargs else {}
            self.kwargs = {**kwargs, **changed, **arguments_of(plan, dialect, model, kwargs)}
        self._refused = 0
        self._usage: Any = None
        group = None if place.group is None else (place.group, place.member)
        self.gate = waits_for(plan, group) if self.call.applies else None

    @property
    def hides(self) -> bool:
        """Whether there are tools that the model sees and must not use."""
        return self.call.applies and bool(self.call.plan.hidden)

    def again(self, reply: Any) -> bool:
        """Whether the model has to be called once more, since all that it asked for are tools which it must not use.

        Their calls are answered with errors. The host sees neither: it did not offer these tools.
        """
        calls = reply.tool_calls if isinstance(reply, AIMessage) else []
        refusals = [(call, self.call.refusal(call["name"])) for call in calls] if self.hides else []
        if not refusals or any(text is None for _, text in refusals) or self._refused >= _REFUSALS:
            return False
        self._refused += 1
        self._usage = add_usage(self._usage, reply.usage_metadata)
        answers = [
            ToolMessage(text or "", tool_call_id=call["id"] or "", name=call["name"], status="error")
            for call, text in refusals
        ]
        self.messages = Planned([*self.messages, reply, *answers])
        return True

    def done(self, reply: Any) -> Any:
        """Take in the reply, and give it back without calls of tools that must not be used."""
        if not isinstance(reply, AIMessage):
            return reply
        used = add_usage(self._usage, reply.usage_metadata) if self._refused else reply.usage_metadata
        shown = self._without_hidden(reply) if self.hides else reply
        self.call.observe(message=shown, usage=usage_of(used))
        return shown

    def _without_hidden(self, reply: AIMessage) -> AIMessage:
        gone = {call["id"] for call in reply.tool_calls if self.call.refusal(call["name"]) is not None}
        if not gone:
            return reply
        kept = [call for call in reply.tool_calls if call["id"] not in gone]
        content: Any = reply.content
        if not isinstance(content, str):
            content = [
                block
                for block in content
                if not isinstance(block, Mapping) or (block.get("call_id") or block.get("id")) not in gone
            ]
        pieces = getattr(reply, "tool_call_chunks", None)
        told = (
            {}
            if pieces is None
            else {"tool_call_chunks": [each for each in pieces if each["id"] not in gone]}
        )
        return reply.model_copy(update={"tool_calls": kept, "content": content, **told})


def _marks(messages: Sequence[BaseMessage], kwargs: Mapping[str, Any]) -> int:
    """How many breakpoints the user, or a middleware of the framework's, has placed."""
    marked = sum(map(marks_in, messages)) + sum(map(marks_in, kwargs.get("tools") or ()))
    return marked + (kwargs.get("cache_control") is not None)


def usage_of(told: Mapping[str, Any] | None) -> Usage | None:
    """LangChain's ``usage_metadata`` as the core's usage; ``None`` where there is none, or where it contradicts itself.

    >>> usage_of({"input_tokens": 9, "output_tokens": 2, "input_token_details": {"cache_read": 4}}).cache_read_tokens
    4
    """
    if not told:
        return None
    details = told.get("input_token_details") or {}
    long = details.get("ephemeral_1h_input_tokens") or 0
    short = details.get("ephemeral_5m_input_tokens") or 0
    written = long + short or _one(details, "cache_creation")
    try:
        return Usage(
            input_tokens=told.get("input_tokens") or 0,
            output_tokens=told.get("output_tokens") or 0,
            cache_read_tokens=_one(details, "cache_read"),
            cache_write_tokens=written,
            cache_write_long_tokens=long,
        )
    except LLMBufferError:
        return None


def _one(details: Mapping[str, Any], name: str) -> int:
    """A count; OpenAI's service tiers have names of their own for it."""
    return next((details[key] for key in (name, f"priority_{name}", f"flex_{name}") if details.get(key)), 0)


def _params(model: Any, kwargs: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    """The settings of the call that a cache depends on."""
    own = getattr(model, "model_kwargs", None) or {}
    out = {}
    for name in sorted({*dialect.rules.frozen_params, *dialect.rules.message_params, "tool_choice"}):
        value = kwargs.get(name, own.get(name, getattr(model, name, None)))
        if value is not None and not callable(value):
            out[name] = value
    return out


def asking_for_usage(model: Any, family: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a stream, with the wish that it tells its usage, unless the user said something about that."""
    own = getattr(model, "model_kwargs", None) or {}
    silent = family != "openai" or getattr(model, "stream_usage", False) is not None
    if (
        silent
        or "stream_usage" in kwargs
        or "stream_options" in {*kwargs, *own}
        or speaks_responses(model, kwargs)
    ):
        return kwargs
    return {**kwargs, "stream_usage": True}
