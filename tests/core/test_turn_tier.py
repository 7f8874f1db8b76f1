"""Two tiers in use: what a turn worked out lives for some turns, and a stable context is counted once and known to be warm."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuffer import CacheKey, Message, Segment, Session, StableContext, Usage
from llmbuffer.errors import PolicyError, StoreError
from llmbuffer.pages import Pages
from llmbuffer.store import Store, open_store
from llmbuffer.store.levels import Levels
from llmbuffer.store.memory import MemoryBackend
from llmbuffer.store.tiered import Tiers
from llmbuffer.testing import FakeClock
from llmbuffer.testing.fakes import reply
from llmbuffer.turns import TurnTier

ONE, TWO, THREE = (CacheKey("b2:stable", f"b2:{number}") for number in range(3))
TOOLS = [{"name": name, "parameters": {"type": "object"}} for name in ("search", "read")]
POLICY = "Answer kindly, briefly and with a source. " * 300
MODELS = [("openai", "gpt-5.5"), ("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5")]


class Counting:
    """A counter that tells what it was asked."""

    name, estimated = "counting", True

    def __init__(self) -> None:
        self.asked: list[str] = []

    def count(self, text: str) -> int:
        self.asked.append(text)
        return len(text) // 4 + 1


def context(model: str = "gpt-5.5", **changes: Any) -> StableContext:
    system = [Segment("policy", POLICY, level="global"), Segment("shop", "Teapots. " * 200, level="tenant")]
    return StableContext(model, system, TOOLS).replace(**changes)


# The turn tier


def test_an_entry_lives_for_so_many_turns_of_who_used_it_last() -> None:
    tier = TurnTier(keep_turns=2)
    tier.put(ONE, "x", owner="ann")
    tier.end_turn("ann")
    tier.end_turn("ben")
    assert tier.get(ONE, owner="ben") == "x"  # from now on, turns of ben's count
    assert [tier.end_turn("ann") for _ in range(3)] == [0, 0, 0]
    assert [tier.end_turn("ben") for _ in range(2)] == [0, 1]
    assert (tier.get(ONE), tier.weight, len(tier)) == (None, 0, 0)


def test_a_look_without_an_owner_does_not_prolong() -> None:
    tier = TurnTier(keep_turns=1)
    tier.put(ONE, "x", owner="ann")
    assert tier.get(ONE) == "x"
    assert tier.end_turn("ann") == 1


def test_both_bounds_hold_and_what_was_used_longest_ago_goes() -> None:
    tier = TurnTier(entries=2)
    for key in (ONE, TWO):
        tier.put(key, "x")
    tier.get(ONE)
    tier.put(THREE, "x")
    assert [tier.get(key) for key in (ONE, TWO, THREE)] == ["x", None, "x"]
    small = TurnTier(capacity=2_000)
    assert (small.put(ONE, b"x" * 1_000), small.put(TWO, b"x" * 1_000), len(small)) == (True, True, 1)
    assert (small.put(THREE, b"x" * 3_000), small.get(THREE)) == (False, None)
    assert small.weight <= 2_000


def test_what_is_pinned_stays_until_it_is_unpinned() -> None:
    tier = TurnTier(keep_turns=1, entries=2, capacity=3_000)
    tier.put(ONE, b"x" * 1_000)
    assert (tier.pin(ONE), tier.pin(TWO)) == (True, False)
    tier.end_turn()
    assert (tier.evict(), tier.get(ONE) is not None) == (0, True)
    assert not tier.put(TWO, b"x" * 2_500)  # what pins leave is too little
    tier.put(ONE, b"y")  # replaced, it keeps its pin
    assert (tier.evict(), tier.unpin(ONE), tier.unpin(ONE), tier.evict()) == (0, True, False, 1)


def test_kinds_stand_beside_each_other() -> None:
    tier = TurnTier()
    tier.put(ONE, "a", kind="hook")
    tier.put(ONE, "b", kind="reply")
    assert (tier.get(ONE, "hook"), tier.get(ONE, "reply"), tier.get(ONE), ONE in tier) == (
        "a",
        "b",
        None,
        True,
    )
    assert (tier.drop(ONE, "hook"), tier.drop(ONE), tier.drop(ONE), ONE in tier) == (True, True, False, False)


@pytest.mark.parametrize("bad", [{"keep_turns": 0}, {"capacity": True}, {"entries": 1.5}])
def test_nonsense_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match="from 1 on"):
        TurnTier(**bad)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "get", "drop", "pin", "unpin", "end", "evict"]),
        st.integers(0, 5),
        st.sampled_from(["ann", "ben"]),
        st.integers(0, 400),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_books_agree_whatever_happens(steps: list[tuple[str, int, str, int]]) -> None:
    tier = TurnTier(keep_turns=2, capacity=1_500, entries=4)
    for act, number, owner, size in steps:
        key = CacheKey("s", str(number))
        if act == "put":
            tier.put(key, b"x" * size, owner=owner)
        elif act == "get":
            tier.get(key, owner=owner)
        elif act in ("drop", "pin", "unpin"):
            getattr(tier, act)(key)
        elif act == "end":
            tier.end_turn(owner)
        else:
            tier.evict(size)
        held = tier._held.values()
        assert tier.weight == sum(each.weight for each in held) <= 1_500
        assert tier._pinned_weight == sum(each.weight for each in held if each.pins)
        assert len(tier) <= 4
        assert set().union(*tier._owned.values()) == set(tier._held)
        assert tier._turns.keys() == tier._owned.keys()


def test_threads_may_share_a_tier() -> None:
    tier = TurnTier(capacity=20_000, entries=50)

    def work(seed: int) -> None:
        random = Random(seed)
        for _ in range(400):
            key = CacheKey("s", str(random.randrange(80)))
            if tier.get(key, owner=str(seed)) is None:
                tier.put(key, b"x" * random.randrange(500), owner=str(seed))
            if random.random() < 0.05:
                tier.end_turn(str(seed))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert tier.weight == sum(each.weight for each in tier._held.values()) <= 20_000


def test_dynamic_text_is_counted_once_while_its_turns_last() -> None:
    counter = Counting()
    session = Session(context(), tokens=counter)
    dynamic = {"retrieved": "on teapots " * 50}

    def counted() -> int:
        return sum("on teapots" in text for text in counter.asked)

    for _ in range(3):
        assert session.request("Hello", dynamic).forecast.input_tokens
        assert session.fork().request("Hi", dynamic).forecast.input_tokens
    assert counted() == 1
    reply(session.request("Hello", dynamic))
    reply(session.request("Again", dynamic))
    assert counted() == 1
    for _ in range(2):  # two turns without it
        reply(session.request("And?", {}))
    assert session.request("Hello", dynamic).forecast.input_tokens
    assert counted() == 2


# The stable tier


def begun(store: Store, dialect: str, model: str, **options: Any) -> Session:
    return Session(context(model), dialect, store=store, clock=store.clock, **options)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000.0)


@pytest.fixture
def store(clock: FakeClock, tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/sessions.db", clock=clock) as opened:
        yield opened


@pytest.mark.parametrize(("dialect", "model"), MODELS)
def test_what_was_counted_is_not_counted_again(store: Store, dialect: str, model: str) -> None:
    first = begun(store, dialect, model, tokens=Counting())
    reply(first.request("Hello"))
    first.save()
    counter = Counting()
    second = begun(store, dialect, model, tokens=counter)
    assert counter.asked == []
    request = second.request("What now?", {"clock": "12:00"})
    assert request.forecast.input_tokens
    assert all(len(text) < 100 for text in counter.asked)
    assert counter.asked
    plain = Session(context(model), dialect, tokens=Counting(), routing_key=second.family.routing_key)
    assert second._head == plain._head or second._head.node.end == plain._head.node.end
    expected = plain.request("What now?", {"clock": "12:00"})
    assert request.body == expected.body
    assert request.forecast.input_tokens == expected.forecast.input_tokens


@pytest.mark.parametrize(("dialect", "model"), MODELS)
def test_another_session_knows_until_when_the_prefix_is_warm(
    store: Store, clock: FakeClock, dialect: str, model: str
) -> None:
    first = begun(store, dialect, model)
    reply(first.request("Hello"))
    first.save()
    kept = store.compiled(first.context.fingerprint, dialect)
    assert kept is not None
    assert kept.ttl is not None
    assert (kept.warm_at, kept.tokens, kept.warm(1_001.0)) == (1_000.0, first._head.node.end, True)
    assert (b"teapots" in kept.system.lower(), b"search" in kept.tools) == (True, True)
    clock.advance(kept.ttl - 1)
    warm = begun(store, dialect, model).request("Another question").forecast
    assert warm.read_tokens >= first._head.node.end - 128
    assert "cold" not in warm.warnings
    clock.advance(1)
    over = begun(store, dialect, model).request("Another question").forecast
    assert (over.read_tokens, over.warnings) == (0, ("expired",))


@pytest.mark.parametrize(("dialect", "model"), MODELS)
def test_a_loaded_session_forecasts_as_the_saved_one(
    store: Store, clock: FakeClock, dialect: str, model: str
) -> None:
    session = begun(store, dialect, model)
    for number in range(4):
        reply(session.request(f"Question {number}: " + "tea " * 200))
        clock.advance(20)
    session.save()
    found = Session.load(store, session.id)
    one, two = (each.request("And now?").forecast for each in (session, found))
    assert two == one
    assert two.read_tokens > session._head.node.end
    clock.advance(90_000)
    assert Session.load(store, session.id).request("And now?").forecast.read_tokens == 0


def test_after_dynamic_text_that_went_only_what_lies_before_it_is_warm(store: Store) -> None:
    session = begun(store, "openai", "gpt-5.5")
    reply(session.request("Hello " * 300, {"retrieved": "on teapots " * 300}))
    session.save()
    found = Session.load(store, session.id)
    one, two = (each.request("And now?", {}).forecast for each in (session, found))
    assert session._head.node.end < two.read_tokens <= one.read_tokens


def test_nothing_asks_the_store_while_a_request_is_made(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begun(store, "anthropic", "claude-sonnet-5.5")
    for name in ("get", "put", "append", "claim", "records"):
        monkeypatch.setattr(store.backend, name, None)
    reply(session.request("Hello", {"clock": "12:00"}))
    assert session.fork().request("Again").forecast.read_tokens


def test_warmth_is_written_when_it_is_news(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, written = begun(store, "openai", "gpt-5.5"), list[float]()
    put = Store.put_compiled

    def noted(self: Store, made: Any) -> None:
        written.append(made.warm_at)
        put(self, made)

    monkeypatch.setattr(Store, "put_compiled", noted)
    for _ in range(40):
        reply(session.request("Hello"))
        session.save()
        clock.advance(1)
    lives = session.dialect.rules.ttl
    assert written[0] == 1_000.0
    assert len(written) == 1 + int(39 // (lives / 20))


def test_other_bytes_under_one_fingerprint_are_counted_anew_and_cold(store: Store) -> None:
    """The fingerprint does not see the order of keys; a provider's cache does."""
    schemas = [{"type": "object", "a": 1}, {"a": 1, "type": "object"}]
    contexts = [context(tools=[{"name": "search", "parameters": schema}]) for schema in schemas]
    assert contexts[0].fingerprint == contexts[1].fingerprint
    sessions = [Session(each, tokens=Counting(), clock=store.clock) for each in contexts]
    first = Session(contexts[0], store=store, tokens=Counting(), clock=store.clock)
    reply(first.request("Hello"))
    first.save()
    other = Session(contexts[1], store=store, tokens=Counting(), clock=store.clock, routing_key="k")
    assert other._head.node.wire == sessions[1]._head.node.wire
    assert other.request("Hello").forecast.read_tokens == 0
    reply(other.request("Hello"))
    other.save()
    assert (
        Session(contexts[1], store=store, tokens=Counting(), clock=store.clock)
        .request("x")
        .forecast.read_tokens
    )


