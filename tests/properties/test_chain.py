"""Ancestors and common prefixes of chains, against a walk over lists."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmbuffer import Message
from llmbuffer.chain import Node, ancestor, common_prefix, is_ancestor, root, walk

# A tree of nodes: each follows an earlier one (or a root) and says one of few things, so that equal chains made of other
# objects are common.
TREES = st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from("ab")), min_size=1, max_size=60)
LONG = st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))


def child(node: Node, text: str) -> Node:
    said = text.encode()
    return node.child(
        Message("user", text), content=said, wire=said, tokens=ord(text[0]), positions=len(text)
    )


def path(node: Node) -> list[str]:
    """What a chain says, with the seed of its root."""
    said = [each.message.text for each in walk(node) if isinstance(each.message, Message)]
    return [*reversed(said)]


def seed_of(node: Node) -> bytes:
    return ancestor(node, 0).wire


def grown(tree: list[tuple[int, str]]) -> list[Node]:
    nodes = [root(), root(b"other"), root()]
    for parent, text in tree:
        nodes.append(child(nodes[parent % len(nodes)], text))
    return nodes


def shared_depth(a: Node, b: Node) -> int:
    if seed_of(a) != seed_of(b):
        return 0
    depth = 0
    for one, two in zip(path(a), path(b), strict=False):
        if one != two:
            break
        depth += 1
    return depth


@given(TREES)
def test_chains_agree_with_a_walk(tree: list[tuple[int, str]]) -> None:
    nodes = grown(tree)
    for a in nodes:
        line = [*reversed(list(walk(a)))]
        assert [node.depth for node in line] == list(range(1, a.depth + 1))
        assert [ancestor(a, node.depth) for node in line] == line
        assert a.end == sum(node.tokens for node in line) == sum(map(ord, path(a)))
        for b in nodes[:: max(1, len(nodes) // 12)]:
            depth = shared_depth(a, b)
            found = common_prefix(a, b)
            assert found is ancestor(a, depth)
            assert common_prefix(b, a).wire == found.wire or depth == 0
            assert is_ancestor(a, b) == (seed_of(a) == seed_of(b) and path(b)[: a.depth] == path(a))


@given(LONG, st.booleans())
def test_long_chains_that_part_once(lengths: tuple[int, int, int], same_objects: bool) -> None:
    shared, left, right = lengths
    one, two = root(), root()
    for index in range(shared):
        one = child(one, str(index % 7))
        two = one if same_objects else child(two, str(index % 7))
    parted = one
    for _ in range(left):
        one = child(one, "l")
    for _ in range(right):
        two = child(two, "r")
    assert common_prefix(one, two) is (parted if shared else ancestor(one, 0))
    assert is_ancestor(one, two) == (left == 0)
    assert is_ancestor(two, one) == (right == 0)


@given(st.integers(1, 3_000))
def test_jumps_are_few(depth: int) -> None:
    """At most 3 log2(depth) steps to any ancestor (Myers, 1983); measured 2 log2."""
    node = root()
    for _ in range(depth):
        node = child(node, "x")
    steps, here = 0, node
    while here.depth > 1:
        here = here.jump if here.jump.depth >= 1 else here.parent or here
        steps += 1
    assert steps <= 3 * depth.bit_length()


@given(TREES)
def test_equal_words_have_equal_digests_whoever_said_them(tree: list[tuple[int, str]]) -> None:
    nodes = grown(tree)
    by_digest = {(seed_of(node), tuple(path(node))): (node.digest, node.wire) for node in nodes}
    for node in nodes:
        assert by_digest[seed_of(node), tuple(path(node))] == (node.digest, node.wire)
    assert len(set(by_digest.values())) == len(by_digest)
