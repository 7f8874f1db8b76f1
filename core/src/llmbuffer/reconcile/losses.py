"""What a host's own changes to its prompt cost: the break that is recorded at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..breaks import FIXES, CacheBreak, Cause
from ..breaks.served import extra_cost
from ..chain import is_ancestor
from ..snapshot import Snapshot, overlap

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
    now = request.snapshot
    if (
        sent.head.wire == now.head.wire
        and sent.message_seed == now.message_seed
        and is_ancestor(sent.tip, now.tip)
    ):
        return None  # what moved was never sent
    found = head if head is not None else _edited(given)
    family, context = request.session.family, request.context
    before = sent.head.end + sent.tip.end
    shared = overlap(sent, now)
    factor = family.calibration(context.model).factor
    lost = round(max(0, before - shared) * factor)
    return replace(
        found,
        tokens_lost=lost,
        cost=extra_cost(lost, family.price(context.model)),
        offset_tokens=round(shared * factor),
    )


def _edited(given: Given) -> CacheBreak:
    gone, match = given.gone, given.match
    cause: Cause = "history-edited" if match.relation == "edited" else "history-truncated"
    return CacheBreak(
        cause=cause,
        section="messages",
        tokens_lost=0,
        confidence=1.0,
        path=f"messages[{given.offset + match.at}]",
        before="" if gone is None else gone.text[:_EXCERPT],
        fix=FIXES[cause],
    )
