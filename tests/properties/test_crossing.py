"""Messages of one provider at another: equal or refused, and legal where they are taken."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st
from tests.properties.legal import illegal
from tests.properties.wires import KINDS, Wire, answers, calls_of, message_of

from llmbuffer import LossyError, Message, Session, StableContext
from llmbuffer.dialects.anthropic_blocks import from_message, to_message

NAMES = st.sampled_from(["openai", "anthropic"])


@given(NAMES.flatmap(lambda name: st.tuples(st.just(name), KINDS[name].anything)))
def test_to_the_other_format_equal_or_refused(case: tuple[str, Wire]) -> None:
    message = message_of(case[1], case[0])
    with suppress(LossyError):
        assert from_message(to_message(message)) == message
    with suppress(LossyError):
        assert Message.from_openai(message.to_openai()) == message


@given(NAMES, st.data())
def test_a_history_of_one_provider_goes_on_at_another_or_is_refused(name: str, data: st.DataObject) -> None:
    """What a fork to another dialect sends is legal there, or the message is named that is not."""
    history = []
    for _ in range(data.draw(st.integers(1, 4))):
        wire = data.draw(KINDS[name].anything)
        history.append(message_of(wire, name))
        results = [(call, data.draw(KINDS[name].results)) for call in calls_of(wire)]
        if results:
            history += [message_of(each, name) for each in answers(name, results, together=True, saying=None)]
    other, model = ("anthropic", "claude-sonnet-5.5") if name == "openai" else ("openai", "gpt-5.6")
    session = Session(StableContext(model, "Be kind."), other)
    try:
        session.append(history)
    except LossyError:
        assert session.messages == ()
        return
    assert illegal(session.request("go on").body, other) is None
