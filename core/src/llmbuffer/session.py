"""Sessions: a history that keeps its prefix, and the requests made from it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import RLock
from typing import TYPE_CHECKING, Any

from .chain import Node, walk
from .compacting import Compacting
from .compaction.base import Compaction
from .compactor import Compactor
from .context import Segment, StableContext
from .conversing import Conversing
from .errors import DialectError, MessageError, PairingError, StoreError
from .family import Family
from .freezing import moved, refuse_move
from .frozen import FrozenDict
from .layout import Head, Placement, Sharing, render_head
from .ledger import Ledger, LedgerEntry
from .messages import Message
from .observing import WATCHERS, Answer, Observation, next_state, record
from .opening import check_name, check_opening
from .placing import Dynamic, Placed
from .plugins import get_dialect
from .prices import Price
from .prompt import Prompt
from .rebuilding import still_there
from .reconciling import Reconciling
from .request import Request
from .rules import Dialect
from .state import Anchor, State, rendered_anew
from .tasking import task_message
from .tokens import TokenCounter, counter_for
from .tools import Tool
from .underway import refuse_running

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["WATCHERS", "Session"]


class Session(Conversing, Compacting, Reconciling):
    r"""A conversation whose prompts stay cacheable.

    Arguments: ``context``, what is stable; ``dialect``, a name that plugins know or a ``Dialect``; ``client``, an SDK
    client of your own, for ``respond``; ``tokens``, a ``TokenCounter`` (default by model); ``clock``, seconds; ``placement``
    of dynamic text; ``prices`` by model, in place of the built-in table; ``sharing``, how many sessions are expected to share
    each level; ``expected_requests`` that are still to come, for ``placement="auto"``; ``routing_key``, sent where the
    provider routes by one (default: the id); ``session_id``, drawn if not given; ``diagnostics``, whether to ask for the
    provider's own cache diagnostics where it has some (Anthropic's Claude API, OpenAI's Responses; not every seller does);
    ``store``, what ``open_store`` opened, for ``save``; ``compaction``, how the prompt is kept small.

    May be shared by threads. Reading is free; ``append`` and ``observe`` replace the state as a whole or not at all.

    >>> from llmbuffer import Usage
    >>> session = Session(StableContext("gpt-5.5", "You are kind."), dialect="openai")
    >>> request = session.request("Hello", dynamic={"clock": "12:00"})
    >>> [part["text"] for part in request.body["messages"][1]["content"]]
    ['Hello', '<context name="clock">\n12:00\n</context>']
    >>> request.observe(Usage(input_tokens=40, output_tokens=2), Message("assistant", "Hi!")).usage.hit_ratio
    0.0
    >>> [message.role for message in session.messages]
    ['user', 'assistant']
    """

    __slots__ = (
        "__weakref__", "_compaction", "_context", "_diagnostics", "_dialect", "_epoch", "_expected", "_family", "_fork_anchor", "_frozen", "_head", "_id",
        "_ledger", "_lock", "_origin", "_placement", "_running", "_saved", "_state", "_store", "client", "name", "parent_id",
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
        session_id: str | None = None,
        diagnostics: bool = False,
        store: Any = None,
        compaction: Compaction | None = None,
    ) -> None:
        check_opening(context, placement, expected_requests)
        named = get_dialect(dialect) if isinstance(dialect, str) else dialect
        if not callable(getattr(named, "bind", None)):
            raise DialectError(
                f"dialect is a {type(named).__name__}: give a name, or an object that keeps Dialect"
            )
        # Drawn when first asked for: a fork that nobody names costs nothing.
        self._id: str | None = None if session_id is None else check_name(session_id, "session_id")
        self.name: str | None = None
        self.parent_id: str | None = None
        self.client = client
        counter = tokens if tokens is not None else counter_for(context.model)
        key = check_name(self.id if routing_key is None else routing_key, "routing_key")
        self._family = Family(counter, clock, prices=prices, sharing=sharing, routing_key=key)
        self._context = context
        self._dialect: Dialect = named.bind(context.model)
        self._head: Head = self._family.head(context, self._dialect, store)
        self._state = State.empty()
        self._placement: Placement = placement
        self._diagnostics = diagnostics
        self._expected = expected_requests
        self._fork_anchor: Anchor | None = None
        self._frozen, self._epoch = False, 0
        self._ledger: Ledger | None = None
        self._origin = ("", "")  # agent and task as the sessions that this one was forked from are labelled
        self._store = store
        self._compaction = None if compaction is None else Compactor(compaction)
        self._saved: Any = None  # what the store remembers of the last save
        self._lock = RLock()
        self._running: frozenset[str] = frozenset()  # the calls that a turn under way runs: see `underway`

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
    def placement(self) -> Placement:
        """Where dynamic text goes."""
        return self._placement

    @property
    def diagnostics(self) -> bool:
        """Whether requests ask for the provider's own cache diagnostics."""
        return self._diagnostics

    @property
    def expected_requests(self) -> int:
        """How many requests are still expected, as the user said."""
        return self._expected

    @property
    def family(self) -> Family:
        """What this session shares with its forks."""
        return self._family

    @property
    def counter(self) -> TokenCounter:
        """The token counter."""
        return self._family.counter

    @property
    def clock(self) -> Callable[[], float]:
        """The clock, in seconds."""
        return self._family.clock

    # The history

    def append(self, message: Message | Mapping[str, Any] | Iterable[Message | Mapping[str, Any]]) -> None:
        """Append messages (``Message`` objects, or mappings in OpenAI's chat format): all of them, or none.

        Raises a ``MessageError`` for what cannot be taken in; the session is unchanged then.
        """
        if not isinstance(message, Message | Iterable):
            raise MessageError(
                f"a {type(message).__name__} is no message: give a Message, a mapping, or a list of them"
            )
        messages = [message] if isinstance(message, Message | Mapping) else list(message)
        self._append([each if isinstance(each, Message) else Message.from_openai(each) for each in messages])

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
        return self._request(user, dynamic, params)

    def _request(
        self, user: Any, dynamic: Dynamic | None, params: Mapping[str, Any] | None, **awaiting: Any
    ) -> Request:
        extra = self._extra_params(params)
        base = self._state
        if base.open_calls:
            refuse_running(self, base.open_calls)
            if user is None:
                calls = list(base.open_calls)
                raise PairingError(f"the calls {calls} await results: append a tool message for each first")
        message = None if user is None else Message.of(user)
        return Request(self, base, self._placed(base, message, dynamic, **awaiting), extra)

    def _extra_params(self, params: Mapping[str, Any] | None) -> FrozenDict:
        extra: FrozenDict = StableContext(self._context.model, params=params).params
        if extra:
            self._refuse(self._context.replace(params={**self._context.params, **extra}))
        return extra

    def prompt(self, placed: Placed, params: Mapping[str, Any]) -> Prompt:
        """The geometry of a request with this session's context, and ``params`` of its own."""
        both, head = {**self._context.params, **params}, self._head
        if params and not self._frozen:  # later, those that the cache depends on are refused
            asked = self._context.replace(params=both)
            if moved(self._context, asked, self._dialect.rules) is not None:
                head = render_head(asked, self._dialect, self.counter.count)
        return Prompt(
            placed,
            params=both,
            dialect=self._dialect,
            head=head,
            family=self._family,
            fork_anchor=still_there(self._fork_anchor, placed.state.tip),
            counter=self._family.dynamic_counter(self._context, self.id) if placed.segments else None,
        )

    def commit(self, request: Request, answer: Answer) -> Observation:
        """What ``request.observe`` calls: go on with the reply, or let a fork do so if this session has moved on."""
        with self._lock:
            state = next_state(request, answer)
            target = self
            if self._state is not request.base:
                target = self.fork()
                if request.context is not self._context:
                    target._context, target._dialect = request.context, request.dialect
                    target._head = request.head
                target._fork_anchor = request.base.anchor
            target._state, target._frozen, request.observed = state, True, True
            if request.placed.compacted is not None:
                target._entered(request.placed.compacted, request.at)
            return record(request, target, answer)

    # Forks and planned changes

    def fork(
        self,
        name: str | None = None,
        *,
        task: str | None = None,
        neutral: bool | str = False,
        routing_key: str | None = None,
        model: str | None = None,
        system: str | Sequence[Segment] | None = None,
        tools: Iterable[Tool | Mapping[str, Any]] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Session:
        """A new session that shares this one's history, and every byte of its prompt. O(1).

        ``task`` is appended to the fork as a user message; with ``neutral`` (``True``, or words of your own) after a text
        that sets it free from the role and the open requests that it inherits. ``routing_key`` takes the place of the
        parent's, for this fork and its own. ``model``, ``system``, ``tools`` and ``params`` change the fork's context; then
        it shares what its provider can still read.
        """
        fork = Session.__new__(Session)
        fork._id, fork._ledger, fork._lock, fork._running = None, None, RLock(), frozenset()
        fork.name, fork.parent_id, fork.client = name, self.id, self.client
        fork._placement, fork._expected = self._placement, self._expected
        fork._diagnostics, fork._store, fork._compaction = self._diagnostics, self._store, self._compaction
        agent, inherited = self._origin
        fork._origin = (self.name or agent, inherited if task is None else name or "unnamed")
        with self._lock:
            fork._family, fork._context, fork._dialect, fork._head = (
                self._family,
                self._context,
                self._dialect,
                self._head,
            )
            fork._frozen, fork._epoch = self._frozen, self._epoch
            fork._state, fork._fork_anchor = self._state, self._state.anchor
            fork._saved = self._saved
        if routing_key is not None:
            fork._family = self._family.routed(check_name(routing_key, "routing_key"))
        changes = {"model": model, "system": system, "tools": tools, "params": params}
        changes = {field: value for field, value in changes.items() if value is not None}
        if changes:
            fork._frozen = False
            fork._change(self._context.replace(**changes))
        if task is not None or neutral:
            fork.append(task_message(fork._state.open_calls, task, neutral))
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
            dialect = (
                self._dialect.bind(context.model) if context.model != self._context.model else self._dialect
            )
            head = self._family.head(context, dialect, self._store)
            if dialect.rules is not self._dialect.rules and dialect.rules != self._dialect.rules:
                self._state = rendered_anew(self._state, dialect, self.counter)
                self._fork_anchor = None
            self._context, self._dialect, self._head = context, dialect, head

    def _refuse(self, context: StableContext) -> None:
        if self._frozen:
            refuse_move(
                self._context, context, self._dialect, head=self._head.node.end, tip=self._state.tip.end
            )

    # The store

    def save(self) -> None:
        """Write what is new since the last save into the store: all of it, or nothing. Once it returns, it is there.

        Raises ``ConflictError``, with both tips, if another process saved this session since this one saw it; then
        ``fork`` goes on under an id of its own. Work is proportional to what is new.
        """
        if self._store is None:
            raise StoreError(f"session {self.id!r} has no store: give Session(…, store=open_store(url))")
        with self._lock:
            self._saved = self._store.save(self, self._saved)

    @classmethod
    def load(cls, store: Any, session_id: str, **options: Any) -> Self:
        """A saved session, whose next request has the bytes that it would have had without the way through the store.

        ``options`` are what no store can hold: ``client``, ``clock``, ``prices``, ``compaction``, and ``dialect`` and ``tokens`` where they
        were objects of your own. Raises ``UnknownSessionError`` for an id that the store does not hold.
        """
        return store.load(session_id, kind=cls, **options)  # type: ignore[no-any-return]  # a store is any object

    def __repr__(self) -> str:
        return (
            f"Session(id={self.id!r}, model={self._context.model!r}, dialect={self._dialect.name!r}, "
            f"messages={self._state.tip.depth})"
        )
