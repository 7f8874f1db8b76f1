"""The contract of a store's back end: a test suite that any back end lists, in this distribution or in another one.

A test class says how its back end is made (see ``StoreExamples``); the promises are in small mixins, one a capability. It
needs pytest and nothing else: no SDK, no network.
"""

from __future__ import annotations

from .promises import left_out
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
        silent = left_out(StoreContract, type(self))
        assert silent == [], "mark these with @pytest.mark.xfail(reason=…) or skip(reason=…)"
