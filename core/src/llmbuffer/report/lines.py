"""Request logs, line by line: each line becomes a bar, and is compared with what came before it."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..bodies import Piece, pieces
from ..breaks import FIXES, CacheBreak, Cause
from ..breaks.served import extra_cost
from ..errors import LLMBufferError, MessageError, ReportError
from ..explaining import BreakDetector, wire_of
from ..prices import Price, price_for
from ..rules import Dialect, Section
from ..usage import Usage
from .model import Bar, Stretch, priced

__all__ = ["LineReader", "scaled", "stretches_of"]

_SERVED: dict[str, Cause] = {
    "expired": "expired",
    "not-yet-visible": "not-yet-visible",
    "lookback-exceeded": "lookback-exceeded",
}
_CONVERSATIONS = 8
_DETECTORS = 64  # agents and API keys whose conversations are compared; the one used longest ago goes first
_LANES = 1024  # branches whose latest prompt is remembered; the one used longest ago goes first
_PARTS: dict[Section, str] = {"tools": "tools", "system": "system", "messages": "messages"}


class _Line(msgspec.Struct, frozen=True):
    """What both logs say of a request, those of ``llmbuffer.capture`` and of ``llmbuffer serve``; the rest is passed over."""

    at: float
    model: str
    usage: Usage | None = None
    wire: str = ""
    dialect: str = ""
    status: int = 200
    outcome: str = ""
    agent: str | None = None
    session: str | None = None
    key: str | None = None
    scope: str = ""
    error: str | None = None
    attempt: int = 1
    completed: bool = True
    visible: float | None = msgspec.field(default=None, name="first_byte")
    salt: str | None = None
    body: dict[str, Any] | None = None


class _Lane:
    """The latest prompts of one branch, as hashes of their pieces: conversations may take turns in it."""

    def __init__(self) -> None:
        self.tokens = 0
        self._prompts: deque[tuple[int, ...]] = deque(maxlen=_CONVERSATIONS)

    def nearest(self, prompt: tuple[int, ...]) -> tuple[int, ...]:
        """The earlier prompt that shares most with this one; it is replaced."""
        found = max(self._prompts, key=lambda each: len(set(each) & set(prompt)), default=())
        if 2 * len(set(found) & set(prompt)) > len(found):
            self._prompts.remove(found)
        self._prompts.append(prompt)
        return found


class LineReader:
    """Turns the lines of a request log into bars, in their order; memory is bounded, whatever the length of the log.

    ``dialect``, ``model`` and ``prices`` as for ``explain``. Where lines hold bodies (redacted ones will do), breaks are
    found by comparing them; without, only those that the log itself names. Not thread-safe.

    >>> reader = LineReader()
    >>> line = b'{"at": 0, "model": "gpt-5.5", "status": 200, "usage": {"input_tokens": 2000, "cache_read_tokens": 1920}}'
    >>> reader.read(line).usage.hit_ratio
    0.96
    """

    def __init__(
        self,
        *,
        dialect: str | Dialect | None = None,
        model: str | None = None,
        prices: Mapping[str, Price] | None = None,
    ) -> None:
        self._prices, self._dialect, self._model = prices, dialect, model
        self._detectors: OrderedDict[tuple[str | None, ...], BreakDetector] = OrderedDict()
        self._known_prices: dict[str, Price | None] = {}
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()
        self._number = 0

    def read(self, line: bytes) -> Bar:
        """The bar of one line. Raises ``ReportError`` for a line that is no request."""
        try:
            found = _DECODER.decode(line)
        except (msgspec.DecodeError, MessageError, UnicodeDecodeError) as error:
            raise ReportError(
                f"no line of a request log: {error}; llmbuffer.capture and `llmbuffer serve --log` write them"
            ) from None
        self._number += 1
        bar = Bar(
            number=self._number,
            at=found.at,
            branch=_branch(found),
            name=" · ".join(filter(None, (found.agent, found.session))),
            model=found.model,
            usage=found.usage,
            note=_note(found),
        )
        body = _sent(found) if found.status in (0, 200) else None
        bar = self._with_body(bar, found, body) if body is not None else self._without(bar, found)
        return priced(bar, self._price(found.model))

    def _with_body(self, bar: Bar, line: _Line, body: Mapping[str, Any]) -> Bar:
        seen_at = None if line.visible is None else line.at + line.visible
        try:
            broken = self._detector(line).see(
                body, at=line.at, usage=line.usage, agent=line.session, visible_at=seen_at
            )
            found = sorted(pieces(body, wire_of(body)), key=_place)
        except LLMBufferError:
            return msgspec.structs.replace(bar, note=bar.note or "body of an unknown format")
        lane = self._lane(bar)
        before = lane.nearest(tuple(hash(piece.wire) for piece in found))
        return msgspec.structs.replace(
            bar, cache_break=broken, stretches=stretches_of(found, before, bar.tokens)
        )

    def _detector(self, line: _Line) -> BreakDetector:
        """One for each agent, API key and dialect; and for each run that redacts, since its pseudonyms are its own."""
        dialect = self._dialect if self._dialect is not None else (line.dialect or None)
        name = (line.agent, line.scope, line.dialect, line.salt)
        if name not in self._detectors:
            self._detectors[name] = BreakDetector(
                dialect=dialect,
                model=self._model,
                prices=self._prices,
                limit=256 if line.agent is None else 32,
            )
        self._detectors.move_to_end(name)
        while len(self._detectors) > _DETECTORS:
            self._detectors.popitem(last=False)
        return self._detectors[name]

    def _without(self, bar: Bar, line: _Line) -> Bar:
        """What the log says itself: why nothing more was read. How much could have been is the prompt before this one."""
        lane, cause = self._lane(bar), _SERVED.get(line.outcome)
        before = lane.tokens
        if bar.usage is not None and line.status == 200:
            lane.tokens = bar.tokens
        if cause is None or bar.usage is None:
            return bar
        lost = max(0, min(before, bar.tokens) - bar.usage.cache_read_tokens)
        paid = extra_cost(lost, self._price(line.model))
        broken = CacheBreak(cause, "messages", lost, 0.5, paid, fix=FIXES[cause])
        return msgspec.structs.replace(bar, cache_break=broken)

    def _lane(self, bar: Bar) -> _Lane:
        lane = self._lanes.setdefault(bar.branch, _Lane())
        self._lanes.move_to_end(bar.branch)
        while len(self._lanes) > _LANES:
            self._lanes.popitem(last=False)
        return lane

    def _price(self, model: str) -> Price | None:
        if model not in self._known_prices:
            if len(self._known_prices) >= _LANES:
                self._known_prices.clear()
            self._known_prices[model] = price_for(self._model or model, overrides=self._prices)
        return self._known_prices[model]


def _sent(line: _Line) -> Mapping[str, Any] | None:
    """The body as one that names its model: Gemini names it in the path."""
    if line.body is None:
        return None
    return line.body if "model" in line.body else {**line.body, "model": line.model}


def _branch(line: _Line) -> str:
    """Who sent it, as far as the log knows: the agent, the session, the routing key, the API key."""
    labels = " · ".join(filter(None, (line.agent, line.session)))
    return labels or line.key or line.scope or line.model


def _note(line: _Line) -> str:
    if line.status not in (0, 200):
        return f"status {line.status}" + (f", {line.error}" if line.error else "")
    if line.status == 0:
        return line.error or "no response"
    if not line.completed:
        return "broke off"
    return f"attempt {line.attempt}" if line.attempt > 1 else line.outcome.replace("hit", "")


def stretches_of(found: Sequence[Piece], before: Sequence[int], tokens: int) -> tuple[Stretch, ...]:
    """The stretches of a prompt in its order, scaled to ``tokens``: tools, each system text, the history, what is new.

    ``found`` is in prompt order; ``before`` are the hashes of the pieces of the request before it: what both begin with is
    history.

    >>> sent = pieces({"messages": [{"role": "user", "content": "Hello"}]}, "openai")
    >>> stretches_of(sent, [], 12)
    (Stretch(section='messages', name='new user', tokens=12),)
    """
    weights: dict[tuple[Section, str], int] = {}
    old = _Seen(before)
    for piece in found:
        name = _name(piece, old)
        weights[name] = weights.get(name, 0) + piece.tokens(_roughly)
    return scaled([(section, name, weight) for (section, name), weight in weights.items()], tokens)


class _Seen:
    """Whether pieces, asked for in their order, stood in an earlier prompt."""

    def __init__(self, before: Sequence[int]) -> None:
        self._before = set(before)
        self._going = True

    def __contains__(self, piece: object) -> bool:
        self._going = self._going and isinstance(piece, Piece) and hash(piece.wire) in self._before
        return self._going


def _place(piece: Piece) -> int:
    return list(_PARTS).index(piece.section)


def _name(piece: Piece, old: _Seen) -> tuple[Section, str]:
    if piece.section == "tools":
        return "tools", "tools"
    if piece.section == "system":
        return "system", piece.path
    if piece in old:
        return "messages", "history"
    return "messages", f"new {piece.role}".strip()


def _roughly(text: str) -> int:
    """Tokens by length: they are scaled to the reported ones, so only their shares count."""
    return len(text) // 4 + 1


def scaled(weights: Sequence[tuple[Section, str, int]], tokens: int) -> tuple[Stretch, ...]:
    """Stretches of these weights that sum to ``tokens``.

    >>> [stretch.tokens for stretch in scaled([("tools", "tools", 1), ("messages", "new", 2)], 10)]
    [3, 7]
    """
    whole = sum(weight for _, _, weight in weights)
    if not whole or tokens <= 0:
        return ()
    out, done, told = [], 0, 0
    for section, name, weight in weights:
        done += weight
        upto = round(tokens * done / whole)
        out.append(Stretch(section, name, upto - told))
        told = upto
    return tuple(out)


_DECODER = msgspec.json.Decoder(_Line)
