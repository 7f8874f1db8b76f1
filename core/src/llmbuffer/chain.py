"""The history as parent-linked, content-addressed nodes.

A node is immutable and shared: a fork costs one pointer, and two sessions that say the same thing have nodes with
equal digests. Every node carries two digests that are never mixed: ``digest`` identifies *what was said*
(canonical bytes, keys sorted), ``wire`` the *bytes in the order sent* under one dialect. Caches see the second.

``jump`` points further back at the distances of a skew-binary number (E. W. Myers, "An applicative random-access
stack", 1983), so that ancestors and common prefixes are found in O(log depth) steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

import msgspec

from .messages import Message, canonical

__all__ = ["Block", "Node", "ancestor", "common_prefix", "is_ancestor", "root", "walk"]

DIGEST_BYTES = 24
WIRE_BYTES = 15  # compared within one process only; with the header of a bytes object that makes 48


class Block(msgspec.Struct, frozen=True, gc=False):
    """A rendered piece of a prompt that is no message of a session: a tool, a system text, a dynamic text.

    ``section`` is ``tools``, ``system`` or ``messages``; ``label`` names the piece; ``text`` is what counts in tokens.
    """

    section: str
    label: str
    text: str

    def __repr__(self) -> str:
        return f"Block(section={self.section!r}, label={self.label!r}, text=<{len(self.text)}>)"


class Node:
    """One link: ``(parent, message, digest, tokens, depth)``, and where it lies in the prompt.

    ``end`` counts the tokens from the root to the end of this node, ``position`` the places that a provider's
    look-back counts, ``depth`` the links from the root (the root has depth 0 and holds no message).
    """

    __slots__ = ("_digest", "depth", "end", "jump", "message", "parent", "position", "wire")
    parent: Node | None
    message: Message | Block | None
    wire: bytes
    end: int
    position: int
    depth: int
    jump: Node
    _digest: bytes | None

    @property
    def digest(self) -> bytes:
        """The identity of what was said from the root to here. Of a history that was loaded it is made at the first look."""
        return self._digest if self._digest is not None else _late_digest(self)

    @property
    def tokens(self) -> int:
        """Tokens of this node alone."""
        return self.end - (self.parent.end if self.parent is not None else 0)

    def child(
        self,
        message: Message | Block,
        *,
        content: bytes | None = None,
        wire: bytes,
        tokens: int,
        positions: int = 1,
    ) -> Node:
        """A new node after this one.

        ``content`` are the canonical bytes of ``message`` (of a block, of its text), ``wire`` its bytes as sent; ``tokens``
        and ``positions`` are those of this message alone. Without ``content``, and behind a node whose digest nobody asked
        for, the digest is made when it is asked for: many histories are loaded to be sent, not to be compared.
        """
        node = Node.__new__(Node)
        node.parent = self
        node.message = message
        if content is None or self._digest is None:
            node._digest = None
        else:
            node._digest = blake2b(self._digest + content, digest_size=DIGEST_BYTES).digest()
        node.wire = blake2b(self.wire + wire, digest_size=WIRE_BYTES).digest()
        node.end = self.end + tokens
        depth, position = self.depth + 1, self.position + positions
        node.depth = depth
        # One int object where the two agree: 32 bytes a node.
        node.position = depth if position == depth else position
        # Two equal strides behind us make one stride of double length, else a stride of one: skew-binary counting.
        back, further = self.jump, self.jump.jump
        node.jump = further if self.depth - back.depth == back.depth - further.depth else self
        return node

    def late(self, message: Message, wire: bytes, tokens: int) -> Node:
        """The same as ``child`` without ``content``, at one position: the short way, for histories that are loaded."""
        node = Node.__new__(Node)
        node.parent = self
        node.message = message
        node._digest = None
        node.wire = blake2b(self.wire + wire, digest_size=WIRE_BYTES).digest()
        node.end = self.end + tokens
        depth, position = self.depth, self.position + 1
        node.depth = deeper = depth + 1
        node.position = deeper if position == deeper else position
        back = self.jump
        further = back.jump
        node.jump = further if depth - back.depth == back.depth - further.depth else self
        return node

    def __repr__(self) -> str:
        return f"Node(depth={self.depth}, end={self.end}, digest={self.digest.hex()[:12]!r})"


def root(seed: bytes = b"", *, end: int = 0, position: int = 0) -> Node:
    """The start of a chain; chains with different seeds share nothing.

    >>> start = root()
    >>> one = start.child(Message("user", "hi"), content=b"hi", wire=b"hi", tokens=2)
    >>> one.depth, one.tokens, one.parent is start
    (1, 2, True)
    """
    node = Node.__new__(Node)
    node.parent = None
    node.message = None
    node._digest = blake2b(seed, digest_size=DIGEST_BYTES).digest()
    node.wire = node._digest[:WIRE_BYTES]
    node.end, node.position, node.depth = end, position, 0
    node.jump = node
    return node


def ancestor(node: Node, depth: int) -> Node:
    """The node at ``depth`` on the way from ``node`` to the root, in O(log depth) steps."""
    while node.depth > depth:
        node = node.jump if node.jump.depth >= depth else _parent(node)
    return node


def is_ancestor(older: Node, younger: Node) -> bool:
    """Whether what ``older`` sent is a prefix of what ``younger`` sends (a node is its own ancestor)."""
    return older.depth <= younger.depth and ancestor(younger, older.depth).wire == older.wire


def common_prefix(a: Node, b: Node) -> Node:
    """The last node that ``a`` and ``b`` share on the wire, in O(log depth) steps; seen from ``a``.

    Chains from roots with different seeds share nothing: the root of ``a`` comes back.

    >>> start = root()
    >>> shared = start.child(Message("user", "hi"), content=b"1", wire=b"1", tokens=2)
    >>> left = shared.child(Message("assistant", "a"), content=b"2", wire=b"2", tokens=2)
    >>> right = shared.child(Message("assistant", "b"), content=b"3", wire=b"3", tokens=2)
    >>> common_prefix(left, right) is shared
    True
    """
    a, b = ancestor(a, b.depth), ancestor(b, a.depth)
    while a is not b and a.wire != b.wire:
        if a.parent is None:
            return a
        if a.jump is not b.jump and a.jump.wire != b.jump.wire:
            a, b = a.jump, b.jump
        else:
            a, b = _parent(a), _parent(b)
    return a


def walk(node: Node) -> Iterator[Node]:
    """The nodes from ``node`` back to, and without, the root."""
    while node.parent is not None:
        yield node
        node = node.parent


def _late_digest(node: Node) -> bytes:
    """The digest of a node that has none yet; all those before it get theirs. Two threads at once write the same."""
    late, at = [], node
    while at._digest is None:
        late.append(at)
        at = _parent(at)
    digest = at._digest
    for each in reversed(late):
        digest = each._digest = blake2b(digest + _content(each), digest_size=DIGEST_BYTES).digest()
    return digest


def _content(node: Node) -> bytes:
    message = node.message
    assert message is not None, "the root has a digest from the start"
    return canonical(message) if isinstance(message, Message) else message.text.encode()


def _parent(node: Node) -> Node:
    assert node.parent is not None, "only the root has no parent, and nobody steps past it"
    return node.parent
