"""A server on the loopback interface that records what SDKs send and answers in OpenAI's and Anthropic's wire formats.

It answers from a script: one ``Said`` (or ``Failure``) a request, whoever asks, streamed where the request asks for a
stream. ``bodies`` holds the raw bytes of every request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, NamedTuple, cast

from tests.responses_wire import responses_events, responses_whole

Usage = tuple[int, int, int, int]  # fresh, read, written, output


class Said(NamedTuple):
    """What the model says: a text, and calls as (id, name, arguments)."""

    text: str | None = None
    calls: tuple[tuple[str, str, str], ...] = ()
    usage: Usage | None = (100, 2000, 300, 7)
    truncated: bool = False  # the stream breaks off before the reply is complete
    held: bool = False  # a stream stops after its first text until the server is released


class Failure(NamedTuple):
    """An error of the provider."""

    status: int
    message: str = "no"


@contextmanager
def loopback(script: Iterable[Said | Failure] = ()) -> Iterator[Loopback]:
    """A server that runs within the ``with`` block."""
    server = Loopback(script)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Loopback:
    """The server. ``script`` may be extended while it runs."""

    def __init__(self, script: Iterable[Said | Failure] = ()) -> None:
        self.script = list(script)
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self.released = Event()
        self.asked = Event()
        self._server = _Server(("127.0.0.1", 0), _Answer)
        self._server.owner = self
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.bodies]

    def next(self, path: str, body: bytes) -> Said | Failure:
        self.paths.append(path)
        self.bodies.append(body)
        self.asked.set()
        number = len(self.bodies) - 1
        return self.script[number] if number < len(self.script) else Failure(500, "the script has ended")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # clients that keep their connection would keep its thread
    owner: Loopback


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        owner = cast(_Server, self.server).owner
        said = owner.next(self.path, body)
        try:
            if isinstance(said, Failure):
                self._whole({"type": "error", "error": {"type": "x", "message": said.message}}, said.status)
            elif json.loads(body).get("stream"):
                self._stream(said, owner)
            else:
                self._whole(FORMATS[self.path].whole(said))
        except (BrokenPipeError, ConnectionResetError):  # a client that was told to stop listening
            self.close_connection = True

    def _whole(self, value: object, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, said: Said, owner: Loopback) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in FORMATS[self.path].events(said):
            data = event.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            if said.held and said.text is not None and json.dumps(said.text[:3])[1:-1] in event:
                self.wfile.flush()
                owner.released.wait(20)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing."""


class Format(NamedTuple):
    """How a provider writes a reply: as one object, and as the events of a stream."""

    whole: Callable[[Said], dict[str, Any]]
    events: Callable[[Said], Iterator[str]]


def _pieces(text: str, size: int = 3) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def _openai_usage(usage: Usage) -> dict[str, Any]:
    fresh, read, written, output = usage
    total = fresh + read + written
    return {
        "prompt_tokens": total,
        "completion_tokens": output,
        "total_tokens": total + output,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
    }


def openai_whole(said: Said) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said.text, "refusal": None, "annotations": []}
    if said.calls:
        message["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for call_id, name, arguments in said.calls
        ]
    finish = "tool_calls" if said.calls else "stop"
    whole = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
    }
    return whole if said.usage is None else {**whole, "usage": _openai_usage(said.usage)}


def openai_events(said: Said) -> Iterator[str]:
    yield from (f"data: {json.dumps(chunk)}\n\n" for chunk in openai_chunks(said))
    yield "data: [DONE]\n\n"


def openai_chunks(said: Said) -> Iterator[dict[str, Any]]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    yield chunk({"role": "assistant", "content": None, "refusal": None})
    yield from (chunk({"content": piece}) for piece in _pieces(said.text or ""))
    for index, (call_id, name, arguments) in enumerate(said.calls):
        function = {"name": name, "arguments": ""}
        yield chunk(
            {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}
        )
        for piece in _pieces(arguments):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    if said.truncated:
        return
    yield chunk({}, "tool_calls" if said.calls else "stop")
    if said.usage is not None:
        yield {**head, "choices": [], "usage": _openai_usage(said.usage)}


def anthropic_whole(said: Said) -> dict[str, Any]:
    content: list[dict[str, Any]] = [] if said.text is None else [{"type": "text", "text": said.text}]
    for call_id, name, arguments in said.calls:
        content.append({"type": "tool_use", "id": call_id, "name": name, "input": json.loads(arguments)})
    fresh, read, written, output = said.usage or (0, 0, 0, 0)
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": content,
        "stop_reason": "tool_use" if said.calls else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": fresh,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written,
            "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
            "output_tokens": output,
        },
    }


def anthropic_events(said: Said) -> Iterator[str]:
    yield from (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in anthropic_raw(said))


def anthropic_raw(said: Said) -> Iterator[dict[str, Any]]:
    whole = anthropic_whole(said._replace(calls=()))
    start = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
    yield {"type": "message_start", "message": start}
    yield {"type": "ping"}
    index = 0
    if said.text is not None:
        yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        for piece in _pieces(said.text):
            yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
        yield {"type": "content_block_stop", "index": 0}
        index = 1
    for place, (call_id, name, arguments) in enumerate(said.calls, index):
        block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
        yield {"type": "content_block_start", "index": place, "content_block": block}
        for piece in ["", *_pieces(arguments)]:
            part = {"type": "input_json_delta", "partial_json": piece}
            yield {"type": "content_block_delta", "index": place, "delta": part}
        yield {"type": "content_block_stop", "index": place}
    if said.truncated:
        return
    delta = {"stop_reason": "tool_use" if said.calls else "end_turn", "stop_sequence": None}
    yield {
        "type": "message_delta",
        "delta": delta,
        "usage": {"output_tokens": whole["usage"]["output_tokens"]},
    }
    yield {"type": "message_stop"}


FORMATS = {
    "/v1/chat/completions": Format(openai_whole, openai_events),
    "/v1/messages": Format(anthropic_whole, anthropic_events),
    "/v1/responses": Format(responses_whole, responses_events),
}
