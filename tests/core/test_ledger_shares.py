"""Whom the tokens, the money and the breaks of a ledger belong to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuffer import Ledger, Message, Price, Segment, Session, StableContext, Usage
from llmbuffer.attribution import By, Labels, Share, Span
from llmbuffer.breaks import CacheBreak
from llmbuffer.errors import LedgerError
from llmbuffer.ledger import LedgerEntry
from llmbuffer.prices import cost_parts
from llmbuffer.tokens import EstimateCounter

PRICE = Price(input=10, output=50, cache_read=1, cache_write=12.5)
SYSTEM = [Segment("policy", "Be kind. " * 400, level="global"), Segment("user", "Ada. " * 200, level="user")]
TOOL = {"name": "look_up", "description": "Looks up. " * 50, "input_schema": {"type": "object"}}


def session_of(name: str | None = None) -> Session:
    context = StableContext("claude-sonnet-5.5", SYSTEM, [TOOL])
    session = Session(
        context, "anthropic", tokens=EstimateCounter(), prices={"claude-sonnet-5.5": PRICE}, clock=lambda: 0.0
    )
    session.name = name
    return session


def served(session: Session, user: str, part: float = 1.0, **more: object) -> Usage:
    request = session.request(user, **more)  # type: ignore[arg-type]  # dynamic text, if any
    told = request.forecast
    usage = Usage(told.input_tokens, 10, round(told.read_tokens * part), told.write_tokens)
    request.observe(usage, Message("assistant", "Hi!"))
    return usage


def test_segments_share_what_was_read_written_and_paid() -> None:
    session = session_of()
    served(session, "Hello", dynamic={"clock": "12:00 " * 20})
    served(session, "And now?", dynamic={"clock": "12:01 " * 20})
    found = session.ledger.by("segment")
    assert list(found) == ["tools", "policy", "user", "history", "dynamic", "output"]
    assert [found[name].requests for name in found] == [2] * 6
    for name in ("tools", "policy", "user"):  # written by the first request, read by the second
        share = found[name]
        assert share.cache_read_tokens == share.cache_write_tokens == share.input_tokens / 2, name
    assert found["dynamic"].cache_read_tokens == 0
    assert found["output"].output_tokens == 20
    total = sum(found.values(), Share())
    assert total.cost == pytest.approx(session.ledger.cost)
    assert (total.input_tokens, total.cache_read_tokens) == (
        session.ledger.usage.input_tokens,
        session.ledger.usage.cache_read_tokens,
    )


def test_a_break_belongs_to_the_segment_that_was_not_served_first() -> None:
    session = session_of()
    served(session, "Hello")
    head = session.ledger[0].spans
    prompt = session.ledger[0].prompt_tokens
    served(session, "And now?", part=(head[0].end + 50) / prompt)
    found = session.ledger.by("segment")
    assert {name: share.breaks for name, share in found.items() if share.breaks} == {"policy": 1}
    assert found["policy"].tokens_lost == session.ledger.breaks[0].tokens_lost


def test_forks_are_summed_by_agent_task_and_fork() -> None:
    root = session_of("planner")
    served(root, "Hello")
    writer = root.fork("writer")
    served(writer, "Write")
    worker = root.fork("worker-1", task="Look closer.")
    served(worker, "Now")
    nested = worker.fork()
    served(nested, "Deeper")
    whole = Ledger.of([root, writer, worker, nested])
    assert {name: share.requests for name, share in whole.by("agent").items()} == {
        "planner": 1,
        "writer": 1,
        "worker-1": 2,
    }
    assert {name: share.requests for name, share in whole.by("task").items()} == {"": 2, "worker-1": 2}
    assert set(whole.by("fork")) == {each.id for each in (root, writer, worker, nested)}
    assert whole.requests == 4
    assert (root.ledger + writer.ledger).usage == root.ledger.usage + writer.ledger.usage
    assert "Look closer" not in repr(whole[2])


def test_a_session_without_a_name_goes_by_its_id() -> None:
    session = session_of()
    served(session, "Hello")
    assert list(session.ledger.by("agent")) == [session.id]


def test_equal_labels_and_spans_are_one_object() -> None:
    session = session_of()
    for index in range(3):
        served(session, str(index))
    first, *others = session.ledger
    assert all(each.spans is first.spans and each.labels is first.labels for each in others)


def test_an_unknown_label_is_refused() -> None:
    with pytest.raises(LedgerError, match="'colour'"):
        Ledger().by("colour")  # type: ignore[arg-type]  # what is refused


def test_requests_that_told_nothing_have_no_segments() -> None:
    ledger = Ledger()
    ledger.add(LedgerEntry(at=0, epoch=0, labels=Labels("ann", "", "1")))
    ledger.add(LedgerEntry(at=0, epoch=0, kind="compacted", reason="small"))
    assert ledger.by("segment") == {}
    assert ledger.by("agent") == {"ann": Share(1)}


@given(
    ends=st.lists(st.integers(1, 500), max_size=5),
    history=st.tuples(*[st.integers(0, 500)] * 3),
    parts=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    scale=st.floats(0.3, 3),
    by=st.sampled_from(["agent", "task", "fork", "segment"]),
)
def test_whatever_the_label_the_shares_are_the_whole(
    ends: list[int], history: tuple[int, int, int], parts: tuple[float, float], scale: float, by: By
) -> None:
    head = sum(ends)
    before, dynamic, after = history
    prompt = head + before + dynamic + after
    whole = max(1, round(prompt * scale))
    read = int(whole * parts[0])
    usage = Usage(whole, 7, read, int((whole - read) * parts[1]))
    spans = tuple(Span(f"s{index}", sum(ends[: index + 1])) for index in range(len(ends)))
    paid = cost_parts(usage, PRICE)
    ledger = Ledger()
    ledger.add(
        LedgerEntry(
            at=0,
            epoch=0,
            usage=usage,
            cost=paid.total,
            cost_parts=paid,
            cache_break=CacheBreak("expired", "messages", 5, 1.0),
            spans=spans,
            prompt_tokens=max(1, prompt),
            dynamic_at=head + before,
            dynamic_tokens=dynamic,
        )
    )
    total = sum(ledger.by(by).values(), Share())
    assert (
        Usage(total.input_tokens, total.output_tokens, total.cache_read_tokens, total.cache_write_tokens)
        == usage
    )
    assert total.cost == pytest.approx(paid.total)
    assert total.breaks == int(read < whole or by != "segment")
