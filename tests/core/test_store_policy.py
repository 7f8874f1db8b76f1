"""Eviction policies: each against a slow simulation that is written from its definition, and what all of them promise."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmbuffer.errors import LLMBufferError
from llmbuffer.store.policies import POLICIES, CapacityError, Policy, PolicyError, Victim, make_policy
from llmbuffer.store.policies.order import Ranking

NAMES = sorted(POLICIES)


class Clock:
    """Seconds that a test sets, forward or back."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# The reference: lists, sums and searches, no running totals.


@dataclasses.dataclass
class Row:
    key: str
    weight: int
    price: float
    lives: float  # seconds of life left, infinite without a TTL
    pins: int = 0
    uses: int = 0  # after the first
    rank: float = 0
    last: int = 0
    timed: int = 0
    second: bool = False  # in the second of two queues: S3-FIFO's main one, ARC's T2


class Slow:
    """Everything but the order."""

    def __init__(self, capacity: int | None, entries: int | None) -> None:
        self.capacity = math.inf if capacity is None else capacity
        self.entries = math.inf if entries is None else entries
        self.by_bytes = capacity is not None
        self.rows: list[Row] = []
        self.ticks = count()

    def row(self, key: str) -> Row | None:
        return next((row for row in self.rows if row.key == key), None)

    def weight(self) -> int:
        return sum(row.weight for row in self.rows)

    def alive(self, row: Row | None) -> bool:
        return row is not None and (row.lives > 0 or row.pins > 0)

    def pass_time(self, seconds: float) -> None:
        for row in self.rows:
            row.lives -= max(0.0, seconds)

    def expire(self) -> list[Victim]:
        gone = [row for row in self.rows if not self.alive(row)]
        for row in gone:
            self.rows.remove(row)
            self.leave(row)
        return [Victim(row.key, row.weight, True) for row in sorted(gone, key=lambda r: (r.lives, r.timed))]

    def shrink(self, weight: float, number: float) -> list[Victim]:
        pinned = [row.weight for row in self.rows if row.pins]
        if sum(pinned) > weight or len(pinned) > number:
            raise CapacityError("pins")
        gone = self.expire()
        while self.weight() > weight or len(self.rows) > number:
            row = self.choose()
            self.rows.remove(row)
            gone.append(Victim(row.key, row.weight))
        return gone

    def add(self, key: str, weight: int, price: float | None, ttl: float | None) -> list[Victim]:
        old = self.row(key)
        others = [row.weight for row in self.rows if row.pins and row is not old]
        if sum(others) + weight > self.capacity or len(others) + 1 > self.entries:
            raise CapacityError("full")
        new = Row(key, weight, weight if price is None else price, math.inf if ttl is None else ttl)
        new.timed = next(self.ticks)
        replaced = old is not None and self.alive(old)
        if old is not None:
            self.rows.remove(old)
            if not old.pins:
                self.leave(old)
            if replaced:
                new.pins, new.uses, new.second = old.pins, old.uses, old.second
        if not replaced:
            self.miss(new)
        gone = self.shrink(self.capacity - weight, self.entries - 1)
        self.rows.append(new)
        if not new.pins:
            self.enter(new)
            if replaced:
                self.use(new)
        return gone

    def touch(self, key: str) -> bool:
        row = self.row(key)
        if row is None or not self.alive(row):
            return False
        if not row.pins:
            self.use(row)
        return True

    def pin(self, key: str) -> bool:
        row = self.row(key)
        if row is None or not self.alive(row):
            return False
        if not row.pins:
            self.leave(row)
        row.pins += 1
        return True

    def unpin(self, key: str) -> bool:
        row = self.row(key)
        if row is None or not row.pins:
            return False
        row.pins -= 1
        if not row.pins:
            row.timed = next(self.ticks)
            self.enter(row)
            self.use(row)
        return True

    def remove(self, key: str) -> bool:
        row = self.row(key)
        if row is None:
            return False
        self.rows.remove(row)
        if not row.pins:
            self.leave(row)
        return True

    def free(self) -> list[Row]:
        return [row for row in self.rows if not row.pins]

    def miss(self, row: Row) -> None: ...
    def enter(self, row: Row) -> None: ...
    def leave(self, row: Row) -> None: ...
    def use(self, row: Row) -> None: ...
    def choose(self) -> Row:
        raise NotImplementedError


