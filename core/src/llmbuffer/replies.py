"""Re-using replies: the same question, asked of the same model, is paid for once.

A key is exact: model, tools, stable segments, params, history, dynamic text and where it stands. What only names who asks
or where it goes (metadata, users, routing keys) is no part of it. A re-used reply is an equal message with the same bytes; it
is observed with zero usage and cost, and the ledger says ``reused``. Streams are never re-used.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

import anyio.to_thread
import msgspec

from .claims import Claim, Claims
from .coalescing import Flights, Verdict, Waiter
from .context import CacheKey
from .errors import LLMBufferError, LoopError
from .finishing import is_complete
from .messages import Message, content_hash
from .observing import Reused
from .turns import TurnTier

if TYPE_CHECKING:
    from typing_extensions import Self

    from .request import Request
    from .rules import Dialect
    from .session import Session

__all__ = ["Mode", "Replies", "Reuse", "is_deterministic", "replies_for", "reply_key"]

Mode = Literal["never", "deterministic", "samples"]
Reuse: TypeAlias = "Mode | Replies | None"

SAMPLES = 4
# Fields of a body that say who asks, where it goes and how it is carried: the reply does not depend on them.
_NOT_ASKED = frozenset(
    {
        *("metadata", "user", "safety_identifier", "labels", "store", "service_tier", "timeout"),
        *(
            "prompt_cache_key",
            "prompt_cache_retention",
            "prompt_cache_options",
            "cache_control",
            "cache_salt",
        ),
        *("cache_prompt", "id_slot", "stream", "stream_options", "extra_headers", "extra_query"),
    }
)
# By dialect: what makes a model repeat itself, where it is not both of OpenAI's chat completions.
_STEADY = {
    "anthropic": ("temperature",),
    "deepseek": ("temperature",),
    "openai-responses": ("temperature",),
}


class Replies:
    """Replies that may be re-used, and who is asking for one now: share one object to share its replies.

    ``mode`` is ``deterministic`` (one answer a key; the params must hold temperature 0 or a seed) or ``samples`` (up to
    ``samples`` answers a key: until so many are there each request is sent, afterwards one is drawn with ``random``). Equal
    requests that are under way at once, in threads or tasks, are sent as often as answers are wanted; the others wait.

    Replies are held by ``turns`` (default: a tier of their own), and in ``store``, for ``ttl`` seconds (default: for ever),
    where one is given; then processes that share it wait for each other as well, at most ``lease`` seconds. Replies that call
    tools are kept with ``tool_calls=True`` only; those that were cut off, filtered or refused never are. ``scope`` parts what
    must not meet, such as two endpoints that serve different models under one name.

    If the one who asks the provider fails, that one gets the error, and the next of those who wait asks. A store that fails is
    told by the log, and done without.

    >>> replies = Replies("samples", samples=2, random=Random(1))
    >>> replies
    Replies(mode='samples', samples=2)
    """

    def __init__(
        self,
        mode: Mode = "deterministic",
        *,
        samples: int = SAMPLES,
        turns: TurnTier | None = None,
        store: Any = None,
        random: Random | None = None,
        tool_calls: bool = False,
        ttl: float | None = None,
        lease: float = 120.0,
        scope: str = "",
    ) -> None:
        if mode not in get_args(Mode):
            raise LoopError(f"reuse is {mode!r}: choose 'never', 'deterministic', 'samples', or give Replies")
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
            raise LoopError(f"samples is {samples!r}: give how many answers one key may have, from 1 on")
        self.mode, self.samples = mode, samples if mode == "samples" else 1
        self.turns = turns if turns is not None else TurnTier()
        self.tool_calls, self.scope = tool_calls, scope
        self._claims = None if store is None else Claims(store, self.samples, ttl=ttl, lease=lease)
        self._random = random if random is not None else Random()  # noqa: S311 - it draws answers, not secrets
        self._flights: Flights[CacheKey, Message] = Flights(self._there, wanted=self.samples)
        self._lock = threading.Lock()

    def check(self, params: Mapping[str, Any], dialect: Dialect) -> None:
        """Raise ``LoopError`` where the mode asks for what the params do not promise."""
        if self.mode == "deterministic" and not is_deterministic(params, dialect.name):
            names = " or ".join(_STEADY.get(dialect.name, ("temperature", "seed")))
            raise LoopError(
                f"reuse='deterministic', and the params set no temperature of 0 and no seed: on {dialect.name!r} give "
                f"{names} in the params of the context or of this call, or use reuse='samples'"
            )

    def waiting(self, request: Request) -> int:
        """How many requests equal to this one wait in this process for another one's answer."""
        return self._flights.waiting(reply_key(request, self.scope))

    def answer(self, request: Request, send: Callable[[], Any]) -> Any:
        """What ``send()`` returns, or ``Reused`` with a reply that is there. Raises what ``send`` raises."""
        key = reply_key(request, self.scope)
        verdict = self._flights.enter(key)
        if isinstance(verdict, Waiter):
            waiter = verdict
            try:
                verdict = waiter.wait()
            except BaseException:
                self._flights.leave(key, waiter)
                raise
        if verdict.kind != "lead":
            return self._drawn(key, verdict, request) or send()
        with _Lead(self, key, request) as lead:
            lead.claim = None if self._claims is None else self._claims.wait(key)
            return self._claimed(lead) or lead.take(send())

    async def aanswer(self, request: Request, send: Callable[[], Awaitable[Any]]) -> Any:
        """``answer`` in a task; the store is asked in a worker thread."""
        key = reply_key(request, self.scope)
        verdict = self._flights.enter(key, asynchronous=True)
        if isinstance(verdict, Waiter):
            waiter = verdict
            try:
                verdict = await waiter.await_()
            except BaseException:
                self._flights.leave(key, waiter)
                raise
        if verdict.kind != "lead":
            return self._drawn(key, verdict, request) or await send()
        with _Lead(self, key, request) as lead:
            if self._claims is None:
                return lead.take(await send())
            lead.claim = await self._claims.await_(key)
            found = self._claimed(lead)
            if found is not None:
                return found
            response = await send()
            with anyio.CancelScope(shield=True):  # what was paid for is kept
                return await anyio.to_thread.run_sync(lead.take, response)

    def _there(self, key: CacheKey) -> tuple[Message, ...]:
        return self.turns.get(key, "reply") or ()

    def _drawn(self, key: CacheKey, verdict: Verdict, request: Request) -> Reused | None:
        if not verdict.answers:
            return None
        self.turns.get(key, "reply", owner=request.session.id)
        with self._lock:
            return Reused(self._random.choice(verdict.answers))

    def _claimed(self, lead: _Lead) -> Reused | None:
        """What the store holds: enough answers, or some of them, which are taken in."""
        if lead.claim is None or not lead.claim.answers:
            return None
        lead.answers = self.remember(lead.key, lead.claim.answers, lead.owner, instead=True)
        if lead.claim.place is not None:
            return None
        return self._drawn(lead.key, Verdict("share", lead.answers), lead.request)

    def remember(
        self, key: CacheKey, answers: tuple[Message, ...], owner: str, *, instead: bool = False
    ) -> tuple[Message, ...]:
        """Take in answers, behind those that are there or ``instead`` of them; all that are there now."""
        with self._lock:
            known = () if instead else self._there(key)
            merged = (*known, *answers)[: self.samples]
            self.turns.put(key, merged, kind="reply", owner=owner)
            return merged

    def keepable(self, request: Request, response: Any) -> Message | None:
        """The reply of a response, if it may be re-used."""
        try:
            message = request.dialect.read_message(response)
            whole = is_complete(response)
        except LLMBufferError:  # observing it will say why
            return None
        return message if whole and (self.tool_calls or not message.call_ids) else None

    def __repr__(self) -> str:
        return f"Replies(mode={self.mode!r}, samples={self.samples})"


