"""Copies of a team by its own ``dump_component`` and ``load_component``, whose model clients are forks of the team's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["Duplicates", "given", "taken"]

_OPEN: ContextVar[Duplicates | None] = ContextVar("llmbuffer_autogen_duplicates", default=None)


class Duplicates:
    """While a team is dumped or loaded inside ``open()``, its clients stand in the config by a name.

    ``fork`` makes the client of a copy. In one copy each client is forked once, however many agents use it.
    """

    def __init__(self, fork: Callable[[Any], Any]) -> None:
        self._fork = fork
        self._clients: dict[str, Any] = {}
        self._forks: dict[str, Any] = {}

    @contextmanager
    def open(self) -> Iterator[None]:
        """What is dumped and loaded meanwhile is dumped and loaded for a copy."""
        token = _OPEN.set(self)
        self._forks = {}
        try:
            yield
        finally:
            _OPEN.reset(token)

    def __bool__(self) -> bool:
        return bool(self._clients)

    @property
    def forks(self) -> list[Any]:
        """The clients of the last copy."""
        return list(self._forks.values())

    def name(self, client: Any) -> str:
        """What a client is called in the config."""
        found = next((name for name, each in self._clients.items() if each is client), None)
        if found is None:
            found = str(len(self._clients))
            self._clients[found] = client
        return found

    def fork(self, name: str) -> Any:
        """The fork of a client for this copy."""
        client = self._clients[name]
        if name not in self._forks:
            self._forks[name] = self._fork(client)
        return self._forks[name]


def given(client: Any) -> str | None:
    """The name to dump a client by; ``None`` where no team is being copied."""
    duplicates = _OPEN.get()
    return None if duplicates is None else duplicates.name(client)


def taken(config: Any) -> Any:
    """The fork that a config names; ``None`` where no team is being copied."""
    duplicates = _OPEN.get()
    return None if duplicates is None or config.fork is None else duplicates.fork(config.fork)
