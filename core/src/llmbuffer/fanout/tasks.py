"""Tasks of a fan-out: what each worker is told, and with which tools it works."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ..errors import MessageError
from ..loop import Executor
from ..messages import Message
from ..placing import Dynamic
from ..tasking import task_text

__all__ = ["Task", "task_of", "tasks_of"]

_FIELDS = ("task", "user", "name", "dynamic", "tools", "params", "neutral")


class Task(msgspec.Struct, frozen=True):
    """One worker's task. ``task`` is what it is told: a text, a ``Message``, or content parts.

    ``name`` (default: ``worker-1``, ``worker-2``, … by its place) is that of the fork; ``dynamic`` is content for its turn
    only; ``tools`` run its calls, ``params`` are added to its requests, and ``neutral`` sets it free from its parent's role
    (see ``Session.fork``; for texts only): where they are not given, those of the fan-out hold.

    >>> Task("Count the parcels.", name="counter").name
    'counter'
    """

    task: Any
    name: str | None = None
    dynamic: Dynamic | None = None
    tools: Executor | None = None
    params: Mapping[str, Any] | None = None
    neutral: bool | str | None = None

    def said(self, neutral: bool | str = False) -> Any:
        """What the worker is told; ``neutral`` is what the fan-out says where the task says nothing."""
        chosen = neutral if self.neutral is None else self.neutral
        if not chosen:
            return self.task
        if not isinstance(self.task, str):
            raise MessageError(
                f"task {self.name!r} is a {type(self.task).__name__}, and neutral= goes before a text: give a text, or put "
                "words of your own into the message"
            )
        return task_text(self.task, chosen)

    def __repr__(self) -> str:
        return f"Task(name={self.name!r})"


def tasks_of(given: Iterable[Any]) -> tuple[Task, ...]:
    """Tasks from texts, mappings, messages and ``Task`` values, all with names.

    Raises ``MessageError`` for anything else, and says at which place it stands.

    >>> [task.name for task in tasks_of(["Count.", {"name": "b", "task": "Sum up."}])]
    ['worker-1', 'b']
    """
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise MessageError(f"the tasks are a {type(given).__name__}: give a list of them")
    return tuple(task_of(each, number) for number, each in enumerate(given, 1))


def task_of(given: Any, number: int) -> Task:
    """One task, at place ``number`` (from 1)."""
    if isinstance(given, Mapping) and ("task" in given or "user" in given):
        task = _from_mapping(given, number)
    elif isinstance(given, Task):
        task = given
    elif isinstance(given, str | Message | list | tuple):
        task = Task(given)
    else:
        raise MessageError(
            f"task {number} is a {type(given).__name__}: give a text, a Task, or a mapping with 'task' and perhaps "
            f"{', '.join(map(repr, _FIELDS[2:]))}"
        )
    named = task if task.name is not None else msgspec.structs.replace(task, name=f"worker-{number}")
    if not isinstance(named.name, str):
        raise MessageError(f"task {number} has the name {named.name!r}: give a string")
    if isinstance(named.task, str) and not named.task.strip():
        raise MessageError(f"task {named.name!r} is empty: say what is to be done")
    return named


def _from_mapping(given: Mapping[str, Any], number: int) -> Task:
    unknown = sorted(str(key) for key in given.keys() - set(_FIELDS))
    if unknown or ("task" in given and "user" in given):
        what = f"the unknown fields {unknown}" if unknown else "both 'task' and 'user'"
        raise MessageError(f"task {number} has {what}: known are {', '.join(_FIELDS)}, 'user' for 'task'")
    fields = {key: value for key, value in given.items() if key not in ("task", "user")}
    return Task(given["task"] if "task" in given else given["user"], **fields)
