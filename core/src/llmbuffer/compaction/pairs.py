"""Which messages belong together: calls with their results, turns, and what bears reasoning."""

from __future__ import annotations

from collections.abc import Sequence

from ..messages import Message, Opaque, Part, Reasoning, Text, ToolResult

__all__ = [
    "answers",
    "bears_reasoning",
    "blocks",
    "first_user",
    "is_reasoning",
    "turns",
    "unpaired",
    "without_reasoning",
]

_KINDS = frozenset({"thinking", "redacted_thinking", "reasoning"})
_PLACEHOLDER = "(The reasoning was left out.)"


def answers(message: Message) -> bool:
    """Whether a message holds results of tools."""
    content = message._content
    return not isinstance(content, str) and any(isinstance(part, ToolResult) for part in content)


def turns(messages: Sequence[Message]) -> list[int]:
    """Where each turn begins: with the first of the messages that say something to the model.

    No call and its result lie on two sides of such a place.

    >>> turns([Message("user", "a"), Message("assistant", "b"), Message("developer", "c"), Message("user", "d")])
    [0, 2]
    """
    starts, before = [], False
    for index, message in enumerate(messages):
        asks = message.role != "assistant" and not answers(message)
        if asks and not before:
            starts.append(index)
        before = asks
    return starts


def blocks(messages: Sequence[Message]) -> list[int]:
    """Where each piece begins that stays whole or goes: a message, or one with calls and all that answers them.

    >>> from llmbuffer import ToolCall, ToolResult
    >>> blocks([Message("assistant", [ToolCall("1", "a", "")]), Message("tool", [ToolResult("1", "b")])])
    [0]
    """
    return [index for index, message in enumerate(messages) if index == 0 or not answers(message)]


def first_user(messages: Sequence[Message]) -> int | None:
    """The index of the first message that a user wrote; ``None`` if there is none."""
    found = (i for i, message in enumerate(messages) if message.role == "user" and not answers(message))
    return next(found, None)


def unpaired(messages: Sequence[Message]) -> str | None:
    """What is wrong with calls and results, in words; ``None`` if each result follows its call and each call has one.

    >>> unpaired([Message("assistant", "a")]) is None
    True
    """
    waiting: list[str] = []
    for message in messages:
        if not waiting and isinstance(message._content, str) and message.role != "tool":
            continue
        results = message.tool_results
        for result in results:
            if result.call_id not in waiting:
                return f"the result of call {result.call_id!r} is there, and the call is not"
            waiting.remove(result.call_id)
        if message.role == "tool" and not results:
            return "a tool message holds no result"
        if waiting and (not results or (message.role != "tool" and len(results) < len(message.parts))):
            return f"the calls {waiting} are there, and their results are not"
        waiting += message.call_ids
    return f"the calls {waiting} are there, and their results are not" if waiting else None


def is_reasoning(part: Part) -> bool:
    """Whether a part is reasoning of a model: plain text, or a provider's signed or sealed block.

    >>> is_reasoning(Reasoning("first, …")), is_reasoning(Text("hello"))
    (True, False)
    """
    if isinstance(part, Reasoning):
        return True
    if not isinstance(part, Opaque) or part.slot not in ("content", "item"):
        return False
    if b"thinking" not in part.json and b"reasoning" not in part.json and b'"thought"' not in part.json:
        return False
    value = part.value
    return isinstance(value, dict) and (value.get("type") in _KINDS or value.get("thought") is True)


def bears_reasoning(message: Message) -> bool:
    """Whether a reply holds reasoning."""
    return (
        message.role == "assistant"
        and not isinstance(message._content, str)
        and any(map(is_reasoning, message._content))
    )


def without_reasoning(message: Message) -> Message:
    """The reply without reasoning; a line stands for it where nothing else was said. Other messages as they are.

    >>> without_reasoning(Message("assistant", [Reasoning("first, …"), Text("hello")])).parts
    (Text(text=<5>),)
    """
    if not bears_reasoning(message):
        return message
    kept = [part for part in message.parts if not is_reasoning(part)]
    said = any(not isinstance(part, Opaque) or not part.slot.startswith("field:") for part in kept)
    return Message(
        message.role, kept if said else [Text(_PLACEHOLDER), *kept], message.name, _shape=message._shape
    )
