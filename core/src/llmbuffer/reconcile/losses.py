"""What a host's own changes to its prompt cost: the break that is recorded at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..breaks import FIXES, CacheBreak, Cause
from ..breaks.served import extra_cost
from ..messages import Message
from ..snapshot import overlap
from .recognition import Line, Match

if TYPE_CHECKING:
    from ..request import Request

__all__ = ["lost_by"]

_EXCERPT = 60  # characters of an excerpt


def lost_by(
    line: Line, match: Match, broken: bool, request: Request, head: CacheBreak | None
) -> CacheBreak | None:
    """The break that the next request brings, with the tokens that the one before had and that are billed again.

    ``broken`` tells that messages which were sent are gone or others; ``head`` is what became of tools, system and params.
    Nothing that was never observed can be lost.
    """
    if line.sent is None or not (broken or head is not None):
        return None
    found = head if head is not None else _edited(line, match)
    family, context = request.session.family, request.context
    before = line.sent.head.end + line.sent.tip.end
    shared = overlap(line.sent, request.snapshot)
    factor = family.calibration(context.model).factor
    lost = round(max(0, before - shared) * factor)
    return replace(
        found,
        tokens_lost=lost,
        cost=extra_cost(lost, family.price(context.model)),
        offset_tokens=round(shared * factor),
    )


def _edited(line: Line, match: Match) -> CacheBreak:
    cause: Cause = "history-edited" if match.relation == "edited" else "history-truncated"
    before = line.entries[match.at].message if match.at < len(line) else Message("user")
    return CacheBreak(
        cause=cause,
        section="messages",
        tokens_lost=0,
        confidence=1.0,
        path=f"messages[{match.at}]",
        before=before.text[:_EXCERPT],
        fix=FIXES[cause],
    )
