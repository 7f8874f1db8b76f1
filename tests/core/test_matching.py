"""Caches of whole units, of engine slots and of blocks, and routing: one row a rule, figures worked out by hand."""

from __future__ import annotations

import math
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuffer.cache import CacheModel
from llmbuffer.chain import Block, Node, root
from llmbuffer.routing import RoutedCaches
from llmbuffer.rules import CacheRules
from llmbuffer.snapshot import Snapshot

UNITS = CacheRules(name="units", match="units", ttl=100.0, stores_output=True)
LANES = CacheRules(name="lanes", match="lanes", lanes=2, recomputed=1, ttl=math.inf, stores_output=True)
BLOCKS = CacheRules(name="blocks", match="prefix", step=4, recomputed=1, ttl=math.inf)


def sent(*texts: str) -> Snapshot:
    """A prompt of texts in which a character is a token."""
    node: Node = root(b"messages")
    for text in texts:
        wire = text.encode()
        node = node.child(Block("messages", "", text), content=wire, wire=wire, tokens=len(text))
    return Snapshot(root(), node)


def cache(rules: CacheRules) -> CacheModel:
    return CacheModel(rules, count=len)


# Units (DeepSeek, guide on the context cache)


def test_a_prompt_that_begins_with_a_whole_earlier_one_reads_it() -> None:
    model = cache(UNITS)
    model.commit(sent("system", "one"), 0)
    assert model.look(sent("system", "one", "two"), 1).read_tokens == 9


def test_a_common_prefix_is_read_by_the_third_request() -> None:
    model = cache(UNITS)
    found = [model.commit(sent("system", text), 0).read_tokens for text in ("one", "two", "three")]
    assert found == [0, 0, len("system")]
    assert model.look(sent("system", "four"), 1).read_tokens == len("system")


def test_a_reply_ends_a_unit_of_its_own() -> None:
    model = cache(UNITS)
    model.commit(sent("ask"), 0)
    model.commit_output(sent("ask", "answer"), 0)
    assert model.look(sent("ask", "answer", "more"), 1).read_tokens == 9
    without = cache(CacheRules(name="units", match="units"))
    without.commit(sent("ask"), 0)
    without.commit_output(sent("ask", "answer"), 0)
    assert without.look(sent("ask", "answer", "more"), 1).read_tokens == 3


def test_a_unit_expires_unless_it_is_read() -> None:
    model = cache(UNITS)
    model.commit(sent("ask"), 0)
    assert model.commit(sent("ask", "b"), 90).read_tokens == 3
    assert model.look(sent("ask", "c"), 150).outcome == "hit"
    assert model.look(sent("ask", "c"), 191).outcome == "expired"


# Slots of an engine (llama.cpp)


def test_the_last_token_is_always_computed() -> None:
    model = cache(LANES)
    model.commit(sent("prompt"), 0)
    assert model.commit(sent("prompt"), 1).read_tokens == 5


def test_forks_side_by_side_share_nothing_across_slots() -> None:
    model = cache(LANES)
    prefix = "p" * 100
    found = [model.commit(sent(prefix, tail), 0, math.inf) for tail in "ab"]
    assert [lookup.read_tokens for lookup in found] == [0, 0]
    assert found[1].outcome == "not-yet-visible"
    assert found[1].warm_tokens == 100


def test_a_third_request_waits_for_the_slot_that_is_free_first() -> None:
    model = cache(LANES)
    first = sent("p" * 100, "a")
    model.commit(first, 0, 10.0)
    model.commit(sent("q" * 100, "a"), 0, 20.0)
    assert model.look(sent("p" * 100, "b"), 1).read_tokens == 100
    assert model.look(sent("q" * 100, "b"), 1).read_tokens == 0  # its slot is at work for longer
    model.reveal(first, 2.0)
    assert model.look(sent("p" * 100, "b"), 2).read_tokens == 100


def test_what_parts_late_is_overwritten_and_what_parts_early_is_kept() -> None:
    one = CacheRules(name="lane", match="lanes", recomputed=1)
    late, early = cache(one), cache(one)
    late.commit(sent("p" * 70, "a" * 30), 0)
    late.commit(sent("p" * 70, "b" * 30), 1)
    assert late.look(sent("p" * 70, "a" * 30), 2).read_tokens == 70
    early.commit(sent("p" * 20, "a" * 80), 0)
    early.commit(sent("p" * 20, "b" * 80), 1)
    assert early.look(sent("p" * 20, "a" * 80), 2).read_tokens == 99  # taken back from memory


def test_without_memory_every_switch_computes_all() -> None:
    model = cache(CacheRules(name="lane", match="lanes", recomputed=1, capacity=0))
    for at, name in enumerate("abab"):
        assert model.commit(sent(name * 100), at).read_tokens == 0


