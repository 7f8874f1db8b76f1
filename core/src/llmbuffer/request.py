"""One request: made without changing the session, sent by the user's client, and observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from .assembly import assemble
from .breaks import CacheBreak
from .cache import Lookup
from .context import CacheKey, Segment, StableContext
from .errors import MessageError
from .forecast import Forecast, forecast
from .frozen import FrozenDict
from .judging import kept_tokens
from .layout import Candidate, Head
from .messages import Message, content_hash
from .observing import Answer, Observation, Reused
from .placing import Placed
from .preflight import preflight
from .rules import Dialect
from .snapshot import Snapshot
from .state import State
from .usage import Usage

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Request"]


class Request:
    """A request that was built, not sent. Reading it any number of times gives the same bytes.

    ``body`` is the JSON body, ``kwargs`` the same as arguments for the SDK, ``key`` its identity, ``forecast`` what the
    provider will serve from its cache; ``dynamic`` the segments that stand in it for this turn only; ``at`` when it was
    made, by the session's clock; ``sent`` what was forecast of it when it had ``begun`` to be answered, else ``None``;
    ``observed`` whether its response was taken in.

    >>> from llmbuffer import Session, StableContext
    >>> request = Session(StableContext("gpt-5.5", "You are kind.")).request("Hello")
    >>> [message["role"] for message in request.body["messages"]]
    ['system', 'user']
    >>> request.forecast.warnings
    ('below-minimum',)
    """

    def __init__(self, session: Session, base: State, placed: Placed, params: FrozenDict) -> None:
        self.session = session
        self.base = base
        self.placed = placed
        self.at = session.clock()
        self._params = params
        self._prompt = session.prompt(placed, params)
        self._context = session.context
        self.sent: Lookup | None = None
        self.observed = False
        self._kept: int | None = None
        self.moved: CacheBreak | None = None  # what a host that owns the history did to the prefix

    @property
    def dynamic(self) -> tuple[Segment, ...]:
        """The dynamic segments of this request."""
        return self.placed.segments

    @property
    def context(self) -> StableContext:
        """The stable context that the request was made with."""
        return self._context

    @property
    def params(self) -> FrozenDict:
        """The params of this request alone, beside those of the context."""
        return self._params

    @property
    def dialect(self) -> Dialect:
        """The dialect that the request was made with."""
        return self._prompt.dialect

    @property
    def head(self) -> Head:
        """Tools and stable system text that the request was made with, rendered."""
        return self._prompt.head

    @cached_property
    def body(self) -> FrozenDict:
        """The JSON body: read-only ``dict`` and ``list`` objects, shared with the session; deepcopy gives plain ones."""
        if not self.observed:
            self.session.family.opened(self)
        return assemble(
            self._prompt,
            model=self._context.model,
            params=self._prompt.params,
            routing_key=_routing_key(self.session),
            diagnostics=self.session.diagnostics,
            compare_with=self.base.response_id,
        )

    @property
    def kwargs(self) -> dict[str, Any]:
        """``body`` as arguments for the SDK's ``create``; fields that the SDK lacks are in ``extra_body``."""
        return self.dialect.kwargs(self.body)

    @cached_property
    def key(self) -> CacheKey:
        """Identity of the stable part, and of the history, dynamic content and further params."""
        rest = [
            self.placed.state.tip.digest,
            msgspec.json.encode(self.dynamic),
            msgspec.json.encode(self._params, order="deterministic"),
        ]
        return CacheKey(self._context.fingerprint, content_hash(rest))

    @property
    def snapshot(self) -> Snapshot:
        """What this request sends, frozen, as the cache models see it."""
        return self._prompt.snapshot

    @property
    def candidates(self) -> Sequence[Candidate]:
        """The explicit breakpoints of this request, in prompt order."""
        return self._prompt.plan

    @property
    def forecast(self) -> Forecast:
        """What the provider will read from its cache, write and compute, and what the input costs, as of now."""
        family, model = self.session.family, self._context.model
        lookup = family.look(self.dialect, self.snapshot, self.session.clock())
        warnings, details = preflight(self, lookup)
        return forecast(
            lookup,
            self.dialect.rules,
            family.price(model),
            factor=family.calibration(model).factor,
            estimated=family.counter.estimated,
            warnings=(*self.placed.warnings, *warnings),
            notes=self.placed.notes,
            details=tuple(details),
        )

    @property
    def kept(self) -> int:
        """Tokens of what the session had sent before that the cache held when this request was sent; see ``judging``."""
        return kept_tokens(self) if self._kept is None else self._kept

    def begun(self) -> None:
        """The provider has begun to answer: what this request writes can be read by others from now on.

        Only for what is forecast meanwhile; ``observe`` says the same when the whole response is there. Where the rules
        share a prefix at the end of the response only, nothing happens, nor the second time.
        """
        if self.sent is None and self.dialect.rules.visible_after != "end":
            family, at = self.session.family, self.session.clock()
            self._kept = kept_tokens(self)
            self.sent = family.commit(self.dialect, self.snapshot, self.at, at)

    def observe(
        self,
        response: Any = None,
        message: Message | Mapping[str, Any] | None = None,
        *,
        usage: Usage | None = None,
    ) -> Observation:
        """Take in the response: the user's text, the reply and the freeze are committed here.

        ``response`` is the SDK's object, its dict form, a ``Usage``, or a reply that is ``Reused``; with a ``Usage`` (or
        ``usage=``) the reply is ``message``. If the session moved on since the request was made, the reply goes to a new fork and
        ``Observation.forked`` says so. Raises ``DialectError`` for a response of another shape and a ``MessageError`` for
        a reply that cannot be taken in, or that is not the assistant's; nothing is changed then.
        """
        answer = self.answer(response, message, usage=usage)
        if answer.reply is not None:
            _check_reply(answer.reply)
        return self.session.commit(self, answer)

    def answer(
        self,
        response: Any = None,
        message: Message | Mapping[str, Any] | None = None,
        *,
        usage: Usage | None = None,
    ) -> Answer:
        """What ``observe`` reads off a response; nothing is changed. Raises what ``observe`` raises for a response."""
        response_id, diagnosis = None, None
        if isinstance(response, Reused):
            return Answer(Usage(), response.message, self.base.response_id, reused=True)
        if isinstance(response, tuple) and len(response) == 2:
            response, message = response
        if isinstance(response, Usage):
            usage = response
        elif response is not None:
            usage = self.dialect.read_usage(response) if usage is None else usage
            message = self.dialect.read_message(response) if message is None else message
            response_id, diagnosis = self.dialect.read_id(response), self.dialect.read_diagnosis(response)
        elif usage is None and message is None:
            raise MessageError(
                "observe() needs the response: the SDK's object, its dict form, or a Usage and a Message"
            )
        reply = Message.of(message) if isinstance(message, Mapping) else message
        return Answer(usage, reply, response_id, diagnosis)

    def __repr__(self) -> str:
        names = [segment.name for segment in self.dynamic]
        return f"Request(messages={self.placed.state.tip.depth}, dynamic={names})"


def _check_reply(reply: object) -> None:
    if not isinstance(reply, Message):
        raise MessageError(
            f"the reply is a {type(reply).__name__}: give a Message of the assistant, or its mapping in OpenAI's format"
        )
    if reply.role != "assistant":
        raise MessageError(
            f"the reply is a message of role {reply.role!r}: give the assistant's; what others say goes into session.append"
        )


def _routing_key(session: Session) -> str | None:
    """The session's routing key; in the store of a tenant, one that no other tenant sends."""
    key = session.family.routing_key
    return key if key is None or session._store is None else str(session._store.routing_key(key))
