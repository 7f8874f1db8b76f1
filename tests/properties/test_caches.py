"""The cache models against a naive list of prompts, for any rules, marks, dynamic texts and times."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties import naive
from tests.properties.naive import Sent, Unit
from tests.properties.naive_cache import NaiveCache

from llmbuffer import CacheRules, Message
from llmbuffer.cache import CacheModel
from llmbuffer.chain import Block, Node, root, walk
from llmbuffer.snapshot import Insert, MarkAt, Snapshot, relation

TEXTS = ["a", "b", "ab", "abc" * 4]
RULES = st.builds(
    CacheRules,
    name=st.just("any"),
    match=st.sampled_from(["prefix", "entries", "lookback"]),
    min_tokens=st.sampled_from([0, 1, 12, 30]),
    step=st.just(1),
    slots=st.just(4),
    lookback=st.integers(1, 6),
    ttl=st.just(10.0),
    ttl_long=st.sampled_from([None, 40.0]),
    read_multiplier=st.just(0.1),
)
TREES = st.lists(st.tuples(st.integers(0, 99), st.sampled_from(TEXTS)), min_size=1, max_size=12)
MARKS = st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=3)
REQUESTS = st.lists(
    st.fixed_dictionaries(
        {
            "head": st.integers(0, 99),
            "tip": st.integers(0, 99),
            "marks": MARKS,
            "dynamic": st.none()
            | st.tuples(st.integers(0, 30), st.lists(st.sampled_from(TEXTS), min_size=1, max_size=2)),
            "pause": st.sampled_from([0, 0, 1, 5, 9, 10, 11, 30]),
            "takes": st.sampled_from([0, 0, 2, 6, 20]),
        }
    ),
    min_size=2,
    max_size=8,
)


def grown(tree: list[tuple[int, str]], section: str) -> list[Node]:
    """A tree of nodes; those of the messages are messages, those of the head are blocks."""
    nodes = [root(section.encode())]
    for parent, text in tree:
        said = Message("user", text) if section == "messages" else Block(section, "", text)
        positions = 2 if text == "ab" else 1
        wire = f"{section} {text}".encode()
        before = nodes[parent % len(nodes)]
        nodes.append(before.child(said, content=wire, wire=wire, tokens=len(text), positions=positions))
    return nodes


def units(tip: Node, kind: str) -> list[Unit]:
    found = [
        Unit(f"{kind}{_text(node)}", node.tokens, 2 if _text(node) == "ab" else 1, (kind,), _text(node))
        for node in walk(tip)
    ]
    return [*reversed(found)]


def _text(node: Node) -> str:
    return node.message.text if node.message is not None else ""


def request_of(drawn: dict[str, Any], heads: list[Node], messages: list[Node]) -> tuple[Snapshot, Sent]:
    """The same request for the model and for the naive one."""
    head, tip = heads[drawn["head"] % len(heads)], messages[drawn["tip"] % (len(messages) - 1) + 1]
    head_units, message_units = units(head, "system"), units(tip, "user")
    places = [(node, True, False) for node in [*reversed(list(walk(head)))]]
    line = [*reversed(list(walk(tip)))]
    insert, extra, at = None, list[Unit](), len(line)
    if drawn["dynamic"] is not None:
        at, said = drawn["dynamic"][0] % len(line) + 1, drawn["dynamic"][1]
        after = end = line[at - 1]
        for text in said:
            end = end.child(
                Block("messages", "", text), content=text.encode(), wire=text.encode(), tokens=len(text)
            )
            extra.append(Unit(f"dynamic{text}", len(text), 1, ("messages",), text))
        insert = Insert(after, end)
    places += [(node, False, False) for node in line]
    if insert is not None:
        places.append((insert.after, False, True))
    marks, ends = [], []
    for number, long in drawn["marks"]:
        if not places:
            break
        node, in_head, dynamic = places[number % len(places)]
        marks.append(MarkAt(node, in_head=in_head, long=long, dynamic=dynamic))
        behind = len(extra) if dynamic or (not in_head and node.depth > at) else 0
        ends.append(((node.depth if in_head else len(head_units) + node.depth + behind), long))
    sent = Sent(tuple(head_units + message_units[:at] + extra + message_units[at:]), tuple(ends))
    return Snapshot(head, tip, marks=tuple(marks), insert=insert), sent


@settings(max_examples=300)
@given(RULES, TREES, TREES, REQUESTS)
def test_a_cache_model_agrees_with_a_list_of_prompts(
    rules: CacheRules,
    heads: list[tuple[int, str]],
    messages: list[tuple[int, str]],
    requests: list[dict[str, Any]],
) -> None:
    head_nodes, message_nodes = grown(heads, "system"), grown(messages, "messages")
    model, reference, at = CacheModel(rules, count=len), NaiveCache(rules, len), 0.0
    earlier: list[tuple[Snapshot, Sent]] = []
    for drawn in requests:
        at += drawn["pause"]
        snapshot, sent = request_of(drawn, head_nodes, message_nodes)
        assert snapshot.tokens == sent.tokens
        for old, old_sent in earlier:
            assert relation(old, snapshot) == naive.relation(old_sent, sent)
        earlier.append((snapshot, sent))
        # What is read and not yet written anew lives on in parts of an entry, which the model does not follow.
        visible = at if rules.match == "prefix" else at + drawn["takes"]
        expected = reference.commit(sent, at, visible)
        forecast = model.look(snapshot, at)
        found = model.commit(snapshot, at, visible)
        assert forecast == found
        assert (found.read_tokens, found.write_tokens, found.fresh_tokens) == expected
