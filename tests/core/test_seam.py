"""What all adapters share: calls, accounts by conversation and member, and what a response may look like."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from llmbuffer import Message, Session, StableContext, Usage
from llmbuffer.errors import MessageError
from llmbuffer.observing import Observation
from llmbuffer.reconcile import Policy
from llmbuffer.seam import Account, Seam
from llmbuffer.tokens import EstimateCounter

Item = dict[str, Any]
SAID: list[Item] = [{"role": "user", "content": "the parcel is late"}]


def seam_of(**options: Any) -> Seam:
    options.setdefault("session", Session(StableContext("gpt-5.5"), tokens=EstimateCounter()))
    return Seam(**options)


def used(seam: Seam, tokens: int = 10, **names: Any) -> None:
    seam.call(messages=SAID, **names).observe(usage=Usage(input_tokens=tokens))


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(MessageError, match=r"'watch'.*'observe', 'buffer' or 'team'"):
        Seam(mode="watch")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "given", "expected"),
    [
        ("observe", "separate", (True, False, "separate")),
        ("buffer", "separate", (False, True, "separate")),
        ("team", "separate", (False, True, "auto")),
        ("team", "shared", (False, True, "shared")),
    ],
)
def test_the_mode_says_what_may_be_done(mode: Any, given: Any, expected: tuple[Any, ...]) -> None:
    policy = seam_of(mode=mode, policy=Policy(team=given)).policy
    assert (policy.observe, policy.learn, policy.team) == expected


def test_a_call_applies_in_all_modes_but_observe() -> None:
    applies = [seam_of(mode=mode).call(messages=SAID).applies for mode in ("observe", "buffer", "team")]
    assert applies == [False, True, True]


def test_accounts_are_kept_by_conversation_and_member() -> None:
    seam = seam_of()
    used(seam, 10, conversation="a", member="ann")
    used(seam, 20, conversation="a", member="bob")
    used(seam, 40, conversation="b", member="ann")
    used(seam, 80)
    assert seam.account(conversation="a").usage.input_tokens == 30
    assert seam.account(member="ann").usage.input_tokens == 50
    assert seam.account(conversation="b", member="ann").requests == 1
    assert seam.usage.input_tokens == 150
    assert seam.account(conversation="c") == Account()


def test_accounts_are_bounded_and_nothing_is_lost() -> None:
    seam = seam_of(limit=3)
    for number in range(20):
        used(seam, 1, conversation=f"c{number}", member=f"m{number}")
        used(seam, 1, member=f"n{number}")
    assert len(seam.accounts) <= 3 + 3 + 1
    assert seam.usage.input_tokens == seam.account().requests == 40
    assert (None, None) in seam.accounts
    assert ("c19", "m19") in seam.accounts


def test_alarms_are_counted_and_the_latest_kept() -> None:
    alarm: Any = SimpleNamespace(cause="evicted-or-routed")
    many = sum((Account(1, breaks=(alarm,), break_count=1) for _ in range(300)), Account())
    assert (len(many.breaks), many.break_count, many.requests) == (256, 300, 300)


@pytest.mark.parametrize(
    "response",
    [
        object(),
        {"strange": 1},
        {"usage": "none"},
        7,
        SimpleNamespace(usage=SimpleNamespace()),
        {"choices": 3, "usage": {}},
    ],
)
def test_what_cannot_be_read_costs_the_host_nothing(response: Any) -> None:
    seam = seam_of()
    assert seam.call(messages=SAID, conversation="a").observe(response) is None
    assert (seam.unread, seam.account().requests) == (1, 0)
    seen = seam.call(messages=SAID, conversation="a").observe(response, usage=Usage(input_tokens=9))
    assert seen is not None
    assert (seam.unread, seam.usage.input_tokens) == (1, 9)


def test_nothing_at_all_is_no_error_either() -> None:
    seam = seam_of()
    assert seam.call(messages=SAID).observe() is None
    assert seam.unread == 1


def test_what_the_callback_raises_comes_through() -> None:
    def fails(seen: Observation) -> None:
        raise RuntimeError("the dashboard is down")

    seam = seam_of(on_observe=fails)
    with pytest.raises(RuntimeError, match="dashboard"):
        used(seam)
    assert seam.account().requests == 1, "it was counted before"


def test_accounts_are_right_under_threads() -> None:
    seam = seam_of(limit=8)

    def work(name: str) -> None:
        for number in range(30):
            used(seam, 1, conversation=f"{name}-{number % 5}", member=name)

    threads = [threading.Thread(target=work, args=(f"m{index}",)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seam.account().requests == seam.usage.input_tokens == 180
    assert [seam.account(member=f"m{index}").requests for index in range(6)] == [30] * 6


def test_a_call_of_a_hidden_tool_is_refused_and_names_it() -> None:
    seam, tools = seam_of(), [{"name": "send"}, {"name": "look"}]
    seam.call(messages=SAID, tools=tools, conversation="a")
    call = seam.call(messages=SAID, tools=tools[:1], conversation="a")
    assert "'look'" in (call.refusal("look") or "")
    assert call.refusal("send") is None


def test_a_fork_has_the_settings_and_declarations_and_nothing_else() -> None:
    seam = seam_of(mode="team", policy=Policy(team="shared", learn=False), limit=7)
    for name in ("ann", "bob"):
        seam.declare(name, system=f"You are {name}. Always be kind to everybody.")
    used(seam, conversation="a", member="ann")
    fork = seam.fork()
    assert (fork.mode, fork.policy, fork.account().requests) == ("team", seam.policy, 0)
    assert fork.session is not seam.session
    plan = fork.call(
        system="You are bob. Always be kind to everybody.", messages=SAID, conversation="b", member="bob"
    ).plan
    assert plan.system == "Always be kind to everybody."


def test_forget_keeps_what_was_used_and_reset_does_not() -> None:
    seam = seam_of()
    used(seam, conversation="a", member="ann")
    assert seam.forget("a")
    assert not seam.forget("a")
    assert seam.account(conversation="a").requests == 1
    assert not seam.sessions
    used(seam, conversation="a", member="ann")
    assert len(seam.ledger) == 1
    seam.reset()
    assert (seam.account(), seam.sessions, seam.unread) == (Account(), (), 0)


def test_the_repr_shows_no_text() -> None:
    seam = seam_of()
    call = seam.call(messages=SAID, system="the secret rules", conversation="a")
    call.observe(usage=Usage(input_tokens=1), message=Message("assistant", "the secret reply"))
    shown = repr(seam) + repr(call) + repr(seam.account())
    assert "secret" not in shown
    assert "parcel" not in shown
    assert repr(seam) == "Seam(mode='buffer', conversations=1, requests=1)"
