"""Clients of a run: whether they are awaited, and those that do not tell."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from ..errors import DialectError
from .calling import is_coroutine_function

__all__ = ["Undeclared", "is_asynchronous", "tells"]

_ENDPOINTS = ("chat.completions.create", "responses.create", "messages.create", "models.generate_content")
_STEPS = frozenset(step for path in _ENDPOINTS for step in path.split(".")[:-1])
_CALLS = frozenset(path.rpartition(".")[2] for path in _ENDPOINTS)

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]


def tells(client: object) -> bool:
    """Whether a client says by how it is closed if it is to be awaited; those of the SDKs do."""
    return hasattr(client, "__aenter__") != hasattr(client, "__enter__")


def is_asynchronous(client: object, default: bool) -> bool:
    """Whether a client is awaited: one that does not tell, if that is the default or its call is a coroutine function.

    >>> from types import SimpleNamespace as Fake
    >>> async def create(**body): ...
    >>> is_asynchronous(Fake(messages=Fake(create=create)), default=False)
    True
    """
    if tells(client):
        return hasattr(client, "__aenter__")
    return default or any(is_coroutine_function(_found(client, path)) for path in _ENDPOINTS)


def _found(client: object, path: str) -> Any:
    found: Any = client
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


class Undeclared:
    """A client that does not tell what it is, for those who await: plain calls run in a thread, as they may block.

    What such a call returns is awaited where it can be. Everything else is the client's own.
    """

    def __init__(self, client: object, in_thread: InThread) -> None:
        self._client, self._in_thread = client, in_thread

    def __getattr__(self, name: str) -> Any:
        if name in _STEPS:
            if not hasattr(self._client, name):
                kind = type(self._client).__name__
                raise DialectError(f"a {kind} has no {name!r}: give a client of the dialect's own SDK")
            return Undeclared(getattr(self._client, name), self._in_thread)
        found = getattr(self._client, name)
        plain = name in _CALLS and not is_coroutine_function(found)
        return partial(self._called, found) if plain else found

    async def _called(self, call: Callable[..., Any], **arguments: Any) -> Any:
        value = await self._in_thread(partial(call, **arguments))
        return await value if inspect.isawaitable(value) else value
