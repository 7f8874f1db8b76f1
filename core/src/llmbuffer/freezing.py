"""What must not move within an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .context import StableContext
from .errors import FrozenError
from .rules import CacheRules, Dialect

__all__ = ["moved", "moved_params", "refuse_move"]


def moved(old: StableContext, new: StableContext, rules: CacheRules) -> str | None:
    """The first field that differs and that the cache depends on, or ``None``.

    >>> rules = CacheRules(name="engine", match="prefix")
    >>> moved(StableContext("a", "x"), StableContext("a", "y"), rules)
    'system'
    """
    if old.model != new.model:
        return "model"
    if old.tools != new.tools:
        return "tools"
    if old.segments != new.segments:
        return "system"
    name = moved_params(old.params, new.params, rules)
    return None if name is None else f"params.{name}"


def moved_params(old: Mapping[str, Any], new: Mapping[str, Any], rules: CacheRules) -> str | None:
    """The first param that differs and that the cache depends on, or ``None``.

    >>> rules = CacheRules(name="engine", match="prefix", frozen_params=frozenset({"verbosity"}))
    >>> moved_params({}, {"verbosity": "low", "temperature": 0}, rules)
    'verbosity'
    """
    missing = object()
    fields = sorted(rules.frozen_params | rules.message_params)
    return next((name for name in fields if old.get(name, missing) != new.get(name, missing)), None)


def refuse_move(old: StableContext, new: StableContext, dialect: Dialect, *, head: int, tip: int) -> None:
    """Raise ``FrozenError`` if the change would move the prefix; ``head`` and ``tip`` are tokens that it would bill again."""
    field = moved(old, new, dialect.rules)
    if field is None:
        return
    messages_only = field.removeprefix("params.") in dialect.rules.message_params
    tokens = tip if messages_only else head + tip
    raise FrozenError(
        f"{field!r} is frozen in this epoch: changing it bills about {tokens:,} tokens again. Use session.fork(…) with the "
        "change, session.thaw(reason=…) for a planned break, or append an instruction as a message",
        field=field,
        tokens=tokens,
    )
