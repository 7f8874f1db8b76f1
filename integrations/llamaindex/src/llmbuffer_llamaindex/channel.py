"""The way of one call between LlamaIndex and the core: what is read from it, and what goes out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from llama_index.core.llms import ChatMessage, MessageRole, TextBlock

from llmbuffer.reconcile import unmarked
from llmbuffer.seam import Call, Seam
from llmbuffer.session import Session
from llmbuffer.usage import Usage

from .convert import LlamaHost, role_of
from .members import Companies, Members
from .retelling import Conversations, Retold, Sent
from .templates import SYSTEM_TEMPLATES, told_in
from .wires import Wire, usage_of

__all__ = ["Asked", "Binding", "Channel"]

_LEADING = frozenset({"system", "developer"})
_NOT_PARAMS = frozenset(
    {"messages", "tools", "stream", "stream_options", "extra_body", "extra_headers", "timeout"}
)


class Binding(NamedTuple):
    """Whose calls these are, as the user says: a conversation, and an agent in it."""

    conversation: str | None = None
    member: str | None = None


class Asked(NamedTuple):
    """One call as it goes out: ``messages`` and ``arguments`` of the framework's own method.

    ``named`` is the conversation as the caller named it.
    """

    messages: list[Any]
    arguments: dict[str, Any]
    call: Call
    binding: Binding
    named: str | None
    leading: tuple[Any, ...]
    history: tuple[Any, ...]
    retold: bool


class Channel:
    """What all bound copies of one buffered LLM share: the seam, the agents seen, the conversations known.

    ``retell``: calls that retell a conversation go out behind it.
    """

    def __init__(self, seam: Seam, host: LlamaHost, *, retell: bool) -> None:
        self.seam, self.host, self._retell = seam, host, retell
        self._ground = _ground_of(seam.session, host)
        self._known = Conversations(lambda: {each.id for each in seam.sessions})
        self._begin()
        self._numbers = itertools.count(1)
        self._now: ContextVar[Binding | None] = ContextVar("llmbuffer_llamaindex_binding", default=None)

    def _begin(self) -> None:
        team = self.seam.mode == "team"  # whose members may differ in one sentence
        self._members = Members("agent 1" if team else None, alike=not team)
        self._companies = Companies()

    @contextmanager
    def bound(self, conversation: str | None, member: str | None) -> Iterator[None]:
        """Calls from here on, and from tasks begun here, are those of this conversation (and agent)."""
        token = self._now.set(Binding(conversation, member))
        try:
            yield
        finally:
            self._now.reset(token)

    def ask(
        self,
        wire: Wire,
        binding: Binding,
        messages: Sequence[Any],
        arguments: dict[str, Any],
        *,
        posing: bool = False,
    ) -> Asked:
        """Plan a call; in observe mode it goes out as it came. ``posing``: the system prompt comes as a user's message."""
        given, tools = list(messages), list(arguments.get("tools") or ())
        now = self._now.get() or Binding()
        conversation = named = binding.conversation or now.conversation
        member = binding.member or now.member
        dynamic: dict[str, str] = {}
        retold = None
        if self.seam.mode != "observe":
            if self._retell and not tools:
                retold = self._known.retold(given, named, member)
            if retold is not None:
                given, tools, arguments = self._behind(retold, arguments)
                conversation, member = f"retelling {next(self._numbers)}", retold.sent.member
            given, dynamic = told_in(self._grounded(given))
        posing = posing and _poses(given)
        if posing:
            given[0] = given[0].model_copy(update={"role": MessageRole.SYSTEM})
        leading = _leading(given)
        if member is None and retold is None:
            member = self._member(given[:leading], tools)
        if conversation is None and self.seam.mode == "team":
            conversation = self._companies.of([self.host.leaves(each) for each in given[leading:]])
        call = self.seam.call(
            messages=given,
            tools=tools,
            dynamic=dynamic or None,
            params=_params(arguments),
            conversation=conversation,
            member=member,
            marked=wire.marked(given, arguments),
        )
        out, sent, shown = list[Any](), arguments, list[Any]()
        if not call.applies:
            out = [_shown(each, self.host) for each in messages]
        else:
            out = list(call.plan.messages)
            if posing and out and role_of(out[0]) == "system":
                out[0] = out[0].model_copy(update={"role": MessageRole.USER})
            shown = out[: _leading(call.plan.messages)]
            out, sent = wire.applied(call.plan, out, arguments)
        whose, history = Binding(conversation, member), tuple(given[leading:])
        return Asked(out, sent, call, whose, named, tuple(shown), history, retold is not None)

    def observe(self, asked: Asked, response: Any) -> None:
        """Take in the last response of a call."""
        plan = asked.call.plan
        asked.call.observe(
            message=response.message, usage=usage_of(response.raw, plan.session.dialect) or Usage()
        )
        if asked.retold:
            self.seam.forget(asked.binding.conversation or "")
        elif self._retell and asked.call.applies:
            history, member = (*asked.history, response.message), asked.binding.member
            sent = Sent(asked.leading, history, tuple(plan.tools), member, asked.named, plan.session.id)
            self._known.keep(sent)

    def declare(self, name: str, system: str, tools: Sequence[Any]) -> None:
        """Tell of an agent before it calls; see ``Seam.declare``."""
        self._members.name(name, _bare(system), tools)
        self.seam.declare(name, system=[system] if system else [], tools=list(tools))

    def reset(self) -> None:
        """Let go of all conversations, of the agents seen, and of what was learned."""
        self.seam.reset()
        self._known.clear()
        self._begin()

    def fork(self, session: Session | None = None) -> Channel:
        """A channel with the same settings and nothing in it, off ``session``."""
        return Channel(self.seam.fork(session), self.host, retell=self._retell)

    def _grounded(self, given: list[Any]) -> list[Any]:
        """What the shared session holds stands first: its history, and its system text where the call has none."""
        system, history = self._ground
        if not system and not history:
            return given
        at = _leading(given)
        said = given[at:]
        begins = [self.host.leaves(each) for each in said[: len(history)]] == [
            *map(self.host.leaves, history)
        ]
        return [*(given[:at] or system), *(() if begins else history), *said]

    def _behind(
        self, retold: Retold, arguments: dict[str, Any]
    ) -> tuple[list[Any], list[Any], dict[str, Any]]:
        rules = self.seam.session.dialect.rules
        counts = "tool_choice" in rules.frozen_params or "tool_choice" in rules.message_params
        if retold.tools and not counts:
            arguments = {**arguments, "tool_choice": "none"}
        return retold.messages, retold.tools, arguments

    def _member(self, leading: Sequence[Any], tools: Sequence[Any]) -> str | None:
        return self._members.of(_bare("\n".join(each.content or "" for each in leading)), tools)


