"""What requests promise: a prefix that stays, dynamic text that goes, breakpoints, and a routing key."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from ...frozen import FrozenDict, wire_json
from ..prefix import assert_prefix_stable, laid_out
from .cases import DYNAMIC, ROUTING_KEY, converse, session_for, short_session
from .examples import DialectExamples
from .rendering import assert_read_only
from .trees import containers, growth_fault, marks_in, without_text

__all__ = ["KeepsPrefix", "PlacesDynamicText", "PlacesMarks", "RoutesByKey"]


class KeepsPrefix(DialectExamples):
    """A session that grows only extends what it sent."""

    def test_a_conversation_only_grows(self, served: str) -> None:
        """Every body begins with the one before it, breakpoints apart."""
        bodies = [request.body for request in converse(session_for(self.dialect, served))]
        self._assert_grows(bodies)

    def test_a_request_changes_nothing(self, served: str) -> None:
        """Asking twice gives the same bytes, and a fork begins with what its parent sent."""
        session = session_for(self.dialect, served)
        for request in converse(session):
            last = request
        first, second = (session.request("Once more").body for _ in range(2))
        assert wire_json(first) == wire_json(second)
        self._assert_grows([last.body, session.fork(task="Once more").request(None).body])

    def _assert_grows(self, bodies: list[FrozenDict]) -> None:
        prompts = [self.prompt(body) for body in bodies]
        assert set(prompts[0]) & set(self.prompt_fields), f"no prompt in a body of {list(bodies[0])}"
        for before, after in pairwise(prompts):
            fault = growth_fault(before, after)
            assert fault is None, f"the prefix moved: {fault}"
        if _is_readable(bodies[0]):
            assert_prefix_stable(bodies)


def _is_readable(body: Mapping[str, Any]) -> bool:
    """Whether ``assert_prefix_stable`` knows this kind of body."""
    try:
        return bool(laid_out(body))
    except ValueError:
        return False


class PlacesDynamicText(DialectExamples):
    """Dynamic text is sent while its turn lasts, and moves nothing."""

    def test_dynamic_text_is_sent_for_one_turn(self, served: str) -> None:
        """It stands once in every request of its turn, and in none of the next."""
        requests = list(converse(session_for(self.dialect, served), turns=2, dynamic=True))
        sent = [wire_json(request.body).decode().count(DYNAMIC) for request in requests]
        assert sent == [1, 1, 0, 0]

    def test_dynamic_text_moves_nothing(self, served: str) -> None:
        """Without it, the bodies are those of a conversation that never had any."""
        with_it = converse(session_for(self.dialect, served), turns=2, dynamic=True)
        bare = converse(session_for(self.dialect, served), turns=2)
        for request, other in zip(with_it, bare, strict=True):
            left = without_text(self.prompt(request.body), DYNAMIC)
            assert growth_fault(left, self.prompt(other.body)) is None
            assert growth_fault(self.prompt(other.body), left) is None


class PlacesMarks(DialectExamples):
    """Breakpoints are few, where they may stand, and only where they are known."""

    def test_marks_stay_within_the_slots(self, served: str) -> None:
        """At most ``slots``, and one instead of an implicit one; none at all on a model without breakpoints."""
        rules = self.dialect.bind(served).rules
        most = rules.slots + rules.implicit if rules.has_marks else 0
        for dynamic in (False, True):
            session = session_for(self.dialect, served)
            for request in converse(session, dynamic=dynamic):
                assert len(marks_in(request.body, self.mark_fields)) <= most
            assert len(marks_in(session.fork(task="go on").request(None).body, self.mark_fields)) <= most

    def test_a_model_that_takes_marks_gets_them(self, served: str) -> None:
        """A prompt above the minimum is marked."""
        body = session_for(self.dialect, served).request("Hello").body
        assert bool(marks_in(body, self.mark_fields)) == self.dialect.bind(served).rules.has_marks

    def test_marks_stand_on_kinds_that_take_them(self, served: str) -> None:
        """The ``type`` of what is marked is one of ``markable``; a tool counts as ``tool``."""
        markable = self.dialect.bind(served).rules.markable
        for request in converse(session_for(self.dialect, served), dynamic=True):
            for path, item in marks_in(request.body, self.mark_fields):
                kind = "tool" if path[0] == "tools" else item.get("type")
                assert kind in markable or _holds(item, markable), f"{path} is a {kind!r}"

    def test_nothing_below_the_minimum_is_marked(self, served: str) -> None:
        """A prompt too short for the cache carries no breakpoint."""
        rules = self.dialect.bind(served).rules
        request = short_session(self.dialect, served).request("Hello")
        if rules.min_tokens > 100:
            assert marks_in(request.body, self.mark_fields) == []
        for request in converse(session_for(self.dialect, served)):
            snapshot = request.snapshot
            explicit = [mark for mark in snapshot.marks if not (rules.implicit and mark == snapshot.end)]
            assert all(snapshot.tokens_at(mark) >= rules.min_tokens for mark in explicit)

    def test_a_mark_changes_nothing_else(self, served: str) -> None:
        """``mark_part`` gives a new part that says the same, and keeps a mark that is there."""
        dialect = self.dialect.bind(served)
        part = dialect.dynamic_part("some text")
        if not dialect.rules.has_marks:
            return
        before = wire_json(part)
        for long in (False, True):
            marked = dialect.mark_part(part, long=long)
            assert wire_json(part) == before
            assert {key: value for key, value in marked.items() if key not in self.mark_fields} == part
            assert len(marks_in(marked, self.mark_fields)) == 1
            assert dialect.mark_part(marked, long=not long) == marked
            assert_read_only(marked)

    def test_long_marks_come_first(self, served: str) -> None:
        """An entry that lives long is not written behind one that does not."""
        dialect = self.dialect.bind(served)
        if not dialect.rules.has_marks or dialect.rules.ttl_long is None:
            return
        long = self._mark_of(dialect.mark_part(dialect.dynamic_part("text"), long=True))
        for request in converse(session_for(self.dialect, served)):
            marked = marks_in(request.body, self.mark_fields)
            marked.sort(
                key=lambda mark: self.prompt_fields.index(str(mark[0][0]))
            )  # stable: else as they stand
            lives = [self._mark_of(item) == long for _, item in marked]
            assert lives == sorted(lives, reverse=True)

    def _mark_of(self, item: Mapping[str, Any]) -> list[Any]:
        return [item.get(field) for field in sorted(self.mark_fields)]


def _holds(item: Mapping[str, Any], markable: frozenset[str]) -> bool:
    """Whether it is a part named by its only field, as in ``{"text": "hi"}``."""
    return not item.keys().isdisjoint(markable) and "type" not in item


class RoutesByKey(DialectExamples):
    """The routing key goes where the rules say, and nowhere else."""

    def test_the_routing_key_stands_in_its_field(self, served: str) -> None:
        """The field is the one that ``routing_field`` names; without one, the key is not sent."""
        field = self.dialect.bind(served).rules.routing_field
        body = session_for(self.dialect, served).request("Hello").body
        sent = [
            (*path, key)
            for path, item in containers(body)
            if isinstance(item, Mapping)
            for key, value in item.items()
            if isinstance(value, str) and ROUTING_KEY in value
        ]
        assert sent == ([] if field is None else [(field,)])