def test_a_slot_holds_the_reply_too() -> None:
    model = cache(LANES)
    model.commit(sent("p" * 50), 0)
    model.commit_output(sent("p" * 50, "reply"), 1)
    assert model.look(sent("p" * 50, "reply", "next"), 2).read_tokens == 55


# Blocks with eviction (vLLM)


def test_only_full_blocks_are_read_and_never_the_last_token() -> None:
    model = cache(BLOCKS)
    model.commit(sent("abcdefgh"), 0)
    assert model.look(sent("abcdefgh"), 1).read_tokens == 4
    assert model.look(sent("abcdefghi"), 1).read_tokens == 8
    assert model.look(sent("abcxefgh"), 1).read_tokens == 0


class NaiveBlocks:
    """vLLM's pool the slow way: blocks by their whole prefix; the free ones in the order in which they are evicted."""

    def __init__(self, blocks: int) -> None:
        self.most = blocks
        self.free: OrderedDict[str, None] = OrderedDict()

    def send(self, text: str) -> int:
        full = [text[: end + 4] for end in range(0, len(text) // 4 * 4, 4)]
        read = 0
        for prefix in full:
            if prefix not in self.free or len(prefix) > len(text) - 1:
                break
            read = len(prefix)
        for prefix in reversed(full):  # freed from the end, so the end goes first
            self.free.pop(prefix, None)
            self.free[prefix] = None
        while len(self.free) > self.most:
            self.free.popitem(last=False)
        return read


@given(
    st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=8), min_size=1, max_size=14),
    st.integers(2, 12),
)
def test_a_bounded_cache_evicts_like_a_pool_of_blocks(prompts: list[list[str]], blocks: int) -> None:
    rules = CacheRules(name="blocks", match="prefix", step=4, recomputed=1, ttl=math.inf, capacity=4 * blocks)
    model, naive = cache(rules), NaiveBlocks(blocks)
    for at, letters in enumerate(prompts):
        text = "".join(letter * 4 for letter in letters)
        if len(text) <= 4 * blocks:
            assert model.commit(sent(text), at).read_tokens == naive.send(text), at


# Requests under way


@pytest.mark.parametrize(("match", "read"), [("prefix", 100), ("units", 100)])
def test_what_is_under_way_is_read_once_it_is_revealed(match: str, read: int) -> None:
    model = cache(CacheRules(name="any", match=match))  # type: ignore[arg-type]  # one of the literals
    first = sent("p" * 100)
    model.commit(first, 0, math.inf)
    longer = sent("p" * 100, "q")
    assert model.look(longer, 1).outcome == "not-yet-visible"
    model.reveal(first, 2)
    assert model.look(longer, 2).read_tokens == read


def test_an_older_prompt_is_read_until_the_one_that_covers_it_is_revealed() -> None:
    model = cache(CacheRules(name="any", match="prefix"))
    model.commit(sent("p" * 50), 0)
    longer = sent("p" * 50, "q" * 50)
    model.commit(longer, 1, math.inf)
    assert model.look(longer, 2).read_tokens == 50
    model.reveal(longer, 3)
    assert model.look(longer, 3).read_tokens == 100
    assert len(model) == 2
    model.commit(sent("x"), 4)
    assert len(model) == 2  # the covered one is gone


def test_blocks_are_shared_at_once_where_the_rules_say_so() -> None:
    model = cache(CacheRules(name="any", match="prefix", visible_after="request"))
    model.commit(sent("p" * 100), 0, math.inf)
    assert model.look(sent("p" * 100, "q"), 0).read_tokens == 100


# Routing


RATED = CacheRules(name="rated", match="prefix", per_key_rate=15 / 60)


def test_more_requests_a_minute_than_a_key_takes_go_to_another_machine() -> None:
    caches = RoutedCaches(RATED, count=len)
    prompt = sent("p" * 300)
    read = [caches.route(prompt, at, "key").commit(prompt, at).read_tokens for at in range(20)]
    assert read.count(0) == 2  # the first request on each of two machines
    assert read.index(0, 1) == 15
    later = caches.route(prompt, 75.0, "key").commit(prompt, 75.0)
    assert later.read_tokens == 300


def test_keys_and_openings_part_requests() -> None:
    caches = RoutedCaches(RATED, count=len)
    prompt, other = sent("p" * 300), sent("q" * 300)
    caches.route(prompt, 0.0, "key").commit(prompt, 0.0)
    assert caches.route(prompt, 1.0, "another").look(prompt, 1.0).read_tokens == 0
    assert caches.route(other, 1.0, "key") is not caches.route(prompt, 1.0, "key")
    tail = sent("p" * 300, "tail")
    assert caches.route(tail, 1.0, "key").look(tail, 1.0).read_tokens == 300


def test_without_a_rate_all_requests_meet() -> None:
    caches = RoutedCaches(BLOCKS)
    assert caches.route(sent("a"), 0.0, "key") is caches.route(sent("b"), 9.0, "another")
