"""Explaining recorded requests: what moved between two bodies, or along a log, and what it cost.

No session is needed: bodies of any provider, whoever made them, are taken apart by ``bodies`` and put through the same
cache models as everything else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import msgspec

from .bodies import Piece, Wire, likely_dialect, pieces, read_prompt
from .breaks import FIXES, CacheBreak, Cause, Difference, cut, diagnose, differ, of_the_turn
from .breaks.served import extra_cost, tolerance
from .cache import Lookup
from .errors import MessageError
from .plugins import get_dialect
from .prices import Price, price_for
from .routing import RoutedCaches
from .rules import CacheRules, Dialect
from .snapshot import Snapshot, overlap
from .tokens import TokenCounter, counter_for
from .usage import Usage

__all__ = ["BreakDetector", "explain", "wire_of"]

_HOLDERS = ("generationConfig", "generation_config")  # where Gemini keeps most params
_NEAR = 1.1
_EXCERPT = 20  # characters on each side of a difference
_WIRES: dict[str, Wire] = {
    "anthropic": "anthropic",
    "gemini": "gemini",
    "openai-responses": "openai-responses",
}


def wire_of(body: Mapping[str, Any]) -> Wire:
    """The wire format of a request body, by its shape.

    Raises ``MessageError`` for what no provider takes.

    >>> wire_of({"model": "gpt-5.5", "input": "hi"}), wire_of({"messages": [], "system": "Be kind."})
    ('openai-responses', 'anthropic')
    """
    if not isinstance(body, Mapping):
        raise MessageError(f"a request body is a {type(body).__name__}: give the JSON object that was sent")
    if "contents" in body:
        return "gemini"
    if "input" in body or "instructions" in body:
        return "openai-responses"
    if "messages" not in body:
        raise MessageError(
            f"no request body: found the keys {sorted(map(str, body))[:8]}; expected messages, input or contents"
        )
    tools = body.get("tools")
    shaped = isinstance(tools, list | tuple) and any(
        isinstance(tool, Mapping) and "input_schema" in tool for tool in tools
    )
    anthropic = "system" in body or shaped or str(body.get("model", "")).startswith(("claude", "anthropic"))
    return "anthropic" if anthropic else "openai"


class _Reader:
    """Bodies of one dialect and model as the cache models see them."""

    def __init__(
        self, dialect: Dialect, model: str, price: Price | None, counter: TokenCounter, wire: Wire
    ) -> None:
        self.rules: CacheRules = dialect.bind(model).rules
        self.wire, self.price, self.count = wire, price, counter.count

    def read(self, body: Mapping[str, Any]) -> _Prompt:
        found = pieces(body, self.wire)
        return _Prompt(body, found, read_prompt(body, self.wire, self.rules, self.count, found=found))

    def differ(self, before: _Prompt, after: _Prompt) -> Difference | None:
        return differ(
            before.body,
            after.body,
            (before.pieces, after.pieces),
            self.rules,
            _params(before.body, after.body, self.rules.frozen_params),
            _params(before.body, after.body, self.rules.message_params),
        )

    def cut(self, before: _Prompt, after: _Prompt) -> Difference | None:
        return cut(before.body, after.body, (before.pieces, after.pieces), self.rules)


class _Prompt(msgspec.Struct, frozen=True):
    body: Mapping[str, Any]
    pieces: Sequence[Piece]
    snapshot: Snapshot


def _params(
    before: Mapping[str, Any], after: Mapping[str, Any], names: frozenset[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The params of these names in both bodies, by their paths; what is a piece of the prompt is compared as one."""
    told = sorted(names - {"instructions"})
    paths = {path: True for body in (before, after) for name in told for path in _spellings(name, body)}
    return ({path: _at(before, path) for path in paths}, {path: _at(after, path) for path in paths})


def _spellings(name: str, body: Mapping[str, Any]) -> list[str]:
    """Where a param stands: at the top, or in the ``generationConfig`` of Gemini, as named or in camel case."""
    first, *rest = name.split("_")
    camel = first + "".join(word.capitalize() for word in rest)
    held = [
        ("", body),
        *((f"{each}.", body[each]) for each in _HOLDERS if isinstance(body.get(each), Mapping)),
    ]
    names = [each for each in dict.fromkeys((name, camel)) if each not in _HOLDERS]
    return [f"{prefix}{each}" for prefix, pool in held for each in names if each in pool]


