"""What reading and sending promise: usage, replies, streams, and all fields of a body on their way."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import anyio
import pytest

from ...errors import DialectError
from ...frozen import wire_json
from ...rules import Event
from ...usage import Usage
from .cases import session_for
from .examples import DialectExamples, Pieces, client_at
from .trees import containers, growth_fault, leaves

__all__ = ["ReadsReplies", "ReadsUsage", "Sends", "Streams"]

_STRANGE: tuple[Any, ...] = ("text", 3, None, object(), [])
_NONSENSE: tuple[Any, ...] = (-1, True, "12", 1.5, [1])
_OWN_FIELD = "x_field_of_my_own"


def _named(value: object) -> str:
    return f"{type(value).__name__}-{len(value)}" if isinstance(value, dict) else type(value).__name__


class ReadsUsage(DialectExamples):
    """Usage is read inclusively, and nothing is made up."""

    def test_usage_is_read_as_reported(self, served: str) -> None:
        """Each example gives the usage that is expected, as a dict and as the SDK's object."""
        dialect = self.dialect.bind(served)
        assert any(usage is not None and usage.cache_read_tokens for _, usage in self.usages)
        assert any(usage is None for _, usage in self.usages), "give a response that reports no usage"
        for response, usage in self.usages:
            assert dialect.read_usage(response) == usage
            assert dialect.read_usage(self.as_sdk_object(response)) == usage

    def test_counts_that_make_no_sense_are_refused(self) -> None:
        """A count that is negative, a bool, a string or a fraction raises ``DialectError``."""
        tried = 0
        for response, usage in self.usages:
            for path in _counts(response) if usage is not None else ():
                if self._is_read(response, path, usage):
                    tried += 1
                    for nonsense in _NONSENSE:
                        with pytest.raises(DialectError):
                            self.dialect.read_usage(_with(response, path, nonsense))
        assert tried >= 3, "the examples report input, output and tokens read"

    def _is_read(self, response: Mapping[str, Any], path: tuple[str | int, ...], usage: Usage | None) -> bool:
        """Whether this count has a part in the usage: another one gives another usage."""
        count = _at(response, path)
        return any(self.dialect.read_usage(_with(response, path, other)) != usage for other in (0, count + 1))

    def test_a_report_that_contradicts_itself_loses_no_reply(self) -> None:
        """Parts that exceed their whole are cut, since the reply was paid for; or the count is refused by name."""
        for response, usage in self.usages:
            for path in _counts(response) if usage is not None else ():
                try:
                    found = self.dialect.read_usage(_with(response, path, 10**9))
                except DialectError:
                    continue
                assert found is not None
                assert found.cache_read_tokens + found.cache_write_tokens <= found.input_tokens

    @pytest.mark.parametrize("strange", _STRANGE, ids=_named)
    def test_what_is_no_response_has_no_usage(self, strange: Any) -> None:
        """Anything but a response raises ``DialectError``."""
        with pytest.raises(DialectError):
            self.dialect.read_usage(strange)


def _counts(response: Any) -> list[tuple[str | int, ...]]:
    return [
        (*path, key)
        for path, item in containers(response)
        if isinstance(item, Mapping)
        for key, value in item.items()
        if isinstance(value, int) and not isinstance(value, bool)
    ]


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def _with(response: Mapping[str, Any], path: tuple[str | int, ...], value: Any) -> Any:
    changed = copy.deepcopy(dict(response))
    _at(changed, path[:-1])[path[-1]] = value
    return changed


class ReadsReplies(DialectExamples):
    """A reply is read whole, or refused."""

    def test_replies_are_read(self) -> None:
        """Each example gives the message that is expected, as a dict and as the SDK's object."""
        plain = self.replies[0][1]
        assert plain.text
        assert not plain.tool_calls, "the first example is plain text"
        assert any(message.tool_calls for _, message in self.replies), "give a reply that calls a tool"
        for response, message in self.replies:
            before = wire_json(response)
            assert self.reads_as(response, message)
            assert self.reads_as(self.as_sdk_object(response), message)
            assert wire_json(response) == before

    @pytest.mark.parametrize("strange", [*_STRANGE, {}, {"error": {"message": "no"}}], ids=_named)
    def test_what_is_no_reply_is_refused(self, strange: Any) -> None:
        """Anything without a reply raises ``DialectError``."""
        with pytest.raises(DialectError):
            self.dialect.read_message(strange)

    def test_ids_and_diagnoses_are_read_without_harm(self) -> None:
        """Of replies that have none, the id and the diagnosis are ``None``."""
        for response, _ in self.replies:
            assert isinstance(self.dialect.read_id(response), str | None)
            assert self.dialect.read_diagnosis(response) is None or self.dialect.read_id(response) is not None

    def test_a_session_goes_on_with_a_reply(self, served: str) -> None:
        """A request observes the plain reply: history, usage and the next prompt follow from it."""
        session = session_for(self.dialect, served)
        request = session.request("Hello")
        response, message = self.replies[0]
        seen = request.observe(response)
        assert self.comparable(session.messages[-1]) == self.comparable(message)
        assert seen.usage == self.dialect.bind(served).read_usage(response)
        fault = growth_fault(self.prompt(request.body), self.prompt(session.request("And now?").body))
        assert fault is None, f"the prefix moved: {fault}"


