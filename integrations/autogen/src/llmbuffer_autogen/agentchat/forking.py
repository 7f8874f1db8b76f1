"""``fork_team``: N teams off one shared session, side by side, with one cold write."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
from autogen_agentchat.base import TaskResult, Team

from llmbuffer.errors import MessageError
from llmbuffer.usage import Usage

from .client import BufferedChatCompletionClient
from .duplicates import Duplicates
from .warming import Warming

__all__ = ["TeamFork", "fork_team"]

Factory = Callable[[BufferedChatCompletionClient], Team | Awaitable[Team]]


class TeamFork(msgspec.Struct, frozen=True):
    """What one fork came to: the ``result`` of its task, or the ``error`` that ended it; the other one is ``None``.

    ``team`` is the fork, to go on with; ``clients`` are its model clients, with their accounts. ``team`` is ``None`` where the
    team could not be made.
    """

    task: Any
    team: Team | None
    clients: tuple[BufferedChatCompletionClient, ...] = ()
    result: TaskResult | None = None
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        """Whether the task came to its end."""
        return self.error is None

    @property
    def usage(self) -> Usage:
        """What all its agents used."""
        return sum((client.usage for client in self.clients), Usage())

    def __repr__(self) -> str:
        end = "ok" if self.ok else f"error={type(self.error).__name__}"
        return f"TeamFork({end}, usage={self.usage})"


async def fork_team(
    team: Team | Factory,
    tasks: Iterable[Any],
    *,
    client: BufferedChatCompletionClient | None = None,
    limit: int = 8,
    warm: bool = True,
) -> tuple[TeamFork, ...]:
    """Run each task by a fork of a team; the forks in the order of the tasks.

    ``team`` is a team that is not running: it is copied by its own ``dump_component``, ``load_component`` and ``save_state``,
    so each fork goes on from what was said so far. Or it is a function that makes a team for a model client, which is a fork
    of ``client``: for teams whose tools cannot be dumped. ``limit`` teams run at a time. With ``warm`` the first request of
    all goes ahead and the others wait until it is answered, unless it is too short to be cached. An exception in one
    fork, of making it too, costs the others nothing.

    Raises ``MessageError`` for a limit below 1, a function without ``client``, and a team none of whose agents has a
    ``BufferedChatCompletionClient``; what the team's ``dump_component`` and ``save_state`` raise comes through.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise MessageError(f"limit is {limit!r}: give a number of teams, from 1 on")
    warming = Warming() if warm else None
    make = await _copies(team, warming) if isinstance(team, Team) else _made(team, client, warming)
    free = asyncio.Semaphore(limit)

    async def one(task: Any) -> TeamFork:
        async with free:
            return await _run(make, task)

    return tuple(await asyncio.gather(*map(one, tasks)))


_Made = tuple[Team, tuple[BufferedChatCompletionClient, ...]]
_Make = Callable[[], Awaitable[_Made]]


async def _run(make: _Make, task: Any) -> TeamFork:
    try:
        team, clients = await make()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this fork's alone
        return TeamFork(task, None, error=error)
    try:
        return TeamFork(task, team, clients, result=await team.run(task=task))
    except Exception as error:  # noqa: BLE001 - the same
        return TeamFork(task, team, clients, error=error)


def _made(factory: Any, client: BufferedChatCompletionClient | None, warming: Warming | None) -> _Make:
    """Forks by a function of the user's."""
    if not callable(factory):
        raise MessageError(f"a {type(factory).__name__} is no team: give one, or a function that makes one")
    if client is None:
        raise MessageError("a function that makes teams needs client=: the model client to fork")

    async def make() -> _Made:
        fork = client.forked(warming)
        team = factory(fork)
        return (await team if inspect.isawaitable(team) else team), (fork,)

    return make


async def _copies(team: Team, warming: Warming | None) -> _Make:
    """Forks by the team's own means, with its state."""
    duplicates = Duplicates(lambda client: client.forked(warming))
    with duplicates.open():
        config = team.dump_component()
    if not duplicates:
        raise MessageError("no agent of the team has a BufferedChatCompletionClient: nothing would be shared")
    state = await team.save_state()

    async def make() -> _Made:
        with duplicates.open():
            fork = type(team).load_component(config)
            clients = tuple(duplicates.forks)
        await fork.load_state(state)
        return fork, clients

    return make
