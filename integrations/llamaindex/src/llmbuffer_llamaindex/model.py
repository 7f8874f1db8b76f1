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
    """What a buffered LLM has beside the fields of its own class; copies of the LLM share it.

    ``options`` are what it was made with.
    """

    def __init__(
        self, channel: Channel, binding: Binding, options: dict[str, Any], gate: Gate | None = None
    ) -> None:
        self.channel, self.binding, self.options, self.gate = channel, binding, options, gate

    @property
    def stream_usage(self) -> bool:
        """Whether the usage of streams is asked for."""
        return bool(self.options["stream_usage"])

    def changed(
        self,
        *,
        channel: Channel | None = None,
        binding: Binding | None = None,
        gate: Gate | None = None,
        **options: Any,
    ) -> State:
        """The same with another channel, binding or gate, or other options."""
        options = {**self.options, **options}
        return State(channel or self.channel, binding or self.binding, options, gate or self.gate)

    def told(self) -> dict[str, Any]:
        """What it takes to make such a one anew, in another process. Raises ``TypeError`` for one with a session."""
        if self.options["session"] is not None:
            raise TypeError(
                "a BufferedLLM with a session cannot be pickled, since its session cannot: pickle the LLM that it was made "
                "from, save the session in a store, and make the BufferedLLM where both are loaded"
            )
        return {**self.options, **self.binding._asdict()}

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
    ``on_observe`` is called with each observation, ``limit`` is how many conversations are kept. A pickled one is made anew from
    the LLM and these arguments where it is loaded: without conversations, accounts and ``gate``.

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
        options = {
            "mode": mode,
            "policy": policy,
            "session": session,
            "dialect": dialect,
            "retell": retell,
            "stream_usage": stream_usage,
            "limit": limit,
            "on_observe": on_observe,
        }
        state = State(channel, Binding(conversation, member), options)
        return _made(llm, _buffered(cast(Hashable, type(llm))), state)

    def __init__(self, *arguments: Any, **fields: Any) -> None:
        if getattr(self, _STATE, None) is None:
            super().__init__(*arguments, **fields)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """The LLM itself and what it was made with: a class that is made at run time is not found by its name."""
        state = getattr(self, _STATE, None)
        plain = _made(self, _plain(type(self)), None)
        return _again, (plain, state.told() if isinstance(state, State) else None)

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
        channel = state.channel.fork(session)
        return _made(
            self, type(self), state.changed(channel=channel, session=session or state.options["session"])
        )

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


def _made(llm: Any, kind: type, state: State | None) -> Any:
    """A copy of the LLM, of this class, with this state; fields and private attributes are shared."""
    copy = llm.model_copy()
    private = {**(copy.__pydantic_private__ or {}), _STATE: state}
    if not issubclass(kind, BufferedLLM):
        del private[_STATE]
    object.__setattr__(copy, "__class__", kind)
    object.__setattr__(copy, "__pydantic_private__", private)
    return copy


def _again(llm: Any, options: dict[str, Any] | None) -> Any:
    """A buffered LLM as it was when it was pickled; ``None`` for one that was made from its fields alone."""
    if options is None:
        return _made(llm, _buffered(cast(Hashable, type(llm))), None)
    return BufferedLLM(llm, **options)


def _plain(kind: type) -> type:
    """The class that a class of buffered LLMs was made from."""
    return next(each for each in kind.__mro__ if issubclass(each, LLM) and not issubclass(each, BufferedLLM))


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
