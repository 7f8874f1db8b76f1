"""What a principal may do with a store: capabilities, checked before anything is read or written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar, cast

from ..errors import CapabilityError

__all__ = ["CAPABILITIES", "EVERYTHING", "Rights", "needs"]

CAPABILITIES = ("read", "write", "fork", "admin")


class Rights(NamedTuple):
    """The capabilities of a principal.

    ``read``: load, look up, list. ``write``: save, put, drop, take leases. ``fork``: save what was forked off a session of
    the store, under a new id, and go on with it. ``admin``: verify, sweep, forget, export, import, rotate keys.

    >>> Rights("ann", frozenset({"read"})).check("forget", "admin")
    Traceback (most recent call last):
    llmbuffer.errors.CapabilityError: forget needs 'admin', and 'ann' has 'read': ...
    """

    principal: str | None
    granted: frozenset[str]

    def check(self, act: str, *capabilities: str) -> None:
        """Raise ``CapabilityError`` unless one of these capabilities was granted."""
        if self.granted.isdisjoint(capabilities):
            wanted = " or ".join(map(repr, capabilities))
            had = ", ".join(map(repr, sorted(self.granted))) or "none"
            raise CapabilityError(
                f"{act} needs {wanted}, and {self.principal!r} has {had}: ask whoever opened the store for it"
            )

    def narrowed(self, principal: str, capabilities: Iterable[str]) -> Rights:
        """Rights of another principal, none of which are beyond these."""
        wanted = frozenset([capabilities] if isinstance(capabilities, str) else capabilities)
        unknown = sorted(wanted - set(CAPABILITIES))
        if unknown:
            raise CapabilityError(f"unknown capabilities {unknown}: use some of {', '.join(CAPABILITIES)}")
        for capability in sorted(wanted - self.granted):
            self.check(f"granting {capability!r}", capability)
        return Rights(principal, wanted)


EVERYTHING = Rights(None, frozenset(CAPABILITIES))


class _Limited(Protocol):
    rights: Rights


P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=_Limited)


def needs(*capabilities: str) -> Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], R]]:
    """A method that one of these capabilities is needed for. A generator refuses when it is called, too."""

    def limited(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
        @wraps(method)
        def checked(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
            self.rights.check(method.__name__.strip("_"), *capabilities)
            return method(self, *args, **kwargs)

        checked.capabilities = capabilities  # type: ignore[attr-defined]  # for the test that walks all methods
        return cast("Callable[Concatenate[S, P], R]", checked)

    return limited
