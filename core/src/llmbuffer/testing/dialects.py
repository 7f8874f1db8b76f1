"""The contract of a dialect: a test suite that any dialect lists, in this distribution or in another one.

A test class gives the dialect and examples of what its provider answers (see ``DialectExamples``); the promises are in
small mixins, one a capability. It needs pytest and nothing else: no SDK, no network.
"""

from __future__ import annotations

from .dialect.examples import DialectExamples
from .dialect.rendering import LosesNothing, RendersPurely
from .dialect.replies import ReadsReplies, ReadsUsage, Sends, Streams
from .dialect.requests import KeepsPrefix, PlacesDynamicText, PlacesMarks, RoutesByKey
from .dialect.rules import BindsByModel, KeepsProtocol, NamesSources
from .promises import left_out

__all__ = ["DialectContract", "DialectExamples"]


class DialectContract(
    KeepsProtocol,
    NamesSources,
    BindsByModel,
    RendersPurely,
    LosesNothing,
    KeepsPrefix,
    PlacesDynamicText,
    PlacesMarks,
    RoutesByKey,
    ReadsUsage,
    ReadsReplies,
    Streams,
    Sends,
):
    """All that a dialect promises. ``class TestMine(DialectContract)`` with the attributes of ``DialectExamples``.

    A promise that does not hold is overridden with ``@pytest.mark.xfail(reason="…")`` or ``skip(reason="…")``; without a
    reason the suite fails.
    """

    def test_nothing_is_left_out_without_a_reason(self) -> None:
        """A test that was overridden or taken away is marked ``xfail`` or ``skip``, with a reason."""
        silent = left_out(DialectContract, type(self))
        assert silent == [], "mark these with @pytest.mark.xfail(reason=…) or skip(reason=…)"
