"""The caches of a simulated provider: one set for each workspace, wire format and model; bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import msgspec

from ..bodies import Wire
from ..errors import MessageError
from ..plugins import get_dialect
from ..routing import RoutedCaches
from ..rules import CacheRules
from ..tokens import TokenCounter, counter_for
from .counting import CountMemo, NodeMemo

__all__ = ["Limits", "Rules", "Scope", "Scopes", "chosen_rules"]

Rule: TypeAlias = "CacheRules | str | Mapping[str, Any]"
Rules: TypeAlias = "CacheRules | Mapping[str, Rule] | None"
_ENDLESS = 1e9  # requests a second: nothing overflows


class Limits(msgspec.Struct, frozen=True):
    """What a server remembers at most; what was used longest ago goes first.

    ``scopes`` are triples of API key, format and model; ``entries`` those of one cache, ``groups`` the pairs of
    routing key and opening in one scope; ``nodes`` and ``characters`` blocks of prompts that later prompts may share, and
    their text, in one scope; ``counts`` texts whose tokens are known; ``requests`` those of the log; ``fingerprints`` prompts that diagnostics compare with; ``contents`` explicit caches of Gemini. ``body_bytes`` is how
    large a request may be.
    """

    scopes: int = 64
    entries: int = 256
    groups: int = 256
    nodes: int = 4096
    characters: int = 4 * 2**20
    counts: int = 20_000
    requests: int = 2_000
    fingerprints: int = 512
    contents: int = 256
    body_bytes: int = 32 * 2**20


class Scope:
    """What one workspace has in the cache of one model."""

    def __init__(self, rules: CacheRules, count: CountMemo, limits: Limits, *, overflow: bool) -> None:
        self.rules, self.count = rules, count
        parted = rules.match not in ("entries", "lookback")  # read in parts of a block
        self.nodes = NodeMemo(limits.nodes, limits.characters if parted else 0)
        routed = rules
        if rules.per_key_rate is not None and not overflow:
            routed = msgspec.structs.replace(rules, per_key_rate=_ENDLESS)
        self.caches = RoutedCaches(routed, limit=limits.entries, groups=limits.groups, count=count)


class Scopes:
    """All scopes of a server. ``overflow`` models that a routing key takes so many requests a minute.

    Raises ``MessageError`` for rules that make no sense, and ``UnknownDialectError``.
    """

    def __init__(
        self, rules: Rules, limits: Limits, *, overflow: bool = False, counter: TokenCounter | None = None
    ) -> None:
        self._rules, self._limits, self._overflow, self._counter = rules, limits, overflow, counter
        for rule in () if rules is None or isinstance(rules, CacheRules) else rules.values():
            chosen_rules(
                {"*": rule}, "openai", ""
            )  # what makes no sense is told now, not to the first client
        self._scopes: OrderedDict[tuple[str, Wire, str], Scope] = OrderedDict()
        self._counts: dict[str, CountMemo] = {}

    def scope(self, workspace: str, wire: Wire, model: str) -> Scope:
        """The scope of a request."""
        key = (workspace, wire, model)
        scope = self._scopes.get(key)
        if scope is None:
            rules = chosen_rules(self._rules, wire, model)
            scope = Scope(rules, self._count(model), self._limits, overflow=self._overflow)
            self._scopes[key] = scope
            if len(self._scopes) > self._limits.scopes:
                self._scopes.popitem(last=False)
        else:
            self._scopes.move_to_end(key)
        return scope

    def _count(self, model: str) -> CountMemo:
        counter = self._counter or counter_for(model)
        if counter.name not in self._counts:
            self._counts[counter.name] = CountMemo(counter, self._limits.counts)
        return self._counts[counter.name]

    def clear(self) -> None:
        """Empty all caches."""
        self._scopes.clear()

    def __len__(self) -> int:
        return len(self._scopes)


def chosen_rules(rules: Rules, wire: Wire, model: str) -> CacheRules:
    """The rules of a model: those given for it, else those of the dialect.

    ``rules`` are one value for all models, or a mapping from patterns (``claude-*``) to rules, to the name of a dialect,
    or to fields that replace those of the dialect's rules. Raises ``MessageError`` for fields that rules do not have.

    >>> chosen_rules({"my-*": "vllm"}, "openai", "my-model").name
    'vllm'
    >>> chosen_rules({"*": {"min_tokens": 64}}, "anthropic", "claude-opus-4.5").min_tokens
    64
    """
    if isinstance(rules, CacheRules):
        return rules
    given = None
    if rules is not None:
        given = next((rule for pattern, rule in rules.items() if fnmatchcase(model, pattern)), None)
    if isinstance(given, CacheRules):
        return given
    if isinstance(given, str):
        return get_dialect(given).bind(model).rules
    own = get_dialect(wire).bind(model).rules
    return own if given is None else _replaced(own, given)


def _replaced(rules: CacheRules, fields: Mapping[str, Any]) -> CacheRules:
    unknown = sorted(fields.keys() - set(CacheRules.__struct_fields__))
    if unknown:
        raise MessageError(
            f"rules have no fields {unknown}: known are {sorted(CacheRules.__struct_fields__)}"
        )
    try:
        known = {name: getattr(rules, name) for name in CacheRules.__struct_fields__}
        return msgspec.convert({**known, **fields}, CacheRules)
    except msgspec.ValidationError as error:
        raise MessageError(f"the rules of {rules.name!r} cannot be changed so: {error}") from None
