"""Compaction in sessions: when it is done, what it keeps, what it says, and what the next request is."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from typing import Any

import pytest

from llmbuffer import (
    Message,
    Reasoning,
    Segment,
    Session,
    StableContext,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from llmbuffer.chain import walk
from llmbuffer.compacting import RECALL
from llmbuffer.compaction import (
    Budget,
    ClipToolOutput,
    Compaction,
    CompactionWarning,
    DropReasoning,
    ElideToolResults,
    Summarizer,
    Truncator,
)
from llmbuffer.errors import CompactionError, HookError, OriginalError, PairingError, PlacementError
from llmbuffer.plugins import get_dialect
from llmbuffer.rebuilding import rebuilt
from llmbuffer.state import State, attach, link
from llmbuffer.testing import FakeClock
from llmbuffer.testing.dialect.cases import converse, session_for
from llmbuffer.tokens import EstimateCounter

TOOLS = [{"name": "look", "parameters": {"type": "object"}}]
MODELS = [
    ("openai", "gpt-5.5"),
    ("openai", "gpt-5.6"),
    ("openai-responses", "gpt-5.6"),
    ("anthropic", "claude-sonnet-5.5"),
    ("gemini", "gemini-3.1-pro"),
]


def session_of(
    *hooks: Any,
    model: tuple[str, str] = MODELS[0],
    max_tokens: int = 4_000,
    target: float = 0.5,
    **options: Any,
) -> Session:
    given = {
        name: options.pop(name) for name in ("horizon", "reserve", "strict", "max_loss") if name in options
    }
    return Session(
        StableContext(model[1], "You are kind. " * 40, TOOLS),
        model[0],
        tokens=EstimateCounter(),
        clock=options.pop("clock", None) or FakeClock(),
        compaction=Compaction(max_tokens, target, hooks, **{"horizon": 30, **given}),
        **options,
    )


def turn(session: Session, number: int, *, found: int = 400, thought: Any = None) -> None:
    """One turn with one call of a tool."""
    before = () if thought is None else (thought,)
    asked = session.request(f"Question {number}: " + "why? " * 20)
    asked.observe(Usage(100, 9), Message("assistant", [*before, ToolCall(f"call_{number}", "look", "{}")]))
    session.append(Message("tool", [ToolResult(f"call_{number}", f"Found {number}: " + "so. " * found)]))
    session.request().observe(
        Usage(100, 9), Message("assistant", [*before, Text(f"Answer {number}. " + "thus " * 20)])
    )


def turns(session: Session, count: int, **options: Any) -> Session:
    for number in range(count):
        turn(session, number, **options)
    return session


def said(session: Session, number: int, *, found: int = 400, thought: Any = None) -> None:
    """The same turn as a host would hand it over: nothing is asked, so nothing is compacted."""
    before = () if thought is None else (thought,)
    session.append(
        [
            Message("user", f"Question {number}: " + "why? " * 20),
            Message("assistant", [*before, ToolCall(f"call_{number}", "look", "{}")]),
            Message("tool", [ToolResult(f"call_{number}", f"Found {number}: " + "so. " * found)]),
            Message("assistant", [*before, Text(f"Answer {number}. " + "thus " * 20)]),
        ]
    )


def told(session: Session, count: int, **options: Any) -> Session:
    for number in range(count):
        said(session, number, **options)
    return session


def ids(session: Session) -> list[str]:
    text = "\n".join(
        result.content
        for message in session.messages
        for result in message.tool_results
        if isinstance(result.content, str)
    )
    text += "\n".join(message.text for message in session.messages)
    return re.findall(r'"([0-9a-f]{16})"', text)


# When


def test_nothing_happens_without_need() -> None:
    session = turns(session_of(ElideToolResults(1), max_tokens=100_000), 3)
    assert session.epoch == 0
    assert {entry.kind for entry in session.ledger} == {"request"}
    assert session.compaction_preview().compact is False


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("placement", ["turn", "tail", "sticky"])
def test_asking_changes_nothing_and_asking_twice_gives_the_same_bytes(
    model: tuple[str, str], placement: Any
) -> None:
    session = turns(session_of(ElideToolResults(1), Truncator(), model=model, placement=placement), 8)
    before, tip, epoch, entries = session.messages, session.tip, session.epoch, len(session.ledger)
    clock = {"clock": "12:00"}
    for words in ("And now? " * 300, "And now? " * 20):
        one, two = (session.request(words, dynamic=clock) for _ in range(2))
        assert one.body == two.body
        assert one.key == two.key
    assert (session.messages, session.tip, session.epoch, len(session.ledger)) == (
        before,
        tip,
        epoch,
        entries,
    )


def test_a_request_that_does_not_fit_is_made_to_fit_with_everything_that_is_in_it() -> None:
    session = session_of(ElideToolResults(0), Truncator(), reserve=500)
    for number in range(14):
        turn(session, number)
        request = session.request("A long question. " * 60, dynamic={"found": "a result " * 150})
        assert request.snapshot.tokens <= 4_000 - 500
        assert "over-max-tokens" not in request.forecast.warnings
    assert session.epoch > 0


def test_what_cannot_fit_is_sent_and_said() -> None:
    session = turns(session_of(Truncator(), max_tokens=1_500), 2)
    request = session.request("A long question. " * 600)
    assert "over-max-tokens" in request.forecast.warnings


def test_compaction_is_an_epoch_in_the_ledger_and_no_alarm() -> None:
    session = turns(session_of(ElideToolResults(1), Truncator()), 12)
    compacted = [entry for entry in session.ledger if entry.kind == "compacted"]
    assert len(compacted) == session.epoch > 0
    for entry in compacted:
        assert entry.after_tokens < entry.before_tokens
        assert "tokens" in entry.reason
    assert "compacted" in {entry.kind for entry in session.ledger}
    assert session.ledger.breaks == ()
    assert session.ledger.requests == 24


def test_it_goes_down_to_the_target_and_not_at_every_turn() -> None:
    session = turns(session_of(ElideToolResults(0), Truncator(), horizon=0), 40)
    compacted = [entry for entry in session.ledger if entry.kind == "compacted"]
    assert 2 <= len(compacted) <= 10
    assert all(entry.after_tokens <= 2_000 + 100 for entry in compacted)


def test_where_the_target_is_out_of_reach_breaks_are_rare_all_the_same() -> None:
    session = turns(session_of(ClipToolOutput(60), ElideToolResults(1), Truncator(), max_tokens=3_000), 60)
    done = [entry for entry in session.ledger if entry.kind == "compacted"]
    fitted = [entry for entry in done if "does not fit" in entry.reason]
    assert 2 <= len(done) <= 12
    assert all(entry.after_tokens <= 0.8 * entry.before_tokens for entry in done if entry not in fitted)


def test_a_cold_cache_is_the_moment_to_compact() -> None:
    """Warm it would not pay for so few requests; cold, everything is written anew anyway."""
    outcomes = []
    for pause in (10, 4_000):
        clock = FakeClock()
        session = turns(
            session_of(ElideToolResults(0), horizon=2, clock=clock, max_tokens=8_000, target=0.3), 11
        )
        assert session.epoch == 0
        clock.advance(pause)
        outcomes.append(session.request("And now?").placed.compacted is not None)
    assert outcomes == [False, True]


def test_two_open_requests_and_a_compaction() -> None:
    session = told(session_of(ElideToolResults(0), Truncator()), 9)
    long, short = session.request("Long. " * 400), session.request("Short.")
    assert long.placed.compacted is not None
    one = long.observe(Usage(9, 1), Message("assistant", "One."))
    two = short.observe(Usage(9, 1), Message("assistant", "Two."))
    assert one.session is session
    assert two.forked
    assert session.messages[-2].text.startswith("Long.")
    assert [message.text for message in two.session.messages[-2:]] == ["Short.", "Two."]


def test_calls_that_await_results_keep_everything_as_it_is() -> None:
    session = turns(session_of(ElideToolResults(0), Truncator()), 9)
    session.append([Message("user", "Look."), Message("assistant", [ToolCall("c", "look", "{}")])])
    before = session.messages
    with pytest.raises(PairingError):
        session.compact()
    assert session.compaction_preview().why == "calls await their results"
    assert session.messages == before


def test_within_a_turn_only_what_has_to_be() -> None:
    """Results that no longer fit are served in the middle of a turn; the turn itself stays, and so does its dynamic text."""
    session = told(session_of(ElideToolResults(0), Truncator(), max_tokens=6_000, horizon=0), 9)
    session.request("Look at all of it.", dynamic={"clock": "12:00"}).observe(
        Usage(9, 1), Message("assistant", [ToolCall("big", "look", "{}")])
    )
    session.append(Message("tool", [ToolResult("big", "huge. " * 3_200)]))
    request = session.request()
    assert request.placed.compacted is not None
    assert [segment.content for segment in request.dynamic] == ["12:00"]
    assert "12:00" in str(request.body)
    request.observe(Usage(9, 1), Message("assistant", "Seen."))
    assert session.messages[-2].tool_results[0].content == "huge. " * 3_200
    assert session.tip.depth == len(session.messages)


def test_forks_made_before_and_after_agree() -> None:
    session = told(session_of(ElideToolResults(0), Truncator()), 9)
    before = [session.fork(f"worker-{number}") for number in range(3)]
    asked = [each.request("Long. " * 400) for each in (session, *before)]
    assert all(each.placed.compacted is not None for each in asked)
    assert len({str(each.body["messages"]) for each in asked}) == 1
    asked[0].observe(Usage(9, 1), Message("assistant", "So."))
    after = session.fork()
    assert after.request("Next").body["messages"] == session.request("Next").body["messages"]
    assert after.epoch == session.epoch


# Explicit, and the preview


@pytest.mark.parametrize("model", MODELS)
def test_compact_does_what_the_preview_says(model: tuple[str, str]) -> None:
    session = told(session_of(ElideToolResults(2), model=model, max_tokens=50_000, target=0.01, horizon=0), 6)
    before, seen = session.messages, session.compaction_preview()
    assert session.messages == before
    assert seen.before > seen.after
    assert seen.actions == ("ElideToolResults",)
    assert seen.break_even < math.inf
    assert seen.cost_now is not None
    done = session.compact("the topic has changed")
    assert (done.before, done.actions) == (seen.before, seen.actions)
    assert session.epoch == 1
    entry = session.ledger[-1]
    assert (entry.kind, entry.before_tokens, entry.after_tokens) == ("compacted", done.before, done.after)
    assert "the topic has changed" in entry.reason
    assert session.request("x").placed.compacted is None
    assert session.request("And now?").snapshot.tokens < done.before


def test_compact_where_nothing_helps_changes_nothing() -> None:
    session = told(session_of(ElideToolResults(50), max_tokens=50_000), 3)
    before = session.tip
    done = session.compact()
    assert done.compact is False
    assert session.tip is before
    assert session.epoch == 0
    empty = session_of(ElideToolResults(0))
    assert empty.compact().before == empty.compact().after


def test_a_session_without_compaction_says_so() -> None:
    session = Session(StableContext("gpt-5.5"))
    for asks in (session.compact, session.compaction_preview):
        with pytest.raises(CompactionError, match="no compaction"):
            asks()


# Hooks


@pytest.mark.parametrize("keep", ["head+tail", "head", "tail"])
@pytest.mark.parametrize("model", MODELS)
def test_clipping_what_a_tool_returned(keep: Any, model: tuple[str, str]) -> None:
    session = session_of(ClipToolOutput(60, keep), model=model, max_tokens=50_000)
    lines = "\n".join(f"line {number} of the output" for number in range(400))
    session.append([Message("user", "Look."), Message("assistant", [ToolCall("c", "look", "{}")])])
    original = Message("tool", [ToolResult("c", lines)])
    session.append(original)
    clipped = str(session.messages[-1].tool_results[0].content)
    assert EstimateCounter().count(clipped) < 60 + 50
    assert ("line 0 of" in clipped) == (keep != "tail")
    assert ("line 399 of" in clipped) == (keep != "head")
    (name,) = ids(session)
    assert session.original(name) == original
    assert re.search(r"of [\d,]+ tokens were cut here", clipped)
    again = session.fork()
    assert again.original(name) == original
    assert session.recall_original(name) == lines
    assert "nothing was kept" in session.recall_original("0000")
    with pytest.raises(OriginalError):
        session.original("0000")


def test_clipping_leaves_pictures_and_short_results_alone() -> None:
    session = session_of(ClipToolOutput(30), max_tokens=50_000)
    session.append(
        [
            Message("user", "Look."),
            Message("assistant", [ToolCall("c", "look", "{}"), ToolCall("d", "look", "{}")]),
        ]
    )
    parts = (Text("one " * 100), Text("two " * 100))
    session.append(
        [
            Message("tool", [ToolResult("c", "short")]),
            Message("tool", [ToolResult("d", parts, is_error=True)]),
        ]
    )
    short, long = session.messages[-2:]
    assert short.tool_results[0].content == "short"
    (result,) = long.tool_results
    assert result.is_error
    assert len(result.content) == 2
    assert len(ids(session)) == 0
    assert all("were cut here" in part.text for part in result.content if isinstance(part, Text))


def test_a_result_that_a_marker_would_make_longer_stays_as_it_is() -> None:
    session = session_of(ClipToolOutput(60), max_tokens=50_000, strict=True)
    session.append(Message("user", "Look."))
    for length in range(200, 400, 5):
        call = ToolCall(f"c{length}", "look", "{}")
        result = Message("tool", [ToolResult(call.id, "x" * length)])
        session.append([Message("assistant", [call]), result])
        clipped = "were cut here" in str(session.messages[-1].tool_results[0].content)
        assert clipped or session.messages[-1] == result
    assert clipped


def test_elided_results_come_back_by_their_ids() -> None:
    session = told(session_of(ElideToolResults(1), max_tokens=50_000, target=0.01, horizon=0), 5)
    before = session.messages
    session.compact()
    assert len(ids(session)) == 4
    originals = [session.original(name) for name in ids(session)]
    assert originals == [message for message in before if message.tool_results][:-1]


def test_dropped_turns_come_back_by_one_id() -> None:
    session = told(session_of(Truncator(), max_tokens=50_000, target=0.02, horizon=0), 8)
    before = session.messages
    session.compact()
    (name,) = ids(session)
    found = session.original(name)
    assert isinstance(found, tuple)
    assert session.messages[0] == before[0]
    assert before == (session.messages[0], *found, *session.messages[2:])
    assert "Answer 0" in session.recall_original(name)


def test_reasoning_is_dropped_but_for_the_newest_turns() -> None:
    session = told(
        session_of(DropReasoning(2), max_tokens=50_000, target=0.01, horizon=0),
        5,
        thought=Reasoning("first, " * 50),
    )
    session.compact()
    bearing = [any(isinstance(part, Reasoning) for part in message.parts) for message in session.messages]
    replies = [
        bears for message, bears in zip(session.messages, bearing, strict=True) if message.role == "assistant"
    ]
    assert replies == [False] * 6 + [True] * 4


def test_a_hook_of_ones_own() -> None:
    def newest(messages: list[Message], budget: Budget) -> Sequence[Message]:
        assert budget >= 0
        assert budget.moment == "between"
        kept = messages[-4:]
        assert sum(map(budget.count, kept)) < sum(map(budget.count, messages))
        return [messages[0], Message("assistant", f"[left out: {budget.keep(messages[1:-4])}]"), *kept]

    session = told(session_of(newest, max_tokens=50_000, target=0.01, horizon=0, max_loss=1.0), 4)
    before = session.messages
    session.compact()
    name = session.messages[1].text.split()[-1][:-1]
    assert session.original(name) == before[1:-4]


# Summaries


def test_forks_share_one_summary() -> None:
    asked: list[int] = []

    def summarize(messages: Sequence[Message]) -> str:
        asked.append(len(messages))
        return f"They talked {len(asked)} times."

    session = told(session_of(Summarizer(summarize, 100), max_tokens=50_000, target=0.02, horizon=0), 8)
    forks = [session.fork() for _ in range(3)]
    for each in (session, *forks):
        each.compact()
    assert len(asked) == 1
    assert len({each.tip.digest for each in (session, *forks)}) == 1
    assert "They talked 1 times." in session.messages[1].text


def test_a_summary_is_made_only_when_it_is_wanted() -> None:
    asked: list[int] = []

    def summarize(messages: Sequence[Message]) -> str:
        asked.append(1)
        return "So."

    hook = Summarizer(summarize, 100)
    session = told(session_of(hook, max_tokens=50_000, target=0.02, horizon=0), 8)
    assert session.compaction_preview().actions == ("Summarizer",)
    assert asked == []
    session.compact()
    assert asked == [1]


def test_a_summary_at_commit_time() -> None:
    hook = Summarizer(lambda messages: "It says so.", 100, moment="commit")
    session = told(session_of(hook, max_tokens=50_000), 2)
    content = [str(m.tool_results[0].content) for m in session.messages if m.tool_results]
    assert all(text.endswith("It says so.") for text in content)
    original = session.original(ids(session)[0])
    assert isinstance(original, Message)
    assert str(original.tool_results[0].content).startswith("Found 0")


def test_a_summary_that_has_to_be_awaited() -> None:
    async def summarize(messages: Sequence[Message]) -> str:
        await asyncio.sleep(0)
        return "They talked."

    session = told(session_of(Summarizer(summarize, 100), max_tokens=50_000, target=0.02, horizon=0), 8)
    with pytest.raises(HookError, match="acompact"):
        session.compact()
    before = session.messages

    async def both() -> Any:
        request = await session.arequest("Long. " * 40)
        return request, await session.acompact()

    request, done = asyncio.run(both())
    assert done.actions == ("Summarizer",)
    assert "They talked." in session.messages[1].text
    assert session.original(ids(session)[0]) == before[1 : 1 + len(session.original(ids(session)[0]))]  # type: ignore[arg-type]
    assert request.base.tip.depth == len(before)


def test_a_summary_that_fails_while_it_is_awaited() -> None:
    async def summarize(messages: Sequence[Message]) -> str:
        raise ValueError("a secret")

    session = turns(session_of(Summarizer(summarize, 100)), 3)

    async def ask() -> Any:
        for number in range(3, 9):
            request = await session.arequest(f"Question {number} " + "why? " * 500)
            request.observe(Usage(9, 1), Message("assistant", "So. " * 50))
        return request

    with pytest.warns(CompactionWarning, match="it raised ValueError"):
        request = asyncio.run(ask())
    assert "over-max-tokens" in request.forecast.warnings
    refused = {entry.reason for entry in session.ledger if entry.kind == "hook-refused"}
    assert refused == {"Summarizer: it raised ValueError"}


def test_a_summarizer_without_a_client_says_what_to_do() -> None:
    session = told(
        session_of(Summarizer(over=100), max_tokens=50_000, target=0.02, horizon=0, strict=True), 8
    )
    with pytest.raises(HookError, match=r"Session\(client=…\)"):
        session.compact()


# Documents and pins


def test_documents_are_told_by_what_changed_and_once_again_at_a_compaction() -> None:
    session = session_of(ElideToolResults(0), max_tokens=50_000, target=0.01, horizon=0)
    steps = [f"{number}. Do this and that with care." for number in range(20)]
    session.document("plan", "\n".join(steps))
    said(session, 0)
    session.document("plan", "\n".join([*steps[:-1], "19. Rest."]))
    said(session, 1)
    versions = [message.text for message in session.messages if message.text.startswith("<document")]
    assert versions[0].startswith('<document name="plan" version="1">')
    assert versions[1].startswith('<document name="plan" version="2" changes="1">')
    assert "+19. Rest." in versions[1]
    assert len(versions[1]) < len(versions[0])
    tip = session.tip
    session.document("plan", "\n".join([*steps[:-1], "19. Rest."]))
    assert session.tip is tip
    session.compact()
    (now,) = [message.text for message in session.messages if message.text.startswith("<document")]
    assert (
        now
        == '<document name="plan" version="2">\n' + "\n".join([*steps[:-1], "19. Rest."]) + "\n</document>"
    )
    assert session.messages[0].text == now
    assert session.documents == {"plan": "\n".join([*steps[:-1], "19. Rest."])}
    session.document("plan", "Something else.")
    assert (
        session.messages[-1].text
        == '<document name="plan" version="3" replaces="all">\nSomething else.\n</document>'
    )


def test_documents_survive_every_truncation() -> None:
    session = session_of(Truncator())
    for number in range(12):
        if number % 3 == 0:
            session.document("notes", f"Note {number}: keep the blue one.")
        turn(session, number)
    assert session.epoch > 0
    assert any("Note 9" in message.text for message in session.messages)
    assert session.documents == {"notes": "Note 9: keep the blue one."}


def test_a_document_has_no_place_behind_a_tools_result() -> None:
    session = session_of(model=("anthropic", "claude-sonnet-5.5"))
    session.append([Message("user", "Look."), Message("assistant", [ToolCall("c", "look", "{}")])])
    with pytest.raises(PairingError):
        session.document("plan", "x")
    session.append(Message("tool", [ToolResult("c", "found")]))
    with pytest.raises(PlacementError, match="after the reply"):
        session.document("plan", "x")


@pytest.mark.parametrize("hook", [Truncator(), Summarizer(lambda messages: "So.", 50)])
def test_pinned_messages_and_pinned_sticky_text_stay(hook: Any) -> None:
    session = session_of(hook, max_tokens=50_000, target=0.02, horizon=0, placement="sticky")
    said(session, 0)
    rule = [Segment("rule", "Never call Ann.", "turn", pinned=True)]
    session.request("Mind the rule.", dynamic=rule).observe(Usage(9, 1), Message("assistant", "Yes."))
    for number in range(1, 8):
        said(session, number)
    pin = next(message for message in session.messages if message.tool_results)
    session.pin(pin)
    session.compact()
    assert any("Never call Ann." in message.text for message in session.messages)
    assert pin in session.messages
    assert any(
        call.id == pin.tool_results[0].call_id for message in session.messages for call in message.tool_calls
    )
    with pytest.raises(CompactionError, match="append it first"):
        session.pin(Message("user", "never said"))


def test_the_recall_tool_is_a_tool_of_the_context() -> None:
    context = StableContext("gpt-5.5", tools=[RECALL])
    assert Session(context).request("x").body["tools"][0]["function"]["name"] == "recall_original"


# Building a history anew


@pytest.mark.parametrize(("dialect", "model"), MODELS)
def test_a_history_built_at_once_equals_one_built_message_by_message(dialect: str, model: str) -> None:
    session = session_for(get_dialect(dialect), model)
    list(converse(session, 4, dynamic=True))
    messages, bound = session.messages, session.dialect
    one = State.empty()
    for message in messages:
        one = attach(one, link(one, message, bound, session.counter), bound)
    sizes = {id(node.message): node.tokens for node in walk(one.tip)}
    for start in (0, 3, len(messages)):
        two = rebuilt(one, messages, start, bound, lambda message: sizes[id(message)])
        assert _told(two, bound) == _told(one, bound)


def _told(state: State, dialect: Any) -> Any:
    wires: list[Any] = []
    state.rendered.extend(wires, dialect)  # type: ignore[arg-type]
    tip, anchor = state.tip, state.anchor
    place = None if anchor is None else (anchor.place, anchor.node.wire)
    counted = (state.kind, state.open_calls, state.call_names, state.given_marks)
    return wires, (tip.wire, tip.digest, tip.end, tip.position), place, counted
