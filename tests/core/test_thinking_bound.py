"""Thinking that a model binds to every word before it, and dynamic text that would come and go there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from llmbuffer import Message, Opaque, Segment, Session, StableContext, Text, Usage
from llmbuffer.simulate import ProviderServer
from llmbuffer.testing import FakeClock
from llmbuffer.tokens import EstimateCounter

THINKING = {"type": "enabled", "budget_tokens": 1_024}
RULES = "You track parcels, and you are brief and kind. " * 200


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer(counter=EstimateCounter(), clock=FakeClock(), replies=lambda _: "Ok.") as running:
        yield running


def session_of(**options: Any) -> Session:
    params = {"thinking": THINKING, "max_tokens": 4_096}
    context = StableContext("claude-sonnet-5.5", options.pop("system", RULES), params=params)
    return Session(context, "anthropic", tokens=EstimateCounter(), **options)


def talk(session: Session, server: ProviderServer, turns: list[dict[str, Any]]) -> list[Any]:
    """Turns whose replies think, sent to a server that refuses what the model would; the placement of each."""
    client = anthropic.Anthropic(base_url=server.anthropic_url, api_key="k", max_retries=0)
    notes = []
    for number, given in enumerate(turns):
        request = session.request(**given)
        usage = request.dialect.read_usage(client.messages.create(**request.kwargs))
        thought = {"type": "thinking", "thinking": "hm " * 40, "signature": f"c2ln{number}"}
        request.observe(usage, Message("assistant", [Opaque.of("anthropic", thought), Text("Ok.")]))
        notes.append(request.forecast.notes)
    return notes


@pytest.mark.parametrize("placement", ["turn", "tail", "sticky", "auto"])
def test_dynamic_text_stays_where_thinking_depends_on_it(placement: Any, server: ProviderServer) -> None:
    turns = [{"user": f"Turn {number}", "dynamic": {"clock": f"12:0{number}"}} for number in range(4)]
    session = session_of(placement=placement)
    notes = talk(session, server, turns)
    assert all("sticky" in note[0] for note in notes)
    assert "12:00" in session.messages[0].text
    assert session.ledger.breaks == ()


def test_text_for_a_turn_that_was_appended_becomes_a_message(server: ProviderServer) -> None:
    session = session_of(system=[Segment("rules", RULES), Segment("clock", "12:00", level="turn")])
    session.append(Message("user", "Hello"))
    talk(session, server, [{}, {"user": "And now?"}, {"user": "Thanks."}])
    assert [message.role for message in session.messages[:3]] == ["user", "user", "assistant"]
    assert "12:00" in session.messages[1].text


def test_other_models_and_replies_without_thinking_keep_their_placement() -> None:
    older = Session(StableContext("claude-haiku-4.5", RULES, params={"thinking": THINKING}), "anthropic")
    quiet = Session(
        StableContext("claude-sonnet-5.5", RULES, params={"thinking": {"type": "disabled"}}), "anthropic"
    )
    for session in (older, quiet):
        request = session.request("Hello", dynamic={"clock": "12:00"})
        assert request.forecast.notes == ()
        request.observe(Usage(5_000, 9), Message("assistant", "Hi!"))
        assert "12:00" not in session.messages[0].text
