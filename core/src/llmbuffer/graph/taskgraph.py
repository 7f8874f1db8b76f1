"""Task graphs: what is to be done in which order, by the model in forks of one session, and by functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar, overload

import anyio

from ..calls import Executor
from ..errors import GraphError, UnknownTaskError
from ..limits import Budget, Retry, passing
from ..placing import Dynamic
from ..session import Session
from .calling import SubmitsCalls
from .definition import After, Task, Work, arguments_of, checked_key, fingerprint, is_prompt
from .order import Plan, planned
from .results import GraphRun
from .starting import Start, run_to_end

__all__ = ["TaskGraph"]

F = TypeVar("F", bound=Callable[..., Any])


class TaskGraph:
    """Tasks, and what each comes after. A graph may be run any number of times, with different sessions.

    A prompt is said to the model in a fork of the run's session, so all tasks share its prefix byte for byte; the results of
    the tasks before it stand in front of it as messages, in the order of ``after``. A callable gets them as arguments.

    >>> from llmbuffer import Session, StableContext
    >>> graph = TaskGraph()
    >>> facts = graph.task("facts", lambda: ["tea", "milk"])
    >>> @graph.task(after=facts)
    ... def count(facts):
    ...     return len(facts)
    >>> graph.order()
    ('facts', 'count')
    >>> run = graph.run_sync(Session(StableContext("gpt-5.5")))
    >>> run["count"], run.tasks["count"].status
    (2, 'finished')
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._tasks: dict[str, Task] = {}
        self._functions: dict[int, str] = {}
        self._plan: Plan | None = None

    # Defining

    @overload
    def task(self, key: str, work: Work, **options: Any) -> Task: ...

    @overload
    def task(self, key: F) -> F: ...

    @overload
    def task(self, key: str | None = None, **options: Any) -> Callable[[F], F]: ...

    def task(self, key: Any = None, work: Any = None, **options: Any) -> Any:
        """Add a task; ``key`` names it, ``work`` is a prompt (text, ``Message``, parts) or a callable.

        Returns the ``Task``, for ``after=`` of others. Without ``work`` it is a decorator, ``@graph.task`` or
        ``@graph.task("key", after=…)``, that gives the function back; it too can stand in ``after=``.

        * ``after``: keys, tasks or functions whose results it gets; a callable by the names of the keys, or as
          ``after={"argument": "key"}`` says. It may leave results out; what it needs and is not given is an error.
        * ``continues``: the task whose conversation goes on here, instead of a new fork of the run's session.
        * ``tools``, ``dynamic``, ``params``, ``max_rounds``: as for ``Session.respond``; prompts only.
        * ``retries``: how often it is tried again, each time in a fresh fork, or a ``Retry``. A number stands for errors
          that may pass, with a callable for all.
        * ``timeout``: seconds for each attempt.
        * ``version``: any text; another one makes a resumed run do the task, and what depends on it, anew.

        A callable with a parameter ``session`` gets a fork to converse in; one with ``session_id`` the id of a fork that was
        saved, for workers that open the store themselves.

        Raises ``GraphError`` for a key that is taken, and for options that make no sense; nothing was added then.
        """
        if unknown := sorted(options.keys() - _OPTIONS):
            raise GraphError(
                f"a task has no option {unknown[0]!r}: give the prompt or callable behind the key, and as options "
                f"{', '.join(sorted(_OPTIONS))}"
            )
        if callable(key) and work is None:
            self._add(key.__name__, key, options)
            return key
        if work is None:
            return partial(self._decorated, key, options)
        return self._add(key, work, options)

    def _decorated(self, key: str | None, options: Mapping[str, Any], function: F) -> F:
        self._add(function.__name__ if key is None else key, function, options)
        return function

    def _add(self, key: str, work: Any, options: Mapping[str, Any]) -> Task:
        if checked_key(key) in self._tasks:
            raise GraphError(f"there is a task {key!r} already: give each a key of its own", path=(key,))
        if not callable(work) and not is_prompt(work):
            raise GraphError(
                f"task {key!r} is a {type(work).__name__}: give a prompt (text, Message, parts) or a callable"
            )
        if isinstance(work, str) and not work.strip():
            raise GraphError(f"the prompt of task {key!r} is empty: say what is to be done")
        task = self._made(key, work, **options)
        self._tasks[key] = task
        if callable(work):
            self._functions.setdefault(id(work), key)
        self._plan = None
        return task

    def _made(
        self,
        key: str,
        work: Any,
        *,
        after: Iterable[After] | Mapping[str, After] | After = (),
        continues: After | None = None,
        tools: Executor | None = None,
        retries: int | Retry = 0,
        timeout: float | None = None,
        params: Mapping[str, Any] | None = None,
        dynamic: Dynamic | None = None,
        max_rounds: int = 32,
        version: str = "",
    ) -> Task:
        if timeout is not None and not timeout > 0:
            raise GraphError(
                f"the timeout of task {key!r} is {timeout!r}: give seconds, more than 0, or leave it out"
            )
        if not is_prompt(work) and (tools or params or dynamic):
            raise GraphError(f"task {key!r} is a function: tools=, params= and dynamic= are for prompts")
        pairs = arguments_of(after, self._key_of)
        continued = None if continues is None else self._key_of(continues)
        first = () if continued is None else (continued,)
        return Task(
            key=key,
            work=work,
            index=len(self._tasks),
            prompts=is_prompt(work),
            upstream=tuple(dict.fromkeys((*first, *(each for _, each in pairs)))),
            after=pairs,
            continues=continued,
            tools=tools,
            retry=_retry(work, retries),
            timeout=timeout,
            params=params,
            dynamic=dynamic,
            max_rounds=max_rounds,
            version=version,
        )

    def _key_of(self, each: After) -> str:
        if isinstance(each, Task):
            return each.key
        if isinstance(each, str):
            return each
        found = self._functions.get(id(each))
        if found is None:
            name = getattr(each, "__qualname__", type(each).__name__)
            raise UnknownTaskError(
                f"{name!r} is no task of this graph: add it first, or name a task by its key"
            )
        return found

    # Looking

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks, in the order in which they were added."""
        return tuple(self._tasks.values())

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, key: object) -> bool:
        return key in self._tasks

    def __getitem__(self, key: str) -> Task:
        if key not in self._tasks:
            raise UnknownTaskError(f"the graph has no task {key!r}: it has {len(self)}, see graph.order()")
        return self._tasks[key]

    def validate(self) -> None:
        """Check the graph; nothing is run.

        Raises ``UnknownTaskError`` and ``CycleError`` with the path that leads there, and ``GraphError`` for a function
        that needs an argument which nobody gives.
        """
        self.plan()

    def order(self) -> tuple[str, ...]:
        """An order in which the tasks could run one by one; the same each time. Raises what ``validate`` raises.

        A run does not go by it: there a task starts as soon as those before it have ended.
        """
        return self.plan().order

    def plan(self) -> Plan:
        """The checked graph; made once until a task is added."""
        if self._plan is None:
            self._plan = planned(dict(self._tasks))
        return self._plan

    def definitions(self, session: Session) -> dict[str, bytes]:
        """What each task's result depends on, as a digest: its definition, those before it, and the session."""
        plan = self.plan()
        base = f"{session.dialect.name} {session.context.fingerprint} ".encode() + session.tip.digest
        found: dict[str, bytes] = {}
        for key in plan.order:
            task = plan.tasks[key]
            found[key] = fingerprint(task, (found[each] for each in task.upstream), base)
        return found

    # Running

    async def run(
        self,
        session: Session,
        *,
        client: Any = None,
        executor: SubmitsCalls | None = None,
        store: Any = None,
        run_id: str | None = None,
        limit: float = 8,
        jobs: float = 32,
        budget: Budget | None = None,
        on_failure: str = "fail-fast",
        on_event: Callable[..., object] | None = None,
        warm: str = "first-token",
    ) -> GraphRun:
        """Run all tasks, each as soon as those before it have ended, and return what they came to.

        ``session`` is what prompts fork from; it does not change. ``client`` (default: the session's) may be asynchronous or
        synchronous, one of your own as well: what blocks runs in threads. ``executor``, anything with ``submit``, runs
        callables that are no coroutine functions; else threads do.

        ``limit`` is how many prompt tasks may be under way at a time, ``jobs`` how many callables (``math.inf``: any number).
        ``budget`` bounds tokens and money: when it is spent nothing more begins, what is under way ends, and ``BudgetError``
        is raised. ``on_failure`` is ``fail-fast`` (what is under way is cancelled, and ``TaskError`` raised) or
        ``skip-dependents`` (all else runs; ``GraphRun.raise_for_failures`` tells). Both errors have the ``run`` so far.

        With a ``store`` (with a ``run_id`` alone: the session's) each result is on the disk, in one step with its session, before a task that
        depends on it starts. The same ``run_id`` again resumes: finished tasks of an unchanged definition are not run again,
        those that were under way are. One process at a time: others get ``RunHeldError``.

        Among free tasks those of a warm prefix go first. While a prefix is cold, one task leads and its siblings wait for its
        first token (``warm="first-token"``, for which it is streamed; its response, if the client is no SDK's), its
        ``"response"``, or not at all (``"never"``).

        ``on_event`` gets a ``GraphEvent`` for whatever happens. Cancelled, nothing runs on, and the run can be resumed.
        """
        start = Start(
            self,
            session,
            client=client,
            executor=executor,
            store=store,
            run_id=run_id,
            budget=budget,
            asynchronous=True,
        )
        start.bound(limit=limit, jobs=jobs, on_failure=on_failure, on_event=on_event, warm=warm)
        return await run_to_end(start)

    def run_sync(self, session: Session, *, client: Any = None, **options: Any) -> GraphRun:
        """``run`` for programs that are not asynchronous; takes the same, best with a synchronous client.

        Raises ``GraphError`` where an event loop runs already: there, ``await graph.run(…)``.
        """
        bounds = {name: options.pop(name) for name in _BOUNDS if name in options}
        start = Start(self, session, client=client, asynchronous=False, **options)
        start.bound(**bounds)
        if _loop_runs():
            raise GraphError(
                "an event loop runs in this thread: await graph.run(…) instead of graph.run_sync(…)"
            )
        return anyio.run(run_to_end, start)

    def __repr__(self) -> str:
        return f"TaskGraph({self.name!r}, tasks={len(self)})"


_ONCE = Retry(0)
_BOUNDS = ("limit", "jobs", "on_failure", "on_event", "warm")
_OPTIONS = frozenset(inspect.signature(TaskGraph._made).parameters) - {"self", "key", "work"}


def _retry(work: Any, retries: int | Retry) -> Retry:
    if isinstance(retries, Retry):
        return retries
    return Retry(retries, when=passing if is_prompt(work) else _any_error) if retries else _ONCE


def _any_error(error: BaseException) -> bool:
    return isinstance(error, Exception)


def _loop_runs() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
