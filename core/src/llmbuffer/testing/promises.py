"""Which promises of a contract a test class left out, and whether it says why."""

from __future__ import annotations

import pytest

__all__ = ["left_out"]


def left_out(contract: type, suite: type) -> list[str]:
    """Tests of a contract that a test class overrides or takes away without ``xfail`` or ``skip`` and a reason.

    >>> class Contract:
    ...     def test_it_works(self): ...
    >>> left_out(Contract, type("Mine", (Contract,), {})), left_out(Contract, type("Mine", (Contract,), {"test_it_works": None}))
    ([], ['test_it_works'])
    """
    return [
        name
        for name in dir(contract)
        if name.startswith("test_")
        and getattr(suite, name, None) is not getattr(contract, name)
        and not _reasons(getattr(suite, name, None))
    ]


def _reasons(test: object) -> list[str]:
    marks: list[pytest.Mark] = getattr(test, "pytestmark", [])
    return [
        each.kwargs["reason"]
        for each in marks
        if each.name in ("skip", "xfail") and each.kwargs.get("reason")
    ]
