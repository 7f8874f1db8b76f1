"""What a shared session says before an agent's own words."""

from __future__ import annotations

from typing import Any

from llmbuffer.session import Session

from .host import ConversableHost

__all__ = ["Opening"]

_LEADING = ("system", "developer")


class Opening:
    r"""The system text and the history of a shared session, as the prompts of all agents begin.

    The session's system text stands in the agent's own system message, before what that says, since there are providers
    that take a single one; on those with breakpoints it is a message ``apart``, whose end gets one.

    >>> from llmbuffer import StableContext
    >>> opening = Opening(Session(StableContext("gpt-5.5", "Be kind.")))
    >>> opening.before({"messages": [{"role": "system", "content": "You sing."}]})
    {'messages': [{'role': 'system', 'content': 'Be kind.\n\nYou sing.'}]}
    """

    def __init__(self, session: Session) -> None:
        self._host = host = ConversableHost()
        self.apart = session.dialect.rules.has_marks
        self._text = "\n\n".join(each.content for each in session.context.segments if each.content.strip())
        self._said = [host.from_message(message) for message in session.messages]
        self._leaves = [host.leaves(message) for message in self._said]

    def told(self, system: str) -> list[str]:
        """The system texts of a prompt, as the core is told of them before it goes out."""
        texts = [text for text in (self._text, system) if text]
        return texts if self.apart else ["\n\n".join(texts)]

    def before(self, params: dict[str, Any]) -> dict[str, Any]:
        """The request with the opening in front; what it begins with already is not told twice."""
        if not self._text and not self._said:
            return params
        messages = list(params.get("messages") or ())
        at = next((i for i, each in enumerate(messages) if each.get("role") not in _LEADING), len(messages))
        own, rest = messages[:at], messages[at:]
        known = [self._host.leaves(each) for each in rest[: len(self._said)]] == self._leaves
        return {**params, "messages": [*self._leading(own), *([] if known else self._said), *rest]}

    def leads(self, texts: tuple[str, ...]) -> bool:
        """Whether it is a system text of its own, with others behind it."""
        return self.apart and len(texts) > 1 and texts[0] == self._text

    def _leading(self, own: list[Any]) -> list[Any]:
        first = own[0].get("content") if own else None
        if not self._text or (isinstance(first, str) and first.startswith(self._text)):
            return own
        if self.apart or not isinstance(first, str):
            return [{"role": "system", "content": self._text}, *own]
        return [{**own[0], "content": f"{self._text}\n\n{first}" if first else self._text}, *own[1:]]
