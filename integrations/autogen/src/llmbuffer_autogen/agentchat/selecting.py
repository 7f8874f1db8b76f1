"""The prompts of a selector group chat, which hold the whole conversation as one text, taken apart."""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from string import Formatter
from typing import Any, NamedTuple

from autogen_core.models import SystemMessage, UserMessage

from llmbuffer.errors import MessageError
from llmbuffer.reconcile import Plan, dynamic_text, unmarked

from .convert import USER

__all__ = ["Known", "Selection", "SelectorPrompt", "default_prompt"]

# How a selector group chat joins what was said: each message ends in a blank line, and a line break stands between.
_BETWEEN = re.compile(r"(?<=\n\n)\n(?=[\w-]+: )")
_NAME = "selection"  # of the dynamic text that says what is to be selected
_ROLE = "role"  # of the dynamic text by which the core tells a member of a team who it is
_SPEAKER = re.compile(r"([\w-]+): ")


class Selection(NamedTuple):
    """A selector's prompt taken apart: what stands before the conversation, what was ``said``, what names the candidates.

    ``more`` is what a selector adds that asks again.
    """

    head: str
    said: tuple[Any, ...]
    closing: str
    more: tuple[Any, ...] = ()

    def alone(self) -> tuple[list[Any], dict[str, str]]:
        """The messages and the dynamic text of a prompt of the selector's own."""
        begun = [SystemMessage(content=self.head)] if self.head.strip() else []
        return [*begun, *self.said, *self.more], {_NAME: self.closing}

    def beside(self, common: Sequence[Any]) -> tuple[list[Any], dict[str, str]]:
        """The same behind what a team's agents share: the selector's instructions go to the end, as an agent's persona."""
        told = "\n\n".join(text for text in (unmarked(self.head), self.closing) if text.strip())
        return [*common, *self.said, *self.more], {_NAME: told}


class SelectorPrompt:
    r"""The template of a selector's prompt, with ``{roles}``, ``{participants}`` and ``{history}``.

    Raises ``MessageError`` for a template without a history or with unknown fields.

    >>> prompt = SelectorPrompt("Roles: {roles}.\n{history}\nNext of {participants}?")
    >>> found = prompt.read([SystemMessage(content="Roles: a, b.\nuser: Hi\n\n\na: Ho\n\n\nNext of ['b']?")])
    >>> found.head, [message.content for message in found.said], found.closing
    ('Roles: a, b.', ['Hi', 'a: Ho'], "Next of ['b']?")
    """

    def __init__(self, template: str) -> None:
        self.template = template
        try:
            pieces = list(Formatter().parse(template))
        except ValueError as error:
            raise MessageError(f"the selector's prompt cannot be read: {error}") from None
        fields = [name for _, name, _, _ in pieces if name is not None]
        if fields.count("history") != 1 or set(fields) - {"roles", "participants", "history"}:
            raise MessageError(
                f"the selector's prompt has the fields {sorted(fields)}: it needs {{history}} once, and may have {{roles}} "
                "and {participants}"
            )
        if not any(text.strip() for text, _, _, _ in pieces):
            raise MessageError("the selector's prompt has fields alone: it would be found in every prompt")
        self._pattern = re.compile("".join(_patterns(pieces)), re.DOTALL)

    def read(self, messages: Sequence[Any]) -> Selection | None:
        """The prompt taken apart, with what a selector that was asked again adds; ``None`` for another prompt."""
        first = messages[0] if messages else None
        if not isinstance(first, SystemMessage | UserMessage) or not isinstance(first.content, str):
            return None
        found = self._pattern.fullmatch(first.content)
        if found is None:
            return None
        head, closing = found["head"], found["closing"]
        candidates = found.groupdict().get("participants")
        if candidates is not None and candidates in head:
            head = _without(head, candidates, told=candidates in closing)
        said = [_message(entry) for entry in _entries(found["history"])]
        return Selection(head.strip("\n"), tuple(said), closing.strip("\n"), tuple(messages[1:]))

    def __repr__(self) -> str:
        return f"SelectorPrompt(<{len(self.template)}>)"


