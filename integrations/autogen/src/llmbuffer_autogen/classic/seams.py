"""The seams behind agents that belong together: one for each model that they were configured with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from threading import RLock
from typing import get_args

from llmbuffer import Session, StableContext
from llmbuffer.errors import MessageError
from llmbuffer.observing import Observation
from llmbuffer.reconcile import Policy
from llmbuffer.rules import Dialect
from llmbuffer.seam import Counted, Mode, Seam

from .gates import Gates
from .host import ConversableHost
from .opening import Opening

__all__ = ["Seams"]

_DIALECTS = {
    "anthropic": "anthropic",
    "anthropic_v2": "anthropic",
    "deepseek": "deepseek",
    "google": "gemini",
}

_ORIGINS = RLock()


class Seams(Counted):
    """One seam for each model, all with the same settings; what was used is summed over them.

    A ``config_list`` may fall back to another model, and caches of models have nothing in common. ``session`` is what the
    conversations with the first model fork from, and what all prompts begin with; ``dialect`` is for providers that
    AutoGen's ``api_type`` does not tell.
    ``begun`` may be set: it is called with each new seam, before it is used. Raises ``MessageError`` for an unknown mode.

    >>> seams = Seams()
    >>> seams.of("gpt-5.5") is seams.of("gpt-5.5"), seams.of("gpt-5.5") is seams.of("gpt-5.6")
    (True, False)
    """

    def __init__(
        self,
        *,
        mode: Mode = "buffer",
        policy: Policy | None = None,
        session: Session | None = None,
        dialect: str | Dialect | None = None,
        on_observe: Callable[[Observation], object] | None = None,
    ) -> None:
        if mode not in get_args(Mode):  # refused here, not at the first request
            raise MessageError(f"mode is {mode!r}: use 'observe', 'buffer' or 'team'")
        self.mode, self.policy, self.dialect = mode, policy, dialect
        self._session, self._on_observe = session, on_observe
        self._origins: dict[tuple[str, str], Session] = {}  # what the conversations with each model fork from
        self._forked = False
        self.begun: Callable[[Seam], object] | None = None
        self._seams: dict[tuple[str, str], Seam] = {}
        self._openings: dict[Seam, Opening] = {}
        self._gates: Gates | None = None
        self._lock = RLock()

    def of(self, model: str, api_type: str | None = None) -> Seam:
        """The seam of a model; a new one at first."""
        dialect: str | Dialect | None = self.dialect
        if dialect is None:
            dialect = _DIALECTS.get(api_type or "", "openai")
        with self._lock:
            key = (model, dialect if isinstance(dialect, str) else dialect.name)
            found = self._seams.get(key)
            if found is None:
                found = self._seams[key] = self._new(key, dialect)
                if self.begun is not None:
                    self.begun(found)
            return found

    def _new(self, key: tuple[str, str], dialect: str | Dialect) -> Seam:
        with _ORIGINS:  # forks share them
            origin = self._origins.get(key)
            if origin is None:
                origin = self._origins[key] = self._origin(key[0], dialect)
        seam = Seam(
            ConversableHost(),
            session=origin.fork() if self._forked else origin,
            mode=self.mode,
            policy=self.policy,
            on_observe=self._on_observe,
        )
        self._openings[seam] = Opening(origin)
        return seam

    def _origin(self, model: str, dialect: str | Dialect) -> Session:
        given = self._session
        if given is None or not self._origins:
            return given or Session(StableContext(model), dialect)
        session = Session(StableContext(model, list(given.context.segments)), dialect)
        session.append(given.messages)
        return session

    def opening_of(self, seam: Seam) -> Opening:
        """What prompts through a seam of these begin with."""
        return self._openings[seam]

    @property
    def seams(self) -> tuple[Seam, ...]:
        """The seams so far, the first one first."""
        with self._lock:
            return tuple(self._seams.values())

    def forks(self, number: int) -> list[Seams]:
        """Seams with the same settings, each off forks of the sessions behind these: with their prefix and routing key.

        While nothing was sent yet, the first request of each member goes first, and those of the other forks wait for it.
        """
        gates = None if self.account().requests else Gates()
        made = []
        for _ in range(number):
            seams = Seams(
                mode=self.mode,
                policy=self.policy,
                session=self._session,
                dialect=self.dialect,
                on_observe=self._on_observe,
            )
            seams._origins, seams._gates, seams._forked = self._origins, gates, True
            made.append(seams)
        return made

    def passing(self, member: str) -> AbstractContextManager[None]:
        """Around a request of a member: it waits while the same prefix is being written by another fork."""
        return nullcontext() if self._gates is None else self._gates.passing(member)

    def __repr__(self) -> str:
        return f"Seams(mode={self.mode!r}, models={[each.session.context.model for each in self.seams]})"
