"""Tools, ways of calling, and structured output."""

from __future__ import annotations

from typing import Any

from ...frozen import wire_json
from ...messages import Message
from ...simulate import Asked, Call, Reply
from .examples import AdapterExamples
from .script import HANDBOOK, TALK, Recorded
from .stage import Body, Played, Run, changed, needs, on_stage, prompt_of, ran, texts_of
from .wire import played, script_for, setup_of

__all__ = ["AnswersInEveryWay", "FreezesTools", "GivesObjects", "RunsTools", "awaited"]


class RunsTools(AdapterExamples):
    """Native tools work as without llmbuffer."""

    def test_results_reach_the_model(self, model: tuple[str, str]) -> None:
        """A tool that the model calls is run once, with its arguments, and its result is sent."""
        needs(self, "tools")
        kept = Recorded()
        setup = setup_of(model, TALK, tools=kept.tools)
        replies: list[str | Reply] = [
            Reply(calls=(Call("hold", '{"number": "7", "days": 2}', "call_1"),)),
            "It is held.",
        ]
        run = ran(self, setup, replies, lambda run: run.say("Hold parcel 7, please."))
        assert kept.runs == ["hold"]
        assert run.answers == ["It is held."]
        assert any("Parcel 7 is held for 2 days." in text for text in texts_of(run.bodies[-1]))

    def test_parallel_calls_are_all_answered(self, model: tuple[str, str]) -> None:
        """Two calls in one reply are run once each, and the framework keeps the results in its own order."""
        needs(self, "tools", "parallel-tools")
        calls = (Call("look_up", '{"number": "7"}', "call_1"), Call("depots", '{"place": "Lyon"}', "call_2"))
        kept = [Recorded(), Recorded()]
        runs = [
            ran(
                self,
                setup_of(model, TALK, tools=each.tools, mode=mode),
                [Reply(calls=calls), "Both."],
                lambda run: run.say("Where is 7, and which depots are there?"),
            )
            for mode, each in zip((None, "buffer"), kept, strict=True)
        ]
        assert sorted(kept[1].runs) == sorted(kept[0].runs) == ["depots", "look_up"]
        assert runs[1].history == runs[0].history
        assert runs[1].answers == ["Both."]


class FreezesTools(AdapterExamples):
    """The list of tools stays as it was first seen, and a tool that the framework takes away is not run."""

    def test_the_list_keeps_its_order_and_bytes(self, model: tuple[str, str]) -> None:
        """Whether the framework sends fewer tools, or the same ones in another order."""
        needs(self, "tools", "hides")
        kept = Recorded()
        with on_stage(self, [f"Answer {number}." for number in range(4)]) as stage:
            run = stage.agent(setup_of(model, TALK, tools=kept.tools))
            names = list(kept.tools)
            for offered in (names, names[:2], names[::-1], names):
                run.agent.offer(offered)
                run.say("What can you do?")
            sent = [_tools(body) for body in stage.bodies]
        assert sent[0] != wire_json(None)
        assert sent == sent[:1] * 4

    def test_a_hidden_tool_is_never_run(self, model: tuple[str, str]) -> None:
        """A call of it is answered with an error that the model reads, and the turn goes on."""
        needs(self, "tools", "hides")
        kept = Recorded()
        calls = (Call("hold", '{"number": "7", "days": 2}', "call_1"),)
        with on_stage(self, ["Hello!", Reply(calls=calls), "Then not."]) as stage:
            run = stage.agent(setup_of(model, TALK, tools=kept.tools)).say("Hello")
            run.agent.offer([name for name in kept.tools if name != "hold"])
            run.say("Hold parcel 7, please.")
            assert kept.runs == [], "a hidden tool was run"
            assert run.answers[-1] == "Then not."
            told = "\n".join(texts_of(stage.bodies[-1]))
            assert "cannot be used now" in told, "the model was not told why its call failed"

    def test_a_tool_that_is_offered_again_is_run(self, model: tuple[str, str]) -> None:
        """The error is for the time in which the tool is hidden."""
        needs(self, "tools", "hides")
        kept = Recorded()
        calls = (Call("hold", '{"number": "7", "days": 2}', "call_1"),)
        with on_stage(self, ["Hello!", "Hi!", Reply(calls=calls), "It is held."]) as stage:
            run = stage.agent(setup_of(model, TALK, tools=kept.tools)).say("Hello")
            run.agent.offer([name for name in kept.tools if name != "hold"])
            run.say("Are you there?")
            run.agent.offer(list(kept.tools))
            run.say("Hold parcel 7, please.")
            assert kept.runs == ["hold"]


