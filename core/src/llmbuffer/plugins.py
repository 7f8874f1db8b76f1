"""Finding dialects, adapters and stores by name: built-in ones, and those of installed distributions.

Plugins are loaded once, when a name is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from threading import RLock
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pluggy

from . import hookspecs
from .errors import PluginError, UnknownDialectError
from .hookspecs import hookimpl
from .rules import Dialect

if TYPE_CHECKING:
    from importlib import metadata

__all__ = ["Offer", "Plugins", "get_dialect", "plugins"]

GROUP = "llmbuffer"
KINDS = ("dialects", "adapters", "stores")


class Offer(msgspec.Struct, frozen=True):
    """What a plugin offers: a name, its factory, and the distribution it came with.

    >>> Offer("mine", dict, "my-package", "1.0").distribution
    'my-package'
    """

    name: str
    factory: Callable[[], Any]
    distribution: str
    version: str


# The built-in dialects: their module and class, imported when the name is first asked for.
_DIALECTS = {
    "openai": "openai_chat.OpenAIChat",
    "openai-responses": "openai_responses.OpenAIResponses",
    "anthropic": "anthropic.Anthropic",
    "gemini": "gemini.Gemini",
    "deepseek": "deepseek.DeepSeek",
    "llamacpp": "llamacpp.LlamaCpp",
    "vllm": "vllm.Vllm",
}

# The built-in stores, by the scheme of their URL: what opens one, imported when the scheme is first asked for.
_STORES = {
    "memory": "memory.open_memory",
    "sqlite": "sqlite.open_sqlite",
    **dict.fromkeys(("redis", "rediss", "unix", "valkey", "valkeys"), "redis.open_redis"),
    **dict.fromkeys(("postgresql", "postgres"), "postgres.open_postgres"),
}


class _BuiltIn:
    @hookimpl
    def register_dialects(self, register: hookspecs.Register) -> None:
        for name, place in _DIALECTS.items():
            register(name, partial(_made, place))

    @hookimpl
    def register_stores(self, register: hookspecs.Register) -> None:
        for scheme, place in _STORES.items():
            register(scheme, partial(_found, "store", place))


def _made(place: str) -> Any:
    return _found("dialects", place)()


def _found(room: str, place: str) -> Any:
    module, _, name = place.partition(".")
    return getattr(import_module(f"{__package__}.{room}.{module}"), name)


class Plugins:
    """The plugins of one process. ``load`` is called by every look-up.

    >>> found = Plugins()
    >>> {"anthropic", "openai"} <= found.offers("dialects").keys()
    True
    """

    def __init__(self, *, entry_points: Callable[[], list[metadata.EntryPoint]] | None = None) -> None:
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._entry_points = entry_points if entry_points is not None else _entry_points
        self._offers: dict[str, dict[str, Offer]] | None = None
        self._lock = RLock()
        self._origins: dict[int, tuple[str, str]] = {}

    def register(
        self, plugin: object, *, distribution: str = "(registered by hand)", version: str = ""
    ) -> None:
        """Add a plugin object by hand; what entry points do for installed ones. Raises ``PluginError`` on nonsense."""
        with self._lock:
            if self._manager.is_registered(plugin):
                raise PluginError(f"plugin {plugin!r} is registered already")
            self._register(plugin, distribution, version)
            self._offers = None

    def unregister(self, plugin: object) -> None:
        """Take back a plugin that was registered by hand."""
        with self._lock:
            self._manager.unregister(plugin)
            self._offers = None

    def offers(self, kind: str) -> dict[str, Offer]:
        """Everything of one kind (``dialects``, ``adapters``, ``stores``), by name."""
        with self._lock:
            if self._offers is None:
                self._load()
                self._offers = {each: self._collect(each) for each in KINDS}
            return dict(self._offers[kind])

    def _load(self) -> None:
        if self._manager.has_plugin("built-in"):
            return
        self._manager.register(_BuiltIn(), "built-in")
        for entry_point in self._entry_points():
            distribution = entry_point.dist.name if entry_point.dist is not None else "(unknown)"
            version = entry_point.dist.version if entry_point.dist is not None else ""
            try:
                plugin = entry_point.load()
            except Exception as error:
                raise PluginError(
                    f"plugin {entry_point.name!r} of distribution {distribution!r} ({version}) cannot be loaded: "
                    f"{type(error).__name__}: {error}; update or uninstall it"
                ) from error
            if not self._manager.is_registered(plugin):
                self._register(plugin, distribution, version)

    def _register(self, plugin: object, distribution: str, version: str) -> None:
        unknown = [
            name for name in dir(plugin) if name.startswith("register_") and not hasattr(hookspecs, name)
        ]
        if unknown:
            known = [name for name in dir(hookspecs) if name.startswith("register_")]
            raise PluginError(
                f"distribution {distribution!r} implements the unknown hooks {unknown}; known are {known}"
            )
        self._manager.register(plugin)
        self._origins[id(plugin)] = (distribution, version)

    def _collect(self, kind: str) -> dict[str, Offer]:
        found: dict[str, Offer] = {}
        hook = getattr(self._manager.hook, f"register_{kind}")
        for implementation in hook.get_hookimpls():
            distribution, version = self._origins.get(id(implementation.plugin), (GROUP, _own_version()))

            def register(
                name: str, factory: Callable[[], Any], _from: tuple[str, str] = (distribution, version)
            ) -> None:
                if name in found:
                    raise PluginError(
                        f"{kind} {name!r} is offered by distribution {_from[0]!r} and by {found[name].distribution!r}: "
                        "uninstall one"
                    )
                found[name] = Offer(name, factory, *_from)

            implementation.function(register=register)
        return found


def _entry_points() -> list[metadata.EntryPoint]:
    from importlib import metadata  # a quarter of the time that importing llmbuffer may take

    return sorted(metadata.entry_points(group=GROUP), key=lambda entry_point: entry_point.name)


def _own_version() -> str:
    from importlib import metadata

    try:
        return metadata.version("llmbuffer")
    except metadata.PackageNotFoundError:  # imported from a source tree that is not installed
        return ""


plugins = Plugins()


def get_dialect(name: str) -> Dialect:
    """The dialect with this name. Raises ``UnknownDialectError``, listing what was found.

    >>> get_dialect("anthropic").name
    'anthropic'
    """
    offers = plugins.offers("dialects")
    if name not in offers:
        raise UnknownDialectError(
            f"unknown dialect {name!r}: found {sorted(offers)}; install the distribution that brings it, or pass a "
            "Dialect object"
        )
    return cast(Dialect, offers[name].factory())
