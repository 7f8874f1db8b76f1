"""The contract of a store's back end: a test suite that any back end lists, in this distribution or in another one.

A test class says how its back end is made (see ``StoreExamples``); the promises are in small mixins, one a capability. It
needs pytest and nothing else: no SDK, no network.
"""

from __future__ import annotations

import pytest

from .store.examples import DIALECTS, StoreExamples
from .store.privacy import PartsTenants, Seals
from .store.sessions import GuardsTips, KeepsSessions, SharesRows
from .store.upkeep import Forgets, Persists, Transfers, Verifies
from .store.values import KeepsValues, Leases

__all__ = ["DIALECTS", "StoreContract", "StoreExamples"]


class StoreContract(
    KeepsSessions,
    SharesRows,
    GuardsTips,
    KeepsValues,
    Leases,
    Forgets,
    Verifies,
    Transfers,
    Persists,
    Seals,
    PartsTenants,
):
    """All that a back end promises. ``class TestMine(StoreContract)`` with ``make`` and ``again``.

    A promise that does not hold is overridden with ``@pytest.mark.xfail(reason="…")`` or ``skip(reason="…")``; without a
    reason the suite fails.
    """

    def test_nothing_is_left_out_without_a_reason(self) -> None:
        """A test that was overridden or taken away is marked ``xfail`` or ``skip``, with a reason."""
        silent = [
            name
            for name in dir(StoreContract)
            if name.startswith("test_")
            and getattr(type(self), name, None) is not getattr(StoreContract, name)
            and not _reasons(getattr(type(self), name, None))
        ]
        assert silent == [], "mark these with @pytest.mark.xfail(reason=…) or skip(reason=…)"


def _reasons(test: object) -> list[str]:
    marks: list[pytest.Mark] = getattr(test, "pytestmark", [])
    return [
        each.kwargs["reason"]
        for each in marks
        if each.name in ("skip", "xfail") and each.kwargs.get("reason")
    ]
