"""What keeps a SQLite file safe where a process that has it open is forked.

SQLite's locks belong to a process. A forked child inherits SQLite's memory of them and not the locks, so others take the
file for unused, and who closes it last removes the log that the child still writes to. So a child takes the same locks
itself and holds them as long as it lives; where it comes too late for that, the file is closed to it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from weakref import WeakSet

__all__ = ["is_lost", "watch"]

# Where SQLite holds its shared locks: in the file (its "lock-byte page"), and in the index of the log (its "dead man's
# switch"). Whoever has the file open holds both.
_SHARED_START, _SHARED_SIZE = 0x40000002, 510
_IN_USE = 128


class HasConnections(Protocol):
    """A back end, as far as forks go."""

    path: Path

    def release(self) -> list[sqlite3.Connection]:
        """Forget all connections, and give them; called in a child, so without waiting for any lock."""
        ...

    def connections(self) -> int:
        """How many are open."""
        ...


_BACKENDS: WeakSet[HasConnections] = WeakSet()
_INHERITED: list[sqlite3.Connection] = []  # closing one in the child would confuse SQLite about the parent's
_HELD: dict[
    Path, int | None
] = {}  # a descriptor with a child's lock, never to be closed; ``None``: it came too late
_BEFORE: dict[Path, int | None] = {}  # the index of each log when the process was forked


def watch(backend: HasConnections) -> None:
    """Look after the connections of a back end when the process is forked."""
    _BACKENDS.add(backend)


def is_lost(path: Path) -> bool:
    """Whether the file was open when this process was forked, and could not be held then."""
    return path in _HELD and _HELD[path] is None


def _index(path: Path) -> Path:
    return path.with_name(f"{path.name}-shm")


def _before() -> None:
    _BEFORE.clear()
    _BEFORE.update((path, _number(path)) for path in _open_paths())


def _number(path: Path) -> int | None:
    try:
        return _index(path).stat().st_ino
    except OSError:  # nothing was read or written yet
        return None


def _open_paths() -> Iterator[Path]:
    yield from {each.path for each in list(_BACKENDS) if each.connections()} | _HELD.keys()


def _in_child() -> None:
    for path, number in _BEFORE.items():
        _HELD[path] = None if is_lost(path) else _hold(path, number)
    for backend in list(_BACKENDS):
        _INHERITED.extend(backend.release())


def _hold(path: Path, number: int | None) -> int | None:
    """Take the locks of one who has the file open; ``None`` if the log is no longer the one that was inherited."""
    import fcntl

    try:
        held = os.open(path, os.O_RDONLY)
        fcntl.lockf(held, fcntl.LOCK_SH | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_START)
        if number is None:
            return held
        index = os.open(_index(path), os.O_RDONLY)
        fcntl.lockf(index, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, _IN_USE)
        return held if os.fstat(index).st_ino == number == _index(path).stat().st_ino else None
    except OSError:
        return None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=_in_child)
