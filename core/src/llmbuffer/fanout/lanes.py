"""Workers on an engine with slots: llama.cpp shares nothing between them.

With one slot the workers run one after the other: two that take turns in a slot would overwrite each other's tails. With
more, the prefix is computed once, saved, and restored into every slot that a worker is going to use; a server that saves
no slots gets all workers into the slot that holds the prefix, one after the other.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from ..errors import DialectError
from ..observing import Observation
from ..session import Session
from .sender import Sender

__all__ = ["Lanes"]

_WORTH_SAVING = 256  # tokens of a prefix below which computing it anew is as quick as saving and restoring it


class Lanes:
    """The slots that the workers may use; each worker has one to itself until it ends.

    For a dialect without slots there are ``limit`` places that ask for nothing.
    """

    def __init__(self, session: Session, limit: int, *, share: bool) -> None:
        rules = session.dialect.rules
        self._session = session
        self.slotted = rules.match == "lanes"
        self.width = min(limit, rules.lanes) if self.slotted else limit
        self._share = share and self.slotted and self.width > 1
        self._free: deque[int | None] = deque([None] * self.width)

    async def prepare(self, sender: Sender, shared_tokens: int) -> Observation | None:
        """Put the prefix into every slot; what that cost is returned, if anything was computed for it."""
        if not self._share or shared_tokens < _WORTH_SAVING:
            return None
        source = self._source()
        fork = self._session.fork(params={**self._session.context.params, "id_slot": source})
        seen = await sender.prewarm(fork)
        slots = [source, *(slot for slot in range(self._session.dialect.rules.lanes) if slot != source)]
        slots = slots[: self.width]
        try:
            await sender.broadcast(source, slots, f"llmbuffer-{self._session.id}.bin")
        except (AttributeError, DialectError):  # a server, or a client, that cannot: one slot serves all
            slots = [source]
        self.width = len(slots)
        self._free = deque(slots)
        return seen

    def _source(self) -> int:
        asked = self._session.context.params.get("id_slot")
        pinned = asked if asked is not None else getattr(self._session.dialect, "_id_slot", None)
        return pinned if isinstance(pinned, int) else 0

    def take(self) -> int | None:
        """A free slot, or ``None`` where the server chooses; there is one for each of ``width`` workers."""
        return self._free.popleft()

    def give_back(self, slot: int | None) -> None:
        """The worker in it has ended. Slots that were used last go first: they are warm for certain."""
        self._free.appendleft(slot)

    @staticmethod
    def params(slot: int | None) -> dict[str, Any]:
        """What a request asks for."""
        return {} if slot is None else {"id_slot": slot}