def _tools(body: Body) -> bytes:
    return wire_json(body.get("tools", body.get("functions")))


class AnswersInEveryWay(AdapterExamples):
    """Synchronous, asynchronous and streaming: the same prompts, the same answers."""

    def test_async_sends_the_same(self, model: tuple[str, str]) -> None:
        """The asynchronous way has the prompts, answers and history of the synchronous one."""
        needs(self, "async")
        script = script_for(self)
        setup = setup_of(model, script)
        waiting = played(self, setup, script)
        said = [turn.user for turn in script.turns]
        other = ran(self, setup, script.replies(), lambda run: awaited(run, *said))
        assert _prompts(other) == _prompts(waiting)
        assert other.answers == waiting.answers
        assert other.history == waiting.history

    def test_streaming_sends_the_same(self, model: tuple[str, str]) -> None:
        """A stream has the prompts, answers and history of whole replies, and it is a stream.

        Where the framework alone sends other prompts in its streams (identifiers, say), they hold the same texts.
        """
        needs(self, "stream")
        script = script_for(self)
        alone = [played(self, setup_of(model, script, mode=None, stream=on), script) for on in (False, True)]
        whole, streamed = (played(self, setup_of(model, script, stream=on), script) for on in (False, True))
        assert [request.stream for request in streamed.log] == [True] * len(streamed.log)
        if _prompts(alone[0]) == _prompts(alone[1]):
            assert _prompts(streamed) == _prompts(whole)
        said = [script.system, *(text for turn in script.turns for text in (turn.user, turn.answer))]
        assert [_holding(body, said) for body in streamed.bodies] == [
            _holding(body, said) for body in whole.bodies
        ]
        assert streamed.answers == whole.answers
        assert [_said(each) for each in streamed.history] == [_said(each) for each in whole.history]


def _prompts(run: Played) -> list[dict[str, Any]]:
    return [prompt_of(body) for body in run.bodies]


def _holding(body: Body, texts: list[str]) -> list[bool]:
    told = "\n".join(texts_of(body))
    return [text in told for text in texts]


def awaited(run: Run, *texts: str) -> None:
    """Turns of the user through the asynchronous way, in one event loop."""
    import asyncio

    async def turns() -> None:
        try:
            for text in texts:
                run.answers.append(await run.agent.asay(text))
        finally:
            await run.agent.aclose()

    asyncio.run(turns())


def _said(message: Message) -> tuple[object, ...]:
    calls = tuple((call.name, call.arguments) for call in message.tool_calls)
    return message.role, message.text, calls, message.tool_results


FIELDS = {"city": str, "days": int}
OBJECT = '{"city": "Lyon", "days": 2}'


class GivesObjects(AdapterExamples):
    """Structured output works as without llmbuffer."""

    def test_the_object_is_the_same(self, model: tuple[str, str]) -> None:
        """The same object, asked for by the same fields of the request."""
        needs(self, "structured")
        found = [_structured(self, model, mode) for mode in (None, "observe", "buffer")]
        assert [each[0] for each in found] == [{"city": "Lyon", "days": 2}] * 3
        alone, observed, buffered = (each[1].bodies for each in found)
        assert changed(alone, observed) == []
        for name in ("response_format", "tools", "tool_choice", "text", "output_format", "output_config"):
            assert [body.get(name) for body in buffered] == [body.get(name) for body in alone], name


def _structured(
    examples: AdapterExamples, model: tuple[str, str], mode: str | None
) -> tuple[dict[str, object], Played]:
    found: dict[str, object] = {}
    setup = setup_of(model, TALK, mode=mode, system=HANDBOOK, tools={})

    def answer(asked: Asked) -> Reply:
        forced = list(asked.body.get("tools") or ())
        if not forced:
            return Reply(OBJECT)
        told = forced[0].get("function", forced[0])
        return Reply(calls=(Call(told["name"], OBJECT, "call_1"),))

    def drive(run: Run) -> None:
        found.update(run.agent.structured("Where is parcel 7, and since when?", FIELDS))

    with on_stage(examples, answer) as stage:
        run = stage.agent(setup)
        drive(run)
        return found, Played([], stage.bodies, [], stage.answered, run.agent)