class SlowLRU(Slow):
    def enter(self, row: Row) -> None:
        row.last = next(self.ticks)

    use = enter

    def choose(self) -> Row:
        return min(self.free(), key=lambda row: row.last)


class SlowLFU(Slow):
    age: float = 0

    def worth(self, row: Row) -> float:
        return 1

    def enter(self, row: Row) -> None:
        row.rank = self.age + (row.uses + 1) * self.worth(row)
        row.last = next(self.ticks)

    def use(self, row: Row) -> None:
        row.uses += 1
        self.enter(row)

    def choose(self) -> Row:
        row = min(self.free(), key=lambda row: (row.rank, row.last))
        self.age = row.rank
        return row


class SlowCost(SlowLFU):
    def worth(self, row: Row) -> float:
        return row.price / row.weight


Pair = tuple[str, int]


def total(pairs: Iterable[Pair]) -> int:
    return sum(size for _, size in pairs)


def without(pairs: list[Pair], key: str) -> list[Pair]:
    return [pair for pair in pairs if pair[0] != key]


class SlowS3FIFO(Slow):
    def __init__(self, *bounds: Any) -> None:
        super().__init__(*bounds)
        self.small: list[str] = []
        self.main: list[str] = []
        self.ghosts: list[Pair] = []

    def miss(self, row: Row) -> None:
        row.second = any(key == row.key for key, _ in self.ghosts)
        self.ghosts = without(self.ghosts, row.key)

    def enter(self, row: Row) -> None:
        (self.main if row.second else self.small).append(row.key)

    def leave(self, row: Row) -> None:
        (self.main if row.second else self.small).remove(row.key)

    def use(self, row: Row) -> None:
        row.uses = min(3, row.uses + 1)

    def choose(self) -> Row:
        while True:
            rows = {row.key: row for row in self.rows}
            small = sum(rows[key].weight for key in self.small)
            share = max(small / self.capacity, len(self.small) / self.entries)
            if self.small and (share >= 0.1 or not self.main):
                row = rows[self.small.pop(0)]
                if row.uses <= 1:
                    self.ghosts.append((row.key, row.weight))
                    while (
                        total(self.ghosts) > self.capacity * 9 // 10
                        or len(self.ghosts) > self.entries * 9 // 10
                    ):
                        del self.ghosts[0]
                    return row
                row.uses, row.second = 0, True
            else:
                row = rows[self.main.pop(0)]
                if not row.uses:
                    return row
                row.uses -= 1
            self.main.append(row.key)


