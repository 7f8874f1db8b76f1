"""Gemini's explicit caches, ``cachedContents``: made, read, prolonged and deleted by name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from .refusals import RefusedError

__all__ = ["CachedContent", "CachedContents"]

_TTL = 3600.0  # seconds: Google, context caching guide
_HELD = ("systemInstruction", "tools", "toolConfig", "contents")


class CachedContent:
    """One explicit cache: what it holds (``body``), how many ``tokens`` that is, and until when."""

    def __init__(self, name: str, body: Mapping[str, Any], tokens: int, at: float, expires: float) -> None:
        self.name, self.tokens, self.expires = name, tokens, expires
        self.model = str(body["model"])
        self.title = body.get("displayName")
        self.body = {key: body[key] for key in _HELD if body.get(key) is not None}
        self._created = self.updated = at

    def shown(self) -> dict[str, Any]:
        """As the API describes it: metadata only."""
        shown = {
            "name": self.name,
            "model": self.model,
            "createTime": _stamp(self._created),
            "updateTime": _stamp(self.updated),
            "expireTime": _stamp(self.expires),
            "usageMetadata": {"totalTokenCount": self.tokens},
        }
        return shown if self.title is None else {**shown, "displayName": self.title}

    def before(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request's body with what is cached in front."""
        held = self.body.get("contents") or []
        asked = body.get("contents") or []
        contents = [*_as_list(held), *_as_list(asked)]
        rest = {key: value for key, value in body.items() if key not in ("cachedContent", "cached_content")}
        return {**rest, **self.body, "contents": contents}


def _as_list(contents: Any) -> list[Any]:
    return list(contents) if isinstance(contents, list) else [contents]


class CachedContents:
    """All explicit caches of a server, by workspace and name; at most ``limit``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: OrderedDict[tuple[str, str], CachedContent] = OrderedDict()
        self._made = 0

    def create(self, workspace: str, body: Mapping[str, Any], tokens: int, at: float) -> CachedContent:
        """A new one. Raises ``RefusedError`` for a lifetime that makes no sense."""
        expires = _expiry(body, at, _TTL)
        self._made += 1
        name = f"cachedContents/simulated-{self._made:06d}"
        made = self._known[workspace, name] = CachedContent(name, body, tokens, at, expires)
        if len(self._known) > self._limit:
            self._known.popitem(last=False)
        return made

    def get(self, workspace: str, name: str, at: float) -> CachedContent:
        """The one of this name. Raises ``RefusedError`` if there is none, or no longer."""
        found = self._known.get((workspace, name))
        if found is None or found.expires <= at:
            self._known.pop((workspace, name), None)
            raise RefusedError("CachedContent not found (or permission denied)", status=403)
        return found

    def all(self, workspace: str, at: float) -> list[CachedContent]:
        """Those of a workspace that live."""
        return [
            found for (owner, _), found in self._known.items() if owner == workspace and found.expires > at
        ]

    def update(self, workspace: str, name: str, body: Mapping[str, Any], at: float) -> CachedContent:
        """Another lifetime; nothing else of it can change (google-genai 3.4.0, types.py, UpdateCachedContentConfig)."""
        found = self.get(workspace, name, at)
        other = sorted(body.keys() - {"ttl", "expireTime", "name"})
        if other:
            raise RefusedError(
                f"Only ttl and expire_time of a CachedContent can be updated: found {', '.join(other)}"
            )
        found.expires, found.updated = _expiry(body, at, found.expires - at), at
        return found

    def delete(self, workspace: str, name: str, at: float) -> None:
        """Delete one."""
        self.get(workspace, name, at)
        del self._known[workspace, name]

    def clear(self) -> None:
        """Delete all."""
        self._known.clear()

    def __len__(self) -> int:
        return len(self._known)


def _expiry(body: Mapping[str, Any], at: float, default: float) -> float:
    ttl, until = body.get("ttl"), body.get("expireTime")
    try:
        if ttl is not None:
            seconds = float(str(ttl).removesuffix("s"))
        elif until is not None:
            seconds = datetime.fromisoformat(str(until).replace("Z", "+00:00")).timestamp() - at
        else:
            seconds = default
    except ValueError:
        raise RefusedError(
            f"Invalid ttl or expire_time: found {ttl or until!r}, expected such as '3600s'"
        ) from None
    if not 0 < seconds < 1e9:
        raise RefusedError(f"ttl must be positive: found {ttl or until!r}")
    return at + seconds


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat().replace("+00:00", "Z")
