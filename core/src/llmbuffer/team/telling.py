"""How a conversation reads: told to all alike, with the speakers named, or as one member sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ..context import Segment
from ..messages import File, Image, Message, Opaque, Part, Text, ToolCall, ToolResult

__all__ = ["Said", "cue", "heard", "named", "note_of", "reminder_of", "role_of", "told"]


class Said(msgspec.Struct, frozen=True):
    """What was said at one go: a message of nobody's in particular (``speaker`` is ``None``), or a member's turn.

    >>> Said(None, (Message("user", "Hello"),)).speaker is None
    True
    """

    speaker: str | None
    messages: tuple[Message, ...]


def named(speaker: str, message: Message) -> Message:
    """What a member said, for the others: a user message that begins with its name. Reasoning and calls are left out.

    >>> named("ann", Message("assistant", "Hello!")).text
    'ann: Hello!'
    """
    said = _without_name(speaker, [part for part in message.parts if isinstance(part, Text | Image | File)])
    return Message("user", _begun(f"{speaker}: ", said))


def told(said: Said) -> list[Message]:
    """The messages of a history that reads the same for everybody.

    Messages of nobody's stay as they are, but for a name, which moves into the text, since providers drop it. A member's
    turn is told in user messages: what it said, which tools it called with what arguments, and what they answered. A
    provider's own content is told as its JSON; reasoning is not told, since providers take it back from its author only.

    >>> call = Message("assistant", [ToolCall("c1", "search", '{"q":"tea"}')])
    >>> result = Message("tool", [ToolResult("c1", "2 found")])
    >>> [message.text for message in told(Said("ann", (call, result, Message("assistant", "Two."))))]
    ['ann called search({"q":"tea"})', 'search answered ann: 2 found', 'ann: Two.']
    """
    if said.speaker is None:
        return [_nobody(message) for message in said.messages]
    calls: dict[str, str] = {}
    out: list[Message] = []
    for message in said.messages:
        calls.update({call.id: call.name for call in message.tool_calls})
        pieces = (
            _own(said.speaker, message, calls) if message.role in ("assistant", "tool") else message.parts
        )
        if pieces:
            out.append(Message("user", pieces))
    return out


def heard(said: Said, member: str) -> list[Message]:
    """The same as ``member`` sees it in a prompt of its own: its own turns as they were, of others' what they said.

    >>> [message.text for message in heard(Said("ann", (Message("assistant", "Two."),)), "bob")]
    ['ann: Two.']
    """
    if said.speaker == member:
        return list(said.messages)
    if said.speaker is None:
        return [_nobody(message) for message in said.messages]
    others = (message for message in said.messages if message.role == "assistant" and message.text.strip())
    return [named(said.speaker, message) for message in others]


def role_of(name: str, persona: str, tools: Sequence[str], union: Iterable[str]) -> Segment:
    """The last text of a shared prompt: who the model is now, what for, and which tools it may use.

    >>> print(role_of("ann", "You sing.", ["sing"], ["sing", "dance"]).content)
    Speak as ann now, without the name in front.
    You sing.
    Of the tools, you may use only: sing.
    """
    lines = [_NOW.format(name=name), *_role_lines(persona, tools, union)]
    return Segment("role", "\n".join(lines), level="turn")


def note_of(name: str, persona: str, tools: Sequence[str], union: Iterable[str]) -> Message:
    r"""The same told once, for the transcript: ``reminder_of`` ends the prompts of this member from then on.

    >>> note_of("ann", "You sing.", [], []).text
    'The role of ann, and of nobody else:\nYou sing.'
    """
    lines = _role_lines(persona, tools, union) or ["A member of the team."]
    return Message("user", "\n".join([f"The role of {name}, and of nobody else:", *lines]))


def reminder_of(name: str) -> Segment:
    """The last text of a shared prompt whose transcript holds the member's role.

    >>> reminder_of("ann").content
    'Speak as ann now, without the name in front; its role is told above.'
    """
    return Segment("role", f"{_NOW.format(name=name).rstrip('.')}; its role is told above.", level="turn")


_NOW = "Speak as {name} now, without the name in front."


def _role_lines(persona: str, tools: Sequence[str], union: Iterable[str]) -> list[str]:
    lines = [persona.strip()] if persona.strip() else []
    if any(tool not in tools for tool in union):
        lines.append(
            f"Of the tools, you may use only: {', '.join(tools)}." if tools else "You may use no tools."
        )
    return lines


def cue(name: str) -> Message:
    """What stands for a user's words where the prompt would end in a member's own.

    >>> cue("ann").text
    'ann, it is your turn.'
    """
    return Message("user", f"{name}, it is your turn.")


def _nobody(message: Message) -> Message:
    if message.name is None or message.role == "tool":
        return message
    return Message(message.role, _begun(f"{message.name}: ", list(message.parts)))


def _begun(start: str, parts: list[Part]) -> list[Part]:
    """The parts, with ``start`` before their first text; blank ones are refused by providers."""
    if parts and isinstance(parts[0], Text):
        return [Text(start + parts[0].text), *parts[1:]]
    return [Text(start.rstrip() if parts else start.strip()), *parts]


def _without_name(speaker: str, parts: list[Part]) -> list[Part]:
    """Without the name that a model wrote in front, as it reads it before every other message."""
    if parts and isinstance(parts[0], Text) and parts[0].text.startswith(f"{speaker}:"):
        return [Text(parts[0].text[len(speaker) + 1 :].lstrip()), *parts[1:]]
    return parts


def _own(speaker: str, message: Message, calls: dict[str, str]) -> list[Part]:
    """A message of a member's turn, told."""
    out: list[Part] = []
    if any(isinstance(part, Text | Image | File) and part != Text("") for part in message.parts):
        out += named(speaker, message).parts
    for part in message.parts:
        if isinstance(part, ToolCall):
            out.append(Text(f"{speaker} called {part.name}({part.arguments})"))
        elif isinstance(part, ToolResult):
            verb = "failed for" if part.is_error else "answered"
            out += _begun(f"{calls.get(part.call_id, 'a tool')} {verb} {speaker}: ", _content(part))
        elif isinstance(part, Opaque) and not _unsaid(part):
            out.append(Text(f"{speaker}: {part.json.decode()}"))
    return out


def _content(result: ToolResult) -> list[Part]:
    content = [Text(result.content)] if isinstance(result.content, str) else result.content
    return [Text(part.json.decode()) if isinstance(part, Opaque) else part for part in content]


def _unsaid(part: Opaque) -> bool:
    """Reasoning, signatures and ids: what a provider wants back with the very message it came with, and nowhere else."""
    if part.slot in ("part", "message") or (part.slot.startswith("field:") and part.slot != "field:refusal"):
        return True
    value = part.value
    kind = str(value.get("type", "")) if isinstance(value, Mapping) else ""
    return "thinking" in kind or "reasoning" in kind
