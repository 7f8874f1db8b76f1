"""Which routing key each fork sends: the policy by itself, and through the SDK."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fanning import cold, fanned, meeting, session_of, tasks

from llmbuffer import Session, get_dialect
from llmbuffer.errors import LimitError
from llmbuffer.fanout import KeyRing
from llmbuffer.fanout.keys import KeyPolicy
from llmbuffer.rules import CacheRules
from llmbuffer.simulate import ProviderServer
from llmbuffer.store import open_store
from llmbuffer.testing import FakeClock
from llmbuffer.tokens import EstimateCounter

OPENAI = get_dialect("openai").bind("gpt-5.6").rules
MOST = 15  # requests a minute for one key: the rules of OpenAI


def ring(
    policy: KeyPolicy = "auto", *, rules: CacheRules = OPENAI, number: int = 100, **options: object
) -> KeyRing:
    clock = options.pop("clock", FakeClock())
    return KeyRing("key", policy, rules, tasks=number, clock=clock, **options)  # type: ignore[arg-type]  # as given


def test_auto_fills_a_key_before_it_opens_the_next() -> None:
    found = ring()
    assert Counter(found.assign(index) for index in range(40)) == {"key": MOST, "key-2": MOST, "key-3": 10}


def test_a_key_has_room_again_after_a_minute() -> None:
    clock = FakeClock()
    found = ring(clock=clock)
    for index in range(MOST):
        found.sent(found.assign(index))
    assert found.assign(MOST) == "key-2"
    clock.advance(60)
    assert found.assign(MOST + 1) == "key"
    assert found.keys == ("key", "key-2")


def test_requests_of_the_parent_take_room_too() -> None:
    found = ring(recent=lambda key: [0.0] * (14 if key == "key" else 0))
    assert [found.assign(index) for index in range(2)] == ["key", "key-2"]


def test_workers_that_take_several_requests_need_more_room() -> None:
    found = ring(rounds=5)
    assert Counter(found.assign(index) for index in range(9)) == {"key": 3, "key-2": 3, "key-3": 3}
    found = ring(rounds=5)
    for _ in range(3):
        found.ended(1)
    assert {found.assign(index) for index in range(MOST)} == {"key"}


def test_the_other_policies() -> None:
    assert {ring("shared").assign(index) for index in range(100)} == {"key"}
    assert [ring("each").assign(index) for index in range(3)] == ["key-1", "key-2", "key-3"]
    sharded = ring("sharded", number=31)
    assert [sharded.assign(index) for index in range(4)] == ["key", "key-2", "key-3", "key"]


@pytest.mark.parametrize("dialect", ["anthropic", "gemini", "deepseek", "vllm", "llamacpp"])
@pytest.mark.parametrize("policy", ["auto", "sharded", "each"])
def test_where_nothing_is_routed_by_a_key_there_is_one(dialect: str, policy: KeyPolicy) -> None:
    found = ring(policy, rules=get_dialect(dialect).rules)
    assert {found.assign(index) for index in range(100)} == {"key"}


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(LimitError, match="unknown key policy 'some'"):
        ring("some")  # type: ignore[arg-type]  # the point


@given(
    arrivals=st.lists(st.floats(0, 20), min_size=1, max_size=80),
    rounds=st.integers(1, 6),
)
def test_no_key_gets_much_more_than_its_rate_and_none_is_opened_in_vain(
    arrivals: list[float], rounds: int
) -> None:
    """Where workers take as many requests as was expected, all at once."""
    clock = FakeClock()
    found = ring(clock=clock, rounds=rounds)
    sent: list[tuple[float, str]] = []
    for index, wait in enumerate(arrivals):
        clock.advance(wait)
        key = found.assign(index)
        for _ in range(rounds):
            found.sent(key)
            sent.append((clock(), key))
        within = Counter(name for at, name in sent if at > clock() - 60)
        assert within[key] <= MOST + rounds / 2
        if len(found.keys) > len({name for _, name in sent[:-rounds]} | {"key"}):
            assert all(within[name] + rounds / 2 > MOST for name in found.keys[:-1])


def test_each_key_is_warmed_once() -> None:
    with ProviderServer(overflow=True, latency=(0.02, 0.0)) as server:
        results = fanned("openai", server, session_of("openai"), tasks(40))
        assert results.ok, results.errors
        keys = Counter(each.key for each in server.requests)
        assert sorted(keys.values()) == [10, 15, 15]
        assert cold(server) == 3
    assert sum(each.led for each in results) == 3
    assert [result.key for result in results] == [result.session.family.routing_key for result in results]


def test_one_key_for_all_overflows_and_one_for_each_shares_nothing() -> None:
    with ProviderServer(overflow=True, replies=meeting(39, first=1)) as server:
        assert fanned("openai", server, session_of("openai"), tasks(40), key_policy="shared").ok
        # Beyond the 15 of the first machine all come at once to cold ones.
        assert cold(server) == 40 - MOST + 1
    with ProviderServer(overflow=True) as server:
        assert fanned("openai", server, session_of("openai"), tasks(40), key_policy="each").ok
        assert cold(server) == 40


def test_what_is_warm_is_known_for_each_key_apart() -> None:
    with ProviderServer() as server:
        session = session_of("openai")
        fanned("openai", server, session, tasks(20), key_policy="sharded")
        again = fanned("openai", server, session, tasks(20), key_policy="sharded")
        assert cold(server) == 2
    assert not any(each.led for each in again)
    assert session.fork(routing_key="another").request("x").forecast.read_tokens == 0
    assert not [entry.cache_break for each in again for entry in each.session.ledger if entry.cache_break]


def test_a_second_fan_out_knows_what_the_first_one_sent() -> None:
    with ProviderServer(overflow=True, latency=(0.02, 0.0)) as server:
        session = session_of("openai")
        first = fanned("openai", server, session, tasks(10))
        second = fanned("openai", server, session, tasks(10))
        keys = [Counter(each.key for each in results) for results in (first, second)]
        base = session.family.routing_key
        assert keys == [{base: 10}, {base: 5, f"{base}-2": 5}]
        assert cold(server) == 2


def test_a_key_of_its_own_survives_the_store() -> None:
    with open_store("memory:") as store:
        fork = session_of("openai", store=store, routing_key="ours").fork(routing_key="theirs")
        fork.save()
        loaded = Session.load(store, fork.id, tokens=EstimateCounter())
        assert loaded.request("x").body == fork.request("x").body
    assert loaded.family.routing_key == "theirs"


def test_a_key_of_its_own_is_kept_by_the_forks_of_a_fork() -> None:
    session = session_of("openai", routing_key="ours")
    fork = session.fork(routing_key="theirs")
    assert fork.request("x").body["prompt_cache_key"] == "theirs"
    assert fork.fork().request("x").body["prompt_cache_key"] == "theirs"
    assert fork.fork(routing_key="ours").family is session.family
    assert session.request("x").body["prompt_cache_key"] == "ours"
