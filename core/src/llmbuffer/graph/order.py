"""In which order tasks can run: cycles and unknown tasks are found here, with the path that leads to them."""

from __future__ import annotations

import difflib
import graphlib
import heapq
from collections.abc import Iterable, Mapping

import msgspec

from ..errors import CycleError, GraphError, UnknownTaskError
from .definition import RESERVED, Accepts, Task, parameters

__all__ = ["Plan", "arrows", "planned"]

_NOTHING = Accepts(frozenset(), anything=False)
_SHOWN = 12  # keys of a path that a message shows


class Plan(msgspec.Struct, frozen=True):
    """A graph that can run.

    ``order`` are the keys in an order in which they could run one by one: of those that are free to, the one that was
    defined first. ``heights`` say how many tasks follow each on the longest way to an end; ``dependents`` who waits for it;
    ``accepts`` by which names a callable takes results.
    """

    tasks: Mapping[str, Task]
    order: tuple[str, ...]
    heights: Mapping[str, int]
    dependents: Mapping[str, tuple[str, ...]]
    accepts: Mapping[str, Accepts]

    def continued(self, key: str) -> bool:
        """Whether another task goes on in this one's conversation."""
        return any(self.tasks[each].continues == key for each in self.dependents[key])

    def sorter(self) -> graphlib.TopologicalSorter[str]:
        """A sorter of all tasks, prepared."""
        sorter = graphlib.TopologicalSorter({key: task.upstream for key, task in self.tasks.items()})
        sorter.prepare()
        return sorter


def planned(tasks: Mapping[str, Task]) -> Plan:
    """Check a graph and plan it. Work is proportional to tasks and dependencies; nothing recurses.

    Raises ``UnknownTaskError``, ``CycleError``, or ``GraphError`` for a task that cannot work where it stands.
    """
    dependents = _dependents(tasks)
    accepts = {task.key: _accepts(task, tasks) for task in tasks.values()}
    order = _ordered(tasks)
    heights: dict[str, int] = {}
    for key in reversed(order):
        heights[key] = max((heights[each] + 1 for each in dependents[key]), default=0)
    return Plan(tasks, order, heights, {key: tuple(found) for key, found in dependents.items()}, accepts)


def _dependents(tasks: Mapping[str, Task]) -> dict[str, list[str]]:
    dependents: dict[str, list[str]] = {key: [] for key in tasks}
    for task in tasks.values():
        for key in task.upstream:
            if key not in dependents:
                raise _unknown(key, task, tasks)
            dependents[key].append(task.key)
    return dependents


def _unknown(key: str, task: Task, tasks: Mapping[str, Task]) -> UnknownTaskError:
    path = [key, task.key]
    while (after := _first_after(path[-1], tasks)) is not None and after not in path:
        path.append(after)
    near = difflib.get_close_matches(key, tasks, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "add the task, or take it out of after="
    word = "continues" if task.continues == key else "comes after"
    return UnknownTaskError(
        f"task {task.key!r} {word} {key!r}, which the graph does not have ({arrows(path)}): {hint}", path=path
    )


def _first_after(key: str, tasks: Mapping[str, Task]) -> str | None:
    return next((each.key for each in tasks.values() if key in each.upstream), None)


def _accepts(task: Task, tasks: Mapping[str, Task]) -> Accepts:
    """The names that a callable takes; raises ``GraphError`` for what cannot work."""
    if task.continues is not None:
        _check_continued(task, tasks[task.continues])
    if task.prompts:
        return _NOTHING
    odd = [name for name, _ in task.after if not name.isidentifier() or name in RESERVED]
    if odd:
        raise GraphError(
            f"task {task.key!r} calls a function, and {odd[0]!r} can be no name of a result in it: give "
            f"after={{'name': {odd[0]!r}}}",
            path=(task.key,),
        )
    return parameters(task)


def _check_continued(task: Task, before: Task) -> None:
    if before.prompts or parameters(before).conversation is not None:
        return
    raise GraphError(
        f"task {task.key!r} continues {before.key!r}, which is a function without a conversation: put it into after=, or "
        "give the function a parameter 'session'",
        path=(before.key, task.key),
    )


def _ordered(tasks: Mapping[str, Task]) -> tuple[str, ...]:
    sorter = graphlib.TopologicalSorter({key: task.upstream for key, task in tasks.items()})
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise _cycle(error.args[1], tasks) from None
    order: list[str] = []
    free = [(tasks[key].index, key) for key in sorter.get_ready()]
    heapq.heapify(free)
    while free:
        _, key = heapq.heappop(free)
        order.append(key)
        sorter.done(key)
        for each in sorter.get_ready():
            heapq.heappush(free, (tasks[each].index, each))
    return tuple(order)


def _cycle(found: list[str], tasks: Mapping[str, Task]) -> CycleError:
    """The cycle in the order in which the tasks would run, from the one that was defined first."""
    ring = found[:-1]
    start = min(range(len(ring)), key=lambda place: tasks[ring[place]].index)
    path = [*ring[start:], *ring[:start], ring[start]]
    if len(path) == 2:
        return CycleError(f"task {path[0]!r} comes after itself: take it out of its own after=", path=path)
    return CycleError(
        f"{len(ring)} tasks wait for each other ({arrows(path)}): take one of them out of the after= of the next",
        path=path,
    )


def arrows(path: Iterable[str]) -> str:
    """A path for people; a long one is shown by its ends."""
    named = [repr(key) for key in path]
    if len(named) > _SHOWN:
        half = _SHOWN // 2
        named = [*named[:half], f"… {len(named) - _SHOWN} more …", *named[-half:]]
    return " → ".join(named)
