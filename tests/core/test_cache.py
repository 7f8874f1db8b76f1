"""Cache models: one row a rule, on small chains whose figures are worked out by hand."""

from __future__ import annotations

import pytest

from llmbuffer.cache import CacheModel
from llmbuffer.chain import Block, Node, root
from llmbuffer.dialects import anthropic_rules, openai_rules
from llmbuffer.rules import CacheRules
from llmbuffer.snapshot import MarkAt, Snapshot

HEAD = root(b"head").child(Block("system", "s", "policy"), content=b"s", wire=b"s", tokens=2_000)
PREFIX = openai_rules.rules_for("gpt-5.5")
ENTRIES = openai_rules.rules_for("gpt-5.6")
MARKS = anthropic_rules.rules_for("claude-sonnet-4.5")


def chain(*pieces: tuple[str, int], start: Node | None = None, positions: int = 1) -> Node:
    node = start if start is not None else root(b"history")
    for name, tokens in pieces:
        wire = name.encode()
        node = node.child(
            Block("messages", name, name), content=wire, wire=wire, tokens=tokens, positions=positions
        )
    return node


def sent(tip: Node, *marks: MarkAt, head: Node = HEAD) -> Snapshot:
    return Snapshot(head, tip, marks=marks)


def marked(tip: Node, *more: MarkAt) -> Snapshot:
    return sent(tip, MarkAt(tip), *more)


def test_prefix_reads_in_steps_and_never_below_the_minimum() -> None:
    model = CacheModel(PREFIX)
    one = chain(("a", 1_000))
    assert model.commit(sent(one), 0).read_tokens == 0
    assert (
        model.look(sent(chain(("b", 900), start=one)), 1).read_tokens == 2_944
    )  # 23 steps of 128 in 3,000 tokens
    assert model.look(sent(chain(("x", 100))), 1).read_tokens == 1_920  # the head alone: 15 steps
    small = CacheModel(PREFIX)
    short = root(b"head").child(Block("system", "s", "p"), content=b"p", wire=b"p", tokens=1_000)
    small.commit(sent(root(b"history"), head=short), 0)
    assert small.look(sent(one, head=short), 1).read_tokens == 0  # 1,000 shared tokens are fewer than 1,024


def test_prefix_counts_the_equal_part_of_a_changed_text() -> None:
    def head(text: str) -> Node:
        wire = text.encode()
        return root(b"head").child(Block("system", "s", text), content=wire, wire=wire, tokens=len(text))

    model = CacheModel(CacheRules(name="exact", match="prefix"), count=len)
    model.commit(sent(root(b"history"), head=head("policy " * 100 + "12:00")), 0)
    assert model.look(sent(root(b"history"), head=head("policy " * 100 + "12:01")), 1).read_tokens == 704


def test_entries_match_stored_prefixes_only() -> None:
    model = CacheModel(ENTRIES)
    one, two = chain(("a", 500)), chain(("b", 500))
    assert model.commit(marked(one), 0).write_tokens == 2_500
    changed = model.commit(marked(two), 1)
    assert (changed.read_tokens, changed.write_tokens) == (
        0,
        2_500,
    )  # a shared head without a mark reads nothing
    longer = model.look(marked(chain(("c", 300), start=one)), 2)
    assert (longer.read_tokens, longer.write_tokens) == (2_500, 300)


def test_a_mark_on_the_head_serves_another_suffix() -> None:
    model = CacheModel(ENTRIES)
    model.commit(marked(chain(("a", 500)), MarkAt(HEAD, in_head=True)), 0)
    assert model.look(marked(chain(("b", 500))), 1).read_tokens == 2_000


@pytest.mark.parametrize(("distance", "read"), [(19, 2_500), (20, 0)])
def test_lookback_reaches_less_than_twenty_positions(distance: int, read: int) -> None:
    model = CacheModel(MARKS)
    one = chain(("a", 500))
    model.commit(marked(one), 0)
    far = chain(*[(f"m{number}", 1) for number in range(distance)], start=one)
    lookup = model.look(marked(far), 1)
    assert lookup.read_tokens == read
    assert lookup.warm_tokens == 2_500
    assert lookup.outcome == ("hit" if read else "lookback-exceeded")


