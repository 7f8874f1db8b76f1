"""The cache model against what providers reported: the prompts, marks, times and lengths as they were recorded."""

from __future__ import annotations

from msgspec.structs import replace

from ..cache import CacheModel
from ..chain import Node
from ..plugins import get_dialect, plugins
from ..rules import CacheRules, Dialect
from ..snapshot import Snapshot
from ..tokens import TokenCounter
from .figures import Agreement
from .layouts import AsWritten, automatic_marks
from .recordings import Recording

__all__ = ["agreement", "dialect_of", "has_rules"]


def has_rules(rules: CacheRules) -> bool:
    """Whether these are the rules of a known model, not those that stand in for an unknown one."""
    return not rules.name.endswith(("-compatible", "-unknown"))


def dialect_of(model: str | None) -> Dialect | None:
    """The dialect with rules for ``model``, bound to it; ``None`` where no dialect knows it.

    >>> dialect_of("claude-opus-4-5").name, dialect_of("deepseek-chat").rules.step, dialect_of("my-model")
    ('anthropic', 64, None)
    """
    if model is None:
        return None
    bound = (get_dialect(name).bind(model) for name in sorted(plugins.offers("dialects")))
    return next((dialect for dialect in bound if has_rules(dialect.rules)), None)


def agreement(recording: Recording, times: list[float], counter: TokenCounter) -> Agreement:
    """Reads as the cache model predicts them for the calls whose reads were reported.

    Under the rules of the provider that answered, at the recorded times, with a mark after the system text and one at
    the end where the provider wants marks. Counted tokens are scaled so that each prompt is as long as reported; the
    reported reads take no part. Calls without reported usage were not made in this session, and write nothing.
    """
    dialect = dialect_of(recording.model)
    if dialect is None or all(call.reported is None or call.reported.cached is None for call in recording.calls):
        return Agreement()
    assert recording.model is not None, "a dialect was found for it"
    written = AsWritten(recording, dialect, recording.model, counter, clock=True)
    cache, scales = CacheModel(dialect.rules), _Scale()
    pairs: list[tuple[int, int, int]] = []
    for call, at in zip(recording.calls, times, strict=True):
        snapshot = written.ask(call, {}, at).snapshot
        if call.reported is None:
            continue
        scaled = scales.fit(snapshot, call.reported.input, dialect.rules)
        read = cache.commit(scaled, at).read_tokens
        if call.reported.cached is not None:
            pairs.append((call.reported.input, call.reported.cached, read))
    return Agreement(tuple(pairs))
