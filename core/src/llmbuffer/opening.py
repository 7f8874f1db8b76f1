"""What a session cannot be opened with."""

from __future__ import annotations

from typing import get_args

from .context import StableContext
from .errors import MessageError, PlacementError
from .frozen import check_text
from .layout import Placement

__all__ = ["check_name", "check_opening"]

_PLACEMENTS: tuple[str, ...] = get_args(Placement)


def check_opening(context: object, placement: object, expected_requests: object) -> None:
    """Raise ``MessageError`` or ``PlacementError`` for arguments of ``Session`` that no session can work with."""
    if not isinstance(context, StableContext):
        raise MessageError(f"context is a {type(context).__name__}: give StableContext(model=…, system=…)")
    if placement not in _PLACEMENTS:
        raise PlacementError(f"unknown placement {placement!r}: use one of {', '.join(_PLACEMENTS)}")
    if type(expected_requests) is not int or expected_requests < 0:
        raise MessageError(f"expected_requests is {expected_requests!r}: give a whole number, 0 or more")


def check_name(name: object, argument: str) -> str:
    """An id or a key as it is; raises ``MessageError`` for what is no text, or none that UTF-8 can carry.

    >>> check_name("customer-7", "session_id")
    'customer-7'
    >>> check_name(5, "session_id")
    Traceback (most recent call last):
        ...
    llmbuffer.errors.MessageError: session_id is a int: give a string
    """
    if not isinstance(name, str):
        raise MessageError(f"{argument} is a {type(name).__name__}: give a string")
    return check_text(name, argument)