def test_the_providers_handle_stays_when_warmth_is_noted(store: Store) -> None:
    session = begun(store, "openai", "gpt-5.5")
    store.handled(session.context.fingerprint, "openai", "cachedContents/1", ttl=3_600.0)
    reply(session.request("Hello"))
    session.save()
    kept = store.compiled(session.context.fingerprint, "openai")
    assert kept is not None
    assert (kept.handle, kept.ttl, kept.warm_at) == ("cachedContents/1", 3_600.0, 1_000.0)


def test_a_compiled_context_goes_with_the_last_session_that_had_it(store: Store) -> None:
    sessions = [begun(store, "openai", "gpt-5.5") for _ in range(2)]
    for session in sessions:
        reply(session.request("Hello"))
        session.save()
    fingerprint = sessions[0].context.fingerprint
    store.forget(sessions[0].id)
    assert store.compiled(fingerprint, "openai") is not None
    store.forget(sessions[1].id)
    assert store.compiled(fingerprint, "openai") is None
    assert b"teapots" not in Path(store.backend.path).read_bytes().lower()  # type: ignore[attr-defined]  # SQLite's


def test_a_store_that_fails_to_read_is_done_without(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(MemoryBackend):
        def get(self, *_: Any) -> Any:
            raise StoreError("the disk is gone")

    store = Store(Failing())
    session = Session(context(), store=store)
    assert session.request("Hello").body
    assert "the disk is gone" in caplog.text


# Both


VALUES = st.recursive(
    st.one_of(
        st.binary(max_size=20),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        st.builds(Message, st.just("user"), st.text(st.characters(exclude_categories=["Cs"]), max_size=9)),
        st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), st.integers(-9, 9)),
    ),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


