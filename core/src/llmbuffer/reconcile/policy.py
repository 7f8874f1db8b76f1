"""What may be done with a host's prompt."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from ..errors import MessageError

__all__ = ["Declared", "Policy", "chosen"]

Declared: TypeAlias = str | re.Pattern[str] | Callable[[str], Iterable[tuple[str, int, int]]]


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What may be done with the prompts of one host; a value that sessions share.

    ``history``: with ``host`` the host always wins; with ``ours`` the session keeps its own append-only history, and its
    own compaction in place of the host's trimming and clearing. ``trims`` declares that the host cuts off the start of its
    messages to keep a window; else one at the start is taken for that at its second time in a row, and the first one is followed.
    ``cleared`` are the texts that the host puts in place of what it clears.

    ``learn``: text of the system prompt that was seen to change moves to the tail, with its sentence. ``pinned`` are
    patterns: what one of them finds in stays where it is. ``declared`` finds dynamic text in the system prompt: patterns
    (their group names, or ``text``, name it) and callables that give ``(name, start, end)`` in characters.

    ``observe``: the plan is what the host gave, and nothing else; usage, cost and breaks are told. All other fields are
    without effect then.

    ``team``: with ``shared``, members of one conversation (``member=``) share one prefix: the tools of all, the common system
    text, the history told alike to all with the speakers named, and last the member's persona; with ``auto`` they do where
    the forecast says that this is cheaper. It changes what the model reads. A ``Router`` brings members together; a session
    by itself has one.

    Raises ``MessageError`` for another ``history`` or ``team``, and for a pattern that is none.

    >>> Policy(pinned=("Policy of",)).learn
    True
    """

    history: Literal["host", "ours"] = "host"
    learn: bool = True
    pinned: tuple[str | re.Pattern[str], ...] = ()
    declared: tuple[Declared, ...] = ()
    trims: bool = False
    cleared: tuple[str, ...] = ()
    observe: bool = False
    team: Literal["separate", "shared", "auto"] = "separate"

    def __post_init__(self) -> None:
        if self.history not in ("host", "ours"):
            raise MessageError(f"history is {self.history!r}: use 'host' or 'ours'")
        if self.team not in ("separate", "shared", "auto"):
            raise MessageError(f"team is {self.team!r}: use 'separate', 'shared' or 'auto'")
        for each in (*self.pinned, *self.declared):
            if isinstance(each, str):
                _compiled(each)
            elif not isinstance(each, re.Pattern) and not callable(each):
                raise MessageError(f"a {type(each).__name__} finds no text: give a pattern or a callable")

    def pins(self, text: str) -> bool:
        """Whether a pinned pattern finds something in the text."""
        return any(re.search(pattern, text) for pattern in self.pinned)


def _compiled(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise MessageError(f"the pattern {pattern!r} cannot be read: {error}") from None


_FIELDS = frozenset(Policy.__struct_fields__)


def chosen(policy: Policy | None, options: Mapping[str, Any], key: str | None) -> Policy:
    """The policy with some of its fields given by name. Raises ``MessageError`` for an unknown one, or a missing key.

    >>> chosen(None, {"learn": False}, None).learn
    False
    """
    unknown = sorted(options.keys() - _FIELDS)
    if unknown:
        raise MessageError(
            f"unknown options {unknown} of reconcile: a policy has {', '.join(sorted(_FIELDS))}"
        )
    found = Policy() if policy is None else policy
    if options:
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
        found = Policy(**{**{name: getattr(found, name) for name in _FIELDS}, **given})
    if found.history == "ours" and not key and not found.observe:
        raise MessageError(
            "history='ours' needs a key: name the conversation (key=… or conversation=…), so that no other one is "
            "taken for it"
        )
    return found
