"""The recorder: hands out HTTP clients that listen, and writes what they hear."""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

from ..errors import MessageError
from ..tokens import counter_for
from .exchange import Exchange, body_of
from .pseudonyms import Pseudonyms
from .recognition import wire_at
from .record import Captured, append
from .redaction import redacted, without_secrets
from .transports import clients_of, library, recorded_transport

__all__ = ["Recorder"]

_log = logging.getLogger("llmbuffer.capture")
_REMEMBERED = 1024  # failed requests whose repetition is recognised
_LABELS: ContextVar[Mapping[str, str]] = ContextVar("llmbuffer_capture_labels", default={})  # noqa: B039 - never written to
_TIMEOUT = 600.0  # seconds, as the SDKs have it; 5 to connect
Redact = bool | Callable[[dict[str, Any]], dict[str, Any]]


class Recorder:
    """Records what SDKs send to models and what comes back, and changes none of it.

    ``sink`` is a file, to which each request is appended as a JSON line when its reply has ended, or a callable that gets
    each ``Captured``. ``redact`` (default true) writes pseudonyms in place of texts, names and data; false writes bodies as
    they are; a callable gets each body and reply and returns what is written. API keys are never written. ``key`` (16 to 64
    secret bytes) makes the pseudonyms of several recorders comparable; by default each has one of its own, which is never
    written. ``clock`` gives seconds since the epoch, ``timer`` measures.

    Requests that are not asked of a model (files, token counts) pass unrecorded. The program's request never fails for
    the recorder: what cannot be recorded or written is counted in ``lost``, and the logger ``llmbuffer.capture`` warns
    about it once. Threads and tasks may share it.

    Raises ``MessageError`` for a key that is too short or too long.

    >>> recorder = Recorder(lambda captured: None)
    >>> recorder.recorded, recorder.lost
    (0, 0)
    """

    def __init__(
        self,
        sink: str | Path | Callable[[Captured], None],
        *,
        redact: Redact = True,
        key: bytes | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        if key is not None and not 16 <= len(key) <= 64:
            raise MessageError(
                f"the key has {len(key)} bytes: give 16 to 64 random ones, and keep them secret"
            )
        self._sink: Path | Callable[[Captured], None] = sink if callable(sink) else Path(sink)
        self._redact, self._key = redact, key if key is not None else secrets.token_bytes(32)
        self.clock, self.timer = clock, timer
        self.recorded = self.lost = 0
        self._names: dict[str, Pseudonyms] = {}
        self._failed: OrderedDict[bytes, int] = OrderedDict()
        self._before: list[tuple[Any, Any, dict[Any, Any]]] = []
        self._warned = False
        self._lock = Lock()

    # Ways in

    def wrap(self, transport: Any) -> Any:
        """A transport that sends with ``transport`` (of httpx2 or httpx, sync or async) and is recorded.

        Raises ``DialectError`` for what is none.
        """
        return recorded_transport(transport, self)

    def http_client(self, **options: Any) -> Any:
        """An ``httpx2.Client`` (or ``httpx.Client``) for ``http_client=`` of an SDK, with the SDKs' timeouts and limits.

        ``options`` are those of the class. Raises ``DialectError`` where neither library is installed.
        """
        source = library()
        return self.attach(source.Client(**_defaults(source, options)))

    def async_http_client(self, **options: Any) -> Any:
        """The same for asynchronous SDKs."""
        source = library()
        return self.attach(source.AsyncClient(**_defaults(source, options)))

    def attach(self, client: Any) -> Any:
        """Record what an existing client sends, and return it: one of an SDK, or of httpx2 or httpx.

        Twice is once. Raises ``DialectError`` for a client in which no HTTP client is found.
        """
        for inner in clients_of(client):
            transport, mounts = inner._transport, inner._mounts
            wrapped = self.wrap(transport)
            if wrapped is not transport:
                self._before.append((inner, transport, mounts))
                inner._transport = wrapped
                inner._mounts = {
                    pattern: None if each is None else self.wrap(each) for pattern, each in mounts.items()
                }
        return client

    def detach(self) -> None:
        """Give the clients that were attached their own transports back; what is under way is still recorded."""
        while self._before:
            inner, transport, mounts = self._before.pop()
            inner._transport, inner._mounts = transport, mounts

    @contextmanager
    def label(self, *, agent: str | None = None, session: str | None = None) -> Iterator[None]:
        """Name whose requests those within the ``with`` block are, in this thread or task."""
        given = {name: value for name, value in (("agent", agent), ("session", session)) if value is not None}
        token = _LABELS.set({**_LABELS.get(), **given})
        try:
            yield
        finally:
            _LABELS.reset(token)

    @staticmethod
    def labels() -> Mapping[str, str]:
        """The labels of this thread or task."""
        return _LABELS.get()

    # What transports call

    def begin(self, request: Any) -> Exchange | None:
        """A request is about to be sent; ``None`` if it is none that is recorded."""
        exchange: Exchange | None = self.listen(self._begin, request)
        return exchange

    def _begin(self, request: Any) -> Exchange | None:
        body = body_of(request)
        wire = wire_at(str(request.url.path), body)
        return None if wire is None or body is None else Exchange(self, request, wire, body)

    def listen(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call it; an error is counted, never raised, since the request is the program's own."""
        try:
            return call(*arguments, **options)
        except Exception as error:  # noqa: BLE001 - whatever is wrong here must not fail the request
            self._lose(error)
            return None

    def take(self, captured: Captured, secret: tuple[str, ...] = ()) -> None:
        """Number the attempt, redact and write."""
        captured = msgspec.structs.replace(captured, attempt=self._attempt(captured))
        line = _scrubbed(msgspec.json.encode(self._shown(captured)), secret)
        if isinstance(self._sink, Path):
            append(self._sink, line + b"\n")
        else:
            self._sink(msgspec.json.decode(line, type=Captured))
        with self._lock:
            self.recorded += 1

    def _attempt(self, captured: Captured) -> int:
        """How often the same was sent to the same path since it last came back well."""
        raw = msgspec.json.encode([captured.path, captured.body])
        digest = hashlib.blake2b(raw, digest_size=16).digest()
        with self._lock:
            before = self._failed.pop(digest, 0)
            if captured.error is not None:
                self._failed[digest] = before + 1
                while len(self._failed) > _REMEMBERED:
                    self._failed.popitem(last=False)
        return before + 1

    def _shown(self, captured: Captured) -> Captured:
        body, reply = (
            self._written(captured.body, captured.model),
            self._written(captured.reply, captured.model),
        )
        salt = self._pseudonyms(captured.model).id if self._redact is True else None
        return msgspec.structs.replace(
            captured, body=body, reply=reply, redacted=self._redact is not False, salt=salt
        )

    def _written(self, body: dict[str, Any] | None, model: str) -> dict[str, Any] | None:
        if body is None:
            return None
        if callable(self._redact):
            return self._redact(body)
        found = redacted(body, self._pseudonyms(model)) if self._redact else without_secrets(body)
        assert isinstance(found, dict)
        return found

    def _pseudonyms(self, model: str) -> Pseudonyms:
        with self._lock:
            if model not in self._names:
                if len(self._names) >= 32:
                    self._names.clear()
                self._names[model] = Pseudonyms(self._key, counter_for(model).count)
            return self._names[model]

    def _lose(self, error: Exception) -> None:
        with self._lock:
            self.lost += 1
            warned, self._warned = self._warned, True
        if not warned:
            # The message of an error of ours may hold what was sent; that of the system says what is wrong with the file.
            what = str(error) if isinstance(error, OSError) else type(error).__name__
            _log.warning("a request could not be recorded (%s): from here on, see Recorder.lost", what)


def _scrubbed(line: bytes, secret: tuple[str, ...]) -> bytes:
    """Without the keys that the request was sent with, wherever a provider or a program repeats them."""
    for key in secret:
        line = line.replace(msgspec.json.encode(key)[1:-1], b"[removed]")
    return line


def _defaults(source: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "timeout": source.Timeout(_TIMEOUT, connect=5.0),
        "limits": source.Limits(max_connections=1000, max_keepalive_connections=100),
        "follow_redirects": True,
        **options,
    }
