"""Usage and breaks are told; errors come through."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from ...simulate import Reply
from ...usage import Usage
from ..prefix import assert_prefix_stable
from .acting import awaited
from .examples import AdapterExamples
from .script import TALK
from .stage import Played, Run, needs, on_stage, ran, without_tail
from .wire import played, script_for, setup_of

__all__ = ["PassesErrors", "TellsUsage"]


class TellsUsage(AdapterExamples):
    """The seam's account is what the provider said, and a break is told with its cause."""

    @pytest.mark.parametrize("mode", ["observe", "buffer"])
    def test_usage_is_what_the_provider_says(self, model: tuple[str, str], mode: str) -> None:
        """Input, output, read and written tokens of all requests, and how many these were."""
        script = script_for(self)
        _assert_told(played(self, setup_of(model, script, mode=mode), script))

    def test_usage_of_streams_is_told(self, model: tuple[str, str]) -> None:
        """Also where the framework itself drops it."""
        needs(self, "stream")
        script = script_for(self)
        _assert_told(played(self, setup_of(model, script, stream=True), script))

    def test_usage_of_awaited_calls_is_told(self) -> None:
        """Also through the asynchronous way."""
        needs(self, "async")

        setup = setup_of(self.served[0], TALK, tools={})
        _assert_told(ran(self, setup, ["In Lyon."], lambda run: awaited(run, "Where is it?")))

    def test_an_append_only_conversation_has_no_breaks(self, model: tuple[str, str]) -> None:
        """No false alarm."""
        script = script_for(self)
        run = played(self, setup_of(model, script), script)
        assert run.agent.seam is not None
        assert run.agent.seam.breaks == ()

    @pytest.mark.moves_prefix(reason="a user takes text out of the history")
    @pytest.mark.parametrize("mode", ["observe", "buffer"])
    def test_an_edit_is_told_as_a_break(self, mode: str) -> None:
        """What the host takes out of a warm prefix is a break whose cause is an edited history."""
        needs(self, "edits")
        with on_stage(self, ["One.", "Two.", "Three."]) as stage:
            run = stage.agent(setup_of(self.served[0], TALK, mode=mode, tools={}))
            run.say("My number is 555-0199.", "Where is parcel 7?")
            run.agent.redact("555-0199")
            run.say("And now?")
            assert run.agent.seam is not None
            assert [each.cause for each in run.agent.seam.breaks] == ["history-edited"]


def _assert_told(run: Played) -> None:
    seam = run.agent.seam
    assert seam is not None
    assert seam.usage == sum((request.usage for request in run.log), Usage())
    assert seam.account().requests == len(run.log)


def _caught(act: Callable[[], object]) -> BaseException:
    try:
        act()
    except Exception as error:  # noqa: BLE001 - the promise is about whatever the framework raises
        return error
    pytest.fail("the framework raised nothing: it returned as if the model had answered")


def _closed() -> str:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}/v1"


class PassesErrors(AdapterExamples):
    """The framework's own errors come through, nothing half-done stays behind, and the next turn works."""

    @pytest.mark.parametrize("status", [400, 429, 500])
    def test_the_error_is_the_frameworks_own(self, status: int) -> None:
        """The same class and text as without llmbuffer."""
        alone, buffered = (self._failed(status, mode)[0] for mode in (None, "buffer"))
        assert type(buffered) is type(alone)
        assert str(buffered) == str(alone)

    @pytest.mark.parametrize("status", [400, 429, 500])
    def test_the_next_turn_works(self, status: int) -> None:
        """Its answer and the framework's history are those without llmbuffer, and its prompt goes on from the last one."""
        (_, alone), (_, buffered) = (self._failed(status, mode) for mode in (None, "buffer"))
        assert buffered.answers == alone.answers
        assert buffered.history == alone.history
        assert_prefix_stable([without_tail(body) for body in buffered.bodies])
        seam = buffered.agent.seam
        assert seam is not None
        assert seam.usage == sum((request.usage for request in buffered.log), Usage())

    def test_the_error_of_an_awaited_call_is_the_frameworks_own(self) -> None:
        """The same class and text through the asynchronous way."""
        needs(self, "async")
        alone, buffered = (self._failed_awaiting(mode) for mode in (None, "buffer"))
        assert type(buffered) is type(alone)
        assert str(buffered) == str(alone)

    def test_a_stream_that_breaks_off_ends_as_it_would_without(self) -> None:
        """In the same error, or the same piece of an answer; and the next turn works."""
        needs(self, "stream")
        found = [self._broken_off(mode) for mode in (None, "buffer")]
        assert found[1][0] == found[0][0]
        assert found[1][1].answers == found[0][1].answers
        assert found[1][1].history == found[0][1].history
        assert_prefix_stable([without_tail(body) for body in found[1][1].bodies])

    def test_nobody_listens(self) -> None:
        """A refused connection is the framework's error too."""
        setups = [setup_of(self.served[0], TALK, mode=mode, tools={}) for mode in (None, "buffer")]
        url = _closed()
        agents = [self.agent(url, setup) for setup in setups]
        try:
            alone, buffered = (_caught(lambda agent=agent: agent.say("Hello")) for agent in agents)  # type: ignore[misc]
        finally:
            for agent in agents:
                agent.close()
        assert type(buffered) is type(alone)

    def _broken_off(self, mode: str | None) -> tuple[str, Played]:
        replies: list[str | Reply] = ["One.", Reply("Two, and so on.", truncated=True), "Three."]
        ended: list[str] = []

        def drive(run: Run) -> None:
            run.say("Where is parcel 7?")
            try:
                ended.append(run.agent.say("And parcel 8?"))
            except Exception as error:  # noqa: BLE001 - whatever the framework makes of it
                ended.append(type(error).__name__)
            run.say("And parcel 9?")

        run = ran(self, setup_of(self.served[0], TALK, mode=mode, tools={}, stream=True), replies, drive)
        return ended[0], run

    def _failed_awaiting(self, mode: str | None) -> BaseException:
        with on_stage(self, [Reply(status=429, message="not now")]) as stage:
            run = stage.agent(setup_of(self.served[0], TALK, mode=mode, tools={}))
            return _caught(lambda: awaited(run, "Where is parcel 7?"))

    def _failed(self, status: int, mode: str | None) -> tuple[BaseException, Played]:
        replies: list[str | Reply] = ["One.", Reply(status=status, message="not now"), "Two.", "Three."]
        errors: list[BaseException] = []

        def drive(run: Run) -> None:
            run.say("Where is parcel 7?")
            errors.append(_caught(lambda: run.say("And parcel 8?")))
            run.say("And parcel 9?", "Thank you.")

        run = ran(self, setup_of(self.served[0], TALK, mode=mode, tools={}), replies, drive)
        return errors[0], run
