"""Conversable agents whose prompts stay cacheable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from autogen import Agent, ConversableAgent
from autogen.agentchat.contrib.capabilities.transform_messages import TransformMessages
from autogen.agentchat.contrib.capabilities.transforms import MessageHistoryLimiter, MessageTokenLimiter

from llmbuffer import Session, Usage
from llmbuffer.reconcile import Policy
from llmbuffer.seam import Account, Mode, Seam

from .asking import UNKNOWN, Asking
from .seams import Seams
from .taps import ASKING, install

__all__ = ["BufferedAgentMixin", "BufferedConversableAgent", "adopted"]

SUMMARY = ":summary"  # what an agent's summaries are booked under, behind its name
_TRIMMERS = (MessageHistoryLimiter, MessageTokenLimiter)


class _Speaking(NamedTuple):
    """Who is about to reply, and to whom."""

    agent: Any
    sender: Any


_SPEAKING: ContextVar[_Speaking | None] = ContextVar("llmbuffer_speaking", default=None)


@contextmanager
def _speaking(agent: Any, sender: Any) -> Iterator[None]:
    token = _SPEAKING.set(_Speaking(agent, sender))
    try:
        yield
    finally:
        _SPEAKING.reset(token)


class _Talks:
    """Names for the conversations of one agent: one for each partner, and a new one when the history was cleared."""

    def __init__(self) -> None:
        self._numbers: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._next = 0

    def name(self, partner: Any) -> str:
        number = self._numbers.get(partner)
        if number is None:
            self._next += 1
            number = self._numbers[partner] = self._next
        return f"{partner.name}/{number}"

    def clear(self, partner: Any = None) -> None:
        if partner is None:
            self._numbers.clear()
        else:
            self._numbers.pop(partner, None)


class BufferedAgentMixin(Agent):
    """What makes an agent of classic AutoGen keep its prompts append-only; put it before the agent's own class.

    ``mode``, ``policy``, ``session`` and ``dialect`` are as for ``llmbuffer.seam.Seam``; ``conversation`` names the
    conversation where AutoGen does not: when ``generate_reply`` is called without a sender. Replies, sync and async, with
    tools and in nested chats, and summaries by reflection go through it; ``chat_messages`` stay AutoGen's own. In a
    ``BufferedGroupChat`` the settings of the group hold.

    With ``Policy(history="ours")`` AutoGen's ``MessageHistoryLimiter`` and ``MessageTokenLimiter`` do not cut the history;
    the session's own compaction does.

    Errors of AutoGen and of the SDK come through as they are. Raises ``MessageError`` for an unknown mode.

        class Assistant(BufferedAgentMixin, autogen.AssistantAgent):
            pass

        agent = Assistant("helper", llm_config=config, mode="buffer")
        agent.usage.cache_read_tokens
    """

    # With the framework's own root as base and no slots, an agent's class can become a subclass of its own behind this.
    __slots__ = ()

    def __init__(
        self,
        *args: Any,
        mode: Mode = "buffer",
        policy: Policy | None = None,
        session: Session | None = None,
        dialect: Any = None,
        conversation: str | None = None,
        **kwargs: Any,
    ) -> None:
        seams = Seams(mode=mode, policy=policy, session=session, dialect=dialect)
        self.__dict__["_buffer"] = _Own(seams, conversation)
        super().__init__(*args, **kwargs)

    # What was used

    @property
    def seams(self) -> Seams:
        """The sessions behind this agent: those of its group while it is in a ``BufferedGroupChat``, else its own."""
        return self._buffer.seams

    @property
    def seam(self) -> Seam:
        """The seam of the first model that this agent is configured with."""
        return self.seams.of(*configured(self))

    @property
    def account(self) -> Account:
        """Requests, usage, cost and breaks of this agent; its summaries included."""
        name: str = self.name
        return self.seams.account(member=name) + self.seams.account(member=name + SUMMARY)

    @property
    def usage(self) -> Usage:
        """The tokens that the provider reported for this agent's requests, cached ones among them."""
        return self.account.usage

    # Who asks, and in which conversation

    def generate_reply(self, messages: Any = None, sender: Any = None, **kwargs: Any) -> Any:
        """See ``ConversableAgent.generate_reply``."""
        with _speaking(self, sender):
            return super().generate_reply(messages, sender, **kwargs)

    async def a_generate_reply(self, messages: Any = None, sender: Any = None, **kwargs: Any) -> Any:
        """See ``ConversableAgent.a_generate_reply``."""
        with _speaking(self, sender):
            return await super().a_generate_reply(messages, sender, **kwargs)

    def generate_oai_reply(
        self, messages: Any = None, sender: Any = None, config: Any = None, **kwargs: Any
    ) -> Any:
        """See ``ConversableAgent.generate_oai_reply``: the way of async replies, in a thread that knows no sender."""
        with _speaking(self, sender):
            return super().generate_oai_reply(messages, sender, config, **kwargs)

    def process_all_messages_before_reply(self, messages: Any) -> Any:
        """See ``ConversableAgent.process_all_messages_before_reply``; with ``history="ours"`` nothing is cut off."""
        policy = self.seams.policy
        ours = policy is not None and policy.history == "ours" and self.seams.mode != "observe"
        if not ours or messages is None:
            return super().process_all_messages_before_reply(messages)
        hooks = self.hook_lists["process_all_messages_before_reply"]
        for hook in hooks:
            messages = _untrimmed(hook)(messages)
        return messages

    def clear_history(self, recipient: Any = None, nr_messages_to_preserve: int | None = None) -> None:
        """See ``ConversableAgent.clear_history``; what follows is a new conversation."""
        super().clear_history(recipient, nr_messages_to_preserve)
        if not nr_messages_to_preserve:
            self._buffer.talks.clear(recipient)

    # The seam

    def _generate_oai_reply_from_client(
        self, llm_client: Any, messages: Any, cache: Any, **kwargs: Any
    ) -> Any:
        install(llm_client, self._asking_beside)
        token = ASKING.set(self._asking())
        try:
            return super()._generate_oai_reply_from_client(llm_client, messages, cache, **kwargs)
        finally:
            ASKING.reset(token)

    def _reflection_with_llm(
        self, prompt: Any, messages: Any, llm_agent: Any = None, cache: Any = None, role: Any = None
    ) -> Any:
        told = llm_agent if isinstance(llm_agent, BufferedAgentMixin) else self
        token = _SUMMARIZING.set(told._asking_beside(closing=prompt))
        try:
            return super()._reflection_with_llm(prompt, messages, llm_agent, cache, role)
        finally:
            _SUMMARIZING.reset(token)

    def _asking(self) -> Asking:
        summarizing = _SUMMARIZING.get()
        if summarizing is not None:
            return summarizing
        speaking = _SPEAKING.get()
        sender = speaking.sender if speaking is not None and speaking.agent is self else None
        group = getattr(getattr(sender, "groupchat", None), "_asking_for", None)
        if group is not None:
            return group(self, sender)
        return self._buffer.asking(self.name, sender)

    def _asking_beside(self, closing: str | None = None) -> Asking:
        """Who asks where AutoGen asks with this agent's client and past its replies: for a summary."""
        return self._buffer.beside(self.name, closing)


