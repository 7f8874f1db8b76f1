"""What was sent, frozen: the chain of the head (tools, system), the chain of the messages, and the marks.

A snapshot holds two tips and no entry a message, so that a session of 10,000 messages keeps 1 KB for each request that
it remembers. Two snapshots are compared in O(log depth) steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from .chain import Block, Node, ancestor, common_prefix, is_ancestor
from .messages import Image, Message, Reasoning, Text, ToolCall, ToolResult

__all__ = [
    "Insert",
    "MarkAt",
    "Relation",
    "Snapshot",
    "message_tokens",
    "overlap",
    "relation",
    "shared_length",
    "texts",
]

Relation = Literal["same", "extension", "shrunk", "divergent"]


class MarkAt(msgspec.Struct, frozen=True):
    """A breakpoint in a snapshot: after ``node`` of the messages, of the head (``in_head``), or after the dynamic text."""

    node: Node
    in_head: bool = False
    long: bool = False
    dynamic: bool = False


class Insert(msgspec.Struct, frozen=True):
    """Dynamic text: it stands behind ``after``, a node of the messages, and is no part of their chain.

    ``tip`` ends a chain of its blocks that starts at ``after``, so its digest covers all that was sent up to there.
    """

    after: Node
    tip: Node

    @property
    def tokens(self) -> int:
        """Tokens of the dynamic text."""
        return self.tip.end - self.after.end

    @property
    def positions(self) -> int:
        """What a look-back counts in it."""
        return self.tip.position - self.after.position


class Snapshot(msgspec.Struct, frozen=True):
    """One rendered request: ``head`` ends tools and system, ``tip`` ends the messages, ``insert`` is the dynamic text.

    The root of ``head`` is seeded with the model and the params that move everything; ``message_seed`` is a digest of
    the params that only the messages depend on.
    """

    head: Node
    tip: Node
    message_seed: bytes = b""
    marks: tuple[MarkAt, ...] = ()
    insert: Insert | None = None

    @property
    def tokens(self) -> int:
        """Prompt tokens of the request, as counted."""
        return self.head.end + self.tip.end + (self.insert.tokens if self.insert is not None else 0)

    @property
    def end(self) -> MarkAt:
        """The end of the prompt."""
        last = self.insert is not None and self.insert.after.depth == self.tip.depth
        return MarkAt(self.tip, dynamic=last)

    def covers_insert(self, mark: MarkAt) -> bool:
        """Whether the dynamic text lies before a mark of the messages."""
        return mark.dynamic or (self.insert is not None and mark.node.depth > self.insert.after.depth)

    def tokens_at(self, mark: MarkAt) -> int:
        """Prompt tokens from the start to a mark."""
        if mark.in_head:
            return mark.node.end
        inserted = self.insert.tokens if self.insert is not None and self.covers_insert(mark) else 0
        return self.head.end + mark.node.end + inserted

    def position_at(self, mark: MarkAt) -> int:
        """The look-back position of a mark."""
        if mark.in_head:
            return mark.node.position
        inserted = self.insert.positions if self.insert is not None and self.covers_insert(mark) else 0
        return self.head.position + mark.node.position + inserted

    def begins(self, mark: MarkAt, other: Snapshot) -> bool:
        """Whether what this request sends up to ``mark`` is a prefix of ``other``."""
        if mark.in_head:
            return is_ancestor(mark.node, other.head)
        if self.head.wire != other.head.wire or self.message_seed != other.message_seed:
            return False
        return self._insert_begins(mark, other) and is_ancestor(mark.node, other.tip)

    def _insert_begins(self, mark: MarkAt, other: Snapshot) -> bool:
        """Whether the dynamic text before ``mark`` stands at the same place in ``other``, and says the same."""
        if not self.covers_insert(mark):
            return other.insert is None or other.insert.after.depth >= mark.node.depth
        assert self.insert is not None, "covered, so it is there"
        if other.insert is None or self.insert.after.depth != other.insert.after.depth:
            return False
        if mark.dynamic:
            return is_ancestor(self.insert.tip, other.insert.tip)
        return self.insert.tip.wire == other.insert.tip.wire


def overlap(a: Snapshot, b: Snapshot, count: Callable[[str], int] | None = None) -> int:
    """Tokens of the longest common prefix of two requests, the part of a half-equal block included.

    ``count`` counts the tokens of that part; without it they are taken in proportion to its characters.
    """
    if a.head.wire != b.head.wire:
        shared = common_prefix(a.head, b.head)
        if shared.depth == 0 and shared.wire != ancestor(b.head, 0).wire:
            return 0
        return shared.end + _partial(a.head, b.head, shared, count)
    if a.message_seed != b.message_seed:
        return a.head.end
    return a.head.end + _message_overlap(a, b, count)


def _message_overlap(a: Snapshot, b: Snapshot, count: Callable[[str], int] | None) -> int:
    shared = common_prefix(a.tip, b.tip)
    first, second = _insert_depth(a), _insert_depth(b)
    if a.insert is not None and b.insert is not None and first == second <= shared.depth:
        inserted = common_prefix(a.insert.tip, b.insert.tip)
        if inserted.wire != a.insert.tip.wire or inserted.wire != b.insert.tip.wire:
            return inserted.end + _partial(a.insert.tip, b.insert.tip, inserted, count)
        return shared.end + a.insert.tokens + _partial(a.tip, b.tip, shared, count)
    cut = min(first, second)
    if cut <= shared.depth:
        return ancestor(shared, cut).end
    return shared.end + _partial(a.tip, b.tip, shared, count)


def _insert_depth(snapshot: Snapshot) -> int:
    return snapshot.insert.after.depth if snapshot.insert is not None else _NOWHERE


_NOWHERE = 2**62  # deeper than any node


def relation(older: Snapshot, newer: Snapshot) -> Relation:
    """How ``newer`` relates to ``older``: an extension begins with every byte of it.

    >>> from llmbuffer.chain import root
    >>> start = root()
    >>> one = start.child(Message("user", "hi"), content=b"1", wire=b"1", tokens=2)
    >>> relation(Snapshot(start, start), Snapshot(start, one))
    'extension'
    """
    grows, shrinks = older.begins(older.end, newer), newer.begins(newer.end, older)
    if grows and shrinks:
        return "same"
    if grows:
        return "extension"
    return "shrunk" if shrinks else "divergent"


def _partial(a: Node, b: Node, shared: Node, count: Callable[[str], int] | None) -> int:
    if shared.depth in (a.depth, b.depth):
        return 0
    first, second = ancestor(a, shared.depth + 1), ancestor(b, shared.depth + 1)
    if first.wire == second.wire or not _alike(first.message, second.message):
        return 0
    left, right = "".join(texts(first.message)), "".join(texts(second.message))
    same = left[: shared_length(left, right)]
    if not same:
        return 0
    if count is not None:
        return min(count(same), first.tokens, second.tokens)
    return min(first.tokens * len(same) // len(left), second.tokens * len(same) // len(right))


def shared_length(left: str, right: str) -> int:
    """How many characters two texts share from the start; compared by halves, so that the interpreter does the work."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _alike(a: Message | Block | None, b: Message | Block | None) -> bool:
    if isinstance(a, Message) and isinstance(b, Message):
        return a.role == b.role and a.name == b.name
    if isinstance(a, Block) and isinstance(b, Block):
        return a.section == b.section
    return False


