"""What must not move within an epoch."""

from __future__ import annotations

from .context import StableContext
from .errors import FrozenError
from .rules import CacheRules, Dialect

__all__ = ["moved", "refuse_move"]


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
    missing = object()
    fields = sorted(rules.frozen_params | rules.message_params)
    changed = (name for name in fields if old.params.get(name, missing) != new.params.get(name, missing))
    return next((f"params.{name}" for name in changed), None)


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
