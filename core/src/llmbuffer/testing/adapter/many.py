"""Many agents on one prefix: forks, and teams."""

from __future__ import annotations

import pytest

from ...context import StableContext
from ...reconcile import Policy
from ...session import Session
from ...simulate import Asked
from ..scripts import handbook, passage, personas
from .examples import AdapterExamples, Setup
from .script import TALK
from .stage import Body, Stage, changed, needs, on_stage, texts_of

__all__ = ["SharesForks", "SharesTeams"]

TASKS = tuple(f"Task {number}: is Lyon reached by rail, and what about week {number}?" for number in range(5))


class SharesForks(AdapterExamples):
    """Forks off one session share its prefix: one writes it, the others read it."""

    def test_one_writes_and_the_others_read(self) -> None:
        """On a provider with breakpoints: one cold request, and each of the others reads what all share."""
        needs(self, "fan-out")
        if self.marked is None:
            pytest.skip("marked is None: the framework reaches no provider with breakpoints")
        wire, model = self.marked
        session = Session(StableContext(model), wire)
        setup = Setup(wire=wire, model=model, system=handbook(42), session=session)
        with on_stage(self, _done) as stage:
            results = stage.fan_out(setup, TASKS)
            log = stage.answered
        assert [_said(each) for each in results] == [f"Done: {number}." for number in range(len(TASKS))]
        cold = [request for request in log if request.usage.cache_read_tokens == 0]
        assert len(cold) == 1, [request.outcome for request in log]
        assert [request for request in log if request not in cold and request.usage.hit_ratio < 0.9] == []

    def test_no_fork_sees_another_ones_task(self) -> None:
        """What all share is the prefix, not the tasks."""
        needs(self, "fan-out")
        wire, model = self.served[0]
        setup = Setup(wire=wire, model=model, system=TALK.system, session=Session(StableContext(model), wire))
        with on_stage(self, _done) as stage:
            stage.fan_out(setup, TASKS)
            found = [sum(task in "\n".join(texts_of(body)) for task in TASKS) for body in stage.bodies]
        assert found == [1] * len(TASKS)


def _done(asked: Asked) -> str:
    told = "\n".join(texts_of(asked.body))
    return f"Done: {told[told.rindex('Task ') :][5]}."


def _said(result: object) -> str:
    return result if isinstance(result, str) else repr(result)


ROUNDS = ("A customer asks where parcel 7 is.", "The customer asks whether it comes on Sunday.")


class SharesTeams(AdapterExamples):
    """Members of one conversation share a prefix in team mode, and are left alone in observe mode."""

    def test_members_share_what_they_hear(self) -> None:
        """More of each prompt could be read from an earlier one than without llmbuffer."""
        needs(self, "team")
        from ..oracle import measured

        alone, team = (self._discussed(mode)[1] for mode in (None, "team"))
        before, after = (measured(bodies, unit="characters").hit_ratio for bodies in (alone, team))
        assert after > before

    def test_the_discussion_is_the_same(self) -> None:
        """With a scripted model each member says what it says without llmbuffer, in the same order."""
        needs(self, "team")
        alone, team, observed = (self._discussed(mode)[0] for mode in (None, "team", "observe"))
        assert team == alone
        assert observed == alone

    def test_a_team_that_is_observed_changes_no_byte(self) -> None:
        """A team that is only observed sends what it sends without llmbuffer."""
        needs(self, "team")
        alone, observed = (self._discussed(mode)[1] for mode in (None, "observe"))
        assert changed(alone, observed) == []

    def test_each_member_is_told_who_it_is_and_what_was_said(self) -> None:
        """The persona of the member that speaks stands in its prompt, those of the others do not, and nothing is missing."""
        needs(self, "team")
        said, bodies = self._discussed("team")
        members = list(personas().items())
        for number, body in enumerate(bodies):
            told = "\n".join(texts_of(body))
            own = number % len(members)
            assert [persona in told for _, persona in members] == [at == own for at in range(len(members))]
            assert [text for _, text in said[:number] if text not in told] == []

    def _discussed(self, mode: str | None) -> tuple[list[tuple[str, str]], list[Body]]:
        wire, model = self.served[0]
        # What is shared is asked for: whether it pays is the forecast's to say, and tested with it.
        policy = Policy(team="shared") if mode == "team" else None
        setup = Setup(wire=wire, model=model, system=handbook(42), mode=mode, policy=policy)  # type: ignore[arg-type]  # a mode
        replies = [
            f"Remark {number} of {name}. {passage(number)} {passage(number + 20)}"
            for number, name in enumerate([*personas()] * len(ROUNDS))
        ]
        with on_stage(self, replies) as stage:
            return _rounds(stage, setup), stage.bodies


def _rounds(stage: Stage, setup: Setup) -> list[tuple[str, str]]:
    group = stage.group(setup, personas())
    return [said for text in ROUNDS for said in group.discuss(text)]
