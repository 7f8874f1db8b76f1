"""The cache model against what providers reported: the prompts, marks, times and lengths as they were recorded."""

from __future__ import annotations

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

    Engines serve models of any name, so a name does not tell that it was one of them.

    >>> dialect_of("claude-opus-4-5").name, dialect_of("deepseek-chat").rules.step, dialect_of("my-model")
    ('anthropic', 64, None)
    """
    if model is None:
        return None
    named = (get_dialect(name) for name in sorted(plugins.offers("dialects")))
    bound = (dialect.bind(model) for dialect in named if not has_rules(dialect.bind("").rules))
    return next((dialect for dialect in bound if has_rules(dialect.rules)), None)


def agreement(recording: Recording, times: list[float], counter: TokenCounter) -> Agreement:
    """Reads as the cache model predicts them for the calls whose reads were reported.

    Under the rules of the provider that answered, at the recorded times, with a mark after the system text and one at
    the end where the provider wants marks. Counted tokens are scaled so that each prompt is as long as reported; the
    reported reads take no part. Calls without reported usage were not made in this session, and write nothing.
    """
    dialect = dialect_of(recording.model)
    if dialect is None or all(
        call.reported is None or call.reported.cached is None for call in recording.calls
    ):
        return Agreement()
    assert recording.model is not None, "a dialect was found for it"
    written = AsWritten(recording, dialect, recording.model, counter, clock=True)
    cache, lengths = CacheModel(dialect.rules), _Lengths()
    pairs: list[tuple[int, int, int]] = []
    expired: list[tuple[int, int, int]] = []
    for call, at in zip(recording.calls, times, strict=True):
        snapshot = written.ask(call, {}, at).snapshot
        if call.reported is None:
            continue
        scaled = lengths.fit(snapshot, call.reported.input, dialect.rules)
        lookup = cache.commit(scaled, at)
        if dialect.rules.stores_output:
            longer = call.reported.input + call.reported.output
            cache.commit_output(lengths.fit(written.answered(call), longer, dialect.rules), at)
        if call.reported.cached is not None:
            pairs.append((call.reported.input, call.reported.cached, lookup.read_tokens))
            if lookup.outcome == "expired":
                expired.append(pairs[-1])
    return Agreement(tuple(pairs), tuple(expired))


class _Lengths:
    """Chains as long as reported, in place of as long as counted: each call's new messages share what it adds."""

    def __init__(self) -> None:
        self._known: dict[bytes, Node] = {}  # by the wire digest of the counted node

    def fit(self, snapshot: Snapshot, tokens: int, rules: CacheRules) -> Snapshot:
        """The same prompt, ``tokens`` long."""
        head = self._fitted(snapshot.head, round(snapshot.head.end * tokens / max(1, snapshot.tokens)))
        tip = self._fitted(snapshot.tip, tokens - head.end)
        return Snapshot(head, tip, snapshot.message_seed, automatic_marks(rules, head, tip))

    def _fitted(self, tip: Node, end: int) -> Node:
        """The chain of ``tip``, ending at token ``end`` if any of it is new."""
        new, node = list[Node](), tip
        while node.parent is not None and node.wire not in self._known:
            new.append(node)
            node = node.parent
        top = self._known.get(node.wire, node)
        start, added, counted = top.end, max(0, end - top.end), max(1, tip.end - node.end)
        for each in reversed(new):
            assert each.parent is not None, "only the root has none, and it is not new"
            assert each.message is not None, "the same"
            goal = start + added * (each.end - node.end) // counted
            top = top.child(
                each.message,
                content=each.digest,
                wire=each.wire,
                tokens=goal - top.end,
                positions=each.position - each.parent.position,
            )
            self._known[each.wire] = top
        return top
