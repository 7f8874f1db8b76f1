"""Recording what SDKs send: real SDKs over loopback, with and without a recorder."""

from __future__ import annotations

import gzip
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import anthropic
import anyio
import httpx2
import openai
import pytest
from google import genai
from hypothesis import given
from hypothesis import strategies as st
from tests.loopback import Failure, Said, loopback

from llmbuffer import MessageError, Usage
from llmbuffer.bodies import pieces
from llmbuffer.breaks.volatile import is_dynamic, volatile_in
from llmbuffer.capture import Captured, Recorder, read_log, redacted
from llmbuffer.capture.pseudonyms import Pseudonyms
from llmbuffer.errors import DialectError
from llmbuffer.explaining import BreakDetector, explain, wire_of
from llmbuffer.simulate import ProviderServer
from llmbuffer.tokens import EstimateCounter

KEY = "sk-secret-0123456789"
RULES = "You track parcels, and you are brief and kind. " * 400
ASKED = [{"role": "system", "content": RULES}, {"role": "user", "content": "Where is the parcel of Ann?"}]
COUNT = EstimateCounter().count


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    with ProviderServer(replies=lambda asked: "It is in the harbour of Genoa.") as server:
        yield server


class Asking:
    """One request through each SDK, in each way; every call makes a client of its own."""

    def __init__(self, server: ProviderServer, recorder: Recorder) -> None:
        self.server, self.recorder = server, recorder

    def openai(self, **options: Any) -> None:
        options = {"model": "gpt-5.5", "messages": ASKED, **options}
        with openai.OpenAI(
            base_url=self.server.openai_url, api_key=KEY, http_client=self.recorder.http_client()
        ) as client:
            found = client.chat.completions.create(**options)
            assert not options.get("stream") or list(found)

    def openai_stream(self) -> None:
        self.openai(stream=True, stream_options={"include_usage": True})

    def responses(self) -> None:
        with openai.OpenAI(
            base_url=self.server.openai_url, api_key=KEY, http_client=self.recorder.http_client()
        ) as client:
            assert list(client.responses.create(model="gpt-5.5", instructions=RULES, input="Hi", stream=True))

    def anthropic(self) -> None:
        client = self.recorder.attach(anthropic.Anthropic(base_url=self.server.anthropic_url, api_key=KEY))
        with client:
            client.messages.create(**self._anthropic)

    def anthropic_stream(self) -> None:
        client = self.recorder.attach(anthropic.Anthropic(base_url=self.server.anthropic_url, api_key=KEY))
        with client, client.messages.stream(**self._anthropic) as stream:
            assert stream.get_final_message().content[0].text.strip() == "It is in the harbour of Genoa."

    _anthropic: ClassVar[Any] = {
        "model": "claude-sonnet-5.5",
        "max_tokens": 64,
        "system": [{"type": "text", "text": RULES, "cache_control": {"type": "ephemeral"}}],
        "messages": ASKED[1:],
    }

    def gemini(self) -> None:
        with self.recorder.http_client() as http:  # the SDK leaves closing it to its owner
            options: Any = {"base_url": self.server.gemini_url, "httpx_client": http}
            client = genai.Client(api_key=KEY, http_options=options)
            client.models.generate_content(model="gemini-3.1-pro", contents=RULES)

    def gemini_stream(self) -> None:
        client = genai.Client(api_key=KEY, http_options={"base_url": self.server.gemini_url})
        with self.recorder.attach(client):
            assert list(client.models.generate_content_stream(model="gemini-3.1-pro", contents=RULES))

    def async_openai_stream(self) -> None:
        async def ask() -> None:
            client = openai.AsyncOpenAI(
                base_url=self.server.openai_url, api_key=KEY, http_client=self.recorder.async_http_client()
            )
            async with client:
                asked: Any = {"model": "gpt-5.5", "messages": ASKED, "stream": True}
                stream = await client.chat.completions.create(**asked, stream_options={"include_usage": True})
                assert [chunk async for chunk in stream]

        anyio.run(ask)

    def async_anthropic(self) -> None:
        async def ask() -> None:
            client = self.recorder.attach(
                anthropic.AsyncAnthropic(base_url=self.server.anthropic_url, api_key=KEY)
            )
            async with client:
                await client.messages.create(**self._anthropic)

        anyio.run(ask)

    def async_gemini(self) -> None:
        async def ask() -> None:
            async with self.recorder.async_http_client() as http:
                options: Any = {"base_url": self.server.gemini_url, "httpx_async_client": http}
                client = genai.Client(api_key=KEY, http_options=options).aio
                await client.models.generate_content(model="gemini-3.1-pro", contents=RULES)

        anyio.run(ask)


