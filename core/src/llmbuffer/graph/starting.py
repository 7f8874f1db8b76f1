"""How a run begins and ends: what it needs is looked for before anything is sent, and it leaves nothing behind."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import msgspec
from anyio.from_thread import BlockingPortal

from ..calls import check_executor
from ..errors import BudgetError, GraphError, LimitError, TaskError
from ..fanout.sender import can_stream
from ..limits import Budget
from ..session import Session
from .asking import Asker
from .calling import Caller, SubmitsCalls, is_coroutine_function
from .clients import is_asynchronous
from .definition import Task
from .execution import Execution, Options
from .journal import Entry, Journal, Tenure
from .order import Plan
from .results import GraphRun
from .working import Workbench

if TYPE_CHECKING:
    from .taskgraph import TaskGraph

__all__ = ["Start", "run_to_end"]

_POLICIES = ("fail-fast", "skip-dependents")
_WARM = ("first-token", "response", "never")


class Start:
    """All that a run begins with, checked.

    Raises ``GraphError`` or ``LimitError`` for what cannot work; nothing was sent or written then.
    """

    def __init__(
        self,
        graph: TaskGraph,
        session: Session,
        *,
        client: Any = None,
        executor: SubmitsCalls | None = None,
        store: Any = None,
        run_id: str | None = None,
        budget: Budget | None = None,
        asynchronous: bool,
    ) -> None:
        self.graph, self.plan = graph, graph.plan()
        self.client = client if client is not None else session.client
        self.executor, self.budget = executor, budget
        self.store = store if store is not None or run_id is None else session._store
        self.run_id = run_id if run_id is not None else secrets.token_hex(8)
        self.asynchronous = is_asynchronous(self.client, asynchronous)
        self.base = session.fork()  # the caller's own may go on meanwhile
        self.base._id = session.id
        self.options = Options()
        self._check()

    def bound(self, **options: Any) -> None:
        """Set the limits and policies of the run."""
        given = msgspec.structs.replace(self.options, **options)
        if given.on_failure not in _POLICIES:
            raise GraphError(f"on_failure is {given.on_failure!r}: use one of {', '.join(_POLICIES)}")
        if given.warm not in _WARM:
            raise GraphError(f"warm is {given.warm!r}: use one of {', '.join(_WARM)}")
        for name, value in (("limit", given.limit), ("jobs", given.jobs)):
            if not value >= 1:
                raise LimitError(f"{name} is {value!r}: at least one task has to run at a time")
        if given.warm == "first-token" and not can_stream(self.client):
            given = msgspec.structs.replace(given, warm="response")
        self.options = given

    def _check(self) -> None:
        if not isinstance(self.run_id, str) or not self.run_id or "/" in self.run_id:
            raise GraphError(f"the run_id is {self.run_id!r}: give a text without slashes")
        known = {tool.name for tool in self.base.context.tools}
        for task in self.plan.tasks.values():
            task.retry.check()
            if task.prompts:
                self._check_prompt(task, known)
            else:
                self._check_function(task, self.plan)

    def _check_prompt(self, task: Task, known: set[str]) -> None:
        if self.client is None:
            raise GraphError(
                f"task {task.key!r} asks the model, and there is no client: give run(…, client=…)"
            )
        check_executor(task.tools, asynchronous=self.asynchronous)
        brought = set(task.tools) if isinstance(task.tools, Mapping) else set()
        if lacking := sorted(brought - known):
            raise GraphError(
                f"task {task.key!r} brings the tool {lacking[0]!r}, which the session's context does not have: all tasks "
                "share one list of tools, so define it in StableContext(tools=…)",
                path=(task.key,),
            )

    def _check_function(self, task: Task, plan: Plan) -> None:
        asked = plan.accepts[task.key].conversation
        if asked == "session_id" and self.store is None:
            raise GraphError(
                f"task {task.key!r} takes a session_id, and there is no store: give run(…, store=…)"
            )
        if asked == "session" and self.executor is not None and not is_coroutine_function(task.work):
            raise GraphError(
                f"task {task.key!r} takes a session, and sessions do not travel to an executor: take session_id, and "
                "load it from the store there"
            )


async def run_to_end(start: Start) -> GraphRun:
    """Run, and raise what ended it early. Whatever happens, nothing of it goes on."""
    if start.store is None:
        return await _run(start, None)
    tenure = Tenure(start.store, start.run_id)
    await _blocking(tenure.take)
    try:
        return await _run(start, tenure)
    finally:
        with anyio.CancelScope(shield=True):
            await _blocking(tenure.end)


async def _run(start: Start, tenure: Tenure | None) -> GraphRun:
    journal = None if start.store is None else Journal(start.store, start.run_id)
    definitions, kept, changed = await _opened(start, journal)
    async with BlockingPortal() as portal:
        caller = Caller(start.executor, portal)
        asker = Asker(start.client, caller, asynchronous=start.asynchronous)
        bench = Workbench(
            start.plan,
            start.base,
            asker,
            caller,
            budget=start.budget,
            journal=journal,
            definitions=definitions,
            kept=kept,
        )
        execution = Execution(start.plan, bench, start.base, start.options, start.run_id, changed)
        await _guarded(execution, tenure)
    return _told(execution)


async def _opened(
    start: Start, journal: Journal | None
) -> tuple[dict[str, bytes], dict[str, Entry], tuple[str, ...]]:
    """Definitions, the results of earlier runs that are still good, and the keys of those that are not."""
    if journal is None:
        return {}, {}, ()
    definitions = start.graph.definitions(start.base)
    entries = await _blocking(journal.entries)
    kept = {each.key: each for each in entries if definitions.get(each.key) == each.definition}
    changed = {each.key for each in entries} - kept.keys()
    await _blocking(partial(_begin, start, journal))
    return definitions, kept, tuple(key for key in start.plan.tasks if key in changed)


def _begin(start: Start, journal: Journal) -> None:
    journal.begin({"graph": start.graph.name, "tasks": len(start.graph), "at": start.store.clock()})
    start.base._saved = journal.root(start.base)


async def _guarded(execution: Execution, tenure: Tenure | None) -> None:
    """Run, and keep the lease meanwhile; a lease that is lost stops the run."""
    if tenure is None:
        await execution.run()
        return
    async with anyio.create_task_group() as group:
        group.start_soon(_renewing, execution, tenure)
        await execution.run()
        group.cancel_scope.cancel()


async def _renewing(execution: Execution, tenure: Tenure) -> None:
    while True:
        await anyio.sleep(tenure.seconds / 3)
        try:
            await _blocking(tenure.renew)
        except Exception as error:  # noqa: BLE001 - a lost lease or store ends the run, and not in a group
            execution.stop(error)
            return


def _told(execution: Execution) -> GraphRun:
    run = execution.outcome()
    if execution.fatal is None:
        return run
    if isinstance(execution.fatal, BudgetError | TaskError):
        execution.fatal.run = run
    raise execution.fatal


async def _blocking(call: Callable[[], Any]) -> Any:
    return await anyio.to_thread.run_sync(call)
