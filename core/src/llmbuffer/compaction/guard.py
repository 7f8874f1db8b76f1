"""What the output of a hook has to keep, whatever the hook is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import LLMBufferError
from ..messages import Message
from .pairs import first_user, turns, unpaired, without_reasoning

__all__ = ["Kept", "check_commit", "check_history", "read"]

Legal = Callable[[Sequence[Message]], None]


class Kept:
    """A history as a hook is given it, and what has to survive: computed once for a whole chain of hooks.

    ``pinned`` says whether a message has to stay, ``legal`` raises an ``LLMBufferError`` for messages that the dialect
    cannot send.
    """

    def __init__(
        self,
        messages: Sequence[Message],
        *,
        pinned: Callable[[Message], bool] | None = None,
        legal: Legal | None = None,
    ) -> None:
        self.legal = legal
        self.pins = [] if pinned is None else [message for message in messages if pinned(message)]
        at = first_user(messages)
        self.first = None if at is None else messages[at]
        starts = turns(messages)
        self.newest = tuple(messages[starts[-1] :]) if starts else tuple(messages[-1:])


def read(output: object) -> tuple[Message, ...] | str:
    """What a hook returned, or why it is nothing that messages can be read from.

    >>> read(None)
    'it returned nothing'
    >>> read(["a"])
    'it returned a str among the messages'
    """
    if output is None:
        return "it returned nothing"
    if isinstance(output, str | bytes) or not isinstance(output, Sequence):
        return f"it returned a {type(output).__name__}: messages are a list or a tuple"
    odd = [type(each).__name__ for each in output if not isinstance(each, Message)]
    return f"it returned a {odd[0]} among the messages" if odd else tuple(output)


def check_history(
    kept: Kept,
    after: Sequence[Message],
    *,
    before_tokens: int,
    after_tokens: int,
    max_loss: float = 1.0,
) -> str | None:
    """Which rule the output of a hook breaks, in words; ``None`` if none.

    Tool calls and results stay paired; pinned messages, the first user message and the newest turn (but for its reasoning)
    survive; there are fewer tokens than before, though no more than ``max_loss`` of them went; the dialect can send it.

    >>> messages = [Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d")]
    >>> check_history(Kept(messages), messages[:1] + messages[2:], before_tokens=4, after_tokens=3) is None
    True
    >>> check_history(Kept(messages), messages[2:], before_tokens=4, after_tokens=2)
    'the first user message is gone'
    """
    wrong = unpaired(after) or _lost(kept, after)
    if wrong is not None:
        return wrong
    if after_tokens >= before_tokens:
        return f"it left {after_tokens:,} of {before_tokens:,} tokens: the result has to be smaller"
    if before_tokens - after_tokens > max_loss * before_tokens:
        share = 1 - after_tokens / before_tokens
        return f"it took {share:.0%} of the tokens away, and max_loss allows {max_loss:.0%}"
    return _refused(kept.legal, after)


def _lost(kept: Kept, after: Sequence[Message]) -> str | None:
    if kept.first is not None:
        at = first_user(after)
        if at is None or not _same(after[at], kept.first):
            return "the first user message is gone"
    if not _ends_with(after, kept.newest):
        return "the newest turn is not what it was"
    left = iter(after)
    if not all(any(_same(each, pin) for each in left) for pin in kept.pins):
        return "a pinned message is gone"
    return None


def _same(one: Message, two: Message) -> bool:
    return one is two or one == two


def _ends_with(after: Sequence[Message], newest: Sequence[Message]) -> bool:
    if not newest:
        return True
    tail = after[-len(newest) :]
    return len(tail) == len(newest) and all(
        _same(one, two) or without_reasoning(one) == without_reasoning(two)
        for one, two in zip(tail, newest, strict=True)
    )


def _refused(legal: Legal | None, after: Sequence[Message]) -> str | None:
    if legal is None:
        return None
    try:
        legal(after)
    except LLMBufferError as error:
        return f"the dialect cannot send it: {error}"
    return None


def check_commit(
    before: Message,
    after: Sequence[Message],
    *,
    before_tokens: int,
    after_tokens: int,
    pinned: bool = False,
    legal: Legal | None = None,
) -> str | None:
    """Which rule the output of a commit-time hook breaks, in words; ``None`` if none.

    It gives one message for one, of the same role and speaker, that answers the same calls and is smaller.

    >>> check_commit(Message("user", "long"), [], before_tokens=2, after_tokens=0)
    'it made 0 messages of one'
    """
    if len(after) != 1:
        return f"it made {len(after)} messages of one"
    (new,) = after
    if (new.role, new.name) != (before.role, before.name):
        return f"it made a {new.role} message of a {before.role} message"
    if _answers(new) != _answers(before) or new.call_ids != before.call_ids:
        return "the calls that the message answers are not what they were"
    if pinned:
        return "a pinned message is not what it was"
    if after_tokens >= before_tokens:
        return f"it left {after_tokens:,} of {before_tokens:,} tokens: the result has to be smaller"
    return _refused(legal, after)


def _answers(message: Message) -> list[tuple[str, bool]]:
    return [(result.call_id, result.is_error) for result in message.tool_results]