class SlowARC(Slow):
    def __init__(self, *bounds: Any) -> None:
        super().__init__(*bounds)
        self.t1: list[Pair] = []
        self.t2: list[Pair] = []
        self.b1: list[Pair] = []
        self.b2: list[Pair] = []
        self.p: float = 0
        self.in_b2 = False

    def pair(self, row: Row) -> Pair:
        return row.key, row.weight if self.by_bytes else 1

    def miss(self, row: Row) -> None:
        key, size = self.pair(row)
        in_b1, self.in_b2 = (any(pair[0] == key for pair in ghosts) for ghosts in (self.b1, self.b2))
        row.second = in_b1 or self.in_b2
        if in_b1:
            self.p += size * max(1, total(self.b2) / total(self.b1))
            self.p = min(self.p, total(self.t1 + self.t2))
        if self.in_b2:
            self.p = max(0, self.p - size * max(1, total(self.b1) / total(self.b2)))
        self.b1, self.b2 = without(self.b1, key), without(self.b2, key)

    def enter(self, row: Row) -> None:
        (self.t2 if row.second else self.t1).append(self.pair(row))
        self.in_b2 = False
        room = self.capacity if self.by_bytes else self.entries
        while self.b1 and (total(self.t1 + self.b1) > room or len(self.t1 + self.b1) > self.entries):
            del self.b1[0]
        seen = self.t1 + self.t2 + self.b1
        while self.b2 and (total(seen + self.b2) > 2 * room or len(seen + self.b2) > 2 * self.entries):
            del self.b2[0]

    def leave(self, row: Row) -> None:
        self.t1, self.t2 = without(self.t1, row.key), without(self.t2, row.key)

    def use(self, row: Row) -> None:
        self.leave(row)
        row.second = True
        self.t2.append(self.pair(row))

    def choose(self) -> Row:
        size = total(self.t1)
        first = size > self.p or (self.in_b2 and size == self.p)
        source, ghosts = (self.t1, self.b1) if self.t1 and (first or not self.t2) else (self.t2, self.b2)
        ghosts.append(source.pop(0))
        row = self.row(ghosts[-1][0])
        assert row is not None
        return row


SLOW: dict[str, Callable[..., Slow]] = {
    "arc": SlowARC,
    "cost": SlowCost,
    "lfu": SlowLFU,
    "lru": SlowLRU,
    "s3fifo": SlowS3FIFO,
}

KEYS = st.sampled_from("abcdefghijkl")
# Multiples of a half are exact, so both sides reckon the same time.
ADD = st.tuples(
    st.just("add"),
    KEYS,
    st.integers(1, 12),
    st.none() | st.sampled_from([0.0, 1.0, 3.0, 50.0]),
    st.none() | st.sampled_from([1.0, 4.0, 30.0]),
)
STEPS = st.lists(
    st.one_of(
        ADD,
        st.tuples(st.just("add"), KEYS, st.integers(1, 4), st.none(), st.none()),
        st.tuples(st.just("touch"), KEYS),
        st.tuples(st.just("use"), KEYS, st.integers(1, 4), st.none(), st.none()),
        st.tuples(st.sampled_from(["pin", "unpin", "remove"]), KEYS),
        st.tuples(st.just("clock"), st.sampled_from([0.5, 1.0, 5.0, -0.5, -20.0])),
        st.tuples(st.just("expire")),
        st.tuples(st.just("evict"), st.none() | st.integers(0, 30), st.none() | st.integers(0, 8)),
    ),
    max_size=60,
)
BOUNDS = st.sampled_from([(20, None), (None, 4), (30, 5), (40, 12), (None, 10), (12, 3)])


def run(action: Callable[[], object]) -> object:
    try:
        return action()
    except CapacityError:
        return CapacityError


def take(step: tuple[Any, ...], policy: Policy[str], slow: Slow, clock: Clock) -> tuple[object, object]:
    """What both answer to one step."""
    kind, rest = step[0], step[1:]
    policy._now()
    if kind == "add":
        key, weight, price, ttl = rest
        return run(lambda: policy.add(key, weight, price=price, ttl=ttl)), run(lambda: slow.add(*rest))
    if kind == "use":
        if policy.touch(rest[0]):
            return True, slow.touch(rest[0])
        assert not slow.touch(rest[0])
        return take(("add", *rest), policy, slow, clock)
    if kind == "clock":
        clock.now += rest[0]
        slow.pass_time(rest[0])
        return len(policy), len(slow.rows)
    if kind == "evict":
        bounds = (math.inf if bound is None else bound for bound in rest)
        return run(lambda: policy.evict_until(*rest)), run(lambda: slow.shrink(*bounds))
    return getattr(policy, kind)(*rest), getattr(slow, kind)(*rest)


@pytest.mark.parametrize("name", NAMES)
@given(bounds=BOUNDS, steps=STEPS)
@settings(deadline=None, max_examples=150)
@example(
    bounds=(None, 4), steps=[("add", "a", 1, None, 4.0), ("clock", -20.0), ("clock", 5.0), ("touch", "a")]
)
def test_a_policy_matches_its_slow_simulation(
    name: str, bounds: tuple[int | None, int | None], steps: list[tuple[Any, ...]]
) -> None:
    assert_same(name, bounds, steps)