@given(VALUES)
def test_what_is_promoted_comes_back_equal(value: Any) -> None:
    with open_store("memory:") as store:
        tiers = Tiers(store)
        tiers.put(ONE, value, kind="hook")
        assert tiers.promote(ONE, "hook")
        tiers.evict()
        assert len(tiers.turns) == 0
        assert tiers.get(ONE, "hook") == value
        assert len(tiers.turns) == 1


def test_the_tiers_are_looked_through_in_order(store: Store) -> None:
    tiers = Tiers(store)
    assert (tiers.get(ONE), tiers.promote(ONE), tiers.pin(ONE), tiers.drop(ONE)) == (
        None,
        False,
        False,
        False,
    )
    tiers.put(ONE, "a")
    tiers.promote(ONE, ttl=60)
    tiers.put(ONE, "b")
    assert tiers.get(ONE) == "b"
    assert Tiers(store).get(ONE) == "a"
    assert (tiers.pin(ONE), tiers.evict(), tiers.unpin(ONE), tiers.evict()) == (True, 0, True, 1)
    assert (tiers.drop(ONE), tiers.get(ONE)) == (True, None)


def test_what_cannot_be_stored_is_not_promoted(store: Store) -> None:
    tiers = Tiers(store)
    tiers.put(ONE, threading.Lock())
    with pytest.raises(StoreError, match="a lock of kind 'value' cannot be stored"):
        tiers.promote(ONE)
    assert store.keys() == ()


