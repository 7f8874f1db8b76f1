"""Which session a prompt belongs to, and histories that the session keeps itself."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from openai import OpenAI

from llmbuffer import Message, Session, StableContext, Usage
from llmbuffer.compaction import ClipToolOutput, Compaction, ElideToolResults
from llmbuffer.errors import MessageError
from llmbuffer.reconcile import DictHost, Policy, Router
from llmbuffer.simulate import ProviderServer
from llmbuffer.tokens import EstimateCounter

Item = dict[str, Any]


def router_of(**options: Any) -> Router:
    return Router(Session(StableContext("gpt-5.5"), tokens=EstimateCounter()), **options)


def user(text: str) -> Item:
    return {"role": "user", "content": text}


def said(text: str) -> Item:
    return {"role": "assistant", "content": text}


def usage_for(plan: Any) -> Usage:
    return Usage(input_tokens=plan.request.snapshot.tokens)


# Which session


def test_a_name_leads_to_its_session() -> None:
    router = router_of()
    one = router.reconcile(messages=[user("hi")], conversation="a", member="writer")
    two = router.reconcile(messages=[user("hi")], conversation="a", member="critic")
    assert one.session is router.session("a", "writer")
    assert two.session is router.session("a", "critic")
    assert one.session is not two.session
    assert (
        router.reconcile(messages=[user("other")], conversation="a", member="writer").session is one.session
    )


def test_without_a_name_the_longest_common_beginning_decides() -> None:
    router = router_of()
    first, second = [user("hi"), said("A"), user("one")], [user("hi"), said("B"), user("two")]
    a = router.reconcile(messages=first)
    b = router.reconcile(messages=second)
    assert (a.relation, b.relation) == ("new", "forked")
    assert a.session is not b.session
    for items, plan in ((first, a), (second, b), (first, a)):
        items += [said("go on"), user("more")]
        found = router.reconcile(messages=items)
        assert (found.relation, found.session is plan.session) == ("extension", True)


def test_no_common_message_of_a_user_is_a_new_session() -> None:
    router = router_of()
    system = {"role": "system", "content": "Be kind."}
    one = router.reconcile(messages=[system, user("a")])
    two = router.reconcile(messages=[system, user("b")])
    assert (two.relation, two.session is one.session) == ("new", False)
    assert router.reconcile(messages=[]).session is not one.session


def test_each_message_is_converted_once_though_the_router_looks_first() -> None:
    class Counting(DictHost):
        seen: list[str]

        def to_message(self, item: Any, /) -> Message:
            self.seen.append(item["content"])
            return super().to_message(item)

    host = Counting()
    host.seen = []
    router = router_of(convert=host)
    items = [{"role": "system", "content": "Be kind."}, user("a")]
    for _ in range(3):
        plan = router.reconcile(messages=items)
        assert plan.messages == tuple(items)
        items += [said(f"b{len(items)}"), user(f"c{len(items)}")]
    assert sorted(host.seen) == sorted(item["content"] for item in items[:-2])
    assert len(router) == 1


def test_an_edit_behind_a_common_message_stays_in_its_session() -> None:
    router = router_of()
    items = [user("hi"), said("A"), user("one"), said("B"), user("two")]
    one = router.reconcile(messages=items)
    two = router.reconcile(messages=[items[0], said("another"), *items[2:]])
    assert (two.relation, two.session is one.session) == ("edited", True)


def test_sessions_are_bounded_and_released() -> None:
    router = router_of(limit=2)
    for name in ("a", "b", "a", "c"):
        router.reconcile(messages=[user(name)], conversation=name)
    assert [session.name for session in router.sessions] == ["a", "c"]
    assert router.forget("a")
    assert not router.forget("a")
    router.reconcile(messages=[user("x")])
    router.reconcile(messages=[user("y")])
    assert len(router) == 2
    router.reset()
    assert len(router) == 0
    assert router.reconcile(messages=[user("y")]).relation == "new"
    with pytest.raises(MessageError, match="limit is 0"):
        router_of(limit=0)


def test_forgetting_takes_one_member_or_all() -> None:
    router = router_of()
    for member in ("a", "b", "c"):
        router.session("room", member)
    assert router.forget("room", "b")
    assert [session.name for session in router.sessions] == ["a", "c"]
    assert router.forget("room")
    assert len(router) == 0


@pytest.mark.moves_prefix(reason="a slot moves to the tail, by plan")
def test_threads_that_share_a_router_never_meet() -> None:
    router = router_of()
    wrong: list[str] = []

    def talk(name: str) -> None:
        items = [user(f"{name} begins")]
        for step in range(30):
            plan = router.reconcile(messages=items, system=f"Be kind. Step {step}.")
            text = str(plan.request.body)
            wrong.extend(other for other in "abcd" if other != name and f"{other} begins" in text)
            plan.observe(usage_for(plan), Message("assistant", f"{name} {step}"))
            items += [said(f"{name} {step}"), user(f"and {step}")]

    threads = [threading.Thread(target=talk, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert len(router) == 4
    assert [session.ledger.requests for session in router.sessions] == [30] * 4


# An own history


def test_users_who_say_the_same_and_hear_something_else_are_two_conversations() -> None:
    router = router_of()
    talks = {name: [user("hi")] for name in "ab"}
    for turn in range(6):
        for name, talk in talks.items():
            plan = router.reconcile(system="Be kind.", messages=list(talk))
            reply = said(f"Hello, {name}{turn}")
            assert plan.observe(usage_for(plan), reply).cache_break is None
            assert list(plan.messages) == talk
            talk += [reply, user("yes" if turn % 2 else "go on")]
    assert len(router) == 2


@pytest.mark.parametrize("late", [False, True])
def test_a_conversation_of_another_day_that_began_alike_is_no_edit(late: bool) -> None:
    router = router_of()
    items = [user("hi"), said("Hello, a."), user("go on"), said("a1"), user("yes")]
    router.reconcile(messages=items)
    other = [items[0], said("Hello, b."), items[2], *([said("b1"), items[4]] if late else [])]
    plan = router.reconcile(messages=other)
    assert (plan.relation, plan.cache_break, len(router)) == ("forked", None, 2)
    assert router.reconcile(messages=items).relation == "same"


@pytest.mark.moves_prefix(reason="the host edits what an assistant said")
@pytest.mark.parametrize("in_place", [False, True])
def test_what_an_assistant_said_is_edited_where_the_same_conversation_goes_on(in_place: bool) -> None:
    router, items = router_of(), [user("hi"), said("the secret"), user("go on")]
    items += [] if in_place else [said("a1"), user("yes")]
    for _ in range(2):
        plan = router.reconcile(messages=items)
        plan.observe(usage_for(plan))
        if in_place:
            items[1]["content"] = "[redacted]"
        else:
            items = [items[0], said("[redacted]"), *items[2:]]
    assert (plan.relation, len(router)) == ("edited", 1)
    assert plan.cache_break is not None
    assert "secret" not in str(plan.request.body)


def test_a_summary_by_an_assistant_is_told_from_another_conversation_by_the_reply_behind_it() -> None:
    router, items = router_of(), [user("hi"), said("a0"), user("on"), said("a1"), user("yes")]
    plan = router.reconcile(messages=items)
    plan.observe(usage_for(plan), said("a2"))
    plan = router.reconcile(messages=[items[0], said("A summary."), items[4], said("a2"), user("more")])
    assert (plan.relation, len(router)) == ("summarized", 1)


def test_a_breakpoint_that_moved_is_no_other_reply() -> None:
    router = router_of(policy=Policy(observe=True))
    reply = {"role": "assistant", "content": [{"type": "text", "text": "Hello."}]}
    marked = {
        "role": "assistant",
        "content": [{"type": "text", "text": "Hello.", "cache_control": {"type": "ephemeral"}}],
    }
    router.reconcile(messages=[user("hi"), marked, user("go on")])
    plan = router.reconcile(messages=[user("hi"), reply, user("go on"), said("a"), user("b")])
    assert (plan.relation, len(router)) == ("extension", 1)


def test_an_own_history_needs_a_name() -> None:
    with pytest.raises(MessageError, match="needs a key"):
        router_of().reconcile(messages=[user("a")], history="ours")
    with pytest.raises(MessageError, match="needs a key"):
        Session(StableContext("gpt-5.5")).reconcile(messages=[user("a")], policy=Policy(history="ours"))


def windows(size: int, count: int) -> list[list[Item]]:
    items = [each for turn in range(count) for each in (user(f"q{turn}"), said(f"a{turn}"))]
    return [items[max(0, end - size) : end] for end in range(1, len(items), 2)]


def texts(plan: Any) -> list[str]:
    return [item["content"] for item in plan.messages]


def test_a_declared_window_is_kept_from_the_first_cut_on() -> None:
    router = router_of(policy=Policy(history="ours", trims=True))
    for handed_over in windows(3, 5):
        plan = router.reconcile(messages=handed_over, conversation="a")
        assert plan.observe(usage_for(plan)).cache_break is None
    assert texts(plan) == ["q0", "a0", "q1", "a1", "q2", "a2", "q3", "a3", "q4"]
    assert plan.kept == 6
    assert plan.relation == "truncated"


def test_a_window_is_recognised_at_its_second_identical_shift() -> None:
    router = router_of(policy=Policy(history="ours"))
    plans = [router.reconcile(messages=each, conversation="a") for each in windows(3, 5)]
    assert [texts(plan)[0] for plan in plans] == ["q0", "q0", "q1", "q1", "q1"]
    assert texts(plans[-1]) == ["q1", "a1", "q2", "a2", "q3", "a3", "q4"]


def test_two_deletions_are_no_window() -> None:
    session = Session(StableContext("gpt-5.5"), tokens=EstimateCounter())
    items = [user("q"), said("a"), user("b"), said("c"), user("d")]
    for _ in range(3):
        plan = session.reconcile(messages=items, history="ours", key="one")
        assert texts(plan) == [item["content"] for item in items]
        items = [items[0], *items[2:]]


@pytest.mark.parametrize(
    "taken",
    [
        (["q2"], ["a2"]),
        (["q2", "a2"], ["q3", "a3"]),
        (["q0"], ["a0"]),
        (["a0"], ["q1"]),
        (["q0", "a0"], [], ["q1", "a1"]),
    ],
)
def test_messages_that_are_deleted_one_after_the_other_are_gone(taken: tuple[list[str], ...]) -> None:
    router = router_of(policy=Policy(history="ours"))
    items = [{"role": "system", "content": "Be kind."}]
    for turn in range(5):
        items += [user(f"q{turn}"), said(f"a{turn}")]
        router.reconcile(messages=items[:-1], conversation="a")
    for turn, each in enumerate((*taken, [], []), 5):
        items = [*(item for item in items if item["content"] not in each), user(f"q{turn}")]
        plan = router.reconcile(messages=items, conversation="a")
        assert texts(plan) == [item["content"] for item in items]
        items.append(said(f"a{turn}"))


def test_a_window_behind_the_first_question_is_recognised_also_in_the_midst_of_tool_calls() -> None:
    router, items = router_of(policy=Policy(history="ours")), [user("q0"), said("a0")]
    found = []
    for turn in range(1, 6):
        items = [items[0], *items[-2:], user(f"q{turn}")]
        found.append(texts(router.reconcile(messages=items, conversation="a")))
        call = {"id": f"c{turn}", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        items += [{"role": "assistant", "content": f"t{turn}", "tool_calls": [call]}]
        items += [{"role": "tool", "content": f"r{turn}", "tool_call_id": f"c{turn}"}]
        router.reconcile(messages=items, conversation="a")
        items.append(said(f"a{turn}"))
    assert found[1] == ["q0", "r1", "a1", "q2"], "the first cut is followed"
    assert found[4][-8:] == ["t3", "r3", "a3", "q4", "t4", "r4", "a4", "q5"]


def test_what_is_cleared_in_place_stays_by_declared_placeholders_alone() -> None:
    for cleared, kept in (("[cleared]", "found"), ("[redacted]", "[cleared]")):
        session = Session(StableContext("gpt-5.5"), tokens=EstimateCounter())
        asked = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        items = [
            user("q"),
            {"role": "assistant", "content": None, "tool_calls": [asked]},
            {"role": "tool", "tool_call_id": "c1", "content": "found"},
            said("a"),
        ]
        session.reconcile(messages=items, history="ours", key="one", cleared=[cleared])
        items[2]["content"] = "[cleared]"
        plan = session.reconcile(messages=[*items, user("b")], history="ours", key="one", cleared=[cleared])
        assert texts(plan)[2] == kept


def test_a_history_that_is_kept_later_begins_with_what_the_host_sends() -> None:
    session = Session(StableContext("gpt-5.5"), tokens=EstimateCounter())
    items = [user("q"), said("a"), user("b")]
    session.reconcile(messages=items)
    plan = session.reconcile(messages=items[1:], history="ours", key="one")
    assert texts(plan) == ["a", "b"]


def long_talk(session: Session, turns: int, host: DictHost) -> list[Any]:
    items: list[Item] = []
    plans = []
    for turn in range(turns):
        items.append(user(f"q{turn} " + "word " * 30))
        for step in range(2):
            plan = session.reconcile(messages=items, convert=host, history="ours", key="one")
            read = plan.forecast.read_tokens
            plan.observe(Usage(input_tokens=plan.request.snapshot.tokens, cache_read_tokens=read))
            plans.append(plan)
            if step == 0:
                name = f"c{turn}"
                asked = {"id": name, "type": "function", "function": {"name": "look", "arguments": "{}"}}
                items.append({"role": "assistant", "content": None, "tool_calls": [asked]})
                items.append({"role": "tool", "tool_call_id": name, "content": f"page {turn} " * 400})
        items.append(said(f"a{turn}"))
    return plans


def test_the_own_compaction_stands_in_place_of_the_hosts() -> None:
    compaction = Compaction(6_000, target=0.5, hooks=[ElideToolResults(keep_last=1)])
    session = Session(StableContext("gpt-5.5"), tokens=EstimateCounter(), compaction=compaction)
    plans = long_talk(session, 14, DictHost())
    kinds = [entry.kind for entry in session.ledger]
    assert kinds.count("compacted") >= 1
    assert session.ledger.breaks == ()
    assert max(plan.request.snapshot.tokens for plan in plans) <= 6_000
    assert sum("page 0" in str(item) for item in plans[-1].messages) == 0
    assert sum("q13" in str(item) for item in plans[-1].messages) == 1
    assert [str(item["content"])[:3] for item in plans[-1].messages if item["role"] == "user"][-1] == "q13"


def test_long_results_are_clipped_before_they_are_first_sent() -> None:
    compaction = Compaction(100_000, hooks=[ClipToolOutput(50)])
    session = Session(StableContext("gpt-5.5"), tokens=EstimateCounter(), compaction=compaction)
    plans = long_talk(session, 2, DictHost())
    results = [item["content"] for item in plans[-1].messages if item["role"] == "tool"]
    assert [len(text) < 1000 for text in results] == [True, True]
    assert list(plans[2].messages) == list(plans[-1].messages)[: len(plans[2].messages)]


# With a real client


def test_a_host_with_a_real_sdk_reads_from_the_cache_what_the_forecast_says() -> None:
    with (
        ProviderServer() as server,
        OpenAI(base_url=server.openai_url, api_key="none", max_retries=0) as client,
    ):
        session = Session(StableContext("gpt-5.5"), tokens=EstimateCounter())
        items: list[Item] = []
        system = "Answer in full sentences. " * 600
        for turn in range(4):
            items.append(user(f"question {turn}"))
            plan = session.reconcile(system=system, messages=items, dynamic={"clock": f"12:0{turn}"})
            messages: list[Any] = [{"role": "system", "content": plan.system}, *plan.messages]
            last = messages[plan.tail.index + 1]
            words = {"type": "text", "text": last["content"]}
            messages[plan.tail.index + 1] = {
                **last,
                "content": [words, *({"type": "text", "text": text} for text in plan.tail.texts)],
            }
            response = client.chat.completions.create(model="gpt-5.5", messages=messages, **plan.arguments)
            seen = plan.observe(response)
            assert seen.cache_break is None
            items.append(said(response.choices[0].message.content or ""))
        assert session.ledger.requests == 4
        assert session.ledger.hit_ratio > 0.6
