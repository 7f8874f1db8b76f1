"""The files of a Redis server: writing them anew, so that they hold no more what was removed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ...errors import StoreError
from .link import Link

__all__ = ["rewritten"]

_PAUSE = 0.005  # seconds between two looks at a server that is writing


def rewritten(link: Link, clock: Callable[[], float], patience: float) -> bool:
    """Whether log and snapshot were written anew within ``patience`` seconds by ``clock``."""
    until = clock() + patience
    info = _info(link)
    wanted = []
    if int(info.get("aof_enabled", 0)):
        wanted.append(("BGREWRITEAOF", "aof_rewrite_in_progress", "aof_last_bgrewrite_status"))
    if not wanted or _snapshots(link):
        wanted.append(("BGSAVE", "rdb_bgsave_in_progress", "rdb_last_bgsave_status"))
    for command, running, status in wanted:
        if not _started(link, command, clock, until):
            return False
        info = _info(link)
        while int(info.get(running, 0)) or int(info.get("aof_rewrite_scheduled", 0)):
            if clock() > until:
                return False
            time.sleep(_PAUSE)
            info = _info(link)
        if info.get(status) != "ok":
            return False
    _purge(link)
    return True


def _info(link: Link) -> dict[str, Any]:
    found: dict[str, Any] = link.ask(lambda client: client.info("persistence"))
    return found


def _snapshots(link: Link) -> bool:
    """Whether the server writes snapshots; a server that does not say does."""
    try:
        found = link.ask(lambda client: client.execute_command("CONFIG GET", "save"))
    except StoreError:
        return True
    values = list(found.values()) if isinstance(found, dict) else list(found)[1::2]
    return any(values)


def _started(link: Link, command: str, clock: Callable[[], float], until: float) -> bool:
    """Start it anew. One that is running began before what was removed was gone, so it does not count."""
    while (refused := _refused(link, command)) is not None:
        if "in progress" not in refused or clock() > until:
            return False
        time.sleep(_PAUSE)
    return True


def _refused(link: Link, command: str) -> str | None:
    try:
        link.ask(lambda client: client.execute_command(command))
    except StoreError as error:
        return str(error)
    return None


def _purge(link: Link) -> None:
    try:
        link.ask(lambda client: client.execute_command("MEMORY PURGE"))
    except StoreError:  # memory that is freed will be used again all the same
        return
