"""A request of one member of a team."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..context import CacheKey, Segment
from ..forecast import Forecast
from ..frozen import FrozenDict
from ..messages import Message
from ..observing import Observation
from ..request import Request
from ..snapshot import Snapshot
from ..usage import Usage
from .layouts import Turn

__all__ = ["TeamRequest"]


class TeamRequest:
    """What a member's session asks, and whoever sends it tells the team the answer with ``observe``.

    ``request`` is the ``Request`` of the session; the most used of what it has is here too: ``body``, ``kwargs``, ``key``,
    ``forecast``, ``snapshot``, ``dynamic``. ``member`` is the name of who asks.

    >>> from llmbuffer import Session, StableContext
    >>> from llmbuffer.team import Member, Team
    >>> team = Team(Session(StableContext("gpt-5.5")), [Member("ann"), Member("bob")])
    >>> team.request("ann", "Hello").member
    'ann'
    """

    def __init__(
        self, tell: Callable[[Turn, Request, Observation], None], turn: Turn, request: Request
    ) -> None:
        self._tell, self._turn, self.request = tell, turn, request

    @property
    def member(self) -> str:
        """Whose turn it is."""
        return self._turn.name

    @property
    def body(self) -> FrozenDict:
        """The JSON body, read-only."""
        return self.request.body

    @property
    def kwargs(self) -> dict[str, Any]:
        """``body`` as arguments for the SDK's ``create``."""
        return self.request.kwargs

    @property
    def key(self) -> CacheKey:
        """Its identity."""
        return self.request.key

    @property
    def forecast(self) -> Forecast:
        """What the provider will serve from its cache, and what the input costs."""
        return self.request.forecast

    @property
    def snapshot(self) -> Snapshot:
        """What is sent, as the cache models see it."""
        return self.request.snapshot

    @property
    def dynamic(self) -> tuple[Segment, ...]:
        """What stands in it for this turn only; in a shared layout, the member's role is the last of it."""
        return self.request.dynamic

    def observe(
        self,
        response: Any = None,
        message: Message | Mapping[str, Any] | None = None,
        *,
        usage: Usage | None = None,
    ) -> Observation:
        """Take in the response, as ``Request.observe`` does; if the turn ends with it, all members hear what was said.

        Calls of tools that the member may not use are answered here with an error result; ``Observation.session`` holds
        those that are left (``calls.open_calls``). Hand their results to ``Team.append``, then ask again.
        """
        seen = self.request.observe(response, message, usage=usage)
        self._tell(self._turn, self.request, seen)
        return seen

    def __repr__(self) -> str:
        return f"TeamRequest(member={self.member!r}, {self.request!r})"
