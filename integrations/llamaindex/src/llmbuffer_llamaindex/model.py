"""``BufferedLLM``: an LLM of LlamaIndex, as an object of its own class, whose prompts stay cacheable."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms import LLM

from llmbuffer.errors import MessageError
from llmbuffer.reconcile import Policy
from llmbuffer.seam import Mode, Seam

from .calls import CALLS
from .channel import Binding, Channel
from .convert import LlamaHost
from .declaring import declared
from .templates import SYSTEM_TEMPLATES
from .wires import wire_of

if TYPE_CHECKING:
    from llama_index.core.llms import LLM as _LLM  # what is made of an LLM is one, too

    from llmbuffer.fanout import Gate
    from llmbuffer.observing import Observation
    from llmbuffer.rules import Dialect
    from llmbuffer.session import Session

else:
    _LLM = object

__all__ = ["BufferedLLM"]

_STATE = "_llmbuffer"


class State:
    """What a buffered LLM has beside the fields of its own class; copies of the LLM share it."""

    def __init__(
        self, channel: Channel, binding: Binding, *, stream_usage: bool, gate: Gate | None = None
    ) -> None:
        self.channel, self.binding, self.stream_usage, self.gate = channel, binding, stream_usage, gate

    def changed(
        self, *, channel: Channel | None = None, binding: Binding | None = None, gate: Gate | None = None
    ) -> State:
        """The same with another channel, binding or gate."""
        return State(
            channel or self.channel,
            binding or self.binding,
            stream_usage=self.stream_usage,
            gate=gate or self.gate,
        )

    def __deepcopy__(self, _: Any) -> State:
        return self


class BufferedLLM(_LLM):
    """``BufferedLLM(llm)``: a copy of an LLM, of a subclass of its own class, whose prompts stay cacheable.

    It sees what chat engines, agents and query engines send: system prompt, tools, scratchpad. ``isinstance`` checks,
    ``structured_predict``, ``output_cls``, ``tool_required``, streams and callbacks work as with ``llm`` itself, and its
    client is shared. Made for ``OpenAI``, ``OpenAILike`` and ``Anthropic``; of any other LLM, messages and tools are kept in
    order, without breakpoints and routing. Prompts of models without a chat format pass by untouched.

    ``mode`` is ``observe``, ``buffer`` or ``team`` (see ``llmbuffer.seam.Seam``); ``policy`` says what may be done with prompts,
    to which LlamaIndex's own templates of retrieved text are added. ``session`` is what all conversations fork from: its history
    and its system text stand first. ``dialect`` says how prompts are cached, where the class of the LLM does not tell.
    ``conversation`` and ``member`` name whose calls these are; without them, the longest common beginning decides, and the
    system prompt tells agents apart. With ``retell``, calls that retell a known conversation as a transcript (to condense a
    question, to summarise) go out behind that conversation. ``stream_usage`` asks OpenAI for the usage of streams.
    ``on_observe`` is called with each observation, ``limit`` is how many conversations are kept.

    Raises ``MessageError`` for what is no LLM, or is buffered already.

    >>> from llama_index.core.llms import MockLLM
    >>> llm = BufferedLLM(MockLLM())
    >>> isinstance(llm, MockLLM), llm.complete("Hello").text, llm.seam.mode
    (True, 'Hello', 'buffer')
    """

    def __new__(
        cls,
        llm: Any = None,
        *,
        mode: Mode = "buffer",
        policy: Policy | None = None,
        session: Session | None = None,
        dialect: str | Dialect | None = None,
        conversation: str | None = None,
        member: str | None = None,
        retell: bool = True,
        stream_usage: bool = True,
        limit: int = 1024,
        on_observe: Callable[[Observation], object] | None = None,
        **fields: Any,
    ) -> Any:
        """See the class."""
        if cls is not BufferedLLM:  # made by its fields, as a copy or a loader does
            return super().__new__(cls)
        if not isinstance(llm, LLM):
            raise MessageError(
                f"a {type(llm).__name__} is no LLM of llama_index: give BufferedLLM(OpenAI(…)), say"
            )
        if isinstance(llm, BufferedLLM):
            raise MessageError(f"this {type(llm).__name__} is buffered already: use it, or llm.bound(…)")
        if fields:
            raise MessageError(f"unknown arguments {sorted(fields)}: set the LLM's own fields on the LLM")
        wire = wire_of(llm)
        host = LlamaHost(objects=wire.objects)
        seam = Seam(
            host,
            session=session,
            model=llm.metadata.model_name if session is None else "",
            dialect=wire.dialect if dialect is None else dialect,
            mode=mode,
            policy=_with_templates(policy or Policy()),
            limit=limit,
            on_observe=on_observe,
        )
        channel = Channel(seam, host, retell=retell)
        state = State(channel, Binding(conversation, member), stream_usage=stream_usage)
        return _made(llm, _buffered(cast(Hashable, type(llm))), state)

    def __init__(self, *arguments: Any, **fields: Any) -> None:
        if getattr(self, _STATE, None) is None:
            super().__init__(*arguments, **fields)

    @property
    def seam(self) -> Seam:
        """The sessions behind this LLM, and what was used: ``llm.seam.account().usage``, ``llm.seam.ledger``."""
        return _state(self).channel.seam

    def bound(
        self, *, conversation: str | None = None, member: str | None = None, gate: Gate | None = None
    ) -> Any:
        """The same LLM for one conversation (and one agent in it); seam and client are shared.

        ``history="ours"`` needs one, and two conversations that begin alike are told apart by it. ``gate`` holds asynchronous calls
        until one of those that share it has begun to be answered.
        """
        state = _state(self)
        now = Binding(conversation or state.binding.conversation, member or state.binding.member)
        return _made(self, type(self), state.changed(binding=now, gate=gate))

    def conversation(self, name: str, member: str | None = None) -> AbstractContextManager[None]:
        """A block in which calls, and those of tasks begun in it, belong to a conversation.

        For one agent or workflow that serves many users: ``with llm.conversation("user-7"): handler = agent.run(…)``.
        """
        return _state(self).channel.bound(name, member)

    def forked(self, session: Session | None = None) -> Any:
        """The same LLM with conversations of its own, off ``session`` (default: a fork of this one's)."""
        state = _state(self)
        return _made(self, type(self), state.changed(channel=state.channel.fork(session)))

    def declare(self, workflow: Any) -> None:
        """Tell of the agents of an ``AgentWorkflow``, or of a list of agents, before they speak.

        They are known by their names from now on (in accounts, say), and in team mode the first prompt has the prefix that all
        of them share, so that nothing has to move when the second one speaks. Of agents that write their system prompt
        themselves (``ReActAgent``), and of tools that are retrieved for a question, nothing is known beforehand.
        """
        for name, system, tools in declared(workflow, self):
            _state(self).channel.declare(name, system, tools)

    def reset(self) -> None:
        """Let go of all conversations, of what was learned, and of the accounts."""
        _state(self).channel.reset()


def _state(llm: Any) -> State:
    state = getattr(llm, _STATE, None)
    if not isinstance(state, State):
        raise MessageError(
            f"this {type(llm).__name__} was made from its fields alone: make it with BufferedLLM(llm)"
        )
    return state


def _made(llm: Any, kind: type, state: State) -> Any:
    """A copy of the LLM, of this class, with this state; fields and private attributes are shared."""
    copy = llm.model_copy()
    private = {**(copy.__pydantic_private__ or {}), _STATE: state}
    object.__setattr__(copy, "__class__", kind)
    object.__setattr__(copy, "__pydantic_private__", private)
    return copy


@cache
def _buffered(kind: Any) -> type:
    """The subclass of an LLM's class. Its calls are made where prompts of both kinds, chat and completion, pass by."""
    body: dict[str, Any] = {
        "__module__": kind.__module__,
        "__doc__": kind.__doc__,
        "__annotations__": {_STATE: Any},
        _STATE: PrivateAttr(default=None),
    }
    for name, call in CALLS.items():
        inner = f"_{name}"
        where = inner if callable(getattr(kind, inner, None)) else name
        body[where] = call(getattr(kind, where), where)
    return type(kind)(f"Buffered{kind.__name__}", (BufferedLLM, kind), body)


def _with_templates(policy: Policy) -> Policy:
    import msgspec

    return msgspec.structs.replace(policy, declared=(*policy.declared, *SYSTEM_TEMPLATES))
