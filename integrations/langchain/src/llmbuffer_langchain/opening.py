"""What a shared session says before the host's own words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, SystemMessage

from llmbuffer.session import Session

from .convert import LangChainHost, leaves_copy

__all__ = ["Opening"]


class Opening:
    r"""The system text and the history of a shared session, as every prompt of a model begins.

    The session's system text stands in the host's own system message, before what that says, since there are providers
    that take a single one. On providers with breakpoints it ends with one: there prompts that go on differently can
    read it.

    >>> from llmbuffer import StableContext
    >>> opening = Opening(Session(StableContext("gpt-5.5", "Be kind.")), LangChainHost())
    >>> [message.content for message in opening.before([SystemMessage("You sing.")])]
    ['Be kind.\n\nYou sing.']
    """

    def __init__(self, session: Session, host: LangChainHost) -> None:
        rules = session.dialect.rules
        self._host = host
        self._texts = [each.content for each in session.context.segments if each.content.strip()]
        self._text = "\n\n".join(self._texts)
        self._parts: list[Any] = []
        if rules.has_marks or rules.content_parts == "always":
            self._parts = [{"type": "text", "text": text} for text in self._texts]
        self._marked = list(self._parts)
        if rules.has_marks and self._parts:
            self._marked[-1] = leaves_copy(session.dialect.mark_part(self._parts[-1], long=False))
        self._said = [host.from_message(message) for message in session.messages]
        self._leaves = [host.leaves(message) for message in self._said]

    def told(self, system: str) -> list[str]:
        """The system texts of a prompt, as the core is told of them before it goes out."""
        texts = [*self._texts, *([system] if system else [])]
        return texts if self._parts or not self._texts else ["\n\n".join(texts)]

    def before(self, messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
        """The messages with the opening in front; what they begin with already is not told twice."""
        if not self._texts and not self._said:
            return messages
        at = next((place for place, item in enumerate(messages) if item.type != "system"), len(messages))
        own, rest = messages[:at], messages[at:]
        known = [self._host.leaves(item) for item in rest[: len(self._said)]] == self._leaves
        return [*self._leading(own), *(() if known else self._said), *rest]

    def _leading(self, own: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
        if not self._texts or (own and str(own[0].text).startswith((self._text, "".join(self._texts)))):
            return own
        if not own:
            return [SystemMessage(self._parts or self._text)]
        content: Any = own[0].content
        if isinstance(content, str) and not self._parts:
            content = f"{self._text}\n\n{content}" if content else self._text
        else:
            blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
            content = [
                *(self._marked or [{"type": "text", "text": self._text}]),
                *(blocks if content else []),
            ]
        return [own[0].model_copy(update={"content": content}), *own[1:]]