@pytest.mark.parametrize("name", NAMES)
@given(bounds=BOUNDS, seed=st.integers(0, 2**32), keys=st.integers(6, 40), ops=st.integers(0, 3))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_a_policy_matches_its_slow_simulation_over_long_traffic(
    name: str, bounds: tuple[int | None, int | None], seed: int, keys: int, ops: int
) -> None:
    assert_same(name, bounds, list(traffic(random.Random(seed), keys, ops)))


def traffic(chance: random.Random, keys: int, ops: int) -> Iterator[tuple[Any, ...]]:
    """Skewed uses and short scans over a drifting set of keys, with ``ops`` other things in ten steps."""
    heavy = chance.random() < 0.5
    for number in range(300):
        if chance.random() < 0.02:
            for step in range(chance.randrange(12)):
                yield "use", f"scan{number + step}", 1, None, None
        key = f"k{int(keys * chance.random() ** 2) + number // 100}"
        if chance.random() * 10 >= ops:
            price = chance.choice([None, 0.0, 2.0, 40.0]) if heavy else None
            yield "use", key, chance.randint(1, 7) if heavy else 2, price, None
        else:
            yield chance.choice(
                [
                    ("add", key, chance.randint(1, 12), 5.0, chance.choice([None, 4.0])),
                    ("pin", key),
                    ("unpin", key),
                    ("unpin", key),
                    ("remove", key),
                    ("clock", chance.choice([0.5, 1.0, -9.0])),
                    ("evict", chance.randint(6, 30), None),
                ]
            )


def assert_same(name: str, bounds: tuple[int | None, int | None], steps: list[tuple[Any, ...]]) -> None:
    """Both answer the same to every step, and hold the same after it."""
    clock = Clock()
    policy, slow = make_policy(name, *bounds, clock=clock), SLOW[name](*bounds)
    for step in steps:
        # What a clock does unread cannot be told: both see each of its steps.
        fast_answer, slow_answer = take(step, policy, slow, clock)
        policy._now()
        assert fast_answer == slow_answer, step
        assert sorted(policy) == sorted(row.key for row in slow.rows)
        assert [key in policy for key in policy] == [slow.alive(slow.row(key)) for key in policy]
        assert policy.weight == slow.weight()
        assert policy.pinned_weight == sum(row.weight for row in slow.rows if row.pins)
        assert policy.weight <= (bounds[0] or math.inf)
        assert len(policy) == len(slow.rows) <= (bounds[1] or math.inf)


@given(keys=st.lists(st.integers(0, 30), max_size=300), size=st.integers(1, 12))
def test_lru_is_an_ordered_dict(keys: list[int], size: int) -> None:
    policy, plain = make_policy("lru", entries=size), OrderedDict[int, None]()
    for key in keys:
        assert policy.touch(key) == (key in plain)
        policy.add(key, 1)
        plain[key] = None
        plain.move_to_end(key)
        if len(plain) > size:
            plain.popitem(last=False)
    assert set(policy) == set(plain)


@given(keys=st.lists(st.integers(0, 30), max_size=300), size=st.integers(2, 12))
def test_arc_in_bytes_of_equal_weight_is_arc_in_entries(keys: list[int], size: int) -> None:
    by_entries, by_bytes = make_policy("arc", entries=size), make_policy("arc", capacity=size * 64)
    for key in keys:
        assert by_entries.touch(key) == by_bytes.touch(key)
        if key not in by_entries:
            gone = [victim.key for victim in by_entries.add(key, 1)]
            assert gone == [victim.key for victim in by_bytes.add(key, 64)]