def texts(value: Message | Block | None) -> list[str]:
    """The pieces of text that count in tokens, in prompt order."""
    if isinstance(value, Block):
        return [value.text]
    if value is None:
        return []
    if isinstance(value._content, str):
        return [value._content]
    out: list[str] = []
    for part in value._content:
        if isinstance(part, Text | Reasoning):
            out.append(part.text)
        elif isinstance(part, ToolCall):
            out += (part.name, part.arguments)
        elif isinstance(part, ToolResult):
            out += [part.content] if isinstance(part.content, str) else texts(Message("user", part.content))
        elif not isinstance(part, Image):
            out.append(_other(part))
    return out


MESSAGE_OVERHEAD = 4  # role and separators: 3 tokens in OpenAI's chat template, 4 in most open ones
IMAGE_TOKENS = 765  # one high-detail 512-pixel tile grid at OpenAI; others are of the same order; reported usage corrects it


def message_tokens(message: Message, count: Callable[[str], int]) -> int:
    """Prompt tokens of one message as ``count`` sees its text, framing included.

    >>> message_tokens(Message("user", "four"), len)
    8
    """
    if isinstance(message._content, str):
        return count(message._content) + MESSAGE_OVERHEAD
    images = sum(isinstance(part, Image) for part in message._content)
    return sum(map(count, texts(message))) + MESSAGE_OVERHEAD * len(message._content) + IMAGE_TOKENS * images


def _other(part: object) -> str:
    json = getattr(part, "json", None)
    return json.decode() if isinstance(json, bytes) else ""
