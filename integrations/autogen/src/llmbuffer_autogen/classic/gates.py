"""Warm first, in threads: of requests with one cold prefix one goes, and the others are held until it was answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

__all__ = ["Gates"]

PATIENCE = 60.0  # seconds that a request is held at most


class Gates:
    """A gate for each prefix, by its name; they are shared by forks that run side by side.

    >>> gates = Gates()
    >>> with gates.passing("planner"):
    ...     gates.is_open("planner")
    False
    >>> gates.is_open("planner")
    True
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._open: set[str] = set()
        self._led: set[str] = set()

    def is_open(self, name: str) -> bool:
        """Whether nobody is held any more."""
        return name in self._open

    @contextmanager
    def passing(self, name: str) -> Iterator[None]:
        """Hold until the prefix is warm, or go first. One that fails lets the next one go first."""
        with self._changed:
            self._changed.wait_for(lambda: name in self._open or name not in self._led, timeout=PATIENCE)
            leads = name not in self._open and name not in self._led
            if leads:
                self._led.add(name)
        try:
            yield
            if leads:
                self._open.add(name)
        finally:
            if leads:
                with self._changed:
                    self._led.discard(name)
                    self._changed.notify_all()
