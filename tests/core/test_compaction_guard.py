"""Hooks that misbehave: what they were given stays, nothing is lost, and the session says what was wrong."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import pytest

from llmbuffer import Message, Session, StableContext, ToolCall, ToolResult, Usage
from llmbuffer.compaction import Budget, ClipToolOutput, Compaction, CompactionWarning, Summarizer
from llmbuffer.errors import CompactionError, HookError, LossyError
from llmbuffer.testing import FakeClock
from llmbuffer.tokens import EstimateCounter

Hook = Callable[[list[Message], Budget], Any]
PINNED = Message("user", "Never touch the blue one. " * 4)


def session_with(*hooks: Any, max_tokens: int = 2_000, dialect: str = "openai", **options: Any) -> Session:
    """A session of six turns that no longer fits, with a pinned message in its second one."""
    model = {"openai": "gpt-5.5", "anthropic": "claude-haiku-4.5"}[dialect]
    compaction = Compaction(max_tokens, 0.5, hooks, horizon=20, **options)
    session = Session(
        StableContext(model, "You are kind."),
        dialect,
        tokens=EstimateCounter(),
        clock=FakeClock(),
        compaction=compaction,
    )
    for number in range(6):
        asked = PINNED if number == 1 else Message("user", f"Question {number}: " + "why? " * 40)
        session.append(
            [
                asked,
                Message("assistant", [ToolCall(f"call_{number}", "look", "{}")]),
                Message("tool", [ToolResult(f"call_{number}", f"Found {number}: " + "so. " * 400)]),
                Message("assistant", f"Answer {number}: " + "thus. " * 40),
            ]
        )
    session.pin(PINNED)
    return session


def without_results(messages: list[Message], budget: Budget) -> list[Message]:
    """A good hook, so that a bad one is not the only one."""
    return [
        Message("tool", [ToolResult(result.call_id, "gone")])
        if (result := next(iter(each.tool_results), None))
        else each
        for each in messages[:-4]
    ] + messages[-4:]


def raises(messages: list[Message], budget: Budget) -> Any:
    raise RuntimeError("a secret of the prompt")


def exits(messages: list[Message], budget: Budget) -> Any:
    raise SystemExit(3)


def grows(messages: list[Message], budget: Budget) -> Any:
    return [*messages[:-4], Message("user", "more " * 50), Message("assistant", "ok"), *messages[-4:]]


def drops_a_call(messages: list[Message], budget: Budget) -> Any:
    return [each for each in messages if each.call_ids != ("call_1",)]


def drops_a_result(messages: list[Message], budget: Budget) -> Any:
    return [each for each in messages if not any(one.call_id == "call_2" for one in each.tool_results)]


def drops_the_pin(messages: list[Message], budget: Budget) -> Any:
    return [each for each in messages if each != PINNED]


def drops_the_first(messages: list[Message], budget: Budget) -> Any:
    return messages[4:]


def drops_the_newest(messages: list[Message], budget: Budget) -> Any:
    return messages[:-4]


def changes_the_newest(messages: list[Message], budget: Budget) -> Any:
    return [*without_results(messages, budget)[:-1], Message("assistant", "Something else.")]


def returns_nothing(messages: list[Message], budget: Budget) -> Any:
    return None


def returns_a_text(messages: list[Message], budget: Budget) -> Any:
    return "messages"


def returns_dicts(messages: list[Message], budget: Budget) -> Any:
    return [{"role": "user", "content": "hi"}]


def empties_its_list(messages: list[Message], budget: Budget) -> Any:
    messages.clear()
    return messages


def breaks_messages_open(messages: list[Message], budget: Budget) -> Any:
    for each in messages:
        object.__setattr__(each, "_content", "damaged")
    return [Message(each.role, each.text) for each in messages]


async def is_asynchronous(messages: list[Message], budget: Budget) -> Any:
    return messages


def takes_too_much(messages: list[Message], budget: Budget) -> Any:
    return [
        messages[0],
        Message("assistant", "…"),
        *[each for each in messages if each == PINNED],
        *messages[-4:],
    ]


_numbers = itertools.count()


def other_bytes_each_time(messages: list[Message], budget: Budget) -> Any:
    short = without_results(messages, budget)
    return [*short[:-5], Message("assistant", f"Answer {next(_numbers)}"), *short[-4:]]


BAD: dict[Hook, str] = {
    raises: "it raised RuntimeError",
    exits: "it raised SystemExit",
    grows: "the result has to be smaller",
    drops_a_call: "and the call is not",
    drops_a_result: "their results are not",
    drops_the_pin: "a pinned message is gone",
    drops_the_first: "the first user message is gone",
    drops_the_newest: "the newest turn is not what it was",
    changes_the_newest: "the newest turn is not what it was",
    returns_nothing: "it returned nothing",
    returns_a_text: "it returned a str",
    returns_dicts: "it returned a dict among the messages",
    empties_its_list: "the first user message is gone",
    is_asynchronous: "it is asynchronous",
    takes_too_much: "max_loss allows 50%",
    other_bytes_each_time: "other messages for the same input",
}


def named(hook: Hook) -> str:
    return hook.__name__


@pytest.mark.parametrize("hook", BAD, ids=named)
def test_a_bad_hook_leaves_everything_as_it_was_and_is_in_the_ledger(hook: Hook) -> None:
    session = session_with(hook, max_loss=0.5)
    before, tip = session.messages, session.tip
    with pytest.warns(CompactionWarning, match="cannot be used"):
        request = session.request("And now?")
    assert session.messages == before
    assert session.tip is tip
    assert request.placed.compacted is None
    assert "over-max-tokens" in request.forecast.warnings
    (entry,) = session.ledger
    assert entry.kind == "hook-refused"
    assert hook.__name__ in entry.reason
    assert BAD[hook] in entry.reason
    assert "secret" not in entry.reason
    again = session.request("And now?")
    assert again.body == request.body
    assert len(session.ledger) == 1, "what was worked out is remembered, and told once"


@pytest.mark.parametrize("hook", BAD, ids=named)
def test_a_bad_hook_raises_where_hooks_are_strict(hook: Hook) -> None:
    session = session_with(hook, strict=True, max_loss=0.5)
    before, tip = session.messages, session.tip
    for asks in (lambda: session.request("And now?"), session.compact, session.compaction_preview):
        with pytest.raises(HookError, match="cannot be used") as caught:
            asks()
        assert BAD[hook] in caught.value.reason
        assert caught.value.hook == hook.__name__
        assert "secret" not in str(caught.value)
    assert session.messages == before
    assert session.tip is tip
    assert {entry.kind for entry in session.ledger} == {"hook-refused"}


@pytest.mark.parametrize("hook", [hook for hook in BAD if hook is not takes_too_much], ids=named)
def test_the_next_hook_works_in_place_of_a_bad_one(hook: Hook) -> None:
    session = session_with(hook, without_results)
    with pytest.warns(CompactionWarning):
        request = session.request("And now?")
    assert request.placed.compacted is not None
    assert "over-max-tokens" not in request.forecast.warnings
    request.observe(Usage(100, 1), Message("assistant", "So."))
    assert PINNED in session.messages
    assert session.epoch == 1


@pytest.fixture
def held() -> Iterator[Event]:
    event = Event()
    yield event
    event.set()


def test_a_hook_that_hangs_is_left_behind_and_its_late_result_dropped(held: Event) -> None:
    finished = Event()

    def hangs(messages: list[Message], budget: Budget) -> Any:
        held.wait(30)
        finished.set()
        return messages[:1]

    session = session_with(hangs, without_results, time_limit=0.05)
    before = session.messages
    with pytest.warns(CompactionWarning, match=r"longer than 0\.05 seconds"):
        request = session.request("And now?")
    assert request.placed.compacted is not None
    body = request.body
    held.set()
    assert finished.wait(30)
    assert session.messages == before
    assert session.request("And now?").body == body


def test_a_hook_that_hangs_raises_where_hooks_are_strict(held: Event) -> None:
    def hangs(messages: list[Message], budget: Budget) -> Any:
        return held.wait(30)

    with pytest.raises(HookError, match="longer than"):
        session_with(hangs, strict=True, time_limit=0.05).request("And now?")


def test_forcing_messages_open_damages_copies_only() -> None:
    session = session_with(breaks_messages_open)
    before = [(message.role, message.parts) for message in session.messages]
    with pytest.warns(CompactionWarning):
        session.request("And now?")
    assert [(message.role, message.parts) for message in session.messages] == before


def test_what_the_dialect_cannot_send_is_refused() -> None:
    def speaks_as_ann(messages: list[Message], budget: Budget) -> Any:
        pins = [each for each in messages if each == PINNED]
        return [messages[0], Message("assistant", "So.", "ann"), *pins, *messages[-8:]]

    session = session_with(speaks_as_ann, dialect="anthropic")
    with pytest.warns(CompactionWarning, match="the dialect cannot send it"):
        session.request("And now?")


def test_debug_off_calls_a_hook_once() -> None:
    calls: list[int] = []

    def counted(messages: list[Message], budget: Budget) -> Any:
        calls.append(len(messages))
        return without_results(messages, budget)

    session_with(counted, debug=False).request("And now?")
    assert len(calls) == 1
    session_with(counted).request("And now?")
    assert len(calls) == 3


# Commit time


def at_commit(hook: Hook) -> Hook:
    hook.moment = "commit"  # type: ignore[attr-defined]
    return hook


COMMIT_BAD: dict[str, tuple[Hook, str]] = {
    "raises": (lambda messages, budget: 1 / 0, "ZeroDivisionError"),
    "nothing": (lambda messages, budget: None, "returned nothing"),
    "none left": (lambda messages, budget: [], "0 messages of one"),
    "two": (lambda messages, budget: messages * 2, "2 messages of one"),
    "grows": (
        lambda messages, budget: [Message("tool", [ToolResult("c", "x" * 9_000)])],
        "has to be smaller",
    ),
    "another role": (
        lambda messages, budget: [Message("user", "x")],
        "made a user message of a tool message",
    ),
    "another call": (lambda messages, budget: [Message("tool", [ToolResult("d", "x")])], "the calls"),
    "other bytes": (
        lambda messages, budget: [Message("tool", [ToolResult("c", f"x{next(_numbers)}")])],
        "other messages for the same input",
    ),
}


@pytest.mark.parametrize("name", COMMIT_BAD)
@pytest.mark.parametrize("strict", [False, True])
def test_a_bad_hook_at_commit_time(name: str, strict: bool) -> None:
    hook, reason = COMMIT_BAD[name]
    session = Session(
        StableContext("gpt-5.5"), compaction=Compaction(9_000, hooks=[at_commit(hook)], strict=strict)
    )
    session.append([Message("user", "Look."), Message("assistant", [ToolCall("c", "look", "{}")])])
    result = Message("tool", [ToolResult("c", "found " * 100)])
    with pytest.raises(HookError, match=reason) if strict else pytest.warns(CompactionWarning, match=reason):
        session.append(result)
    assert session.messages[2:] == (() if strict else (result,))
    assert [entry.kind for entry in session.ledger] == ["hook-refused"]


def test_replies_and_the_first_user_message_enter_as_they_are() -> None:
    def shorter(messages: list[Message], budget: Budget) -> Any:
        return [Message(each.role, each.text[:3], each.name) for each in messages]

    session = Session(StableContext("gpt-5.5"), compaction=Compaction(9_000, hooks=[at_commit(shorter)]))
    session.append([Message("user", "the first one"), Message("assistant", "a reply")])
    session.request("the second one").observe(Usage(10, 1), Message("assistant", "another reply"))
    assert [message.text for message in session.messages] == [
        "the first one",
        "a reply",
        "the",
        "another reply",
    ]


# What makes no sense


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 100, "target": 200}, "target"),
        ({"max_tokens": 100, "reserve": 100}, "reserve"),
        ({"max_tokens": 100, "max_loss": 0.0}, "max_loss"),
        ({"max_tokens": 100, "time_limit": 0}, "time_limit"),
        ({"max_tokens": 100, "horizon": "soon"}, "horizon"),
        ({"max_tokens": 100, "hooks": ["clip"]}, "a hook is a str"),
        ({"max_tokens": 100, "hooks": ClipToolOutput(9)}, "hooks is 'ClipToolOutput': give a list"),
        ({"max_tokens": 100, "hooks": 5}, "hooks is 'int'"),
        ({"max_tokens": math.nan}, "max_tokens is nan"),
        ({"max_tokens": math.inf}, "max_tokens is inf"),
        ({"max_tokens": 100, "target": math.nan}, "target is nan"),
        ({"max_tokens": 100, "target": -math.inf}, "target is -inf"),
        ({"max_tokens": 100, "target": "half"}, "target is 'half'"),
        ({"max_tokens": 100, "max_loss": math.nan}, "max_loss"),
        ({"max_tokens": 100, "time_limit": math.nan}, "time_limit"),
    ],
)
def test_limits_that_make_no_sense(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(CompactionError, match=reason):
        Compaction(**arguments)


def test_a_hook_may_have_any_time() -> None:
    session = session_with(without_results, strict=True, time_limit=math.inf)
    assert session.request("And now?").placed.compacted is not None


def test_hooks_that_make_no_sense() -> None:
    def hook(messages: list[Message], budget: Budget) -> Any:
        return messages

    hook.moment = "later"  # type: ignore[attr-defined]
    for wrong in (
        lambda: Compaction(100, hooks=[hook]),
        lambda: ClipToolOutput(0),
        lambda: ClipToolOutput(10, "middle"),  # type: ignore[arg-type]
        lambda: Summarizer(moment="commit"),
        lambda: Summarizer("summarize"),  # type: ignore[arg-type]
    ):
        with pytest.raises(CompactionError):
            wrong()


def test_a_history_that_the_dialect_cannot_send_as_a_whole_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cannot(*_: Any) -> Any:
        raise LossyError("this wire has no place for it")

    monkeypatch.setattr("llmbuffer.compactor.rebuilt", cannot)
    session = session_with(without_results)
    before = session.messages
    with pytest.warns(CompactionWarning, match="no place for it"):
        request = session.request("And now?")
    assert request.placed.compacted is None
    assert session.messages == before
    assert {entry.kind for entry in session.ledger} == {"hook-refused"}
