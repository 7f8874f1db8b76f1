"""One request to a simulated provider: as it came, and what is known of it while it is under way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..bodies import Wire
from ..cache import CacheModel, Lookup
from ..rules import CacheRules
from ..snapshot import Snapshot
from .replies import Reply
from .scopes import Scope

__all__ = ["Exchange", "Incoming"]

_PREFIXES = {"openai": "chatcmpl-", "openai-responses": "resp_", "anthropic": "msg_", "gemini": "gen-"}


class Incoming(msgspec.Struct, frozen=True):
    """A request as it came: its format, path and body, and the digest of the API key (``workspace``)."""

    wire: Wire
    path: str
    body: dict[str, Any]
    workspace: str = ""
    model: str = ""
    stream: bool = False


class Exchange(msgspec.Struct):
    """A request under way: what its cache does for it, and what was found out about it."""

    incoming: Incoming
    number: int
    at: float
    scope: Scope
    snapshot: Snapshot
    lookup: Lookup
    cache: CacheModel | None
    diagnostics: Any = None

    @property
    def id(self) -> str:
        """The id of its response."""
        return f"{_PREFIXES[self.incoming.wire]}{self.number:08d}"

    @property
    def rules(self) -> CacheRules:
        """The rules of its cache."""
        return self.scope.rules

    @property
    def silent(self) -> bool:
        """Whether it fills the cache and says nothing."""
        body = self.incoming.body
        if self.incoming.wire == "anthropic":
            return body.get("max_tokens") == 0
        options = body.get("prompt_cache_options")
        return isinstance(options, Mapping) and options.get("prewarm") is True

    def output_tokens(self, reply: Reply) -> int:
        """What the reply counts: as it says, or its text and calls."""
        if reply.output_tokens is not None:
            return reply.output_tokens
        said = [reply.text or "", *(call.name + call.arguments for call in reply.calls)]
        return sum(map(self.scope.count, said))