def _shown(message: Any, host: LlamaHost) -> Any:
    """A message without the marks of ``dynamic_text`` and ``persona``; one without marks is the same object."""
    texts = (block.text for block in message.blocks if isinstance(block, TextBlock))
    return host.stripped(message, unmarked) if any(unmarked(text) != text for text in texts) else message


def _bare(system: str) -> str:
    """A system prompt without what LlamaIndex's templates fill in, and without marks."""
    for pattern in SYSTEM_TEMPLATES:
        system = pattern.sub("", system)
    return unmarked(system).strip()


def _leading(messages: Sequence[Any]) -> int:
    """How many system messages come first."""
    return next((i for i, each in enumerate(messages) if role_of(each) not in _LEADING), len(messages))


def _poses(messages: Sequence[Any]) -> bool:
    """Whether the first of several users' messages is the system prompt: users do not speak twice in a row."""
    roles = [role_of(each) for each in messages[:2]]
    return roles[:1] == ["user"] and roles[1:] in (["user"], ["system"])


def _params(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a provider's cache may depend on."""
    return {name: value for name, value in arguments.items() if name not in _NOT_PARAMS and value is not None}


def _ground_of(session: Session, host: LlamaHost) -> tuple[list[Any], list[Any]]:
    """The system text and the history of a session, as messages of the framework."""
    texts = [segment.content for segment in session.context.segments if segment.level != "turn"]
    system = [ChatMessage("\n".join(texts), role=MessageRole.SYSTEM)] if texts else []
    return system, [host.from_message(each) for each in session.messages]
