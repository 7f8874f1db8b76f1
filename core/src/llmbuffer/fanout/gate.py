"""The gate of a cold prefix: one request goes first, the others are held until it begins to be answered.

A gate stands for one prefix under one routing key. If the request that leads fails before its first token, the next one
leads. Nobody waits longer than ``patience``, and whoever is cancelled while it waits or leads is simply gone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

from .post import Post

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Gate", "Lead", "Sleep"]

Sleep = Callable[[float], Awaitable[object]]

_FIRST_LOOK, _LAST_LOOK = 0.05, 1.0  # seconds between two looks at another process's lease: doubled each time


class Lead:
    """The right to go first. Call ``begun`` at the first token; leaving the block without it lets the next one lead.

    >>> async def lead(gate: Gate) -> bool:
    ...     lead = await gate.enter()
    ...     with lead:
    ...         lead.begun()
    ...     return gate.is_open
    >>> anyio.run(lead, Gate())
    True
    """

    def __init__(self, gate: Gate) -> None:
        self._gate: Gate | None = gate

    def begun(self) -> None:
        """The provider has begun to answer: what was written can be read. Again, it changes nothing."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.succeeded()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.failed()


class Gate:
    """Holds all but one until the prefix is warm.

    ``leads`` is how many requests go first, one after the other; ``patience`` how long anybody waits, in seconds;
    ``post`` tells other processes, and asks them; ``sleep`` waits between two looks at what they say. For one event loop.

    >>> anyio.run(Gate(leads=0).enter) is None
    True
    """

    def __init__(
        self,
        *,
        leads: int = 1,
        patience: float = 60.0,
        post: Post | None = None,
        sleep: Sleep = anyio.sleep,
    ) -> None:
        self._left, self._patience, self._post, self._sleep = leads, patience, post, sleep
        self._leading = False
        self._changed: anyio.Event | None = None

    @property
    def is_open(self) -> bool:
        """Whether nobody is held any more."""
        return self._left <= 0

    async def enter(self, on_wait: Callable[[], object] | None = None) -> Lead | None:
        """Wait until the prefix is warm, and return ``None``; or lead. ``on_wait`` is called if there is a wait."""
        told = False
        with anyio.move_on_after(self._patience):
            while not self.is_open:
                if not self._leading:
                    return await self._lead(on_wait)
                if not told and on_wait is not None:
                    on_wait()
                told = True
                await self._next_change()
        return None

    async def _lead(self, on_wait: Callable[[], object] | None) -> Lead | None:
        """Lead, unless another process does: then wait for it in the name of all who wait here."""
        self._leading = True
        try:
            if self._post is None or await self._first_of_all(self._post, on_wait):
                return Lead(self)
        except BaseException:  # cancelled, out of patience, or the store failed: the next one tries
            self.failed()
            raise
        self._left = 0
        self._free()
        return None

    async def _first_of_all(self, post: Post, on_wait: Callable[[], object] | None) -> bool:
        """Whether no process warmed this prefix, and none is about to."""
        pause = _FIRST_LOOK
        while True:
            if await post.is_warm():
                return False
            if await post.take():
                if not await post.is_warm():
                    return True
                await post.settle()
                return False
            if on_wait is not None and pause == _FIRST_LOOK:
                on_wait()
            await self._sleep(pause)
            pause = min(_LAST_LOOK, 2 * pause)

    async def _next_change(self) -> None:
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()

    def succeeded(self) -> None:
        """What ``Lead.begun`` calls."""
        self._left -= 1
        if self._post is not None and self.is_open:
            self._post.warmed()
        self._free()

    def failed(self) -> None:
        """What an ended ``Lead`` calls whose request was not answered."""
        if (
            self._post is not None and self._changed is None
        ):  # else one that waits here leads with the same lease
            self._post.gave_up()
        self._free()

    def _free(self) -> None:
        self._leading = False
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()
