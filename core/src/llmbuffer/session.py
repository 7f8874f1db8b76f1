"""Sessions: a history that keeps its prefix, and the requests made from it."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from threading import RLock
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from .breaks import diagnose
from .chain import Node, walk
from .context import Segment, StableContext, dynamic_segments
from .errors import FrozenError, MessageError, PairingError, PlacementError
from .family import Family
from .frozen import FrozenDict, freeze
from .layout import Head, Placement, Sharing, cheapest_placement, render_dynamic, render_head
from .ledger import Ledger, LedgerEntry
from .messages import Message, Text, Tool
from .plugins import get_dialect
from .prices import Price, cost
from .request import Observation, Request, resolve_placement
from .rules import Dialect, Event
from .state import Anchor, Link, State, Turn, attach, link
from .tokens import TokenCounter, counter_for
from .usage import Usage

if TYPE_CHECKING:
    from .loop import Executor

__all__ = ["Session"]

PLACEMENTS = ("turn", "tail", "sticky", "auto")
Dynamic = Mapping[str, str] | Iterable[Segment]


class Session:
    """A conversation whose prompts stay cacheable.

    Arguments: ``context``, what is stable; ``dialect``, a name that plugins know or a ``Dialect``; ``client``, an SDK
    client of your own, for ``respond``; ``tokens``, a ``TokenCounter`` (default by model); ``clock``, seconds; ``placement``
    of dynamic text; ``prices`` by model, in place of the built-in table; ``sharing``, how many sessions are expected to share
    each level; ``expected_requests`` that are still to come, for ``placement="auto"``; ``routing_key``, sent where the
    provider routes by one (default: the id).

    May be shared by threads. Reading is free; ``append`` and ``observe`` replace the state as a whole or not at all.

    >>> session = Session(StableContext("gpt-5.5", "You are kind."), dialect="openai")
    >>> request = session.request("Hello", dynamic={"clock": "12:00"})
    >>> [part["text"] for part in request.body["messages"][1]["content"]]
    ['Hello', '<context name="clock">\\n12:00\\n</context>']
    >>> request.observe(Usage(input_tokens=40, output_tokens=2), Message("assistant", "Hi!")).usage.hit_ratio
    0.0
    >>> [message.role for message in session.messages]
    ['user', 'assistant']
    """

    __slots__ = (
        "__weakref__", "_context", "_dialect", "_epoch", "_expected", "_family", "_fork_anchor", "_frozen", "_head", "_id",
        "_ledger", "_lock", "_placement", "_state", "client", "name", "parent_id",
    )  # fmt: skip

    def __init__(
        self,
        context: StableContext,
        dialect: str | Dialect = "openai",
        *,
        client: Any = None,
        tokens: TokenCounter | None = None,
        clock: Callable[[], float] = time.time,
        placement: Placement = "turn",
        prices: Mapping[str, Price] | None = None,
        sharing: Sharing | None = None,
        expected_requests: int = 20,
        routing_key: str | None = None,
        id: str | None = None,
    ) -> None:
        if not isinstance(context, StableContext):
            raise MessageError(f"context is a {type(context).__name__}: give StableContext(model=…, system=…)")
        if placement not in PLACEMENTS:
            raise PlacementError(f"unknown placement {placement!r}: use one of {', '.join(PLACEMENTS)}")
        named = get_dialect(dialect) if isinstance(dialect, str) else dialect
        self._id = id if id is not None else secrets.token_hex(8)
        self.name: str | None = None
        self.parent_id: str | None = None
        self.client = client
        counter = tokens if tokens is not None else counter_for(context.model)
        key = routing_key if routing_key is not None else self._id
        self._family = Family(counter, clock, prices=prices, sharing=sharing, routing_key=key)
        self._context = context
        self._dialect: Dialect = named.bind(context.model)
        self._head: Head = render_head(context, self._dialect, counter.count)
        self._state = State.empty()
        self._placement: Placement = placement
        self._expected = expected_requests
        self._fork_anchor: Anchor | None = None
        self._frozen = False
        self._epoch = 0
        self._ledger: Ledger | None = None
        self._lock = RLock()

    # What it holds

    @property
    def id(self) -> str:
        """The id of this session: 16 hexadecimal digits unless given."""
        if self._id is None:
            self._id = secrets.token_hex(8)
        return self._id

    @property
    def context(self) -> StableContext:
        """Model, tools, stable segments and params."""
        return self._context

    @context.setter
    def context(self, context: StableContext) -> None:
        self._change(context)

    @property
    def dialect(self) -> Dialect:
        """The dialect, bound to the model."""
        return self._dialect

    @property
    def tip(self) -> Node:
        """The last node of the history."""
        return self._state.tip

    @property
    def messages(self) -> tuple[Message, ...]:
        """The history, oldest first, without dynamic text; work is proportional to its length."""
        messages = [node.message for node in walk(self._state.tip) if isinstance(node.message, Message)]
        return tuple(reversed(messages))

    @property
    def ledger(self) -> Ledger:
        """Every request of this session."""
        if self._ledger is None:
            self._ledger = Ledger()
        return self._ledger

    @property
    def epoch(self) -> int:
        """How many planned breaks there were."""
        return self._epoch

    @property
    def clock(self) -> Callable[[], float]:
        """The clock, in seconds."""
        return self._family.clock

    # The history

    def append(self, message: Message | Mapping[str, Any] | Iterable[Message | Mapping[str, Any]]) -> None:
        """Append messages (``Message`` objects, or mappings in OpenAI's chat format): all of them, or none.

        Raises a ``MessageError`` for what cannot be taken in; the session is unchanged then.
        """
        single = isinstance(message, Message | Mapping)
        messages = [message] if single else list(message)  # type: ignore[arg-type,list-item]  # narrowed by `single`
        taken = [item if isinstance(item, Message) else Message.from_openai(item) for item in messages]  # type: ignore[arg-type]
        with self._lock:
            state = self._state
            for each in taken:
                state = attach(state, self._link(state, each), self._dialect)
            self._state = state

    def _link(self, state: State, message: Message) -> Link:
        return link(state, message, self._dialect, self._family.counter)

    def request(
        self,
        user: str | Message | Mapping[str, Any] | Sequence[Any] | None = None,
        dynamic: Dynamic | None = None,
        *,
        params: Mapping[str, Any] | None = None,
    ) -> Request:
        """Build the next request; nothing is changed, and nothing is sent.

        ``user`` is the user's text (or message, or parts), or ``None`` to go on from the history. ``dynamic`` is content for
        this turn only; ``None`` keeps what the turn began with, ``{}`` clears it. ``params`` are added to those of the context
        for this request alone.

        Raises ``PairingError`` if calls await their results, ``FrozenError`` for params that the cache depends on.
        """
        extra = self._extra_params(params)
        base = self._state
        if base.open_calls and user is None:
            raise PairingError(f"the calls {list(base.open_calls)} await results: append a tool message for each first")
        segments = self._segments(base, user, dynamic)
        placement, notes = self._choose(base, segments)
        pending = None if user is None else self._link(base, _user_message(user))
        if placement == "sticky" and segments and pending is not None:
            sticky = _with_sticky(pending.message, segments, base.turns)
            pending, segments = self._link(base, sticky), ()
        state = base if pending is None else attach(base, pending, self._dialect, claim=False)
        turn = resolve_placement(state, placement, self._tail_allowed(state)) if segments else None
        if segments and turn is None and not self._tail_allowed(state):
            raise PlacementError("dynamic text has no place: the history ends in a tool result and holds no user message")
        warnings: tuple[str, ...] = ()
        if turn is not None and turn.segments != segments:
            if turn.segments and turn.user.node is not state.tip:
                warnings = ("dynamic-in-prefix",)
            turn = Turn(turn.user, segments)
        return Request(
            self, base, state, pending, turn=turn, dynamic=segments, params=extra, notes=notes, warnings=warnings
        )

    def _extra_params(self, params: Mapping[str, Any] | None) -> FrozenDict:
        extra: FrozenDict = freeze(params or {}, "params")
        if extra:
            self._refuse(self._context.replace(params={**self._context.params, **extra}))
        return extra

    def _segments(self, state: State, user: object, dynamic: Dynamic | None) -> tuple[Segment, ...]:
        if dynamic is not None:
            return dynamic_segments(dynamic)
        if user is None and state.turn is not None and state.turn.segments:
            return state.turn.segments
        begins = user is not None or state.turn is None or state.turn.user.node is state.tip
        return self._context.dynamic if begins else ()

    def _tail_allowed(self, state: State) -> bool:
        message = state.tip.message
        return self._dialect.rules.tail_after_tool or not isinstance(message, Message) or message.role != "tool"

    def _choose(self, state: State, segments: tuple[Segment, ...]) -> tuple[Placement, tuple[str, ...]]:
        if self._placement != "auto" or not segments:
            return self._placement, ()
        turns = max(1, state.turns)
        calls = max(1.0, state.requests / turns)
        choice, note = cheapest_placement(
            self._dialect.rules,
            dynamic=sum(self._family.counter.count(text) for text in render_dynamic(segments)),
            calls=calls,
            after=state.tip.end / turns * (calls - 1) / calls,
            expected=self._expected,
            tail_allowed=self._dialect.rules.tail_after_tool or calls == 1.0,
        )
        return choice, (note,)

    # Observing

    def _commit(self, request: Request, usage: Usage | None, message: Message | None) -> Observation:
        now = self.clock()
        with self._lock:
            target = self if self._state is request._base else self._branch(request._base)
            state = request._base
            if request._pending is not None:
                state = attach(state, request._pending, self._dialect)
            if state.turn is not None and request._turn is not None:
                state = replace(state, turn=request._turn)
            state = replace(state, requests=state.requests + 1, previous_tail=_next_anchor(request, message))
            if message is not None:
                state = attach(state, self._link(state, message), self._dialect)
            target._state = state
            target._frozen = True
            return self._record(target, request, usage, message, now)

    def _record(
        self, target: Session, request: Request, usage: Usage | None, message: Message | None, now: float
    ) -> Observation:
        model = request._context.model
        price, calibration = self._family.price(model), self._family.calibration(model)
        lookup = self._family.commit(request._dialect, request.snapshot, request.at, now)
        cache_break = diagnose(lookup, usage, request._dialect.rules, price)
        factor = calibration.factor
        if usage is not None:
            calibration.observe(request.snapshot.tokens, usage.input_tokens)
        paid = None if usage is None or price is None else cost(usage, price)
        entry = LedgerEntry(
            at=request.at,
            epoch=target._epoch,
            forecast_read_tokens=round(lookup.read_tokens * factor),
            forecast_write_tokens=round(lookup.write_tokens * factor),
            forecast_fresh_tokens=round(lookup.fresh_tokens * factor),
            usage=usage,
            cost=paid,
            cache_break=cache_break,
            reason="" if target is self else f"forked as {target.id}: the session had moved on",
        )
        target.ledger.add(entry)
        observation = Observation(usage, cache_break, paid, message, target, target is not self)
        for watch in WATCHERS:
            watch(request, observation)
        return observation

    def _branch(self, state: State) -> Session:
        branch = self.fork()
        branch._state, branch._fork_anchor = state, state.anchor
        return branch

    # Forks and planned changes

    def fork(
        self,
        name: str | None = None,
        *,
        task: str | None = None,
        model: str | None = None,
        system: str | Sequence[Segment] | None = None,
        tools: Iterable[Tool | Mapping[str, Any]] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Session:
        """A new session that shares this one's history, and every byte of its prompt. O(1).

        ``task`` is appended to the fork as a user message. ``model``, ``system``, ``tools`` and ``params`` change the fork's
        context; then it shares what its provider can still read.
        """
        fork = Session.__new__(Session)
        fork._id, fork._ledger, fork._lock = None, None, RLock()  # type: ignore[assignment]  # the id is drawn when asked for
        fork.name, fork.parent_id, fork.client = name, self.id, self.client
        fork._family, fork._context, fork._dialect, fork._head = self._family, self._context, self._dialect, self._head
        fork._placement, fork._expected = self._placement, self._expected
        fork._frozen, fork._epoch = self._frozen, self._epoch
        state = self._state
        fork._state, fork._fork_anchor = state, state.anchor
        changes = {"model": model, "system": system, "tools": tools, "params": params}
        changes = {field: value for field, value in changes.items() if value is not None}
        if changes:
            fork._frozen = False
            fork._change(self._context.replace(**changes))
        if task is not None:
            fork.append(Message("user", task))
        return fork

    def update(self, **changes: Any) -> None:
        """Change ``model``, ``system``, ``tools`` or ``params`` of the context.

        Raises ``FrozenError`` if a request was observed in this epoch and the cache depends on what would change.
        """
        self._change(self._context.replace(**changes))

    def thaw(self, reason: str) -> None:
        """Begin a new epoch: until the next request is observed, the context may change. A planned break, never an alarm."""
        with self._lock:
            self._frozen = False
            self._epoch += 1
            self.ledger.add(LedgerEntry(at=self.clock(), epoch=self._epoch, kind="thawed", reason=reason))

    def _change(self, context: StableContext) -> None:
        with self._lock:
            self._refuse(context)
            dialect = self._dialect.bind(context.model) if context.model != self._context.model else self._dialect
            head = render_head(context, dialect, self._family.counter.count)
            if dialect.rules is not self._dialect.rules and dialect.rules != self._dialect.rules:
                self._state = _rendered_anew(self.messages, dialect, self._family.counter)
                self._fork_anchor = None
            self._context, self._dialect, self._head = context, dialect, head

    def _refuse(self, context: StableContext) -> None:
        field = _moved(self._context, context, self._dialect) if self._frozen else None
        if field is None:
            return
        messages_only = field.removeprefix("params.") in self._dialect.rules.message_params
        tokens = self._state.tip.end + (0 if messages_only else self._head.node.end)
        raise FrozenError(
            f"{field!r} is frozen in this epoch: changing it bills about {tokens:,} tokens again. Use session.fork(…) with "
            "the change, session.thaw(reason=…) for a planned break, or append an instruction as a message",
            field=field,
            tokens=tokens,
        )

    # Conversing

    def respond(
        self, user: Any = None, *, dynamic: Dynamic | None = None, tools: Executor | None = None, **options: Any
    ) -> Message:
        """Request, send with ``client``, observe, run tools, and again, until the turn ends: see ``loop.respond``."""
        from . import loop

        return loop.respond(self, user, dynamic=dynamic, tools=tools, **options)

    async def arespond(
        self, user: Any = None, *, dynamic: Dynamic | None = None, tools: Executor | None = None, **options: Any
    ) -> Message:
        """The same with an asynchronous client and synchronous or asynchronous tools."""
        from . import loop

        return await loop.arespond(self, user, dynamic=dynamic, tools=tools, **options)

    def stream(
        self, user: Any = None, *, dynamic: Dynamic | None = None, tools: Executor | None = None, **options: Any
    ) -> Iterator[Event]:
        """``respond`` that yields events as they come; the last one holds the reply."""
        from . import loop

        return loop.stream(self, user, dynamic=dynamic, tools=tools, **options)

    def astream(
        self, user: Any = None, *, dynamic: Dynamic | None = None, tools: Executor | None = None, **options: Any
    ) -> AsyncIterator[Event]:
        """``arespond`` that yields events as they come."""
        from . import loop

        return loop.astream(self, user, dynamic=dynamic, tools=tools, **options)

    def __repr__(self) -> str:
        return (
            f"Session(id={self.id!r}, model={self._context.model!r}, dialect={self._dialect.name!r}, "
            f"messages={self._state.tip.depth})"
        )


# Called with every request that was observed: how `llmbuffer.testing` guards the prefix of every conversation.
WATCHERS: list[Callable[[Request, Observation], None]] = []


def _user_message(user: object) -> Message:
    if isinstance(user, Message):
        return user
    if isinstance(user, str):
        return Message("user", user)
    if isinstance(user, Mapping):
        return Message.from_openai(user)
    if isinstance(user, Sequence):
        return Message.from_openai({"role": "user", "content": user}) if user and isinstance(user[0], Mapping) else Message("user", user)
    raise MessageError(f"the user's text is a {type(user).__name__}: give a string, a Message or a list of parts")


def _with_sticky(message: Message, segments: tuple[Segment, ...], turn: int) -> Message:
    labelled = [replace(segment, name=f"{segment.name}, turn {turn + 1}") for segment in segments]
    return Message(message.role, [*message.parts, *map(Text, render_dynamic(labelled))], message.name)


def _next_anchor(request: Request, message: Message | None) -> Anchor | None:
    """The place whose entry the next request can read: behind dynamic text that goes, nothing can."""
    turn, state = request._turn, request._state
    ends = message is None or not message.call_ids
    if turn is not None and request.dynamic and ends:
        return turn.user if turn.user.place.part >= 0 else None
    return state.anchor


def _rendered_anew(messages: Sequence[Message], dialect: Dialect, counter: TokenCounter) -> State:
    state = State.empty()
    for message in messages:
        state = attach(state, link(state, message, dialect, counter), dialect)
    return state


def _moved(old: StableContext, new: StableContext, dialect: Dialect) -> str | None:
    """The first thing that differs and that the cache depends on."""
    if old.model != new.model:
        return "model"
    if old.tools != new.tools:
        return "tools"
    if old.segments != new.segments:
        return "system"
    fields = dialect.rules.frozen_params | dialect.rules.message_params
    missing = object()
    changed = (name for name in sorted(fields) if old.params.get(name, missing) != new.params.get(name, missing))
    return next((f"params.{name}" for name in changed), None)
