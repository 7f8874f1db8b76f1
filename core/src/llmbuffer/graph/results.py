"""What tasks and runs came to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ..errors import TaskError, UnknownTaskError
from ..usage import Usage

if TYPE_CHECKING:
    from ..session import Session

__all__ = ["GraphRun", "Status", "TaskResult"]

Status = Literal["finished", "kept", "failed", "skipped", "cancelled", "waiting"]


class TaskResult(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a task came to.

    ``status`` is ``finished`` or ``kept`` (finished in an earlier run and read from the store) with a ``value``: the text of
    the model's last message, or what the callable returned. ``failed`` has an ``error``; ``skipped`` says by ``because`` which
    task before it failed; ``cancelled`` was under way, ``waiting`` had not begun, when the run ended.

    ``session`` is the fork that it conversed in, if it did and this process did it; ``session_id`` its id, by which a store
    holds it. ``usage`` and ``cost`` (USD; ``None`` without a price) are those of all its attempts, ``seconds`` what they took.
    """

    key: str
    status: Status
    value: Any = None
    error: BaseException | None = None
    because: str | None = None
    session: Session | None = None
    session_id: str | None = None
    usage: Usage = Usage()
    cost: float | None = None
    attempts: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self.status in ("finished", "kept")

    def to_json(self, *, values: bool = True) -> dict[str, Any]:
        """As plain JSON values; ``values=False`` leaves the value out."""
        document: dict[str, Any] = {"key": self.key, "status": self.status}
        if values:
            document["value"] = _plain(self.value)
        document |= _figures(self.usage, self.cost)
        document |= {
            "attempts": self.attempts,
            "seconds": round(self.seconds, 6),
            "session_id": self.session_id,
        }
        if self.error is not None:
            document["error"] = f"{type(self.error).__name__}: {self.error}"
        if self.because is not None:
            document["because"] = self.because
        return document

    def __repr__(self) -> str:
        return f"TaskResult({self.key!r}, {self.status!r}, attempts={self.attempts}, usage={self.usage})"


class GraphRun:
    """What a run came to: values by key (``run["draft"]``), keys by iterating, and all else in ``run.tasks``.

    Asking for the value of a task that has none raises ``TaskError``. ``run_id`` is what a later run resumes by.
    ``changed`` are the keys whose stored results were of another definition, and were not used.
    """

    def __init__(
        self,
        run_id: str,
        tasks: Mapping[str, TaskResult],
        *,
        seconds: float = 0.0,
        changed: tuple[str, ...] = (),
    ) -> None:
        self.run_id, self.tasks, self.seconds, self.changed = run_id, tasks, seconds, changed

    def __getitem__(self, key: str) -> Any:
        found = self.tasks.get(key)
        if found is None:
            raise UnknownTaskError(f"the run has no task {key!r}: it has {len(self.tasks)}, see run.tasks")
        if found.ok:
            return found.value
        raise self._failure(found) from found.error

    def _failure(self, found: TaskResult) -> TaskError:
        if found.status == "failed":
            why = f"it failed with {type(found.error).__name__}"
        elif found.because is not None:
            why = f"it was skipped, because {found.because!r} before it failed"
        else:
            why = "the run ended before it did"
        return TaskError(f"task {found.key!r} has no result: {why}", key=found.key, run=self)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)

    def __contains__(self, key: object) -> bool:
        return key in self.tasks

    @property
    def results(self) -> dict[str, Any]:
        """The values of all tasks that have one, by key."""
        return {each.key: each.value for each in self.tasks.values() if each.ok}

    @property
    def ok(self) -> bool:
        """Whether every task has a value."""
        return all(each.ok for each in self.tasks.values())

    def of(self, status: Status) -> tuple[str, ...]:
        """The keys of the tasks in this status, in the order of the graph."""
        return tuple(each.key for each in self.tasks.values() if each.status == status)

    @property
    def usage(self) -> Usage:
        """What all tasks used, that of kept results included."""
        return sum((each.usage for each in self.tasks.values()), Usage())

    @property
    def cost(self) -> float | None:
        """USD for all tasks, kept ones included; ``None`` where no price is known."""
        costs = [each.cost for each in self.tasks.values() if each.cost is not None]
        return sum(costs) if costs else None

    def raise_for_failures(self) -> None:
        """Raise ``TaskError`` for the first task without a value, if there is one."""
        for each in self.tasks.values():
            if not each.ok:
                raise self._failure(each) from each.error

    def to_json(self, *, values: bool = True) -> dict[str, Any]:
        """As plain JSON values; simulated or measured is not known here, so it does not say."""
        statuses = [each.status for each in self.tasks.values()]
        return {
            "run_id": self.run_id,
            "ok": self.ok,
            "seconds": round(self.seconds, 6),
            **{status: statuses.count(status) for status in _STATUSES},
            "changed": list(self.changed),
            **_figures(self.usage, self.cost),
            "tasks": [each.to_json(values=values) for each in self.tasks.values()],
        }

    def __repr__(self) -> str:
        statuses = [each.status for each in self.tasks.values()]
        counts = ", ".join(f"{name}={statuses.count(name)}" for name in _STATUSES if name in statuses)
        return f"GraphRun({self.run_id!r}, {counts})"


_STATUSES: tuple[Status, ...] = ("finished", "kept", "failed", "skipped", "cancelled", "waiting")


def _figures(usage: Usage, cost: float | None) -> dict[str, Any]:
    return {**usage.figures(), "cost_usd": None if cost is None else round(cost, 6)}


def _plain(value: object) -> Any:
    """A value as JSON has it; what it cannot have, as its class."""
    try:
        return msgspec.to_builtins(value)
    except (TypeError, ValueError, RecursionError):
        return f"<{type(value).__name__}>"
