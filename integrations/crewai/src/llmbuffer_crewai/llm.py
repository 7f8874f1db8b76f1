"""An LLM for CrewAI's agents whose prompts the provider can go on reading from its cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from crewai.llms.base_llm import BaseLLM, call_stop_override, call_stream_override
from crewai.utilities.agent_utils import is_context_length_exceeded
from pydantic import PrivateAttr

from llmbuffer import Session, StableContext
from llmbuffer.errors import MessageError
from llmbuffer.observing import Observation
from llmbuffer.reconcile import Policy
from llmbuffer.seam import Account, Mode

from .asking import Asked, Sent
from .hosting import CrewHost
from .keeping import CrewSeam
from .layouts import ToolLayout
from .summarizing import fits, instruction, kept, room, summary_message
from .tapping import dialect_name, tapped

__all__ = ["BufferedLLM"]

_Message = dict[str, Any]
_FIELDS = ("model", "provider", "temperature", "top_p", "max_tokens", "stream", "seed", "is_litellm")


class BufferedLLM(BaseLLM):
    """Wraps an LLM of CrewAI's; agents get this one in its place. Every call goes to ``llm``, whose errors come through.

    ``session`` holds what all agents share: its system text goes in front of each prompt, and where an agent's own system text
    holds the same words, they are taken out there; its messages follow the system text. Its model and dialect must be
    those of ``llm``; without one there is nothing shared. ``mode`` is ``"observe"`` (nothing is changed), ``"buffer"`` or
    ``"team"``, and ``policy`` what may be done with the prompts, see ``Seam`` and ``Policy``. ``limit`` tasks and conversations are kept.
    In a conversation (``agent.kickoff`` with a list) requests of earlier turns stay as they were sent, and with
    ``whole_turns`` so do the tool calls between them and their answers, which CrewAI leaves out: then the model reads them again,
    and prompts only grow. That is done where the history holds the very object that ``kickoff`` gave as the answer, or in a block
    of ``conversation``; nowhere else, since two users may ask alike and be answered alike.

    ``seam`` has the sessions and what was used; ``account(agent=…, task=…)`` sums it. A copy, as CrewAI makes them for
    ``kickoff_for_each``, counts on the same accounts, and shares no session with any other crew.

    Raises ``MessageError`` where the session speaks another dialect than the LLM.
    """

    llm_type: str = "llmbuffer"
    _inner: Any = PrivateAttr(default=None)
    _seam: Any = PrivateAttr(default=None)
    _layout: Any = PrivateAttr(default=None)
    _gate: Any = PrivateAttr(default=None)
    _briefs: Any = PrivateAttr(default=())
    _prologue: Any = PrivateAttr(default=())
    _marks_brief: Any = PrivateAttr(default=False)
    _whole_turns: Any = PrivateAttr(default=True)

    def __init__(
        self,
        llm: BaseLLM,
        *,
        session: Session | None = None,
        mode: Mode = "buffer",
        policy: Policy | None = None,
        whole_turns: bool = True,
        limit: int = 1024,
        on_observe: Callable[[Observation], object] | None = None,
    ) -> None:
        if not isinstance(llm, BaseLLM):
            raise MessageError(
                f"llm is a {type(llm).__name__}: give an LLM of CrewAI's, such as LLM(model=…)"
            )
        if isinstance(llm, BufferedLLM):
            raise MessageError("llm is a BufferedLLM already: wrap the LLM that it was made of")
        super().__init__(stop=list(llm.stop), **{name: getattr(llm, name, None) for name in _FIELDS})
        self._whole_turns = whole_turns
        host = CrewHost()
        self._inner = tapped(llm)
        base = _base(llm, session)
        self._seam = CrewSeam(
            host, session=base, mode=mode, policy=policy, limit=limit, on_observe=on_observe
        )
        self._layout, self._gate = ToolLayout(), None
        if session is not None and mode != "observe":
            self._briefs = tuple(each.content for each in base.context.segments if each.content.strip())
            self._prologue = tuple(host.from_message(message) for message in base.messages)
        self._marks_brief = bool(self._briefs) and base.dialect.rules.has_marks

    # What is known of it

    @property
    def inner(self) -> Any:
        """The LLM that is called: a copy of the one that was wrapped, with its clients and counts."""
        return self._inner

    @property
    def seam(self) -> CrewSeam:
        """The sessions, one for each crew, task and agent, and what was used."""
        found: CrewSeam = self._seam
        return found

    @property
    def layout(self) -> ToolLayout:
        """Which tools the requests hold."""
        found: ToolLayout = self._layout
        return found

    @property
    def briefs(self) -> tuple[str, ...]:
        """The system text that all agents share, in its segments."""
        return tuple(self._briefs)

    @property
    def prologue(self) -> tuple[_Message, ...]:
        """The messages that all agents share."""
        return tuple(self._prologue)

    @property
    def whole_turns(self) -> bool:
        """Whether tool calls of earlier turns stay in a conversation."""
        return bool(self._whole_turns)

    def account(self, *, agent: str | None = None, task: str | None = None) -> Account:
        """What was used in all, by an agent (its role as it was written), for a task (its name, else its id), or by both."""
        found = (
            account
            for (conversation, member), account in self.seam.accounts.items()
            if agent in (None, member) and (task is None or self.seam.keys.task(conversation) == task)
        )
        return sum(found, Account())

    # What is kept

    def conversation(self, name: str) -> AbstractContextManager[None]:
        """A block in which ``agent.kickoff``, and what is begun in it, belongs to a conversation of this name.

        For an agent that serves many users, and for histories that come out of a database: ``with
        llm.conversation("user-7"): agent.kickoff(history)``. The name has to be one that no other user's conversation has. Tasks
        of crews have names of their own. Raises ``MessageError`` for an empty name.
        """
        return self.seam.keys.named(name)

    def forget(self, conversation: str, agent: str | None = None) -> bool:
        """Let go of a conversation, or of one agent's part in it, the tool calls of its earlier turns included.

        ``conversation`` is the name that it was given, else the one that ``seam.accounts`` has for it. What it used stays
        counted. Whether there was any.
        """
        return self.seam.forget(conversation, agent)

    def reset(self) -> None:
        """Let go of all conversations, of what was learned, and of the accounts."""
        self.seam.reset()

    def variant(self, layout: ToolLayout | None = None, gate: Any = None) -> BufferedLLM:
        """The same LLM, sessions and accounts, with another layout of tools, or behind a gate."""
        made = self.__copy__()
        made._layout = self._layout if layout is None else layout
        made._gate = gate
        return made

    def __copy__(self) -> BufferedLLM:
        made: BufferedLLM = super().__copy__()
        return made

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> BufferedLLM:
        return self.__copy__()

    # Calls

    def call(
        self,
        messages: Any,
        tools: Any = None,
        callbacks: Any = None,
        available_functions: Any = None,
        from_task: Any = None,
        from_agent: Any = None,
        response_model: Any = None,
    ) -> Any:
        """See ``BaseLLM.call``."""
        asked = self._asked(messages, tools, from_task, from_agent, response_model)
        while True:
            with self._held():
                sent = asked.sent()
                with self._open(sent):
                    reply = self._inner.call(
                        sent.messages,
                        sent.tools,
                        callbacks,
                        available_functions,
                        from_task,
                        from_agent,
                        response_model,
                    )
            if not asked.again(sent, reply):
                return asked.reply

    async def acall(
        self,
        messages: Any,
        tools: Any = None,
        callbacks: Any = None,
        available_functions: Any = None,
        from_task: Any = None,
        from_agent: Any = None,
        response_model: Any = None,
    ) -> Any:
        """See ``BaseLLM.acall``."""
        asked = self._asked(messages, tools, from_task, from_agent, response_model)
        while True:
            async with self._aheld():
                sent = asked.sent()
                with self._open(sent):
                    reply = await self._inner.acall(
                        sent.messages,
                        sent.tools,
                        callbacks,
                        available_functions,
                        from_task,
                        from_agent,
                        response_model,
                    )
            if not asked.again(sent, reply):
                return asked.reply

    def _asked(self, messages: Any, tools: Any, task: Any, agent: Any, response_model: Any) -> Asked:
        asked = Asked(self, messages, tools, task=task, agent=agent, structured=response_model is not None)
        if agent is not None:
            self.seam.recent.add(asked)
        return asked

    @contextmanager
    def _open(self, sent: Sent) -> Iterator[None]:
        """What CrewAI set for calls of this LLM holds for the one inside."""
        stream = self._effective_stream()
        streams = nullcontext() if stream is None else call_stream_override(self._inner, stream)
        with call_stop_override(self._inner, list(self.stop_sequences)), streams, sent.wire.open():
            yield

    def _held(self) -> Any:
        return nullcontext() if self._gate is None else self._gate.held()

    def _aheld(self) -> Any:
        return nullcontext() if self._gate is None else self._gate.aheld()

    # Summaries

    def summarize_messages(self, messages: list[Any], callbacks: list[Any], verbose: bool = True) -> None:
        """Replace a task that has grown too long by its task and a summary, in place.

        The summary is asked for behind the prompt itself, with its tools, so that all of it is read from the cache; the task
        stays. A prompt that is too long for that is summarized as far as it was answered last, and what came since stays.
        Where that does not help, CrewAI summarizes in pieces, and the task stays all the same. In observe mode it is as
        CrewAI does it.
        """
        if self.seam.mode == "observe":
            super().summarize_messages(messages, callbacks, verbose)
            return
        before = kept(messages)
        behind = self._summarized(before, messages, callbacks)
        if behind is None:
            super().summarize_messages(messages, callbacks, verbose)
            behind = messages[-1:]
        messages[:] = [*before, *behind]

    def _summarized(self, before: list[Any], messages: list[Any], callbacks: list[Any]) -> list[Any] | None:
        """The summary, and what stays behind it; ``None`` where CrewAI has to do it in pieces."""
        known = self.seam.recent.find(messages)
        if known is None:
            return None
        length = len(messages) if room(self, messages, known.tools) else known.answered
        if length <= len(before):
            return None
        asks, rest = [*messages[:length], instruction()], messages[length:]
        try:
            reply = self.call(asks, known.tools, callbacks, None, known.task, known.agent, None)
        except Exception as error:
            if not is_context_length_exceeded(error):
                raise
            return None
        if not isinstance(reply, str) or not reply.strip():
            return None
        behind = [summary_message(reply), *rest]
        return behind if fits(self, [*before, *behind], known.tools) else None

    # What the LLM inside knows

    def supports_function_calling(self) -> bool:
        """See CrewAI: whether tools go out as such, or as text."""
        found = getattr(self._inner, "supports_function_calling", None)
        return bool(found()) if callable(found) else False

    def supports_stop_words(self) -> bool:
        """See ``BaseLLM``."""
        return bool(self._inner.supports_stop_words())

    def supports_multimodal(self) -> bool:
        """See ``BaseLLM``."""
        return bool(self._inner.supports_multimodal())

    def get_context_window_size(self) -> int:
        """See ``BaseLLM``; tokens."""
        return int(self._inner.get_context_window_size())

    def get_input_tokens_count(self, messages: Any, tools: Any = None, response_model: Any = None) -> int:
        """See ``BaseLLM``; tokens of the prompt as CrewAI has it."""
        return int(self._inner.get_input_tokens_count(messages, tools, response_model))

    def get_token_usage_summary(self) -> Any:
        """See ``BaseLLM``: what CrewAI counted, of all calls of the LLM inside."""
        return self._inner.get_token_usage_summary()

    def to_config_dict(self) -> dict[str, Any]:
        """See ``BaseLLM``: the LLM inside; what it is wrapped in is not kept."""
        found: dict[str, Any] = self._inner.to_config_dict()
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattr__(name)
        private = (
            self.__dict__.get("__pydantic_private__") or getattr(self, "__pydantic_private__", None) or {}
        )
        inner = private.get("_inner")
        if inner is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(inner, name)

    def __repr__(self) -> str:
        return f"BufferedLLM({self.model!r}, {self._seam!r})"

    __str__ = __repr__


def _base(llm: BaseLLM, session: Session | None) -> Session:
    """The session that all others fork from: for the LLM's model, in its dialect."""
    name = dialect_name(llm)
    if session is None:
        return Session(StableContext(llm.model), name)
    if session.dialect.name != name:
        raise MessageError(
            f"the session speaks {session.dialect.name!r}, and the LLM {llm.model!r} speaks {name!r}: "
            f"make the session with dialect={name!r}"
        )
    return session if session.context.model == llm.model else session.fork(model=llm.model)
