"""The contract of an adapter: a test suite that any adapter lists, in this distribution or in another one.

A test class says how an agent of its framework is made and driven (see ``AdapterExamples``); the promises are in small
mixins, one a capability. Each runs real requests against a simulated provider over loopback and looks at what went over
the wire. It needs pytest, the extra ``simulate`` and whatever SDK the framework uses.
"""

from __future__ import annotations

from .adapter.acting import AnswersInEveryWay, FreezesTools, GivesObjects, RunsTools
from .adapter.examples import CAPABILITIES, AdapterExamples, Agent, Group, Setup
from .adapter.keeping import FollowsItsHost, KeepsConversationsApart, Resumes
from .adapter.many import SharesForks, SharesTeams
from .adapter.reading import LeavesTheUnknown, ReadsMessages, StripsMarks
from .adapter.telling import PassesErrors, TellsUsage
from .adapter.wire import AppendsOnly, MovesDynamicText, ObservesOnly
from .promises import left_out

__all__ = ["CAPABILITIES", "AdapterContract", "AdapterExamples", "Agent", "Group", "Setup"]


class AdapterContract(
    ReadsMessages,
    StripsMarks,
    LeavesTheUnknown,
    ObservesOnly,
    AppendsOnly,
    MovesDynamicText,
    RunsTools,
    FreezesTools,
    AnswersInEveryWay,
    GivesObjects,
    TellsUsage,
    PassesErrors,
    KeepsConversationsApart,
    FollowsItsHost,
    Resumes,
    SharesForks,
    SharesTeams,
):
    """All that an adapter promises. ``class TestMine(AdapterContract)`` with the methods of ``AdapterExamples``.

    A promise that the framework has no room for is left out by ``capabilities``; one that does not hold is overridden with
    ``@pytest.mark.xfail(reason="…")`` or ``skip(reason="…")``. Without a reason the suite fails.
    """

    def test_nothing_is_left_out_without_a_reason(self) -> None:
        """A test that was overridden or taken away is marked ``xfail`` or ``skip``, with a reason."""
        silent = left_out(AdapterContract, type(self))
        assert silent == [], "mark these with @pytest.mark.xfail(reason=…) or skip(reason=…)"
