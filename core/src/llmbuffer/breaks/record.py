"""The record of a break: what moved or was not served, where, what it costs and what to do."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from ..rules import Section

__all__ = ["CAUSES", "FIXES", "PLANNED", "CacheBreak", "Cause"]

Cause = Literal[
    "model-changed",
    "tools-added",
    "tools-removed",
    "tools-reordered",
    "tool-schema-changed",
    "system-changed",
    "volatile-in-prefix",
    "history-edited",
    "history-truncated",
    "dynamic-in-prefix",
    "params-changed",
    "image-changed",
    "serialization-changed",
    "below-minimum",
    "breakpoint-missing",
    "lookback-exceeded",
    "expired",
    "not-yet-visible",
    "evicted-or-routed",
    "unreported",
    "compacted",
    "thawed",
]
CAUSES: tuple[str, ...] = get_args(Cause)
PLANNED = frozenset({"compacted", "thawed"})
FIXES: dict[str, str] = {
    "model-changed": "keep one model in a session; each model has a cache of its own, so fork for the other one",
    "tools-added": "offer the union of all tools from the first request on, or add tools by the provider's own channel",
    "tools-removed": "keep the tool in the list and restrict the choice (allowed_tools), or say so at the tail",
    "tools-reordered": "give the tools in one fixed order, sorted by name if nothing else fixes it",
    "tool-schema-changed": "freeze descriptions and schemas before the first request; put what changes at the tail",
    "system-changed": "freeze the system text; say what changes in the turn's user message, or append an instruction",
    "volatile-in-prefix": "take it out of the prefix: give it as dynamic content, which stands behind the history",
    "history-edited": "append instead of rewriting; fork the session to try another way",
    "history-truncated": "compact seldom and down to a low-water mark instead of dropping a message each turn",
    "dynamic-in-prefix": "give retrieved text and other changing content as dynamic=, so that it stands at the tail",
    "params-changed": "keep the params that the cache depends on as they were, or fork for the other ones",
    "image-changed": "send the same bytes, URL and detail for a picture that was sent before",
    "serialization-changed": "keep the text that was first sent: parsing and writing JSON anew moves keys and numbers",
    "below-minimum": "the prefix is shorter than the model caches; nothing to do",
    "breakpoint-missing": "mark the stable prefix and the last message with a cache breakpoint",
    "lookback-exceeded": "keep a breakpoint on the previous tail",
    "expired": "send the next request within the time to live, or mark the stable segments with ttl='long'",
    "not-yet-visible": "wait for the first token of the request that writes the prefix before its siblings start",
    "evicted-or-routed": "nothing local explains it: send a routing key, or fewer requests a minute with one key",
    "unreported": "ask for usage; when streaming OpenAI-compatible endpoints, stream_options.include_usage",
    "compacted": "planned: the history was made smaller",
    "thawed": "planned: the context was changed",
}


class CacheBreak(msgspec.Struct, frozen=True):
    """A part of the prefix that a warm cache would have served and that was billed again.

    ``tokens_lost`` in tokens, ``cost`` in USD above a hit (``None`` without a price), ``confidence`` a fraction of 1;
    ``section`` and ``path`` say where, ``offset`` how many characters into the value, ``offset_tokens`` how many tokens
    into the prompt; ``before`` and ``after`` are excerpts where a value changed, which the repr leaves out; ``fix`` is
    what to do; ``also`` names what else moved, as pairs of cause and path.

    >>> CacheBreak(cause="expired", section="messages", tokens_lost=5000, confidence=1.0).cause
    'expired'
    """

    cause: Cause
    section: Section
    tokens_lost: int
    confidence: float
    cost: float | None = None
    path: str = ""
    offset: int = 0
    before: str = ""
    after: str = ""
    fix: str = ""
    offset_tokens: int = 0
    also: tuple[tuple[Cause, str], ...] = ()

    @property
    def planned(self) -> bool:
        """Whether it was meant: recorded, and no alarm."""
        return self.cause in PLANNED

    @property
    def sentence(self) -> str:
        """What broke, where, what it lost and what to do, for people; no text of the prompt.

        >>> CacheBreak("tools-reordered", "tools", 1200, 1.0, path="tools[0]", fix="give them in one order").sentence
        'tools-reordered at tools[0]: 1,200 tokens billed again; give them in one order'
        """
        where = f" at {self.path}" if self.path else ""
        where += f", character {self.offset:,}" if self.offset else ""
        money = "" if self.cost is None else f" ({self.cost:.4f} USD)"
        fix = f"; {self.fix}" if self.fix else ""
        return f"{self.cause}{where}: {self.tokens_lost:,} tokens billed again{money}{fix}"

    def to_json(self, *, show_text: bool = False) -> dict[str, Any]:
        """The break under the names that every command uses, its excerpts only if ``show_text``.

        >>> CacheBreak("expired", "messages", 5000, 1.0, cost=0.02).to_json()["cost_usd"]
        0.02
        """
        document: dict[str, Any] = msgspec.to_builtins(self)
        document["cost_usd"] = document.pop("cost")
        if not show_text:
            del document["before"], document["after"]
        document["also"] = [{"cause": cause, "path": path} for cause, path in self.also]
        return {**document, "sentence": self.sentence}

    def __repr__(self) -> str:
        shown = f"cause={self.cause!r}, section={self.section!r}, path={self.path!r}, offset={self.offset}"
        return f"CacheBreak({shown}, tokens_lost={self.tokens_lost}, confidence={self.confidence}, cost={self.cost})"
