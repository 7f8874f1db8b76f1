"""A history with other messages in it: the same nodes up to the first change, new ones behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from .archive import Archive
from .chain import Node, is_ancestor, walk
from .frozen import FrozenDict
from .messages import Message, Opaque, canonical
from .rendered import RenderedList
from .rules import Dialect, Place, Rendered
from .state import Anchor, State, Turn, block_positions, call_names, check_pairing, given_marks, still_open

__all__ = ["continued", "loaded", "rebuilt", "still_there"]

_ENCODER = msgspec.json.Encoder()


def rebuilt(
    old: State,
    messages: Sequence[Message],
    start: int,
    dialect: Dialect,
    tokens: Callable[[Message], int],
) -> State:
    """The state with ``messages``, of which the first ``start`` are those of ``old``. ``tokens`` are those of one message.

    The same as linking and attaching one by one, with no state made for each of them. Calls and results are paired: the
    caller has seen to that. Raises a ``MessageError`` for messages that the dialect cannot send.
    """
    builder = _Builder(dialect, tokens, late=True)
    same = _first_nodes(old, start)
    for index, message in enumerate(messages):
        if index == start:
            builder.cut()
        builder.add(message, same[index] if index < start else None)
    return builder.state()


def loaded(
    said: Iterable[tuple[Message, int | None]], dialect: Dialect, tokens: Callable[[Message], int]
) -> State:
    """The state of messages that were checked when they were saved, each with its tokens where they are known.

    The same as linking and attaching one by one to an empty state. Raises ``PairingError`` for calls and results that do
    not pair up.
    """
    builder = _Builder(dialect, tokens, late=True)
    builder.run(said)
    return builder.state()


class _Builder:
    """A state under construction."""

    def __init__(self, dialect: Dialect, tokens: Callable[[Message], int], *, late: bool = False) -> None:
        self._dialect, self._collapsed = dialect, dialect.rules.collapsed
        self._tokens, self._late = tokens, late
        self._tip = State.empty().tip
        self._items: list[FrozenDict] = []
        self._role: str | None = None
        self._blocks: tuple[FrozenDict, ...] = ()
        self._kind: str | None = None
        self._names: Mapping[str, str] = FrozenDict()
        self.open_calls: tuple[str, ...] = ()
        self._anchor: tuple[Node, int, int, int] | None = None
        self._user: tuple[Node, int, int, int] | None = None
        self._cut: tuple[Node, int, int, int] | None = None
        self._marks = self._turns = 0

    def cut(self) -> None:
        """What was sent before ends here: a breakpoint at the last place that may carry one lets it be read."""
        self._cut = self._anchor

    def run(self, said: Iterable[tuple[Message, int | None]]) -> None:
        """Messages one after the other. Texts that are wire messages of their own are most of a history: they go fast."""
        render, items, encode = self._dialect.render_message, self._items, _ENCODER.encode
        tip, role, user = self._tip, self._role, self._user
        for message, known in said:
            quick = type(message._content) is str and not self.open_calls and message.role != "tool"
            rendered = render(message, role) if quick else None
            if rendered is None or rendered.joins or rendered.mark_at >= 0 or rendered.kinds:
                self._tip, self._role, self._user = tip, role, user
                check_pairing(self.open_calls, message)
                self.add(message, None, known)
                tip, role, user = self._tip, self._role, self._user
                continue
            role, blocks = rendered.role, rendered.blocks
            tokens = self._tokens(message) if known is None else known
            tip = tip.late(message, role.encode() + encode(blocks), tokens)
            items += blocks
            if message.role == "user":
                user = (tip, len(items) - 1, -1, self._parts(blocks[0]))
            elif message.role == "assistant":
                self._turns += user is not None
                user = None
        self._tip, self._role, self._user = tip, role, user

    def _parts(self, block: FrozenDict) -> int:
        content = block.get(self._dialect.content_key)
        return len(content) if isinstance(content, list) else 1

    def add(self, message: Message, node: Node | None, known: int | None = None) -> None:
        """One more message; its ``node``, or its tokens, if they are known."""
        content = message._content
        plain = isinstance(content, str)
        results = not plain and message.role != "assistant" and bool(message.tool_results)
        renders = self._dialect.answering(self._names) if results else self._dialect
        rendered = renders.render_message(message, self._role)
        if node is None:
            node = self._node(message, rendered, known)
        item, part, end = self._place(rendered)
        if part >= 0:
            self._anchor = (node, item, part, end)
        calls = () if plain else message.call_ids
        if message.role == "user" and not results and rendered.blocks:
            self._user = (node, item, part, end)
        elif message.role == "assistant" and not calls:
            self._turns += self._user is not None
            self._user = None
        if calls:
            self._names = call_names(message)
            self.open_calls = calls
        elif results:
            self.open_calls = still_open(self.open_calls, message)
        if rendered.kinds:
            self._kind = rendered.kinds[-1]
        if not plain and any(isinstance(each, Opaque) for each in content):
            self._marks += given_marks(rendered)
        self._tip = node

    def _node(self, message: Message, rendered: Rendered, known: int | None) -> Node:
        wire = rendered.role.encode() + _ENCODER.encode(rendered.blocks)
        positions = block_positions(rendered.kinds, self._kind, self._collapsed) if rendered.kinds else 1
        return self._tip.child(
            message,
            content=None if self._late else canonical(message),
            wire=wire,
            tokens=self._tokens(message) if known is None else known,
            positions=positions + (rendered.lead is not None),
        )

    def _place(self, rendered: Rendered) -> tuple[int, int, int]:
        """Where the message ends, as ``RenderedList.append`` says it."""
        items, blocks = self._items, rendered.blocks
        if not rendered.joins:
            items += blocks
            self._role = rendered.role
            return len(items) - 1, rendered.mark_at, self._parts(blocks[-1])
        if rendered.role == self._role or not blocks:
            before = len(self._blocks)
            self._blocks += blocks
            self._role = rendered.role if blocks else self._role
            part = before + rendered.mark_at if rendered.mark_at >= 0 else -1
            return len(items), part, len(self._blocks)
        if self._blocks:
            items.append(self._dialect.wrap(self._role or "", self._blocks))
        if rendered.lead is not None:
            items.append(rendered.lead)
        self._role, self._blocks = rendered.role, blocks
        return len(items), rendered.mark_at, len(blocks)

    def state(self) -> State:
        """The state with all messages."""
        chunks = ((self._items, len(self._items)),) if self._items else ()
        return State(
            tip=self._tip,
            rendered=RenderedList(chunks, len(self._items), self._role, self._blocks),
            kind=self._kind,
            open_calls=self.open_calls,
            call_names=self._names,
            anchor=_anchored(self._anchor),
            turn=None if self._user is None else Turn(_sure(_anchored(self._user))),
            previous_tail=_anchored(self._cut),
            turns=self._turns,
            given_marks=self._marks,
        )


def _anchored(found: tuple[Node, int, int, int] | None) -> Anchor | None:
    return None if found is None else Anchor(found[0], Place("messages", *found[1:]))


def _sure(anchor: Anchor | None) -> Anchor:
    assert anchor is not None, "a place was given"
    return anchor


def continued(new: State, old: State, archive: Archive) -> State:
    """``new`` as the state that follows ``old``: an open turn keeps its dynamic text, and what was counted goes on."""
    turn = new.turn
    if turn is not None and old.turn is not None:
        turn = Turn(turn.user, old.turn.segments, inserted=old.turn.inserted)
    return replace(
        new,
        turn=turn,
        turns=old.turns,
        requests=old.requests,
        response_id=old.response_id,
        sent=old.sent,
        archive=archive,
    )


def still_there(anchor: Anchor | None, tip: Node) -> Anchor | None:
    """The anchor, if what was sent up to it still begins the history."""
    return anchor if anchor is not None and is_ancestor(anchor.node, tip) else None


def _first_nodes(state: State, count: int) -> list[Node]:
    nodes = [node for node in walk(state.tip) if node.depth <= count]
    nodes.reverse()
    return nodes
