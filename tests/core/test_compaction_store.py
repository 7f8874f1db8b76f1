"""Compacted sessions in a store: the same bytes, the same decisions, and originals until the session is forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from llmbuffer import Message, Segment, Session, StableContext, Text, ToolCall, ToolResult, Usage
from llmbuffer.compaction import ClipToolOutput, Compaction, ElideToolResults, Summarizer, Truncator
from llmbuffer.errors import OriginalError
from llmbuffer.layout import Placement
from llmbuffer.store import open_store
from llmbuffer.testing import FakeClock
from llmbuffer.testing.store.examples import bytes_of
from llmbuffer.tokens import EstimateCounter

MODELS = [("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5"), ("gemini", "gemini-3.1-pro")]
COMPACTION = Compaction(
    3_000,
    0.5,
    [
        ClipToolOutput(200),
        ElideToolResults(1),
        Summarizer(lambda messages: f"{len(messages)} said.", 50),
        Truncator(),
    ],
    horizon=10,
)


def session_of(store: Any, model: tuple[str, str] = MODELS[0], **options: Any) -> Session:
    return Session(
        StableContext(model[1], "You are kind.", [{"name": "look"}]),
        model[0],
        tokens=EstimateCounter(),
        clock=options.pop("clock", None) or FakeClock(),
        compaction=options.pop("compaction", COMPACTION),
        store=store,
        **options,
    )


def turn(session: Session, number: int) -> None:
    dynamic = [Segment("clock", f"12:{number:02}", "turn", pinned=number == 2)]
    session.request(f"Question {number} " + "why? " * 30, dynamic=dynamic).observe(
        Usage(100, 9), Message("assistant", [Text("Let me see."), ToolCall(f"c{number}", "look", "{}")])
    )
    session.append(Message("tool", [ToolResult(f"c{number}", f"{number} " + "found " * 300)]))
    session.request().observe(Usage(100, 9), Message("assistant", f"Answer {number} " + "so " * 30))


def both(one: Session, two: Session, number: int) -> None:
    """The next turn of two sessions that should be the same, with all that is decided on the way."""
    for _ in range(2):
        asked = [each.request("And now? " + "why? " * 30, dynamic={"clock": "13:00"}) for each in (one, two)]
        assert bytes_of(asked[0]) == bytes_of(asked[1])
        assert (asked[0].placed.compacted is None) == (asked[1].placed.compacted is None)
        for request in asked:
            request.observe(Usage(100, 9), Message("assistant", f"So {number}. " + "it is " * 200))
    assert one.messages == two.messages
    assert one.epoch == two.epoch
    assert one._state.archive.compactions == two._state.archive.compactions


@pytest.mark.parametrize("placement", get_args(Placement))
@pytest.mark.parametrize("model", MODELS)
def test_a_loaded_session_goes_on_as_the_saved_one(model: tuple[str, str], placement: Any) -> None:
    clock = FakeClock()
    with open_store("memory:", clock=clock) as store:
        session = session_of(store, model, placement=placement, clock=clock)
        for number in range(9):
            turn(session, number)
            if number == 3:
                session.document("plan", "1. Look.")
            if number == 6:
                session.document("plan", "1. Look.\n2. Ask.")
        assert session.epoch > 0
        session.pin(session.messages[-2])
        session.save()
        found = Session.load(store, session.id, tokens=EstimateCounter(), clock=clock, compaction=COMPACTION)
        assert found.documents == session.documents
        assert found._state.archive.pins == session._state.archive.pins
        assert found._state.turns == session._state.turns
        for number in range(6):
            clock.advance(30)
            both(session, found, number)
        assert session.epoch > 2


def test_originals_are_kept_until_the_session_is_forgotten(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    with open_store(url) as store:
        session = session_of(
            store, compaction=Compaction(1_500, 0.5, [ClipToolOutput(200), Truncator()], horizon=0)
        )
        for number in range(4):
            turn(session, number)
        session.save()
        for number in range(4, 10):
            turn(session, number)
        session.save()
        kept = {each.name: each.messages for each in session._state.archive.originals()}
        assert len(kept) > 5
        assert any(len(messages) > 1 for messages in kept.values())
    with open_store(url) as store:
        found = Session.load(store, session.id, tokens=EstimateCounter(), compaction=COMPACTION)
        for name, messages in kept.items():
            got = found.original(name)
            assert (got if isinstance(got, tuple) else (got,)) == messages
        fork = found.fork("later")
        assert fork.original(next(iter(kept)))
        fork.save()
        store.forget(session.id)
        with pytest.raises(OriginalError):
            found.original(next(iter(kept)))
        name, messages = next(iter(kept.items()))
        got = Session.load(store, fork.id, tokens=EstimateCounter()).original(name)
        assert (got if isinstance(got, tuple) else (got,)) == messages


def test_saving_again_writes_new_originals_only() -> None:
    with open_store("memory:") as store:
        session = session_of(store)
        for number in range(10):
            turn(session, number)
        session.save()
        archive = session._state.archive
        assert store.original_records(session.id, archive, session._saved.original, session.id) == []
        turn(session, 10)
        new = store.original_records(session.id, session._state.archive, session._saved.original, session.id)
        assert 0 < len(new) < 10


def test_a_session_without_compaction_still_finds_its_originals() -> None:
    with open_store("memory:") as store:
        session = session_of(store)
        for number in range(8):
            turn(session, number)
        session.save()
        name = next(session._state.archive.originals()).name
        plain = Session.load(store, session.id, tokens=EstimateCounter())
        assert plain.original(name) == session.original(name)
        assert plain.recall_original(name)
