"""The request of the SDK under a model client: what goes into its body at the last moment, and what came back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from typing_extensions import Self

from llmbuffer.usage import Usage

__all__ = ["Wire", "create_args_of", "dialect_of", "sdk_of"]

_CURRENT: ContextVar[Wire | None] = ContextVar("llmbuffer_autogen_wire", default=None)
_CHAT = "/chat/completions"
_PATHS = (_CHAT, "/messages")
Change = Callable[[dict[str, Any]], dict[str, Any]]


class Wire:
    """One call of a model client, seen where its SDK sends it.

    ``change`` makes the body that goes out of the one that the client made. ``stream_usage`` asks OpenAI's API for the usage
    of streams. ``on_begun`` is called when the answer begins.
    """

    def __init__(
        self,
        change: Change | None = None,
        *,
        stream_usage: bool = True,
        on_begun: Callable[[], object] | None = None,
    ) -> None:
        self.change, self.stream_usage, self.on_begun = change, stream_usage, on_begun
        self.requests = 0
        self._response: Any = None
        self._usage: dict[str, Any] = {}

    @contextmanager
    def open(self) -> Iterator[None]:
        """What is sent meanwhile, in this context and in tasks that begin in it, goes through this object."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    def sent(self, body: dict[str, Any], path: str) -> dict[str, Any]:
        """The body as it goes out to an API's path."""
        self.requests += 1
        if self.change is not None:
            body = self.change(body)
        if self.stream_usage and path.endswith(_CHAT) and body.get("stream") and "stream_options" not in body:
            body = {**body, "stream_options": {"include_usage": True}}
        return body

    def begun(self) -> None:
        """The answer begins."""
        if self.on_begun is not None:
            self.on_begun()

    def received(self, response: Any) -> None:
        """A whole response."""
        self.begun()
        self._response = response

    def heard(self, event: Any) -> None:
        """An event of a stream: usage may come in several of them, and later counts stand for all."""
        for holder in (event, getattr(event, "message", None)):
            usage = getattr(holder, "usage", None)
            dump = getattr(usage, "model_dump", None)
            if dump is not None:
                said = dump(mode="json", by_alias=True, exclude_unset=True)
                self._usage |= {name: count for name, count in said.items() if count is not None}

    def usage(self, read: Callable[[Any], Usage | None]) -> Usage | None:
        """What the provider reported, read by the dialect; ``None`` where it reported nothing."""
        if self._response is not None:
            return read(self._response)
        return read({"usage": self._usage}) if self._usage else None


def sdk_of(client: Any) -> Any:
    """The SDK client under a model client, with ``Wire`` let in; ``None`` where there is none that is known.

    Wrappers that hold the model client as ``client`` (``ChatCompletionCache``) are looked through.
    """
    for _ in range(8):
        sdk = getattr(client, "_client", None)
        if sdk is not None:
            return _tapped(sdk) if _is_known(sdk) else None
        client = getattr(client, "client", None) or getattr(client, "model_client", None)
    return None


def create_args_of(client: Any) -> dict[str, Any]:
    """The arguments that a model client sends with each request, ``model`` among them; empty where it tells none."""
    for _ in range(8):
        found = getattr(client, "_create_args", None)
        if isinstance(found, dict):
            return found
        client = getattr(client, "client", None) or getattr(client, "model_client", None)
    return {}


def dialect_of(sdk: Any) -> str | None:
    """The dialect that an SDK client speaks; ``None`` where it is not known."""
    if sdk is None:
        return None
    if any(each.__module__.partition(".")[0] == "anthropic" for each in type(sdk).__mro__):
        return "anthropic"
    return "deepseek" if "deepseek.com" in str(getattr(sdk, "base_url", "")) else "openai"


def _is_known(sdk: Any) -> bool:
    """Whether it is an asynchronous client of OpenAI's or Anthropic's SDK, or of a class made from one."""
    names = {(each.__module__.partition(".")[0], each.__name__) for each in type(sdk).__mro__}
    return bool(names & {("openai", "AsyncAPIClient"), ("anthropic", "AsyncAPIClient")})


def _tapped(sdk: Any) -> Any:
    """Let ``Wire`` see the requests of an SDK client; once, and of no other use than while a ``Wire`` is open."""
    inner = sdk.request
    if getattr(inner, "llmbuffer_tap", False):
        return sdk

    async def request(cast_to: Any, options: Any, **further: Any) -> Any:
        wire = _CURRENT.get()
        body = getattr(options, "json_data", None)
        path = str(getattr(options, "url", "")).partition("?")[0]
        if wire is None or not isinstance(body, dict) or not path.endswith(_PATHS):
            return await inner(cast_to, options, **further)
        sent = wire.sent(body, path)
        if sent is not body:
            options = options.model_copy(update={"json_data": sent})
        response = await inner(cast_to, options, **further)
        if further.get("stream"):
            return _Heard(response, wire)
        wire.received(response)
        return response

    request.llmbuffer_tap = True  # type: ignore[attr-defined]  # how a second wrapper knows the first one
    sdk.request = request
    return sdk


class _Heard:
    """A stream of the SDK's whose events a ``Wire`` hears; all else is the stream's own."""

    def __init__(self, stream: Any, wire: Wire) -> None:
        self._stream, self._wire = stream, wire
        self._events = self._heard()

    async def _heard(self) -> AsyncIterator[Any]:
        first = True
        async for event in self._stream:
            if first:
                first = False
                self._wire.begun()
            self._wire.heard(event)
            yield event

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._events

    async def __anext__(self) -> Any:
        return await self._events.__anext__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
