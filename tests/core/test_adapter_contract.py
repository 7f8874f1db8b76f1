"""An adapter that is whole keeps the contract; each one that is broken fails the promise that names what is broken."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.doc_pages import DOCS, provider, run
from tests.plain_adapter.adapter import BufferedModel, PlainHost, usage_of
from tests.plain_adapter.examples import PlainExamples
from tests.plain_adapter.framework import Call, Model, Said

from llmbuffer import Message
from llmbuffer.reconcile import Policy
from llmbuffer.testing import AdapterContract, AdapterExamples, Setup
from llmbuffer.testing.adapter.stage import changed, needs, without_tail


class TestPlain(PlainExamples, AdapterContract):
    """The plain framework."""


# --- adapters that are broken, each in one place


class ShortensHistory(BufferedModel):
    """Leaves out what was said first."""

    def complete(self, call: Call) -> Said:
        system, *rest = call.messages
        return super().complete(replace(call, messages=[system, *rest[len(rest) > 5 :]]))


class ShufflesTools(BufferedModel):
    """Sorts the tools by how often they were called, say: in another order at every other call."""

    calls = 0

    def _planned(self, call: Call) -> Any:
        ask, sent = super()._planned(call)
        self.calls += 1
        return ask, replace(sent, tools=sent.tools[::-1] if self.calls % 2 else sent.tools)


class SwallowsErrors(BufferedModel):
    """Answers in place of the provider when it fails."""

    def complete(self, call: Call) -> Said:
        try:
            return super().complete(call)
        except Exception:  # noqa: BLE001 - this is what is wrong with it
            return Said({"role": "assistant", "content": "Sorry."})


class WrapsErrors(BufferedModel):
    """Raises errors of its own."""

    def complete(self, call: Call) -> Said:
        try:
            return super().complete(call)
        except Exception as error:
            raise RuntimeError(str(error)) from error


class DropsTheTail(BufferedModel):
    """Takes dynamic text out of the system prompt and forgets it."""

    def _planned(self, call: Call) -> Any:
        ask, sent = super()._planned(call)
        bare = replace(call, messages=list(ask.plan.messages)) if ask.applies else sent
        return ask, replace(bare, tools=sent.tools, params=sent.params)


class MixesConversations(BufferedModel):
    """Takes all calls for one conversation, and keeps its history."""

    def __init__(self, model: Model, **given: Any) -> None:
        super().__init__(model, **{**given, "policy": Policy(history="ours", trims=True)})
        self.told: list[Any] = []

    def _planned(self, call: Call) -> Any:
        self.told += [item for item in call.messages[1:] if item not in self.told]
        return super()._planned(replace(call, messages=[call.messages[0], *self.told], conversation="all"))

    def refusal(self, name: str, conversation: str) -> str | None:
        return super().refusal(name, "all")


class RunsHiddenTools(BufferedModel):
    """Never refuses."""

    def refusal(self, name: str, conversation: str) -> str | None:
        return None


class AddsAFieldWhenItObserves(BufferedModel):
    """Sends a routing key in observe mode too."""

    def _planned(self, call: Call) -> Any:
        ask, sent = super()._planned(call)
        return ask, replace(sent, params={**sent.params, "prompt_cache_key": "mine"})


class StripsSpacesWhenItObserves(BufferedModel):
    """Tidies texts up in every mode."""

    def _planned(self, call: Call) -> Any:
        ask, sent = super()._planned(call)
        tidied = [{**item, "content": (item["content"] or "").strip() or None} for item in sent.messages[1:]]
        return ask, replace(
            sent, messages=[{"content": sent.messages[0]["content"], "role": "system"}, *tidied]
        )


class CountsTwice(BufferedModel):
    """Reports each response twice."""

    def _observed(self, ask: Any, said: Said) -> Said:
        self.seam.call(messages=[], conversation="twice").observe(usage=usage_of(said.usage))
        return super()._observed(ask, said)


class KeepsWhatWasTakenOut(BufferedModel):
    """Sends the first version of each message, whatever became of it."""

    def __init__(self, model: Model, **given: Any) -> None:
        super().__init__(model, **given)
        self.first: list[Any] = []

    def _planned(self, call: Call) -> Any:
        self.first += [dict(item) for item in call.messages[len(self.first) :]]
        return super()._planned(replace(call, messages=list(self.first)))


class AwaitsAnother(BufferedModel):
    """Makes a plan in its asynchronous way and forgets it."""

    async def acomplete(self, call: Call) -> Said:
        self._planned(call)
        return await self._model.acomplete(call)


class LosesImages(PlainHost):
    """Reads a message as its text."""

    def to_message(self, item: Any, /) -> Message:
        message = super().to_message(item)
        return Message(message.role, message.text or "(nothing)") if message.role == "user" else message


class SeesNoEdits(PlainHost):
    """Compares messages by their length."""

    def leaves(self, item: Any, /) -> tuple[Any, ...]:
        return (item.get("role"), len(item.get("content") or ""))


BROKEN = {
    ShortensHistory: "test_nothing_that_was_said_is_missing[gpt-5.5]",
    ShufflesTools: "test_the_list_keeps_its_order_and_bytes[gpt-5.5]",
    SwallowsErrors: "test_the_error_is_the_frameworks_own[429]",
    WrapsErrors: "test_nobody_listens",
    DropsTheTail: "test_marked_text_moves_from_the_first_request_on",
    MixesConversations: "test_interleaved_conversations_never_meet[gpt-5.5]",
    RunsHiddenTools: "test_a_hidden_tool_is_never_run[gpt-5.5]",
    AddsAFieldWhenItObserves: "test_observe_changes_no_byte[gpt-5.5]",
    StripsSpacesWhenItObserves: "test_observe_changes_no_byte[gpt-5.5]",
    CountsTwice: "test_usage_is_what_the_provider_says[gpt-5.5-buffer]",
    KeepsWhatWasTakenOut: "test_a_deletion_is_followed_at_once[gpt-5.5]",
    AwaitsAnother: "test_usage_of_awaited_calls_is_told",
}


class _ToldApart(PlainExamples, AdapterContract):
    """The plain framework with an adapter of the test's choice."""

    served = (("openai", "gpt-5.5"),)

    def __init__(
        self, wrapper: type[BufferedModel] = BufferedModel, host: type[PlainHost] = PlainHost
    ) -> None:
        self.wrapper, self._host = wrapper, host

    def host(self) -> PlainHost:
        return self._host()


