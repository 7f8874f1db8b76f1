"""The history of members who share one prefix: every message reads the same for each of them."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import Any

from ..errors import LLMBufferError
from ..messages import Message
from ..parts import Text
from ..team.telling import Said, told
from .hosts import Host, Leaves

__all__ = ["Teller"]

_Shown = tuple[Any, Leaves] | None  # an object and its leaves; ``None`` for the host's own
_SPARE = 64  # messages beyond twice those of the last prompt that are remembered as told


class Teller:
    """Tells the messages of one conversation alike to all its members; used under the router's lock.

    Messages that say by their role who reads them (the reader's own are an assistant's, those of others a user's with a name)
    are told with the speaker in front, by an object of ours that stands for all readings. All others go out as the host's own
    objects, tool calls and their results always: providers want them in pairs, and nobody reads them otherwise. ``retold``
    says whether roles depend on who reads; ``None`` while that is not known. With ``named`` an assistant's messages that name
    their speaker are told so in any case: where no breakpoint can stand behind them, what follows would never be read again.
    """

    def __init__(self, host: Host, retold: bool | None = None, *, named: bool = False) -> None:
        self._host, self.retold, self._named = host, retold, named
        self._speaks = hasattr(host, "speaker") and hasattr(host, "from_message")
        self._known: dict[str, dict[Leaves, _Shown]] = {}  # by member: what goes out for a message
        self._objects: dict[Message, tuple[Any, Leaves]] = {}  # what stands for a message that was told
        self._first: dict[Message, tuple[Any, Leaves, bool]] = {}  # what is not told; whether it is a copy

    def tell(
        self, member: str, items: Sequence[Any], members: Collection[str]
    ) -> tuple[list[Any], list[Leaves]]:
        """The objects that go out for the host's, in their order, and their leaves.

        Work is that of one look-up a message that is known.
        """
        leaves = [self._host.leaves(item) for item in items]
        if not self._speaks or (self.retold is False and not self._named):
            return list(items), leaves
        known = self._known.setdefault(member, {})
        new = {each: item for each, item in zip(leaves, items, strict=True) if each not in known}
        if (
            new
            and self.retold is None
            and any(self._by_reader(item, member, members) for item in new.values())
        ):
            self.retold, new = True, dict(zip(leaves, items, strict=True))
            known = {}
            self._known = {member: known}
        for each, item in new.items():
            telling = self.retold or self._named
            known[each] = self._told(item, each, member, members) if telling else None
        shown = [known[each] or (item, each) for each, item in zip(leaves, items, strict=True)]
        if len(known) > 2 * len(items) + _SPARE:
            self._known[member] = {each: known[each] for each in leaves}
        if len(self._objects) + len(self._first) > 4 * len(items) + _SPARE:  # made again, they are equal
            self._objects, self._first = {}, {}
        return [item for item, _ in shown], [each for _, each in shown]

    def forget(self, member: str) -> None:
        """Let go of how a member's messages are told."""
        self._known.pop(member, None)

    def _read(self, item: Any) -> tuple[Message | None, str | None]:
        try:
            return self._host.to_message(item), self._host.speaker(item)  # type: ignore[attr-defined]
        except LLMBufferError:
            return None, None

    def _by_reader(self, item: Any, member: str, members: Collection[str]) -> bool:
        """Whether what another member said is handed over as a user's message."""
        message, speaker = self._read(item)
        asked = message is not None and message.role == "user" and not message.tool_results
        return asked and speaker in members and speaker != member

    def _told(self, item: Any, leaves: Leaves, member: str, members: Collection[str]) -> _Shown:
        """What goes out in place of an object; ``None`` for the object itself."""
        message, speaker = self._read(item)
        if message is None:
            return None
        try:
            return self._said(message, speaker, item, leaves, member, members)
        except LLMBufferError:  # nothing that could be told in words
            return None

    def _said(
        self,
        message: Message,
        speaker: str | None,
        item: Any,
        leaves: Leaves,
        member: str,
        members: Collection[str],
    ) -> _Shown:
        if message.tool_calls or message.tool_results:
            return self._as_first(Message(message.role, message.parts), leaves, item)
        if message.role == "assistant":
            if speaker is None and not self.retold:
                return None
            speaker = member if speaker is None else speaker
        elif message.role != "user" or speaker not in members:
            return self._as_first(_trimmed(message), leaves, item)
        assert speaker is not None, "a member's name, or it was left as it is"
        return self._standing_for(told(Said(speaker, (Message("assistant", _trimmed(message).parts),))))

    def _standing_for(self, found: Sequence[Message]) -> _Shown:
        if len(found) != 1:
            return None  # nothing was said
        known = self._objects.get(found[0])
        if known is None:
            item = self._host.from_message(found[0])  # type: ignore[attr-defined]
            known = self._objects[found[0]] = item, self._host.leaves(item)
        return known

    def _as_first(self, message: Message, leaves: Leaves, item: Any) -> _Shown:
        """A copy of what was handed over first for a message; ``None`` for the item itself, where it is the same."""
        known, first, copied = self._first.setdefault(message, (item, leaves, False))
        if first == leaves:
            return None
        if not copied:  # its host may edit its own object
            if self._host.leaves(known) != first:
                return None
            known = getattr(self._host, "copied", copy.deepcopy)(known)
            self._first[message] = known, first, True
        return known, first


def _trimmed(message: Message) -> Message:
    """Without space at its end, which some readers of a framework are handed and others not."""
    last = message.parts[-1] if message.parts else None
    if not isinstance(last, Text) or last.text == last.text.rstrip():
        return message
    return Message(message.role, [*message.parts[:-1], Text(last.text.rstrip())], message.name)
