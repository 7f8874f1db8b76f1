"""Dynamic text of a turn: it is meant to change and to go, which is its price and no break."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ..bodies import Piece
from ..rules import Section
from .difference import Difference
from .volatile import is_dynamic

__all__ = ["of_the_turn"]

_ASKING = frozenset({"user", "system", "developer"})
_REPLYING = frozenset({"assistant", "model"})
_ANSWERS = ("tool", "function")  # in the kinds of pieces that answer a call, whatever role they stand under


def of_the_turn(found: Difference, before: Sequence[Piece], order: Sequence[Section]) -> bool:
    """Whether what parts is framed text of the last turn of ``before``: text behind which no user began another one.

    ``before`` are the pieces of the earlier body, ``order`` is that of its sections.
    """
    if found.section != "messages":
        return False
    rest = sorted(before, key=lambda piece: order.index(piece.section))[found.index :]
    if not rest or rest[0].role not in _ASKING or not is_dynamic(rest[0].text):
        return False
    # What is said behind a result of a tool, or behind the user's own words, goes on with the turn.
    return not any(_asks(piece) and earlier.role in _REPLYING for earlier, piece in pairwise(rest))


def _asks(piece: Piece) -> bool:
    answers = any(kind in piece.kind for kind in _ANSWERS)
    return piece.role == "user" and not answers and not is_dynamic(piece.text)