class Streams(DialectExamples):
    """A stream gives its text as it comes, and the whole reply at its end; half a reply is none."""

    def test_a_stream_ends_with_the_whole_reply(self, served: str) -> None:
        """The last event is ``done``; it holds a response that reads like one that was not streamed."""
        dialect = self.dialect.bind(served)
        for seen in (self._streamed(self.events), self._astreamed(self.events)):
            assert [event.kind for event in seen].index("done") == len(seen) - 1
            assert "".join(event.text for event in seen if event.kind == "text") == self.streamed.text
            assert self.reads_as(seen[-1].value, self.streamed)
            assert dialect.read_usage(seen[-1].value) == self.streamed_usage

    def test_a_stream_that_breaks_off_is_no_reply(self) -> None:
        """Cut anywhere, it raises ``DialectError``, unless nothing of the reply is missing."""
        refused = 0
        for cut in range(len(self.events)):
            for streamed in (self._streamed, self._astreamed):
                try:
                    whole = streamed(self.events[:cut])[-1].value
                except DialectError:
                    refused += 1
                    continue
                assert self.reads_as(whole, self.streamed), f"cut after {cut} events"
        assert refused >= len(self.events), "most of what is cut lacks something"

    def _streamed(self, events: Any) -> list[Event]:
        client = client_at(self.stream_path or self.send_path, lambda **_: Pieces(events))
        return list(self.dialect.stream(client, self._kwargs()))

    def _astreamed(self, events: Any) -> list[Event]:
        async def answer(**_: Any) -> Pieces:
            return Pieces(events)

        async def collect() -> list[Event]:
            path = self.astream_path or self.stream_path or self.asend_path or self.send_path
            stream: AsyncIterator[Event] = self.dialect.astream(client_at(path, answer), self._kwargs())
            return [event async for event in stream]

        return anyio.run(collect)

    def _kwargs(self) -> dict[str, Any]:
        return session_for(self.dialect, self.model).request("Hello").kwargs


class Sends(DialectExamples):
    """All fields of a body reach the SDK, and what it answers comes back."""

    def test_no_field_of_a_body_is_lost(self, served: str) -> None:
        """Every value of the body is among the arguments; what the SDK does not know too."""
        session = session_for(self.dialect, served)
        body = session.request("Hello", params={_OWN_FIELD: "mine"}).body
        before = wire_json(body)
        kwargs = self.dialect.bind(served).kwargs(body)
        assert _values(body) - _values(kwargs) == Counter()
        assert "mine" in set(_texts(kwargs))
        assert _OWN_FIELD not in kwargs, "an argument that the SDK does not know raises TypeError there"
        assert wire_json(body) == before

    def test_what_is_sent_is_what_was_asked_for(self) -> None:
        """``send`` and ``asend`` call the SDK once, with all arguments, and return its answer as it is."""
        response, kwargs = self.replies[0][0], session_for(self.dialect, self.model).request("Hello").kwargs
        calls: list[dict[str, Any]] = []

        def answer(**given: Any) -> Any:
            calls.append(given)
            return response

        async def aanswer(**given: Any) -> Any:
            return answer(**given)

        assert self.dialect.send(client_at(self.send_path, answer), kwargs) is response
        client = client_at(self.asend_path or self.send_path, aanswer)
        assert anyio.run(self.dialect.asend, client, kwargs) is response
        assert calls == [kwargs, kwargs]

    def test_a_client_of_another_sdk_is_refused(self) -> None:
        """A client without the method raises ``DialectError``."""
        with pytest.raises(DialectError):
            self.dialect.send(object(), {})

    def test_prewarming_sends_the_same_prefix(self, served: str) -> None:
        """The body of a prewarm, where there is one, fills the cache that the request reads."""
        body = session_for(self.dialect, served).request("Hello").body
        before = wire_json(body)
        warm = self.dialect.bind(served).prewarm(body)
        assert wire_json(body) == before
        if warm is not None:
            prefix, prompt = self.prompt(warm), self.prompt(body)
            assert growth_fault(prefix, prompt) is None or growth_fault(prompt, prefix) is None
            assert wire_json(self.dialect.bind(served).prewarm(body)) == wire_json(warm)


def _values(value: Any) -> Counter[str]:
    """The scalars of a JSON value that say something, as they are sent."""
    return Counter(repr(leaf) for leaf in leaves(value) if leaf is not None and not isinstance(leaf, bool))


def _texts(value: Any) -> Iterator[str]:
    return (leaf for leaf in leaves(value) if isinstance(leaf, str))
