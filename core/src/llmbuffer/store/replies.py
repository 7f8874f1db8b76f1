"""Whole replies in a store: up to so many answers under one name, each in a place of its own."""

from __future__ import annotations

from ..messages import Message
from .records import decode_message, encode_message
from .values import Values

__all__ = ["KeptReplies"]


class KeptReplies(Values):
    """The part of ``Store`` that keeps replies. Each answer is a value, so that capacity and policy count for it.

    >>> from llmbuffer.store import open_store
    >>> store = open_store("memory:")
    >>> place = store.claim_reply("question", 2, "worker-1", seconds=60)
    >>> store.keep_reply("question", place, Message("assistant", "An answer."))
    >>> store.release_reply("question", place, "worker-1"), len(store.replies("question", 2))
    (True, 1)
    """

    def replies(self, name: str, samples: int) -> tuple[Message, ...]:
        """The answers in the first ``samples`` places, as they were written."""
        found = (self.get(_place(name, index)) for index in range(samples))
        return tuple(decode_message(body) for body in found if body is not None)

    def keep_reply(self, name: str, place: int, message: Message, ttl: float | None = None) -> None:
        """Put an answer into its place, for ``ttl`` seconds (default: for ever)."""
        self.put(_place(name, place), encode_message(message), ttl=ttl)

    def claim_reply(self, name: str, samples: int, owner: str, seconds: float) -> int | None:
        """An empty place that ``owner`` may fill within ``seconds``; ``None`` if none is empty, or others hold them all."""
        for index in range(samples):
            place = _place(name, index)
            if self.get(place) is None and self.take(place, owner, seconds):
                if self.get(place) is None:
                    return index
                self.release(place, owner)  # filled since it was looked at
        return None

    def release_reply(self, name: str, place: int, owner: str) -> bool:
        """Give a place back, filled or not; whether ``owner`` held it."""
        return self.release(_place(name, place), owner)


def _place(name: str, index: int) -> str:
    return f"reply/{name}/{index}"
