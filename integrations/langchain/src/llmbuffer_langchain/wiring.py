"""What stands behind a wrapped model: its seam, those of its forks and of other models of its class, and the names given."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeVar, cast

from llmbuffer import Session, StableContext
from llmbuffer.errors import MessageError
from llmbuffer.reconcile import Policy
from llmbuffer.seam import Mode, Seam

from .applying import Parts
from .convert import LangChainHost
from .dialects import dialect_of, family_of, name_of
from .holding import Gates
from .opening import Opening
from .where import Named, Where, where

if TYPE_CHECKING:
    from llmbuffer.observing import Observation
    from llmbuffer.rules import Dialect

__all__ = ["NAMELESS", "Wiring", "wiring_of"]

K = TypeVar("K")
V = TypeVar("V")

_log = logging.getLogger("llmbuffer_langchain")
_FORKS = 256  # branches of one model that are kept
_MODELS = 32  # names that one wrapped model is called by
NAMELESS = frozenset(
    {"anthropic", "openai-responses", "gemini"}
)  # LangChain sends no names of speakers there


class Wiring:
    """What stands behind one wrapped model: its seam, those of its forks, and the names that the user gave.

    ``session`` is what the conversations are forked from, and what their prompts begin with; without one, an empty one of
    ``dialect``, by default what the model's class says.
    """

    def __init__(
        self,
        model: Any,
        *,
        mode: Mode = "buffer",
        policy: Policy | None = None,
        session: Session | None = None,
        dialect: str | Dialect | None = None,
        conversation: Named = None,
        member: Named = None,
        limit: int = 1024,
        members: Mapping[str, str] | None = None,
        on_observe: Callable[[Observation], object] | None = None,
    ) -> None:
        self.options: dict[str, Any] = {
            "mode": mode, "policy": policy, "session": session, "dialect": dialect, "conversation": conversation,
            "member": member, "limit": limit, "members": members, "on_observe": on_observe,
        }  # fmt: skip
        self._name = name_of(model)
        if session is None:
            session = Session(StableContext(self._name), dialect_of(model) if dialect is None else dialect)
        host = LangChainHost(names=session.dialect.name not in NAMELESS)
        self.seam = Seam(host, session=session, mode=mode, policy=policy, limit=limit, on_observe=on_observe)
        self.opening = Opening(session, host)
        for name, system in (members or {}).items():
            self.seam.declare(name, system=self.opening.told(system))
        self.family, self.parts, self.gates = family_of(model), Parts(), Gates()
        self._conversation, self._member = conversation, member
        self._forks: OrderedDict[tuple[str, str | None], Seam] = OrderedDict()
        self._others: OrderedDict[str, Wiring] = OrderedDict()
        self._told: set[str] = set()
        self._lock = RLock()

    def __copy__(self) -> Wiring:
        return self

    def __deepcopy__(self, memo: Any) -> Wiring:
        return self  # copies of a model go on in the same conversations

    def of(self, model: Any) -> Wiring:
        """The wiring for a copy of the model: this one, unless the copy has another model's name.

        Caches of two models have nothing in common, and the rules of one are not those of the other.
        """
        name = name_of(model)
        if name == self._name:
            return self
        with self._lock:
            return _kept(self._others, name, lambda: self._like(model, name), _MODELS)

    def _like(self, model: Any, name: str) -> Wiring:
        given = self.options["session"]
        if given is None:
            return Wiring(model, **self.options)
        dialect = self.options["dialect"] or dialect_of(model)
        session = Session(StableContext(name, list(given.context.segments)), dialect)
        session.append(given.messages)
        return Wiring(model, **{**self.options, "session": session})

    @property
    def seams(self) -> tuple[Seam, ...]:
        """The seam, those of the forks that are kept, and those of other models' names."""
        with self._lock:
            others = [seam for each in self._others.values() for seam in each.seams]
            return (self.seam, *self._forks.values(), *others)

    def where(self, run_manager: Any) -> Where:
        """Where a call belongs, see ``where.where``."""
        return where(run_manager, self._conversation, self._member)

    def at(self, place: Where) -> Seam:
        """The seam of a place: a fork has one of its own, off the session of the conversation that it branched from."""
        if place.fork is None or place.fork_of is None:
            return self.seam
        source, fork, member = place.fork_of, place.fork, place.member

        def made() -> Seam:
            return self.seam.fork(self.seam.session_of(source, member).fork(fork))

        with self._lock:
            return _kept(self._forks, (fork, member), made, _FORKS)

    def unknown(self, messages: Sequence[Any], places: Sequence[int]) -> None:
        """Report message kinds that the adapter does not know, each once."""
        for place in places:
            kind = type(messages[place]).__name__
            if kind not in self._told:
                self._told.add(kind)
                _log.warning("messages of kind %s are not known here: they are handed on untouched", kind)

    def __repr__(self) -> str:
        return f"Wiring({self.seam!r}, forks={len(self._forks)})"


def wiring_of(model: Any) -> Wiring:
    """What stands behind a buffered model. Raises ``MessageError`` for one that was made from its class alone."""
    if model._llmbuffer is None:
        raise MessageError(
            f"this {type(model).__name__} was made from its class, so it goes out as it is: give the plain model to "
            "BufferedChatModel"
        )
    return cast(Wiring, model._llmbuffer)


def _kept(known: OrderedDict[K, V], key: K, made: Callable[[], V], limit: int) -> V:
    """What is known by a key, made where there is none; beyond ``limit``, what was used longest ago goes."""
    found = known.get(key)
    if found is None:
        found = known[key] = made()
    known.move_to_end(key)
    while len(known) > limit:
        known.popitem(last=False)
    return found