def test_an_anchor_in_between_is_found_again() -> None:
    model = CacheModel(MARKS)
    one = chain(("a", 500))
    model.commit(marked(one), 0)
    far = chain(*[(f"m{number}", 1) for number in range(40)], start=one)
    assert model.look(marked(far, MarkAt(one)), 1).read_tokens == 2_500


def test_below_the_minimum_nothing_is_stored() -> None:
    model = CacheModel(anthropic_rules.rules_for("claude-haiku-4.5"))  # 4,096 tokens
    lookup = model.commit(marked(chain(("a", 500))), 0)
    assert (lookup.write_tokens, lookup.outcome, len(model)) == (0, "below-minimum", 0)


def test_entries_live_from_the_start_of_the_request_and_a_read_refreshes() -> None:
    model = CacheModel(MARKS)
    one = chain(("a", 500))
    model.commit(marked(one), 0, visible_at=30)
    assert model.look(marked(one), 299).read_tokens == 2_500
    assert model.look(marked(one), 300).outcome == "expired"
    model.commit(marked(one), 200)
    assert model.look(marked(one), 499).read_tokens == 2_500
    assert model.look(marked(one), 500).read_tokens == 0


def test_long_entries_live_for_an_hour_and_are_billed_apart() -> None:
    model = CacheModel(MARKS)
    tip = chain(("a", 500))
    lookup = model.commit(marked(tip, MarkAt(HEAD, in_head=True, long=True)), 0)
    assert (lookup.write_tokens, lookup.write_long_tokens) == (2_500, 2_000)
    assert model.look(marked(tip), 3_599).read_tokens == 2_000
    assert model.look(marked(tip), 3_600).read_tokens == 0


@pytest.mark.parametrize("rules", [PREFIX, ENTRIES, MARKS], ids=lambda rules: str(rules.name))
def test_what_is_being_written_cannot_be_read_yet(rules: CacheRules) -> None:
    model = CacheModel(rules)
    tip = chain(("a", 1_072))  # 3,072 tokens: 24 steps of 128
    siblings = [model.commit(marked(tip), at, visible_at=10) for at in (0, 1, 2)]
    assert [lookup.read_tokens for lookup in siblings] == [0, 0, 0]
    assert siblings[1].outcome == "not-yet-visible"
    assert model.look(marked(tip), 10).read_tokens == 3_072


def test_another_model_or_head_reads_nothing() -> None:
    model = CacheModel(ENTRIES)
    tip = chain(("a", 500))
    model.commit(marked(tip), 0)
    other = root(b"other model").child(Block("system", "s", "policy"), content=b"s", wire=b"s", tokens=2_000)
    assert model.look(sent(tip, MarkAt(tip), head=other), 1).read_tokens == 0


def test_params_of_the_messages_leave_the_head() -> None:
    model = CacheModel(MARKS)
    tip = chain(("a", 500))
    model.commit(marked(tip, MarkAt(HEAD, in_head=True)), 0)
    changed = Snapshot(
        HEAD, tip, message_seed=b"tool_choice", marks=(MarkAt(tip), MarkAt(HEAD, in_head=True))
    )
    assert model.look(changed, 1).read_tokens == 2_000


def test_looking_changes_nothing_and_the_limit_holds() -> None:
    model = CacheModel(MARKS, limit=8)
    for number in range(40):
        model.commit(marked(chain((f"m{number}", 500))), number)
        model.look(marked(chain(("x", 1))), number)
    assert len(model) == 8
    assert model.look(marked(chain(("m39", 500))), 40).read_tokens == 2_500
    assert model.look(marked(chain(("m0", 500))), 40).read_tokens == 0
