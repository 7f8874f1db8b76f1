"""What a host's own changes to its prompt cost: the break that is recorded at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..breaks import FIXES, CacheBreak, Cause
from ..breaks.served import extra_cost
from ..messages import Message
from ..snapshot import Snapshot, overlap
from .recognition import Match

if TYPE_CHECKING:
    from ..request import Request
    from .given import Given

__all__ = ["lost_by"]

_EXCERPT = 60  # characters of an excerpt


def lost_by(
    given: Given, sent: Snapshot | None, request: Request, head: CacheBreak | None
) -> CacheBreak | None:
    """The break that the next request brings, with the tokens that the one before had and that are billed again.

    ``sent`` is that one, ``None`` if it was never observed, and then nothing can be lost; ``head`` is what became of tools,
    system text and params.
    """
    if sent is None or not (given.broken or head is not None):
        return None
    found = head if head is not None else _edited(given.gone, given.match)
    family, context = request.session.family, request.context
    before = sent.head.end + sent.tip.end
    shared = overlap(sent, request.snapshot)
    factor = family.calibration(context.model).factor
    lost = round(max(0, before - shared) * factor)
    return replace(
        found,
        tokens_lost=lost,
        cost=extra_cost(lost, family.price(context.model)),
        offset_tokens=round(shared * factor),
    )


def _edited(gone: Message | None, match: Match) -> CacheBreak:
    cause: Cause = "history-edited" if match.relation == "edited" else "history-truncated"
    return CacheBreak(
        cause=cause,
        section="messages",
        tokens_lost=0,
        confidence=1.0,
        path=f"messages[{match.at}]",
        before="" if gone is None else gone.text[:_EXCERPT],
        fix=FIXES[cause],
    )
