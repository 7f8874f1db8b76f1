"""Ways to keep a recorded session inside a window: what each would have sent, call by call.

What a session with a ``Compaction`` does is in ``selfkept``; here are those that it is measured against. All of them keep
the system prompt, the tools, the first message of a user, and calls beside their results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, get_args

import msgspec

from ..compaction.pairs import answers, blocks, first_user
from ..errors import ReplayError
from ..messages import Message, ToolResult
from .formats import SUMMARY
from .layouts import fitted
from .recordings import Call, Recording
from .summaries import Summaries

__all__ = ["COMPACTIONS", "TARGET", "WINDOW", "CompactionName", "Kept", "Way", "Window", "unfolded", "way_of"]

CompactionName = Literal["never", "auto", "recorded", "sliding-window", "clear-one", "fresh-summary"]
COMPACTIONS: tuple[str, ...] = get_args(CompactionName)
WINDOW = 150_000  # tokens; the prompts of the recorded sessions stay below it
TARGET = 0.3  # what is left after a summary, as a share of the window: the same for all that make one
_CLEARED = "[Old tool result content cleared]"


class Kept(msgspec.Struct, frozen=True):
    """What a call sends of the history. ``folded``: messages that a prompt of its own has summarised before."""

    messages: tuple[Message, ...]
    folded: tuple[Message, ...] = ()
    compacted: bool = False


class Window(msgspec.Struct, frozen=True):
    """The room for the history: ``tokens`` in all, of which tools and system text take ``head``."""

    tokens: int
    head: int
    count: Callable[[Message], int]

    @property
    def room(self) -> int:
        """Tokens that the history may have."""
        return self.tokens - self.head

    @property
    def target(self) -> int:
        """Tokens that the history has after a summary."""
        return max(0, int(TARGET * self.tokens) - self.head)

    def size(self, messages: Sequence[Message]) -> int:
        """The tokens of messages."""
        return sum(map(self.count, messages))


class Way(Protocol):
    """One way to keep a history small."""

    def __call__(self, index: int, new: Sequence[Message]) -> Kept:
        """What call number ``index`` sends, after ``new`` messages were said."""


def unfolded(recording: Recording, *, takes_names: bool) -> Recording:
    """The recording as if nothing had ever been left out: each call sends all that was said before it.

    Raises ``ReplayError`` for a recording of several agents, or one that edits its history otherwise.
    """
    if len(recording.agents) != 1:
        raise ReplayError("a recording of several agents: compaction is replayed for sessions of one agent")
    folds = {fold.call: fold for fold in recording.folds}
    said, sent, calls = 0, 0, list[Call]()
    for index, call in enumerate(recording.calls):
        fold = folds.get(index)
        known = 0 if fold is None else 1 + said - fold.first_kept
        if fold is None and call.keep != sent:
            raise ReplayError("the recorded program edited its history: there is no whole one to replay")
        new = tuple(fitted(message, takes_names) for message in call.new[known:])
        reply = fitted(call.reply, takes_names)
        calls.append(Call(0, said, new, reply, call.reported, call.at))
        said, sent = said + len(new), call.keep + len(call.new)
    return msgspec.structs.replace(recording, calls=tuple(calls))


def way_of(name: str, recording: Recording, window: Window, summaries: Summaries) -> Way:
    """The way by its name: one of ``COMPACTIONS``, but not ``auto``."""
    if name == "recorded":
        return _Recorded(recording)
    if name == "fresh-summary":
        return _Fresh(window, summaries)
    return {"never": _Never, "sliding-window": _Sliding, "clear-one": _Clearing}[name](window)


class _Never:
    """All of it, whether it fits or not."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._now: list[Message] = []

    def __call__(self, index: int, new: Sequence[Message]) -> Kept:
        self._now.extend(new)
        before = len(self._now)
        gone = self._shortened(self._window.size(self._now) - self._window.room)
        return Kept(tuple(self._now), (), compacted=gone or len(self._now) < before)

    def _shortened(self, over: int) -> bool:
        """Make what is sent smaller by ``over`` tokens, if that is more than 0; whether anything changed."""
        return False


class _Sliding(_Never):
    """At each call as many of the newest messages as fit: the oldest go."""

    def _shortened(self, over: int) -> bool:
        gone = _oldest(self._now, over, self._window)
        _leave_out(self._now, gone)
        return gone[0] < gone[1]


class _Clearing(_Never):
    """Where a call does not fit, one old result of a tool after the other loses its text; without any left, the oldest go."""

    def _shortened(self, over: int) -> bool:
        cleared = 0
        for index, message in enumerate(self._now):
            if over <= 0:
                break
            if index < len(self._now) - 1 and _clearable(message):
                self._now[index] = _without_text(message)
                over -= self._window.count(message) - self._window.count(self._now[index])
                cleared += 1
        gone = _oldest(self._now, over, self._window)
        _leave_out(self._now, gone)
        return cleared > 0 or gone[0] < gone[1]


class _Fresh:
    """Where a call does not fit, a summary by a prompt of its own stands for the oldest messages."""

    def __init__(self, window: Window, summaries: Summaries) -> None:
        self._window, self._summaries = window, summaries
        self._now: list[Message] = []

    def __call__(self, index: int, new: Sequence[Message]) -> Kept:
        self._now.extend(new)
        window = self._window
        if window.size(self._now) <= window.room:
            return Kept(tuple(self._now))
        summary = Message("user", SUMMARY.format(summary=self._summaries.next()))
        over = window.size(self._now) + window.count(summary) - window.target
        start, end = _oldest(self._now, over, window)
        folded = tuple(self._now[start:end])
        self._now[start:end] = [summary]
        return Kept(tuple(self._now), folded, compacted=True)


class _Recorded:
    """What the recorded program sent; each summary was made by a prompt of its own."""

    def __init__(self, recording: Recording) -> None:
        self._folds = {fold.call: fold for fold in recording.folds}
        self._whole: list[Message] = []
        self._now: list[Message] = []
        self._first = 0

    def __call__(self, index: int, new: Sequence[Message]) -> Kept:
        fold = self._folds.get(index)
        if fold is None:
            self._whole.extend(new)
            self._now.extend(new)
            return Kept(tuple(self._now))
        opening = self._now[:1] if self._first else []
        folded = (*opening, *self._whole[self._first : fold.first_kept])
        self._whole.extend(new)
        self._first = fold.first_kept
        summary = Message("user", SUMMARY.format(summary=fold.summary))
        self._now = [summary, *self._whole[self._first :]]
        return Kept(tuple(self._now), folded, compacted=True)


def _oldest(messages: Sequence[Message], over: int, window: Window) -> tuple[int, int]:
    """The stretch of oldest messages, behind the first of a user, that is at least ``over`` tokens; what comes last stays."""
    at = first_user(messages)
    start = 0 if at is None else at + 1
    ends = [place for place in blocks(messages) if place > start]
    end = start
    for place in ends:
        if over <= 0:
            break
        over -= window.size(messages[end:place])
        end = place
    return start, end


def _leave_out(messages: list[Message], gone: tuple[int, int]) -> None:
    del messages[gone[0] : gone[1]]


def _clearable(message: Message) -> bool:
    return answers(message) and any(
        isinstance(part, ToolResult) and part.content != _CLEARED for part in message.parts
    )


def _without_text(message: Message) -> Message:
    parts = [
        ToolResult(part.call_id, _CLEARED, part.is_error) if isinstance(part, ToolResult) else part
        for part in message.parts
    ]
    return Message(message.role, parts, message.name)
