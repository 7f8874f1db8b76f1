"""Transports that let everything through as it is, and listen.

They are made for httpx 2 and for the httpx before it, whichever a client uses; neither is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..errors import DialectError

if TYPE_CHECKING:
    from .exchange import Exchange
    from .recorder import Recorder

__all__ = ["clients_of", "library", "recorded_transport"]

_LIBRARIES = ("httpx2", "httpx")


def library() -> Any:
    """The HTTP library that is installed. Raises ``DialectError``."""
    found = next((name for name in _LIBRARIES if find_spec(name) is not None), None)
    if found is not None:
        return import_module(found)
    raise DialectError("recording needs an HTTP client: pip install 'llmbuffer[openai]>=1', which brings one")


def _library_of(value: Any) -> Any:
    """The library that an object's class comes from; raises ``DialectError`` for one of neither."""
    for base in type(value).__mro__:
        name = base.__module__.partition(".")[0]
        if name in _LIBRARIES:
            return sys.modules[name]
    raise DialectError(f"a {type(value).__name__} is no transport of httpx2 or httpx: pass one of theirs")


def recorded_transport(transport: Any, recorder: Recorder) -> Any:
    """A transport that sends with ``transport`` and tells ``recorder``; of the same library, sync, async or both."""
    if isinstance(transport, _Recorded):
        return transport
    source = _library_of(transport)
    bases = tuple(
        base for base in (source.BaseTransport, source.AsyncBaseTransport) if isinstance(transport, base)
    )
    return _transport_class(bases)(transport, recorder)


@cache
def _transport_class(bases: tuple[type, ...]) -> Any:
    return type("RecordedTransport", (_Recorded, *bases), {})


class _Recorded:
    def __init__(self, inner: Any, recorder: Recorder) -> None:
        self.inner, self._recorder = inner, recorder

    def handle_request(self, request: Any) -> Any:
        exchange = self._recorder.begin(request)
        if exchange is None:
            return self.inner.handle_request(request)
        try:
            response = self.inner.handle_request(request)
        except BaseException as error:
            self._recorder.listen(exchange.end, completed=False, error=error)
            raise
        return self._attached(response, exchange, "SyncByteStream", _SyncBody)

    async def handle_async_request(self, request: Any) -> Any:
        exchange = self._recorder.begin(request)
        if exchange is None:
            return await self.inner.handle_async_request(request)
        try:
            response = await self.inner.handle_async_request(request)
        except BaseException as error:
            self._recorder.listen(exchange.end, completed=False, error=error)
            raise
        return self._attached(response, exchange, "AsyncByteStream", _AsyncBody)

    def _attached(self, response: Any, exchange: Exchange, base: str, body: type) -> Any:
        listen = self._recorder.listen
        listen(exchange.answered, response)
        if response.is_closed:  # it was read before it came here, as by a transport of a test
            listen(exchange.take, response.content)
            listen(exchange.end, completed=True)
        else:
            stream = _stream_class(body, getattr(_library_of(response), base))
            response.stream = stream(response.stream, exchange, self._recorder)
        return response

    def close(self) -> None:
        self.inner.close()

    async def aclose(self) -> None:
        await self.inner.aclose()

    def __enter__(self) -> Any:
        self.inner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.inner.__exit__(*error)

    async def __aenter__(self) -> Any:
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.inner.__aexit__(*error)


@cache
def _stream_class(body: type, base: type) -> Any:
    return type("RecordedStream", (body, base), {})


class _Body:
    def __init__(self, inner: Any, exchange: Exchange, recorder: Recorder) -> None:
        self._inner, self._exchange, self._listen = inner, exchange, recorder.listen


class _SyncBody(_Body):
    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._inner:
                self._listen(self._exchange.take, chunk)
                yield chunk
        except GeneratorExit:  # whoever reads has enough; `close` follows
            raise
        except BaseException as error:
            self._listen(self._exchange.end, completed=False, error=error)
            raise
        self._listen(self._exchange.end, completed=True)

    def close(self) -> None:
        self._inner.close()
        self._listen(self._exchange.end, completed=False)


class _AsyncBody(_Body):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._inner:
                self._listen(self._exchange.take, chunk)
                yield chunk
        except GeneratorExit:  # whoever reads has enough; `aclose` follows
            raise
        except BaseException as error:
            self._listen(self._exchange.end, completed=False, error=error)
            raise
        self._listen(self._exchange.end, completed=True)

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            self._listen(self._exchange.end, completed=False)


def clients_of(client: Any) -> list[Any]:
    """The HTTP clients inside an SDK's client, or the client itself. Raises ``DialectError`` where none is found."""
    if hasattr(client, "_mounts") and hasattr(client, "_transport"):
        return [client]
    inner = getattr(client, "_client", None)
    if inner is not None and hasattr(inner, "_transport"):
        return [inner]
    api = getattr(client, "_api_client", None)
    found = [getattr(api, name, None) for name in ("_httpx_client", "_async_httpx_client")]
    found = [each for each in found if hasattr(each, "_transport")]
    if not found:
        raise DialectError(
            f"a {type(client).__name__} holds no HTTP client that is known: give it one, such as "
            "http_client=recorder.http_client()"
        )
    return found
