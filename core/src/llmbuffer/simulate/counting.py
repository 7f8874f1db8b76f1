"""Counting and hashing each text once, however often it is sent; both memories are bounded."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

from ..chain import WIRE_BYTES, Block, Node
from ..tokens import TokenCounter

__all__ = ["CountMemo", "NodeMemo"]

_SHORT = 32  # characters below which counting costs no more than hashing


class CountMemo:
    """A token counter that remembers what it counted, by digest.

    >>> from llmbuffer.tokens import EstimateCounter
    >>> CountMemo(EstimateCounter(), limit=10)("a plain English sentence")
    6
    """

    def __init__(self, counter: TokenCounter, limit: int) -> None:
        self._counter, self._limit = counter, limit
        self._known: OrderedDict[bytes, int] = OrderedDict()

    def __call__(self, text: str) -> int:
        """The tokens of ``text``."""
        if len(text) < _SHORT:
            return self._counter.count(text)
        digest = blake2b(text.encode(), digest_size=16).digest()
        tokens = self._known.get(digest)
        if tokens is None:
            tokens = self._known[digest] = self._counter.count(text)
            if len(self._known) > self._limit:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(digest)
        return tokens

    def __len__(self) -> int:
        return len(self._known)


class NodeMemo:
    """Nodes of the prompts of one scope: a prompt that goes on shares those of the one before it.

    At most ``limit`` of them, and ``characters`` of text in all; with 0 characters the nodes have no text, which is enough
    for caches that never read a part of a block.
    """

    def __init__(self, limit: int, characters: int) -> None:
        self._limit, self._characters = limit, characters
        self._known: OrderedDict[bytes, tuple[Node, int]] = OrderedDict()
        self._held = 0

    def grow(self, parent: Node, block: Block, wire: bytes, tokens: int, positions: int) -> Node:
        """The node after ``parent`` for these bytes; see ``llmbuffer.bodies.read_prompt``."""
        digest = blake2b(parent.wire + wire, digest_size=WIRE_BYTES).digest()
        known = self._known.get(digest)
        if known is not None:
            self._known.move_to_end(digest)
            return known[0]
        if not self._characters:
            block = Block(block.section, block.label, "")
        node = parent.child(block, content=wire, wire=wire, tokens=tokens, positions=positions)
        self._known[digest] = (node, len(block.text))
        self._held += len(block.text)
        while len(self._known) > self._limit or self._held > self._characters:
            _, (_, length) = self._known.popitem(last=False)
            self._held -= length
        return node

    def __len__(self) -> int:
        return len(self._known)
