"""What users get for their own tests: assertions, fakes, and the guard over every conversation that a test runs."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from llmbuffer import Ledger, Message, Request, Segment, Session, StableContext, ToolCall, ToolResult, Usage
from llmbuffer.observing import WATCHERS
from llmbuffer.testing import FakeClock, assert_hit_ratio, assert_prefix_stable, reply
from llmbuffer.testing.guard import PrefixGuard

pytest_plugins = ["pytester"]

TOOL = {"type": "function", "function": {"name": "look_up", "description": "Look up.", "parameters": {}}}
POLICY = "Answer kindly and briefly. " * 300
MODELS = [("openai", "gpt-5.5"), ("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5")]


@pytest.fixture(params=MODELS, ids=[model for _, model in MODELS])
def session(request: pytest.FixtureRequest) -> Session:
    dialect, model = request.param
    return Session(StableContext(model, POLICY, tools=[TOOL]), dialect=dialect, clock=FakeClock())


def said(*texts: str, **fields: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)]
    return {"messages": messages, **fields}


def conversation(session: Session) -> list[Request]:
    """Three turns with a tool call, dynamic text that changes, and a breakpoint that moves."""
    requests = []
    for turn in range(3):
        requests.append(session.request(f"question {turn}", dynamic={"clock": f"12:0{turn}"}))
        reply(requests[-1], Message("assistant", [ToolCall(f"call_{turn}", "look_up", '{"q": 1}')]))
        session.append(Message("tool", [ToolResult(f"call_{turn}", "found")]))
        requests.append(session.request())
        reply(requests[-1], f"answer {turn}")
    return requests


# assert_prefix_stable


def test_a_session_of_ours_is_stable(session: Session) -> None:
    assert_prefix_stable(conversation(session))


def test_recorded_bodies_are_stable_up_to_the_announced_text(session: Session) -> None:
    bodies = [request.body for request in conversation(session)]
    assert_prefix_stable(bodies, dynamic=["12:00", "12:01", '<context name="clock">\n12:02\n</context>'])
    assert_prefix_stable(bodies, dynamic=[re.compile(r"\d\d:\d\d")])
    with pytest.raises(AssertionError, match=r"request 2 does not begin with request 1: messages\["):
        assert_prefix_stable(bodies, dynamic=["12:01", "12:02"])


def test_nothing_and_one_request_are_stable() -> None:
    assert_prefix_stable([])
    assert_prefix_stable([said("hi")])


def test_breakpoints_and_the_shape_of_a_single_text_do_not_count() -> None:
    marked = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    assert_prefix_stable(
        [
            said("hi", system=[{**marked, "text": "be kind"}], tools=[{"name": "a", "cache_control": {}}]),
            {
                "system": "be kind",
                "tools": [{"name": "a"}],
                "messages": [{"role": "user", "content": [marked]}, {"role": "assistant", "content": "ho"}],
            },
        ]
    )


def test_marks_inside_a_tool_result_do_not_count_and_arguments_named_like_them_do() -> None:
    def body(inner: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
        result = {
            "type": "tool_result",
            "tool_use_id": "1",
            "content": [{"type": "text", "text": "x", **inner}],
        }
        call = {"type": "tool_use", "id": "1", "name": "a", "input": arguments}
        return {"messages": [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]}

    assert_prefix_stable([body({}, {}), body({"cache_control": {"type": "ephemeral"}}, {})])
    with pytest.raises(AssertionError, match=r"messages\[0\]\.content\[0\]\.input\.cache_control differs"):
        assert_prefix_stable([body({}, {}), body({}, {"cache_control": 1})])


@pytest.mark.parametrize(
    ("before", "after", "where"),
    [
        (said("a", model="m"), said("a", model="n"), "model differs at character 0"),
        (said("a", system="s1"), said("a", system="s2"), "system differs at character 1"),
        (said("a", instructions="s1"), said("a", instructions="s2"), "instructions differs at character 1"),
        (
            said("a", tools=[TOOL]),
            said("a", tools=[{**TOOL, "function": {**TOOL["function"], "description": "Look it up."}}]),  # type: ignore[dict-item]  # TOOL holds a str and a dict
            "tools[0].function.description differs at character 5",
        ),
        (said("a", tools=[{"name": "a", "b": 1}]), said("a", tools=[{"b": 1, "name": "a"}]), "tools[0] (order of keys)"),
        (said("a"), said("a", tools=[TOOL]), "tools[0] stands where messages[0] was"),
        (said("a", "b"), said("a", "c", "d"), "messages[1].content differs at character 0"),
        (said("a", "b", "c"), said("a", "b"), "ends before messages[2]"),
        (said("a", "b"), {"messages": [{"role": "user", "content": "a"}] * 2}, "messages[1].role differs"),
        (
            {"messages": [{"role": "user", "content": "a", "name": "x"}]},
            {"messages": [{"role": "user", "content": "a"}]},
            "messages[0].name differs:\n  was '\"x\"'\n  now 'nothing'",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a" * 99 + "b" + "c" * 99}]}]},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a" * 99 + "d" + "c" * 99}]}]},
            f"messages[0].content[0].text differs at character 99:\n  was '…{'a' * 30}b{'c' * 29}…'",
        ),
    ],
)  # fmt: skip
def test_the_message_names_the_place(before: dict[str, Any], after: dict[str, Any], where: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(where)) as caught:
        assert_prefix_stable([before, after])
    assert str(caught.value).startswith("request 1 does not begin with request 0: ")
    assert "blocks before it are the same" in str(caught.value)


def test_objects_of_the_sdks_count_as_what_they_are_sent_as() -> None:
    from anthropic.types import TextBlock

    held = TextBlock(type="text", text="ho")
    first: Any = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": [held]}]}
    assert_prefix_stable([first, said("hi", "ho", "again")])
    with pytest.raises(AssertionError, match=r"messages\[1\]\.content .* differs at character 0"):
        assert_prefix_stable([first, said("hi", "oh", "again")])


@pytest.mark.parametrize("body", [{"model": "m"}, "text", None])
def test_what_is_no_body_is_refused(body: Any) -> None:
    with pytest.raises(ValueError, match="request 0 is no request body"):
        assert_prefix_stable([body])


# assert_hit_ratio


def test_the_ratio_of_a_session_a_ledger_a_usage_and_usages(session: Session) -> None:
    conversation(session)
    found = session.ledger.hit_ratio
    for source in (session, session.ledger, session.ledger.usage, [entry.usage for entry in session.ledger]):
        assert_hit_ratio(source, at_least=found)  # type: ignore[arg-type]  # every entry has its usage
        with pytest.raises(
            AssertionError, match=rf"the hit ratio is {found:.3f}, not at least {found + 0.01:g}"
        ):
            assert_hit_ratio(source, at_least=found + 0.01)  # type: ignore[arg-type]  # as above


def test_the_misses_are_named_with_their_cause() -> None:
    clock = FakeClock()
    session = Session(StableContext("claude-sonnet-5.5", POLICY), "anthropic", clock=clock)
    for pause in (0, 10, 3_000):
        clock.advance(pause)
        reply(session.request("hello"))
    with pytest.raises(AssertionError, match=r"request 2: [\d,]+ of [\d,]+ tokens \(expired\)") as caught:
        assert_hit_ratio(session)
    assert re.search(r"request 0: ([\d,]+) of \1 tokens\n", str(caught.value))


@pytest.mark.parametrize("source", [[], Ledger(), Usage()])
def test_without_usage_there_is_no_ratio(source: Any) -> None:
    with pytest.raises(AssertionError, match="no usage was reported"):
        assert_hit_ratio(source, at_least=0)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="at_least is 90: give a fraction of 1"):
        assert_hit_ratio(Usage(), at_least=90)
    with pytest.raises(TypeError, match="found a dict among the usages"):
        assert_hit_ratio([{"input_tokens": 1}])  # type: ignore[list-item]  # that is the point


# The fakes


def test_a_clock_does_not_run_back() -> None:
    with pytest.raises(ValueError, match="cannot advance by -1 seconds"):
        FakeClock().advance(-1)


def test_a_reply_reports_what_was_forecast(session: Session) -> None:
    reply(session.request("hello"), "hi")
    request = session.request("again")
    told = request.forecast
    seen = reply(request)
    assert seen.usage is not None
    assert (seen.usage.cache_read_tokens, seen.usage.cache_write_tokens) == (
        told.read_tokens,
        told.write_tokens,
    )
    assert seen.cache_break is None
    assert session.messages[-1].text == "OK."


# The guard


@pytest.fixture
def guard() -> Any:
    guard = PrefixGuard()
    WATCHERS.append(guard)
    yield guard
    WATCHERS.remove(guard)


def test_the_guard_lets_stable_conversations_pass(guard: PrefixGuard, session: Session) -> None:
    conversation(session)
    left, right = session.fork("left"), session.fork("right", task="do it")
    deep = right.fork("deep")
    for each in (right, session, left, deep, left, session):
        conversation(each)
    assert guard.take() == []


def test_the_guard_follows_two_open_requests(guard: PrefixGuard, session: Session) -> None:
    first, second = session.request("one"), session.request("two")
    reply(first)
    branch = reply(second)
    assert branch.forked
    conversation(session)
    conversation(branch.session)
    third, fourth = branch.session.request("three"), branch.session.request("four")
    reply(fourth)
    conversation(reply(third).session)
    assert guard.take() == []


@pytest.mark.moves_prefix(reason="a planned break with another system text")
def test_a_thaw_with_a_change_is_one_move(guard: PrefixGuard, session: Session) -> None:
    conversation(session)
    session.thaw("a new policy")
    conversation(session)
    assert guard.take() == []
    session.thaw("a new policy")
    session.update(system=POLICY + "Be brief.")
    conversation(session)
    [move] = guard.take()
    assert f"of session {session.id!r} does not begin with the one before it: " in move
    assert re.search(
        rf"(system|content)\[0\]\.text|messages\[0\]\.content differs at character {len(POLICY)}", move
    )


@pytest.mark.moves_prefix(reason="a fork with other tools")
def test_a_fork_is_compared_with_its_parent(guard: PrefixGuard, session: Session) -> None:
    conversation(session)
    fork = session.fork("other", tools=[])
    conversation(session)
    conversation(fork)
    [move] = guard.take()
    assert "request 6 of session 'other' does not begin with the one before it" in move


@pytest.mark.moves_prefix(reason="another model reads nothing of what this one wrote")
def test_another_model_is_a_move(guard: PrefixGuard) -> None:
    session = Session(StableContext("gpt-5.4", POLICY), clock=FakeClock())
    conversation(session)
    session.thaw("a better model")
    session.update(model="gpt-5.5")
    conversation(session)
    [move] = guard.take()
    assert "model differs at character 6" in move


@pytest.mark.moves_prefix(reason="a fork made before its parent's first request, with another system text")
def test_the_head_is_compared_from_the_first_request(guard: PrefixGuard, session: Session) -> None:
    first, fork = session.fork("first"), session.fork("second", system="something else")
    conversation(session)
    conversation(first)
    assert guard.take() == []
    conversation(fork)
    assert len(guard.take()) == 1


def test_a_fork_of_a_fork_that_sent_nothing_has_a_line(guard: PrefixGuard, session: Session) -> None:
    conversation(session)
    grandchild = session.fork("child").fork("grandchild")
    conversation(session)
    conversation(grandchild)
    assert guard.take() == []


@pytest.mark.moves_prefix(reason="the history is edited in place")
def test_the_guard_reads_bodies_not_the_sessions_word(guard: PrefixGuard) -> None:
    session = Session(StableContext("gpt-5.5", POLICY), clock=FakeClock())
    conversation(session)
    other = Session(StableContext("gpt-5.5", POLICY), clock=FakeClock())
    other.append([Message("user", "edited"), *session.messages[1:]])
    session._state = other._state.__class__(
        tip=other._state.tip, rendered=other._state.rendered, requests=session._state.requests
    )
    reply(session.request("and now?"))
    [move] = guard.take()
    assert "messages[1].content differs at character 0:\n  was 'question 0'\n  now 'edited'" in move


def test_the_guard_forgets_sessions_that_nobody_holds(guard: PrefixGuard) -> None:
    held = Session(StableContext("gpt-5.5", POLICY), clock=FakeClock())
    conversation(held)
    for _ in range(3):
        conversation(Session(StableContext("gpt-5.5", POLICY), clock=FakeClock()))
    guard.sweep()
    assert list(guard._lines) == [held.id]
    conversation(held)
    assert guard.take() == []


# The plugin

STABLE = """
    import pytest
    from llmbuffer import Session, StableContext
    from llmbuffer.testing import reply

    def converse(session):
        reply(session.request("one"))
        reply(session.request("two"))

    def move(session):
        converse(session)
        session.thaw("on purpose")
        session.update(system="something else")
        converse(session)

    @pytest.fixture
    def session():
        return Session(StableContext("gpt-5.5", "You are kind."))