WAYS = {
    "openai": ("openai", "openai", "gpt-5.5"),
    "openai_stream": ("openai", "openai", "gpt-5.5"),
    "responses": ("openai-responses", "openai-responses", "gpt-5.5"),
    "anthropic": ("anthropic", "anthropic", "claude-sonnet-5.5"),
    "anthropic_stream": ("anthropic", "anthropic", "claude-sonnet-5.5"),
    "gemini": ("gemini", "gemini", "gemini-3.1-pro"),
    "gemini_stream": ("gemini", "gemini", "gemini-3.1-pro"),
    "async_openai_stream": ("openai", "openai", "gpt-5.5"),
    "async_anthropic": ("anthropic", "anthropic", "claude-sonnet-5.5"),
    "async_gemini": ("gemini", "gemini", "gemini-3.1-pro"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_sdk_is_recorded_with_its_usage_and_without_its_text(
    way: str, provider: ProviderServer, tmp_path: Path
) -> None:
    log = tmp_path / "requests.jsonl"
    recorder = Recorder(log)
    getattr(Asking(provider, recorder), way)()
    [seen] = read_log(log)
    assert (seen.wire, seen.dialect, seen.model) == WAYS[way]
    assert (seen.status, seen.completed, seen.error, seen.attempt) == (200, True, None, 1)
    assert seen.usage == provider.usage()
    assert seen.usage.output_tokens > 0
    assert seen.stream == ("stream" in way or way == "responses")
    assert 0 < (seen.first_byte or 0) <= (seen.seconds or 0)
    assert seen.redacted
    assert isinstance(seen.reply, dict)
    text = log.read_text("utf-8")
    for private in (KEY, "parcel", "Ann", "brief", "harbour", "Genoa"):
        assert private not in text
    assert (recorder.recorded, recorder.lost) == (1, 0)
    assert log.stat().st_mode & 0o077 == 0


def test_unredacted_bodies_and_replies_are_what_was_sent_and_said(
    provider: ProviderServer, tmp_path: Path
) -> None:
    seen: list[Captured] = []
    Asking(provider, Recorder(seen.append, redact=False)).openai_stream()
    assert seen[0].body == {
        "model": "gpt-5.5",
        "messages": ASKED,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert seen[0].reply is not None
    assert seen[0].reply["choices"][0]["message"]["content"].strip() == "It is in the harbour of Genoa."
    assert not seen[0].redacted
    assert "harbour" not in repr(seen[0])


def test_a_callable_redacts_what_is_written() -> None:
    seen: list[Captured] = []
    with loopback([Said("Yes.")]) as server:
        ask_openai(server.url, Recorder(seen.append, redact=lambda body: {"keys": sorted(body)}))
    assert seen[0].body == {"keys": ["messages", "model"]}
    assert seen[0].reply is not None
    assert "choices" in seen[0].reply["keys"]


def ask_openai(url: str, recorder: Recorder, retries: int = 0, **options: Any) -> Any:
    with openai.OpenAI(
        base_url=url + "/v1", api_key=KEY, max_retries=retries, http_client=recorder.http_client()
    ) as client:
        return client.chat.completions.create(**{"model": "gpt-5.5", "messages": ASKED, **options})


# Nothing is changed


REPLY = [
    b'data: {"id": "1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "H',
    b'i"}, "finish_reason": null}]}\n\ndata: {"id": "1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n',
    b'\ndata: {"id": "1", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}\n\n',
    b"data: [DONE]\n\n",
]


@contextmanager
def raw_server(chunks: list[bytes], headers: bytes = b"") -> Iterator[tuple[str, list[bytes]]]:
    """A server that keeps every byte of one request, and answers with these chunks."""
    received: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            data = b""
            while b"\r\n\r\n" not in data:
                data += connection.recv(65536)
            head, _, body = data.partition(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            while len(body) < length:
                body += connection.recv(65536)
            received.append(head + b"\r\n\r\n" + body)
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n" + headers
            )
            connection.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
            for chunk in chunks:
                connection.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            connection.sendall(b"0\r\n\r\n")

    thread = Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", received
    finally:
        thread.join(20)
        listener.close()


def raw_exchange(client: Any, headers: bytes = b"", chunks: list[bytes] = REPLY) -> tuple[bytes, list[bytes]]:
    """The bytes that a client sends, but for the port, and the pieces that it gets."""
    with raw_server(chunks, headers) as (url, received), client:
        body = {"model": "gpt-5.5", "messages": [{"content": "Grüße", "role": "user"}], "stream": True}
        raw = json.dumps(body, ensure_ascii=False).encode()
        with client.stream(
            "POST",
            f"{url}/v1/chat/completions",
            content=raw,
            headers={"authorization": f"Bearer {KEY}", "content-type": "application/json"},
        ) as response:
            pieces = list(response.iter_raw())
    port = url.rpartition(":")[2].encode()
    return received[0].replace(port, b"PORT"), pieces


def test_every_byte_is_the_same_with_and_without_a_recorder() -> None:
    seen: list[Captured] = []
    sent, got = raw_exchange(httpx2.Client())
    sent_too, got_too = raw_exchange(Recorder(seen.append).attach(httpx2.Client()))
    assert sent_too == sent
    assert "Grüße".encode() in sent
    assert b"".join(got_too) == b"".join(got) == b"".join(REPLY)
    assert len(got_too) == len(got)
    assert seen[0].usage == Usage(input_tokens=9, output_tokens=1)
    assert seen[0].completed


def test_a_compressed_stream_is_passed_on_compressed_and_read_all_the_same() -> None:
    seen: list[Captured] = []
    packed = gzip.compress(b"".join(REPLY))
    half = len(packed) // 2
    _, got = raw_exchange(
        Recorder(seen.append).attach(httpx2.Client()),
        b"Content-Encoding: gzip\r\n",
        [packed[:half], packed[half:]],
    )
    assert b"".join(got) == packed
    assert seen[0].usage == Usage(input_tokens=9, output_tokens=1)
    assert seen[0].reply is not None
    assert seen[0].reply["choices"][0]["finish_reason"] == "stop"


def test_a_piece_of_a_stream_is_handed_on_before_the_next_one_came() -> None:
    with loopback([Said("Hello, Ann", held=True)]) as server:
        seen: list[Captured] = []
        with openai.OpenAI(
            base_url=server.url + "/v1", api_key=KEY, http_client=Recorder(seen.append).http_client()
        ) as client:
            asked: Any = {"model": "gpt-5.5", "messages": ASKED, "stream": True}
            for chunk in client.chat.completions.create(**asked):
                if chunk.choices and chunk.choices[0].delta.content == "Hel":
                    assert not seen
                    server.released.set()  # the server waits for it
        assert seen[0].completed


# What goes wrong


def test_retries_are_counted_and_errors_recorded_without_the_providers_words() -> None:
    seen: list[Captured] = []
    leaky = f"Incorrect API key provided: {KEY}, for the parcel of Ann"
    with loopback([Failure(500, leaky), Failure(500, leaky), Said("Yes."), Said("Yes.")]) as server:
        recorder = Recorder(seen.append)
        ask_openai(server.url, recorder, retries=2)
        ask_openai(server.url, recorder)
    assert [(each.status, each.attempt, each.error) for each in seen] == [
        (500, 1, "x"),
        (500, 2, "x"),
        (200, 3, None),
        (200, 1, None),
    ]
    assert "Ann" not in json.dumps([each.reply for each in seen])


def test_a_key_that_a_provider_repeats_is_not_written_without_redaction_either(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    tool = {"type": "mcp", "server_label": "s", "headers": {"Authorization": "Bearer other-token"}}
    refused = Failure(401, f"Incorrect API key provided: {KEY}")
    with loopback([refused]) as server, pytest.raises(openai.AuthenticationError):
        ask_openai(server.url, Recorder(log, redact=False), tools=[tool])
    text = log.read_text("utf-8")
    assert KEY not in text
    assert "other-token" not in text
    assert "Incorrect API key provided: [removed]" in text
    [seen] = read_log(log)
    assert (seen.status, seen.error) == (401, "x")


def test_a_key_in_the_address_is_not_written() -> None:
    seen: list[Captured] = []
    answer = httpx2.MockTransport(lambda request: httpx2.Response(200, json={"candidates": []}))
    with httpx2.Client(transport=Recorder(seen.append, redact=False).wrap(answer)) as client:
        client.post(
            f"https://example.test/v1beta/models/gemini-3.1-pro:generateContent?key={KEY}",
            json={"contents": [{"parts": [{"text": f"My key is {KEY}"}]}]},
        )
    assert seen[0].path == "/v1beta/models/gemini-3.1-pro:generateContent"
    assert KEY not in repr(seen[0].body) + seen[0].path


def test_no_connection_is_an_error_that_comes_through() -> None:
    seen: list[Captured] = []
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(openai.APIConnectionError):
        ask_openai(f"http://127.0.0.1:{port}", Recorder(seen.append))
    assert [(each.status, each.error, each.completed) for each in seen] == [(0, "ConnectError", False)]


def test_a_stream_that_breaks_off_is_recorded_with_what_it_said_of_usage() -> None:
    seen: list[Captured] = []
    with loopback([Said("Hello", truncated=True)]) as server:
        client = Recorder(seen.append).attach(anthropic.Anthropic(base_url=server.url, api_key=KEY))
        with client:
            asked: Any = {"model": "claude-sonnet-5.5", "max_tokens": 9, "messages": ASKED[1:]}
            list(client.messages.create(**asked, stream=True))
    assert (seen[0].reply, seen[0].completed) == (None, False)
    assert seen[0].usage == Usage(2400, 1, 2000, 300)


def test_a_stream_that_nobody_reads_to_its_end_is_not_completed() -> None:
    seen: list[Captured] = []
    with (
        loopback([Said("Hello, Ann", held=True)]) as server,
        openai.OpenAI(
            base_url=server.url + "/v1", api_key=KEY, http_client=Recorder(seen.append).http_client()
        ) as client,
    ):
        asked: Any = {"model": "gpt-5.5", "messages": ASKED, "stream": True}
        with client.chat.completions.create(**asked) as stream:
            next(iter(stream))
    assert [(each.completed, each.error) for each in seen] == [(False, None)]


def test_a_task_that_is_cancelled_in_a_stream_is_recorded_and_stays_cancelled() -> None:
    seen: list[Captured] = []
    recorder = Recorder(seen.append)

    async def ask(url: str) -> bool:
        client = openai.AsyncOpenAI(
            base_url=url + "/v1", api_key=KEY, http_client=recorder.async_http_client()
        )
        async with client:
            with anyio.CancelScope() as scope:
                asked: Any = {"model": "gpt-5.5", "messages": ASKED, "stream": True}
                async for chunk in await client.chat.completions.create(**asked):
                    if chunk.choices and chunk.choices[0].delta.content == "Hel":
                        scope.cancel()
            return scope.cancelled_caught

    with loopback([Said("Hello, Ann", held=True)]) as server:
        assert anyio.run(ask, server.url)
    assert [(each.completed, each.status) for each in seen] == [(False, 200)]
    assert recorder.lost == 0


def test_threads_share_a_recorder_and_keep_their_labels(tmp_path: Path, provider: ProviderServer) -> None:
    log = tmp_path / "log.jsonl"
    recorder = Recorder(log)
    client = openai.OpenAI(base_url=provider.openai_url, api_key=KEY, http_client=recorder.http_client())

    def ask(name: str) -> None:
        with recorder.label(agent=name):
            for _ in range(5):
                client.chat.completions.create(model="gpt-5.5", messages=[{"role": "user", "content": name}])

    with client, ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, "abcdefgh"))
    seen = list(read_log(log))
    assert (len(seen), recorder.recorded, recorder.lost) == (40, 40, 0)
    said = {(each.agent, (each.body or {})["messages"][0]["content"]) for each in seen}
    assert len(said) == 8


def test_requests_that_no_model_is_asked_pass_unrecorded(provider: ProviderServer) -> None:
    seen: list[Captured] = []
    recorder = Recorder(seen.append)
    with anthropic.Anthropic(
        base_url=provider.anthropic_url, api_key=KEY, http_client=recorder.http_client()
    ) as client:
        asked: Any = {"model": "claude-sonnet-5.5", "messages": ASKED[1:]}
        assert client.messages.count_tokens(**asked).input_tokens > 0
    assert (seen, recorder.lost) == ([], 0)


def failing(captured: Captured) -> None:
    raise RuntimeError("the parcel of Ann")


@pytest.mark.parametrize(
    "sink",
    [
        failing,
        "/dev/full",
        "{tmp}/missing/log.jsonl",
    ],
)
def test_a_log_that_cannot_be_written_never_fails_the_request(
    sink: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if sink == "/dev/full" and not Path(sink).exists():
        pytest.skip("this system has no full device")
    recorder = Recorder(sink.format(tmp=tmp_path) if isinstance(sink, str) else sink)
    with loopback([Said("Yes."), Said("Yes.")]) as server, caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert ask_openai(server.url, recorder).choices[0].message.content == "Yes."
    assert (recorder.recorded, recorder.lost) == (0, 2)
    assert len(caplog.records) == 1
    assert "Ann" not in caplog.text


def test_two_processes_append_whole_lines_to_one_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    program = (
        "import sys\nfrom pathlib import Path\nfrom llmbuffer.capture.record import Captured, append\n"
        "import msgspec\n"
        "for number in range(150):\n"
        "    body = {'writer': sys.argv[2], 'text': sys.argv[2] * 100_000}\n"
        "    one = Captured(at=number, path='/', wire='openai', dialect='openai', model='m', status=200, body=body)\n"
        "    append(Path(sys.argv[1]), msgspec.json.encode(one) + b'\\n')\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(log), name]) for name in "abcd"]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0, 0]
    seen = list(read_log(log))
    assert len(seen) == 600
    for name in "abcd":
        mine = [each for each in seen if each.body is not None and each.body["writer"] == name]
        assert [each.at for each in mine] == list(range(150))
        assert all(each.body is not None and each.body["text"] == name * 100_000 for each in mine)


def test_a_torn_last_line_costs_that_line_only(tmp_path: Path, provider: ProviderServer) -> None:
    log = tmp_path / "log.jsonl"
    Asking(provider, Recorder(log)).openai()
    os.truncate(log, log.stat().st_size - 40)
    Asking(provider, Recorder(log)).openai()
    assert len(list(read_log(log))) == 1
    assert len(log.read_text("utf-8").splitlines()) == 2


# Labels, attaching


def test_labels_follow_the_thread_or_task(provider: ProviderServer) -> None:
    seen: list[Captured] = []
    asking = Asking(provider, Recorder(seen.append))
    with asking.recorder.label(session="s1"), asking.recorder.label(agent="planner"):
        asking.openai()
    asking.openai()
    assert [(each.agent, each.session) for each in seen] == [("planner", "s1"), (None, None)]


def test_detaching_gives_a_client_its_own_transport_back(provider: ProviderServer) -> None:
    seen: list[Captured] = []
    recorder = Recorder(seen.append)
    client = anthropic.Anthropic(base_url=provider.anthropic_url, api_key=KEY)
    own = client._client._transport
    assert recorder.attach(recorder.attach(client)) is client
    assert client._client._transport is not own
    recorder.detach()
    assert client._client._transport is own
    with client:
        client.messages.create(**Asking._anthropic)
    assert seen == []


def test_what_cannot_be_recorded_is_said() -> None:
    recorder = Recorder(lambda captured: None)
    with pytest.raises(DialectError, match="holds no HTTP client"):
        recorder.attach(object())
    with pytest.raises(DialectError, match="no transport of httpx2 or httpx"):
        recorder.wrap(object())
    with pytest.raises(MessageError, match="16 to 64"):
        Recorder(lambda captured: None, key=b"short")


def test_capturing_loads_no_http_library() -> None:
    program = "import sys; import llmbuffer.capture; print('httpx2' in sys.modules, 'httpx' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]


# What a redacted log is good for


NAMES = Pseudonyms(b"0123456789abcdef", COUNT)
SECRETS = ["Zanzibar", "4711", "quux@example.test", "2031-05-06"]
WORD = "Zanzibar 4711 quux@example.test 2031-05-06"
SCHEMA = {
    "type": "object",
    "title": WORD,
    "properties": {WORD: {"type": "string", "enum": [WORD], "default": WORD, "description": WORD}},
    "required": [WORD],
    "$defs": {WORD: {"const": WORD, "examples": [4711]}},
}
PRIVATE: dict[str, dict[str, Any]] = {
    "openai": {
        "model": "gpt-5.5",
        "user": WORD,
        "metadata": {WORD: WORD},
        "stop": [WORD],
        "tools": [{"type": "function", "function": {"name": WORD, "description": WORD, "parameters": SCHEMA}}],
        "tool_choice": {"type": "function", "function": {"name": WORD}},
        "messages": [
            {"role": "system", "content": WORD, "name": WORD},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": WORD}}, {"type": "text", "text": WORD}]},
            {
                "role": "assistant",
                "tool_calls": [{"id": WORD, "type": "function", "function": {"name": WORD, "arguments": json.dumps({WORD: [4711, WORD]})}}],
            },
            {"role": "tool", "tool_call_id": WORD, "content": WORD},
        ],
        "response_format": {"type": "json_schema", "json_schema": {"name": WORD, "schema": SCHEMA}},
    },
    "anthropic": {
        "model": "claude-sonnet-5.5",
        "system": [{"type": "text", "text": WORD, "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "metadata": {"user_id": WORD},
        "tools": [{"name": WORD, "description": WORD, "input_schema": SCHEMA}],
        "mcp_servers": [{"type": "url", "url": WORD, "name": WORD, "authorization_token": WORD}],
        "messages": [
            {"role": "user", "content": [{"type": "document", "title": WORD, "source": {"type": "text", "data": WORD}}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": WORD, "name": WORD, "input": {WORD: {WORD: 4711}}}]},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": WORD, "signature": WORD}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": WORD, "content": [{"type": "text", "text": WORD}]}]},
        ],
    },
    "openai-responses": {
        "model": "gpt-5.5",
        "instructions": WORD,
        "prompt_cache_key": WORD,
        "prompt": {"id": WORD, "variables": {WORD: WORD}},
        "tools": [{"type": "mcp", "server_label": WORD, "headers": {WORD: WORD}}],
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": WORD}]},
            {"type": "function_call", "call_id": WORD, "name": WORD, "arguments": json.dumps({WORD: 4711})},
            {"type": "function_call_output", "call_id": WORD, "output": WORD},
            {"type": "reasoning", "id": WORD, "summary": [{"type": "summary_text", "text": WORD}], "encrypted_content": WORD},
        ],
    },
    "gemini": {
        "systemInstruction": {"parts": [{"text": WORD}]},
        "cachedContent": WORD,
        "tools": [{"functionDeclarations": [{"name": WORD, "description": WORD, "parameters": SCHEMA}]}],
        "contents": [
            {"role": "user", "parts": [{"text": WORD}, {"inlineData": {"mimeType": "image/png", "data": WORD}}]},
            {"role": "model", "parts": [{"functionCall": {"name": WORD, "args": {WORD: 4711}}, "thoughtSignature": WORD}]},
            {"role": "user", "parts": [{"functionResponse": {"name": WORD, "response": {WORD: [WORD]}}}]},
        ],
    },
}  # fmt: skip


@pytest.mark.parametrize("wire", PRIVATE)
def test_no_word_of_a_body_outlives_redaction_and_its_structure_does(wire: str) -> None:
    shown = redacted(PRIVATE[wire], NAMES)
    text = json.dumps(shown)
    assert [secret for secret in SECRETS if secret in text] == []
    assert wire_of(shown) == wire
    assert [piece.kind for piece in pieces(shown, wire_of(shown))] == [
        piece.kind for piece in pieces(PRIVATE[wire], wire_of(PRIVATE[wire]))
    ]
    assert shown.get("model") == PRIVATE[wire].get("model")
    assert redacted(PRIVATE[wire], NAMES) == shown


TEXTS = st.text(
    alphabet=st.one_of(
        st.sampled_from("abc XYZ019 \n,.:;<>/-_é客"), st.characters(blacklist_categories=["Cs"])
    ),
    max_size=300,
)
STRETCHES = st.sampled_from(
    [
        "2026-11-22 10:30:05",
        "8f14e45f-ceea-467f-a5a3-6dedd4bea254",
        "call_8f14e45fceea",
        "1763807405.25",
        "turn 3",
        "<context name='a'>",
        "</context>",
        "\nThe current time is noon\n",
    ]
)
MIXED = st.lists(TEXTS | STRETCHES, max_size=6).map(" ".join)


@given(MIXED)
def test_a_pseudonym_is_as_long_and_looks_as_volatile_as_its_text(text: str) -> None:
    shown = NAMES.text(text)
    assert len(text) <= max(len(shown), 0) <= len(text) + 8 or (text and len(shown) >= 7)
    if not text.startswith(("{", "[")):
        assert {(each.kind, each.start) for each in volatile_in(text)} <= {
            (each.kind, each.start) for each in volatile_in(shown)
        }
        assert is_dynamic(text) == is_dynamic(shown)


@given(MIXED, MIXED, MIXED)
def test_equal_texts_stay_equal_others_differ_and_shared_beginnings_stay_shared(
    start: str, one: str, other: str
) -> None:
    left, right = NAMES.text(start + one), NAMES.text(start + other)
    assert (left == right) == (start + one == start + other)
    again = Pseudonyms(b"0123456789abcdef", COUNT)
    assert again.text(start + one) == left


def test_another_key_gives_other_pseudonyms_and_no_key_is_in_the_id() -> None:
    other = Pseudonyms(b"another key, 1234", COUNT)
    assert other.text(RULES) != NAMES.text(RULES)
    assert other.id != NAMES.id
    shared = len(RULES) - 64
    assert NAMES.text(RULES + "one")[:shared] == NAMES.text(RULES + "two")[:shared]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda body: body["messages"][0].update(content="Now. " + RULES), "system-changed"),
        (lambda body: body["messages"][0].update(content=RULES + "It is 10:31:00."), "volatile-in-prefix"),
        (lambda body: body["tools"].reverse(), "tools-reordered"),
        (lambda body: body["tools"].pop(), "tools-removed"),
        (lambda body: body["tools"][1]["function"].update(description="x"), "tool-schema-changed"),
        (lambda body: body.update(model="gpt-5.6"), "model-changed"),
        (lambda body: body["messages"].pop(1), "history-truncated"),
        (lambda body: body["messages"][1].update(content="Where was it?"), "history-edited"),
        (
            lambda body: body["messages"][2]["tool_calls"][0]["function"].update(
                arguments='{"city": "Genoa", "number": 7}'
            ),
            "serialization-changed",
        ),
        (lambda body: body.update(reasoning_effort="high"), "params-changed"),
        (
            lambda body: body["messages"].insert(1, {"role": "user", "content": "<context>Rain.</context>"}),
            "dynamic-in-prefix",
        ),
        (lambda body: None, None),
    ],
)
def test_explain_finds_the_same_in_redacted_bodies(
    change: Callable[[dict[str, Any]], object], cause: str | None
) -> None:
    def body() -> dict[str, Any]:
        call = {"name": "track", "arguments": '{"number": 7, "city": "Genoa"}'}
        tools = [
            {"type": "function", "function": {"name": name, "description": f"Does {name}.", "parameters": {}}}
            for name in ("track", "reroute")
        ]
        said = [
            {"role": "system", "content": RULES + "It is 10:30:05."},
            {"role": "user", "content": "Where is the parcel of Ann?"},
            {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": call}]},
            {"role": "tool", "tool_call_id": "c1", "content": "In the harbour."},
            {"role": "user", "content": "And now?"},
        ]
        return {"model": "gpt-5.5", "tools": tools, "messages": said, "reasoning_effort": "low"}

    before, after = body(), body()
    change(after)
    plain, hidden = explain(before, after), explain(redacted(before, NAMES), redacted(after, NAMES))
    if plain is None or hidden is None:
        assert (plain, hidden, cause) == (None, None, None)
        return
    assert plain.cause == hidden.cause == cause
    assert (plain.section, plain.path) == (hidden.section, hidden.path)
    assert abs(plain.offset - hidden.offset) <= 64
    assert hidden.tokens_lost == pytest.approx(plain.tokens_lost, rel=0.1, abs=130)  # a step of the cache


def test_watching_a_redacted_log_raises_one_alarm_for_one_fault(
    provider: ProviderServer, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    asking = Asking(provider, Recorder(log))
    history: list[Any] = list(ASKED)
    for number in range(6):
        if number == 4:
            history[0] = {"role": "system", "content": "Now then. " + RULES}
        asking.openai(messages=list(history))
        history += [{"role": "assistant", "content": f"Answer {number}"}, {"role": "user", "content": "Why?"}]
    detector = BreakDetector()
    found = [
        detector.see(each.body or {}, at=each.at, usage=each.usage, agent=each.agent)
        for each in read_log(log)
    ]
    assert [each.cause if each is not None else None for each in found] == [
        *([None] * 4),
        "system-changed",
        None,
    ]
    assert found[4] is not None
    assert found[4].tokens_lost > 3000
