"""Tools, system text and params of a host as the session's stable context; the host may change them at any time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..breaks import FIXES, CacheBreak, Cause
from ..breaks.volatile import volatile_at
from ..context import Segment, StableContext
from ..freezing import moved
from ..layout import Head
from ..rules import CacheRules
from ..tools import Tool
from .hosts import frozen_params
from .tooling import Offer

if TYPE_CHECKING:
    from ..session import Session

__all__ = ["Heading", "changed"]

_CONTEXTS = 8  # prompts of one host that are kept rendered

_EXCERPT = 60  # characters of an excerpt
_OWN = frozenset({"model", "messages", "system", "tools", "input", "instructions", "contents"})


class Heading:
    """Keeps the context of a session at what its host sends; used under the session's lock.

    A host may take turns between several prompts, so the last few are kept as they were rendered.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._params = session.context.params
        self._known: list[tuple[tuple[Any, ...], StableContext, Head]] = []

    def take_over(
        self,
        system: tuple[str, ...] | None,
        offer: Offer | None,
        params: Mapping[str, Any],
        *,
        own: bool = True,
    ) -> StableContext:
        """The context that the host sends; the session's from now on. ``own`` params are sent besides."""
        session, tools = self._session, None if offer is None else offer.tools
        now = (system, tools, dict(params), own)
        found = next((each for each in self._known if each[0] == now), None)
        if found is None:
            old = session._context
            new = StableContext(
                old.model,
                [*old.segments, *old.dynamic] if system is None else _segments(system),
                old.tools if tools is None else tools,
                {
                    **(self._params if own else {}),
                    **frozen_params({k: v for k, v in params.items() if k not in _OWN}),
                },
            )
            found = (now, new, self._head(new))
        else:
            self._known.remove(found)
        self._known.insert(0, found)
        del self._known[_CONTEXTS:]
        session._context, session._head = found[1:]
        return found[1]

    def _head(self, context: StableContext) -> Head:
        """Tools and system text, rendered; those of a context that differs in nothing that the cache depends on."""
        session, rules = self._session, self._session._dialect.rules
        for _, known, head in ((), session._context, session._head), *self._known:
            if moved(known, context, rules) is None:
                return head
        return session._family.head(context, session._dialect, session._store)


def changed(old: StableContext, new: StableContext, rules: CacheRules, planned: bool) -> CacheBreak | None:
    """What became of tools, system text and params, without tokens; ``None`` if nothing did that the cache depends on.

    With ``planned``, what became of the system text was meant.
    """
    field = moved(old, new, rules)
    return None if field is None or (planned and field == "system") else _moved(field, old, new)


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
