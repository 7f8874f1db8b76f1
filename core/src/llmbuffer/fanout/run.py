"""A fan-out under way: workers, gates, keys and slots of one run."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Sequence
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskGroup

from ..messages import content_hash
from ..request import Request
from ..rules import CacheRules
from ..session import Session
from ..snapshot import Snapshot
from .events import FanOutEvent
from .gate import Gate
from .keys import KeyRing
from .lanes import Lanes
from .options import Options
from .post import Post
from .result import Result, Results, summed
from .sender import Sender
from .tasks import Task
from .worker import Worker

__all__ = ["Run"]

_WARM = 0.9  # the part of a prefix that has to be in the cache for it to count as warm
_GUESS = 3.0  # requests that a worker with tools takes, until others have shown it


class Run:
    """One fan-out. Everything in it happens in one event loop.

    What holds at its end, however it ends: no task and no thread of it runs, no lease is held.
    """

    def __init__(self, session: Session, tasks: Sequence[Task], sender: Sender, options: Options) -> None:
        self.session, self.tasks, self.sender, self.options = session, tuple(tasks), sender, options
        rules = session.dialect.rules
        self.routed = rules.routing_field is not None
        # Forks are made of this one: what happens to the parent meanwhile is none of their business.
        self._parent = session.fork(session.name)
        self._head, self._tip = self._parent._head, self._parent.tip
        bare = Snapshot(self._head.node, self._tip, self._head.message_seed)
        self.shared_tokens = bare.tokens
        self.lanes = Lanes(
            self._parent, min(options.limit, max(1, len(self.tasks))), share=options.warm != "never"
        )
        self.ring = KeyRing(
            session.family.routing_key or session.id,
            options.key_policy,
            rules,
            tasks=len(self.tasks),
            clock=session.clock,
            recent=lambda key: session.family.routed(key).recent,
            rounds=1.0 if options.tools is None and not any(task.tools for task in self.tasks) else _GUESS,
        )
        self._gates: dict[str, Gate | None] = {}
        self._posts: list[Post] = []
        self._results: dict[int, Result] = {}
        self._order = deque(_ordered(self.tasks, options, rules))
        self._fatal: BaseException | None = None
        self._workers: TaskGroup | None = None
        self._background: TaskGroup | None = None
        self._owner = secrets.token_hex(8)

    async def run(self) -> Results:
        """All results, in the order of the tasks. Raises the first error with ``on_error="raise"``."""
        if not self.tasks:
            return Results()
        prepared = await self.lanes.prepare(self.sender, self.shared_tokens)
        async with anyio.create_task_group() as self._background:
            try:
                async with anyio.create_task_group() as self._workers:
                    for _ in range(min(self.lanes.width, len(self.tasks))):
                        self._workers.start_soon(self._work_on)
            finally:
                for post in self._posts:
                    await post.settle()
                self._background.cancel_scope.cancel()
        if self._fatal is not None:
            raise self._fatal
        results = [self._results[index] for index in range(len(self.tasks))]
        if prepared is not None:
            results[0] = _with(results[0], prepared)
        return Results(results)

    async def _work_on(self) -> None:
        """Take one task after the other."""
        while self._order and self._fatal is None:
            index = self._order.popleft()
            slot = self.lanes.take()
            try:
                worker = Worker(self, index, slot)
                result = await worker.work()
                self._results[index] = result
                worker.tell("finished", value=result)
                if result.error is not None and self.options.on_error == "raise":
                    self._stop(result.error)
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:  # noqa: BLE001 - raised by run(): a task group would wrap it up in a group
                self._stop(error)
            finally:
                self.lanes.give_back(slot)

    def _stop(self, error: BaseException) -> None:
        if self._fatal is None:
            self._fatal = error
        assert self._workers is not None, "it runs"
        self._workers.cancel_scope.cancel()

    def tell(self, event: FanOutEvent) -> None:
        """Tell ``on_event``; if that fails, nobody is listening any more, and everything stops."""
        if self.options.on_event is None or self._fatal is not None:
            return
        try:
            self.options.on_event(event)
        except Exception as error:  # noqa: BLE001 - it is raised by run(), not taken for an error of the worker
            self._stop(error)

    def fork(self, name: str | None, key: str) -> Session:
        """A fork of the parent as it stood when the run began."""
        return self._parent.fork(name, routing_key=key if self.routed else None)

    # Gates

    def gate(self, key: str, request: Request) -> Gate | None:
        """What holds the requests of a key until its prefix is warm; ``None`` where nobody has to wait."""
        if key not in self._gates:
            self._gates[key] = self._new_gate(key) if self._waits(key, request) else None
        return self._gates[key]

    def _waits(self, key: str, request: Request) -> bool:
        warm, rules = self.options.warm, request.dialect.rules
        store = self.session._store
        alone = self.options.key_policy == "each" and self.routed
        if warm == "never" or rules.match == "lanes" or (store is None and (alone or len(self.tasks) < 2)):
            return False
        if warm == "always":
            return True
        if rules.visible_after == "request" or rules.read_multiplier >= rules.write_multiplier:
            return False
        family = request.session.family
        factor = family.calibration(request.context.model).factor
        if not self.shared_tokens or self.shared_tokens * factor < rules.min_tokens:
            return False
        read = family.look(request.dialect, request.snapshot, self.session.clock()).read_tokens
        return read < _WARM * self.shared_tokens

    def _new_gate(self, key: str) -> Gate:
        rules, store = self.session.dialect.rules, self.session._store
        post = None
        if store is not None:
            assert self._background is not None, "it runs"
            post = Post(
                store,
                self._prefix_name(key),
                self._owner,
                ttl=rules.ttl,
                spawn=self._background.start_soon,
                sleep=self.options.sleep,
                compiled=None
                if self._tip.depth
                else (self.session.context.fingerprint, self.session.dialect.name),
            )
            self._posts.append(post)
        # Stored units match as a whole: only what two prompts were seen to share is one that a third can read.
        leads = 2 if rules.match == "units" else 1
        return Gate(leads=leads, patience=self.options.patience, post=post, sleep=self.options.sleep)

    def _prefix_name(self, key: str) -> str:
        """The same in every process that sends this prefix to the same place."""
        parts = [self.session.context.fingerprint, self.session.dialect.name, key if self.routed else ""]
        return content_hash([*(part.encode() for part in parts), self._tip.digest])


def _ordered(tasks: Sequence[Task], options: Options, rules: CacheRules) -> list[int]:
    """The places of the tasks in the order in which they begin.

    Where stored units match as a whole, what the first two prompts have in common becomes one, and it may reach into
    their tasks. So the second is the task that shares least with the first: all others share at least as much.
    """
    places = list(range(len(tasks)))
    if rules.match != "units" or len(places) < 3:
        return places
    texts = [said if isinstance(said := task.said(options.neutral), str) else "" for task in tasks]
    second = min(places[1:], key=lambda place: _alike(texts[0], texts[place]))
    return [0, second, *(place for place in places[1:] if place != second)]


def _alike(a: str, b: str) -> int:
    """How many characters two texts begin with in common."""
    return next(
        (index for index, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _with(result: Result, prepared: Any) -> Result:
    """The result with what was sent for all of them before any worker began."""
    observed = [prepared, *result.observations]
    usage, cost = summed(observed)
    return msgspec.structs.replace(
        result, usage=usage, cost=cost, observations=tuple(observed), attempts=result.attempts + 1, led=True
    )
