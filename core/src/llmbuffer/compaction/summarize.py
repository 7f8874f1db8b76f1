"""Summaries in place of old messages, made once for all forks."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

import msgspec

from ..errors import CompactionError, HookError
from ..messages import Message, Part, Text, ToolResult
from .base import Budget, Moment, Native, Summarize, name_of, original_id
from .gap import Gap, gap_of
from .running import PendingError, copied

__all__ = ["INSTRUCTION", "Expected", "Summarizer"]

INSTRUCTION = (
    "Summarize our conversation up to here, so that the summary can stand in place of its older messages. Keep what is "
    "needed to go on: what was asked for, what was decided and why, what was found out, names, numbers, identifiers and "
    "file names, what is done and what is still open. Call no tools. Answer with the summary alone."
)
_REMEMBERED = 512  # summaries


class Expected(msgspec.Struct, frozen=True):
    """What a summary would come to, before it is made.

    ``start`` is the first message that would change, ``left`` the tokens from there on, ``making`` those of the summary.
    """

    start: int
    left: int
    making: int


class Summarizer(Native):
    """Between turns: a summary stands in place of the oldest turns. At commit time: in place of a long result of a tool.

    ``summarize`` gets the messages and returns a text, or a ``Message``; it may be asynchronous where the session is used with
    ``arespond``, ``astream`` or ``acompact``. ``None`` asks the session's own model, with a fork of the session that reads the
    cached prompt (with ``instruction`` behind it). ``over``: fewer tokens are not worth a summary. ``keep_last`` newest turns
    stay, and ``length`` tokens are expected of a summary. ``moment`` is ``between`` or ``commit``.

    A summary is remembered by what it stands for, so all forks get the same bytes and pay once. Raises ``CompactionError``
    for arguments that make no sense.

    >>> history = [Message(role, text * 4000) for text in "abc" for role in ("user", "assistant")]
    >>> short = Summarizer(lambda messages: f"{len(messages)} messages", over=100)(history, Budget(2000))
    >>> [message.text[:43] for message in short][1]
    '[Summary of 3 messages with 3,014 tokens. T'
    """

    moment: Moment
    waits = True

    def __init__(
        self,
        summarize: Summarize | None = None,
        over: int = 1_000,
        *,
        keep_last: int = 1,
        length: int = 600,
        moment: Moment = "between",
        instruction: str = INSTRUCTION,
    ) -> None:
        if summarize is not None and not callable(summarize):
            raise CompactionError(f"summarize is a {type(summarize).__name__}: give a callable, or None")
        if moment not in ("between", "commit"):
            raise CompactionError(f"moment is {moment!r}: give 'between' or 'commit'")
        if moment == "commit" and summarize is None:
            raise CompactionError("at commit time nothing is cached yet: give a callable as summarize")
        if over < 0 or keep_last < 1 or length < 1:
            raise CompactionError(
                f"over={over!r}, keep_last={keep_last!r}, length={length!r}: give numbers, 0, 1 and 1 at least"
            )
        self.over, self.keep_last, self.length = over, keep_last, length
        self.moment, self.instruction = moment, instruction
        self._summarize = summarize
        self._memo: OrderedDict[str, str] = OrderedDict()
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {**vars(self), "_memo": self._memo.copy(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=Lock())

    @property
    def asks_session(self) -> bool:
        """Whether the session's own model makes the summaries."""
        return self._summarize is None

    def __call__(self, messages: Sequence[Message], budget: Budget) -> Sequence[Message]:
        """The messages with a summary; as they were where none is worth it."""
        if budget.moment == "commit":
            return [self._shortened(message, budget) for message in messages]
        gap = self._gap(messages, budget)
        if gap is None:
            return messages
        dropped = [messages[index] for index in gap.dropped]
        name = budget.keep(dropped)
        text = self._text(dropped, budget)
        line = (
            f"[Summary of {len(dropped)} messages with {gap.tokens:,} tokens. The id of the originals is "
            f'"{name}".]\n{text}'
        )
        return gap.filled(messages, Message("assistant", line))

    def expected(self, messages: Sequence[Message], budget: Budget) -> Expected | None:
        """What a summary would come to, without making it; ``None`` where there is nothing to do.

        The same whether it was made before or not: else the first of two forks would decide otherwise than the second.
        """
        gap = self._gap(messages, budget)
        if gap is None:
            return None
        before = sum(map(budget.count, messages[: gap.start]))
        total = sum(map(budget.count, messages))
        return Expected(gap.start, total - before - gap.tokens + self.length, self.length)

    def _gap(self, messages: Sequence[Message], budget: Budget) -> Gap | None:
        gap = gap_of(messages, budget, keep_last=self.keep_last, allowance=self.length)
        return None if gap is None or gap.tokens <= self.over else gap

    def _shortened(self, message: Message, budget: Budget) -> Message:
        if not message.tool_results or budget.count(message) <= self.over:
            return message
        name = budget.keep([message])
        line = f'[Summary of {budget.count(message):,} tokens. The id of the original is "{name}".]'
        said = f"{line}\n{self._text([message], budget)}"
        parts: list[Part] = []
        for part in message.parts:
            if not isinstance(part, ToolResult):
                parts.append(part)
                continue
            parts.append(ToolResult(part.call_id, said, part.is_error))
            said = line  # several results share one summary
        return Message(message.role, parts, message.name)

    def _text(self, messages: Sequence[Message], budget: Budget) -> str:
        key = original_id(messages)
        known = self._known(key)
        if known is not None:
            return known
        if self._summarize is None and budget.summarize is None:
            raise HookError(
                "Summarizer() asks the session's own model, and the session has no client: give Session(client=…), or "
                "Summarizer(summarize)",
                hook=name_of(self),
                reason="the session has no client",
            )
        made = self._made([copied(message) for message in messages], budget)
        if inspect.isawaitable(made):
            raise PendingError(made, lambda value: self._take(key, value), self)
        return self._take(key, made)

    def _made(self, messages: list[Message], budget: Budget) -> Any:
        if self._summarize is not None:
            return self._summarize(messages)
        assert budget.summarize is not None, "checked before"
        return budget.summarize(messages, self.instruction)

    def _known(self, key: str) -> str | None:
        with self._lock:
            return self._memo.get(key)

    def _take(self, key: str, made: Any) -> str:
        text = _said(made)
        wrong = _wrong(text)
        if wrong is not None:
            reason = f"its summary is a {type(made).__name__} {wrong}"
            raise HookError(
                f"hook {name_of(self)!r} cannot be used: {reason}; give a text",
                hook=name_of(self),
                reason=reason,
            )
        with self._lock:  # whoever came first is right: all forks say the same
            text = self._memo.setdefault(key, text)
            while len(self._memo) > _REMEMBERED:
                self._memo.popitem(last=False)
        return text


def _wrong(text: str) -> str | None:
    """Why no message can hold a summary; ``None`` if one can."""
    if not text.strip():
        return "without text"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "with a lone surrogate, which UTF-8 cannot carry"
    return None


def _said(made: Any) -> str:
    if isinstance(made, str):
        return made
    if isinstance(made, Message):
        return "".join(part.text for part in made.parts if isinstance(part, Text))
    return ""
