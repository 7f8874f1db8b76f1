"""What a session does with a client: converse, and warm the provider's cache."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, cast

from .messages import Message
from .observing import Observation
from .placing import Dynamic
from .rules import Event

if TYPE_CHECKING:
    from .loop import Executor
    from .session import Session

__all__ = ["Conversing"]


class Conversing:
    """The part of ``Session`` that sends: see ``loop`` and ``prewarm``, which are loaded when first used."""

    __slots__ = ()

    @property
    def _session(self) -> Session:
        return cast("Session", self)

    def respond(
        self,
        user: Any = None,
        *,
        dynamic: Dynamic | None = None,
        tools: Executor | None = None,
        **options: Any,
    ) -> Message:
        """Request, send with ``client``, observe, run tools, and again, until the turn ends: see ``loop.respond``."""
        from . import loop

        return loop.respond(self._session, user, dynamic=dynamic, tools=tools, **options)

    async def arespond(
        self,
        user: Any = None,
        *,
        dynamic: Dynamic | None = None,
        tools: Executor | None = None,
        **options: Any,
    ) -> Message:
        """The same with an asynchronous client and synchronous or asynchronous tools."""
        from . import loop

        return await loop.arespond(self._session, user, dynamic=dynamic, tools=tools, **options)

    def stream(
        self,
        user: Any = None,
        *,
        dynamic: Dynamic | None = None,
        tools: Executor | None = None,
        **options: Any,
    ) -> Iterator[Event]:
        """``respond`` that yields events as they come; the last one holds the reply."""
        from . import loop

        return loop.stream(self._session, user, dynamic=dynamic, tools=tools, **options)

    def astream(
        self,
        user: Any = None,
        *,
        dynamic: Dynamic | None = None,
        tools: Executor | None = None,
        **options: Any,
    ) -> AsyncIterator[Event]:
        """``arespond`` that yields events as they come."""
        from . import loop

        return loop.astream(self._session, user, dynamic=dynamic, tools=tools, **options)

    def prewarm(self, *, client: Any = None) -> Observation | None:
        """Have the provider cache the prompt as it stands, without a reply: see ``prewarm.prewarm``."""
        from . import prewarm

        return prewarm.prewarm(self._session, client=client)

    async def aprewarm(self, *, client: Any = None) -> Observation | None:
        """The same with an asynchronous client."""
        from . import prewarm

        return await prewarm.aprewarm(self._session, client=client)
