"""Where requests pass: a model client of AutoGen's, and the SDK client in it. Both are tapped on the object, once.

The model client is where all of a request is there to see (its configuration merged in) and where AutoGen has already
looked into its own response cache, so that the keys of that cache stay what they are. The SDK client is where the usage is
seen that AutoGen drops: cached tokens in streams, and all of Anthropic's.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

__all__ = ["ASKING", "Asked", "Asker", "Passing", "accepted", "install", "passing", "sdk_of"]


class Asked(NamedTuple):
    """What is asked: a model ``client``, its own ``create(params)``, and what the configuration says of the provider."""

    client: Any
    create: Callable[[Any], Any]
    api_type: str | None


class Asker(Protocol):
    """Who asks: what a request goes through, on its way to the model client."""

    def ask(self, asked: Asked, params: dict[str, Any]) -> Any:
        """The model client's response to ``params``."""
        ...


# Who asks in this thread or task, and where what passes the SDK is noted.
ASKING: ContextVar[Asker | None] = ContextVar("llmbuffer_asking", default=None)
_PASSING: ContextVar[Passing | None] = ContextVar("llmbuffer_passing", default=None)
_TAPPED = "_llmbuffer_tapped"


class Passing:
    """What passes the SDK within one request of the model client: the ``usages`` it reports, as mappings, in order.

    ``change`` gets the arguments of the SDK call and gives those that go out.
    """

    def __init__(self, change: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> None:
        self.change = change
        self.calls = 0
        self.usages: list[dict[str, Any]] = []

    def note(self, holder: Any) -> None:
        """Note the usage of a response, a chunk or an event; in a stream of Anthropic's it comes in two halves."""
        usage = getattr(holder, "usage", None) or getattr(getattr(holder, "message", None), "usage", None)
        dump = getattr(usage, "model_dump", None)
        if dump is None:
            return
        found = {name: value for name, value in dump().items() if value is not None}
        if getattr(holder, "type", None) == "message_delta" and self.usages:
            self.usages[-1].update(found)
        else:
            self.usages.append(found)


def passing(notes: Passing, create: Callable[[Any], Any], params: dict[str, Any]) -> Any:
    """``create(params)``, with what passes the SDK noted."""
    token = _PASSING.set(notes)
    try:
        return create(params)
    finally:
        _PASSING.reset(token)


def sdk_of(client: Any) -> tuple[Any, str] | None:
    """The resource of the SDK that a model client calls ``create`` of, and its wire: ``openai`` or ``anthropic``."""
    for name in ("_oai_client", "_client", "client"):
        inner = getattr(client, name, None)
        chat = getattr(inner, "chat", None)
        if chat is not None and hasattr(getattr(chat, "completions", None), "create"):
            return chat.completions, "openai"
        if inner is not None and hasattr(getattr(inner, "messages", None), "create"):
            return inner.messages, "anthropic"
    return None


def install(wrapper: Any, default: Callable[[], Asker | None] | None = None) -> None:
    """Tap the clients of an ``OpenAIWrapper``; what has none is left alone.

    ``default`` tells who asks where nobody said so: the framework asks some questions past the agent that owns the client.
    """
    configs = getattr(wrapper, "_config_list", None) or ()
    for number, client in enumerate(getattr(wrapper, "_clients", None) or ()):
        if not hasattr(client, "create") or _TAPPED in vars(client):
            continue
        setattr(client, _TAPPED, True)
        api_type = configs[number].get("api_type") if number < len(configs) else None
        asked = Asked(client, client.create, None if api_type is None else str(api_type))
        client.create = _tapped_client(asked, default)
        found = sdk_of(client)
        if found is not None and not hasattr(found[0].create, _TAPPED):
            found[0].create = _tapped_sdk(found[0].create, found[1])


def _tapped_client(asked: Asked, default: Callable[[], Asker | None] | None) -> Callable[..., Any]:
    create: Callable[..., Any] = asked.create

    @functools.wraps(create)
    def tapped(params: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        asker = ASKING.get() or (None if default is None else default())
        if asker is None or args or kwargs:
            return create(params, *args, **kwargs)
        return asker.ask(asked, params)

    return tapped


def _tapped_sdk(create: Callable[..., Any], wire: str) -> Callable[..., Any]:
    @functools.wraps(create)
    def tapped(*args: Any, **kwargs: Any) -> Any:
        notes = _PASSING.get()
        if notes is None:
            return create(*args, **kwargs)
        notes.calls += 1
        sent = kwargs if notes.change is None else notes.change(kwargs)
        if sent.get("stream") and wire == "openai" and not sent.get("stream_options"):
            sent = {**sent, "stream_options": {"include_usage": True}}
        response = create(*args, **sent)
        if kwargs.get("stream"):
            return _Noted(response, notes)
        notes.note(response)
        return response

    setattr(tapped, _TAPPED, True)
    return tapped


class _Noted:
    """A stream of the SDK whose chunks are noted as they pass."""

    def __init__(self, stream: Any, notes: Passing) -> None:
        self._stream, self._notes = stream, notes

    def __iter__(self) -> Iterator[Any]:
        for chunk in self._stream:
            self._notes.note(chunk)
            yield chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def accepted(resource: Any) -> frozenset[str]:
    """The fields that an SDK resource's ``create`` takes by name."""
    owner = type(resource)
    if owner not in _FIELDS:
        _FIELDS[owner] = frozenset(inspect.signature(owner.create).parameters)
    return _FIELDS[owner]


_FIELDS: dict[type, frozenset[str]] = {}
