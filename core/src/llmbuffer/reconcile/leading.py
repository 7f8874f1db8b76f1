"""System messages that lead a host's messages: they are read as its system text, and stay messages of the plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..messages import Message
from ..parts import Opaque, Text
from .hosts import Host, Leaves

__all__ = ["Leading"]

_ROLES = frozenset({"system", "developer"})


class Owner(Protocol):
    """What remembers the leading messages of the last prompt, and what conversations begin with."""

    leading: dict[Leaves, Message]

    def begins(self, leaves: Leaves) -> bool: ...
    def converted(self, host: Host, item: Any, leaves: Leaves) -> tuple[Message, bool]: ...


class Leading:
    """The leading system messages of one prompt, and their texts, one for each text part.

    ``first`` is the message behind them, if it had to be converted to know that it is none of them.
    """

    def __init__(self, owner: Owner, host: Host, items: Sequence[Any]) -> None:
        self.items: list[Any] = []
        self._messages: list[Message] = []
        self.first: tuple[Message, bool] | None = None
        self._strip = getattr(host, "stripped", None)
        if self._strip is not None:
            self._read(owner, host, items)
        owner.leading = dict(zip(map(host.leaves, self.items), self._messages, strict=True))

    def _read(self, owner: Owner, host: Host, items: Sequence[Any]) -> None:
        for item in items:
            leaves = host.leaves(item)
            known = owner.leading.get(leaves)
            if known is None and owner.begins(leaves):
                return
            read = (known, True) if known is not None else owner.converted(host, item, leaves)
            if not read[1] or not _is_text(read[0]):
                self.first = read
                return
            self.items.append(item)
            self._messages.append(read[0])

    @property
    def texts(self) -> tuple[str, ...]:
        """The system texts."""
        return tuple(
            part.text for message in self._messages for part in message.parts if isinstance(part, Text)
        )

    def shown(self, stable: Sequence[str]) -> list[Any]:
        """The objects with the ``stable`` texts in place of their own; unchanged ones by reference, empty ones left out."""
        out, at = [], 0
        for item, message in zip(self.items, self._messages, strict=True):
            texts = [part.text for part in message.parts if isinstance(part, Text)]
            now = list(stable[at : at + len(texts)])
            at += len(texts)
            if now == texts:
                out.append(item)
            elif any(text.strip() for text in now) and self._strip is not None:
                told = dict(zip(texts, now, strict=True))
                out.append(self._strip(item, lambda text, told=told: told.get(text, text)))
        return out


def _is_text(message: Message) -> bool:
    """Whether a message is an instruction of texts, beside which its own fields may stand."""
    parts = message.parts
    if message.role not in _ROLES or not any(isinstance(part, Text) for part in parts):
        return False
    return all(isinstance(part, Text | Opaque) for part in parts)
