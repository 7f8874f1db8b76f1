"""Doing one task: its attempts, each in a fresh fork, and its result on the disk before anything depends on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import anyio
import anyio.to_thread

from ..limits import Budget, RetryWait
from ..session import Session
from .asking import Asker, Bill
from .calling import Caller
from .definition import Task
from .journal import Entry, Journal, storable
from .order import Plan

__all__ = ["Done", "Workbench"]


class Done(NamedTuple):
    """A value, and the conversation that led to it, if there was one."""

    value: Any
    session: Session | None = None
    session_id: str | None = None


class Workbench:
    """What tasks are done with. ``kept`` are the results of earlier runs, ``bills`` what each task has cost so far."""

    def __init__(
        self,
        plan: Plan,
        base: Session,
        asker: Asker,
        caller: Caller,
        *,
        budget: Budget | None,
        journal: Journal | None,
        definitions: Mapping[str, bytes],
        kept: Mapping[str, Entry],
    ) -> None:
        self.plan, self.base, self.asker, self.caller = plan, base, asker, caller
        self.journal, self.kept = journal, kept
        self.bills: dict[str, Bill] = {}
        self._budget, self._definitions = budget, definitions
        self._writing = anyio.CapacityLimiter(1)  # several writers of one file would only wait for each other

    async def perform(
        self,
        task: Task,
        parent: Session,
        upstream: Mapping[str, Any],
        *,
        begun: Callable[[], object] | None,
        on_retry: Callable[[Task, int, float, BaseException], object],
    ) -> Done:
        """Do a task, with its retries, and keep what it came to."""
        bill = self.bills[task.key] = Bill(self._budget)
        started = anyio.current_time()

        async def attempt() -> Done:
            bill.attempts += 1
            return await self._in_time(task, parent, upstream, bill, begun)

        def told(wait: RetryWait) -> None:
            on_retry(task, wait.attempt, wait.seconds, wait.error)

        done = await task.retry.acall(attempt, on_retry=told)
        if self.journal is None:
            return done
        return await self._keep(task, done, bill, anyio.current_time() - started)

    async def _in_time(
        self,
        task: Task,
        parent: Session,
        upstream: Mapping[str, Any],
        bill: Bill,
        begun: Callable[[], object] | None,
    ) -> Done:
        if task.timeout is None:
            return await self._once(task, parent, upstream, bill, math.inf, begun)
        with anyio.move_on_after(task.timeout) as scope:
            return await self._once(task, parent, upstream, bill, scope.deadline, begun)
        raise TimeoutError(f"task {task.key!r} took longer than {task.timeout:g} seconds")

    async def _once(
        self,
        task: Task,
        parent: Session,
        upstream: Mapping[str, Any],
        bill: Bill,
        deadline: float,
        begun: Callable[[], object] | None,
    ) -> Done:
        if not task.prompts:
            return await self._call(task, parent, upstream, bill, deadline)
        fork = parent.fork(task.key)
        news = [(key, value) for key, value in upstream.items() if key != task.continues]
        text = await self.asker.ask(task, fork, news, bill, deadline=deadline, begun=begun)
        return Done(text, fork, fork.id)

    async def _call(
        self, task: Task, parent: Session, upstream: Mapping[str, Any], bill: Bill, deadline: float
    ) -> Done:
        accepts = self.plan.accepts[task.key]
        given = {name: upstream[key] for name, key in task.after if accepts.takes(name)}
        if accepts.conversation is None:
            return Done(await self.caller.call(partial(task.work, **given), deadline=deadline))
        fork = parent.fork(task.key)
        if accepts.conversation == "session_id":
            await self._write(partial(self._save, fork))
            call = partial(task.work, **given, session_id=fork.id)
            return Done(await self.caller.call(call, deadline=deadline), None, fork.id)
        try:
            value = await self.caller.call(partial(task.work, **given, session=fork), deadline=deadline)
        finally:
            bill.charge(fork)
        return Done(value, fork, fork.id)

    # The store

    async def _keep(self, task: Task, done: Done, bill: Bill, seconds: float) -> Done:
        assert self.journal is not None, "it is asked for only with a store"
        value = storable(task.key, done.value)
        entry = Entry(
            key=task.key,
            definition=self._definitions[task.key],
            value=value,
            session_id=done.session_id,
            usage=bill.usage,
            cost=bill.paid,
            attempts=bill.attempts,
            seconds=seconds,
        )
        with anyio.CancelScope(shield=True):  # it was paid for
            await self._write(partial(self.journal.keep, entry, done.session))
        return done._replace(value=value)

    async def _write(self, write: Callable[[], Any]) -> Any:
        return await anyio.to_thread.run_sync(write, limiter=self._writing)

    def _save(self, fork: Session) -> None:
        assert self.journal is not None, "it was looked for before the run began"
        fork._saved = self.journal.store.save(fork, fork._saved)

    async def load(self, session_id: str) -> Session:
        """A conversation from the store, that goes on with what the run's session knows."""
        return await self._write(partial(self._loaded, session_id))  # type: ignore[no-any-return]

    def _loaded(self, session_id: str) -> Session:
        assert self.journal is not None, "what is loaded was stored"
        base = self.base
        session = self.journal.store.load(
            session_id, client=base.client, dialect=base.dialect, tokens=base.counter, clock=base.clock
        )
        session._family = base.family
        return session
