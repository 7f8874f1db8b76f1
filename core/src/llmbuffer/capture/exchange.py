"""One request under way: what is known of it, until its reply has ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ..bodies import Wire, likely_dialect
from ..plugins import get_dialect
from ..usage import Usage
from .recognition import model_of
from .record import Captured
from .reply import ReplyReader

if TYPE_CHECKING:
    from .recorder import Recorder

__all__ = ["Exchange", "body_of"]

_HEADERS = ("request-id", "x-request-id", "retry-after", "openai-processing-ms")
_SECRETS = ("authorization", "x-api-key", "api-key", "x-goog-api-key", "proxy-authorization", "cookie")
_SHORTEST = 6  # characters of a key that is looked for in what is written


class Exchange:
    """A request, from the moment it is sent; it ends once. Transports call it, and it tells the recorder."""

    def __init__(self, recorder: Recorder, request: Any, wire: Wire, body: dict[str, Any]) -> None:
        self._recorder, self._body, self._wire = recorder, body, wire
        self._library = _library_of(request)
        self._begun = recorder.timer()
        self._reader: ReplyReader | None = None
        self._first: float | None = None
        self._status = 0
        self._headers: dict[str, str] = {}
        self._ended = False
        self.secrets = _secrets(request)
        path = str(request.url.path)
        labels = recorder.labels()
        self.base = Captured(
            at=recorder.clock(),
            path=path,
            wire=wire,
            dialect=likely_dialect(body, wire, str(request.url.host)),
            model=model_of(body, path),
            status=0,
            stream=bool(body.get("stream")) or "streamGenerateContent" in path,
            agent=labels.get("agent"),
            session=labels.get("session"),
        )

    def answered(self, response: Any) -> None:
        """A status and headers came."""
        headers = response.headers
        self._status = int(response.status_code)
        self._headers = {name: headers[name] for name in _HEADERS if name in headers}
        events = "text/event-stream" in headers.get("content-type", "")
        coding = headers.get("content-encoding", "identity")
        decode = None if coding in ("", "identity") else self._decoder(coding)
        self._reader = ReplyReader(self._wire, events=events, decode=decode)

    def _decoder(self, coding: str) -> Any:
        return lambda raw: (
            self._library.Response(200, headers={"content-encoding": coding}, content=raw).content
        )

    def take(self, chunk: bytes) -> None:
        """A piece of the reply passed by."""
        if self._first is None:
            self._first = self._recorder.timer() - self._begun
        if self._reader is not None:
            self._reader.feed(chunk)

    def end(self, *, completed: bool, error: BaseException | None = None) -> None:
        """The reply has ended, or will not come."""
        if self._ended:
            return
        self._ended = True
        seconds = self._recorder.timer() - self._begun
        reply, usage, told = None, None, None if error is None else type(error).__name__
        if self._reader is not None:
            self._reader.finish()
            reply = self._reader.reply
            usage = self._usage()
            completed = self._reader.complete(to_the_end=completed)
        if self._status >= 400:
            told = _kind_of_error(reply) or told or str(self._status)
        found = msgspec.structs.replace(
            self.base,
            status=self._status,
            usage=usage,
            completed=completed and error is None,
            error=told,
            first_byte=self._first,
            seconds=seconds,
            headers=self._headers,
            body=self._body,
            reply=reply,
        )
        self._recorder.take(found, self.secrets)

    def _usage(self) -> Usage | None:
        counts = self._reader.usage if self._reader is not None else {}
        if not counts:
            return None
        field = "usageMetadata" if self.base.wire == "gemini" else "usage"
        return get_dialect(self.base.dialect).read_usage({field: counts})


def _library_of(request: Any) -> Any:
    return sys.modules[type(request).__module__.partition(".")[0]]


def _secrets(request: Any) -> tuple[str, ...]:
    """What the request proves its rights with: none of it may be written."""
    found = [request.headers.get(name, "") for name in _SECRETS]
    found += [request.url.params.get("key") or ""]
    keys = {each.partition(" ")[2] or each for each in found}
    return tuple(key for key in sorted(keys, key=len, reverse=True) if len(key) >= _SHORTEST)


def _kind_of_error(reply: Any) -> str | None:
    """The provider's own word for an error: its type, status or code; never its message."""
    error = reply.get("error") if isinstance(reply, Mapping) else None
    if not isinstance(error, Mapping):
        return None
    named = (error.get(name) for name in ("type", "status", "code"))
    return next((each for each in named if isinstance(each, str) and each.replace("_", "").isalnum()), None)


def body_of(request: Any) -> dict[str, Any] | None:
    """The JSON object that a request carries; ``None`` for any other, and for one that is sent piece by piece."""
    if request.method != "POST":
        return None
    try:
        found = json.loads(request.content)
    except (ValueError, RuntimeError):  # no JSON, or a stream, which can be read once only
        return None
    return found if isinstance(found, dict) else None