class _Lead:
    """One request that is sent for all that wait: however it ends, they are told, and no lease is left."""

    def __init__(self, replies: Replies, key: CacheKey, request: Request) -> None:
        self.replies, self.key, self.request = replies, key, request
        self.owner = request.session.id
        self.claim: Claim | None = None
        self.answers: tuple[Message, ...] | None = None
        self.fit = True

    def take(self, response: Any) -> Any:
        """Keep the reply if it may be re-used; returns the response as it is."""
        message = self.replies.keepable(self.request, response)
        self.fit = message is not None
        if message is not None:
            self.answers = self.replies.remember(self.key, (message,), self.owner)
            if self.claim is not None:
                self.claim.keep(message)
        return response

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.claim is not None:
                self.claim.release()
        finally:
            self.replies._flights.settle(self.key, self.answers, fit=self.fit)


def reply_key(request: Request, scope: str = "") -> CacheKey:
    """The identity of what is asked; two requests with one key may have one answer.

    >>> from llmbuffer import Session, StableContext
    >>> one, two = (Session(StableContext("gpt-5.5", params={"metadata": {"trace": name}})) for name in "ab")
    >>> reply_key(one.request("Hello")) == reply_key(two.request("Hello")), one.request("a").key == two.request("a").key
    (True, False)
    """
    context = request.context
    stable = {name: value for name, value in context.params.items() if name not in _NOT_ASKED}
    if len(stable) < len(context.params):
        context = context.replace(params=stable)
    turn = request.placed.turn
    own = {name: value for name, value in request.params.items() if name not in _NOT_ASKED}
    rest = [
        scope.encode(),
        request.dialect.name.encode(),
        request.placed.state.tip.digest,
        msgspec.json.encode(request.dynamic),
        b"" if turn is None else b"%d" % turn.user.node.depth,
        msgspec.json.encode(own, order="deterministic"),
    ]
    return CacheKey(context.fingerprint, content_hash(rest))


