"""A provider without its HTTP: requests come in as JSON, its caches read and write, and all is logged."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from threading import RLock
from typing import Any

from ..bodies import Piece, Wire, pieces, read_prompt
from ..cache import CacheModel, Lookup
from ..errors import LLMBufferError
from ..rules import CacheRules
from ..snapshot import Snapshot
from ..tokens import TokenCounter
from ..usage import Usage
from .binding import Bindings
from .checks_anthropic import check_anthropic
from .checks_gemini import check_gemini, check_to_cache
from .checks_openai import check_chat, check_responses
from .contents import CachedContent, CachedContents
from .diagnosis import Fingerprints, anthropic_diagnosis, fingerprint, openai_diagnosis
from .exchange import Exchange, Incoming
from .log import RequestLog, SimulatedRequest
from .refusals import RefusedError
from .replies import Reply
from .scopes import Limits, Rules, Scope, Scopes

__all__ = ["Provider"]


class Provider:
    """The state of a simulated provider. ``clock`` gives seconds since the epoch; threads may share it.

    >>> provider = Provider(rules=CacheRules(name="engine", match="prefix"))
    >>> asked = Incoming("openai", "/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "hi"}]})
    >>> provider.begin(asked).lookup.outcome
    'cold'
    """

    def __init__(
        self,
        *,
        rules: Rules = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
        counter: TokenCounter | None = None,
        overflow: bool = False,
        keep_bodies: bool = False,
        on_request: Callable[[SimulatedRequest], None] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.clock = clock
        self.log = RequestLog(self.limits.requests, on_request)
        self.contents = CachedContents(self.limits.contents)
        self._scopes = Scopes(rules, self.limits, overflow=overflow, counter=counter)
        self._fingerprints = Fingerprints(self.limits.fingerprints)
        self._bindings = Bindings(self.limits.nodes)
        self._keep_bodies = keep_bodies
        self._numbers = 0
        self._lock = RLock()

    def begin(self, incoming: Incoming) -> Exchange:
        """Check a request and look up its prompt; nothing is written yet. Raises ``RefusedError``."""
        with self._lock:
            number = self._next_number()
            try:
                return self._begin(incoming, number)
            except (LLMBufferError, RefusedError) as error:
                refused = error if isinstance(error, RefusedError) else RefusedError(str(error))
                refused.number = number
                raise refused from None

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers - 1

    def _begin(self, incoming: Incoming, number: int) -> Exchange:
        at = self.clock()
        scope = self._scopes.scope(incoming.workspace, incoming.wire, incoming.model)
        body = {**incoming.body, "model": incoming.model} if incoming.wire == "gemini" else incoming.body
        found = pieces(body, incoming.wire)
        _CHECKS[incoming.wire](body, found, scope.rules)
        if scope.rules.reasoning_bound:
            self._bindings.check(incoming.workspace, found)
        held = self._held(incoming, at)
        if held is not None:
            body = held.before(body)
            found = pieces(body, incoming.wire)
        snapshot = self._snapshot(incoming.wire, body, found, scope)
        cache, lookup = self._look(incoming, scope, snapshot, at, held)
        exchange = Exchange(incoming, number, at, scope, snapshot, lookup, cache)
        exchange.diagnostics = self._diagnose(exchange, found)
        return exchange

    def _held(self, incoming: Incoming, at: float) -> CachedContent | None:
        name = incoming.body.get("cachedContent", incoming.body.get("cached_content"))
        if incoming.wire != "gemini" or name is None:
            return None
        return self.contents.get(incoming.workspace, str(name), at)

    def _snapshot(
        self, wire: Wire, body: Mapping[str, Any], found: Sequence[Piece], scope: Scope
    ) -> Snapshot:
        return read_prompt(body, wire, scope.rules, scope.count, grow=scope.nodes.grow, found=found)

    def _look(
        self, incoming: Incoming, scope: Scope, snapshot: Snapshot, at: float, held: CachedContent | None
    ) -> tuple[CacheModel | None, Lookup]:
        if scope.rules.match == "entries" and scope.rules.implicit and not snapshot.marks:
            # Explicit mode without a breakpoint: types/chat/completion_create_params.py, "does not use prompt caching".
            return None, Lookup(0, 0, 0, snapshot.tokens, 0, "cold")
        key = incoming.body.get(scope.rules.routing_field or "")
        cache = scope.caches.route(snapshot, at, key if isinstance(key, str) else None)
        lookup = cache.look(snapshot, at)
        if held is not None and held.tokens > lookup.read_tokens:
            read = min(held.tokens, snapshot.tokens)
            lookup = Lookup(read, 0, 0, snapshot.tokens - read, read, "hit")
        return cache, lookup

    def _diagnose(self, exchange: Exchange, found: Sequence[Piece]) -> Any:
        incoming, lookup = exchange.incoming, exchange.lookup
        if incoming.wire not in ("anthropic", "openai-responses"):
            return None
        now = fingerprint(incoming.body, found, exchange.snapshot.tokens)
        ask = anthropic_diagnosis if incoming.wire == "anthropic" else openai_diagnosis
        said = ask(incoming.body, incoming.workspace, now, self._fingerprints, lookup.read_tokens)
        self._fingerprints.put(incoming.workspace, exchange.id, now)
        return said

    def send(self, exchange: Exchange) -> None:
        """The request is taken on: its prompt is written, though it cannot be read yet."""
        if exchange.cache is not None:
            with self._lock:
                exchange.cache.commit(exchange.snapshot, exchange.at, math.inf)

    def first_token(self, exchange: Exchange) -> None:
        """The response begins: what the request wrote can be read, unless the rules say at its end."""
        if exchange.rules.visible_after != "end":
            self._reveal(exchange)

    def _reveal(self, exchange: Exchange) -> None:
        if exchange.cache is not None:
            with self._lock:
                exchange.cache.reveal(exchange.snapshot, self.clock())

    def end(self, exchange: Exchange, reply: Reply, usage: Usage) -> None:
        """The response ends: it is logged, and the reply stored where the rules say so."""
        incoming = exchange.incoming
        failed = reply.status != 200
        if not failed:
            if exchange.rules.visible_after == "end":
                self._reveal(exchange)
            self._store_reply(exchange, reply)
        self._record(
            exchange.number,
            exchange.at,
            incoming,
            status=reply.status,
            usage=Usage() if failed else usage,
            outcome="refused" if failed else exchange.lookup.outcome,
            error=reply.message if failed else None,
        )

    def _store_reply(self, exchange: Exchange, reply: Reply) -> None:
        incoming = exchange.incoming
        if exchange.cache is None or not exchange.rules.stores_output or incoming.wire != "openai":
            return
        said: dict[str, Any] = {"role": "assistant", "content": reply.text}
        if reply.calls:
            said["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in reply.calls
            ]
        body = {**incoming.body, "messages": [*incoming.body["messages"], said]}
        with self._lock:
            whole = self._snapshot("openai", body, pieces(body, "openai"), exchange.scope)
            exchange.cache.commit_output(whole, self.clock())

    def broken_off(self, exchange: Exchange, usage: Usage) -> None:
        """The client went away before the response ended."""
        self._record(
            exchange.number,
            exchange.at,
            exchange.incoming,
            status=200,
            usage=usage,
            outcome=exchange.lookup.outcome,
            completed=False,
        )

    def refused(self, incoming: Incoming, error: RefusedError) -> None:
        """Log a request that was answered with an error."""
        with self._lock:
            number = self._next_number() if error.number is None else error.number
        self._record(
            number,
            self.clock(),
            incoming,
            status=error.status,
            usage=Usage(),
            outcome="refused",
            error=error.message,
        )

    def _record(
        self,
        number: int,
        at: float,
        incoming: Incoming,
        *,
        status: int,
        usage: Usage,
        outcome: str,
        completed: bool = True,
        error: str | None = None,
    ) -> None:
        key = incoming.body.get("prompt_cache_key")
        self.log.add(
            SimulatedRequest(
                number,
                at,
                incoming.wire,
                incoming.path,
                incoming.model,
                status,
                usage,
                outcome,
                key=key if isinstance(key, str) else None,
                scope=incoming.workspace,
                stream=incoming.stream,
                completed=completed,
                error=error,
                body=incoming.body if self._keep_bodies else None,
            )
        )

    def count(self, incoming: Incoming) -> int:
        """The prompt tokens of a request that is not sent; nothing is read or written. Raises ``RefusedError``."""
        with self._lock:
            scope = self._scopes.scope(incoming.workspace, incoming.wire, incoming.model)
            try:
                found = pieces(incoming.body, incoming.wire)
                if incoming.wire == "anthropic":
                    check_anthropic(incoming.body, found, scope.rules, counts=True)
                return self._snapshot(incoming.wire, incoming.body, found, scope).tokens
            except LLMBufferError as error:
                raise RefusedError(str(error)) from error

    def create_content(self, incoming: Incoming) -> CachedContent:
        """An explicit cache of Gemini's. Raises ``RefusedError``."""
        tokens = self.count(incoming)
        with self._lock:
            rules = self._scopes.scope(incoming.workspace, incoming.wire, incoming.model).rules
            check_to_cache(incoming.body, tokens, rules.min_tokens)
            return self.contents.create(incoming.workspace, incoming.body, tokens, self.clock())

    def reset(self) -> None:
        """Empty the caches and the log."""
        with self._lock:
            self._scopes.clear()
            self._fingerprints.clear()
            self._bindings.clear()
            self.contents.clear()
            self.log.clear()


_CHECKS: dict[str, Callable[[Mapping[str, Any], Sequence[Piece], CacheRules], None]] = {
    "openai": check_chat,
    "openai-responses": check_responses,
    "anthropic": check_anthropic,
    "gemini": check_gemini,
}
