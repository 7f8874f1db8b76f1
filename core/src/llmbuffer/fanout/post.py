"""What processes that fan out from one prefix tell each other through a store: who is warming it, and that it is warm.

Who warms holds a lease, which is renewed until the first token; the lease of a process that died ends by itself. Then a
note says that the prefix is warm, for as long as the provider keeps it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    from ..store import Store

__all__ = ["LEASE", "Post"]

LEASE = 10.0  # seconds that a lease lasts without being renewed
_KEPT = 0.9  # the part of the provider's TTL that a note lives for: the careful end


class Post:
    """The lease and the note of one prefix under one routing key.

    ``name`` is the same for every process that sends this prefix and no text of it; ``owner`` differs in each. ``ttl`` is how
    long the provider keeps a prefix, in seconds; ``fingerprint`` and ``dialect`` name the compiled context that is noted as
    warm with it, where the store has one. ``spawn`` starts a task in the background, ``sleep`` waits.

    >>> from llmbuffer.store import open_store
    >>> post = Post(open_store("memory:"), "prefix-1", "me", ttl=300.0, spawn=print)
    >>> anyio.run(post.take), anyio.run(post.is_warm)
    <bound method Post._renewed of Post('prefix-1', held)>
    (True, False)
    """

    def __init__(
        self,
        store: Store,
        name: str,
        owner: str,
        *,
        ttl: float,
        spawn: Callable[[Callable[[], Coroutine[Any, Any, None]]], object],
        sleep: Callable[[float], Awaitable[object]] = anyio.sleep,
        compiled: tuple[str, str] | None = None,
    ) -> None:
        self._store, self._name, self._owner = store, name, owner
        self._ttl = ttl * _KEPT if ttl != float("inf") else None
        self._spawn, self._sleep, self._compiled = spawn, sleep, compiled
        self._held = self._renewing = self._warmed = False

    async def is_warm(self) -> bool:
        """Whether a process has noted that the provider holds the prefix."""
        return bool(await _in_thread(self._noted))

    def _noted(self) -> bool:
        if self._store.get(f"fanout/{self._name}") is not None:
            return True
        found = None if self._compiled is None else self._store.compiled(*self._compiled)
        return found is not None and found.warm(self._store.clock())

    async def take(self) -> bool:
        """Take the lease, unless another process holds it; it is renewed until ``settle``."""
        if not self._held:
            await _in_thread(self._take)
        if self._held and not self._renewing:
            self._renewing = True
            self._spawn(self._renewed)
        return self._held

    def _take(self) -> None:
        # Set here, in the thread: a task that is cancelled meanwhile has to give back what it took.
        self._held = self._store.take(f"fanout/{self._name}", self._owner, LEASE)

    async def _renewed(self) -> None:
        while self._held:
            await self._sleep(LEASE / 3)
            if self._held:
                await _in_thread(partial(self._store.renew, f"fanout/{self._name}", self._owner, LEASE))
        self._renewing = False

    def warmed(self) -> None:
        """Note that the prefix is warm, and let go of the lease; both in the background."""
        self._warmed = True
        self._spawn(self.settle)

    def gave_up(self) -> None:
        """Let go of the lease, in the background: nothing was warmed."""
        self._spawn(self.settle)

    async def settle(self) -> None:
        """Write what is to be told, and let go of the lease; also while this task is being cancelled."""
        with anyio.CancelScope(shield=True):
            warmed, self._warmed = self._warmed, False
            if warmed:
                await _in_thread(self._note)
            held, self._held = self._held, False
            if held:
                await _in_thread(partial(self._store.release, f"fanout/{self._name}", self._owner))

    def _note(self) -> None:
        self._store.put(f"fanout/{self._name}", b"warm", ttl=self._ttl)
        if self._compiled is not None:
            self._store.warmed(*self._compiled)

    def __repr__(self) -> str:
        return f"Post({self._name!r}, {'held' if self._held else 'free'})"


async def _in_thread(call: Callable[[], Any]) -> Any:
    return await anyio.to_thread.run_sync(call)
