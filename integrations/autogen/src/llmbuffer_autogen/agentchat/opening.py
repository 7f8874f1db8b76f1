"""What a shared session says before an agent's own words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autogen_core.models import SystemMessage

from llmbuffer.session import Session

from .convert import ModelHost

__all__ = ["Opening"]


class Opening:
    """The system text and the history of a shared session, as messages that every agent's prompt begins with.

    >>> from llmbuffer import StableContext
    >>> opening = Opening(Session(StableContext("gpt-5.5", "Be kind.")), ModelHost())
    >>> [message.content for message in opening.before([SystemMessage(content="You sing.")])]
    ['Be kind.', 'You sing.']
    """

    def __init__(self, session: Session, host: ModelHost) -> None:
        self._host = host
        self._system = [
            SystemMessage(content=segment.content)
            for segment in session.context.segments
            if segment.content.strip()
        ]
        self._said = [host.from_message(message) for message in session.messages]
        self._leaves = [host.leaves(message) for message in self._said]

    @property
    def texts(self) -> list[str]:
        """The system texts."""
        return [item.content for item in self._system]

    def before(self, messages: Sequence[Any]) -> Sequence[Any]:
        """The messages with the opening in front; what they begin with already is not told twice."""
        if not self._system and not self._said:
            return messages
        leading = next(
            (place for place, item in enumerate(messages) if not isinstance(item, SystemMessage)),
            len(messages),
        )
        own, rest = list(messages[:leading]), list(messages[leading:])
        begun = "\n".join(item.content for item in own)
        system = [] if begun.startswith("\n".join(item.content for item in self._system)) else self._system
        known = [self._host.leaves(item) for item in rest[: len(self._said)]] == self._leaves
        return [*system, *own, *([] if known else self._said), *rest]

    def leads(self, messages: Sequence[Any]) -> int:
        """How many messages at the beginning are the opening's system texts; 0 where they do not all stand there."""
        length = len(self._system)
        same = len(messages) > length and all(
            one is other for one, other in zip(messages, self._system, strict=False)
        )
        return length if same else 0
