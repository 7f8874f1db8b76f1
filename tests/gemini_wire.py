"""A server on the loopback interface that speaks Gemini's REST API and records what the SDK sends.

``generateContent`` and ``streamGenerateContent`` answer from a script, one ``Said``, ``Failure`` or whole response a
request; ``cachedContents`` are kept by name, and a request that names one that is not there gets Google's 403.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any, NamedTuple, cast

from tests.loopback import Failure, Said

Answer = Said | Failure | dict[str, Any]


class Seen(NamedTuple):
    """A request: its method, its path without the version, and its raw body."""

    method: str
    path: str
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return cast(dict[str, Any], json.loads(self.body))


@contextmanager
def gemini_server(script: Iterable[Answer] = ()) -> Iterator[GeminiServer]:
    """A server that runs within the ``with`` block."""
    server = GeminiServer(script)
    thread = Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.http.shutdown()
        server.http.server_close()
        thread.join()


class GeminiServer:
    """The server. ``script`` may be extended while it runs; ``contents`` are the caches that it holds, by name.

    ``fail`` answers what it says to a method and path; ``slow`` holds the making of caches back until ``released``.
    """

    def __init__(self, script: Iterable[Answer] = ()) -> None:
        self.script = list(script)
        self.seen: list[Seen] = []
        self.contents: dict[str, dict[str, Any]] = {}
        self.fail: Callable[[Seen], Failure | None] = lambda _: None
        self.asked, self.released = Event(), Event()
        self.released.set()
        self.lock = Lock()
        self.answered = self.made = 0
        self.http = _Server(("127.0.0.1", 0), _Reply)
        self.http.owner = self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    @property
    def generated(self) -> list[dict[str, Any]]:
        """The bodies of the requests that asked for a reply."""
        return [seen.json for seen in self.seen if "enerateContent" in seen.path]

    def calls(self, method: str) -> list[Seen]:
        """The requests of one method about caches."""
        return [
            seen for seen in self.seen if seen.method == method and seen.path.startswith("cachedContents")
        ]

    def answer(self, seen: Seen) -> Answer:
        with self.lock:
            self.seen.append(seen)
            failure = self.fail(seen)
            if failure is None and seen.path.startswith("cachedContents"):
                return self._cached(seen)
            if failure is None:
                failure = self._unknown(seen.json.get("cachedContent"))
            if failure is not None:
                return failure
            self.answered += 1
            number = self.answered - 1
            return self.script[number] if number < len(self.script) else Failure(500, "the script has ended")

    def _unknown(self, name: str | None) -> Failure | None:
        if name is None or name in self.contents:
            return None
        return Failure(403, "CachedContent not found (or permission denied)")

    def _cached(self, seen: Seen) -> Answer:
        if seen.method == "POST":
            self.made += 1
            name = f"cachedContents/c{self.made}"
            self.contents[name] = {**seen.json, "name": name, "usageMetadata": {"totalTokenCount": 100_000}}
            return self.contents[name]
        if seen.path not in self.contents:
            return Failure(404, "no such cache")
        if seen.method == "DELETE":
            del self.contents[seen.path]
            return {}
        if seen.method == "PATCH":
            self.contents[seen.path].update(seen.json)
        return self.contents[seen.path]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # clients that keep their connection would keep its thread
    owner: GeminiServer


class _Reply(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        owner = cast(_Server, self.server).owner
        path = re.sub(r"^/v1(beta)?/", "", self.path)  # the SDK chooses by its own version
        if path == "cachedContents":
            owner.asked.set()
            owner.released.wait(20)
        answer = owner.answer(Seen(self.command, path.split("?")[0], body))
        try:
            if isinstance(answer, Failure):
                error = {"code": answer.status, "message": answer.message, "status": "X"}
                self._whole({"error": error}, answer.status)
            elif "streamGenerateContent?alt=sse" in path:
                self._stream(answer)
            else:
                self._whole(whole(answer) if isinstance(answer, Said) else answer)
        except (BrokenPipeError, ConnectionResetError):  # a client that was told to stop listening
            self.close_connection = True

    do_POST = do_GET = do_PATCH = do_DELETE = _handle  # noqa: N815 - the names are the base class's

    def _whole(self, value: object, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, answer: Said | dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks(answer) if isinstance(answer, Said) else [answer]:
            data = f"data: {json.dumps(chunk)}\r\n\r\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing."""


def usage_of(said: Said) -> dict[str, Any]:
    """Usage as Gemini counts: the prompt includes what was read, and a third of the output was thought."""
    if said.usage is None:
        return {}
    fresh, read, written, output = said.usage
    total, thought = fresh + read + written, output // 3
    usage = {
        "promptTokenCount": total,
        "candidatesTokenCount": output - thought,
        "thoughtsTokenCount": thought,
        "totalTokenCount": total + output,
    }
    return {"usageMetadata": {**usage, "cachedContentTokenCount": read} if read else usage}


def whole(said: Said) -> dict[str, Any]:
    """A reply in one piece; calls without an id have none on the wire."""
    parts: list[dict[str, Any]] = [] if said.text is None else [{"text": said.text}]
    for call_id, name, arguments in said.calls:
        named = {"id": call_id} if call_id else {}
        parts.append({"functionCall": {"name": name, "args": json.loads(arguments), **named}})
    content = {"parts": parts, "role": "model"}
    return {
        "candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
        **usage_of(said),
        "modelVersion": "m",
        "responseId": "r1",
    }


def chunks(said: Said) -> Iterator[dict[str, Any]]:
    """The same as a stream: the text in pieces, calls whole, the reason to finish in a last chunk without content."""
    head = {"modelVersion": "m", "responseId": "r1"}
    reply = whole(said)["candidates"][0]["content"]["parts"]
    for part in reply:
        pieces = (
            [{"text": part["text"][at : at + 3]} for at in range(0, len(part["text"]), 3)]
            if "text" in part
            else [part]
        )
        for piece in pieces:
            content = {"parts": [piece], "role": "model"}
            yield {
                "candidates": [{"content": content, "index": 0}],
                "usageMetadata": {"promptTokenCount": 1},
                **head,
            }
    if not said.truncated:
        last = {"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": "STOP", "index": 0}
        yield {"candidates": [last], **usage_of(said), **head}
