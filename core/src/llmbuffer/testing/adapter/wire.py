"""What goes over the wire: nothing else in observe mode, append-only in buffer mode, dynamic text behind it."""

from __future__ import annotations

import pytest

from ...reconcile import dynamic_text
from ..prefix import assert_prefix_stable
from ..scripts import Script, clock
from .examples import AdapterExamples, Setup
from .script import HANDBOOK, SHORT, TALK
from .stage import Played, Run, changed, needs, on_stage, ran, texts_of, without_tail

__all__ = ["AppendsOnly", "MovesDynamicText", "ObservesOnly"]


def script_for(examples: AdapterExamples) -> Script:
    """The script with tools, where the framework has them."""
    return SHORT if "tools" in examples.capabilities else TALK


def setup_of(model: tuple[str, str], script: Script, **given: object) -> Setup:
    """An agent for a script."""
    wire, name = model
    fields: dict[str, object] = {"system": script.system, "tools": script.tools, **given}
    return Setup(wire=wire, model=name, **fields)  # type: ignore[arg-type]  # fields as Setup declares them


def played(examples: AdapterExamples, setup: Setup, script: Script) -> Played:
    """The whole script by an agent."""
    said = [turn.user for turn in script.turns]
    return ran(examples, setup, script.replies(), lambda run: run.say(*said))


class ObservesOnly(AdapterExamples):
    """In observe mode the requests are those of the framework alone, byte for byte."""

    def test_observe_changes_no_byte(self, model: tuple[str, str]) -> None:
        """Tools, system text, messages and every other field; only usage in streams may be asked for."""
        script = script_for(self)
        alone = played(self, setup_of(model, script, mode=None), script)
        observed = played(self, setup_of(model, script, mode="observe"), script)
        assert changed(alone.bodies, observed.bodies) == []
        assert observed.answers == alone.answers
        assert observed.history == alone.history

    def test_observe_changes_no_byte_of_streams(self, model: tuple[str, str]) -> None:
        """The same where the model is asked for streams."""
        needs(self, "stream")
        script = script_for(self)
        alone = played(self, setup_of(model, script, mode=None, stream=True), script)
        observed = played(self, setup_of(model, script, mode="observe", stream=True), script)
        assert changed(alone.bodies, observed.bodies) == []
        assert observed.answers == alone.answers

    @pytest.mark.moves_prefix(reason="the time in the system prompt stays there")
    def test_observe_leaves_dynamic_text_where_it_is(self) -> None:
        """A system prompt that changes at each turn goes out as the framework makes it."""
        needs(self, "dynamic")
        alone, observed = (_told_the_time(self, mode=mode, marked=False) for mode in (None, "observe"))
        assert changed(alone.bodies, observed.bodies) == []


class AppendsOnly(AdapterExamples):
    """In buffer mode each prompt begins with the one before it, and the model answers as it would without."""

    def test_each_prompt_begins_with_the_one_before_it(self, model: tuple[str, str]) -> None:
        """Block by block, without breakpoints and without dynamic text."""
        script = script_for(self)
        run = played(self, setup_of(model, script), script)
        assert len(run.bodies) >= len(script.turns)
        assert_prefix_stable([without_tail(body) for body in run.bodies])

    def test_nothing_that_was_said_is_missing(self, model: tuple[str, str]) -> None:
        """The last prompt holds the system text and all that was said before it."""
        script = script_for(self)
        run = played(self, setup_of(model, script), script)
        sent = "\n".join(texts_of(run.bodies[-1]))
        said = [script.system, script.turns[-1].user]
        said += [text for turn in script.turns[:-1] for text in (turn.user, turn.answer)]
        assert [text for text in said if text not in sent] == []

    def test_the_answers_are_the_same(self, model: tuple[str, str]) -> None:
        """With a scripted model, answers and the framework's own history equal those without llmbuffer."""
        script = script_for(self)
        alone = played(self, setup_of(model, script, mode=None), script)
        buffered = played(self, setup_of(model, script), script)
        assert buffered.answers == alone.answers
        assert buffered.history == alone.history


TURNS = ("What can you do?", "And on Sundays?", "Thank you. And at night?", "Who answers then?", "Good bye.")


def _told_the_time(examples: AdapterExamples, *, mode: str | None, marked: bool) -> Played:
    """Five turns with the time in the system prompt, another one at each turn."""
    now = [0]

    def system() -> str:
        shown = clock(now[0])
        told = dynamic_text("now", shown) if marked else shown
        return f"{HANDBOOK}\n\nThe time is {told}.\nNever promise an hour."

    def drive(run: Run) -> None:
        for turn, text in enumerate(TURNS):
            now[0] = turn
            run.say(text)

    setup = setup_of(examples.served[0], TALK, mode=mode, system=system, tools={})
    return ran(examples, setup, [f"Answer {number}." for number in range(len(TURNS))], drive)


class MovesDynamicText(AdapterExamples):
    """What changes in the system prompt goes behind the prefix: into the user's message, behind the user's own text."""

    def test_marked_text_moves_from_the_first_request_on(self) -> None:
        """With ``dynamic_text`` the prefix never moves, and each prompt tells the time of its turn behind the question."""
        needs(self, "dynamic")
        run = _told_the_time(self, mode="buffer", marked=True)
        assert_prefix_stable([without_tail(body) for body in run.bodies])
        assert [_place(texts_of(body), turn) for turn, body in enumerate(run.bodies)] == ["behind"] * 5

    @pytest.mark.moves_prefix(reason="text that was seen to change moves once")
    def test_text_that_was_seen_to_change_moves(self) -> None:
        """Without marks it is learned: from the third turn on at the latest, the prefix does not move any more."""
        needs(self, "dynamic")
        run = _told_the_time(self, mode="buffer", marked=False)
        assert_prefix_stable([without_tail(body) for body in run.bodies[2:]])
        places = [_place(texts_of(body), turn) for turn, body in enumerate(run.bodies)]
        assert places[2:] == ["behind"] * 3
        assert set(places[:2]) <= {"before", "behind"}, "each prompt tells the time of its turn"

    def test_nothing_of_it_is_kept_by_the_framework(self) -> None:
        """The framework's history is the one without llmbuffer: the tail is sent, and not stored."""
        needs(self, "dynamic")
        alone = _told_the_time(self, mode=None, marked=False)
        run = _told_the_time(self, mode="buffer", marked=True)
        assert run.history == alone.history

    @pytest.mark.moves_prefix(reason="the policy keeps the time where it is")
    def test_the_policy_is_heeded(self) -> None:
        """With ``learn=False`` an unmarked time stays in the system prompt."""
        needs(self, "dynamic")
        from ...reconcile import Policy

        now = [0]
        setup = setup_of(
            self.served[0],
            TALK,
            system=lambda: f"{HANDBOOK}\n\nThe time is {clock(now[0])}.\nBe brief.",
            tools={},
            policy=Policy(learn=False),
        )
        with on_stage(self, [f"Answer {number}." for number in range(4)]) as stage:
            run = stage.agent(setup)
            for turn, text in enumerate(TURNS[:4]):
                now[0] = turn
                run.say(text)
            assert [_place(texts_of(body), turn) for turn, body in enumerate(stage.bodies)] == ["before"] * 4


def _place(texts: list[str], turn: int) -> str:
    """Where the time of a turn stands: before the question of the turn, behind it, or nowhere."""
    told = "\n".join(texts)
    at, asked = told.rfind(clock(turn)), told.rfind(TURNS[turn])
    assert asked >= 0, f"the question of turn {turn} is missing"
    return "nowhere" if at < 0 else "before" if at < asked else "behind"
