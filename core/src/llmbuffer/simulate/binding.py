"""Reasoning that is bound to the prompt before it: a request that changed what was before is refused."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

from ..bodies import Piece
from .refusals import RefusedError

__all__ = ["Bindings"]

_KINDS = frozenset({"thinking", "redacted_thinking"})


class Bindings:
    """What stood before each block of reasoning when it was sent for the first time; bounded, the oldest go first.

    A provider binds a block when it makes it, and the simulated one makes none: it takes a script's word that the first
    request with a block is the one after the reply.

    >>> Bindings(limit=8).check("key", [])
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._before: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()

    def check(self, workspace: str, found: Sequence[Piece]) -> None:
        """Raise ``RefusedError`` for a block that stands behind other pieces than at first."""
        running = blake2b(digest_size=16)
        for piece in found:
            if piece.kind in _KINDS:
                self._compare(workspace, piece, running.digest())
            running.update(len(piece.wire).to_bytes(8, "big") + piece.wire)

    def _compare(self, workspace: str, piece: Piece, before: bytes) -> None:
        key = (workspace, blake2b(piece.wire, digest_size=16).digest())
        if self._before.setdefault(key, before) != before:
            raise RefusedError(
                f"{piece.path}: `thinking` block was made after another prompt: what is before it must not change "
                "(thinking.block_binding.prefix_mismatch_behavior is 'error')"
            )
        self._before.move_to_end(key)
        while len(self._before) > self._limit:
            self._before.popitem(last=False)

    def clear(self) -> None:
        """Forget all blocks."""
        self._before.clear()