@given(keys=st.lists(st.integers(0, 30), max_size=300), size=st.integers(1, 12))
def test_cost_of_equal_entries_is_lfu(keys: list[int], size: int) -> None:
    cost, lfu = make_policy("cost", entries=size), make_policy("lfu", entries=size)
    for key in keys:
        assert cost.touch(key) == lfu.touch(key)
        if key not in lfu:
            assert cost.add(key, 1) == lfu.add(key, 1)


def filled(name: str, capacity: int | None = None, entries: int | None = None) -> Policy[str]:
    policy = make_policy(name, capacity, entries)
    for key in "abcd":
        policy.add(key, 10)
    return policy


@pytest.mark.parametrize("name", NAMES)
class TestEveryPolicy:
    def test_what_is_pinned_stays_through_any_traffic(self, name: str) -> None:
        policy = filled(name, capacity=40)
        assert policy.pin("b")
        gone = [victim.key for number in range(500) for victim in policy.add(f"n{number}", 1 + number % 30)]
        assert "b" in policy
        assert "b" not in gone
        assert policy.pinned_weight == 10

    def test_pins_are_counted(self, name: str) -> None:
        policy = filled(name, capacity=40)
        assert policy.pin("a")
        assert policy.pin("a")
        assert policy.unpin("a")
        assert policy.evict_until(weight=10) == [Victim(key, 10) for key in "bcd"]
        assert list(policy) == ["a"]
        assert policy.unpin("a")
        assert not policy.unpin("a")
        assert [victim.key for victim in policy.evict_until(entries=0)] == ["a"]

    def test_pins_that_leave_no_room_are_an_error_that_changes_nothing(self, name: str) -> None:
        policy = filled(name, capacity=40)
        for key in "abc":
            policy.pin(key)
        with pytest.raises(CapacityError, match=r"'new' of 11 bytes: 3 pinned entries hold 30 bytes.*unpin"):
            policy.add("new", 11)
        with pytest.raises(CapacityError, match=r"weight=29.*3 pinned entries hold 30 bytes; unpin"):
            policy.evict_until(weight=29)
        with pytest.raises(CapacityError, match="entries=2"):
            policy.evict_until(entries=2)
        assert sorted(policy) == list("abcd")
        assert [victim.key for victim in policy.add("new", 10)] == ["d"]

    def test_pins_that_fill_the_entries_are_an_error(self, name: str) -> None:
        policy = filled(name, entries=4)
        for key in "abcd":
            policy.pin(key)
        with pytest.raises(CapacityError, match="4 pinned entries"):
            policy.add("new", 1)
        assert policy.add("a", 99) == []  # it replaces a pinned one
        assert policy.pinned_weight == policy.weight == 129

    def test_an_entry_larger_than_the_capacity_is_refused(self, name: str) -> None:
        policy = filled(name, capacity=40)
        with pytest.raises(CapacityError, match=r"'big': it weighs 41 bytes and the capacity is 40"):
            policy.add("big", 41)
        with pytest.raises(CapacityError, match="41 bytes"):
            policy.add("a", 41)
        assert sorted(policy) == list("abcd")
        assert len(policy.add("big", 40)) == 4

    @pytest.mark.parametrize(
        "wrong",
        [
            {"weight": 0},
            {"weight": -5},
            {"weight": 1, "price": -1.0},
            {"weight": 1, "price": math.inf},
            {"weight": 1, "price": math.nan},
            {"weight": 1, "ttl": 0},
            {"weight": 1, "ttl": math.nan},
        ],
    )
    def test_senseless_entries_are_refused(self, name: str, wrong: dict[str, Any]) -> None:
        policy = filled(name, capacity=40)
        with pytest.raises(PolicyError, match="cannot hold 'a' with weight="):
            policy.add("a", **wrong)
        assert policy.weight == 40

    def test_one_iterates_while_evicting(self, name: str) -> None:
        policy = filled(name, capacity=40)
        seen = []
        for key in policy:
            seen.append(key)
            policy.add(f"{key}{key}", 25)
            policy.evict_until(entries=1)
        assert sorted(seen) == list("abcd")

    def test_add_names_neither_its_own_key_nor_what_it_keeps(self, name: str) -> None:
        clock = Clock()
        policy = make_policy(name, capacity=40, clock=clock)
        policy.add("a", 10, ttl=5)
        policy.add("b", 10, ttl=5)
        clock.now += 5
        assert "a" not in policy
        assert not policy.touch("a")
        assert not policy.pin("a")
        assert policy.add("a", 30) == [Victim("b", 10, expired=True)]
        assert list(policy) == ["a"]

    def test_a_clock_set_back_does_not_lengthen_a_life(self, name: str) -> None:
        clock = Clock()
        policy = make_policy(name, entries=4, clock=clock)
        policy.add("a", 1, ttl=10)
        clock.now += 6
        assert policy.touch("a")
        clock.now -= 3600
        assert policy.touch("a")
        clock.now += 4
        assert policy.expire() == [Victim("a", 1, expired=True)]

    def test_what_is_pinned_expires_when_the_last_pin_goes(self, name: str) -> None:
        clock = Clock()
        policy = make_policy(name, entries=4, clock=clock)
        policy.add("a", 1, ttl=10)
        policy.pin("a")
        clock.now += 60
        assert policy.expire() == []
        assert policy.touch("a")
        policy.unpin("a")
        assert "a" not in policy
        assert policy.expire() == [Victim("a", 1, expired=True)]

    def test_books_do_not_grow_with_traffic(self, name: str) -> None:
        clock = Clock()
        policy = make_policy(name, entries=50, clock=clock)
        for number in range(5000):
            policy.add(number % 700, 1, ttl=1000)
            policy.add("same", 1, ttl=1000)
            policy.touch(number % 11)
            policy.pin("same")
            policy.unpin("same")
        assert sum(map(held_by, vars(policy).values())) < 50 * 12

    def test_a_bound_is_needed(self, name: str) -> None:
        with pytest.raises(PolicyError, match="without a bound"):
            make_policy(name)
        with pytest.raises(PolicyError, match="capacity is 0"):
            make_policy(name, 0)


