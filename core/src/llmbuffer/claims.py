"""Answers in a store that processes share: who may ask the provider for one, and who waits for it.

The store is any object with ``replies``, ``claim_reply``, ``keep_reply`` and ``release_reply``, as ``llmbuffer.store`` has them.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.to_thread

from .context import CacheKey
from .errors import StoreError
from .messages import Message

__all__ = ["Claim", "Claims"]

_log = logging.getLogger("llmbuffer.replies")

_SHORTEST, _LONGEST, _LONGER = (
    0.01,
    0.5,
    1.5,
)  # seconds between two looks into the store, and the factor between them


class Claim:
    """The answers to a key that were found, and the place of the next one, if this process is to ask for it."""

    __slots__ = ("_claims", "_name", "_owner", "answers", "place")

    def __init__(
        self, claims: Claims, name: str, owner: str, answers: tuple[Message, ...], place: int | None
    ) -> None:
        self._claims, self._name, self._owner = claims, name, owner
        self.answers, self.place = answers, place

    def keep(self, message: Message) -> None:
        """Put the answer into its place."""
        if self.place is not None:
            claims = self._claims
            claims.tried(claims.store.keep_reply, self._name, self.place, message, claims.ttl)

    def release(self) -> None:
        """Let others ask."""
        if self.place is not None:
            self._claims.tried(self._claims.store.release_reply, self._name, self.place, self._owner)


class Claims:
    """Claims on the answers of one store: at most ``samples`` a key, kept for ``ttl`` seconds; a claim holds for ``lease``."""

    def __init__(self, store: Any, samples: int, *, ttl: float | None, lease: float) -> None:
        self.store, self.samples, self.ttl, self.lease = store, samples, ttl, lease

    def wait(self, key: CacheKey) -> Claim | None:
        """Enough answers, or a place to fill; waits while others fill all of them. ``None`` if the store fails."""
        owner = secrets.token_hex(8)
        for seconds in _paces():
            found = self._look(key, owner)
            if not isinstance(found, bool):
                return found
            threading.Event().wait(seconds)
        raise AssertionError("the paces never end")

    async def await_(self, key: CacheKey) -> Claim | None:
        """The same in a task."""
        owner = secrets.token_hex(8)
        for seconds in _paces():
            # The thread ends before a cancellation counts, so that no lease is left that nobody knows of.
            found = await anyio.to_thread.run_sync(self._look, key, owner)
            if not isinstance(found, bool):
                return found
            await anyio.sleep(seconds)
        raise AssertionError("the paces never end")

    def _look(self, key: CacheKey, owner: str) -> Claim | bool | None:
        """A claim; ``False`` if others fill all places; ``None`` if the store fails."""
        name = f"{key.stable}/{key.dynamic}"
        try:
            place = self.store.claim_reply(name, self.samples, owner, self.lease)
            answers = self.store.replies(name, self.samples)
        except StoreError as error:
            _failed(error)
            return None
        if place is None and len(answers) < self.samples:
            return False
        return Claim(self, name, owner, answers, place)

    def tried(self, call: Any, *arguments: Any) -> None:
        """Call the store; what goes wrong is told by the log."""
        try:
            call(*arguments)
        except StoreError as error:
            _failed(error)


def _paces() -> Iterator[float]:
    seconds = _SHORTEST
    while True:
        yield seconds
        seconds = min(_LONGEST, seconds * _LONGER)


def _failed(error: StoreError) -> None:
    _log.warning("replies are not shared, because the store failed: %s", error)
