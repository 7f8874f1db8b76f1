"""What rendering promises: the same bytes each time, read-only, and nothing lost."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from ...errors import LossyError
from ...frozen import FrozenDict, FrozenList, wire_json
from ...messages import Message, Opaque, Tool
from ...rules import Dialect, Rendered
from .cases import ASSISTANT, CALL_NAMES, MESSAGES, TOOLS, converse, said, session_for
from .examples import DialectExamples
from .trees import containers, leaves

__all__ = ["LosesNothing", "RendersPurely", "assert_read_only"]


class RendersPurely(DialectExamples):
    """Rendering is a function of its arguments, and what it gives can be shared."""

    def test_rendering_twice_gives_the_same_bytes(self, served: str) -> None:
        """A message renders the same on every dialect bound to the model, or is refused by all."""
        one, other = self.dialect.bind(served), self.dialect.bind(served)
        for message in MESSAGES:
            for previous in (None, "user", "assistant"):
                first, second = (_rendered(each, message, previous) for each in (one, other))
                assert (first is None) == (second is None), message
                if first is not None and second is not None:
                    assert wire_json(first.blocks) == wire_json(second.blocks), message
                    assert first == second

    def test_answering_leaves_the_dialect_as_it_was(self, served: str) -> None:
        """The names of open calls change how results render on the dialect that was given back, and nowhere else."""
        dialect = self.dialect.bind(served)
        results = [message for message in MESSAGES if message.tool_results]
        before = [_wire(dialect, message) for message in results]
        answering = dialect.answering(CALL_NAMES)
        assert answering.rules == dialect.rules
        told = [_wire(answering, message) for message in results]
        dialect.answering(dict.fromkeys(CALL_NAMES, "another"))
        assert [_wire(dialect, message) for message in results] == before
        assert [_wire(answering, message) for message in results] == told
        assert any(told), "all tool results were refused"

    def test_what_is_rendered_is_read_only(self, served: str) -> None:
        """Every object and list of a rendered message is read-only."""
        for _, rendered in self._all_rendered(served):
            assert isinstance(rendered.blocks, tuple)
            for block in rendered.blocks:
                assert_read_only(block)

    def test_a_mark_has_a_part_to_stand_on(self, served: str) -> None:
        """``mark_at`` is -1 or the index of a content part, and -1 where the model takes no breakpoints."""
        dialect = self.dialect.bind(served)
        for message, rendered in self._all_rendered(served):
            parts = rendered.blocks
            if parts and not rendered.joins:
                parts = tuple(parts[-1].get(dialect.content_key) or ())
            assert -1 <= rendered.mark_at < len(parts), message
            assert rendered.mark_at == -1 or dialect.rules.has_marks, message

    def _all_rendered(self, served: str) -> Iterator[tuple[Message, Rendered]]:
        for message in MESSAGES:
            rendered = _rendered(self.dialect.bind(served), message, "user")
            if rendered is not None:
                yield message, rendered

    def test_nobody_can_damage_a_session_through_a_body(self, served: str) -> None:
        """A body refuses changes; changes to a deep copy and to the SDK's arguments are not seen by the session."""
        request = session_for(self.dialect, served).request("Hello")
        before = wire_json(request.body)
        assert_read_only(request.body)
        for mine in (copy.deepcopy(request.body), request.kwargs):
            for _, container in reversed(list(containers(mine))):
                if not isinstance(container, FrozenDict | FrozenList):
                    container.clear()
        assert wire_json(request.body) == before
        assert wire_json(request.session.request("Hello").body) == before


def _rendered(dialect: Dialect, message: Message, previous_role: str | None) -> Rendered | None:
    """The message rendered; ``None`` where it is refused. A result is told which tool it is of, as by a session."""
    renders = dialect.answering(CALL_NAMES) if message.tool_results else dialect
    try:
        return renders.render_message(message, previous_role)
    except LossyError:
        return None


def _wire(dialect: Dialect, message: Message) -> bytes:
    """What a message is rendered to on this very dialect; nothing where it is refused."""
    try:
        return wire_json(dialect.render_message(message, "user").blocks)
    except LossyError:
        return b""


def assert_read_only(value: Any) -> None:
    """Assert that every object and list in a JSON value is read-only."""
    for path, container in containers(value):
        assert isinstance(container, FrozenDict | FrozenList), (
            f"{path} is a plain {type(container).__name__}: freeze it, since requests and forks share it"
        )


class LosesNothing(DialectExamples):
    """What has no place on the wire is refused with ``LossyError``; nothing is dropped silently."""

    def test_all_that_a_message_says_is_on_the_wire(self, served: str) -> None:
        """Every text, address, id and name of a message occurs in what was rendered."""
        for message in MESSAGES:
            rendered = _rendered(self.dialect.bind(served), message, "user")
            if rendered is not None:
                sent = "\n".join(filter(_is_text, leaves(rendered.blocks)))
                missing = [text for text in said(message) if text not in sent]
                assert missing == [], f"lost of {message!r}"

    def test_not_everything_is_refused(self, served: str) -> None:
        """Texts, calls with plain arguments and their results have a place in any dialect."""
        for request in converse(session_for(self.dialect, served)):
            assert request.body

    def test_a_reply_comes_back_equal(self, served: str) -> None:
        """A message of the assistant, rendered and read as a reply, is equal.

        Opaque parts of other dialects may come back with another label, or in pieces; what they say stays.
        """
        dialect = self.dialect.bind(served)
        for message in ASSISTANT:
            rendered = _rendered(dialect, message, "user")
            if rendered is not None and not _is_foreign(message, dialect):
                back = dialect.read_message(self.as_response(rendered.blocks))
                assert self.comparable(back) == self.comparable(message), f"{message!r} came back as {back!r}"

    def test_a_reply_that_goes_on_says_all_it_said(self, served: str) -> None:
        """Example replies are rendered for the next request without loss."""
        dialect = self.dialect.bind(served)
        for response, message in self.replies:
            blocks = dialect.render_message(dialect.read_message(response), "user").blocks
            again = dialect.read_message(self.as_response(blocks))
            assert self.comparable(again) == self.comparable(message)

    def test_a_tool_keeps_its_schema(self, served: str) -> None:
        """Name, description and schema are on the wire, the keys in the order first seen."""
        dialect = self.dialect.bind(served)
        for given in TOOLS:
            tool = Tool.of(given)
            wire = dialect.render_tool(tool)
            assert_read_only(wire)
            assert wire_json(dialect.render_tool(tool)) == wire_json(wire)
            assert {tool.name, tool.description or tool.name} <= set(filter(_is_text, leaves(wire)))
            if tool.parameters is not None:
                schemas = [wire_json(each) for _, each in containers(wire)]
                assert tool.parameters in schemas, "the schema was rewritten"


def _is_foreign(message: Message, dialect: Dialect) -> bool:
    return any(isinstance(part, Opaque) and part.dialect != dialect.name for part in message.parts)


def _is_text(leaf: Any) -> bool:
    return isinstance(leaf, str)