def _at(body: Mapping[str, Any], path: str) -> Any:
    value: Any = body
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _reader(
    body: Mapping[str, Any],
    dialect: str | Dialect | None,
    model: str | None,
    prices: Mapping[str, Price] | None,
    counter: TokenCounter | None,
) -> _Reader:
    wire = wire_of(body)
    name = likely_dialect(body, wire) if dialect is None else dialect
    found = get_dialect(name) if isinstance(name, str) else name
    if dialect is not None:
        wire = _WIRES.get(found.name, "openai")
    named = model if model is not None else str(body.get("model") or found.default_model)
    price = price_for(named, overrides=prices)
    return _Reader(found, named, price, counter if counter is not None else counter_for(named), wire)


def explain(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    dialect: str | Dialect | None = None,
    model: str | None = None,
    seconds: float | None = None,
    usage: Usage | None = None,
    prices: Mapping[str, Price] | None = None,
    counter: TokenCounter | None = None,
) -> CacheBreak | None:
    """Why ``after`` could not read from the cache what ``before`` had left there; ``None`` if nothing was in its way.

    Both are request bodies as they were sent, of the same wire format. ``dialect`` is recognised by their shape if it is
    not given, ``model`` read from ``before``. ``seconds`` is the time between both (default: none passed, nothing
    expires), ``usage`` what the provider reported for ``after``. ``prices`` by model take the place of the built-in table,
    ``counter`` that of the model's.

    A difference is told even where the prompt is too short for the model to cache; then no token was lost. ``tokens_lost``
    is what a cache that had just served ``before`` would have read of ``after``, above what it does read. A history that
    was cut at its end is told where the model reads entries as a whole, and none ends within what is left.

    Raises ``MessageError`` for what is no request body, and ``UnknownDialectError``.

    >>> told = {"role": "system", "content": "It is 10:30:05. " + "Be kind. " * 400}
    >>> before = {"model": "gpt-5.5", "messages": [told, {"role": "user", "content": "Hello"}]}
    >>> moved = {"role": "system", "content": "It is 10:31:00. " + "Be kind. " * 400}
    >>> after = {"model": "gpt-5.5", "messages": [moved, *before["messages"][1:]]}
    >>> found = explain(before, after)
    >>> found.cause, found.path, found.offset, explain(before, before)
    ('volatile-in-prefix', 'messages[0].content', 10, None)
    """
    if wire_of(before) != wire_of(after) and dialect is None:
        raise MessageError(
            f"the bodies are of two wire formats, {wire_of(before)!r} and {wire_of(after)!r}: caches of two providers "
            "share nothing; give two requests to one of them, or name the dialect"
        )
    reader = _reader(before, dialect, model, prices, counter)
    first, second = reader.read(before), reader.read(after)
    caches = RoutedCaches(msgspec.structs.replace(reader.rules, per_key_rate=None), count=reader.count)
    cache = caches.route(first.snapshot, 0.0)
    cache.commit(first.snapshot, 0.0)
    kept = cache.look(first.snapshot, 0.0).read_tokens
    lookup = cache.look(second.snapshot, 0.0 if seconds is None else seconds)
    return _broken(reader, first, second, kept, lookup, usage, threshold=0.0)


