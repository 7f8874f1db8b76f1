"""What a dialect's rules promise: the protocol, figures with sources, and binding by model."""

from __future__ import annotations

import msgspec

from ...rules import CacheRules, Dialect
from .cases import short_session
from .examples import DialectExamples

__all__ = ["BindsByModel", "KeepsProtocol", "NamesSources"]

_UNKNOWN = "a-model-that-nobody-knows"


class KeepsProtocol(DialectExamples):
    """The dialect is what ``llmbuffer.Dialect`` asks for, and its rules make sense."""

    def test_it_keeps_the_protocol(self, served: str) -> None:
        """It is a ``Dialect``, bound to a model or not."""
        for dialect in (self.dialect, self.dialect.bind(served)):
            assert isinstance(dialect, Dialect)
            assert isinstance(dialect.rules, CacheRules)
            assert dialect.name == self.dialect.name != ""
            assert isinstance(dialect.default_model, str)

    def test_its_figures_make_sense(self, served: str) -> None:
        """Counts are not negative, a read is no dearer than input, and fields that belong together agree."""
        rules = self.dialect.bind(served).rules
        assert min(rules.step, rules.lanes) >= 1
        assert min(rules.min_tokens, rules.slots, rules.lookback, rules.recomputed) >= 0
        assert 0 < rules.ttl <= (rules.ttl_long or rules.ttl)
        assert 0 <= rules.read_multiplier <= 1 <= rules.write_multiplier
        assert rules.ttl_long is None or rules.write_multiplier <= rules.write_long_multiplier
        assert rules.has_marks == bool(rules.markable), "breakpoints need kinds of parts to stand on"
        assert (rules.match == "lookback") == (rules.lookback > 0), "only a look-back has a distance"
        assert set(rules.section_order) == {"tools", "system", "messages"}


class NamesSources(DialectExamples):
    """Rules are data, and every figure says where it comes from."""

    def test_every_figure_names_its_source(self, served: str) -> None:
        """Each field of the rules that differs from its default has an entry in ``sources``."""
        rules = self.dialect.bind(served).rules
        unsourced = [
            field.name
            for field in msgspec.structs.fields(CacheRules)
            if field.name not in ("name", "sources")
            and getattr(rules, field.name) != field.default
            and not rules.sources.get(field.name, "").strip()
        ]
        assert unsourced == [], f"rules {rules.name!r} of {served!r}: name the source of these fields"

    def test_no_source_is_for_nothing(self, served: str) -> None:
        """Sources are of fields that rules have."""
        assert set(self.dialect.bind(served).rules.sources) <= set(CacheRules.__struct_fields__)


class BindsByModel(DialectExamples):
    """The model chooses the rules."""

    def test_binding_leaves_the_dialect_as_it_was(self, served: str) -> None:
        """``bind`` gives a dialect with other rules, the same for the same model, whatever it was bound to before."""
        before = self.dialect.rules
        bound = self.dialect.bind(served)
        assert self.dialect.rules == before
        assert (
            bound.rules == self.dialect.bind(served).rules == self.dialect.bind(_UNKNOWN).bind(served).rules
        )
        assert bound.bind(_UNKNOWN).rules == self.dialect.bind(_UNKNOWN).rules

    def test_a_session_is_bound_to_its_model(self, served: str) -> None:
        """A session has the rules of its model, and a fork with another model has those of that one."""
        session = short_session(self.dialect, served)
        assert session.dialect.rules == self.dialect.bind(served).rules
        assert session.fork(model=_UNKNOWN).dialect.rules == self.dialect.bind(_UNKNOWN).rules
