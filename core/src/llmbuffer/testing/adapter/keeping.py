"""Conversations: kept apart, followed when their users edit them, gone on with elsewhere."""

from __future__ import annotations

import pytest

from ..prefix import assert_prefix_stable
from .examples import AdapterExamples
from .script import TALK
from .stage import needs, on_stage, ran, texts_of, without_tail
from .wire import setup_of

__all__ = ["FollowsItsHost", "KeepsConversationsApart", "Resumes"]

TAGS = ("amber", "birch")


class KeepsConversationsApart(AdapterExamples):
    """Two conversations through one wrapped model never meet."""

    def test_interleaved_conversations_never_meet(self, model: tuple[str, str]) -> None:
        """They begin with the same words; no prompt of one holds a word of the other, and each is append-only."""
        needs(self, "conversations")
        with on_stage(self, lambda asked: _echo(asked.body)) as stage:
            run = stage.agent(setup_of(model, TALK, tools={}))
            for tag in TAGS:
                run.say("Good morning.", conversation=tag)
            for turn in range(3):
                for tag in TAGS:
                    run.say(f"Question {turn} about {tag}.", conversation=tag)
            by_tag = [[body for body in stage.bodies if _holds(body, tag)] for tag in TAGS]
            histories = ["".join(each.text for each in run.history(tag)) for tag in TAGS]
        assert [len(bodies) for bodies in by_tag] == [3, 3]
        assert [body for body in stage.bodies if all(_holds(body, tag) for tag in TAGS)] == []
        for bodies in by_tag:
            assert_prefix_stable([without_tail(body) for body in bodies])
        assert [TAGS[1] in histories[0], TAGS[0] in histories[1]] == [False, False]


def _echo(body: object) -> str:
    asked = [text for text in texts_of(body) if "Question" in text]
    return f"You asked: {asked[-1]}" if asked else "Good morning to you."


def _holds(body: object, tag: str) -> bool:
    return any(tag in text for text in texts_of(body))


class FollowsItsHost(AdapterExamples):
    """What users take out of their conversation never reaches the wire again."""

    @pytest.mark.moves_prefix(reason="a user takes text out of the history")
    def test_a_deletion_is_followed_at_once(self, model: tuple[str, str]) -> None:
        """From the next request on, and in every later one."""
        needs(self, "edits")
        with on_stage(self, ["One.", "Two.", "Three.", "Four."]) as stage:
            run = stage.agent(setup_of(model, TALK, tools={}))
            run.say("My number is 555-0199.", "Where is parcel 7?")
            run.agent.redact("555-0199")
            run.say("And now?", "And tomorrow?")
            told = ["555-0199" in "\n".join(texts_of(body)) for body in stage.bodies]
        assert told == [True, True, False, False]

    @pytest.mark.moves_prefix(reason="a user takes text out of the history")
    def test_the_rest_is_append_only_again(self) -> None:
        """One break for one edit."""
        needs(self, "edits")
        with on_stage(self, ["One.", "Two.", "Three.", "Four."]) as stage:
            run = stage.agent(setup_of(self.served[0], TALK, tools={}))
            run.say("My number is 555-0199.", "Where is parcel 7?")
            run.agent.redact("555-0199")
            run.say("And now?", "And tomorrow?")
            bodies = [without_tail(body) for body in stage.bodies]
        assert_prefix_stable(bodies[:2])
        assert_prefix_stable(bodies[2:])


class Resumes(AdapterExamples):
    """A conversation that was kept goes on elsewhere as if nothing had happened."""

    def test_a_saved_conversation_goes_on(self, model: tuple[str, str]) -> None:
        """Same history, and the next prompt begins with the last one of before."""
        needs(self, "persistence")
        replies = ["One.", "Two.", "Three."]
        setup = setup_of(model, TALK, tools={})
        whole = ran(self, setup, replies, lambda run: run.say("First?", "Second?", "Third?"))
        with on_stage(self, replies) as stage:
            before = stage.agent(setup).say("First?", "Second?")
            after = stage.restored(setup, before.agent.saved()).say("Third?")
            assert after.answers == ["Three."]
            assert after.history() == whole.history
            assert_prefix_stable([without_tail(body) for body in stage.bodies])