def _broken(
    reader: _Reader,
    before: _Prompt,
    after: _Prompt,
    kept: int,
    lookup: Lookup,
    usage: Usage | None,
    *,
    threshold: float,
) -> CacheBreak | None:
    """The break between two requests, if more than ``threshold`` tokens were lost or, without one, anything moved."""
    found = reader.differ(before, after)
    gone = reader.cut(before, after) if found is None else None
    first = found if gone is None else gone
    if threshold and first is not None and of_the_turn(first, before.pieces, reader.rules.section_order):
        kept, found, gone = min(kept, overlap(before.snapshot, after.snapshot, reader.count)), None, None
    expected = min(kept, after.snapshot.tokens)
    scale = usage.input_tokens / after.snapshot.tokens if usage is not None and after.snapshot.tokens else 1.0
    read = lookup.read_tokens if usage is None else usage.cache_read_tokens
    lost = max(0, round(expected * scale) - read)
    if threshold and lost <= threshold:
        return None
    if found is not None and lookup.outcome != "expired":
        return _moved(reader, before, after, found, lost)
    # Not where all that is left can be read, which is so wherever the longest prefix is matched.
    if min(lost, expected - lookup.read_tokens) <= tolerance(reader.rules, expected):
        gone = None
    return _not_served(reader, before, after, lookup, usage, lost, found, gone)


def _moved(reader: _Reader, before: _Prompt, after: _Prompt, found: Difference, lost: int) -> CacheBreak:
    fix = FIXES[found.cause]
    if not lost and after.snapshot.tokens < reader.rules.min_tokens:
        fix += f" (nothing was lost: the model caches from {reader.rules.min_tokens:,} tokens on)"
    return CacheBreak(
        cause=found.cause,
        section=found.section,
        tokens_lost=lost,
        confidence=1.0,
        cost=extra_cost(lost, reader.price),
        path=found.path,
        offset=found.offset,
        before=_excerpt(found.before, found.offset),
        after=_excerpt(found.after, found.offset),
        fix=fix,
        offset_tokens=overlap(before.snapshot, after.snapshot, reader.count),
        also=found.also,
    )


def _excerpt(text: str, offset: int) -> str:
    return text[max(0, offset - _EXCERPT) : offset + _EXCERPT]


def _not_served(
    reader: _Reader,
    before: _Prompt,
    after: _Prompt,
    lookup: Lookup,
    usage: Usage | None,
    lost: int,
    found: Difference | None,
    gone: Difference | None,
) -> CacheBreak | None:
    """Nothing moved, or nothing was left to move: time, reach, marks, what was cut off the end, or the provider."""
    rules, snapshot = reader.rules, before.snapshot
    marked = rules.has_marks  # where the provider adds one of its own, the snapshot holds it
    if marked and not snapshot.marks and snapshot.tokens >= rules.min_tokens:
        lost = min(snapshot.tokens, after.snapshot.tokens)
        return _plain("breakpoint-missing", lost, 1.0, reader.price)
    if not lost:
        return None
    also: tuple[tuple[Cause, str], ...] = () if found is None else ((found.cause, found.path), *found.also)
    if marked and not after.snapshot.marks:
        return _plain("breakpoint-missing", lost, 1.0, reader.price, also)
    if lookup.outcome in ("expired", "not-yet-visible", "lookback-exceeded"):
        return _plain(lookup.outcome, lost, 0.9, reader.price, also)
    if gone is not None and after.snapshot.tokens >= rules.min_tokens:
        return _moved(reader, before, after, gone, lost)
    if usage is None:
        return None
    # A body is counted a little differently than its provider counts: so close to the minimum, nothing need have been cached.
    if not usage.cache_read_tokens and snapshot.tokens < rules.min_tokens * _NEAR:
        return None
    return diagnose(lookup, usage, rules, reader.price)


def _plain(
    cause: Cause, lost: int, confidence: float, price: Price | None, also: tuple[tuple[Cause, str], ...] = ()
) -> CacheBreak:
    paid = extra_cost(lost, price)
    return CacheBreak(cause, "messages", lost, confidence, paid, fix=FIXES[cause], also=also)


class _Conversation:
    """The latest request of one conversation, and what a warm cache keeps of it."""

    def __init__(self, reader: _Reader, prompt: _Prompt, kept: int) -> None:
        self.reader, self.prompt, self.kept = reader, prompt, kept
        self.said = {piece.wire for piece in prompt.pieces if piece.section == "messages"}