def default_prompt() -> str:
    """The template that ``SelectorGroupChat`` has if none is given."""
    from autogen_agentchat.teams import SelectorGroupChat

    return str(inspect.signature(SelectorGroupChat.__init__).parameters["selector_prompt"].default)


def _patterns(pieces: Sequence[tuple[str, str | None, str | None, str | None]]) -> Iterator[str]:
    """A pattern for what a template becomes: its beginning, the history and the rest as groups."""
    known: set[str] = set()
    yield "(?P<head>"
    for text, field, _, _ in pieces:
        yield re.escape(text)
        if field == "history":
            yield ")(?P<history>.*)(?P<closing>"
        elif field is not None and field in known:
            yield f"(?P={field})"
        elif field is not None:
            known.add(field)
            yield f"(?P<{field}>{_SHAPES[field]})"
    yield ")"


_SHAPES = {"roles": ".*?", "participants": r"\[[^\[\]]*\]"}


def _without(head: str, candidates: str, *, told: bool) -> str:
    """The text in front of the history without the candidates, which change at each call.

    Where the closing text tells them again, their sentence is left out; else the plan moves it to the end.
    """
    if not told:
        return head.replace(candidates, dynamic_text("candidates", candidates))
    return re.sub(rf"[^.!?\n]*{re.escape(candidates)}[^.!?\n]*[.!?]?[ \t]*", " ", head).replace("  ", " ")


def _entries(history: str) -> list[str]:
    return [entry for entry in (each.rstrip() for each in _BETWEEN.split(history)) if entry]


def _message(entry: str) -> UserMessage:
    """What somebody said; the name of an agent stays in the text, since the selector reads it there."""
    speaker = _SPEAKER.match(entry)
    if speaker is None or speaker[1] == USER:
        return UserMessage(content=entry if speaker is None else entry[speaker.end() :], source=USER)
    return UserMessage(content=entry, source=speaker[1])


class Known:
    """What is known of the teams that a client serves, for the prompts of their selectors; ``limit`` teams.

    Their agents' plans tell what the agents share. Their messages tell how a text ends that a selector reads without the
    white space behind it, so that it is the same message for all.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._common: OrderedDict[str, tuple[Any, ...]] = OrderedDict()
        self._ends: OrderedDict[str, dict[str, str]] = OrderedDict()

    def note(self, conversation: str, messages: Sequence[Any], plan: Plan) -> None:
        """Take in what an agent was told and what is sent for it; one with a prompt of its own shares nothing."""
        for item in messages:
            self.hear(conversation, getattr(item, "source", None), getattr(item, "content", None))
        if any(segment.name == _ROLE for segment in plan.dynamic):
            self._common[conversation] = tuple(
                takewhile(lambda item: isinstance(item, SystemMessage), plan.messages)
            )
            _bound(self._common, conversation, self.limit)

    def hear(self, conversation: str, speaker: str | None, content: Any) -> None:
        """Take in what somebody said."""
        if speaker is None or not isinstance(content, str) or content == content.rstrip():
            return
        ends = self._ends.setdefault(conversation, {})
        ends[f"{speaker}: {content}".rstrip()] = content[len(content.rstrip()) :]
        _bound(self._ends, conversation, self.limit)

    def common(self, conversation: str | None) -> tuple[Any, ...] | None:
        """The system messages that a team's agents share; ``None`` where nothing is known to be shared."""
        return None if conversation is None else self._common.get(conversation)

    def whole(self, conversation: str | None, found: Selection) -> Selection:
        """The selection with the white space behind its messages."""
        ends = None if conversation is None else self._ends.get(conversation)
        return (
            found if ends is None else found._replace(said=tuple(_ended(each, ends) for each in found.said))
        )


def _ended(item: Any, ends: Mapping[str, str]) -> Any:
    told = f"{USER}: {item.content}" if item.source == USER else item.content
    end = ends.get(told)
    return item if end is None else item.model_copy(update={"content": item.content + end})


def _bound(kept: OrderedDict[str, Any], key: str, limit: int) -> None:
    kept.move_to_end(key)
    while len(kept) > limit:
        kept.popitem(last=False)