def is_deterministic(params: Mapping[str, Any], dialect: str) -> bool:
    """Whether the params ask for the same answer each time: temperature 0, or a seed where the dialect has one.

    >>> is_deterministic({"seed": 7}, "openai"), is_deterministic({"seed": 7}, "anthropic")
    (True, False)
    >>> is_deterministic({"generationConfig": {"temperature": 0}}, "gemini")
    True
    """
    nested = [params.get("generationConfig"), params.get("generation_config")] if dialect == "gemini" else []
    names = _STEADY.get(dialect, ("temperature", "seed"))
    for fields in [params, *nested]:
        if not isinstance(fields, Mapping):
            continue
        temperature, seed = fields.get("temperature"), fields.get("seed")
        if isinstance(temperature, int | float) and not isinstance(temperature, bool) and temperature == 0:
            return True
        # llama.cpp takes a negative seed for "draw one".
        if "seed" in names and isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0:
            return True
    return False


def replies_for(session: Session, reuse: Reuse) -> Replies | None:
    """What ``reuse`` means for a session; ``None`` for never.

    A mode by name is shared by the session and its forks, and through the session's store, if it has one, by all sessions
    that use it. Raises ``LoopError`` for what is no mode.
    """
    if isinstance(reuse, Replies) or reuse is None:
        return None if reuse is None or reuse.mode == "never" else reuse
    if reuse not in get_args(Mode):
        raise LoopError(f"reuse is {reuse!r}: choose 'never', 'deterministic', 'samples', or give Replies")
    if reuse == "never":
        return None
    family, store = session.family, session._store
    usable = store if hasattr(store, "claim_reply") else None
    made = Replies(reuse, turns=family.turns, store=usable)
    return cast(Replies, family.replies.setdefault(reuse, made))
