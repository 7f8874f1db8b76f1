"""The state of a history: frozen values, and how one more message makes the next one."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .archive import Archive
from .chain import Block, Node, root, walk
from .context import Segment, StableContext
from .errors import PairingError
from .frozen import FrozenDict
from .layout import render_dynamic
from .messages import Message, Opaque, ToolCall, canonical
from .rendered import RenderedList
from .rules import MARK_FIELDS, Dialect, Place, Rendered
from .snapshot import Snapshot, message_tokens
from .tokens import TokenCounter

__all__ = [
    "Anchor",
    "Link",
    "Sent",
    "State",
    "Turn",
    "attach",
    "block_positions",
    "call_names",
    "check_pairing",
    "dynamic_chain",
    "given_marks",
    "link",
    "rendered_anew",
    "still_open",
]


class Anchor(msgspec.Struct, frozen=True):
    """A node of the history and where it ends in the body."""

    node: Node
    place: Place


class Sent(msgspec.Struct, frozen=True):
    """The last request that went to the provider, and when, in seconds.

    ``context``, ``params`` of the request alone and ``epoch`` are those that it was sent with, as far as they are known.
    """

    at: float
    snapshot: Snapshot
    context: StableContext | None = None
    params: Mapping[str, object] = FrozenDict()
    epoch: int | None = None


class Turn:
    """An open turn: the user message it began with, and the dynamic text that stands behind it while it lasts.

    It remembers the nodes of that text: a memo of a pure function, so a lost update costs work and nothing else.
    """

    __slots__ = ("_tip", "inserted", "segments", "user")

    def __init__(self, user: Anchor, segments: tuple[Segment, ...] = (), *, inserted: bool = True) -> None:
        self.user = user
        self.segments = segments
        # Else the text ended the prompt, behind all that was sent.
        self.inserted = inserted and bool(segments)
        self._tip: Node | None = None

    def dynamic_tip(self, counter: TokenCounter) -> Node:
        """The end of a chain of the dynamic text behind the user's message."""
        if self._tip is None:
            self._tip = dynamic_chain(self.user.node, self.segments, counter)
        return self._tip


class State(msgspec.Struct, frozen=True):
    """Where a session stands. Replaced as a whole, never changed.

    ``tip`` is the last node and ``anchor`` the last place that may carry a mark; ``open_calls`` await results,
    ``call_names`` are the tools that they call;
    ``previous_tail`` is where the last request had its rolling mark; ``turns`` and ``requests`` count what was observed,
    ``given_marks`` the breakpoints that came with messages of the user or the host; ``response_id`` is the id of the last
    response, where the provider's cache diagnostics know it by one; ``sent`` is what the provider was sent last;
    ``archive`` is what the history remembers beside its messages.
    """

    tip: Node
    rendered: RenderedList
    kind: str | None = None
    open_calls: tuple[str, ...] = ()
    call_names: Mapping[str, str] = FrozenDict()
    anchor: Anchor | None = None
    turn: Turn | None = None
    previous_tail: Anchor | None = None
    turns: int = 0
    requests: int = 0
    given_marks: int = 0
    response_id: str | None = None
    sent: Sent | None = None
    archive: Archive = Archive()

    @classmethod
    def empty(cls) -> State:
        """The state before the first message."""
        return cls(tip=_ROOT, rendered=RenderedList())


_ROOT = root(b"history")


class Link(msgspec.Struct, frozen=True):
    """A message made ready to follow a certain tip: its node and its rendering."""

    message: Message
    node: Node
    rendered: Rendered
    given_marks: int = 0


def link(
    state: State,
    message: Message,
    dialect: Dialect,
    counter: TokenCounter,
    *,
    tokens: int | None = None,
    paired: bool = True,
) -> Link:
    """Hash, count and render one message behind ``state``; work is proportional to the message.

    ``tokens`` is what ``counter`` counted before, if it did.

    Raises ``PairingError`` for a result without a call and for a message that leaves calls unanswered, unless ``paired``
    is false: a host that owns the history sends what it likes.
    """
    if paired:
        check_pairing(state.open_calls, message)
    content = canonical(message)
    renders = dialect.answering(state.call_names) if message.tool_results else dialect
    rendered = renders.render_message(message, state.rendered.role)
    wire = rendered.role.encode() + msgspec.json.encode(rendered.blocks)
    tokens = message_tokens(message, counter.count) if tokens is None else tokens
    positions = block_positions(rendered.kinds, state.kind, dialect.rules.collapsed) if rendered.kinds else 1
    positions += rendered.lead is not None
    node = state.tip.child(message, content=content, wire=wire, tokens=tokens, positions=positions)
    given = given_marks(rendered) if any(isinstance(part, Opaque) for part in message.parts) else 0
    return Link(message, node, rendered, given)


