"""What a host meant is what the model is told: random hosts, alone and interleaved, through `reconcile`."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties.captures import CAPTURES, figures
from tests.properties.hosts import ACTS, RELATIONS, Counting, ScriptedHost, told, usage_of, words_of

from llmbuffer import Message, Session, StableContext
from llmbuffer.reconcile import Router
from llmbuffer.tokens import EstimateCounter

moves = pytest.mark.moves_prefix(reason="the hosts edit, delete and trim what they sent")
SCRIPTS = st.lists(st.sampled_from(ACTS), min_size=1, max_size=14)
MODELS = st.sampled_from(
    [
        ("gpt-5.5", "openai"),
        ("gpt-5.6", "openai"),
        ("gpt-5.6", "openai-responses"),
        ("claude-sonnet-5.5", "anthropic"),
        ("gemini-3.1-pro", "gemini"),
        ("deepseek-v4-pro", "deepseek"),
        ("tiny", "llamacpp"),
    ]
)


def session_of(model: str = "gpt-5.5", dialect: str = "openai") -> Session:
    return Session(StableContext(model), dialect, tokens=EstimateCounter())


@moves
@settings(deadline=None)
@given(
    script=SCRIPTS,
    seed=st.integers(0, 2**16),
    model=MODELS,
    learn=st.booleans(),
    observe=st.booleans(),
    leading=st.booleans(),
)
def test_the_prompt_says_what_the_host_meant(
    script: list[str], seed: int, model: tuple[str, str], learn: bool, observe: bool, leading: bool
) -> None:
    session, host, convert = session_of(*model), ScriptedHost(seed), Counting()
    expected = {"new"}
    for kind in ["start", *script]:
        if kind != "start":
            expected = set(host.act(kind))
        new, before = host.new_since(host.sent), convert.conversions
        given_over = host.hand_over()
        system = {"role": "system", "content": host.system}
        plan = session.reconcile(
            system=None if leading else host.system,
            messages=[system, *given_over] if leading else given_over,
            convert=convert,
            learn=learn,
        )

        messages, head_and_tail, body = told(plan, leading=leading)
        behind = plan.messages[leading:]
        assert all(one is other for one, other in zip(behind, given_over, strict=True))
        assert messages == host.words
        assert sorted(head_and_tail) == sorted(host.lines), "each line of the system prompt is told once"
        assert sorted(body) == sorted([*host.words, *host.lines])
        assert not (host.gone - set(host.words)) & set(body)
        assert all(0 <= mark.index < len(plan.messages) for mark in plan.marks if mark.section == "messages")
        assert plan.relation in expected or _was_there(host)
        assert convert.conversions - before <= new + leading or kind == "back"
        if observe:
            seen = plan.observe(usage_of(plan), Message("assistant", f"reply {host.number}"))
            moved = plan.relation in ("edited", "truncated", "summarized")
            assert not moved or seen.cache_break is not None


def _was_there(host: ScriptedHost) -> bool:
    """Whether what an act left begins as something that was handed over before: then the host went back to that."""
    return any(sent[:1] == host.messages[:1] for sent in host.sent[:-2])


@moves
@settings(deadline=None)
@given(
    scripts=st.tuples(SCRIPTS, SCRIPTS),
    seeds=st.tuples(st.integers(0, 999), st.integers(1000, 1999)),
    keyed=st.booleans(),
)
def test_two_interleaved_conversations_never_meet(
    scripts: tuple[list[str], list[str]], seeds: tuple[int, int], keyed: bool
) -> None:
    router = Router(session_of())
    hosts = [ScriptedHost(seed, name) for seed, name in zip(seeds, "ab", strict=True)]
    for step in range(max(map(len, scripts))):
        for number, (host, script) in enumerate(zip(hosts, scripts, strict=True)):
            if step < len(script):
                host.act(script[step])
                plan = router.reconcile(
                    system=host.system,
                    messages=host.hand_over(),
                    conversation=host.name if keyed else None,
                )
                plan.observe(usage_of(plan))
                words = [word for found in told(plan) for word in found]
                assert all(word.startswith(host.name) for word in words)
                assert sorted(told(plan)[2]) == sorted([*host.words, *host.lines])
                if keyed:
                    assert plan.session is router.session("ab"[number])


@settings(deadline=None)
@given(seed=st.integers(0, 2**16), changing=st.integers(0, 5), turns=st.integers(3, 8))
@pytest.mark.moves_prefix(reason="a slot moves once, by plan")
def test_a_line_that_changes_costs_one_planned_break_and_then_none(
    seed: int, changing: int, turns: int
) -> None:
    session, host = session_of(), ScriptedHost(seed)
    stable, moved = set(), 0
    for turn in range(turns):
        host.lines[changing] = host.text("line")
        plan = session.reconcile(system=host.system, messages=host.hand_over())
        seen = plan.observe(usage_of(plan))
        assert seen.cache_break is None or seen.cache_break.cause == "evicted-or-routed"
        moved += len(plan.changes)
        if turn:
            stable.add(plan.system)
            assert host.lines[changing] in plan.tail.text
        host.act("append")
    assert moved == 1
    assert len(stable) == 1
    assert [entry.kind for entry in session.ledger].count("moved") == 1


@settings(deadline=None)
@given(seed=st.integers(0, 2**16), size=st.integers(5, 60))
def test_work_is_what_is_new(seed: int, size: int) -> None:
    session, host, convert = session_of(), ScriptedHost(seed), Counting()
    while len(host.messages) < size:
        host.act("append")
    session.reconcile(messages=host.hand_over(), convert=convert)
    assert convert.conversions == len(host.messages)
    for kind in ("copies", "append", "answer"):
        before, length = convert.conversions, len(host.messages)
        host.act(kind)
        session.reconcile(messages=host.hand_over(), convert=convert)
        assert convert.conversions - before == len(host.messages) - length


def test_all_relations_are_found() -> None:
    found = set()
    for seed in range(12):
        session, host = session_of(), ScriptedHost(seed)
        for kind in ("start", "append", "append", *ACTS[3:], "append"):
            if kind != "start":
                host.act(kind)
            found.add(session.reconcile(system=host.system, messages=host.hand_over()).relation)
    assert found == set(RELATIONS)


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="the recorded requests are not part of the repository")
@moves
def test_recorded_requests_are_reusable_as_far_as_the_issue_asks() -> None:
    rows = {row.scenario: row for row in figures()}
    assert min(row.after - row.before for row in rows.values()) > -0.001
    assert rows["agent_dynamic_prompt"].after >= 0.76
    assert (rows["before_model_window_trim"].declared or 0) >= 0.74
    assert (rows["agent_context_editing"].declared or 0) >= 0.78


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**16),
    script=st.lists(st.sampled_from(["append", "call", "trim", "clear", "copies"]), max_size=14),
)
def test_an_own_history_is_append_only_whatever_the_host_trims_and_clears(
    seed: int, script: list[str]
) -> None:
    session, host = session_of(), ScriptedHost(seed)
    before: list[object] = []
    said: list[str] = []
    for kind in ["start", *script]:
        if kind == "clear":
            for item in host.messages[:-1]:
                if item["role"] == "tool":
                    item["content"] = "[cleared]"
        elif kind != "start":
            host.act(kind)
        said += [word for word in host.words if word not in said]
        plan = session.reconcile(
            messages=host.hand_over(), key="one", history="ours", trims=True, cleared=("[cleared]",)
        )
        assert plan.observe(usage_of(plan)).cache_break is None
        assert list(plan.messages[: len(before)]) == before
        assert told(plan)[0] == said
        before = list(plan.messages)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**16),
    script=st.lists(st.sampled_from(["append", "trim", "edit", "delete", "redact"]), max_size=14),
)
def test_an_own_history_follows_what_the_host_edits_and_deletes(seed: int, script: list[str]) -> None:
    session, host = session_of(), ScriptedHost(seed)
    trimmed: set[str] = set()
    for kind in ["start", *script]:
        gone = set(host.gone)
        if kind != "start":
            host.act(kind)
        trimmed |= (host.gone - gone) if kind == "trim" else set()
        plan = session.reconcile(messages=host.hand_over(), key="one", history="ours", trims=True)
        words = told(plan)[0]
        assert [word for word in words if word not in trimmed] == host.words
        assert not (host.gone - trimmed - set(host.words)) & set(words)


class Taking(NamedTuple):
    """What a host deletes before a turn: ``many`` messages from ``place`` on, and one more at ``other``."""

    place: int
    many: int
    other: int = -1

    def cuts_as_before(self, last: Taking | None, new: int) -> bool:
        """Whether this may be a window's second shift in a row: no fewer messages gone than are new, at the start."""
        again = last is not None and last.place == self.place and last.other < 0
        return again and self.place < 2 and self.other < 0 and self.many >= new


