"""What a host of several members meant is what each of them is told: random group hosts through one router."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties.captures import CAPTURES, TEAMS, figures
from tests.properties.group_hosts import ACTS, GroupHost, View, told
from tests.properties.hosts import usage_of, words_of

from llmbuffer import Session, StableContext
from llmbuffer.reconcile import DictHost, Plan, Policy, Router
from llmbuffer.tokens import EstimateCounter

moves = pytest.mark.moves_prefix(
    reason="the hosts edit and delete what they sent, and members change their prompts"
)
SCRIPTS = st.lists(st.sampled_from(ACTS), min_size=1, max_size=14)
MODELS = st.sampled_from(
    [("gpt-5.5", "openai"), ("gpt-5.6", "openai"), ("claude-sonnet-5.5", "anthropic"), ("tiny", "llamacpp")]
)


class Knowing(DictHost):
    """Knows whether roles depend on who reads."""

    def __init__(self, by_reader: bool) -> None:
        self.by_reader = by_reader


def session_of(model: str = "gpt-5.5", dialect: str = "openai") -> Session:
    return Session(StableContext(model), dialect, tokens=EstimateCounter())


def planned(router: Router, view: View) -> Plan:
    return router.reconcile(
        system=view.system,
        tools=view.tools,
        messages=view.messages,
        conversation="group",
        member=view.member,
    )


@moves
@settings(deadline=None, max_examples=60)
@given(
    script=SCRIPTS,
    seed=st.integers(0, 2**16),
    model=MODELS,
    by_reader=st.booleans(),
    declared=st.booleans(),
    team=st.sampled_from(["shared", "auto"]),
    learn=st.booleans(),
)
def test_the_prompt_says_what_the_host_meant(
    script: list[str],
    seed: int,
    model: tuple[str, str],
    by_reader: bool,
    declared: bool,
    team: str,
    learn: bool,
) -> None:
    host = GroupHost(seed, by_reader=by_reader)
    router = Router(session_of(*model), policy=Policy(team=team, learn=learn))  # type: ignore[arg-type]
    if declared:
        for member in host.members:
            view = host.view(member)
            router.declare(member, system=view.system, tools=view.tools)
    for kind in ["start", *script]:
        if kind != "start":
            host.act(kind)
        view = host.view(host.random.choice(host.members))
        plan = planned(router, view)

        messages, system, tail = told(plan)
        assert messages == words_of(view.messages), "each message once, in the host's order"
        assert sorted([*system, *tail]) == sorted(words_of(view.system)), (
            "each line once, in front or at the end"
        )
        assert not host.gone & {*messages, *system, *tail}
        assert {tool["name"] for tool in view.tools} == {tool["name"] for tool in plan.tools} - set(
            plan.hidden
        )
        assert plan.shared == (f"Speak as {view.member} now" in plan.tail.text)
        named(plan, host, view)
        plan.observe(usage_of(plan))


def named(plan: Plan, host: GroupHost, view: View) -> None:
    """Each of a member's texts is told by an assistant of that name, or with the name in front."""
    own = {word for said in host.said if said["who"] == view.member for word in words_of(said["text"])}
    for item, given_over in zip(plan.messages, view.messages, strict=True):
        if item is given_over or item == given_over:
            continue
        [word] = words_of(item)
        who = next(said["who"] for said in host.said if word in words_of(said["text"]))
        if item["role"] == "user" and "name" not in item:
            assert item["content"].startswith(f"{who}: ")
            assert (who == view.member) == (word in own)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**16),
    script=st.lists(st.sampled_from(["say", "say", "ask", "call"]), min_size=1, max_size=14),
    by_reader=st.booleans(),
)
def test_declared_members_share_every_byte_of_an_append_only_conversation(
    seed: int, script: list[str], by_reader: bool
) -> None:
    host = GroupHost(seed, by_reader=by_reader)
    router = Router(session_of(), convert=Knowing(by_reader), policy=Policy(team="shared"))
    for member in host.members:
        view = host.view(member)
        router.declare(member, system=view.system, tools=view.tools)
    before: Plan | None = None
    for kind in script:
        host.act(kind)
        view = host.view(host.random.choice(host.members))
        plan = planned(router, view)
        assert plan.cache_break is None
        assert plan.changes == ()
        if before is not None:
            assert (plan.tools, plan.system) == (before.tools, before.system)
            assert list(plan.messages[: len(before.messages)]) == list(before.messages)
        seen = plan.observe(usage_of(plan))
        assert seen.cache_break is None or seen.cache_break.cause == "evicted-or-routed"
        before = plan


