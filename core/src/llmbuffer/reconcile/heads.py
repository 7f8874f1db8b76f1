"""Tools, system text and params of a host as the session's stable context; the host may change them at any time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..breaks import FIXES, CacheBreak, Cause
from ..breaks.volatile import volatile_at
from ..context import Segment, StableContext
from ..freezing import moved
from ..tools import Tool
from .hosts import frozen_params
from .tooling import Offer

if TYPE_CHECKING:
    from ..session import Session

__all__ = ["Heading"]

_EXCERPT = 60  # characters of an excerpt
_OWN = frozenset({"model", "messages", "system", "tools", "input", "instructions", "contents"})


class Heading:
    """Keeps the context of a session at what its host sends; used under the session's lock."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._params = session.context.params
        self._last: tuple[Any, ...] | None = None

    def change(
        self,
        system: tuple[str, ...] | None,
        offer: Offer | None,
        params: Mapping[str, Any],
        *,
        planned: bool,
    ) -> CacheBreak | None:
        """Take over what the host sends. What it does to the prefix, if anything: without tokens, which others know."""
        session = self._session
        tools = None if offer is None else offer.tools
        now = (system, tools, params)
        if self._last == now:
            return None
        old = session._context
        new = StableContext(
            old.model,
            [*old.segments, *old.dynamic] if system is None else _segments(system),
            old.tools if tools is None else tools,
            {**self._params, **frozen_params({k: v for k, v in params.items() if k not in _OWN})},
        )
        self._last = now
        field = moved(old, new, session._dialect.rules)
        session._context = new
        if field is None:
            return None
        session._head = session._family.head(new, session._dialect, session._store)
        return None if planned and field == "system" else _moved(field, old, new)


def _segments(texts: tuple[str, ...]) -> list[Segment]:
    if len(texts) == 1:
        return [Segment("system", texts[0])] if texts[0] else []
    return [Segment(f"system-{index + 1}", text) for index, text in enumerate(texts)]


def _moved(field: str, old: StableContext, new: StableContext) -> CacheBreak:
    if field == "tools":
        return _tools(old.tools, new.tools)
    if field == "system":
        return _system([each.content for each in old.segments], [each.content for each in new.segments])
    return _record("model-changed" if field == "model" else "params-changed", field)


def _record(cause: Cause, path: str, offset: int = 0, before: str = "", after: str = "") -> CacheBreak:
    return CacheBreak(
        cause=cause,
        section="system" if path.startswith("system") else "tools",
        tokens_lost=0,
        confidence=1.0,
        path=path,
        offset=offset,
        before=before,
        after=after,
        fix=FIXES[cause],
    )


def _tools(old: tuple[Tool, ...], new: tuple[Tool, ...]) -> CacheBreak:
    names, before = [tool.name for tool in new], {tool.name: tool for tool in old}
    for index, tool in enumerate(new):
        if tool.name not in before:
            return _record("tools-added", f"tools[{index}]", after=tool.name)
        if before[tool.name].identity != tool.identity:
            return _record("tool-schema-changed", f"tools[{index}]", before=tool.name, after=tool.name)
    gone = [index for index, tool in enumerate(old) if tool.name not in names]
    if gone:
        return _record("tools-removed", f"tools[{gone[0]}]", before=old[gone[0]].name)
    return _record("tools-reordered", "tools[0]")


def _system(old: list[str], new: list[str]) -> CacheBreak:
    place = next(
        (index for index, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]),
        min(len(old), len(new)),
    )
    before = old[place] if place < len(old) else ""
    after = new[place] if place < len(new) else ""
    offset = next(
        (index for index, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]),
        min(len(before), len(after)),
    )
    cause: Cause = "volatile-in-prefix" if volatile_at(before, after, offset) else "system-changed"
    shown = slice(max(0, offset - _EXCERPT), offset + _EXCERPT)
    return _record(cause, f"system[{place}]", offset, before[shown], after[shown])