_SUMMARIZING: ContextVar[Asking | None] = ContextVar("llmbuffer_summarizing", default=None)


class _Own:
    """What the adapter keeps of one agent."""

    def __init__(self, seams: Seams, conversation: str | None = None) -> None:
        self.seams, self.conversation, self.talks = seams, conversation, _Talks()
        self.closing: str | None = None
        self._beside = count(1)

    def asking(self, name: str, sender: Any) -> Asking:
        where = self.conversation
        if where is None and sender is not None:
            where = self.talks.name(sender)
        return Asking(self.seams, conversation=where, member=name, closing=self.closing)

    def beside(self, name: str, closing: str | None) -> Asking:
        """A request of its own, which follows no other."""
        where = f"{name}{SUMMARY}/{next(self._beside)}"
        return Asking(self.seams, conversation=where, member=name + SUMMARY, closing=closing)


class BufferedConversableAgent(BufferedAgentMixin, ConversableAgent):
    """A ``ConversableAgent`` that keeps its prompts append-only; arguments as there, and as ``BufferedAgentMixin`` has them.

    agent = BufferedConversableAgent("helper", "You are kind.", llm_config=config, human_input_mode="NEVER")
    """


_CLASSES: dict[type, type] = {}


def _buffered(cls: type) -> type:
    if cls not in _CLASSES:
        _CLASSES[cls] = type(
            f"Buffered{cls.__name__}",
            (BufferedAgentMixin, cls),
            {"__module__": cls.__module__, "__slots__": ()},
        )
    return _CLASSES[cls]


def adopted(agent: Any, seams: Seams) -> Any:
    """The same agent, buffered from now on by ``seams``: its class becomes a subclass of its own with the mixin."""
    if isinstance(agent, BufferedAgentMixin):
        agent._buffer.seams = seams
    else:
        agent._buffer = _Own(seams)
        agent.__class__ = _buffered(type(agent))
    install(agent.client, agent._asking_beside)
    return agent


def configured(agent: Any) -> tuple[str, str | None]:
    """The model that an agent asks first, and what AutoGen calls its provider."""
    configs = getattr(agent.client, "_config_list", None) or [{}]
    found = configs[0].get("model"), configs[0].get("api_type")
    return found[0] or UNKNOWN, None if found[1] is None else str(found[1])


def tools_of(agent: Any) -> list[Any]:
    """The tools that an agent's requests carry."""
    configs = getattr(agent.client, "_config_list", None) or [{}]
    return list(configs[0].get("tools") or configs[0].get("functions") or ())


def _untrimmed(hook: Any) -> Any:
    """A hook without what cuts off the history, where it is AutoGen's own."""
    owner = getattr(hook, "__self__", None)
    if not isinstance(owner, TransformMessages):
        return hook
    kept = [each for each in owner._transforms if not isinstance(each, _TRIMMERS)]
    return TransformMessages(transforms=kept, verbose=owner._verbose)._transform_messages