def given_marks(rendered: Rendered) -> int:
    """The breakpoints that a message came with."""
    parts = [
        part
        for block in rendered.blocks
        for part in (block, *_parts(block.get("content")), *_parts(block.get("output")))
    ]
    return sum(MARK_FIELDS.isdisjoint(part) is False for part in parts if isinstance(part, dict))


def _parts(content: object) -> list[object]:
    return content if isinstance(content, list) else []


def attach(state: State, new: Link, dialect: Dialect, *, claim: bool = True) -> State:
    """The state with one more message. ``claim=False`` leaves shared lists alone, for what may never be sent."""
    message = new.message
    rendered, place = state.rendered.append(new.rendered, dialect, claim=claim)
    anchor = Anchor(new.node, place) if place.part >= 0 else state.anchor
    calls = message.call_ids
    turn, turns, previous_tail = state.turn, state.turns, state.previous_tail
    if message.role == "user" and not message.tool_results and new.rendered.blocks:
        # Interrupted: its dynamic text goes, with all entries behind it.
        if turn is not None and turn.inserted:
            previous_tail = turn.user if turn.user.place.part >= 0 else None
        turn = Turn(Anchor(new.node, place))
    elif message.role == "assistant" and not calls:
        turn, turns = None, turns + (turn is not None)
    return State(
        tip=new.node,
        rendered=rendered,
        kind=new.rendered.kinds[-1] if new.rendered.kinds else state.kind,
        open_calls=calls or still_open(state.open_calls, message),
        call_names=call_names(message) if calls else state.call_names,
        anchor=anchor,
        turn=turn,
        previous_tail=previous_tail,
        turns=turns,
        requests=state.requests,
        given_marks=state.given_marks + new.given_marks,
        response_id=state.response_id,
        sent=state.sent,
        archive=state.archive,
    )


def call_names(message: Message) -> FrozenDict:
    """The names of the tools that a message calls, by the ids of the calls."""
    return FrozenDict({part.id: part.name for part in message.parts if isinstance(part, ToolCall)})


def still_open(open_calls: tuple[str, ...], message: Message) -> tuple[str, ...]:
    """The calls that the message leaves open; of two calls with one id, a result answers one."""
    calls = list(open_calls)
    for result in message.tool_results:
        if result.call_id in calls:
            calls.remove(result.call_id)
    return tuple(calls)


def check_pairing(open_calls: tuple[str, ...], message: Message) -> None:
    """Raise ``PairingError`` for a result that no open call awaits, and for a message that leaves calls unanswered."""
    if message.role == "tool" and not message.tool_results:
        raise PairingError(
            "a tool message without a tool result: give it a ToolResult with the id of the call"
        )
    waiting = list(open_calls)
    for result in message.tool_results:
        if result.call_id not in waiting:
            raise PairingError(
                f"tool result for call {result.call_id!r}, which nobody awaits: open calls are {waiting}; append the "
                "assistant message with the call first"
            )
        waiting.remove(result.call_id)
    if waiting and not _only_answers(message):
        raise PairingError(
            f"a {message.role} message before the calls {waiting} were answered: append a tool message for each, an "
            "error text if the tool did not run"
        )


def _only_answers(message: Message) -> bool:
    """Whether the message holds tool results and says nothing else; fields of a tool message do not count."""
    results = message.tool_results
    return bool(results) and (message.role == "tool" or len(results) == len(message.parts))


def block_positions(kinds: tuple[str, ...], previous: str | None, collapsed: frozenset[str]) -> int:
    """The positions that blocks behind one of kind ``previous`` take."""
    count = 0
    for kind in kinds:
        count += kind not in collapsed or kind != previous
        previous = kind
    return count


def rendered_anew(old: State, dialect: Dialect, counter: TokenCounter) -> State:
    """The same history under another dialect. An open turn keeps its dynamic text, and what was counted stays."""
    state = State.empty()
    for node in reversed(list(walk(old.tip))):
        assert isinstance(node.message, Message), "a history holds messages only"
        state = attach(state, link(state, node.message, dialect, counter), dialect)
    turn = state.turn
    if turn is not None and old.turn is not None:
        turn = Turn(turn.user, old.turn.segments, inserted=old.turn.inserted)
    return msgspec.structs.replace(state, turn=turn, requests=old.requests, archive=old.archive)


def dynamic_chain(after: Node, segments: tuple[Segment, ...], counter: TokenCounter) -> Node:
    """The end of a chain of dynamic segments behind ``after``."""
    for segment, text in zip(segments, render_dynamic(segments), strict=True):
        wire = text.encode()
        block = Block("messages", segment.name, text)
        after = after.child(block, content=wire, wire=wire, tokens=counter.count(text) + 1)
    return after