def held_by(value: object) -> int:
    """How many things a part of a policy remembers."""
    if isinstance(value, Ranking):
        return len(value._heap) + len(value._slots)
    return len(value) if hasattr(value, "__len__") else 0


def test_an_unknown_policy_is_named_with_the_known_ones() -> None:
    with pytest.raises(
        PolicyError, match="unknown eviction policy 'mru': choose one of arc, cost, lfu, lru, s3fifo"
    ):
        make_policy("mru", 10)
    assert issubclass(PolicyError, LLMBufferError)
    assert issubclass(PolicyError, ValueError)


def test_a_class_is_as_good_as_a_name() -> None:
    assert type(make_policy(POLICIES["lru"], 10)) is type(make_policy("lru", 10))


def test_cost_keeps_what_is_dear_to_make_for_its_size() -> None:
    policy = make_policy("cost", capacity=100)
    policy.add("summary", 40, price=9000)
    policy.add("render", 40, price=10)
    assert [victim.key for number in range(50) for victim in policy.add(number, 20, price=5)][:1] == [
        "render"
    ]
    assert "summary" in policy


@pytest.mark.parametrize("name", ["cost", "lfu"])
def test_old_fame_fades(name: str) -> None:
    policy = make_policy(name, entries=3)
    policy.add("famous", 1)
    for _ in range(20):
        policy.touch("famous")
    for number in range(100):
        policy.add(number, 1)
    assert "famous" not in policy


@pytest.mark.parametrize("name", ["arc", "lfu", "s3fifo"])
def test_a_scan_does_not_wash_out_what_is_in_use(name: str) -> None:
    policy = make_policy(name, entries=20)
    for _ in range(5):
        for key in range(5):
            if not policy.touch(key):
                policy.add(key, 1)
    for number in range(100, 116):
        policy.add(number, 1)
    assert all(key in policy for key in range(5))