@settings(deadline=None)
@given(
    takings=st.lists(
        st.one_of(
            st.none(), st.builds(Taking, st.integers(0, 6), st.integers(1, 3), st.sampled_from([-1, -1, 8]))
        ),
        max_size=12,
    ),
    standing=st.booleans(),
    called=st.booleans(),
)
def test_an_own_history_never_sends_again_what_was_deleted_and_is_no_window(
    takings: list[Taking | None], standing: bool, called: bool
) -> None:
    session, host, gone = session_of(), ScriptedHost(0), set[str]()
    last: Taking | None = None
    for taking in (*[None] * 5, *takings, None, None):
        host.say("assistant")
        host.say("user")
        if taking is not None and taking.place + taking.many < len(host.messages) - 3:
            out = {*range(taking.place, taking.place + taking.many), taking.other} - {-1}
            if not taking.cuts_as_before(last, 2):
                gone |= {word for place in out for word in words_of(host.messages[place : place + 1])}
            host.messages = [item for place, item in enumerate(host.messages) if place not in out]
            last = taking
        else:
            last = None
        for within in range(1 + called):
            if within:
                host.act("call")
            system = [{"role": "system", "content": "Be kind."}] * standing
            given_over = [*system, *host.hand_over()]
            words = told(session.reconcile(messages=given_over, key="one", history="ours"))[0]
            assert not gone & {*words}
            assert [word for word in words if word in host.words] == host.words