def keep(promise: str, examples: AdapterContract) -> None:
    """Try one promise of the contract, named as pytest names it, on an adapter."""
    name, _, arguments = promise.partition("[")
    given = {"gpt-5.5": ("openai", "gpt-5.5"), "429": 429, "buffer": "buffer"}
    values = [given[each] for each in arguments.rstrip("]").replace("gpt-5.5-", "gpt-5.5 ").split()]
    getattr(examples, name)(*values)


MOVES = pytest.mark.moves_prefix(reason="what this adapter leaves out is an edit of the history")


@pytest.mark.parametrize(
    "wrapper",
    [
        pytest.param(each, marks=[MOVES] if each is ShortensHistory else [], id=each.__name__)
        for each in BROKEN
    ],
)
def test_a_broken_adapter_fails_the_promise_that_names_it(wrapper: type[BufferedModel]) -> None:
    """And the whole one keeps it, see above."""
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        keep(BROKEN[wrapper], _ToldApart(wrapper))


@pytest.mark.parametrize(
    ("host", "promise"),
    [
        (LosesImages, "test_every_message_comes_back_equal_or_is_refused"),
        (SeesNoEdits, "test_another_content_has_other_leaves"),
    ],
)
def test_a_host_that_reads_wrongly_fails(host: type[PlainHost], promise: str) -> None:
    with pytest.raises(AssertionError):
        keep(promise, _ToldApart(host=host))
    keep(promise, _ToldApart())


def test_a_promise_that_is_left_out_needs_a_reason() -> None:
    class Silent(PlainExamples, AdapterContract):
        test_nobody_listens = None  # type: ignore[assignment]

        def test_usage_of_awaited_calls_is_told(self) -> None:
            """Nothing."""

    class Told(PlainExamples, AdapterContract):
        @pytest.mark.skip(reason="the framework has sockets of its own")
        def test_nobody_listens(self) -> None:
            """Nothing."""

    with pytest.raises(AssertionError, match=r"first extra item: 'test_nobody_listens'"):
        Silent().test_nothing_is_left_out_without_a_reason()
    Told().test_nothing_is_left_out_without_a_reason()


def test_a_missing_capability_is_a_skip_with_its_reason_and_an_unknown_one_a_failure() -> None:
    class Bare(AdapterExamples):
        pass

    class Wrong(AdapterExamples):
        capabilities = frozenset({"telepathy"})

    with pytest.raises(pytest.skip.Exception, match="leave out 'team': several agents"):
        needs(Bare(), "team")
    with pytest.raises(AssertionError, match="telepathy"):
        needs(Wrong(), "team")
    with pytest.raises(NotImplementedError, match=r"Bare\.agent"):
        Bare().agent("", Setup())


def test_a_tail_is_told_from_what_the_user_said() -> None:
    envelope = '<context name="now">\n10:00\n</context>'
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": envelope}]
    body = {
        "messages": [
            {"role": "user", "content": f"Hello\n{envelope}"},
            {"role": "user", "content": parts},
            {"role": "user", "content": envelope},
        ]
    }
    assert without_tail(body)["messages"] == [
        {"role": "user", "content": "Hello"},
        {"role": "user", "content": parts[:1]},
    ]


def test_changes_are_named() -> None:
    before = [{"messages": [{"role": "user", "content": "Hello"}], "temperature": 0}]
    after = [{"messages": [{"role": "user", "content": "Hallo"}], "stream_options": {}}]
    assert changed(before, after) == [
        "request 0: messages[0].content: 'Hello' became 'Hallo'",
        "request 0: temperature: 0 became None",
    ]
    assert changed(before, []) == ["1 requests became 0"]
    assert changed(before, before) == []


def _tried(page: AdapterContract, name: str) -> str:
    promise = getattr(page, name)
    wanted = signature(promise).parameters.keys()
    moving = [mark for mark in getattr(promise, "pytestmark", []) if mark.name == "moves_prefix"]
    if moving or not wanted <= {"model"}:
        return "left out"
    try:
        promise(**dict.fromkeys(wanted, page.served[0]))
    except pytest.skip.Exception:
        return "skipped"
    return "kept"


def test_the_adapter_of_the_docs_keeps_the_contract(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All promises that need no further arguments; those that need a capability are skipped."""
    monkeypatch.chdir(tmp_path)
    with provider():
        page: AdapterContract = run(DOCS / "adapters.md")["TestPlain"]()
        tried = {name: _tried(page, name) for name in dir(AdapterContract) if name.startswith("test_")}
    kept = [name for name, found in tried.items() if found == "kept"]
    skipped = [name for name, found in tried.items() if found == "skipped"]
    assert {"test_observe_changes_no_byte", "test_marked_text_moves_from_the_first_request_on"} <= set(kept)
    assert {"test_a_hidden_tool_is_never_run", "test_members_share_what_they_hear"} <= set(skipped)
    assert len(kept) > 12