def test_a_request_that_is_observed_ends_a_turn_of_its_session() -> None:
    session = Session(context())
    tier = session.family.turns
    tier.put(ONE, "x", owner=session.id)
    request = session.request("Hello")
    request.observe(Usage(10), Message("assistant", "Hi."))
    assert tier.get(ONE) == "x"
    session.request("More").observe(Usage(10), Message("assistant", "Hi."))
    assert tier.get(ONE) is None


def test_a_sealed_store_shows_none_of_it(tmp_path: Path) -> None:
    """Compiled contexts, promoted values, replies, pages and levels, with a key and a tenant."""
    path = tmp_path / "sealed.db"
    options: dict[str, Any] = {"key": bytes(range(32)), "tenant": "acme"}
    with open_store(f"sqlite:///{path}", **options) as store:
        levels = Levels(store)
        levels.put("user", "ann", "Ann prefers teapots.")
        Pages(store, "repo").sync({"pot.py": "def pour_teapots(): ..."})
        system = [*levels.context("gpt-5.5", {"user": "ann"}).segments, Segment("policy", POLICY)]
        session = Session(StableContext("gpt-5.5", system, TOOLS), store=store)
        reply(session.request("Where are my teapots?"), "The teapots are here.")
        session.save()
        tiers = Tiers(store)
        tiers.put(ONE, session.messages)
        tiers.promote(ONE)
        store.keep_reply("where/teapots", 0, session.messages[-1])
        assert store.verify() == ()
    with open_store(f"sqlite:///{path}", **options) as store:
        assert Session.load(store, session.id).context == session.context
        assert store.compiled(session.context.fingerprint, "openai") is not None
        assert (Tiers(store).get(ONE), Pages(store, "repo").read("pot.py")[:4]) == (session.messages, "def ")
        assert store.replies("where/teapots", 1) == session.messages[-1:]
    stored = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    for text in (b"eapots", b"pot.py", b"Answer kindly", b"policy", b"acme", b"search", b"gpt-5.5"):
        assert text not in stored
