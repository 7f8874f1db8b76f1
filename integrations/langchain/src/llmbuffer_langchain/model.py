"""A chat model whose prompts stay cacheable: a subclass instance of the model's own class."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from langchain_core.language_models import BaseChatModel
from pydantic import PrivateAttr

from llmbuffer.errors import MessageError

from .configuring import BufferedFields
from .generating import agenerate_of, astream_of, generate_of, get_name_of, stream_of
from .where import Named, at, config_of
from .wiring import Wiring, wiring_of

if TYPE_CHECKING:
    from llmbuffer import Session
    from llmbuffer.observing import Observation
    from llmbuffer.reconcile import Policy
    from llmbuffer.rules import Dialect
    from llmbuffer.seam import Mode, Seam

__all__ = ["BufferedChatModel", "Buffering", "is_buffered", "wired"]

M = TypeVar("M", bound=BaseChatModel)


def BufferedChatModel(  # noqa: N802  # it gives an object of a class, and is used like one
    model: M,
    *,
    mode: Mode = "buffer",
    policy: Policy | None = None,
    session: Session | None = None,
    dialect: str | Dialect | None = None,
    conversation: Named = None,
    member: Named = None,
    members: Mapping[str, str] | None = None,
    limit: int = 1024,
    on_observe: Callable[[Observation], object] | None = None,
) -> M:
    """The model, with prompts that stay cacheable: for LCEL chains, LangGraph nodes, and wherever a chat model goes.

    What comes back is an instance of a subclass of the model's own class, so that ``isinstance``, ``bind_tools``,
    ``with_structured_output``, streaming, caches and profiles stay as they are; the model that was given is left alone.
    ``model.seam`` tells usage, cost and breaks by conversation and member.

    ``mode``, ``policy``, ``limit`` (conversations) and ``on_observe`` are those of ``llmbuffer.seam.Seam``; ``session`` is
    what all conversations are forked from, ``dialect`` what the provider speaks (default: by the model's class).
    ``conversation`` and ``member`` are names, or callables that get the config's metadata and configurable fields; the
    default is the thread (or session) id, and the agent's or node's name. Without a name, prompts are told apart by what
    they begin with.

    Raises ``TypeError`` for what is no chat model, and ``MessageError`` for one that is buffered already. Errors of the
    model come through as they are; then nothing is committed.

        model = BufferedChatModel(ChatOpenAI(model="gpt-5.5"))
        chain = prompt | model
    """
    if not isinstance(model, BaseChatModel):
        raise TypeError(
            f"BufferedChatModel takes a chat model, and this is a {type(model).__name__}: wrap the model before "
            "bind_tools, with_structured_output or with_config make something else of it"
        )
    if is_buffered(model):
        raise MessageError(f"this {type(model).__name__} is buffered already: use it as it is")
    wiring = Wiring(
        model,
        mode=mode,
        policy=policy,
        session=session,
        dialect=dialect,
        conversation=conversation,
        member=member,
        members=members,
        limit=limit,
        on_observe=on_observe,
    )
    return wired(model, wiring)


def is_buffered(model: Any) -> bool:
    """Whether a model came from ``BufferedChatModel``."""
    return isinstance(model, Buffering)


def wired(model: M, wiring: Wiring | None) -> M:
    """A copy of the model that plans its calls with ``wiring``."""
    out = model.model_copy()
    object.__setattr__(out, "__class__", _buffered(cast(Any, type(model))))
    object.__setattr__(
        out, "__pydantic_private__", {**(out.__pydantic_private__ or {}), "_llmbuffer": wiring}
    )
    return out


class Buffering:
    """What the classes of buffered models have in common; ``isinstance(model, Buffering)`` tells them apart."""

    _llmbuffer: Any

    @property
    def seam(self) -> Seam:
        """The conversations of this model: usage, cost and breaks by conversation and member."""
        return wiring_of(self).seam

    @property
    def seams(self) -> tuple[Seam, ...]:
        """The seam, and those of forks and of copies that have another model's name: caches of models share nothing."""
        return wiring_of(self).seams

    def configurable_fields(self, **kwargs: Any) -> Any:
        """See ``RunnableSerializable.configurable_fields``; whatever the fields, the conversations go on."""
        made = super().configurable_fields(**kwargs)  # type: ignore[misc]  # a mixin before the model's class
        return BufferedFields(default=made.default, fields=made.fields)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """The plain model and the options: one that is unpickled begins with conversations of its own."""
        options = None if self._llmbuffer is None else wiring_of(self).options
        if options is not None and options["session"] is not None:
            raise TypeError(
                f"a {type(self).__name__} with session= cannot be pickled, since sessions stay in their process: pickle "
                "the plain model, and give it to BufferedChatModel where it goes"
            )
        return _rebuilt, (_plain(self), options)

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002  # LangChain's name
        """See ``BaseChatModel.invoke``."""
        with at(config_of(config)):
            return super().invoke(input, config, **kwargs)  # type: ignore[misc]  # a mixin before the model's class

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002
        """See ``BaseChatModel.ainvoke``."""
        with at(config_of(config)):
            return await super().ainvoke(input, config, **kwargs)  # type: ignore[misc]  # as above

    def stream(self, input: Any, config: Any = None, **kwargs: Any) -> Iterator[Any]:  # noqa: A002
        """See ``BaseChatModel.stream``."""
        told = config_of(config)
        chunks = super().stream(input, config, **kwargs)  # type: ignore[misc]  # as above
        with at(told):  # the call is planned before the first chunk comes
            first = next(chunks, None)
        if first is not None:
            yield first
            yield from chunks

    async def astream(self, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:  # noqa: A002
        """See ``BaseChatModel.astream``."""
        told = config_of(config)
        chunks = super().astream(input, config, **kwargs)  # type: ignore[misc]  # as above
        with at(told):
            first = await anext(chunks, None)
        if first is not None:
            yield first
            async for chunk in chunks:
                yield chunk


def _plain(model: Any) -> BaseChatModel:
    """A copy of the model that a buffered one was made of."""
    out: BaseChatModel = model.model_copy()
    private = {
        name: value for name, value in (out.__pydantic_private__ or {}).items() if name != "_llmbuffer"
    }
    kind: Any = type(model).__bases__[1]
    object.__setattr__(out, "__class__", kind)
    object.__setattr__(out, "__pydantic_private__", private if kind.__private_attributes__ else None)
    return out


def _rebuilt(plain: BaseChatModel, options: dict[str, Any] | None) -> BaseChatModel:
    """What a pickled model becomes."""
    return wired(plain, None if options is None else Wiring(plain, **options))


@cache
def _buffered(kind: type[BaseChatModel]) -> Any:
    """The subclass of a model's class; it has the methods that the class has, since LangChain looks which there are."""
    space: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": kind.__doc__,
        "__annotations__": {"_llmbuffer": Any},
        "_llmbuffer": PrivateAttr(default=None),
        "_generate": generate_of(kind),
        "lc_id": classmethod(lambda _cls: kind.lc_id()),
        "get_name": get_name_of(kind),
    }
    for name, made in (("_agenerate", agenerate_of), ("_stream", stream_of), ("_astream", astream_of)):
        if getattr(kind, name) is not getattr(BaseChatModel, name):
            space[name] = made(kind)
    meta: Any = type(kind)
    return meta(f"Buffered{kind.__name__}", (Buffering, kind), space)