class BreakDetector:
    """Finds breaks along a log of request bodies, in the order in which they were sent.

    ``dialect``, ``model``, ``prices`` and ``counter`` as for ``explain``. ``limit`` bounds the conversations that are
    remembered, of each its latest body; the one used longest ago goes first. Not thread-safe.

    >>> told = {"role": "system", "content": "Be kind. " * 600}
    >>> first = {"model": "gpt-5.5", "messages": [told, {"role": "user", "content": "Hello"}]}
    >>> second = {"model": "gpt-5.5", "messages": [{**told, "content": "Now " + told["content"]}, *first["messages"][1:]]}
    >>> detector = BreakDetector()
    >>> detector.see(first, at=0.0), detector.see(second, at=1.0).cause, detector.see(second, at=2.0)
    (None, 'system-changed', None)
    """

    def __init__(
        self,
        *,
        dialect: str | Dialect | None = None,
        model: str | None = None,
        prices: Mapping[str, Price] | None = None,
        counter: TokenCounter | None = None,
        limit: int = 256,
    ) -> None:
        self._open = partial(_reader, dialect=dialect, model=model, prices=prices, counter=counter)
        self._limit = limit
        self._readers: dict[tuple[Wire, str], tuple[_Reader, RoutedCaches]] = {}
        self._known: OrderedDict[object, _Conversation] = OrderedDict()
        self._number = 0

    def see(
        self,
        body: Mapping[str, Any],
        *,
        at: float,
        usage: Usage | None = None,
        agent: str | None = None,
        visible_at: float | None = None,
        planned: Literal["compacted", "thawed"] | None = None,
    ) -> CacheBreak | None:
        """The break of this request against the one before it in its conversation, and remember it: one fault, one alarm.

        ``at`` is when it was sent, in seconds; ``visible_at`` when its first token came (default: at once); ``usage`` what
        the provider reported; ``agent`` names the conversation where the log knows it. Otherwise it is the one whose
        messages this request has most of. ``planned`` declares that the prefix was moved on purpose: the break has that cause
        then, and is no alarm. Text that is framed as looked up or measured anew may change or go where it belongs, in the last
        thing that the user said. Work is proportional to the length of the body: a log has to be read to be compared.

        Raises ``MessageError`` for what is no request body; nothing is remembered then.
        """
        reader, caches = self._opened(body)
        prompt = reader.read(body)
        cache = caches.route(prompt.snapshot, at, _routing_key(body, reader.rules))
        name = agent if agent is not None else self._conversation(prompt)
        lookup = cache.commit(prompt.snapshot, at, visible_at)
        kept = cache.look(prompt.snapshot, at if visible_at is None else visible_at).read_tokens
        known = self._known.get(name)
        self._known[name] = _Conversation(reader, prompt, kept)
        self._known.move_to_end(name)
        while len(self._known) > self._limit:
            self._known.popitem(last=False)
        if known is None or known.reader.wire != reader.wire:
            return None
        bound = tolerance(reader.rules, known.kept)
        found = _broken(reader, known.prompt, prompt, known.kept, lookup, usage, threshold=bound)
        if found is None or planned is None:
            return found
        return msgspec.structs.replace(found, cause=planned, fix=FIXES[planned], confidence=1.0)

    def _opened(self, body: Mapping[str, Any]) -> tuple[_Reader, RoutedCaches]:
        key = (wire_of(body), str(body.get("model", "")))
        if key not in self._readers:
            reader = self._open(body)
            self._readers[key] = (reader, RoutedCaches(reader.rules, limit=self._limit, count=reader.count))
        return self._readers[key]

    def _conversation(self, prompt: _Prompt) -> object:
        """The conversation that shares most with this request, most of the shorter of both; else a new one."""
        said = {piece.wire for piece in prompt.pieces if piece.section == "messages"}
        best: tuple[int, object] = (0, None)
        for name, known in self._known.items():
            shared = len(said & known.said)
            if shared >= best[0] and 2 * shared >= min(len(said), len(known.said)) and shared:
                best = (shared, name)
        if best[0]:
            return best[1]
        self._number += 1
        return self._number


def _routing_key(body: Mapping[str, Any], rules: CacheRules) -> str | None:
    key = body.get(rules.routing_field) if rules.routing_field is not None else None
    return key if isinstance(key, str) else None
