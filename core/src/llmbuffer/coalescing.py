"""Equal work asked for at the same time is done once: who leads, who waits, and who goes on when a leader fails.

Threads and tasks (asyncio and trio) may wait for each other, in one process. Nothing here sends or stores anything.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import anyio

__all__ = ["Flights", "Verdict", "Waiter"]

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class Verdict(NamedTuple):
    """What one who asked is to do: ``lead`` (do the work, and settle), ``share`` the answers, or go ``alone``."""

    kind: Literal["lead", "share", "alone"]
    answers: tuple[Any, ...] = ()


class Waiter:
    """One who waits for a verdict, in a thread or (``asynchronous``) in a task of the event loop that runs here."""

    __slots__ = ("_event", "_wake", "verdict")

    def __init__(self, *, asynchronous: bool) -> None:
        self.verdict: Verdict | None = None
        self._event: Any = anyio.Event() if asynchronous else threading.Event()
        self._wake = _across_threads(self._event.set) if asynchronous else self._event.set

    def give(self, verdict: Verdict) -> bool:
        """Hand over the verdict, from any thread; False if the waiter's event loop has ended."""
        self.verdict = verdict
        try:
            self._wake()
        except RuntimeError:  # asyncio's for a loop that is closed, and trio's RunFinishedError
            self.verdict = None
            return False
        return True

    def wait(self) -> Verdict:
        """Wait in a thread."""
        self._event.wait()
        return self._given()

    async def await_(self) -> Verdict:
        """Wait in a task."""
        await self._event.wait()
        return self._given()

    def _given(self) -> Verdict:
        assert self.verdict is not None, "woken by give() alone"
        return self.verdict


def _across_threads(set_event: Callable[[], None]) -> Callable[[], object]:
    """A function that sets an event of this event loop and may be called from any thread."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        trio: Any = sys.modules["trio"]  # the only other one that anyio runs on
        token = trio.lowlevel.current_trio_token()
        return lambda: token.run_sync_soon(set_event)
    return lambda: loop.call_soon_threadsafe(set_event)


class _Queue:
    """Those who lead, counted, and those who wait, the first come first."""

    __slots__ = ("leading", "waiting")

    def __init__(self) -> None:
        self.leading = 0
        self.waiting: deque[Waiter] = deque()


class Flights(Generic[K, T]):
    """Who is at work on what. As many lead as answers are ``wanted`` and not there yet; the others wait.

    ``look`` gives the answers to a key that are there; it is called under a lock, so it must be quick.

    >>> there: dict[str, tuple[str, ...]] = {}
    >>> flights = Flights(lambda key: there.get(key, ()), wanted=1)
    >>> flights.enter("key").kind, isinstance(flights.enter("key"), Waiter)
    ('lead', True)
    """

    def __init__(self, look: Callable[[K], tuple[T, ...]], *, wanted: int) -> None:
        self._look, self.wanted = look, wanted
        self._queues: dict[K, _Queue] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many keys somebody works on or waits for."""
        return len(self._queues)

    def waiting(self, key: K) -> int:
        """How many wait for an answer to this key."""
        with self._lock:
            queue = self._queues.get(key)
            return 0 if queue is None else len(queue.waiting)

    def enter(self, key: K, *, asynchronous: bool = False) -> Verdict | Waiter:
        """Ask for answers: a verdict, or somebody else is at work, and there is one to wait for."""
        with self._lock:
            answers = self._look(key)
            if len(answers) >= self.wanted:
                return Verdict("share", answers)
            queue = self._queues.setdefault(key, _Queue())
            if queue.leading + len(answers) < self.wanted:
                queue.leading += 1
                return Verdict("lead")
            waiter: Waiter = Waiter(asynchronous=asynchronous)
            queue.waiting.append(waiter)
            return waiter

    def settle(self, key: K, answers: tuple[T, ...] | None = None, *, fit: bool = True) -> None:
        """A leader has ended, well or not: others share ``answers`` (default: those there), or the next one leads.

        ``fit=False`` says that what came cannot be shared, and what others would get could neither: all go on alone.
        """
        with self._lock:
            queue = self._queues[key]
            queue.leading -= 1
            self._go_on(key, queue, self._look(key) if answers is None else answers, fit)

    def leave(self, key: K, waiter: Waiter) -> None:
        """One who waited was cancelled; if it was just told to lead, the next one does."""
        with self._lock:
            queue = self._queues.get(key)
            if queue is None:
                return
            if waiter in queue.waiting:
                queue.waiting.remove(waiter)
            elif waiter.verdict is not None and waiter.verdict.kind == "lead":
                queue.leading -= 1
            self._go_on(key, queue, self._look(key), True)

    def _go_on(self, key: K, queue: _Queue, answers: tuple[T, ...], fit: bool) -> None:
        if not fit or len(answers) >= self.wanted:
            verdict: Verdict = Verdict("share", answers) if fit else Verdict("alone")
            while queue.waiting:
                queue.waiting.popleft().give(verdict)
        while queue.waiting and queue.leading + len(answers) < self.wanted:
            queue.leading += queue.waiting.popleft().give(Verdict("lead"))
        if not queue.leading and not queue.waiting:
            del self._queues[key]
