"""Task graphs over forks of one session: ``TaskGraph`` holds the tasks, ``run`` gives a ``GraphRun``.

Names are loaded when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .definition import Task
    from .events import GraphEvent
    from .files import GraphFile, read_graph
    from .journal import forget_run
    from .results import GraphRun, TaskResult
    from .taskgraph import TaskGraph

__all__ = [
    "GraphEvent",
    "GraphFile",
    "GraphRun",
    "Task",
    "TaskGraph",
    "TaskResult",
    "forget_run",
    "read_graph",
]

_PLACES = {
    "GraphEvent": "events",
    "GraphFile": "files",
    "GraphRun": "results",
    "Task": "definition",
    "TaskGraph": "taskgraph",
    "TaskResult": "results",
    "forget_run": "journal",
    "read_graph": "files",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_PLACES[name]}", __name__), name)
