"""The contract of a dialect: a test suite that any dialect lists, in this distribution or in another one.

A test class gives the dialect and examples of what its provider answers (see ``DialectExamples``); the promises are in
small mixins, one a capability. It needs pytest and nothing else: no SDK, no network.
"""

from __future__ import annotations

import pytest

from .dialect.examples import DialectExamples
from .dialect.rendering import LosesNothing, RendersPurely
from .dialect.replies import ReadsReplies, ReadsUsage, Sends, Streams
from .dialect.requests import KeepsPrefix, PlacesDynamicText, PlacesMarks, RoutesByKey
from .dialect.rules import BindsByModel, KeepsProtocol, NamesSources

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
        silent = [
            name
            for name in dir(DialectContract)
            if name.startswith("test_")
            and getattr(type(self), name, None) is not getattr(DialectContract, name)
            and not _reasons(getattr(type(self), name, None))
        ]
        assert silent == [], "mark these with @pytest.mark.xfail(reason=…) or skip(reason=…)"


def _reasons(test: object) -> list[str]:
    marks: list[pytest.Mark] = getattr(test, "pytestmark", [])
    return [
        mark.kwargs["reason"]
        for mark in marks
        if mark.name in ("skip", "xfail") and mark.kwargs.get("reason")
    ]
