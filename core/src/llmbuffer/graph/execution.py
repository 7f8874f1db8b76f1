"""One run of a graph: tasks start as soon as what they come after is there, within the limits, in the cache's order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import anyio
import msgspec
from anyio.abc import TaskGroup

from ..errors import BudgetError, LLMBufferError, TaskError
from ..session import Session
from .definition import Task
from .events import GraphEvent, Kind
from .journal import Entry
from .order import Plan
from .ready import ANYHOW, COLD, ReadyTasks, Warmth
from .results import GraphRun, Status, TaskResult
from .working import Done, Workbench

__all__ = ["Execution", "Options"]

_BASE = ""  # the siblings that fork from the session of the run


class Options(msgspec.Struct, frozen=True):
    """How a run is bounded: requests and calls under way, what a failure does, and who is told."""

    limit: float = 8
    jobs: float = 32
    on_failure: str = "fail-fast"
    warm: str = "first-token"
    on_event: Callable[[GraphEvent], object] | None = None


class _Lane:
    """Tasks of one kind, and how many of them may run at a time."""

    __slots__ = ("free", "limit", "working")

    def __init__(self, free: ReadyTasks, limit: float) -> None:
        self.free, self.limit, self.working = free, limit, 0


class Execution:
    """The state of a run; of one event loop, so nothing in it is locked."""

    def __init__(
        self,
        plan: Plan,
        bench: Workbench,
        base: Session,
        options: Options,
        run_id: str,
        changed: tuple[str, ...],
    ) -> None:
        self.plan, self.bench, self.base, self.options = plan, bench, base, options
        self.run_id, self.changed = run_id, changed
        self.results: dict[str, TaskResult] = {}
        self.fatal: BaseException | None = None
        self._started: dict[str, float] = {}
        self._sorter = plan.sorter()
        clock = base.clock
        self._requests = _Lane(ReadyTasks(clock=clock, warmth=self._warmth), options.limit)
        self._jobs = _Lane(ReadyTasks(clock=clock, warmth=lambda _: ANYHOW), options.jobs)
        self._stopping = False
        self._begun = 0.0
        self._group: TaskGroup | None = None

    # From beginning to end

    async def run(self) -> None:
        """Run what is to be run; afterwards ``fatal`` says whether it ended early, and ``outcome`` what it came to."""
        self._begun = anyio.current_time()
        async with anyio.create_task_group() as group:
            self._group = group
            try:
                self._release(self._sorter.get_ready())
                self._spawn()
            except Exception as error:  # noqa: BLE001 - what on_event raises, not wrapped in a group
                self.stop(error)

    def outcome(self) -> GraphRun:
        """What the run has come to."""
        tasks = {key: self.results.get(key) or self._unfinished(key) for key in self.plan.tasks}
        seconds = anyio.current_time() - self._begun
        return GraphRun(self.run_id, tasks, seconds=seconds, changed=self.changed)

    def _unfinished(self, key: str) -> TaskResult:
        status: Status = "cancelled" if key in self._started else "waiting"
        bill = self.bench.bills.get(key)
        if bill is None:
            return TaskResult(key=key, status=status)
        return TaskResult(key=key, status=status, usage=bill.usage, cost=bill.paid, attempts=bill.attempts)

    def stop(self, error: BaseException) -> None:
        """End the run with an error: what is under way is cancelled."""
        if self.fatal is None:
            self.fatal = error
        self._stopping = True
        if self._group is not None:
            self._group.cancel_scope.cancel()

    def _hold_back(self, error: BudgetError) -> None:
        """Begin nothing more; what is under way was paid for and may end."""
        self._stopping = True
        if self.fatal is None:
            self.fatal = error

    # Which tasks are free

    def _release(self, keys: Iterable[str]) -> None:
        """Put free tasks into their lanes; kept and skipped ones are done with at once, and free others."""
        fresh = deque(keys)
        while fresh:
            key = fresh.popleft()
            task = self.plan.tasks[key]
            if (failed := self._blocked(task)) is not None:
                self._settle(TaskResult(key=key, status="skipped", because=failed), "skipped")
            elif (entry := self.bench.kept.get(key)) is not None:
                self._settle(_kept(entry), "kept")
            else:
                self._push(task)
                continue
            self._sorter.done(key)
            fresh.extend(self._sorter.get_ready())

    def _blocked(self, task: Task) -> str | None:
        """The key of the task whose failure this one cannot do without."""
        for key in task.upstream:
            found = self.results[key]
            if not found.ok:
                return found.because if found.because is not None else key
        return None

    def _push(self, task: Task) -> None:
        lane = self._lane(task)
        group = _group_of(task) if lane is self._requests else _BASE
        lane.free.push(task.key, task.index, height=self.plan.heights[task.key], group=group)

    def _lane(self, task: Task) -> _Lane:
        return self._requests if task.prompts else self._jobs

    def _spawn(self) -> None:
        """Start what the limits allow."""
        for lane in (self._requests, self._jobs):
            while lane.working < lane.limit and not self._stopping:
                key = lane.free.pop()
                if key is None:
                    break
                lane.working += 1
                assert self._group is not None, "tasks are freed while the group is open"
                self._group.start_soon(self._work, lane, key)

    async def _work(self, lane: _Lane, first: str) -> None:
        """Do one task, then whatever is next: a chain needs no new coroutine for each of its links."""
        key: str | None = first
        try:
            while key is not None:
                await self._perform(self.plan.tasks[key])
                key = None if self._stopping else lane.free.pop()
                self._spawn()
        except Exception as error:  # noqa: BLE001 - one that no task raised ends the run, and not in a group
            self.stop(error)
        finally:
            lane.working -= 1

    # One task

    async def _perform(self, task: Task) -> None:
        group = _group_of(task)
        leading = task.prompts and self._requests.free.leads(group)
        begun = (lambda: self._warmed(group)) if leading and self.options.warm == "first-token" else None
        self._started[task.key] = anyio.current_time()
        self._tell("started", task.key)
        try:
            parent = await self._parent(task)
            upstream = {key: self.results[key].value for key in task.upstream}
            done = await self.bench.perform(task, parent, upstream, begun=begun, on_retry=self._retrying)
            self._finished(task, done)
        except BudgetError as error:
            self._hold_back(error)
            self._requests.free.failed(group)
        except Exception as error:  # noqa: BLE001 - what a task raises is its result
            self._failed(task, error)

    async def _parent(self, task: Task) -> Session:
        if task.continues is None:
            return self.base
        before = self.results[task.continues]
        if before.session is None:
            assert before.session_id is not None, "a task that is continued has a conversation"
            session = await self.bench.load(before.session_id)
            before = self.results[task.continues] = msgspec.structs.replace(before, session=session)
        assert before.session is not None
        return before.session

    def _finished(self, task: Task, done: Done) -> None:
        if task.prompts:
            self._warmed(_group_of(task), awaited=task.continues is None)
        if done.session is not None and self.plan.continued(task.key):
            self._warmed(task.key)
        bill, seconds = self.bench.bills.pop(task.key), anyio.current_time() - self._started.pop(task.key)
        result = TaskResult(
            key=task.key,
            status="finished",
            value=done.value,
            session=done.session,
            session_id=done.session_id,
            usage=bill.usage,
            cost=bill.paid,
            attempts=bill.attempts,
            seconds=seconds,
        )
        self._settle(result, "finished")
        self._sorter.done(task.key)
        self._release(self._sorter.get_ready())

    def _failed(self, task: Task, error: Exception) -> None:
        if task.prompts:
            self._requests.free.failed(_group_of(task))
        bill, seconds = self.bench.bills.get(task.key), anyio.current_time() - self._started[task.key]
        result = TaskResult(key=task.key, status="failed", error=error, seconds=seconds)
        if bill is not None:
            result = msgspec.structs.replace(result, usage=bill.usage, cost=bill.paid, attempts=bill.attempts)
        self._settle(result, "failed")
        if self.options.on_failure == "fail-fast":
            failure = TaskError(
                f"task {task.key!r} failed with {type(error).__name__} after {max(1, result.attempts)} attempts, and the "
                "tasks under way were stopped: what had finished is in error.run",
                key=task.key,
            )
            failure.__cause__ = error
            self.stop(failure)
            return
        self._sorter.done(task.key)
        self._release(self._sorter.get_ready())

    def _settle(self, result: TaskResult, kind: Kind) -> None:
        self.results[result.key] = result
        self._tell(kind, result.key, result)

    # What the cache holds

    def _warmed(self, group: str, *, awaited: bool = True) -> None:
        if self.options.warm == "never":
            return
        ttl = self.base.dialect.rules.ttl
        self._requests.free.warmed(group, self.base.clock() + ttl, awaited=awaited)
        self._spawn()

    def _warmth(self, group: str) -> Warmth:
        """Until when a prefix is warm, as far as is known before anybody asked for it."""
        session = self.base if group == _BASE else self.results[group].session
        if self.options.warm == "never" or session is None:
            return ANYHOW
        rules = session.dialect.rules
        shared = session._head.node.end + session.tip.end
        if rules.visible_after == "request" or shared < max(1, rules.min_tokens):
            return ANYHOW
        try:
            seen = session.request(".").forecast
        except LLMBufferError:  # the task itself will tell what is wrong
            return ANYHOW
        if {"cold", "expired", "siblings-cold"}.isdisjoint(seen.warnings) and seen.read_tokens:
            return session.clock() + rules.ttl
        return COLD

    # Telling

    def _retrying(self, task: Task, attempt: int, seconds: float, error: BaseException) -> None:
        self._tell("retrying", task.key, attempt=attempt, seconds=seconds, error=error)

    def _tell(
        self,
        kind: Kind,
        key: str,
        result: TaskResult | None = None,
        *,
        attempt: int = 1,
        seconds: float = 0.0,
        error: BaseException | None = None,
    ) -> None:
        if self.options.on_event is None:
            return
        event = GraphEvent(
            kind=kind,
            key=key,
            at=anyio.current_time() - self._begun,
            done=len(self.results),
            total=len(self.plan.tasks),
            attempt=attempt if result is None else max(1, result.attempts),
            seconds=seconds if result is None else result.seconds,
            usage=None if result is None else result.usage,
            cost=None if result is None else result.cost,
            error=error if result is None else result.error,
        )
        try:
            self.options.on_event(event)
        except Exception as raised:  # noqa: BLE001 - it ends the run, and is no failure of the task
            self.stop(raised)


def _group_of(task: Task) -> str:
    return _BASE if task.continues is None else task.continues


def _kept(entry: Entry) -> TaskResult:
    return TaskResult(
        key=entry.key,
        status="kept",
        value=entry.value,
        session_id=entry.session_id,
        usage=entry.usage,
        cost=entry.cost,
        attempts=entry.attempts,
        seconds=entry.seconds,
    )
