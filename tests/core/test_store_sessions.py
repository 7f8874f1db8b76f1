"""A loaded session goes on as the saved one would have: placements, diagnostics, forks under another model, own objects."""

from __future__ import annotations

from typing import get_args

import pytest

from llmbuffer import CacheRules, Message, Session, StableContext, Usage
from llmbuffer.dialects.openai_chat import OpenAIChat
from llmbuffer.layout import Placement
from llmbuffer.plugins import get_dialect
from llmbuffer.store import open_store
from llmbuffer.testing import FakeClock
from llmbuffer.testing.dialect.cases import converse, session_for
from llmbuffer.testing.store.examples import bytes_of
from llmbuffer.tokens import EstimateCounter

MODELS = [("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5"), ("openai-responses", "gpt-5.6")]


def assert_goes_on_alike(session: Session) -> None:
    session.save()
    found = Session.load(session._store, session.id)
    for _ in range(2):
        one, two = (each.request("And now?", dynamic={"clock": "12:02"}) for each in (session, found))
        assert bytes_of(one) == bytes_of(two)
        for request in (one, two):
            request.observe(Usage(5_000, 10), Message("assistant", "So."))
    assert found.messages == session.messages
    found.save()
    assert Session.load(session._store, session.id).messages == found.messages


@pytest.mark.parametrize("placement", get_args(Placement))
@pytest.mark.parametrize(("dialect", "model"), MODELS)
def test_with_every_placement(dialect: str, model: str, placement: Placement) -> None:
    with open_store("memory:") as store:
        options = {"placement": placement, "diagnostics": True, "expected_requests": 3}
        session = session_for(get_dialect(dialect), model, store=store, **options)
        list(converse(session, 2, dynamic=True))
        assert_goes_on_alike(session)


@pytest.mark.moves_prefix(reason="a fork under another model")
@pytest.mark.parametrize("model", ["gpt-5.5", "gpt-4o"])
def test_a_fork_under_another_model(model: str) -> None:
    with open_store("memory:") as store:
        session = session_for(get_dialect("openai"), "gpt-5.6", store=store, sharing={"user": 3})
        list(converse(session, 2, dynamic=True))
        assert_goes_on_alike(session.fork(model=model, system="Be brief."))


def test_a_fork_in_the_middle_of_a_turn() -> None:
    with open_store("memory:") as store:
        session = session_for(get_dialect("anthropic"), "claude-sonnet-5.5", store=store)
        for number, _ in enumerate(converse(session, 1, dynamic=True)):
            if number == 1:
                fork = session.fork("worker")
        fork.save()
        found = Session.load(store, fork.id)
        assert bytes_of(found.request(None)) == bytes_of(fork.request(None))


def test_objects_of_the_user_are_given_again() -> None:
    rules = CacheRules(name="mine", match="prefix", min_tokens=8)
    clock, client = FakeClock(5.0), object()
    with open_store("memory:") as store:
        session = Session(
            StableContext("a-model"), OpenAIChat(rules), tokens=EstimateCounter(3.0), store=store
        )
        session.append([Message("user", "one two three four")])
        session.save()
        options = {"dialect": OpenAIChat(rules), "client": client, "clock": clock}
        found = Session.load(store, session.id, **options)
        assert (found.dialect.rules, found.client, found.clock()) == (rules, client, 5.0)
        assert (found.counter, found.tip.end) == (session.counter, session.tip.end)


def test_a_counter_that_is_not_there_counts_anew() -> None:
    class Mine:
        name, estimated = "mine", True

        def count(self, text: str) -> int:
            return 1_000

    with open_store("memory:") as store:
        session = Session(StableContext("claude-sonnet-5.5"), "anthropic", tokens=Mine(), store=store)
        session.append(Message("user", "hello"))
        session.save()
        assert Session.load(store, session.id).tip.end < 1_000 < session.tip.end
        assert Session.load(store, session.id, tokens=Mine()).tip.end == session.tip.end


def test_a_subclass_loads_as_itself() -> None:
    class Mine(Session):
        pass

    with open_store("memory:") as store:
        session = Mine(StableContext("gpt-5.5"), store=store)
        session.save()
        assert isinstance(Mine.load(store, session.id), Mine)