"""


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A run of its own, with no plugin but ours."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return pytester


def run(inner: pytest.Pytester, tests: str, *, guarded: bool = True) -> pytest.RunResult:
    inner.makeini(f"[pytest]\nllmbuffer_prefix_guard = {str(guarded).lower()}\n")
    inner.makepyfile(STABLE + tests)
    return inner.runpytest("--strict-markers", "-p", "llmbuffer.testing.pytest_plugin")


def test_a_stable_test_passes(inner: pytest.Pytester) -> None:
    run(inner, "\n    def test_stable(session): converse(session)\n").assert_outcomes(passed=1)


@pytest.mark.moves_prefix(reason="the test inside moves it")
def test_a_test_that_moves_the_prefix_fails(inner: pytest.Pytester) -> None:
    result = run(inner, "\n    def test_moves(session): move(session)\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "the prefix of a session moved",
            "request 2 of session * does not begin with the one before it: messages?0?.content differs at character 0:",
            "*was 'You are kind.'",
            "*now 'something else'",
            'A test that moves the prefix on purpose says so: @pytest.mark.moves_prefix(reason="…")',
        ]
    )


@pytest.mark.moves_prefix(reason="the test inside moves it")
def test_a_reason_lets_it_pass(inner: pytest.Pytester) -> None:
    marked = """
    @pytest.mark.moves_prefix(reason="to see it")
    def test_moves(session): move(session)
    """
    run(inner, marked).assert_outcomes(passed=1)


def test_a_mark_that_is_not_true_fails(inner: pytest.Pytester) -> None:
    marked = """
    @pytest.mark.moves_prefix(reason="to see it")
    def test_moves(session): converse(session)
    """
    result = run(inner, marked)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["this test is marked moves_prefix and moved no prefix: take the mark away"])


@pytest.mark.parametrize("guarded", [True, False])
def test_a_mark_without_a_reason_stops_the_run(inner: pytest.Pytester, guarded: bool) -> None:
    bare = ["", "()", "(reason='')", "('a reason')", "(reason='a', more=1)", "(reason=1)"]
    tests = [
        f"""
    @pytest.mark.moves_prefix{mark}
    def test_{index}(session): converse(session)
    """
        for index, mark in enumerate(bare)
    ]
    result = run(inner, "".join(tests), guarded=guarded)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*moves_prefix needs a reason*", *(f"*::test_{index}" for index in range(len(bare)))]
    )


@pytest.mark.moves_prefix(reason="the test inside moves it")
def test_the_guard_is_off_unless_asked_for(inner: pytest.Pytester) -> None:
    run(inner, "\n    def test_moves(session): move(session)\n", guarded=False).assert_outcomes(passed=1)


@pytest.mark.moves_prefix(reason="the tests inside move it")
def test_moves_in_fixtures_and_in_failing_tests_are_told(inner: pytest.Pytester) -> None:
    tests = """
    @pytest.fixture
    def moved(session): move(session)

    @pytest.fixture
    def moving(session):
        yield
        move(session)

    def test_setup(moved): pass
    def test_teardown(moving): pass
    def test_both(session):
        move(session)
        assert 1 == 2
    @pytest.mark.moves_prefix(reason="in the fixture")
    def test_marked(moved): pass
    def test_next(session): converse(session)
    """
    result = run(inner, tests)
    result.assert_outcomes(passed=3, failed=1, errors=2)
    result.stdout.fnmatch_lines(["*assert 1 == 2*", "*prefix guard*", "the prefix of a session moved"])


def test_a_session_of_a_wider_scope_is_followed_from_test_to_test(inner: pytest.Pytester) -> None:
    tests = """
    @pytest.fixture(scope="module")
    def shared(): return Session(StableContext("gpt-5.5", "You are kind."))

    def test_first(shared): converse(shared)
    def test_second(shared): converse(shared)
    """
    run(inner, tests).assert_outcomes(passed=2)


def test_starting_the_plugin_imports_no_more_than_the_core() -> None:
    program = (
        "import sys, llmbuffer, pytest; known = set(sys.modules); import llmbuffer.testing.pytest_plugin; "
        "print(*sorted(name for name in set(sys.modules) - known if not name.startswith('llmbuffer.')))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_segments_of_a_request_are_known_to_be_dynamic() -> None:
    session = Session(StableContext("gpt-5.6", [Segment("now", "noon", level="turn")]), clock=FakeClock())
    assert_prefix_stable(conversation(session))
