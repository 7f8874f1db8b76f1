"""What is known of conversations besides their sessions, and let go together with them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

from llmbuffer.seam import Seam

from .naming import Keys, Place, let_go
from .turns import Refusals, Turns

if TYPE_CHECKING:
    from .asking import Asked

__all__ = ["CrewSeam", "Recent"]

_CALLS = 64  # whose tools are known when CrewAI asks for a summary


class CrewSeam(Seam):
    """A ``Seam`` for CrewAI; ``keys`` names its conversations, and the others hold what CrewAI leaves out of its prompts."""

    def __init__(self, *arguments: Any, limit: int = 1024, **options: Any) -> None:
        super().__init__(*arguments, limit=limit, **options)
        self.keys, self.turns = Keys(limit), Turns(limit)
        self.refusals, self.recent = Refusals(limit), Recent()

    def forget(self, conversation: str, member: str | None = None) -> bool:
        """Let go of a conversation, or of one member's part in it; what it used stays counted. Whether there was any."""
        found = [
            super().forget(conversation, member),
            self.keys.forget(conversation),
            *(each.forget(conversation, member) for each in (self.turns, self.refusals, self.recent)),
        ]
        return any(found)

    def reset(self) -> None:
        """Let go of all conversations, of what was learned, and of the accounts."""
        super().reset()
        for each in (self.keys, self.turns, self.refusals, self.recent):
            each.reset()


class Recent:
    """The last calls of agents, by what they asked."""

    def __init__(self) -> None:
        self._calls: OrderedDict[Place, Asked] = OrderedDict()
        self._lock = Lock()

    def add(self, asked: Asked) -> None:
        """Take in a call."""
        place = asked.key.place
        with self._lock:
            before = self._calls.get(place)
            if before is not None and _begins(asked.bare, before.bare):
                asked.answered = before.answered
            self._calls[place] = asked
            self._calls.move_to_end(place)
            while len(self._calls) > _CALLS:
                self._calls.popitem(last=False)

    def find(self, messages: Sequence[Any]) -> Asked | None:
        """The newest call that the messages go on from; ``None`` where calls with other tools asked just the same."""
        with self._lock:
            calls = list(reversed(self._calls.values()))
        found = [each for each in calls if _begins(messages, each.bare)]
        return found[0] if found and all(each.tools == found[0].tools for each in found) else None

    def forget(self, conversation: str, member: str | None = None) -> bool:
        """Let go of the calls of a conversation; whether there were any."""
        with self._lock:
            return bool(let_go(self._calls, conversation, member))

    def reset(self) -> None:
        """Let go of all calls."""
        with self._lock:
            self._calls.clear()


def _begins(messages: Sequence[Any], known: Sequence[Any]) -> bool:
    return len(known) <= len(messages) and all(
        one is other or one == other for one, other in zip(known, messages, strict=False)
    )
