"""Dynamic text in a host's system prompt: declared, learned, pinned, and only reported."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from llmbuffer import Message, Session, StableContext, Usage
from llmbuffer.errors import MessageError
from llmbuffer.reconcile import DictHost, Router, dynamic_text, unmarked
from llmbuffer.reconcile.declared import sentences, take_out
from llmbuffer.reconcile.learning import Template, learned
from llmbuffer.reconcile.policy import Policy
from llmbuffer.tokens import EstimateCounter

POLICY = "You are a support agent. Be precise and cite the manual. Refunds take 14 days.\n"
moves_once = pytest.mark.moves_prefix(reason="a slot moves to the tail, by plan")


def session_of(model: str = "gpt-5.5", dialect: str = "openai") -> Session:
    return Session(StableContext(model), dialect, tokens=EstimateCounter())


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def ask(session: Session, system: Any, *messages: str, **options: Any) -> Any:
    plan = session.reconcile(system=system, messages=[user(text) for text in messages], **options)
    plan.observe(Usage(input_tokens=plan.request.snapshot.tokens))
    return plan


# Declared


@pytest.mark.parametrize(
    "through",
    [
        lambda text: text.format(now="12:00"),
        lambda text: json.loads(json.dumps(text.format(now="12:00"))),
        lambda text: f"  {text.format(now='12:00')}  ".strip(),
        lambda text: text.replace("{now}", "12:00").encode().decode(),
        lambda text: "".join(re.split(r"(\s+)", text.format(now="12:00"))),
    ],
)
def test_marks_survive_formats_and_frameworks(through: Any) -> None:
    text = through("It is " + dynamic_text("now", "{now}") + ".")
    assert unmarked(text) == "It is 12:00."
    stable, moved = take_out("Be kind. " + text, ())
    assert stable == "Be kind. "
    assert [(each.name, each.text) for each in moved] == [("now", "It is 12:00.")]


def test_marked_text_goes_to_the_tail_from_the_first_request_on() -> None:
    session = session_of()
    plans = [
        ask(session, POLICY + f"It is {dynamic_text('now', clock)} in {{Lyon}}.\nBe brief.", "q")
        for clock in ("12:00", "12:01", "12:02")
    ]
    assert {plan.system for plan in plans} == {POLICY + "Be brief."}
    assert [plan.tail.text for plan in plans] == [
        f'<context name="now">\nIt is {clock} in {{Lyon}}.\n</context>'
        for clock in ("12:00", "12:01", "12:02")
    ]
    assert [plan.changes for plan in plans] == [()] * 3
    assert session.ledger.breaks == ()


def test_a_name_of_any_kind_comes_back() -> None:
    text = dynamic_text("Näme, 2", "x\nyé") + dynamic_text("Näme, 2", "z")
    stable, moved = take_out(text, ())
    assert stable == ""
    assert "".join(each.text for each in moved) == "x\nyéz"
    assert {each.name for each in moved} == {"Näme, 2"}
    with pytest.raises(MessageError, match="the name of dynamic text is ''"):
        dynamic_text("", "x")


def test_marks_in_messages_are_taken_off_and_the_text_stays() -> None:
    session = session_of()
    items = [user(f"Context: {dynamic_text('found', 'page 3')}. What now?"), user("plain")]
    for _ in range(2):
        plan = session.reconcile(messages=items)
        assert plan.messages[0] == user("Context: page 3. What now?")
        assert plan.messages[1] is items[1]
        assert not plan.tail
    assert plan.relation == "same"


def test_patterns_and_callables_declare_too() -> None:
    text = POLICY + "<memory>likes tea</memory>\nContext: page 3\nBe brief."

    def found(text: str) -> list[tuple[str, int, int]]:
        start = text.find("Context: ")
        return [("retrieved", start, text.find("\n", start) + 1)] if start >= 0 else []

    plan = ask(session_of(), text, "q", declared=(r"(?P<memory><memory>.*?</memory>\n)", found))
    assert plan.system == POLICY + "Be brief."
    assert [segment.name for segment in plan.dynamic] == ["memory", "retrieved"]
    assert "likes tea" in plan.tail.text
    assert "page 3" in plan.tail.text


def test_two_texts_of_one_name_are_told_apart() -> None:
    marked = dynamic_text("now", "12:00") + "\n" + dynamic_text("now", "in Lyon")
    assert [segment.name for segment in ask(session_of(), marked, "q").dynamic] == ["now", "now, 2"]


# Learned


@moves_once
def test_what_changes_moves_with_its_sentence_once() -> None:
    session = session_of()
    plans = [
        ask(session, f"{POLICY}Now: {clock}. Be brief.", "q")
        for clock in ("10:00", "10:01", "10:02 or so", "")
    ]
    assert plans[0].system == f"{POLICY}Now: 10:00. Be brief."
    assert {plan.system for plan in plans[1:]} == {POLICY + "Be brief."}
    assert plans[1].tail.text == '<context name="system-1.1">\nNow: 10:01. \n</context>'
    assert [len(plan.changes) for plan in plans] == [0, 1, 0, 0]
    change = plans[1].changes[0]
    assert (change.path, change.offset, change.length) == ("system[0]", len(POLICY), len("Now: 10:01. "))
    kinds = [(entry.kind, entry.reason) for entry in session.ledger]
    assert kinds[1] == ("moved", change.reason)
    assert [kind for kind, _ in kinds].count("moved") == 1
    assert session.ledger.breaks == ()
    assert session.epoch == 1


@moves_once
def test_growth_at_the_end_is_no_slot() -> None:
    session = session_of()
    for text in (POLICY, POLICY + "Be brief.\n", POLICY + "Be brief.\nBe glad.\n"):
        plan = ask(session, text, "q")
        assert (plan.system, bool(plan.tail), plan.changes) == (text, False, ())
    assert [found.cause for found in session.ledger.breaks] == ["system-changed"] * 2


@moves_once
def test_learning_can_be_turned_off_and_pinned() -> None:
    for options in ({"learn": False}, {"pinned": (r"Refunds",)}):
        session = session_of()
        for days in (14, 15):
            text = f"Be kind. Refunds take {days} days. Be brief."
            plan = ask(session, text, "q", **options)
            assert plan.system == text
            assert not plan.tail
        assert [found.cause for found in session.ledger.breaks] == ["system-changed"]


@moves_once
def test_a_pinned_change_beside_a_slot_stays_in_the_prefix() -> None:
    session = session_of()
    ask(session, "Be kind. Refunds take 14 days. It is noon. Be brief.", "q", pinned=("Refunds",))
    plan = ask(session, "Be kind. Refunds take 15 days. It is late. Be brief.", "q", pinned=("Refunds",))
    assert "15 days" in plan.system + plan.tail.text
    assert (plan.system + plan.tail.text).count("Be brief.") == 1


def test_a_clock_at_first_sight_is_only_reported() -> None:
    plan = ask(session_of(), POLICY + "Now: 2026-11-22 10:00.", "q")
    assert plan.system == POLICY + "Now: 2026-11-22 10:00."
    assert plan.notes == (
        f"system[0], character {len(POLICY) + 5}: looks like a timestamp; it moves when it is seen to change",
    )


@moves_once
def test_another_prompt_is_no_slot() -> None:
    session = session_of()
    ask(session, POLICY, "q")
    plan = ask(session, "Translate what you are given into French, and say nothing else.", "q")
    assert (plan.changes, bool(plan.tail)) == ((), False)


def test_conversations_of_one_agent_learn_for_those_that_come_later() -> None:
    router = Router(session_of())
    for conversation, clock in (("a", "10:00"), ("a", "10:01"), ("b", "10:02"), ("b", "10:03")):
        plan = router.reconcile(
            system=f"{POLICY}Now: {clock}.",
            messages=[user(conversation)],
            conversation=conversation,
            member="agent",
        )
        if conversation == "b":
            assert plan.system == POLICY
            assert plan.changes == ()
    other = router.reconcile(
        system=f"{POLICY}Now: 10:04.", messages=[user("c")], conversation="b", member="another agent"
    )
    assert other.system == f"{POLICY}Now: 10:04."


def test_a_slot_seen_to_change_within_a_turn_goes_behind_the_tools_result() -> None:
    session = session_of()
    items = [user("q")]
    session.reconcile(system=POLICY + "Now: 10:00.", messages=items)
    asked = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    items += [
        {"role": "assistant", "content": None, "tool_calls": [asked]},
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
    ]
    plan = session.reconcile(system=POLICY + "Now: 10:01.", messages=items)
    assert (plan.tail.index, plan.tail.apart, plan.tail.role) == (2, True, "system")


# System messages that lead the messages


@moves_once
def test_leading_system_messages_are_system_text_and_stay_messages() -> None:
    session, items = session_of(), [user("q")]
    for clock in ("10:00", "10:01", "10:02"):
        rules = {"role": "system", "content": [{"type": "text", "text": POLICY}], "cached": True}
        now = {"role": "system", "content": f"You know it all. Now: {clock}.", "name": "clock"}
        plan = session.reconcile(messages=[rules, now, *items])
        plan.observe(Usage(input_tokens=plan.request.snapshot.tokens))
        assert plan.system is None
        assert plan.messages[0] is rules
        assert plan.messages[2] is items[0]
        if clock == "10:00":
            assert plan.messages[1] is now
        else:
            assert plan.messages[1] == {"role": "system", "content": "You know it all. ", "name": "clock"}
            assert (plan.tail.index, plan.tail.apart) == (2, False)
            assert f"Now: {clock}." in plan.tail.text
        assert plan.relation == ("new" if clock == "10:00" else "same")
    assert session.ledger.breaks == ()


def test_a_leading_message_that_moves_as_a_whole_is_left_out() -> None:
    clock = {"role": "system", "content": f"It is {dynamic_text('now', '12:00')}."}
    asked = user("q")
    plan = session_of().reconcile(messages=[clock, asked])
    assert plan.messages == (asked,)
    assert (plan.tail.index, plan.tail.texts) == (0, ('<context name="now">\nIt is 12:00.\n</context>',))


def test_a_mark_on_leading_system_text_is_one_on_its_message() -> None:
    session = session_of("claude-sonnet-5.5", "anthropic")
    plan = session.reconcile(messages=[{"role": "system", "content": POLICY * 200}, user("q")])
    assert [(mark.section, mark.index) for mark in plan.marks] == [("messages", 0), ("messages", 1)]


# The pieces


@pytest.mark.parametrize(
    "text", ["", "One. Two! Three", "a\n\n\nb\n", 'He said "no." Then left.', "1.5 percent of v2.0.", " . . "]
)
def test_sentences_joined_are_the_text(text: str) -> None:
    assert "".join(sentences(text)) == text


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("A.\nB.\nC.\n", "A.\nX.\nC.\n"),
        ("A.\nB.\nC.\n", "A.\nC.\n"),
        ("A.\nC.\n", "A.\nB.\nC.\n"),
        ("A.\nB.\nC.\nD.\nE.\n", "A.\nX.\nC.\nY.\nE.\n"),
        ("A.\nB.\n", "X.\nB.\n"),
        ("A.\nA.\nA.\nB.\n", "A.\nA.\nX.\nB.\n"),
    ],
)
def test_anchors_and_slots_are_the_text(before: str, now: str) -> None:
    template = learned(Template((before,)), before, now, Policy())
    assert template is not None
    for text in (before, now):
        slots = template.read(text)
        if slots is not None:
            pieces = [piece for pair in zip(template.anchors, [*slots, ""], strict=True) for piece in pair]
            assert "".join(pieces) == text
    assert template.read(now) is not None


def test_an_anchor_inside_another_sentence_is_none() -> None:
    template = Template(("A.\n", "end\n", ""))
    assert template.read("A.\nthe end\nend\nmore") == ["the end\n", "more"]
    assert template.read("A.\nthe end\n") is None


def test_more_slots_are_learned_later_and_the_first_ones_stay() -> None:
    one, two, three = "A.\n1.\nB.\n1.\nC.\n", "A.\n2.\nB.\n1.\nC.\n", "A.\n3.\nB.\n2.\nC.\n"
    first = learned(Template((one,)), one, two, Policy())
    assert first is not None
    assert first.anchors == ("A.\n", "B.\n1.\nC.\n")
    second = learned(first, two, three, Policy())
    assert second is not None
    assert second.anchors == ("A.\n", "B.\n", "C.\n")
    assert second.read(three) == ["3.\n", "2.\n"]


def test_a_host_without_a_way_to_strip_gets_its_object_back() -> None:
    class Bare:
        def to_message(self, item: Any, /) -> Message:
            return Message.from_openai(item)

        def leaves(self, item: Any, /) -> tuple[Any, ...]:
            return DictHost().leaves(item)

    item = user(dynamic_text("now", "12:00"))
    plan = session_of().reconcile(messages=[item], tools=[{"name": "a"}], convert=Bare())
    assert plan.messages[0] is item
    assert len(plan.tools) == 1