SPEAKERS = st.lists(st.sampled_from(["ann", "bob", "cy", "dan"]), min_size=1, max_size=6)
PROMPTS = st.permutations(["You are {member}. ", "Work for {user}. ", "All are kind. " * 40])


@moves
@settings(deadline=None, max_examples=60)
@given(
    speakers=st.tuples(SPEAKERS, SPEAKERS, SPEAKERS),
    prompts=st.lists(PROMPTS, min_size=1, max_size=2),
    tools=st.sampled_from(["", "look", "look_{member}"]),
    model=MODELS,
    team=st.sampled_from(["shared", "auto"]),
    declared=st.booleans(),
)
def test_nothing_of_one_conversation_is_told_in_another(
    speakers: tuple[list[str], ...],
    prompts: list[list[str]],
    tools: str,
    model: tuple[str, str],
    team: str,
    declared: bool,
) -> None:
    router = Router(session_of(*model), policy=Policy(team=team))  # type: ignore[arg-type]
    users = ("ALICE", "BOB", "CLAIRE")
    if declared:
        for member in ("ann", "bob"):
            router.declare(member, system="All are kind. " * 40)
    for user, names in zip(users, speakers, strict=True):
        said: list[dict[str, str]] = [{"role": "user", "content": f"{user} asks."}]
        for number, member in enumerate(names):
            system = "".join(prompts[len(member) % len(prompts)]).format(member=member, user=user)
            own = [{"name": tools.format(member=member), "description": f"for {user}"}] if tools else []
            plan = router.reconcile(system=system, tools=own, messages=said, conversation=user, member=member)
            sent = f"{plan.system} {plan.tail.text} {plan.tools} {plan.messages} {plan.request.body}"
            assert not [other for other in users if other != user and other in sent]
            assert f"Work for {user}." in sent
            assert {tool["name"] for tool in own} == {each["name"] for each in plan.tools} - {*plan.hidden}
            plan.observe(usage_of(plan))
            said = [*said, {"role": "assistant", "content": f"{number} is said.", "name": member}]


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="the recorded requests are not part of the repository")
@moves
def test_recorded_groups_are_reusable_as_far_as_the_issue_asks() -> None:
    rows = {row.scenario: row for row in figures() if row.scenario in TEAMS}
    assert len(rows) == len(TEAMS)
    assert min(row.team or 0 for row in rows.values()) >= 0.75


@moves
@settings(deadline=None, max_examples=40)
@given(
    script=st.lists(st.sampled_from(["say", "say", "ask", "call", "trim"]), min_size=1, max_size=14),
    seed=st.integers(0, 2**16),
    by_reader=st.booleans(),
)
def test_members_who_share_keep_what_the_host_trims(script: list[str], seed: int, by_reader: bool) -> None:
    host, trimmed = GroupHost(seed, by_reader=by_reader), set[str]()
    policy = Policy(team="shared", history="ours", trims=True)
    router = Router(session_of(), convert=Knowing(by_reader), policy=policy)
    before: dict[str, list[str]] = {}
    for kind in ["start", *script]:
        if kind == "trim":
            if len(host.said) > 2:
                trimmed.update(words_of(host.said.pop(0)["text"]))
        elif kind != "start":
            host.act(kind)
        for member in host.members:
            view = host.view(member)
            plan = planned(router, view)
            messages = told(plan)[0]
            assert [word for word in messages if word not in trimmed] == words_of(view.messages)
            assert messages[: len(before.get(member, ()))] == before.get(member, [])
            before[member] = messages
            plan.observe(usage_of(plan))
        assert len({tuple(messages) for messages in before.values()}) == 1
