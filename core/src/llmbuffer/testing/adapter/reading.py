"""How an adapter reads its framework's messages."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ...errors import LLMBufferError, LossyError
from ...messages import Message, Opaque, Text, ToolCall, ToolResult
from ...reconcile import dynamic_text, unmarked
from ...seam import Seam
from ..dialect.cases import MESSAGES
from .examples import AdapterExamples

__all__ = ["LeavesTheUnknown", "ReadsMessages", "StripsMarks"]

# What no adapter may refuse.
COMMON = (
    Message("user", "Where is parcel 7?"),
    Message("assistant", "In Lyon, “naïve” 漢字 🫖."),
    Message("assistant", [ToolCall("call_1", "look_up", '{"q":"x"}')]),
    Message("tool", [ToolResult("call_1", "the result")]),
)


class ReadsMessages(AdapterExamples):
    """A message of ours becomes the framework's, and the framework's becomes the same one again."""

    @pytest.mark.parametrize("message", COMMON, ids=["user", "assistant", "call", "result"])
    def test_what_every_framework_says_comes_back(self, message: Message) -> None:
        """Texts, calls and results make the round trip."""
        host: Any = self.host()
        assert host.to_message(host.from_message(message)) == message

    def test_every_message_comes_back_equal_or_is_refused(self) -> None:
        """Images, files, reasoning, odd arguments, names, errors: an equal value, or ``LossyError``; nothing in between."""
        host: Any = self.host()
        lost = [message for message in MESSAGES if not _comes_back(host, message)]
        assert lost == [], "raise LossyError for what has no place in the framework's messages"

    def test_equal_objects_have_equal_leaves(self) -> None:
        """A fresh copy is no news."""
        host: Any = self.host()
        for message in COMMON:
            item = host.from_message(message)
            again = host.from_message(message)
            assert host.leaves(item) == host.leaves(copy.copy(item)) == host.leaves(item)
            assert hash(host.leaves(item)) == hash(host.leaves(item))
            assert host.to_message(again) == host.to_message(item)

    def test_another_content_has_other_leaves(self) -> None:
        """An edit is seen: messages that say something else differ in their leaves."""
        host: Any = self.host()
        readable = [message for message in MESSAGES if _is_taken(host, message)]
        leaves = [host.leaves(host.from_message(message)) for message in readable]
        same = [
            (one, other)
            for place, one in enumerate(readable)
            for at, other in enumerate(readable[:place])
            if leaves[place] == leaves[at] and one != other
        ]
        assert same == []

    def test_reading_changes_nothing(self) -> None:
        """The framework's object is the same after it was read."""
        host: Any = self.host()
        for message in COMMON:
            item = host.from_message(message)
            before = host.leaves(item)
            host.to_message(item)
            assert host.leaves(item) == before


def _is_taken(host: Any, message: Message) -> bool:
    try:
        host.from_message(message)
    except LossyError:
        return False
    return True


def _comes_back(host: Any, message: Message) -> bool:
    try:
        return bool(host.to_message(host.from_message(message)) == message)
    except LossyError:
        return True


class StripsMarks(AdapterExamples):
    """Marks of ``dynamic_text`` come off a message, and nothing else changes."""

    def test_marks_come_off_a_copy(self) -> None:
        """The copy says the text without marks; the framework's own object stays as it is."""
        host: Any = self.host()
        item = host.from_message(Message("user", f"It is {dynamic_text('now', '12:00')}, hurry."))
        before = host.leaves(item)
        bare = host.stripped(item, unmarked)
        assert host.to_message(bare) == Message("user", "It is 12:00, hurry.")
        assert host.leaves(item) == before


class LeavesTheUnknown(AdapterExamples):
    """What the adapter cannot read goes out untouched, and is reported."""

    def test_an_unreadable_message_passes_untouched(self) -> None:
        """The plan holds the framework's own object, and says where it stands or keeps its content as opaque."""
        host, told = self._told()
        seam = Seam(host, model="gpt-5.5")
        plan = seam.call(messages=told, conversation="one").plan
        assert plan.messages[1] is told[1]
        assert 1 in plan.unknown or _is_opaque(host, told[1]), "neither in plan.unknown nor opaque"

    def test_a_request_goes_on_behind_it(self) -> None:
        """The next prompt is an extension, whatever was in the message that could not be read."""
        host, told = self._told()
        seam = Seam(host, model="gpt-5.5")
        call = seam.call(messages=told, conversation="one")
        call.observe({"usage": {"prompt_tokens": 20, "completion_tokens": 1}, "choices": []})
        more = [*told, host.from_message(Message("user", "And now?"))]
        assert seam.call(messages=more, conversation="one").plan.relation == "extension"

    def _told(self) -> tuple[Any, list[Any]]:
        """The adapter's host, and two of its messages: the second is the unreadable one."""
        item = self.unreadable()
        if item is None:
            pytest.skip("unreadable() is None: the framework has no content that a Message has no place for")
        host: Any = self.host()
        return host, [host.from_message(Message("user", "Hello")), item]


def _is_opaque(host: Any, item: Any) -> bool:
    try:
        message = host.to_message(item)
    except LLMBufferError:
        return False
    return any(isinstance(part, Opaque) for part in message.parts) and not all(
        isinstance(part, Text) for part in message.parts
    )
